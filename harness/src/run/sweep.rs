//! Runs what is not recorded yet, dataset by dataset, and records each trial as it ends.

use std::{path::PathBuf, sync::atomic::AtomicBool};

use anyhow::{Context, Result, bail};
use candle_core::Device;
use xmbench_datasets::Dataset;

use super::{
    Experiment, Planned, Profile, Progress,
    bench::{Bench, End},
    entry::DatasetEntry,
    fits::fit_all,
    plan::Job,
    splits::{self, Opened},
    stated::stated,
};
use crate::{
    output::{quoted, short},
    record::{DatasetNote, ExperimentNote, LeftOut, Store, check},
};

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
    /// When what encoding and search take is measured.
    pub clock: Clocking,
    /// Whether methods may run programs that an experiment names.
    pub allow_commands: bool,
    /// Whether nothing but numbers is kept: neither what stands first for each query nor matchers.
    pub lean: bool,
    /// Trials that are fitted side by side, which share the threads.
    pub jobs: usize,
}

/// What the experiments on a dataset share.
pub struct Desk<'a> {
    /// What they call the dataset.
    pub label: &'a str,
    /// The dataset.
    pub dataset: &'a Dataset,
    /// What holds for every trial.
    pub settings: &'a Settings,
    /// Where trials are recorded.
    pub store: &'a mut Store,
    /// Where they are shown.
    pub progress: &'a Progress,
    /// Set from outside to stop.
    pub stop: &'a AtomicBool,
    /// Trials that are fitted side by side.
    pub jobs: usize,
}

impl Desk<'_> {
    /// One of them.
    pub fn bench<'b>(&'b mut self, experiment: &'b Experiment) -> Bench<'b> {
        let Self { label, dataset, settings, store, progress, stop, jobs: _ } = self;
        Bench { experiment, label: label.to_string(), dataset, settings, store, progress, stop }
    }
}

/// When what encoding and search take is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clocking {
    /// When all rows on a dataset are fitted.
    Now,
    /// By a later run; matchers stay in the recording until then.
    Later,
    /// Not at all.
    Never,
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
    /// What was left out.
    pub left_out: Vec<LeftOut>,
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
    progress: &Progress,
    stop: &AtomicBool,
) -> Result<Summary> {
    let mut summary = Summary::default();
    if !settings.allow_commands {
        work.iter().try_for_each(|(experiment, plan)| without_programs(experiment, plan))?;
    }
    let note_of = |(experiment, plan): &Work<'_>| {
        let note = ExperimentNote { expected: stated(experiment, plan)?, ..experiment.note() };
        Ok((experiment.name.clone(), note))
    };
    let notes = work.iter().map(note_of).collect::<Result<Vec<_>>>()?;
    store.note(|manifest| {
        manifest.left_out.retain(|it| !work.iter().any(|(experiment, _)| experiment.name == it.experiment));
        manifest.experiments.extend(notes);
    })?;
    let mut opened: Vec<(&Experiment, Opened)> = Vec::new();
    for (experiment, plan) in work {
        opened.extend(splits::opened(experiment, plan).into_iter().map(|it| (*experiment, it)));
    }
    let mut entries: Vec<&DatasetEntry> = Vec::new();
    for (_, Opened { entry, .. }) in &opened {
        if !entries.contains(&entry) {
            entries.push(entry);
        }
    }
    let mut jobs = settings.jobs;
    if store.had_too_many() {
        progress.say(
            "the system ended the last run for want of memory while several trials were fitted side by side; this one fits them one \
             after another",
        );
        jobs = 1;
    }
    for entry in entries {
        let label = entry.label();
        let here = || opened.iter().filter(|(_, it)| it.entry == *entry);
        let users: Vec<Work<'_>> = here().map(|(experiment, it)| (*experiment, &it.plan[..])).collect();
        let of = here().find_map(|(_, it)| it.of.clone());
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
                        let experiment = experiment.name.clone();
                        let reason = short(&reason, check::LONGEST_TEXT - 100).into_owned();
                        let left = LeftOut { experiment, dataset: label.clone(), reason };
                        store.note(|manifest| manifest.left_out.push(left.clone()))?;
                        summary.left_out.push(left);
                    } else {
                        summary.failed.push((format!("{}/{}", experiment.name, entry.label()), reason.clone()));
                    }
                }
                continue;
            }
        };
        store.note(|manifest| {
            // What an earlier run recorded is still one of several.
            let of = of.or_else(|| manifest.datasets.get(&label)?.of.clone());
            manifest.datasets.insert(label.clone(), DatasetNote { of, ..note_of_dataset(&dataset) });
        })?;
        let mut desk = Desk { label: &label, dataset: &dataset, settings, store, progress, stop, jobs };
        if on_dataset(&mut desk, &users, &mut summary)? == End::Interrupted {
            summary.interrupted = true;
            return Ok(summary);
        }
    }
    Ok(summary)
}

/// Everything on one dataset. What one experiment fits another may be made of: all are fitted before anything is made of them, and nothing
/// is forgotten before all are through.
fn on_dataset<'a>(desk: &mut Desk<'a>, users: &'a [Work<'a>], summary: &mut Summary) -> Result<End> {
    for (experiment, plan) in users {
        desk.bench(experiment).chance(plan, summary)?;
    }
    if fit_all(desk, users, summary)? == End::Interrupted {
        return Ok(End::Interrupted);
    }
    for (experiment, plan) in users {
        let mut bench = desk.bench(experiment);
        if bench.combine_all(plan, summary)? == End::Interrupted {
            return Ok(End::Interrupted);
        }
        bench.forget_stale(plan);
    }
    if desk.settings.clock == Clocking::Now {
        for (experiment, plan) in users {
            if desk.bench(experiment).clock(plan)? == End::Interrupted {
                return Ok(End::Interrupted);
            }
        }
    }
    if desk.settings.clock != Clocking::Later {
        for (experiment, plan) in users {
            desk.bench(experiment).forget_matchers(plan)?;
        }
    }
    Ok(End::Done)
}

/// Refuses an experiment that runs programs: it may come from anybody.
fn without_programs(experiment: &Experiment, plan: &[Planned]) -> Result<()> {
    for planned in plan {
        if let Job::Fit { method, .. } = &planned.job
            && method.card().runs_programs
        {
            let command = planned.params.get("command").and_then(toml::Value::as_str).unwrap_or_default();
            bail!(
                "experiment {}, row `{}` runs a program, {}; read the experiment, and allow it with --allow-commands",
                experiment.name,
                planned.label,
                quoted(command)
            );
        }
    }
    Ok(())
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
        xmbench_datasets::Error::Write { .. } => false,
    }
}

fn note_of_dataset(dataset: &Dataset) -> DatasetNote {
    let sizes = dataset
        .splits()
        .map(|(split, collection)| (split.to_string(), [collection.images.len(), collection.texts.len()]));
    // Somebody else's words may be of any length, and what is recorded must read back.
    let title = |text: &str| short(text, check::LONGEST_NAME - 100).into_owned();
    let text = |text: &str| short(text, check::LONGEST_TEXT - 100).into_owned();
    DatasetNote {
        variant: title(&dataset.variant),
        checksum: dataset.checksum.to_string(),
        sizes: sizes.collect(),
        title: title(&dataset.notice.title),
        licence: text(&dataset.notice.licence),
        attribution: text(&dataset.notice.attribution),
        caveat: text(&dataset.notice.caveat),
        of: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_files_are_told_from_broken_ones() {
        let folder = tempfile::tempdir().unwrap();
        let entry = |name: &str| DatasetEntry { name: name.into(), ..DatasetEntry::default() };
        let settings = |data: Option<&std::path::Path>| Settings {
            profile: Profile::Smoke,
            device: Device::Cpu,
            data: data.map(PathBuf::from),
            require_data: false,
            clock: Clocking::Never,
            allow_commands: false,
            lean: true,
            jobs: 1,
        };
        for name in ["precomp", "wiki", "mnist-halves", "mfeat"] {
            assert!(is_absent(&open(&entry(name), &settings(None)).unwrap_err()));
            assert!(is_absent(&open(&entry(name), &settings(Some(folder.path()))).unwrap_err()));
        }
        assert!(!is_absent(&open(&entry("nowhere"), &settings(None)).unwrap_err()));
    }
}
