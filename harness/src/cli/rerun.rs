//! `xmbench rerun`: trials of a recording, run again from the recording alone.

use std::{collections::BTreeMap, num::NonZeroUsize, path::PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use xmbench_datasets::random::Seed;

use super::{
    Status,
    report::newest,
    run::{command_line, watch_for_interrupt},
    shared::Means,
};
use crate::{
    output::{answer, json as to_json, quoted},
    record::{Control, Manifest, Origin, Recording, Store, Trial, store, words},
    run::{
        Clocking, Experiment, Methods, Profile, Progress, Settings, device, machine, nearest, plan, plan::only, sweep,
    },
};

#[derive(clap::Args)]
pub struct Args {
    /// The recording's folder; the newest under results/ when absent
    recording: Option<PathBuf>,
    /// Rows as tables name them; every row when absent
    #[arg(long = "row", value_name = "ROW")]
    rows: Vec<String>,
    /// Of this experiment alone
    #[arg(long, value_name = "NAME")]
    experiment: Option<String>,
    /// Of this dataset alone, as tables call it
    #[arg(long, value_name = "NAME")]
    dataset: Option<String>,
    /// Of this seed alone
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// So many of them, drawn at random
    #[arg(long, value_name = "N")]
    sample: Option<NonZeroUsize>,
    /// Seed of the draw
    #[arg(long, value_name = "N", default_value_t = 1, requires = "sample")]
    draw: u64,
    #[command(flatten)]
    pub means: Means,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// A trial as it was recorded, and what came of it now.
struct Again {
    recorded: Trial,
    /// Nothing where every number is equal in every bit.
    differences: Vec<String>,
    /// What differs in program and machine, where something came out differently.
    circumstances: Vec<String>,
}

pub fn run(args: &Args, methods: &Methods) -> Result<Status> {
    let folder = args.recording.clone().map_or_else(newest, Ok)?;
    let recording = store::read(&folder)?;
    let mut groups: BTreeMap<(&str, &str), Vec<&Trial>> = BTreeMap::new();
    for trial in args.chosen(&recording)? {
        groups.entry((&trial.experiment, &trial.dataset)).or_default().push(trial);
    }
    let (device, name) = device::open(args.means.device)?;
    let settings = Settings {
        profile: Profile::Smoke,
        device,
        data: args.means.data(),
        require_data: true,
        clock: Clocking::Never,
        // Whoever made the recording wrote its experiments.
        allow_commands: false,
        lean: true,
        jobs: 1,
    };
    let manifest = Manifest {
        command: command_line(),
        profile: Profile::Smoke.to_string(),
        threads: rayon::current_num_threads(),
        device: name,
        ..machine::circumstances()
    };
    let stop = watch_for_interrupt()?;
    let mut all = Vec::new();
    for ((experiment, dataset), trials) in groups {
        // What is made anew is compared and thrown away.
        let scratch = tempfile::tempdir().context("cannot make a folder for temporary files")?;
        let mut store = Store::open(scratch.path(), manifest.clone())?;
        let experiment = recorded(args, &recording, experiment, dataset, &trials)?;
        let wanted: Vec<String> = trials.iter().map(|trial| trial.key()).collect();
        let whole = plan(&experiment, methods).with_context(|| format!("recorded experiment {}", experiment.name))?;
        let key = |planned: &crate::run::Planned| {
            let at = (planned.position, planned.label.as_str(), &planned.swept, planned.control, planned.seed);
            trials.iter().any(|it| (it.position, it.label.as_str(), &it.swept, it.control, it.seed) == at)
        };
        let plan = only(&whole, key);
        let shown = Progress::new(plan.len() + 1, args.json);
        let outcome = sweep(&[(&experiment, plan.as_slice())], &settings, &mut store, &shown, &stop);
        shown.finish();
        if outcome?.interrupted {
            return Ok(Status::Interrupted);
        }
        for (trial, key) in trials.into_iter().zip(wanted) {
            let differences = match store.get(&key) {
                Some(again) => trial.differences(again),
                None => vec!["its row is none of the recorded experiment".into()],
            };
            let now = Origin::of(&manifest, String::new());
            let circumstances = match &trial.origin {
                _ if differences.is_empty() => Vec::new(),
                Some(origin) => origin.differences(&now),
                None => vec!["the recording does not say on what it was made".into()],
            };
            all.push(Again { recorded: trial.clone(), differences, circumstances });
        }
    }
    answer(&if args.json { lines(&all) } else { text(&all) })?;
    Ok(if all.iter().all(|it| it.differences.is_empty()) { Status::Done } else { Status::Failed })
}

impl Args {
    /// The trials to run again, in the recording's order.
    fn chosen<'a>(&self, recording: &'a Recording) -> Result<Vec<&'a Trial>> {
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        let mut trials: Vec<&Trial> = recording
            .trials
            .iter()
            .filter(|trial| trial.control != Control::Chance)
            .filter(|trial| is(&self.experiment, &trial.experiment) && is(&self.dataset, &trial.dataset))
            .filter(|trial| self.seed.is_none_or(|seed| seed == trial.seed))
            .collect();
        for row in &self.rows {
            if !trials.iter().any(|trial| words::row(trial) == *row || trial.label == *row) {
                let names: Vec<String> =
                    trials.iter().flat_map(|trial| [words::row(trial), trial.label.clone()]).collect();
                bail!(
                    "the recording has no row {} of these{}",
                    quoted(row),
                    nearest(row, names.iter().map(String::as_str))
                );
            }
        }
        trials.retain(|trial| {
            self.rows.is_empty() || self.rows.iter().any(|row| words::row(trial) == *row || trial.label == *row)
        });
        if trials.is_empty() {
            bail!("the recording has no trial of these; `xmbench report` shows what it has");
        }
        if let Some(sample) = self.sample {
            let mut order: Vec<usize> = (0..trials.len()).collect();
            Seed(self.draw).stream(&["rerun"]).shuffle(&mut order);
            order.truncate(sample.get());
            order.sort_unstable();
            trials = order.into_iter().map(|at| trials[at]).collect();
        }
        Ok(trials)
    }
}

/// The experiment as the recording has it, for these trials on one dataset; what it says of values and columns is not asked here.
fn recorded(args: &Args, recording: &Recording, name: &str, dataset: &str, trials: &[&Trial]) -> Result<Experiment> {
    let source = recording.manifest.experiments.get(name).map(|note| note.source.as_str()).unwrap_or_default();
    if source.is_empty() {
        bail!(
            "the recording does not hold experiment {}: an earlier version made it, or another program; run it anew with `xmbench run`",
            quoted(name)
        );
    }
    let mut experiment = Experiment::parse(name, &format!("{name} as recorded"), source, Profile::Smoke)?;
    experiment.seeds = trials.iter().map(|trial| trial.seed).collect();
    experiment.seeds.sort_unstable();
    experiment.seeds.dedup();
    let seeds = experiment.seeds.clone();
    experiment.datasets.retain(|entry| entry.opened(&seeds).iter().any(|(opened, _)| opened.label() == dataset));
    if experiment.datasets.is_empty() {
        bail!("the recorded experiment {name} has no dataset {}", quoted(dataset));
    }
    experiment.places.data = args.means.data();
    experiment.columns.clear();
    experiment.expected.clear();
    experiment.methods.iter_mut().for_each(|entry| entry.reported.clear());
    Ok(experiment)
}

fn text(all: &[Again]) -> String {
    let mut lines = Vec::new();
    for Again { recorded, differences, circumstances } in all {
        let name = crate::run::name(recorded);
        match differences.as_slice() {
            [] => lines.push(format!("equal    {name}")),
            [first, rest @ ..] => {
                lines.push(format!("DIFFERS  {name}"));
                let more = if rest.is_empty() { String::new() } else { format!("; and {} more", rest.len()) };
                lines.push(format!("         {first}{more}"));
            }
        }
        lines.extend(circumstances.iter().map(|it| format!("         recorded and now: {it}")));
    }
    let equal = all.iter().filter(|it| it.differences.is_empty()).count();
    lines.push(format!("{equal} of {} equal in every bit", all.len()));
    lines.join("\n")
}

fn lines(all: &[Again]) -> String {
    let object = |it: &Again| -> Value {
        json!({
            "trial": it.recorded.key(), "equal": it.differences.is_empty(), "differences": it.differences,
            "circumstances": it.circumstances,
        })
    };
    all.iter().map(|it| to_json(&object(it))).collect::<Vec<_>>().join("\n")
}
