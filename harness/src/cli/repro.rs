//! `xmbench repro`: tables of papers, run again and judged cell by cell.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use anyhow::{Context, Result};
use candle_core::Device;
use serde_json::{Value, json};

use super::{
    Status,
    run::{command_line, watch_for_interrupt},
    shared::Shared,
    table,
};
use crate::{
    output::{answer, json as to_json, progress, tell},
    record::{Manifest, Recording, Store},
    report::table::Verdict,
    repro::{
        PaperTable,
        judge::{self, Judged},
        render::{self, Part},
    },
    run::{Clocking, Experiment, Methods, Progress, Settings, Summary, device, machine, plan, splits, sweep},
};

#[derive(clap::Args)]
pub struct Args {
    /// Tables by name, or paths of .toml files; every built-in one when absent, without those whose data is absent
    tables: Vec<String>,
    /// Show every table with the data that it needs, run nothing
    #[arg(long)]
    list: bool,
    /// The recording's folder, whose trials are not run again; results/repro-PROFILE when absent
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    pub shared: Shared,
}

impl Args {
    fn chosen(&self) -> Result<Vec<PaperTable>> {
        match self.tables.is_empty() {
            true => PaperTable::builtin(),
            false => self.tables.iter().map(|name| PaperTable::find(name)).collect(),
        }
    }
}

/// A table that was run.
struct Ran {
    table: PaperTable,
    folder: PathBuf,
    experiments: Vec<String>,
    recording: Recording,
    summary: Summary,
}

pub fn run(args: &Args, methods: &Methods) -> Result<Status> {
    let tables = args.chosen()?;
    if args.list {
        return list(args, &tables);
    }
    let (device, name) = device::open(args.shared.means.device)?;
    let stop = watch_for_interrupt()?;
    let mut ran: Vec<Ran> = Vec::new();
    for table in tables {
        let fresh = args.shared.fresh && ran.iter().all(|earlier| earlier.folder != folder(args, &table));
        ran.push(run_table(args, table, methods, (&device, &name), fresh, &stop)?);
        if ran.last().is_some_and(|ran| ran.summary.interrupted) {
            progress("interrupted: the same command goes on from here");
            return Ok(Status::Interrupted);
        }
    }
    let parts: Vec<Part<'_>> = ran
        .iter()
        .map(|ran| {
            let absent = ran.summary.left_out.first().map(|it| format!("dataset {}: {}", it.dataset, it.reason));
            let cells = judge::judge(&ran.table, &ran.experiments, &ran.recording, absent.as_deref());
            Part { table: &ran.table, experiments: ran.experiments.clone(), cells, recording: &ran.recording }
        })
        .collect();
    let rendered = render::render(&parts, &args.shared.reports).context("cannot render the tables")?;
    // A table without data was not asked for by name, else it was an error: it is reported, and fails nothing.
    let failed = ran
        .iter()
        .zip(&parts)
        .any(|(ran, part)| ran.summary.left_out.is_empty() && part.cells.iter().any(|cell| !cell.holds()));
    if args.shared.json {
        let tables: Vec<Value> = ran.iter().zip(&parts).map(|(ran, part)| json_of(ran, part)).collect();
        answer(&to_json(&json!({ "tables": tables, "page": rendered.page, "files": rendered.files })))?;
    } else {
        for (ran, (part, text)) in ran.iter().zip(parts.iter().zip(&rendered.tables)) {
            tell(&format!("{}\n", text.trim_end()));
            tell(&format!("{}: {}", ran.table.name, counts(&part.cells)));
            tell(&format!(
                "trials: {} run, {} recorded before, {} failed; recording: {}",
                ran.summary.done,
                ran.summary.recorded,
                ran.summary.failed.len(),
                ran.folder.display()
            ));
        }
        tell(&format!("report: {} ({} files)", rendered.page.display(), rendered.files.len()));
    }
    Ok(if failed { Status::Failed } else { Status::Done })
}

fn folder(args: &Args, table: &PaperTable) -> PathBuf {
    args.out.clone().unwrap_or_else(|| Path::new("results").join(format!("repro-{}", table.text.profile)))
}

fn run_table(
    args: &Args,
    table: PaperTable,
    methods: &Methods,
    (device, name): (&Device, &str),
    fresh: bool,
    stop: &Arc<AtomicBool>,
) -> Result<Ran> {
    let experiments: Vec<Experiment> = table.experiments()?;
    let plans = experiments.iter().map(|experiment| plan(experiment, methods)).collect::<Result<Vec<_>>>()?;
    let folder = folder(args, &table);
    if fresh {
        Store::clear(&folder)?;
    }
    let profile = table.text.profile;
    let manifest = Manifest {
        command: command_line(),
        profile: profile.to_string(),
        threads: rayon::current_num_threads(),
        device: name.to_string(),
        ..machine::circumstances()
    };
    let mut store = Store::open(&folder, manifest)?;
    let data = args.shared.means.data();
    let require_data = !args.tables.is_empty();
    let settings = Settings {
        profile,
        device: device.clone(),
        data,
        require_data,
        clock: Clocking::Never,
        allow_commands: false,
        lean: true,
        jobs: args.shared.fits.jobs(profile, device),
    };
    let work: Vec<_> = experiments.iter().zip(&plans).map(|(experiment, plan)| (experiment, plan.as_slice())).collect();
    let trials = work.iter().map(|(experiment, plan)| splits::trials(experiment, plan)).sum();
    let shown = Progress::new(trials, false);
    let outcome = sweep(&work, &settings, &mut store, &shown, stop);
    shown.finish();
    // Whatever happened, what is done is kept; the first error is the one to tell.
    let sealed = store.seal();
    let summary = outcome.with_context(|| format!("table {}", table.name))?;
    sealed?;
    let recording = store.recording();
    Ok(Ran { experiments: experiments.into_iter().map(|it| it.name).collect(), table, folder, recording, summary })
}

/// `12 cells: 9 OK, 3 CLOSE against the paper; 12 OK against our recording`.
fn counts(cells: &[Judged<'_>]) -> String {
    let count = |verdicts: &dyn Fn(&Judged<'_>) -> Option<Verdict>| {
        let all = [Verdict::Ok, Verdict::Close, Verdict::Off, Verdict::NotRun].into_iter();
        let counted = all.map(|wanted| (wanted, cells.iter().filter(|cell| verdicts(cell) == Some(wanted)).count()));
        let words =
            counted.filter(|(_, count)| *count > 0).map(|(verdict, count)| format!("{count} {}", verdict.word()));
        words.collect::<Vec<_>>().join(", ")
    };
    let (paper, recorded) = (count(&|cell| cell.paper), count(&|cell| cell.recorded));
    format!("{} cells; against the paper: {paper}; against our recording: {recorded}", cells.len())
}

fn json_of(ran: &Ran, part: &Part<'_>) -> Value {
    let cells: Vec<Value> = part
        .cells
        .iter()
        .map(|judged| {
            let cell = judged.cell;
            json!({
                "row": cell.row, "metric": cell.metric, "found": judged.found, "holds": judged.holds(), "reason": judged.reason,
                "paper": cell.paper.as_ref().map(|printed| json!({
                    "value": printed.value, "source": printed.source, "evidence": printed.evidence,
                    "verdict": judged.paper.map(Verdict::word),
                })),
                "recorded": cell.recorded.map(|value| json!({
                    "value": value, "verdict": judged.recorded.map(Verdict::word),
                })),
            })
        })
        .collect();
    json!({
        "table": ran.table.name, "command": ran.table.command(), "recording": ran.folder, "done": ran.summary.done,
        "recorded_before": ran.summary.recorded, "cells": cells,
    })
}

/// Every table with what it needs.
fn list(args: &Args, tables: &[PaperTable]) -> Result<Status> {
    let mut rows = vec![["TABLE", "CELLS", "PROFILE", "EXPERIMENTS", "DATA", "TITLE"].map(str::to_string).to_vec()];
    let (mut objects, mut needs): (Vec<Value>, Vec<String>) = (Vec::new(), Vec::new());
    for paper in tables {
        let experiments = paper.experiments()?;
        let mut datasets: Vec<&str> = Vec::new();
        for name in experiments.iter().flat_map(|experiment| &experiment.datasets).map(|entry| entry.name.as_str()) {
            if !datasets.contains(&name) {
                datasets.push(name);
            }
        }
        let get = |name: &str| xmbench_datasets::sources().iter().find(|it| it.name == name).map_or("", |it| it.get);
        for name in &datasets {
            let line = format!("{name}: {}", get(name));
            if !needs.contains(&line) {
                needs.push(line);
            }
        }
        let names: Vec<&str> = experiments.iter().map(|experiment| experiment.name.as_str()).collect();
        rows.push(vec![
            paper.name.clone(),
            paper.text.cells.len().to_string(),
            paper.text.profile.to_string(),
            names.join(", "),
            datasets.join(", "),
            paper.text.title.clone(),
        ]);
        let data: Vec<Value> = datasets.iter().map(|name| json!({ "dataset": name, "get": get(name) })).collect();
        objects.push(json!({
            "table": paper.name, "title": paper.text.title, "paper": paper.text.paper, "profile": paper.text.profile,
            "experiments": names, "data": data, "cells": paper.text.cells.len(), "command": paper.command(),
        }));
    }
    if args.shared.json {
        answer(&to_json(&json!({ "tables": objects })))?;
    } else {
        answer(&format!("{}\n\n{}", table(&rows), needs.join("\n")))?;
    }
    Ok(Status::Done)
}
