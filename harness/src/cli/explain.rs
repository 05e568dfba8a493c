//! `xmbench explain`: what a method looked at to find an image for a text, or a text for an image.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, Result, anyhow, bail};
use candle_core::Device;
use serde_json::json;
use xmbench_datasets::{Collection, Dataset, random::Seed};
use xmbench_methods::{
    Codes, Matcher, Method, Run, Similarity, Training,
    method::{Epoch, Judge, Observer},
    train::apart::apart,
};

use super::{Status, shared::Means};
use crate::{
    output::{answer, json as to_json, progress, tell},
    protocol::Protocol,
    record::{Control, Id, Stem, files},
    report::{Figure, attention},
    retrieval::{Direction, index, looked},
    run::{Experiment, Job, Methods, Profile, device, machine, nearest, plan, validate},
};

#[derive(clap::Args)]
pub struct Args {
    /// The method
    #[arg(long)]
    method: String,
    /// The dataset
    #[arg(long)]
    dataset: String,
    /// What asks, in the test split: its position from 0, its identifier, or words that a text holds
    #[arg(long)]
    query: String,
    /// What the query is
    #[arg(long, value_enum, default_value_t = By::Text)]
    by: By,
    /// A parameter of the method: direction=i2t
    #[arg(long = "set", value_name = "KEY=VALUE")]
    params: Vec<String>,
    /// An option of the dataset: split=random
    #[arg(long = "option", value_name = "KEY=VALUE")]
    options: Vec<String>,
    /// The row of an experiment whose parameters are taken; the first of the method on the dataset when absent
    #[arg(long, value_name = "LABEL")]
    row: Option<String>,
    /// The profile of that experiment
    #[arg(long, value_enum, default_value_t)]
    profile: Profile,
    /// Root seed of the fit
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    pub means: Means,
    /// Where fitted models are kept, so that a second query does not fit anew
    #[arg(long, value_name = "DIR", default_value = "results/matchers")]
    matchers: PathBuf,
    /// Where the pictures go
    #[arg(long, value_name = "DIR", default_value = "reports/explain")]
    out: PathBuf,
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
}

/// What a query is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum By {
    /// A text that looks for images
    Text,
    /// An image that looks for texts
    Image,
}

pub fn run(args: &Args, methods: &Methods) -> Result<Status> {
    let method = methods.find(&args.method)?;
    let options = super::assignments(&args.options)?;
    let folder = args.means.data();
    let row = row(args, method, methods)?;
    let options = if args.options.is_empty() { row.options.clone() } else { options };
    let dataset = xmbench_datasets::open(&args.dataset, &options, folder.as_deref())?;
    let query = query(&dataset.test, args)?;
    let (device, device_name) = device::open(args.means.device)?;
    let stop = super::run::watch_for_interrupt()?;
    print_unless(args.json, &format!("{} with the parameters of {}", method.card().label, row.origin));
    let fitted = fitted(args, method, &row, &dataset, (&device, &device_name), &stop)?;
    let Some(matcher) = fitted else { return Ok(Status::Interrupted) };
    let answers = answers(&*matcher, &dataset.test, query, args.by)?;
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make the folder {}", args.out.display()))?;
    let mut written = Vec::new();
    for answer in &answers {
        let figure = figure(args, method, &dataset, &*matcher, query, answer, &row.origin)?;
        let (asks, other) = if args.by == By::Text { ("text", "image") } else { ("image", "text") };
        let stem = format!("{}-{}-{asks}{query}-{other}{}", method.card().name, dataset.name, answer.item);
        let stem = Stem::of(&stem);
        let picture = attention::draw(&figure, &stem)?;
        for (name, bytes) in picture.files() {
            let path = args.out.join(name);
            files::replace_with_unsynced(&path, bytes)?;
            written.push(path);
        }
        print_unless(args.json, &format!("{}: {}", figure.title, args.out.join(stem.file("png")).display()));
    }
    if args.json {
        let found: Vec<_> = answers
            .iter()
            .map(|answer| json!({"item": answer.item, "rank": answer.rank, "score": answer.score, "own": answer.own}))
            .collect();
        answer(&to_json(&json!({ "query": query, "answers": found, "files": written })))?;
    }
    Ok(Status::Done)
}

fn print_unless(json: bool, line: &str) {
    if !json {
        tell(line);
    }
}

/// What is fitted: the row of an experiment with what the command line says put in its place, or the method's defaults.
struct Row {
    /// Complete parameters.
    params: toml::Table,
    /// Where they come from.
    origin: String,
    /// Options of the dataset.
    options: toml::Table,
    /// What epochs are selected by.
    protocol: Protocol,
}

fn row(args: &Args, method: &'static dyn Method, methods: &Methods) -> Result<Row> {
    let mut labels = Vec::new();
    let mut taken = None;
    // Also of one that the profile leaves out: its settings are as good.
    for experiment in Experiment::builtin(args.profile)? {
        let Some(entry) = experiment.datasets.iter().find(|entry| entry.name == args.dataset) else { continue };
        for planned in plan(&experiment, methods)?.iter().map(|planned| planned.on(&[entry.label()])) {
            // A row that is made of others fits nothing.
            let Job::Fit { settings, .. } = &planned.job else { continue };
            let same = planned.control == Control::None && planned.method() == method.card().name;
            if !same || labels.contains(&planned.label) {
                continue;
            }
            labels.push(planned.label.clone());
            let wanted = args.row.as_ref().is_none_or(|row| *row == planned.label);
            if wanted && taken.is_none() {
                taken = Some(Row {
                    params: settings[0].clone(),
                    origin: format!("row {} of {}, profile {}", planned.label, experiment.name, args.profile),
                    options: entry.options.clone(),
                    protocol: experiment.protocol.clone(),
                });
            }
        }
    }
    let mut row = match (taken, &args.row) {
        (Some(taken), _) => taken,
        (None, Some(row)) => {
            let hint = nearest(row, labels.iter().map(String::as_str));
            bail!("no row `{row}` of {} on {} in profile {}{hint}", args.method, args.dataset, args.profile)
        }
        (None, None) => Row {
            params: toml::Table::new(),
            origin: "its defaults".into(),
            options: toml::Table::new(),
            protocol: Protocol::pairs(),
        },
    };
    let changes = super::assignments(&args.params)?;
    if !changes.is_empty() {
        row.origin += &format!(" with {}", args.params.join(" "));
        row.params.extend(changes);
    }
    row.params = method.resolve(&row.params)?;
    Ok(row)
}

/// The position of the query in its split.
fn query(test: &Collection, args: &Args) -> Result<usize> {
    let ids = if args.by == By::Text { &test.texts.ids } else { &test.images.ids };
    if let Ok(position) = args.query.parse::<usize>()
        && position < ids.len()
    {
        return Ok(position);
    }
    if let Some(position) = ids.iter().position(|id| *id == args.query) {
        return Ok(position);
    }
    let raw = if args.by == By::Text { test.texts.raw.as_deref() } else { None };
    if let Some(position) = raw.and_then(|raw| raw.iter().position(|text| text.contains(&args.query))) {
        return Ok(position);
    }
    let hint = nearest(&args.query, ids.iter().map(String::as_str));
    bail!(
        "no query `{}`: expected a position from 0 to {}, an identifier{}{hint}",
        args.query,
        ids.len() - 1,
        if raw.is_some() { ", or words that a test text holds" } else { "" }
    )
}

/// Prints an epoch as it ends.
struct Epochs {
    quiet: bool,
}

impl Observer for Epochs {
    fn step(&mut self, _: usize, _: usize, _: f64) {}

    fn epoch(&mut self, epoch: &Epoch) {
        if !self.quiet {
            let validation = epoch.validation.map(|score| format!(", validation {score:.1}")).unwrap_or_default();
            progress(&format!("epoch {}: loss {:.4}{validation}", epoch.epoch, epoch.loss));
        }
    }
}

/// The matcher from the folder of fitted ones, or fitted now and put there, with the epoch of the best validation score; nothing if
/// the fit was interrupted.
fn fitted(
    args: &Args,
    method: &'static dyn Method,
    row: &Row,
    dataset: &Dataset,
    (device, device_name): (&Device, &str),
    stop: &AtomicBool,
) -> Result<Option<Box<dyn Matcher>>> {
    let card = method.card();
    let identity =
        json!([card.name, machine::CODE, row.params, row.protocol, dataset.checksum, args.seed, device_name]);
    let folder = args.matchers.join(Stem::of(&format!("{}-{}", card.name, Id::of(&identity.to_string()))).as_str());
    if folder.is_dir() {
        return Ok(Some(method.load(&folder, device)?));
    }
    print_unless(args.json, &format!("fitting on {} (seed {}), on {device_name}", dataset.name, args.seed));
    let fit = || {
        let mut epochs = Epochs { quiet: args.json };
        let selected_on = dataset.split(row.protocol.select_on);
        let judge = |matcher: &dyn Matcher| match selected_on {
            Some(collection) => validate(matcher, collection, &row.protocol),
            None => Ok(0.0),
        };
        let judge = selected_on.is_some().then_some(&judge as &Judge<'_>);
        let mut run = Run { device: device.clone(), judge, ..Run::new(Seed(args.seed), &mut epochs, stop) };
        method.fit(&Training::of(dataset), &row.params, &mut run)
    };
    let matcher = match apart("explain", rayon::current_num_threads(), fit).map_err(|reason| anyhow!(reason))? {
        Ok(matcher) => matcher,
        Err(_) if stop.load(Ordering::Relaxed) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    keep(&*matcher, &folder)?;
    Ok(Some(matcher))
}

/// Saves a matcher so that its folder is there only if all of it is.
fn keep(matcher: &dyn Matcher, folder: &Path) -> Result<()> {
    let partial = folder.with_extension(format!("{}.partial", std::process::id()));
    let cannot = || format!("cannot write {}; choose another folder with --matchers", folder.display());
    std::fs::create_dir_all(&partial).with_context(cannot)?;
    matcher.save(&partial)?;
    std::fs::rename(&partial, folder).with_context(cannot)
}

/// An item that the query found.
struct Answer {
    item: usize,
    /// From 1.
    rank: usize,
    score: f32,
    /// Whether it belongs to the query.
    own: bool,
    codes: [Codes; 2],
}

/// The best item, and the best of the query's own where that is another.
fn answers(matcher: &dyn Matcher, test: &Collection, query: usize, by: By) -> Result<Vec<Answer>> {
    let (images, texts) = (matcher.encode_images(&test.images)?, matcher.encode_texts(&test.texts)?);
    let (queries, gallery, direction, own) = match by {
        By::Text => (&texts, &images, Direction::T2i, test.pairs.images_of(query)),
        By::Image => (&images, &texts, Direction::I2t, test.pairs.texts_of(query)),
    };
    let found = index(gallery, matcher.similarity(), direction)?.search(queries, query..query + 1, gallery.len())?;
    let belongs = |item: u32| own.contains(&item);
    let best_own = found.items.iter().position(|&item| belongs(item)).context("the query belongs to nothing")?;
    let places = if best_own == 0 { vec![0] } else { vec![0, best_own] };
    let answer = |at: usize| Answer {
        item: found.items[at] as usize,
        rank: at + 1,
        score: found.scores[at],
        own: belongs(found.items[at]),
        codes: [images.clone(), texts.clone()],
    };
    Ok(places.into_iter().map(answer).collect())
}

fn figure(
    args: &Args,
    method: &dyn Method,
    dataset: &Dataset,
    matcher: &dyn Matcher,
    query: usize,
    answer: &Answer,
    origin: &str,
) -> Result<Figure> {
    let card = method.card();
    let (image, text) = if args.by == By::Text { (answer.item, query) } else { (query, answer.item) };
    let test = &dataset.test;
    let [images, texts] = &answer.codes;
    let maps = looked(matcher, (&test.images, images, image), (&test.texts, texts, text))?;
    if maps.is_empty() && !matches!(matcher.similarity(), Similarity::Pairwise(_)) {
        bail!(
            "{} compares whole vectors: there is no attention to show; xmbench list methods names those of the families attention and dense, \
             which have some",
            card.name
        );
    }
    if maps.is_empty() {
        bail!(
            "{} has no weights between words and regions to show; scan, imram, san, uarda and show_attend_tell have some",
            card.name
        );
    }
    let tokens = test.texts.tokens.as_ref().map(|tokens| tokens[text].as_slice()).unwrap_or_default();
    let word = |&token: &u32| dataset.words.get(token as usize).cloned().unwrap_or_else(|| format!("word {token}"));
    let absent = || format!("{} does not say where its regions lie: a matrix stands for the picture", dataset.name);
    let boxes = test.images.boxes_of(image).map(<[_]>::to_vec).ok_or_else(absent);
    let says = test.texts.raw.as_ref().map_or_else(|| test.texts.ids[text].clone(), |raw| raw[text].clone());
    let total = if args.by == By::Text { test.images.len() } else { test.texts.len() };
    let kind = if args.by == By::Text { "image" } else { "text" };
    let whose = if answer.own { "its own" } else { "not its own" };
    let shown = match &test.images.ids[image] {
        id if id.is_ascii() => format!("image {image}, {id}"),
        _ => format!("image {image}"),
    };
    let asking = match args.by {
        By::Text => format!("“{says}”"),
        By::Image => shown.clone(),
    };
    let title = format!("{}: {asking} finds {kind} {} of {total} ({whose})", card.label, answer.rank);
    let lines = vec![
        format!("{shown}; text {text}, “{says}”; score {:.4}", answer.score),
        format!(
            "{}, test split; fitted on its training split, seed {}, parameters of {origin}",
            format!("{} {}", dataset.name, dataset.variant).trim_end(),
            args.seed
        ),
    ];
    let picture = test.images.pictures.as_ref().map(|draw| draw(image));
    Ok(Figure { title, lines, words: tokens.iter().map(word).collect(), picture, boxes, maps })
}
