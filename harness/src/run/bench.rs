//! One experiment on one dataset: which of its trials are recorded, and recording those that are not.

use std::{borrow::Cow, collections::BTreeMap, path::PathBuf, sync::atomic::AtomicBool};

use anyhow::{Result, bail};
use serde_json::json;
use xmbench_datasets::{Dataset, controls, random::Seed};

use super::{
    Experiment, Planned, Progress, Settings, Summary,
    execute::{self, Failure, Numbers, Setting},
    machine,
    plan::{Job, TRAINING_IMAGES},
    progress::Task,
    trial::Identity,
};
use crate::{
    output::short,
    protocol::{Direction, IN_SHORTLIST},
    record::{Control, Origin, Outcome, RERANK, Store, Trial, check, files, kept},
};

/// Why a trial is passed over that ended the run before this one.
const TOO_LARGE: &str = "the system ended the run for want of memory while this trial was under way; it was passed over this time, the \
                         next run tries it again: give it smaller parameters, or more memory";

/// Bytes of the largest matcher that stays in a recording.
const LARGEST_MATCHER: u64 = 32 << 20;

/// How a run ended.
#[derive(PartialEq)]
pub enum End {
    Done,
    Interrupted,
}

/// A trial that is under way.
pub struct Begun {
    /// Without numbers.
    pub trial: Trial,
    /// What is shown of it.
    pub task: Task,
    /// Threads of its fit, where others are fitted beside it.
    pub threads: Option<usize>,
}

/// One experiment on one dataset.
pub struct Bench<'a> {
    pub experiment: &'a Experiment,
    pub label: String,
    pub dataset: &'a Dataset,
    pub settings: &'a Settings,
    pub store: &'a mut Store,
    pub progress: &'a Progress,
    pub stop: &'a AtomicBool,
}

impl<'a> Bench<'a> {
    /// Whether a trial is to be run: its numbers may be there already, be it from another experiment.
    ///
    /// # Errors
    /// If the recording cannot be written.
    pub fn waits(&mut self, trial: &Trial, summary: &mut Summary) -> Result<bool> {
        let recorded = self.is_recorded(trial)?;
        if recorded {
            summary.recorded += 1;
            self.progress.skip(1);
        }
        Ok(!recorded)
    }

    /// Runs the trials that are made of others.
    ///
    /// # Errors
    /// If the recording cannot be written.
    pub fn combine_all(&mut self, plan: &[Planned], summary: &mut Summary) -> Result<End> {
        for planned in plan {
            let Job::Combine(combined) = &planned.job else { continue };
            let trial = self.head(plan, planned);
            if !self.waits(&trial, summary)? {
                continue;
            }
            let (begun, too_large) = self.begin(trial, None)?;
            let outcome = too_large.map_or_else(|| self.combine(plan, planned, combined), Err);
            if self.record(planned, begun, outcome, summary)? == End::Interrupted {
                return Ok(End::Interrupted);
            }
        }
        Ok(End::Done)
    }

    /// Notes that a trial begins; also why it is passed over, if it is. Its fit has so many threads, all of the run's when not said.
    ///
    /// # Errors
    /// If the recording cannot be written.
    pub fn begin(&mut self, trial: Trial, threads: Option<usize>) -> Result<(Begun, Option<Failure>)> {
        let task = self.progress.begin(&name(&trial));
        let too_large = self.store.begin(&trial.id)?.then(|| Failure::Reason(TOO_LARGE.into()));
        Ok((Begun { trial, task, threads }, too_large))
    }

    /// Records what came of a trial.
    ///
    /// # Errors
    /// If the recording cannot be written.
    pub fn record(
        &mut self,
        planned: &Planned,
        begun: Begun,
        outcome: Result<Numbers, Failure>,
        summary: &mut Summary,
    ) -> Result<End> {
        let Begun { mut trial, task, threads } = begun;
        // What would not read back is a failure now and no surprise later.
        let outcome = outcome.and_then(|mut numbers| {
            let found = std::mem::take(&mut numbers.found);
            let mut filled = filled(trial.clone(), numbers);
            if !found.is_empty() {
                let kept = self.store.keep(&trial.id, &found);
                filled.kept = Some(kept.map_err(|error| Failure::Reason(error.to_string()))?);
            }
            filled.check().map_err(|it| Failure::Reason(format!("expected {}, found {}", it.expected, it.found)))?;
            Ok(filled)
        });
        match outcome {
            Ok(filled) => {
                let said = match planned.scored {
                    true => headline(&self.experiment.columns, &filled.metrics),
                    false => "fitted for shortlists".into(),
                };
                self.progress.end(&task, &said);
                trial = filled;
                summary.done += 1;
            }
            Err(Failure::Interrupted) => {
                self.store.rest(&trial.id)?;
                return Ok(End::Interrupted);
            }
            Err(Failure::Memory(reason) | Failure::Reason(reason)) => {
                self.progress.end(&task, &format!("failed: {reason}"));
                summary.failed.push((trial.key(), reason.clone()));
                trial.outcome = Outcome::failed(&reason);
            }
        }
        self.add(trial, threads)?;
        Ok(End::Done)
    }

    /// Whether somebody may look at the row query by query: with one seed of it, unless the run keeps nothing but numbers.
    fn is_looked_at(&self, planned: &Planned) -> bool {
        let first = self.experiment.seeds.first() == Some(&planned.seed);
        first && planned.scored && planned.control == Control::None && !self.settings.lean
    }

    /// Items of each query that are kept of a row.
    pub fn best(&self, planned: &Planned) -> usize {
        if self.is_looked_at(planned) { kept::BEST } else { 0 }
    }

    /// Whether the row's matcher is kept, for queries in words of one's own: of a method that reads words, and is no other program.
    fn is_asked(&self, planned: &Planned) -> bool {
        let Job::Fit { method, .. } = &planned.job else { return false };
        let card = method.card();
        let reads_words =
            card.needs.iter().any(|need| ["texts.tokens", "texts.bow"].iter().any(|it| need.contains(it)));
        self.is_looked_at(planned) && reads_words && card.family != "external"
    }

    /// Removes the matchers of fitted rows, but for those that are asked in words and take no more room than they are worth.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub fn forget_matchers(&self, plan: &[Planned]) -> Result<()> {
        for planned in plan.iter().filter(|planned| matches!(planned.job, Job::Fit { .. })) {
            let id = self.head(plan, planned).id;
            if !self.is_asked(planned) || files::size(&self.store.matcher(&id)) > LARGEST_MATCHER {
                self.store.forget_matcher(&id)?;
            }
        }
        Ok(())
    }

    /// What every trial runs in.
    pub fn setting(&self, checkpoints: PathBuf) -> Setting<'a> {
        Setting {
            dataset: self.dataset,
            protocol: &self.experiment.protocol,
            device: &self.settings.device,
            threads: rayon::current_num_threads(),
            checkpoints,
            keep: None,
            best: 0,
            stop: self.stop,
        }
    }

    /// Records the expectation of a random order, and makes sure that the protocol gives what the table shows.
    pub fn chance(&mut self, plan: &[Planned], summary: &mut Summary) -> Result<()> {
        let mut trial = self.row("chance", "chance", json!({}), 0, Control::Chance);
        trial.position = behind(plan);
        let task = self.progress.begin(&name(&trial));
        if self.is_recorded(&trial)? {
            let recorded = self.store.get(&trial.key());
            recorded.map_or(Ok(()), |trial| self.columns_are_known(plan, &trial.metrics))?;
            summary.recorded += 1;
            self.progress.skip(1);
            return Ok(());
        }
        match execute::chance(&self.experiment.protocol, self.dataset) {
            Ok(numbers) => {
                self.columns_are_known(plan, &numbers.metrics)?;
                self.progress.end(&task, &headline(&self.experiment.columns, &numbers.metrics));
                trial = filled(trial, numbers);
                summary.done += 1;
            }
            Err(failure) => {
                let reason = failure.to_string();
                self.progress.end(&task, &format!("failed: {reason}"));
                summary.failed.push((trial.key(), reason.clone()));
                trial.outcome = Outcome::failed(&reason);
            }
        }
        self.add(trial, None)
    }

    /// Records a trial that was run now.
    fn add(&mut self, mut trial: Trial, fit_threads: Option<usize>) -> Result<()> {
        trial.origin = Some(Origin { fit_threads, ..Origin::of(self.store.manifest(), machine::now()) });
        Ok(self.store.add(trial)?)
    }

    /// Every column of the table is a metric of the protocol or a measure of a row.
    fn columns_are_known(&self, plan: &[Planned], metrics: &BTreeMap<String, f64>) -> Result<()> {
        let held = [Direction::I2t, Direction::T2i].map(|direction| format!("{direction} {IN_SHORTLIST}"));
        let staged = held.iter().filter(|_| plan.iter().any(|planned| planned.method() == RERANK));
        let measured = plan.iter().flat_map(|planned| planned.measures());
        let known: Vec<&String> = metrics.keys().chain(staged).chain(measured).collect();
        let Some(unknown) = self.experiment.columns.iter().find(|column| !known.contains(column)) else {
            return Ok(());
        };
        let hint = super::nearest(unknown, known.iter().map(|name| name.as_str()));
        bail!("experiment {}: its protocol gives no metric `{unknown}`{hint}", self.experiment.name)
    }

    /// Whether the trial's numbers are there, be it from another experiment.
    fn is_recorded(&mut self, trial: &Trial) -> Result<bool> {
        if self.is_done(trial) {
            return Ok(true);
        }
        let Some(twin) = self.twin(trial) else {
            return Ok(false);
        };
        // A row that is made of others names them in its parameters and its remark, as its own experiment does.
        let Trial { experiment, position, label, dataset, swept, params, remark, .. } = trial.clone();
        let copy = Trial { experiment, position, label, dataset, swept, params, remark, ..twin.clone() };
        self.store.add(copy)?;
        Ok(true)
    }

    /// Whether the trial's own numbers are there.
    pub fn is_done(&self, trial: &Trial) -> bool {
        self.store.get(&trial.key()).is_some_and(|found| found.id == trial.id && found.outcome == Outcome::Done)
    }

    /// A trial with numbers that is the same one.
    pub fn twin<'b>(&'b self, trial: &'b Trial) -> Option<&'b Trial> {
        self.store.of_id(&trial.id).find(|twin| twin.outcome == Outcome::Done)
    }

    /// Drops what the recording holds of this experiment and dataset and the experiment, as it is now, would not give.
    pub fn forget_stale(&mut self, plan: &[Planned]) {
        let wanted = |found: &Trial| {
            let same = |planned: &&Planned| {
                (planned.position, &planned.label, &planned.swept, planned.control)
                    == (found.position, &found.label, &found.swept, found.control)
            };
            match plan.iter().find(same) {
                // Of a seed that is not part of this run its files are not known.
                Some(planned) if !planned.files.is_empty() && !planned.files.contains_key(&found.seed) => true,
                Some(planned) => self.head(plan, &Planned { seed: found.seed, ..planned.clone() }).id == found.id,
                None => found.control == Control::Chance && found.position == behind(plan),
            }
        };
        let stale: Vec<String> = self
            .store
            .of_experiment(&self.experiment.name)
            .filter(|found| found.dataset == self.label && !wanted(found))
            .map(Trial::key)
            .collect();
        if !stale.is_empty() {
            self.progress.say(&format!(
                "{}: {} recorded trials are of another version of the experiment or the code; they are dropped",
                self.experiment.name,
                stale.len()
            ));
            self.store.drop_where(|trial| stale.contains(&trial.key()));
        }
    }

    /// A planned trial without numbers.
    pub fn head(&self, plan: &[Planned], planned: &Planned) -> Trial {
        let (identity, remark) = match &planned.job {
            Job::Fit { method, settings } => {
                let mut remarks: Vec<String> = Vec::new();
                for remark in settings.iter().filter_map(|setting| method.remark(setting)) {
                    if !remarks.contains(&remark) {
                        remarks.push(remark);
                    }
                }
                match planned.scored {
                    true => (json!(planned.recorded()), remarks.join("; ")),
                    false => {
                        remarks
                            .push("orders shortlists alone: no gallery is scored, and its last epoch is kept".into());
                        (json!([planned.recorded(), "shortlists only"]), remarks.join("; "))
                    }
                }
            }
            Job::Combine(combined) => self.made_of(plan, planned, combined),
        };
        let mut trial = self.row(planned.method(), &planned.label, identity, planned.seed, planned.control);
        trial.params = json!(planned.recorded());
        trial.position = planned.position;
        trial.swept.clone_from(&planned.swept);
        trial.remark = short(&remark, check::LONGEST_TEXT - 100).into_owned();
        trial
    }

    fn row(&self, method: &str, label: &str, params: serde_json::Value, seed: u64, control: Control) -> Trial {
        let device = if self.settings.device.is_cuda() { "cuda" } else { "cpu" };
        let id = Identity {
            checksum: &self.dataset.checksum,
            method,
            code: machine::CODE,
            params: &params,
            seed,
            protocol: &self.experiment.protocol,
            device,
            control,
        }
        .id();
        Trial {
            id,
            experiment: self.experiment.name.clone(),
            position: 0,
            label: label.into(),
            method: method.into(),
            control,
            dataset: self.label.clone(),
            checksum: self.dataset.checksum.to_string(),
            params,
            swept: BTreeMap::new(),
            selected: BTreeMap::new(),
            remark: String::new(),
            seed,
            protocol: self.experiment.protocol.clone(),
            device: device.into(),
            outcome: Outcome::Done,
            metrics: BTreeMap::new(),
            envelope: BTreeMap::new(),
            curves: BTreeMap::new(),
            history: Vec::new(),
            timings: Vec::new(),
            peak_memory: 0,
            bytes_per_item: [0.0; 2],
            queries: Vec::new(),
            values: BTreeMap::new(),
            unified: false,
            origin: None,
            kept: None,
        }
    }
}

/// What a trial is fitted and scored on, of a dataset.
///
/// # Errors
/// More training images than there are.
pub fn data<'a>(whole: &'a Dataset, planned: &Planned) -> Result<Cow<'a, Dataset>, Failure> {
    let all = whole.train.images.len();
    let data = match planned.images {
        None => Cow::Borrowed(whole),
        Some(images) if images <= all => Cow::Owned(controls::fewer(whole, images, Seed(planned.seed))),
        Some(images) => {
            let wrong =
                format!("{TRAINING_IMAGES}: expected at most {all}, which the training split has, found {images}");
            return Err(Failure::Reason(wrong));
        }
    };
    Ok(match planned.control {
        Control::Shuffled => Cow::Owned(controls::shuffled(&data, Seed(planned.seed))),
        Control::None | Control::Chance => data,
    })
}

/// The position behind all rows, which is that of chance.
fn behind(plan: &[Planned]) -> usize {
    plan.iter().map(|planned| planned.position + 1).max().unwrap_or(0)
}

/// The trial with its numbers.
fn filled(mut trial: Trial, numbers: Numbers) -> Trial {
    let Numbers { metrics, envelope, curves, queries, values, .. } = numbers;
    (trial.metrics, trial.envelope, trial.curves) = (metrics, envelope, curves);
    (trial.queries, trial.values) = (queries, values);
    let Numbers { selected, history, timings, peak_memory, bytes_per_item, unified, .. } = numbers;
    (trial.selected, trial.history, trial.timings) = (selected, history, timings);
    (trial.peak_memory, trial.bytes_per_item, trial.unified) = (peak_memory, bytes_per_item, unified);
    trial
}

/// What a person calls a trial.
pub fn name(trial: &Trial) -> String {
    let control = if trial.control == Control::Shuffled { " on shuffled pairs" } else { "" };
    let swept: String = trial.swept.iter().map(|(key, value)| format!(" {key}={value}")).collect();
    let seed = if trial.control == Control::Chance { String::new() } else { format!(" seed {}", trial.seed) };
    format!("{} {}: {}{swept}{control}{seed}", trial.experiment, trial.dataset, trial.label)
}

/// The first metrics that the experiment's table shows.
fn headline(columns: &[String], metrics: &BTreeMap<String, f64>) -> String {
    let shown = columns.iter().filter_map(|column| metrics.get(column).map(|value| format!("{column} {value:.3}")));
    shown.take(4).collect::<Vec<_>>().join(", ")
}
