//! Tuning: the same number of settings for every trained row, judged on validation data alone.
//!
//! Settings are drawn from the ranges of the methods' cards (`draw`); the first is the one that the row has, so that what is chosen
//! is never worse on validation data. Successive halving (`rungs`) spends the same number of settings, and the same shares of a
//! row's own epochs, on every row. What is fitted sees training and validation data of the dataset's development split (`develop`);
//! a score is the one by which training selects its epoch.

mod develop;
mod draw;
mod fit;
mod journal;
mod round;
mod rungs;
mod search;
#[cfg(test)]
mod tests;

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use candle_core::Device;
use serde::Serialize;
use toml::Table;
use xmbench_methods::Method;

use self::{
    develop::Development,
    journal::Journal,
    search::{Left, Search},
};
use super::{
    Experiment, Methods, Planned, Progress,
    entry::{DatasetEntry, MethodEntry},
    machine, nearest,
    plan::{Job, plan},
};
use crate::record::{Control, Tuned};

/// What is tuned, and how.
pub struct Request<'a> {
    /// The experiment under its profile, as it is typed.
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
    /// Settings that are fitted side by side.
    pub jobs: usize,
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
pub fn tune(request: &Request<'_>, progress: &Progress) -> Result<Found> {
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
        if request.stop.load(Ordering::Relaxed) {
            (unfinished, found.interrupted) = (true, true);
            found.left.extend(rows.iter().map(|row| left(&row.planned.row(), STOPPED.into(), false)));
            continue;
        }
        let data = match Development::open(entry, request.data) {
            Ok(data) => data,
            Err(error) => {
                progress.say(&format!("{} on {dataset} is left out: {error:#}", experiment.name));
                found.left.extend(rows.iter().map(|row| left(&row.planned.row(), format!("{error:#}"), false)));
                continue;
            }
        };
        for row in &rows {
            let search = Search { request, experiment: &experiment, entry, data: &data, rungs: &rungs };
            let outcome = match request.stop.load(Ordering::Relaxed) {
                true => Err(Left::Stopped),
                false => search.row(row, &mut journal, progress)?,
            };
            let reason = match outcome {
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
                    STOPPED.into()
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

/// Why rows are left when the run is stopped.
const STOPPED: &str = "interrupted; the same command goes on from here";

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
