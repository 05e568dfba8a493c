//! One trial: fit, encode, score; what retrieval takes is measured later (`clock`). On threads of its own, so that others find room
//! beside it, and that a panic inside a method ends the trial and not the run.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use candle_core::Device;
use xmbench_datasets::{Dataset, random::Seed};
use xmbench_methods::{
    Error, Matcher, Method, Run, Training,
    method::{Epoch, Observer},
    train,
};

use super::{
    Planned,
    plan::Job,
    score::{Encoded, split, validate},
};
use crate::{
    protocol::{self, Evaluation, Found, Protocol, Query},
    record::{Control, SELECTION, Timing, phase},
};

/// What a trial runs in.
pub struct Setting<'a> {
    /// What it is fitted and scored on.
    pub dataset: &'a Dataset,
    /// What the numbers mean.
    pub protocol: &'a Protocol,
    /// Where tensors live.
    pub device: &'a Device,
    /// Threads that it has.
    pub threads: usize,
    /// Where checkpoints go and are looked for.
    pub checkpoints: PathBuf,
    /// Where the fitted matcher is kept, if it is needed later.
    pub keep: Option<PathBuf>,
    /// Items of each query that are kept with the numbers.
    pub best: usize,
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
    /// See [`crate::record::Trial`].
    pub values: BTreeMap<String, Vec<f64>>,
    /// See [`crate::record::Trial`].
    pub unified: bool,
    /// What stands first for each query, where that is kept.
    pub found: Vec<Found>,
}

/// Why a trial gives nothing.
#[derive(Debug)]
pub enum Failure {
    /// The run was stopped from outside.
    Interrupted,
    /// It asks for more memory than there is for it.
    Memory(String),
    /// The reason as it is printed.
    Reason(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Interrupted => "interrupted",
            Self::Memory(reason) | Self::Reason(reason) => reason,
        })
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Interrupted => Self::Interrupted,
            error @ Error::Memory { .. } => Self::Memory(error.to_string()),
            other => Self::Reason(other.to_string()),
        }
    }
}

/// Runs a trial that fits a method.
///
/// # Errors
/// Whatever keeps the trial from giving numbers, a panic included.
pub fn execute(
    planned: &Planned,
    setting: &Setting<'_>,
    observer: &mut (dyn Observer + Send),
) -> Result<Numbers, Failure> {
    apart(&planned.label, setting.threads, || measure(planned, setting, observer))
}

/// Fits the method of a trial once more and keeps the matcher where the setting says; nothing is scored or timed.
///
/// # Errors
/// As [`execute`].
pub fn fit_again(
    planned: &Planned,
    setting: &Setting<'_>,
    observer: &mut (dyn Observer + Send),
) -> Result<(), Failure> {
    apart(&planned.label, setting.threads, || {
        let chosen = fitted(planned, setting, observer)?;
        setting.keep.as_deref().map_or(Ok(()), |folder| keep(&*chosen.fit.matcher, folder))
    })
}

/// Works on so many threads of its own; a panic is a failure.
///
/// # Errors
/// The work's own.
pub fn apart<T: Send>(
    name: &str,
    threads: usize,
    work: impl FnOnce() -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    train::apart::apart(name, threads, work).unwrap_or_else(|reason| Err(Failure::Reason(reason)))
}

fn measure(planned: &Planned, setting: &Setting<'_>, observer: &mut (dyn Observer + Send)) -> Result<Numbers, Failure> {
    let Setting { dataset, protocol, .. } = setting;
    let Chosen { fit: Fit { matcher, seconds, history }, rejected, selected, scores } =
        fitted(planned, setting, observer)?;
    let mut encoded = Encoded::of(dataset, protocol)?;
    encoded.add(&*matcher)?;
    setting.goes_on()?;
    let mut evaluation = match planned.scored {
        true => encoded.evaluate(protocol, &matcher.similarity().into(), setting.best)?,
        false => Evaluation::default(),
    };
    if !scores.is_empty() {
        evaluation.curves.insert(SELECTION.into(), scores);
    }
    let peak_memory = train::heap::most();
    setting.goes_on()?;
    let fit = |phase: &str, seconds: f64| {
        let items = dataset.train.pairs.all().len();
        Timing { phase: phase.into(), items, seconds: vec![seconds] }
    };
    let mut timings = vec![fit(phase::FIT, seconds)];
    timings.extend(rejected.map(|seconds| fit(phase::REJECTED, seconds)));
    if let Some(folder) = &setting.keep {
        keep(&*matcher, folder)?;
    }
    let (bytes_per_item, unified) = (encoded.bytes_per_item(), encoded.unified());
    Ok(Numbers { selected, history, timings, peak_memory, bytes_per_item, unified, ..Numbers::from(evaluation) })
}

/// Writes a matcher into `folder`, which is there only if it is whole.
fn keep(matcher: &dyn Matcher, folder: &Path) -> Result<(), Failure> {
    let partial = folder.with_extension("partial");
    for leftover in [&partial, folder] {
        if leftover.is_dir() {
            std::fs::remove_dir_all(leftover).map_err(Error::io(leftover))?;
        }
    }
    std::fs::create_dir_all(&partial).map_err(Error::io(&partial))?;
    matcher.save(&partial)?;
    Ok(std::fs::rename(&partial, folder).map_err(Error::io(folder))?)
}

impl Setting<'_> {
    /// Ends the trial if the run was stopped.
    ///
    /// # Errors
    /// [`Failure::Interrupted`].
    pub fn goes_on(&self) -> Result<(), Failure> {
        if self.stop.load(Ordering::Relaxed) { Err(Failure::Interrupted) } else { Ok(()) }
    }
}

/// What a trial's settings come to: the fit of the best, the seconds of the others, what tells it from them, and every validation score.
struct Chosen {
    fit: Fit,
    rejected: Option<f64>,
    selected: BTreeMap<String, String>,
    scores: Vec<[f64; 2]>,
}

fn fitted(planned: &Planned, setting: &Setting<'_>, observer: &mut (dyn Observer + Send)) -> Result<Chosen, Failure> {
    let Job::Fit { method, settings } = &planned.job else {
        return Err(Failure::Reason(format!("row `{}` fits no method", planned.label)));
    };
    let Setting { dataset, protocol, .. } = setting;
    std::fs::create_dir_all(&setting.checkpoints).map_err(Error::io(&setting.checkpoints))?;
    let mut fit = |params: &toml::Table, checkpoints: PathBuf| {
        fit_one(*method, params, checkpoints, (planned, setting), &mut *observer)
    };
    match settings.as_slice() {
        [only] => {
            let fit = fit(only, setting.checkpoints.clone())?;
            Ok(Chosen { fit, rejected: None, selected: BTreeMap::new(), scores: Vec::new() })
        }
        settings => {
            let (fit, taken, all, scores) = select(settings, &setting.checkpoints, fit, |matcher| {
                let split = split(dataset, protocol.select_on)?;
                Ok(validate(matcher, split, protocol)?)
            })?;
            let rejected = Some(all - fit.seconds);
            Ok(Chosen { fit, rejected, selected: distinguishing(settings, taken), scores })
        }
    }
}

fn fit_one(
    method: &dyn Method,
    params: &toml::Table,
    checkpoints: PathBuf,
    (planned, setting): (&Planned, &Setting<'_>),
    observer: &mut (dyn Observer + Send),
) -> Result<Fit, Failure> {
    let Setting { dataset, protocol, device, .. } = setting;
    let selected_on = dataset.split(protocol.select_on).filter(|_| planned.scored);
    let judged = AtomicU64::new(0);
    let judge = |matcher: &dyn Matcher| {
        let start = Instant::now();
        let score = selected_on.map_or(Ok(0.0), |collection| validate(matcher, collection, protocol));
        judged.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        score
    };
    let mut run = Run {
        device: Device::clone(device),
        judge: selected_on.is_some().then_some(&judge),
        checkpoints: Some(checkpoints),
        control: planned.control == Control::Shuffled,
        ..Run::new(Seed(planned.seed), observer, setting.stop)
    };
    let start = Instant::now();
    let matcher = method.fit(&Training::of(dataset), params, &mut run)?;
    device.synchronize().map_err(Error::from)?;
    let wall = start.elapsed().saturating_sub(Duration::from_nanos(judged.load(Ordering::Relaxed))).as_secs_f64();
    // A fit that was resumed took what its epochs took, of which the clock saw only the last.
    let trained: f64 = run.history.iter().map(|epoch| epoch.seconds).sum();
    setting.goes_on()?;
    Ok(Fit { matcher, seconds: wall.max(trained), history: run.history })
}

/// A fitted matcher with the seconds that it took, validation left out.
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

/// The setting with the best validation score, the first among equals, its position, the seconds of all fits, and every score.
fn select(
    settings: &[toml::Table],
    checkpoints: &Path,
    mut fit: impl FnMut(&toml::Table, PathBuf) -> Result<Fit, Failure>,
    judge: impl Fn(&dyn Matcher) -> Result<f64, Failure>,
) -> Result<(Fit, usize, f64, Vec<[f64; 2]>), Failure> {
    let mut best: Option<(f64, usize, Fit)> = None;
    let (mut scores, mut seconds) = (Vec::new(), 0.0);
    for (position, params) in settings.iter().enumerate() {
        // Each trains on its own: a checkpoint of another would be taken for this one's.
        let folder = checkpoints.join(position.to_string());
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let fit = fit(params, folder)?;
        let score = judge(&*fit.matcher)?;
        scores.push([(position + 1) as f64, score]);
        seconds += fit.seconds;
        if best.as_ref().is_none_or(|(best, _, _)| best.is_nan() || score > *best) {
            best = Some((score, position, fit));
        }
    }
    let (_, taken, best) = best.expect("a trial has at least one setting");
    Ok((best, taken, seconds, scores))
}

impl From<Evaluation> for Numbers {
    fn from(evaluation: Evaluation) -> Self {
        let Evaluation { metrics, envelope, curves, queries, values, found } = evaluation;
        Self { metrics, envelope, curves, queries, values, found, ..Self::default() }
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
}
