//! `xmbench eval`: the metrics of two files of embeddings, or of one of scores, without a dataset.

use std::{
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use anyhow::{Context, Result, bail};
use serde_json::json;
use toml::{Table, Value};
use xmbench_datasets::{
    Checksum, Collection, Dataset, Images, Labels, Notice, Pairs, Split, Texts,
    arrays::{self, Array},
    files,
    random::Seed,
};
use xmbench_methods::{Run, Training, method::Silent, registry};

use super::{Status, run::command_line};
use crate::{
    output::{answer, json as to_json},
    protocol::{self, Denominator, Protocol, Task, Ties},
    record::files::replace_with_unsynced,
    report::{
        export,
        single::{Single, table},
    },
    run::evaluate,
};

/// Text j belongs to image j / captions (rounded down). Files are .npy, .npz#NAME, .safetensors#NAME, or folders NAME_0.npy, NAME_1.npy, ..
#[derive(clap::Args)]
pub struct Args {
    /// Embeddings of the images, a row each
    #[arg(
        long,
        value_name = "FILE",
        requires = "texts",
        required_unless_present = "scores",
        conflicts_with = "scores"
    )]
    images: Option<String>,
    /// Embeddings of the texts, a row each
    #[arg(long, value_name = "FILE", requires = "images")]
    texts: Option<String>,
    /// Scores in place of embeddings, a row an image and a column a text; higher is better
    #[arg(long, value_name = "FILE")]
    scores: Option<String>,
    /// Texts of each image; as many as there are when absent
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    captions: Option<u32>,
    /// How embeddings are compared: cosine, dot, l2, hamming
    #[arg(long, default_value = "cosine", conflicts_with = "scores")]
    similarity: String,
    /// With hamming and packed codes, their bits where they do not fill the last byte
    #[arg(long, value_name = "N", default_value_t = 0)]
    code_bits: u32,
    /// Cutoffs of R@K, or with --labels of MAP@K; 1,5,10 and 50 when absent
    #[arg(long, value_name = "K,..", value_delimiter = ',')]
    cutoffs: Option<Vec<usize>>,
    /// Consecutive folds of images to average over, 5 for the 1K of COCO
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "labels")]
    folds: usize,
    /// Classes of image k in line k, separated by commas: what shares one is relevant, and MAP is measured
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// What tables call the row
    #[arg(long, default_value = "Ours")]
    name: String,
    /// Write metrics, protocol and sizes as JSON; - for stdout and nothing else there
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the table for LaTeX
    #[arg(long, value_name = "FILE")]
    latex: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<Status> {
    let method = registry::find("given").context("the method `given` is part of the program")?;
    let (params, images, texts) = args.files()?;
    let captions = args.captions(images, texts)?;
    let test = args.collection(images, texts, captions)?;
    let protocol = Protocol { task: args.task(), split: Split::Test, select_on: Split::Val, ties: Ties::Expected };
    protocol.check()?;
    let dataset = Dataset {
        name: "files".into(),
        variant: String::new(),
        checksum: Checksum(String::new()),
        notice: Notice::default(),
        words: [].into(),
        classes: Vec::new(),
        train: Collection::default(),
        val: None,
        test,
        database: None,
    };
    let (stop, mut silent) = (AtomicBool::new(false), Silent);
    let matcher = method.fit(&Training::of(&dataset), &params, &mut Run::new(Seed(0), &mut silent, &stop))?;
    let found = match evaluate(&*matcher, &dataset, &protocol) {
        Ok(found) => found,
        Err(failure) => bail!("{failure}"),
    };
    let chance = protocol::chance(&protocol, &dataset.test, &dataset.test)?;
    let relation = if captions == 1 { "1 text an image".into() } else { format!("{captions} texts an image") };
    let single = Single {
        name: &args.name,
        title: &args.name,
        protocol: &protocol,
        described: protocol.with_splits(["test"].into_iter()),
        found: &found,
        chance: &chance,
        data: format!("{images} images, {texts} texts, {relation}; {}", args.compared()),
        command: command_line(),
    };
    let table = table(&single);
    if let Some(path) = &args.latex {
        let tex = export::files(&table).into_iter().find(|(ending, _)| *ending == "tex");
        let (_, text) = tex.context("tables are written for LaTeX")?;
        replace_with_unsynced(path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let object = || {
        to_json(&json!({
            "name": args.name, "images": images, "texts": texts, "captions": captions, "similarity": args.compared(),
            "protocol": protocol, "described": single.described, "metrics": found.metrics, "envelope": found.envelope,
            "chance": chance.metrics,
        }))
    };
    match &args.json {
        Some(path) if path.as_os_str() == "-" => answer(&object())?,
        Some(path) => {
            replace_with_unsynced(path, format!("{}\n", object()).as_bytes())
                .with_context(|| format!("cannot write {}", path.display()))?;
            answer(export::markdown(&table).trim_end())?;
        }
        None => answer(export::markdown(&table).trim_end())?,
    }
    Ok(Status::Done)
}

impl Args {
    /// Parameters of `given`, and the numbers of images and texts.
    fn files(&self) -> Result<(Table, usize, usize)> {
        let mut params = Table::new();
        let mut open = |key: &str, named: &str| -> Result<Array> {
            let place = place(named)?;
            params.insert(key.into(), Value::String(place.clone()));
            Ok(Array::open(&place)?)
        };
        let (images, texts) = match (&self.images, &self.texts, &self.scores) {
            (Some(images), Some(texts), None) => (open("images", images)?.rows(), open("texts", texts)?.rows()),
            (None, None, Some(scores)) => {
                let array = open("scores", scores)?;
                (array.rows(), array.cols())
            }
            _ => bail!("name --images and --texts, or --scores"),
        };
        if self.scores.is_none() {
            params.insert("similarity".into(), Value::String(self.similarity.clone()));
            params.insert("code_bits".into(), Value::Integer(self.code_bits.into()));
        }
        Ok((params, images, texts))
    }

    /// Texts an image.
    fn captions(&self, images: usize, texts: usize) -> Result<usize> {
        let what = self.scores.as_ref().or(self.texts.as_ref()).map_or("", String::as_str);
        match self.captions {
            Some(captions) if images > 0 && texts == images * captions as usize => Ok(captions as usize),
            None if images > 0 && texts > 0 && texts.is_multiple_of(images) => Ok(texts / images),
            _ if images == 0 || texts == 0 => bail!("{what}: expected images and texts, found {images} and {texts}"),
            Some(captions) => bail!(
                "{what}: expected {} texts, {captions} for each of {images} images (--captions), found {texts}; write the texts of an \
                 image one behind the other, in the order of the images",
                images as u128 * u128::from(captions)
            ),
            None => bail!(
                "{what}: expected as many texts for each of {images} images, found {texts}, which is no multiple; texts of images that \
                 have different numbers of them need a dataset (`xmbench run` with `method = \"given\"`)"
            ),
        }
    }

    /// The items with their pairs, and their classes where a file names them.
    fn collection(&self, images: usize, texts: usize, captions: usize) -> Result<Collection> {
        if u32::try_from(texts.max(images)).is_err() {
            bail!("expected at most {} items, found {images} images and {texts} texts", u32::MAX);
        }
        let ids = |items: usize| (0..items).map(|item| item.to_string()).collect();
        let labels = self.labels.as_ref().map(|path| labels(path, images)).transpose()?;
        let owners: Vec<usize> = (0..texts).map(|text| text / captions).collect();
        let of_texts = labels.as_ref().map(|labels| labels.subset(&owners));
        let pairs = owners.iter().zip(0..).map(|(&image, text)| (image as u32, text)).collect();
        Ok(Collection {
            images: Images { ids: ids(images), labels, ..Images::default() },
            texts: Texts { ids: ids(texts), labels: of_texts, ..Texts::default() },
            pairs: Pairs::new(images, texts, pairs),
        })
    }

    fn task(&self) -> Task {
        let cutoffs = |usual: &[usize]| self.cutoffs.clone().unwrap_or_else(|| usual.to_vec());
        match self.labels {
            None => Task::Pairs { cutoffs: cutoffs(&[1, 5, 10]), folds: self.folds },
            Some(_) => {
                let denominator = Denominator::default();
                Task::Category { gallery: Split::Test, cutoffs: cutoffs(&[50]), denominator }
            }
        }
    }

    /// What makes a score.
    fn compared(&self) -> &str {
        if self.scores.is_some() { "scores" } else { &self.similarity }
    }
}

/// A place that a user names himself: a link is followed wherever it leads.
fn place(named: &str) -> Result<String> {
    let (path, key) = arrays::split(named);
    let path = files::named(&path)?;
    let path = path.to_str().with_context(|| format!("{} is no UTF-8", path.display()))?;
    Ok(key.map_or_else(|| path.to_owned(), |key| format!("{path}#{key}")))
}

/// Classes of each image, one line each.
fn labels(path: &Path, images: usize) -> Result<Labels> {
    let path = files::named(path)?;
    let text = String::from_utf8(files::read(&path)?)
        .map_err(|error| anyhow::anyhow!("{}: expected UTF-8, found other bytes ({error})", path.display()))?;
    let lines: Vec<Vec<&str>> =
        text.lines().map(|line| line.split(',').map(str::trim).filter(|name| !name.is_empty()).collect()).collect();
    if lines.len() != images {
        bail!(
            "{}: expected {images} lines, the classes of an image each, found {}; write the classes of image k into line k",
            path.display(),
            lines.len()
        );
    }
    let mut names: Vec<&str> = lines.iter().flatten().copied().collect();
    names.sort_unstable();
    names.dedup();
    let number = |name: &&str| names.binary_search(name).expect("every name is in the list") as u32;
    let of = |line: &Vec<&str>| {
        let mut of: Vec<u32> = line.iter().map(number).collect();
        of.sort_unstable();
        of.dedup();
        of
    };
    Ok(Labels { classes: names.len(), of: lines.iter().map(of).collect() })
}
