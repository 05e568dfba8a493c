//! Tuning: the same number of settings for every trained row, judged on validation data alone.
//!
//! Settings are drawn from the ranges of the methods' cards ([`draw`]); the first is the one that the row has, so that what is chosen
//! is never worse on validation data. Successive halving ([`rungs`]) spends the same number of settings, and the same shares of a
//! row's own epochs, on every row. What is fitted sees training and validation data of the dataset's development split ([`develop`]);
//! a score is the one by which training selects its epoch.

mod develop;
mod draw;
mod fit;
mod journal;
mod rungs;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use candle_core::Device;
use serde::Serialize;
use serde_json::json;
use toml::Table;
use xmbench_datasets::random::Seed;
use xmbench_methods::{Method, card::Domain};

use self::{
    develop::Development,
    fit::{Fit, Judged, count},
    journal::{Journal, Line},
};
use super::{
    Experiment, Methods, Planned, Progress,
    execute::Failure,
    experiment::{DatasetEntry, MethodEntry},
    machine, nearest,
    plan::{Job, plan},
    trial::Identity,
};
use crate::record::{Control, Id, Rung, Tuned, TunedRow};

/// What is tuned, and how.
pub struct Request<'a> {
    /// The experiment under its profile; what it takes from tuned files is not asked.
    pub experiment: &'a Experiment,
    /// The methods that it may name.
    pub methods: &'a Methods,
    /// Name of the profile.
    pub profile: &'a str,
    /// Settings a row, the present one among them.
    pub trials: usize,
    /// Root seed of draws and fits.
    pub seed: u64,
    /// Labels, or rows as tables name them; every trained row where there are none.
    pub rows: &'a [String],
    /// Where tensors live.
    pub device: &'a Device,
    /// Where datasets lie that are not built in.
    pub data: Option<&'a Path>,
    /// Where finished fits are written down.
    pub journal: &'a Path,
    /// Where fits under way are kept; removed when all is done.
    pub scratch: &'a Path,
    /// When no further fit is begun.
    pub deadline: Option<Instant>,
    /// Set from outside to stop.
    pub stop: &'a AtomicBool,
}

impl Request<'_> {
    /// What is written of the whole: the budget, and the program that computes. Without rows.
    pub fn header(&self) -> Tuned {
        let circumstances = machine::circumstances();
        Tuned {
            experiment: self.experiment.name.clone(),
            profile: self.profile.into(),
            trials: self.trials,
            seed: self.seed,
            program: machine::CODE.into(),
            commit: circumstances.commit,
            dirty: circumstances.dirty,
            rungs: rungs::rungs(self.trials),
            rows: Vec::new(),
        }
    }
}

/// What was found.
#[derive(Debug)]
pub struct Found {
    /// The rows that were tuned to the end, with the budget.
    pub tuned: Tuned,
    /// Those that were not.
    pub left: Vec<NotTuned>,
    /// Whether the run was stopped from outside.
    pub interrupted: bool,
    /// Every row of the experiment on each dataset, in its order: what files are sorted by.
    pub order: Vec<(String, String)>,
}

/// A trained row that is not tuned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotTuned {
    /// The row as tables name it.
    pub row: String,
    /// The dataset as the experiment calls it.
    pub dataset: String,
    /// Why.
    pub reason: String,
    /// Whether the experiment says so, and nothing went wrong.
    pub meant: bool,
}

/// Why a row is not tuned.
enum Left {
    /// For good, or until something is mended.
    Reason(String),
    /// There was no time.
    Time,
    /// The run was stopped.
    Stopped,
}

impl From<Failure> for Left {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Interrupted => Self::Stopped,
            Failure::Reason(reason) => Self::Reason(reason),
        }
    }
}

/// A row that is tuned.
struct Row<'a> {
    planned: &'a Planned,
    entry: &'a MethodEntry,
    method: &'static dyn Method,
    present: &'a Table,
}

/// Tunes the rows of an experiment, dataset by dataset.
///
/// # Errors
/// An experiment that cannot be planned, rows that it does not have, or a journal that cannot be read or written. A row that cannot be
/// tuned is no error: it is told with its reason.
pub fn tune(request: &Request<'_>, progress: &mut Progress) -> Result<Found> {
    let experiment = Experiment { tuned: None, seeds: vec![request.seed], ..request.experiment.clone() };
    let plan = plan(&experiment, request.methods)?;
    let (rows, meant) = rows(request, &experiment, &plan)?;
    let tuned = request.header();
    let rungs = tuned.rungs.clone();
    let order = order(&experiment, &plan);
    let mut found = Found { tuned, left: Vec::new(), interrupted: false, order };
    let mut journal = Journal::open(request.journal)?;
    let mut unfinished = false;
    for entry in &experiment.datasets {
        let dataset = entry.label();
        let left =
            |row: &str, reason: String, meant| NotTuned { row: row.into(), dataset: dataset.clone(), reason, meant };
        found.left.extend(meant.iter().map(|(row, reason)| left(row, (*reason).into(), true)));
        let data = match Development::open(entry, request.data) {
            Ok(data) => data,
            Err(error) => {
                progress.say(&format!("{} on {dataset} is left out: {error:#}", experiment.name));
                found.left.extend(rows.iter().map(|row| left(&row.planned.row(), format!("{error:#}"), false)));
                continue;
            }
        };
        for row in &rows {
            let mut search =
                Search { request, experiment: &experiment, entry, data: &data, rungs: &rungs, journal: &mut journal };
            let reason = match search.row(row, progress)? {
                Ok(tuned) => {
                    found.tuned.rows.push(tuned);
                    continue;
                }
                Err(Left::Reason(reason)) => reason,
                Err(Left::Time) => {
                    unfinished = true;
                    "the time was over; the same command goes on from here".into()
                }
                Err(Left::Stopped) => {
                    (unfinished, found.interrupted) = (true, true);
                    "interrupted; the same command goes on from here".into()
                }
            };
            found.left.push(left(&row.planned.row(), reason, false));
        }
    }
    if !unfinished && request.scratch.is_dir() {
        std::fs::remove_dir_all(request.scratch)
            .with_context(|| format!("cannot remove the folder {}", request.scratch.display()))?;
    }
    Ok(found)
}

/// How many fits a call makes at most, for a bar.
pub fn fits(experiment: &Experiment, methods: &Methods, rows: &[String], trials: usize) -> Result<usize> {
    let plan = plan(&Experiment { tuned: None, seeds: vec![1], ..experiment.clone() }, methods)?;
    let wanted =
        plan.iter().filter(|planned| is_tuned(planned, experiment).is_ok() && is_wanted(planned, rows)).count();
    let each: usize = rungs::rungs(trials).iter().map(|rung| rung.settings).sum();
    Ok(wanted * each * experiment.datasets.len())
}

fn is_wanted(planned: &Planned, rows: &[String]) -> bool {
    rows.is_empty() || rows.iter().any(|row| *row == planned.label || *row == planned.row())
}

/// Whether a row of a plan is tuned; else why not, and nothing of one that is no trained row.
fn is_tuned(planned: &Planned, experiment: &Experiment) -> Result<(), Option<&'static str>> {
    let Job::Fit { method, settings } = &planned.job else { return Err(None) };
    let entry = experiment.methods.get(planned.position);
    if planned.control != Control::None || !method.card().is_trained() {
        return Err(None);
    }
    if entry.is_none_or(|entry| !entry.tuned) {
        return Err(Some("it keeps the parameters that are typed, `tuned = false`"));
    }
    if !planned.scored {
        return Err(Some("it orders shortlists alone and is not validated"));
    }
    if settings.len() > 1 {
        return Err(Some("it selects among settings of its own, `select`"));
    }
    Ok(())
}

/// Rows with the reason why the experiment does not have them tuned.
type Meant = Vec<(String, &'static str)>;

/// The rows that are tuned, and those that are not although gradients train them.
fn rows<'a>(request: &Request<'_>, experiment: &'a Experiment, plan: &'a [Planned]) -> Result<(Vec<Row<'a>>, Meant)> {
    let (mut rows, mut left) = (Vec::new(), Vec::new());
    for planned in plan.iter().filter(|planned| is_wanted(planned, request.rows)) {
        let Job::Fit { method, .. } = &planned.job else { continue };
        match is_tuned(planned, experiment) {
            Ok(()) => rows.push(Row {
                planned,
                entry: &experiment.methods[planned.position],
                method: *method,
                present: &planned.params,
            }),
            Err(Some(reason)) => left.push((planned.row(), reason)),
            Err(None) => {}
        }
    }
    let trained: Vec<String> = plan
        .iter()
        .filter(|planned| !matches!(is_tuned(planned, experiment), Err(None)))
        .flat_map(|planned| [planned.label.clone(), planned.row()])
        .collect();
    if let Some(row) = request.rows.iter().find(|row| !trained.contains(row)) {
        let hint = nearest(row, trained.iter().map(String::as_str));
        bail!("experiment {} has no trained row `{row}`{hint}", experiment.name);
    }
    if rows.is_empty() && left.is_empty() {
        bail!("experiment {} has no row that gradients train: there is nothing to tune", experiment.name);
    }
    Ok((rows, left))
}

fn order(experiment: &Experiment, plan: &[Planned]) -> Vec<(String, String)> {
    let mut order = Vec::new();
    for dataset in experiment.datasets.iter().map(DatasetEntry::label) {
        for row in plan.iter().map(Planned::row) {
            if !order.contains(&(row.clone(), dataset.clone())) {
                order.push((row, dataset.clone()));
            }
        }
    }
    order
}

/// The search for the parameters of rows on one dataset.
struct Search<'a> {
    request: &'a Request<'a>,
    experiment: &'a Experiment,
    entry: &'a DatasetEntry,
    data: &'a Development,
    rungs: &'a [Rung],
    journal: &'a mut Journal,
}

/// What was spent on a row.
#[derive(Default)]
struct Spent {
    fits: usize,
    failed: BTreeMap<usize, String>,
    seconds: f64,
}

impl Search<'_> {
    fn row(&mut self, row: &Row<'_>, progress: &mut Progress) -> Result<Result<TunedRow, Left>> {
        let varied: Vec<&str> = row.planned.swept.keys().map(String::as_str).collect();
        let ranges = draw::ranges(row.method, row.entry, &varied, row.present);
        if ranges.is_empty() {
            return Ok(Err(Left::Reason("its card says of no parameter what to draw it from".into())));
        }
        let seed = Seed(self.request.seed);
        let settings = match draw::settings(row.method, row.present, &ranges, self.request.trials, seed) {
            Ok(settings) => settings,
            Err(error) => return Ok(Err(Left::Reason(error.to_string()))),
        };
        let epochs = count(row.present, "epochs");
        let stops: Vec<usize> = self.rungs.iter().map(|rung| rung.epochs(epochs)).collect();
        let mut spent = Spent::default();
        let mut scores: Vec<(usize, Option<f64>)> = (0..settings.len()).map(|at| (at, None)).collect();
        for (number, rung) in self.rungs.iter().enumerate() {
            if number > 0 {
                let going: Vec<usize> = rungs::survivors(&scores, rung.settings);
                scores.retain(|(at, _)| going.contains(at));
                // What fell out needs no room any more.
                let gone = (0..settings.len()).filter(|at| !going.contains(at));
                gone.for_each(|at| forget(&self.checkpoints(row, &settings[at])));
            }
            for (at, score) in &mut scores {
                if spent.failed.contains_key(at) {
                    *score = None;
                    continue;
                }
                match self.fit(row, &settings[*at], &ranges, [*at, number], &stops, progress)? {
                    Ok(line) => {
                        spent.fits += 1;
                        spent.seconds += line.seconds;
                        *score = match line.judged() {
                            Judged::Score(score) => Some(score),
                            Judged::Failed(reason) => {
                                spent.failed.insert(*at, reason);
                                None
                            }
                        };
                    }
                    Err(left) => return Ok(Err(left)),
                }
            }
        }
        settings.iter().for_each(|params| forget(&self.checkpoints(row, params)));
        let Some((best, after)) = rungs::best(&scores) else {
            let reason = spent.failed.into_values().next().unwrap_or_default();
            return Ok(Err(Left::Reason(format!("no setting could be fitted: {reason}"))));
        };
        Ok(Ok(TunedRow {
            row: row.planned.row(),
            dataset: self.entry.label(),
            method: row.method.card().name.clone(),
            developed_on: self.data.called.clone(),
            checksum: self.data.checksum.to_string(),
            before: scores.first().filter(|(at, _)| *at == 0).and_then(|(_, score)| *score),
            after,
            epochs,
            fits: spent.fits,
            failed: spent.failed.len(),
            seconds: (10.0 * spent.seconds).round() / 10.0,
            present: draw::tuned(row.present, &ranges),
            params: draw::tuned(&settings[best], &ranges),
            ranges,
        }))
    }

    /// One fit of a setting up to the end of a rung, made now or before.
    fn fit(
        &mut self,
        row: &Row<'_>,
        params: &Table,
        ranges: &BTreeMap<String, Domain>,
        [setting, rung]: [usize; 2],
        stops: &[usize],
        progress: &mut Progress,
    ) -> Result<Result<Line, Left>> {
        let epochs = stops[rung];
        let name = row.planned.row();
        let trials = self.request.trials;
        progress.begin(&format!(
            "{} {}: {name}, setting {} of {trials}, {epochs} epochs",
            self.experiment.name,
            self.entry.label(),
            setting + 1
        ));
        let id = self.id(row, params, Some(epochs));
        if let Some(line) = self.journal.get(&id) {
            progress.skip(1);
            // Another row or rung may have paid for it.
            let paid = (&line.row, line.setting, line.rung) == (&name, setting, rung);
            let seconds = if paid { line.seconds } else { 0.0 };
            return Ok(Ok(Line { row: name, setting, rung, seconds, ..line.clone() }));
        }
        if self.request.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(Err(Left::Time));
        }
        let fit = Fit {
            method: row.method,
            params,
            data: self.data,
            protocol: &self.experiment.protocol,
            device: self.request.device,
            seed: Seed(self.request.seed),
            checkpoints: self.checkpoints(row, params),
            stop: self.request.stop,
        };
        let (judged, seconds) = match fit.judge(epochs, stops, progress) {
            Ok(judged) => judged,
            Err(failure) => {
                if let Failure::Reason(reason) = &failure {
                    progress.end(&format!("failed: {reason}"));
                }
                return Ok(Err(failure.into()));
            }
        };
        let (validation, failed) = match judged {
            Judged::Score(score) => (Some(score), None),
            Judged::Failed(reason) => (None, Some(reason)),
        };
        progress.end(&match (&validation, &failed) {
            (Some(score), _) => format!("validation {score:.3}"),
            (None, reason) => format!("cannot be fitted: {}", reason.as_deref().unwrap_or_default()),
        });
        let line = Line {
            id,
            row: name,
            dataset: self.entry.label(),
            setting,
            rung,
            epochs,
            validation,
            failed,
            seconds,
            params: draw::tuned(params, ranges),
        };
        self.journal.add(line.clone())?;
        Ok(Ok(line))
    }

    /// What the score of a fit depends on: after so many epochs, or at all.
    fn id(&self, row: &Row<'_>, params: &Table, epochs: Option<usize>) -> Id {
        Identity {
            checksum: &self.data.checksum,
            method: &row.method.card().name,
            code: machine::CODE,
            params: &json!({ "tuned": params, "epochs": epochs }),
            seed: self.request.seed,
            protocol: &self.experiment.protocol,
            device: if self.request.device.is_cuda() { "cuda" } else { "cpu" },
            control: Control::None,
        }
        .id()
    }

    /// Where the fit of a setting is kept from rung to rung.
    fn checkpoints(&self, row: &Row<'_>, params: &Table) -> PathBuf {
        self.request.scratch.join(self.id(row, params, None).as_str())
    }
}

/// Removes the folder of a fit; one that stays costs room and nothing else.
fn forget(folder: &Path) {
    let _ = std::fs::remove_dir_all(folder);
}
