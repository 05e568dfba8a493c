//! Whether what a run gives agrees with the paper and with our recording.

use super::{Cell, PaperTable, Tolerance};
use crate::{
    record::{Control, Outcome, Recording, Trial, words},
    report::table::Verdict,
    stats,
};

/// A cell beside what the run gave.
#[derive(Debug, Clone)]
pub struct Judged<'a> {
    /// The cell.
    pub cell: &'a Cell,
    /// Our value.
    pub found: Option<f64>,
    /// Why there is none.
    pub reason: Option<String>,
    /// Whether it agrees with the paper; nothing where the paper prints nothing.
    pub paper: Option<Verdict>,
    /// Whether it agrees with our recording; nothing where we recorded nothing.
    pub recorded: Option<Verdict>,
}

/// Whether a value agrees with a stated one.
pub fn verdict(stated: f64, found: Option<f64>, tolerance: &Tolerance) -> Verdict {
    // The last bit of a decimal that is not a binary number must not decide.
    const BIT: f64 = 1e-9;
    match found.map(|found| (found - stated).abs()) {
        None => Verdict::NotRun,
        Some(apart) if apart <= tolerance.ok + BIT => Verdict::Ok,
        Some(apart) if tolerance.close.is_some_and(|close| apart <= close + BIT) => Verdict::Close,
        Some(_) => Verdict::Off,
    }
}

/// Judges every cell by what a recording holds of the given experiments; `absent` says why a table was not run at all.
pub fn judge<'a>(
    table: &'a PaperTable,
    experiments: &[String],
    recording: &Recording,
    absent: Option<&str>,
) -> Vec<Judged<'a>> {
    let of = |cell: &'a Cell| {
        let found = match absent {
            Some(reason) => Err(reason.to_string()),
            None => value(table, cell, experiments, recording),
        };
        let (found, reason) = match found {
            Ok(found) => (Some(found), None),
            Err(reason) => (None, Some(reason)),
        };
        let tolerances = &table.text.tolerance;
        let paper = cell.tolerance.as_ref().unwrap_or(&tolerances.paper);
        Judged {
            paper: cell.paper.as_ref().map(|printed| verdict(printed.value, found, paper)),
            recorded: cell.recorded.map(|recorded| verdict(recorded, found, &tolerances.recorded)),
            cell,
            found,
            reason,
        }
    };
    table.text.cells.iter().map(of).collect()
}

impl Judged<'_> {
    /// Whether the cell holds: it was run, agrees with our recording, and is not off the paper.
    pub fn holds(&self) -> bool {
        self.found.is_some() && self.recorded.is_none_or(|it| it == Verdict::Ok) && self.paper != Some(Verdict::Off)
    }
}

/// The mean over the recorded seeds, or why there is none.
fn value(table: &PaperTable, cell: &Cell, experiments: &[String], recording: &Recording) -> Result<f64, String> {
    let here = |trial: &&Trial| {
        trial.control != Control::Shuffled
            && words::row(trial) == cell.label()
            && cell.dataset.as_ref().is_none_or(|dataset| trial.dataset == *dataset)
    };
    let of = |name: &String| -> Vec<&Trial> {
        recording.trials.iter().filter(|trial| trial.experiment == *name).filter(here).collect()
    };
    let trials = experiments.iter().map(of).find(|trials| !trials.is_empty()).unwrap_or_default();
    let wanted = |trial: &&&Trial| trial.control == Control::Chance || table.text.recorded.seeds.contains(&trial.seed);
    let trials: Vec<&&Trial> = trials.iter().filter(wanted).collect();
    let Some(first) = trials.first() else {
        return Err(format!("no trial of row `{}` in {}", cell.label(), experiments.join(", ")));
    };
    if let Some(other) = trials.iter().find(|trial| trial.dataset != first.dataset) {
        return Err(format!("row `{}` is of several datasets, {} and {}", cell.label(), first.dataset, other.dataset));
    }
    let needed = if first.control == Control::Chance { 1 } else { table.text.recorded.seeds.len() };
    let mut values = Vec::new();
    for trial in &trials {
        match &trial.outcome {
            Outcome::Failed { reason } => return Err(format!("seed {} failed: {}", trial.seed, reason.trim())),
            Outcome::Done => values.push(metric(trial, &cell.metric)?),
        }
    }
    if values.len() < needed {
        return Err(format!("{} of {needed} seeds were run", values.len()));
    }
    stats::mean(&values).ok_or_else(|| "no value".into())
}

/// A metric of a trial; `avg X` is the mean over both directions.
fn metric(trial: &Trial, name: &str) -> Result<f64, String> {
    let stored = |name: &str| {
        let value = trial.metrics.get(name).copied().filter(|value| value.is_finite());
        value.ok_or_else(|| format!("the trial has no metric `{name}`"))
    };
    match name.strip_prefix("avg ") {
        Some(rest) if !trial.metrics.contains_key(name) => {
            Ok(0.5 * (stored(&format!("i2t {rest}"))? + stored(&format!("t2i {rest}"))?))
        }
        _ => stored(name),
    }
}
