//! One trial: fit, encode, score, time. In a thread of its own with a large stack (autograd walks its graph recursively),
//! so that a panic inside a method ends the trial and not the run.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use candle_core::Device;
use xmbench_datasets::{Collection, Dataset, Split, random::Seed};
use xmbench_methods::{
    Codes, Error, Matcher, Run, Training,
    method::{Epoch, Observer},
};

use super::{
    Planned, Profile, machine,
    timing::{self, Effort},
};
use crate::{
    protocol::{self, Direction, Evaluation, Protocol, Query, Side},
    record::{Control, SELECTION, Timing},
    retrieval,
};

/// Bytes of stack for a trial; reserved, not used up.
const STACK: usize = 256 << 20;

/// What a trial runs in.
pub struct Setting<'a> {
    /// What it is fitted and scored on.
    pub dataset: &'a Dataset,
    /// What the numbers mean.
    pub protocol: &'a Protocol,
    /// How long is timed.
    pub profile: Profile,
    /// Where tensors live.
    pub device: &'a Device,
    /// Where checkpoints go and are looked for.
    pub checkpoints: PathBuf,
    /// Set from outside to stop.
    pub stop: &'a AtomicBool,
}

/// What a trial gives.
#[derive(Debug, Default)]
pub struct Numbers {
    /// See [`crate::record::Trial`].
    pub selected: BTreeMap<String, String>,
    /// See [`crate::record::Trial`].
    pub metrics: BTreeMap<String, f64>,
    /// See [`crate::record::Trial`].
    pub envelope: BTreeMap<String, [f64; 2]>,
    /// See [`crate::record::Trial`].
    pub curves: BTreeMap<String, Vec<[f64; 2]>>,
    /// See [`crate::record::Trial`].
    pub history: Vec<Epoch>,
    /// See [`crate::record::Trial`].
    pub timings: Vec<Timing>,
    /// See [`crate::record::Trial`].
    pub peak_memory: u64,
    /// See [`crate::record::Trial`].
    pub bytes_per_item: [f64; 2],
    /// See [`crate::record::Trial`].
    pub queries: Vec<Query>,
}

/// Why a trial gives nothing.
#[derive(Debug)]
pub enum Failure {
    /// The run was stopped from outside.
    Interrupted,
    /// The reason as it is printed.
    Reason(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Interrupted => "interrupted",
            Self::Reason(reason) => reason,
        })
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Interrupted => Self::Interrupted,
            other => Self::Reason(other.to_string()),
        }
    }
}

/// Runs a trial.
///
/// # Errors
/// Whatever keeps the trial from giving numbers, a panic included.
pub fn execute(
    planned: &Planned,
    setting: &Setting<'_>,
    observer: &mut (dyn Observer + Send),
) -> Result<Numbers, Failure> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(planned.label.clone()).stack_size(STACK);
        let handle = thread.spawn_scoped(scope, || measure(planned, setting, observer)).map_err(|error| {
            Failure::Reason(format!("cannot start a thread with {} MiB of stack: {error}", STACK >> 20))
        })?;
        handle.join().unwrap_or_else(|payload| {
            let text = payload.downcast_ref::<&str>().map(|text| text.to_string());
            let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
            Err(Failure::Reason(format!("the method panicked: {text}")))
        })
    })
}

fn measure(planned: &Planned, setting: &Setting<'_>, observer: &mut (dyn Observer + Send)) -> Result<Numbers, Failure> {
    let Setting { dataset, protocol, profile, device, .. } = setting;
    machine::forget_peak();
    std::fs::create_dir_all(&setting.checkpoints).map_err(Error::io(&setting.checkpoints))?;
    let selected_on = dataset.split(protocol.select_on);
    let judge = |matcher: &dyn Matcher| match selected_on {
        Some(collection) => validate(matcher, collection, protocol),
        None => Ok(0.0),
    };
    let goes_on = || if setting.stop.load(Ordering::Relaxed) { Err(Failure::Interrupted) } else { Ok(()) };
    let mut fit = |params: &toml::Table, checkpoints: PathBuf| -> Result<Fit, Failure> {
        let mut run = Run {
            device: Device::clone(device),
            judge: selected_on.is_some().then_some(&judge),
            checkpoints: Some(checkpoints),
            control: planned.control == Control::Shuffled,
            ..Run::new(Seed(planned.seed), &mut *observer, setting.stop)
        };
        let start = Instant::now();
        let matcher = planned.method.fit(&Training::of(dataset), params, &mut run)?;
        device.synchronize().map_err(Error::from)?;
        let wall = start.elapsed().as_secs_f64();
        // A fit that was resumed took what its epochs took, of which the clock saw only the last.
        let trained: f64 = run.history.iter().map(|epoch| epoch.seconds).sum();
        goes_on()?;
        Ok(Fit { matcher, seconds: wall.max(trained), history: run.history })
    };
    let (Fit { matcher, seconds, history }, taken, selection) = match planned.settings.as_slice() {
        [only] => (fit(only, setting.checkpoints.clone())?, 0, Vec::new()),
        settings => select(settings, &setting.checkpoints, &mut fit, |matcher| {
            let split = split(dataset, protocol.select_on)?;
            Ok(validate(matcher, split, protocol)?)
        })?,
    };
    let mut timings =
        vec![Timing { phase: "fit".into(), items: dataset.train.pairs.all().len(), seconds: vec![seconds] }];

    let scored = split(dataset, protocol.split)?;
    let codes = Coded::of(&*matcher, scored)?;
    let searched = match protocol.gallery() {
        gallery if gallery == protocol.split => None,
        gallery => {
            let collection = split(dataset, gallery)?;
            Some((collection, Coded::of(&*matcher, collection)?))
        }
    };
    let queries = codes.side(scored);
    let gallery = searched.as_ref().map_or(queries, |(collection, codes)| codes.side(collection));
    goes_on()?;
    let mut evaluation = protocol::evaluate(protocol, queries, gallery, matcher.similarity())?;
    if !selection.is_empty() {
        evaluation.curves.insert(SELECTION.into(), selection);
    }
    if let Some((name, value)) = evaluation.metrics.iter().find(|(_, value)| !value.is_finite()) {
        return Err(Failure::Reason(format!("metric {name} is {value}")));
    }
    let peak_memory = machine::peak_memory();
    goes_on()?;
    let (asked, answers) = (&codes.texts, gallery.images);
    timings.extend(clock(&*matcher, scored, asked, answers, *profile)?);
    Ok(Numbers {
        selected: distinguishing(&planned.settings, taken),
        history,
        timings,
        peak_memory,
        bytes_per_item: [codes.images.bytes_per_item(), codes.texts.bytes_per_item()],
        ..Numbers::from(evaluation)
    })
}

/// A fitted matcher with the seconds that it took.
struct Fit {
    matcher: Box<dyn Matcher>,
    seconds: f64,
    history: Vec<Epoch>,
}

/// The parameters of the setting at `taken` in which the settings differ.
fn distinguishing(settings: &[toml::Table], taken: usize) -> BTreeMap<String, String> {
    let Some(chosen) = settings.get(taken) else { return BTreeMap::new() };
    let differs = |key: &String| settings.iter().any(|other| other.get(key) != chosen.get(key));
    let text = |value: &toml::Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
    chosen.iter().filter(|(key, _)| differs(key)).map(|(key, value)| (key.clone(), text(value))).collect()
}

/// The setting with the best validation score, the first among equals, its position, and every score.
fn select(
    settings: &[toml::Table],
    checkpoints: &std::path::Path,
    mut fit: impl FnMut(&toml::Table, PathBuf) -> Result<Fit, Failure>,
    judge: impl Fn(&dyn Matcher) -> Result<f64, Failure>,
) -> Result<(Fit, usize, Vec<[f64; 2]>), Failure> {
    let mut best: Option<(f64, usize, Fit)> = None;
    let mut scores = Vec::new();
    for (position, params) in settings.iter().enumerate() {
        // Each trains on its own: a checkpoint of another would be taken for this one's.
        let folder = checkpoints.join(position.to_string());
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let fit = fit(params, folder)?;
        let score = judge(&*fit.matcher)?;
        scores.push([(position + 1) as f64, score]);
        if best.as_ref().is_none_or(|(best, _, _)| best.is_nan() || score > *best) {
            best = Some((score, position, fit));
        }
    }
    let (_, taken, best) = best.expect("a trial has at least one setting");
    Ok((best, taken, scores))
}

impl From<Evaluation> for Numbers {
    fn from(evaluation: Evaluation) -> Self {
        let Evaluation { metrics, envelope, curves, queries } = evaluation;
        Self { metrics, envelope, curves, queries, ..Self::default() }
    }
}

fn split(dataset: &Dataset, split: Split) -> Result<&Collection, Failure> {
    dataset.split(split).ok_or_else(|| {
        Failure::Reason(format!(
            "the protocol asks for split `{split}`, which dataset `{}` does not have",
            dataset.name
        ))
    })
}

/// The validation score of a matcher. The validation split is its own gallery, whatever the protocol searches later: encoding
/// the training split after every epoch would take longer than the epoch.
fn validate(matcher: &dyn Matcher, collection: &Collection, protocol: &Protocol) -> Result<f64, Error> {
    let codes = Coded::of(matcher, collection)?;
    let side = codes.side(collection);
    protocol::judge(protocol, side, side, matcher.similarity())
}

/// Results a query asks for while it is timed.
const WANTED: usize = 10;

/// Times encoding the scored split and its texts asking for images, one by one and all together.
fn clock(
    matcher: &dyn Matcher,
    scored: &Collection,
    asked: &Codes,
    answers: &Codes,
    profile: Profile,
) -> Result<Vec<Timing>, Error> {
    let (long, short) = (Effort::long(profile), Effort::short(profile));
    let timing = |phase: &str, items: usize, seconds: Vec<f64>| Timing { phase: phase.into(), items, seconds };
    let (images, texts) = (scored.images.len(), scored.texts.len());
    let encode_images = timing::sample(long, |_| matcher.encode_images(&scored.images).map(drop))?;
    let encode_texts = timing::sample(long, |_| matcher.encode_texts(&scored.texts).map(drop))?;
    let build = || retrieval::index(answers, matcher.similarity(), Direction::T2i);
    let indexing = timing::sample(long, |_| build().map(drop))?;
    let index = build()?;
    let single = timing::sample(short, |call| {
        let query = call % texts;
        index.search(asked, query..query + 1, WANTED).map(drop)
    })?;
    let batch = timing::sample(long, |_| index.search(asked, 0..texts, WANTED).map(drop))?;
    Ok(vec![
        timing("encode images", images, encode_images),
        timing("encode texts", texts, encode_texts),
        timing("index", answers.len(), indexing),
        timing("query single", 1, single),
        timing("query batch", texts, batch),
    ])
}

/// Codes of a collection, found sound.
struct Coded {
    images: Codes,
    texts: Codes,
}

impl Coded {
    fn of(matcher: &dyn Matcher, collection: &Collection) -> Result<Self, Error> {
        let images = matcher.encode_images(&collection.images)?;
        sound(&images, collection.images.len(), "image")?;
        let texts = matcher.encode_texts(&collection.texts)?;
        sound(&texts, collection.texts.len(), "text")?;
        Ok(Self { images, texts })
    }

    fn side<'a>(&'a self, collection: &'a Collection) -> Side<'a> {
        Side { collection, images: &self.images, texts: &self.texts }
    }
}

/// One code an item, every value finite.
fn sound(codes: &Codes, items: usize, kind: &str) -> Result<(), Error> {
    if codes.len() != items {
        return Err(Error::Numeric(format!("the method made {} codes of {items} {kind}s", codes.len())));
    }
    let bad = |item: usize| Err(Error::Numeric(format!("the code of {kind} {item} holds NaN or infinity")));
    match codes {
        Codes::Binary(_) => Ok(()),
        Codes::Dense(matrix) => {
            let at = matrix.data.iter().position(|value| !value.is_finite());
            at.map_or(Ok(()), |at| bad(at / matrix.cols.max(1)))
        }
        Codes::Fragments(fragments) => {
            let at = fragments.data.iter().position(|value| !value.is_finite());
            let item = |at: usize| fragments.offsets.partition_point(|&offset| offset * fragments.dim <= at) - 1;
            at.map_or(Ok(()), |at| bad(item(at)))
        }
    }
}

/// The expectation of a random order under the protocol.
///
/// # Errors
/// If the protocol asks for what the dataset lacks.
pub fn chance(protocol: &Protocol, dataset: &Dataset) -> Result<Numbers, Failure> {
    let (queries, gallery) = (split(dataset, protocol.split)?, split(dataset, protocol.gallery())?);
    let expectation: Numbers = protocol::chance(protocol, queries, gallery)?.into();
    // A random order ties everything: the span of its values is every value there is, and says nothing.
    Ok(Numbers { envelope: BTreeMap::new(), ..expectation })
}

#[cfg(test)]
mod tests {
    use xmbench_datasets::Matrix;
    use xmbench_methods::Fragments;

    use super::*;

    #[test]
    fn a_chosen_setting_is_told_by_what_differs() {
        let setting = |ridge: f64, form: &str| {
            toml::toml! { components = 4 }
                .into_iter()
                .chain([("ridge".into(), ridge.into()), ("form".into(), form.into())])
                .collect::<toml::Table>()
        };
        let settings = [setting(0.1, "primal"), setting(1.0, "primal"), setting(1.0, "dual")];
        let wanted = [("form", "dual"), ("ridge", "1.0")].map(|(key, value)| (key.to_string(), value.to_string()));
        assert_eq!(distinguishing(&settings, 2), BTreeMap::from(wanted));
        assert!(distinguishing(&settings[..1], 0).is_empty());
    }

    #[test]
    fn a_bad_value_is_traced_to_its_item() {
        let message = |codes: &Codes, items| sound(codes, items, "image").unwrap_err().to_string();
        let dense = |data: Vec<f32>| Codes::Dense(Matrix { rows: 3, cols: 2, data });
        assert!(sound(&dense(vec![0.0; 6]), 3, "image").is_ok());
        let nan = dense(vec![0.0, 0.0, 0.0, 0.0, f32::NAN, 0.0]);
        assert_eq!(message(&nan, 3), "the code of image 2 holds NaN or infinity");
        assert_eq!(message(&nan, 4), "the method made 3 codes of 4 images");
        // The first item has no vectors, the second one of two numbers, the third two.
        let data = vec![0.0, 0.0, 0.0, f32::INFINITY, 0.0, 0.0];
        let fragments = Codes::Fragments(Fragments { dim: 2, offsets: vec![0, 0, 1, 3], data });
        assert_eq!(message(&fragments, 3), "the code of image 2 holds NaN or infinity");
    }
}
