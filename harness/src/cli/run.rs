//! `xmbench run`: experiments, recorded trial by trial.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::json;

use super::{Status, report, shared::Shared, table};
use crate::{
    output::{answer, json as to_json, progress, quoted, short, tell},
    record::{Control, LeftOut, Manifest, Store, check, words},
    report::{Rendered, explore::Source},
    run::{Clocking, Experiment, Methods, Profile, Progress, Settings, Summary, device, machine, plan, splits, sweep},
};

#[derive(clap::Args)]
pub struct Args {
    /// Experiments by name, with or without the number, or paths of .toml files
    experiments: Vec<String>,
    /// Every built-in experiment of the profile
    #[arg(long, conflicts_with = "experiments")]
    all: bool,
    /// How much to run
    #[arg(long, value_enum, default_value_t)]
    profile: Profile,
    /// The recording's folder; results/DATE-PROFILE when absent
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Root seeds in place of the experiments' own: 1,2,3
    #[arg(long, value_name = "N,..", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    seeds: Option<Vec<u64>>,
    /// Check everything and list the trials, run nothing
    #[arg(long)]
    dry_run: bool,
    /// Let methods run the programs that the experiments name
    #[arg(long)]
    allow_commands: bool,
    /// Leave the clock of encoding and search to a later run, for which the fitted matchers stay in the recording
    #[arg(long)]
    no_clock: bool,
    /// Keep nothing but numbers: neither the best items of each query nor fitted matchers, which `xmbench query` and the page to
    /// explore are made of
    #[arg(long)]
    lean: bool,
    /// Render no report at the end
    #[arg(long)]
    no_report: bool,
    #[command(flatten)]
    pub shared: Shared,
}

impl Args {
    /// What is run, and what `--all` leaves out because it is no part of the profile.
    fn chosen(&self) -> Result<(Vec<Experiment>, Vec<LeftOut>)> {
        let (mut experiments, mut left_out) = (Vec::new(), Vec::new());
        if self.all {
            for experiment in Experiment::builtin(self.profile)? {
                match experiment.off {
                    true => left_out.push(self.left_out(experiment.name)?),
                    false => experiments.push(experiment),
                }
            }
        } else {
            for name in &self.experiments {
                experiments.push(Experiment::find(name, self.profile)?);
            }
        }
        if experiments.is_empty() {
            bail!("nothing to run: name experiments (`xmbench list experiments`) or give --all");
        }
        for experiment in &mut experiments {
            if experiment.off {
                let profile = self.profile;
                bail!("experiment {} is not part of profile {profile}; choose another with --profile", experiment.name);
            }
            experiment.places.data = self.shared.means.data();
            if let Some(seeds) = &self.seeds {
                experiment.reseed(seeds)?;
            }
        }
        Ok((experiments, left_out))
    }

    /// An experiment that is no part of the profile, with the shortest one that it is part of.
    fn left_out(&self, experiment: String) -> Result<LeftOut> {
        let mut reason = format!("no part of the profile {}", self.profile);
        for profile in Profile::ALL {
            if !Experiment::find(&experiment, profile)?.off {
                reason += &format!("; `xmbench run {experiment} --profile {profile}` runs it");
                break;
            }
        }
        Ok(LeftOut { experiment, dataset: String::new(), reason })
    }
}

/// Tells every thread pool how many threads there are, before the first of them starts; every core when not said. Candle's own
/// pool, which spins while it waits, gets none unless the variable says so: large work goes over rayon, tile by tile.
///
/// # Errors
/// If the variable RAYON_NUM_THREADS says something that is no number of threads.
pub fn set_threads(threads: Option<NonZeroUsize>) -> Result<()> {
    if std::env::var_os("CANDLE_NUM_THREADS").is_none() {
        // SAFETY: as below.
        unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    }
    let threads = match (threads, std::env::var_os("RAYON_NUM_THREADS")) {
        (None, Some(said)) => {
            let said = said.to_string_lossy();
            // Rayon takes 0 for every core.
            if said != "0" {
                super::shared::threads(&said)
                    .map_err(|error| anyhow!("the variable RAYON_NUM_THREADS is {}: {error}", quoted(&said)))?;
            }
            return Ok(());
        }
        (None, None) => std::thread::available_parallelism().map_or(1, |threads| threads.get()),
        (Some(threads), _) => threads.get(),
    };
    for name in ["RAYON_NUM_THREADS", "POLARS_MAX_THREADS"] {
        // SAFETY: called first thing in main, when this is the process's only thread. There is no other way in: candle
        // and polars read these variables once, when their pools start.
        unsafe { std::env::set_var(name, threads.to_string()) };
    }
    Ok(())
}

pub fn run(args: &Args, methods: &Methods) -> Result<Status> {
    let (experiments, left_out) = args.chosen()?;
    let plans = experiments.iter().map(|experiment| plan(experiment, methods)).collect::<Result<Vec<_>>>()?;
    if args.dry_run {
        dry_run(args, &experiments, &plans)?;
        return Ok(Status::Done);
    }
    let (device, name) = device::open(args.shared.means.device)?;
    let circumstances = machine::circumstances();
    let folder = args
        .out
        .clone()
        .unwrap_or_else(|| Path::new("results").join(format!("{}-{}", &circumstances.started[..10], args.profile)));
    if args.shared.fresh {
        Store::clear(&folder)?;
    }
    let manifest = Manifest {
        command: command_line(),
        profile: args.profile.to_string(),
        threads: rayon::current_num_threads(),
        device: name,
        ..circumstances
    };
    let mut store = Store::open(&folder, manifest)?;
    if args.all {
        store.note(|manifest| manifest.left_out = left_out)?;
    }
    let stop = watch_for_interrupt()?;
    let settings = Settings {
        profile: args.profile,
        jobs: args.shared.fits.jobs(args.profile, &device),
        device,
        data: args.shared.means.data(),
        require_data: !args.all,
        clock: if args.no_clock { Clocking::Later } else { Clocking::Now },
        allow_commands: args.allow_commands,
        lean: args.lean,
    };
    let work: Vec<_> = experiments.iter().zip(&plans).map(|(experiment, plan)| (experiment, plan.as_slice())).collect();
    let trials = work.iter().map(|(experiment, plan)| splits::trials(experiment, plan)).sum();
    let shown = Progress::new(trials, false);
    let outcome = sweep(&work, &settings, &mut store, &shown, &stop);
    shown.finish();
    // Whatever happened, what is done is kept; the first error is the one to tell.
    let sealed = store.seal();
    let summary = outcome?;
    sealed?;
    let recording = store.recording();
    let rendered = if args.no_report || summary.interrupted || recording.trials.is_empty() {
        None
    } else {
        let rendered = {
            let source = Source { folder: &folder, data: settings.data.as_deref() };
            report::show(&recording, methods, (source, &[]), &args.shared.reports, args.shared.json)
        };
        Some(rendered.with_context(|| format!("cannot render the report of {}", folder.display()))?)
    };
    conclude(args, &folder, &summary, rendered.as_ref(), store.kept_bytes())?;
    Ok(if summary.interrupted {
        Status::Interrupted
    } else if summary.failed.is_empty() {
        Status::Done
    } else {
        Status::Failed
    })
}

/// The first Ctrl-C (or SIGTERM) stops after the current step; the second leaves at once, which loses only the trials in flight.
pub fn watch_for_interrupt() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        progress("stopping after the current step; once more leaves at once");
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(stop)
}

/// The command line as it was typed.
pub fn command_line() -> String {
    let arguments = std::env::args_os().skip(1).map(|argument| {
        let argument = argument.to_string_lossy().into_owned();
        if argument.contains(|c: char| c.is_whitespace() || c == '\'') { format!("{argument:?}") } else { argument }
    });
    let line = std::iter::once("xmbench".to_string()).chain(arguments).collect::<Vec<_>>().join(" ");
    short(&line, check::LONGEST_TEXT - 100).into_owned()
}

fn dry_run(args: &Args, experiments: &[Experiment], plans: &[Vec<crate::run::Planned>]) -> Result<()> {
    let mut rows = vec![["EXPERIMENT", "DATASET", "ROW", "CONTROL", "SEED", "PARAMETERS"].map(str::to_string).to_vec()];
    let mut objects = Vec::new();
    for (experiment, plan) in experiments.iter().zip(plans) {
        for opened in splits::opened(experiment, plan) {
            let label = opened.entry.label();
            for trial in opened.plan {
                let control = if trial.control == Control::Shuffled { "shuffled" } else { "" };
                let params: Vec<String> = trial.params.iter().map(|(key, value)| format!("{key}={value}")).collect();
                rows.push(vec![
                    experiment.name.clone(),
                    label.clone(),
                    trial.label.clone(),
                    control.into(),
                    trial.seed.to_string(),
                    params.join(" "),
                ]);
                objects.push(json!({
                    "experiment": experiment.name, "dataset": label, "label": trial.label,
                    "method": trial.method(), "control": trial.control, "seed": trial.seed,
                    "params": trial.params, "swept": trial.swept,
                }));
            }
        }
    }
    let said = match args.shared.json {
        true => to_json(&json!({ "trials": objects })),
        false => format!(
            "{}\n{} trials, and chance once an experiment and dataset; nothing was run",
            table(&rows),
            objects.len()
        ),
    };
    Ok(answer(&said)?)
}

fn conclude(
    args: &Args,
    folder: &Path,
    summary: &Summary,
    rendered: Option<&Rendered>,
    [best, matchers]: [u64; 2],
) -> Result<()> {
    if args.shared.json {
        let failed: Vec<_> =
            summary.failed.iter().map(|(key, reason)| json!({"trial": key, "reason": reason})).collect();
        return Ok(answer(&to_json(&json!({
            "recording": folder, "done": summary.done, "recorded_before": summary.recorded, "failed": failed,
            "left_out": summary.left_out, "interrupted": summary.interrupted, "files": rendered.map(|rendered| &rendered.files),
            "kept": {"best_bytes": best, "matcher_bytes": matchers},
        })))?);
    }
    let mut line =
        format!("trials: {} run, {} recorded before, {} failed", summary.done, summary.recorded, summary.failed.len());
    if summary.interrupted {
        line += "; interrupted: the same command goes on from here";
    }
    tell(&line);
    tell(&format!("recording: {}", folder.display()));
    if best + matchers > 0 {
        tell(&format!(
            "kept in it for `xmbench query`: the best items of each query, {}, and fitted matchers, {}; --lean keeps neither",
            words::bytes(best as f64),
            words::bytes(matchers as f64)
        ));
    }
    Ok(())
}
