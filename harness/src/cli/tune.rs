//! `xmbench tune`: the same number of settings for every trained row, judged on validation data.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::{
    Status,
    run::watch_for_interrupt,
    shared::{Fits, Means},
    table,
};
use crate::{
    output::{answer, clipped, json as to_json, tell},
    record::{Tuned, files},
    run::{
        Experiment, Methods, Profile, Progress, device,
        tune::{self, Found, NotTuned, Request},
        tuned,
    },
};

/// Where experiments lie in the repository.
const EXPERIMENTS: &str = "harness/experiments";

/// Columns of the table.
const WIDTH: usize = 100;

#[derive(clap::Args)]
pub struct Args {
    /// The experiment by name, with or without the number, or the path of a .toml file
    experiment: String,
    /// Settings that are tried of each row, the one that it has among them
    #[arg(long, value_name = "N")]
    trials: NonZeroUsize,
    /// How long a whole fit is, and in which profile the parameters are taken
    #[arg(long, value_enum, default_value_t)]
    profile: Profile,
    /// Rows by label or as tables name them; every trained row when absent
    #[arg(long, value_name = "ROW", num_args = 1..)]
    rows: Vec<String>,
    /// Root seed of draws and fits
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    seed: u64,
    /// The file that is written; tuned/NAME.toml beside the experiment when absent
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Begin no further fit after so many minutes
    #[arg(long, value_name = "MIN")]
    time_limit: Option<f64>,
    #[command(flatten)]
    pub means: Means,
    #[command(flatten)]
    pub fits: Fits,
    /// Remove what was found and fitted before, and begin anew
    #[arg(long)]
    fresh: bool,
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, methods: &Methods) -> Result<Status> {
    let mut experiment = Experiment::as_typed(&args.experiment, args.profile)?;
    if experiment.off {
        bail!("experiment {} is not part of profile {}; choose another with --profile", experiment.name, args.profile);
    }
    let data = args.means.data();
    experiment.places.data.clone_from(&data);
    let out = args.out.clone().unwrap_or_else(|| place(&experiment));
    let (journal, scratch) = (out.with_extension("tune.jsonl"), out.with_extension("tune"));
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    if args.fresh {
        remove(&out, &journal, &scratch)?;
    }
    let before = match out.is_file() {
        true => Some(tuned::read(&out).with_context(|| "give another --out, or --fresh to begin anew")?.tuned),
        false => None,
    };
    let (device, _) = device::open(args.means.device)?;
    let stop = watch_for_interrupt()?;
    let began = Instant::now();
    let deadline = match args.time_limit {
        Some(minutes) if !(minutes > 0.0 && minutes.is_finite()) => {
            bail!("--time-limit: expected minutes above 0, found {minutes}")
        }
        // A limit that no clock reaches is none.
        limit => limit
            .and_then(|minutes| Duration::try_from_secs_f64(60.0 * minutes).ok())
            .and_then(|it| began.checked_add(it)),
    };
    let request = Request {
        experiment: &experiment,
        methods,
        profile: args.profile.name(),
        trials: args.trials.get(),
        seed: args.seed,
        rows: &args.rows,
        device: &device,
        data: data.as_deref(),
        journal: &journal,
        scratch: &scratch,
        jobs: args.fits.jobs(args.profile, &device),
        deadline,
        stop: &stop,
    };
    if let Some(before) = &before {
        same_budget(&out, before, &request.header())?;
    }
    let shown = Progress::new(tune::fits(&experiment, methods, &args.rows, args.trials.get())?, args.json);
    let found = tune::tune(&request, &shown);
    shown.finish();
    let mut found = found?;
    let whole = merged(before, &mut found);
    if !whole.rows.is_empty() {
        write(args, &out, &whole)?;
    }
    conclude(args, &out, &found)?;
    Ok(if found.interrupted {
        Status::Interrupted
    } else if found.left.iter().all(|it| it.meant) {
        Status::Done
    } else {
        Status::Failed
    })
}

/// Beside the experiment; of a built-in one, where the repository has it, or here.
fn place(experiment: &Experiment) -> PathBuf {
    let folder = match &experiment.places.beside {
        Some(folder) => folder.clone(),
        None if Path::new(EXPERIMENTS).is_dir() => EXPERIMENTS.into(),
        None => PathBuf::new(),
    };
    folder.join(tuned::FOLDER).join(format!("{}.toml", experiment.name))
}

fn remove(out: &Path, journal: &Path, scratch: &Path) -> Result<()> {
    for file in [out, journal] {
        if file.is_file() {
            std::fs::remove_file(file).with_context(|| format!("cannot remove {}", file.display()))?;
        }
    }
    if scratch.is_dir() {
        std::fs::remove_dir_all(scratch).with_context(|| format!("cannot remove {}", scratch.display()))?;
    }
    Ok(())
}

/// Refuses to put rows beside others on which another budget was spent, or that another program found.
fn same_budget(out: &Path, before: &Tuned, now: &Tuned) -> Result<()> {
    let seen = |it: &Tuned| {
        [
            ("experiment", it.experiment.clone()),
            ("profile", it.profile.clone()),
            ("settings a row", it.trials.to_string()),
            ("seed", it.seed.to_string()),
            ("program", it.program.clone()),
        ]
    };
    let differences: Vec<String> = seen(before)
        .into_iter()
        .zip(seen(now))
        .filter(|((_, a), (_, b))| a != b)
        .map(|((what, a), (_, b))| format!("{what} {a} there and {b} now"))
        .collect();
    if !differences.is_empty() {
        bail!(
            "{} has rows that were tuned otherwise: {}; give another --out, or --fresh to begin anew",
            out.display(),
            differences.join(", ")
        );
    }
    Ok(())
}

/// The rows that were found now, and those of before that were not tuned again, in the experiment's order.
fn merged(before: Option<Tuned>, found: &mut Found) -> Tuned {
    let mut whole = found.tuned.clone();
    let kept = before.into_iter().flat_map(|before| before.rows);
    for row in kept {
        if whole.find(&row.row, &row.dataset).is_none() {
            whole.rows.push(row);
        }
    }
    let place = |row: &str, dataset: &str| found.order.iter().position(|(it, on)| it == row && on == dataset);
    whole.rows.sort_by_key(|row| place(&row.row, &row.dataset).unwrap_or(usize::MAX));
    whole
}

fn write(args: &Args, out: &Path, whole: &Tuned) -> Result<()> {
    let head = format!(
        "# What `xmbench tune {} --profile {} --trials {} --seed {}` found: {}.\n\
         # Judged on validation data alone; `before` and `after` are validation scores. Not to be edited by hand.\n",
        whole.experiment,
        args.profile,
        whole.trials,
        whole.seed,
        whole.budget()
    );
    files::replace(out, |file| std::io::Write::write_all(file, format!("{head}{}", whole.to_toml()).as_bytes()))
        .with_context(|| format!("cannot write {}", out.display()))
}

fn conclude(args: &Args, out: &Path, found: &Found) -> Result<()> {
    let Found { tuned, left, .. } = found;
    if args.json {
        let file = (!tuned.rows.is_empty()).then_some(out);
        let object = json!({ "file": file, "tuned": tuned, "not_tuned": left, "interrupted": found.interrupted });
        return Ok(answer(&to_json(&object))?);
    }
    answer(&text(tuned, left))?;
    if !tuned.rows.is_empty() {
        tell(&format!("tuned rows: {}", out.display()));
    }
    Ok(())
}

/// The table, a line a changed parameter, and what is not tuned; at most [`WIDTH`] columns.
fn text(tuned: &Tuned, left: &[NotTuned]) -> String {
    let mut parts = Vec::new();
    let mut datasets: Vec<&str> = Vec::new();
    for row in &tuned.rows {
        if !datasets.contains(&row.dataset.as_str()) {
            datasets.push(&row.dataset);
        }
    }
    for dataset in datasets {
        let rows: Vec<_> = tuned.rows.iter().filter(|row| row.dataset == dataset).collect();
        let title =
            format!("{} on {dataset}, developed on {}: validation scores", tuned.experiment, rows[0].developed_on);
        let mut lines = vec![["ROW", "SETTINGS", "BEFORE", "AFTER", "CHANGED"].map(str::to_string).to_vec()];
        for row in rows {
            let score = |score: f64| format!("{score:.3}");
            let mut changes = row.changes().into_iter().map(|(key, from, to)| format!("{key} {from} -> {to}"));
            lines.push(vec![
                clipped(&row.row, 28),
                tuned.trials.to_string(),
                row.before.map_or("failed".into(), score),
                score(row.after),
                clipped(&changes.next().unwrap_or("nothing".into()), 40),
            ]);
            let blank = || std::iter::repeat_n(String::new(), 4);
            lines.extend(changes.map(|change| blank().chain([clipped(&change, 40)]).collect()));
        }
        parts.push(format!("{}\n{}", clipped(&title, WIDTH), table(&lines)));
    }
    if !left.is_empty() {
        let lines =
            left.iter().map(|it| clipped(&format!("not tuned: {} on {}: {}", it.row, it.dataset, it.reason), WIDTH));
        parts.push(lines.collect::<Vec<_>>().join("\n"));
    }
    if !tuned.rows.is_empty() {
        parts.push(clipped(&tuned.budget(), WIDTH));
    }
    parts.join("\n\n")
}
