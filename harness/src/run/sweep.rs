//! Runs what is not recorded yet, dataset by dataset, and records each trial as it ends.

use std::{collections::BTreeMap, path::PathBuf, sync::atomic::AtomicBool};

use anyhow::{Context, Result, bail};
use candle_core::Device;
use serde_json::json;
use xmbench_datasets::{Dataset, Split, random::Seed};

use super::{
    Experiment, Planned, Profile, Progress, controls,
    execute::{self, Failure, Numbers, Setting},
    experiment::DatasetEntry,
    machine,
    trial::Identity,
};
use crate::record::{Control, DatasetNote, ExperimentNote, Outcome, Store, Trial};

/// What holds for every trial of a run.
pub struct Settings {
    /// How much is run.
    pub profile: Profile,
    /// Where tensors live.
    pub device: Device,
    /// Where datasets lie that are not built in.
    pub data: Option<PathBuf>,
    /// Whether a dataset that is not there is an error; otherwise its experiments are left out, and a line says so.
    pub require_data: bool,
}

/// What a run did.
#[derive(Debug, Default)]
pub struct Summary {
    /// Trials that ran through.
    pub done: usize,
    /// Trials that were recorded before.
    pub recorded: usize,
    /// Trials that failed: key and reason.
    pub failed: Vec<(String, String)>,
    /// What was left out: experiment, dataset, reason.
    pub left_out: Vec<(String, String, String)>,
    /// Whether the run was stopped from outside.
    pub interrupted: bool,
}

/// An experiment with its trials.
pub type Work<'a> = (&'a Experiment, &'a [Planned]);

/// Runs every trial that is not recorded yet.
///
/// # Errors
/// A dataset that is required and cannot be opened, or a recording that cannot be written. A trial that fails is no error:
/// it is recorded with its reason.
pub fn sweep(
    work: &[Work<'_>],
    settings: &Settings,
    store: &mut Store,
    progress: &mut Progress,
    stop: &AtomicBool,
) -> Result<Summary> {
    let mut summary = Summary::default();
    store.note(|manifest| {
        manifest.experiments.extend(work.iter().map(|(experiment, _)| (experiment.name.clone(), note_of(experiment))));
    })?;
    let mut entries: Vec<&DatasetEntry> = Vec::new();
    for entry in work.iter().flat_map(|(experiment, _)| &experiment.datasets) {
        if !entries.contains(&entry) {
            entries.push(entry);
        }
    }
    for entry in entries {
        let users: Vec<&Work<'_>> = work.iter().filter(|(experiment, _)| experiment.datasets.contains(entry)).collect();
        let dataset = match open(entry, settings) {
            Ok(dataset) => dataset,
            Err(error) if settings.require_data => {
                return Err(error).with_context(|| format!("cannot open dataset {}", entry.label()));
            }
            Err(error) => {
                let reason = error.to_string();
                for (experiment, plan) in users {
                    progress.say(&format!("{} on {} is left out: {reason}", experiment.name, entry.label()));
                    progress.skip(plan.len() + 1);
                    if is_absent(&error) {
                        summary.left_out.push((experiment.name.clone(), entry.label(), reason.clone()));
                    } else {
                        summary.failed.push((format!("{}/{}", experiment.name, entry.label()), reason.clone()));
                    }
                }
                continue;
            }
        };
        store.note(|manifest| {
            manifest.datasets.insert(entry.label(), note_of_dataset(&dataset));
        })?;
        for (experiment, plan) in users {
            let mut bench =
                Bench { experiment, label: entry.label(), dataset: &dataset, settings, store, progress, stop };
            if bench.run(plan, &mut summary)? == End::Interrupted {
                summary.interrupted = true;
                return Ok(summary);
            }
        }
    }
    Ok(summary)
}

/// Opens a dataset from the data folder or from within the program.
fn open(entry: &DatasetEntry, settings: &Settings) -> Result<Dataset, xmbench_datasets::Error> {
    xmbench_datasets::open(&entry.name, &entry.options, settings.data.as_deref())
}

/// Whether the files of a dataset are not there at all, as they are for everybody who has not fetched them.
fn is_absent(error: &xmbench_datasets::Error) -> bool {
    match error {
        xmbench_datasets::Error::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
        xmbench_datasets::Error::Option { name, .. } => name == "data folder",
        xmbench_datasets::Error::Content { found, .. } => found == "nothing",
    }
}

#[derive(PartialEq)]
enum End {
    Done,
    Interrupted,
}

/// One experiment on one dataset.
struct Bench<'a> {
    experiment: &'a Experiment,
    label: String,
    dataset: &'a Dataset,
    settings: &'a Settings,
    store: &'a mut Store,
    progress: &'a mut Progress,
    stop: &'a AtomicBool,
}

impl Bench<'_> {
    fn run(&mut self, plan: &[Planned], summary: &mut Summary) -> Result<End> {
        self.chance(plan, summary)?;
        let mut mixed: BTreeMap<u64, Dataset> = BTreeMap::new();
        for planned in plan {
            let mut trial = self.head(planned);
            self.progress.begin(&name(&trial));
            if self.is_recorded(&trial)? {
                summary.recorded += 1;
                self.progress.skip(1);
                continue;
            }
            let dataset = match planned.control {
                Control::Shuffled => {
                    &*mixed.entry(planned.seed).or_insert_with(|| controls::shuffled(self.dataset, Seed(planned.seed)))
                }
                _ => self.dataset,
            };
            let setting = Setting {
                dataset,
                protocol: &self.experiment.protocol,
                profile: self.settings.profile,
                device: &self.settings.device,
                checkpoints: self.store.checkpoints(&trial.id),
                stop: self.stop,
            };
            match execute::execute(planned, &setting, self.progress) {
                Ok(numbers) => {
                    self.progress.end(&headline(&self.experiment.columns, &numbers));
                    take(&mut trial, numbers);
                    summary.done += 1;
                }
                Err(Failure::Interrupted) => return Ok(End::Interrupted),
                Err(Failure::Reason(reason)) => {
                    self.progress.end(&format!("failed: {reason}"));
                    summary.failed.push((trial.key(), reason.clone()));
                    trial.outcome = Outcome::Failed { reason };
                }
            }
            self.store.add(trial)?;
        }
        self.forget_stale(plan);
        Ok(End::Done)
    }

    /// Records the expectation of a random order, and makes sure that the protocol gives what the table shows.
    fn chance(&mut self, plan: &[Planned], summary: &mut Summary) -> Result<()> {
        let mut trial = self.row("chance", "chance", json!({}), 0, Control::Chance);
        trial.position = plan.iter().map(|planned| planned.position + 1).max().unwrap_or(0);
        self.progress.begin(&name(&trial));
        if self.is_recorded(&trial)? {
            summary.recorded += 1;
            self.progress.skip(1);
            return Ok(());
        }
        match execute::chance(&self.experiment.protocol, self.dataset) {
            Ok(numbers) => {
                for column in &self.experiment.columns {
                    if !numbers.metrics.contains_key(column) {
                        let hint = super::nearest(column, numbers.metrics.keys().map(String::as_str));
                        bail!("experiment {}: its protocol gives no metric `{column}`{hint}", self.experiment.name);
                    }
                }
                self.progress.end(&headline(&self.experiment.columns, &numbers));
                take(&mut trial, numbers);
                summary.done += 1;
            }
            Err(failure) => {
                let reason = failure.to_string();
                self.progress.end(&format!("failed: {reason}"));
                summary.failed.push((trial.key(), reason.clone()));
                trial.outcome = Outcome::Failed { reason };
            }
        }
        Ok(self.store.add(trial)?)
    }

    /// Whether the trial's numbers are there, be it from another experiment.
    fn is_recorded(&mut self, trial: &Trial) -> Result<bool> {
        if self.store.get(&trial.key()).is_some_and(|found| found.id == trial.id && found.outcome == Outcome::Done) {
            return Ok(true);
        }
        let Some(twin) = self.store.with_id(&trial.id).filter(|twin| twin.outcome == Outcome::Done) else {
            return Ok(false);
        };
        let Trial { experiment, position, label, dataset, swept, .. } = trial.clone();
        let copy = Trial { experiment, position, label, dataset, swept, ..twin.clone() };
        self.store.add(copy)?;
        Ok(true)
    }

    /// Drops what the recording holds of this experiment and dataset and the experiment, as it is now, would not give.
    fn forget_stale(&mut self, plan: &[Planned]) {
        let wanted = |found: &Trial| {
            let same = |planned: &&Planned| {
                (planned.position, &planned.label, &planned.swept, planned.control)
                    == (found.position, &found.label, &found.swept, found.control)
            };
            match plan.iter().find(same) {
                Some(planned) => self.head(&Planned { seed: found.seed, ..planned.clone() }).id == found.id,
                None => found.control == Control::Chance,
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
    fn head(&self, planned: &Planned) -> Trial {
        let params = serde_json::to_value(&planned.params).expect("parameters are plain values");
        let mut trial = self.row(&planned.method.card().name, &planned.label, params, planned.seed, planned.control);
        trial.position = planned.position;
        trial.swept.clone_from(&planned.swept);
        let mut remarks: Vec<String> = Vec::new();
        for remark in planned.settings.iter().filter_map(|setting| planned.method.remark(setting)) {
            if !remarks.contains(&remark) {
                remarks.push(remark);
            }
        }
        trial.remark = remarks.join("; ");
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
        }
    }
}

fn take(trial: &mut Trial, numbers: Numbers) {
    let Numbers { selected, metrics, envelope, curves, history, timings, peak_memory, bytes_per_item, queries } =
        numbers;
    trial.selected = selected;
    (trial.metrics, trial.envelope, trial.curves, trial.history) = (metrics, envelope, curves, history);
    (trial.timings, trial.peak_memory, trial.bytes_per_item, trial.queries) =
        (timings, peak_memory, bytes_per_item, queries);
}

/// What a person calls a trial.
fn name(trial: &Trial) -> String {
    let control = if trial.control == Control::Shuffled { " on shuffled pairs" } else { "" };
    let swept: String = trial.swept.iter().map(|(key, value)| format!(" {key}={value}")).collect();
    let seed = if trial.control == Control::Chance { String::new() } else { format!(" seed {}", trial.seed) };
    format!("{} {}: {}{swept}{control}{seed}", trial.experiment, trial.dataset, trial.label)
}

/// The first metrics that the experiment's table shows.
fn headline(columns: &[String], numbers: &Numbers) -> String {
    let shown =
        columns.iter().filter_map(|column| numbers.metrics.get(column).map(|value| format!("{column} {value:.3}")));
    shown.take(4).collect::<Vec<_>>().join(", ")
}

fn note_of(experiment: &Experiment) -> ExperimentNote {
    ExperimentNote {
        title: experiment.title.clone(),
        analysis: experiment.analysis.clone(),
        columns: experiment.columns.clone(),
        plots: experiment.plots.clone(),
        expected: experiment.expected.clone(),
    }
}

fn note_of_dataset(dataset: &Dataset) -> DatasetNote {
    let splits = [Split::Train, Split::Val, Split::Test].into_iter();
    let sizes = splits.filter_map(|split| {
        let collection = dataset.split(split)?;
        Some((split.to_string(), [collection.images.len(), collection.texts.len()]))
    });
    DatasetNote {
        variant: dataset.variant.clone(),
        checksum: dataset.checksum.to_string(),
        sizes: sizes.collect(),
        title: dataset.notice.title.clone(),
        licence: dataset.notice.licence.clone(),
        attribution: dataset.notice.attribution.clone(),
        caveat: dataset.notice.caveat.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_files_are_told_from_broken_ones() {
        let folder = tempfile::tempdir().unwrap();
        let entry = |name: &str| DatasetEntry { name: name.into(), label: None, options: toml::Table::new() };
        let settings = |data: Option<&std::path::Path>| Settings {
            profile: Profile::Smoke,
            device: Device::Cpu,
            data: data.map(PathBuf::from),
            require_data: false,
        };
        for name in ["precomp", "wiki", "mnist-halves", "mfeat"] {
            assert!(is_absent(&open(&entry(name), &settings(None)).unwrap_err()));
            assert!(is_absent(&open(&entry(name), &settings(Some(folder.path()))).unwrap_err()));
        }
        assert!(!is_absent(&open(&entry("nowhere"), &settings(None)).unwrap_err()));
    }
}
