//! `xmbench report`: tables and plots of a recording.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::Status;
use crate::{
    claims,
    output::{answer, json as to_json, quoted, short, tell},
    record::{Outcome, Recording, files::replace_with_unsynced, store},
    report::{
        self, Beside, Rendered,
        explore::Source,
        paper::{self, Wanted},
        reported::{self, Reported},
    },
    run::{Methods, nearest},
};

#[derive(clap::Args)]
pub struct Args {
    /// The recording's folder; the newest under results/ when absent
    #[arg(long, value_name = "DIR")]
    recording: Option<PathBuf>,
    /// Another recording whose trials count as well: seeds or experiments that were run apart; may be given again
    #[arg(long, value_name = "DIR")]
    merge: Vec<PathBuf>,
    /// Of this experiment alone; may be given again
    #[arg(long, value_name = "NAME")]
    experiment: Vec<String>,
    /// Rows that others report, to stand beside ours: a CSV file of row,dataset,metric,value,source
    #[arg(long, value_name = "FILE")]
    reported: Option<PathBuf>,
    /// Where tables and plots go
    #[arg(long, value_name = "DIR", default_value = "reports")]
    out: PathBuf,
    /// Write one table as a paper has it, in type of normal size, and nothing else; - for stdout
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    latex: Option<PathBuf>,
    /// With --latex: the table of this dataset
    #[arg(long, value_name = "NAME", requires = "latex")]
    dataset: Option<String>,
    /// With --latex: this row, as tables name it; may be given again
    #[arg(long = "row", value_name = "ROW", requires = "latex")]
    rows: Vec<String>,
    /// With --latex: this metric; may be given again
    #[arg(long = "column", value_name = "METRIC", requires = "latex")]
    columns: Vec<String>,
    /// Print the papers of the recording's methods as BibTeX, and write nothing; a report has them as methods.bib
    #[arg(long, conflicts_with = "json")]
    cite: bool,
    /// Where datasets lie that are not built in, for captions and pictures; the variable XMBENCH_DATA when absent
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, methods: &Methods) -> Result<Status> {
    let folder = args.recording.clone().map_or_else(newest, Ok)?;
    let mut recording = store::read(&folder)?;
    for other in &args.merge {
        recording.merge((&folder, other), store::read(other)?)?;
    }
    if recording.trials.is_empty() {
        bail!("the recording {} holds no trial; `xmbench run` makes some", folder.display());
    }
    if let Some(unknown) =
        args.experiment.iter().find(|name| !recording.trials.iter().any(|it| it.experiment == **name))
    {
        let known: BTreeSet<&str> = recording.trials.iter().map(|trial| trial.experiment.as_str()).collect();
        let hint = nearest(unknown, known.iter().copied());
        let known = known.into_iter().collect::<Vec<_>>().join(", ");
        bail!("the recording {} has no experiment {}{hint}; it has {known}", folder.display(), quoted(unknown));
    }
    if !args.experiment.is_empty() {
        recording.keep_experiments(&args.experiment);
    }
    if args.cite {
        answer(report::bibliography(&recording).trim_end())?;
        return Ok(Status::Done);
    }
    if let Some(path) = &args.latex {
        let wanted = Wanted { dataset: args.dataset.as_deref(), rows: &args.rows, columns: &args.columns };
        let text = paper::latex(&recording, &wanted)?;
        match path.as_os_str() == "-" {
            true => answer(text.trim_end())?,
            false => replace_with_unsynced(path, text.as_bytes())
                .with_context(|| format!("cannot write {}", path.display()))?,
        }
        return Ok(Status::Done);
    }
    let data = super::data_folder(args.data_dir.clone());
    let source = Source { folder: &folder, data: data.as_deref() };
    let reported = args.reported.as_deref().map(reported::read).transpose()?.unwrap_or_default();
    let rendered = show(&recording, methods, (source, &reported), &args.out, args.json)
        .with_context(|| format!("cannot render the report of {}", folder.display()))?;
    if args.json {
        let page = page(&rendered, &args.out);
        let files: Vec<String> = rendered.files.iter().map(|file| file.display().to_string()).collect();
        let (folder, page) = (folder.display().to_string(), page.display().to_string());
        answer(&to_json(&json!({ "recording": folder, "page": page, "files": files })))?;
    }
    Ok(Status::Done)
}

/// Renders a recording and prints its tables and where the report is.
pub fn show(
    recording: &Recording,
    methods: &Methods,
    (source, reported): (Source<'_>, &[Reported]),
    out: &Path,
    quiet: bool,
) -> Result<Rendered> {
    let beside = Beside { stated: &claims::stated(methods), source: Some(source), reported };
    let rendered = report::render_with(recording, &beside, out)?;
    if !quiet {
        for table in &rendered.tables {
            tell(&format!("{}\n", table.trim_end()));
        }
        for (key, reason) in recording.trials.iter().filter_map(|trial| match &trial.outcome {
            Outcome::Failed { reason } => Some((trial.key(), reason)),
            Outcome::Done => None,
        }) {
            tell(&format!("failed: {}: {}", key, short(reason.trim(), 300)));
        }
        if !rendered.claims.is_empty() {
            tell(&format!("{}; `xmbench claims` shows each", rendered.claims));
        }
        tell(&format!("report: {} ({} files)", page(&rendered, out).display(), rendered.files.len()));
    }
    Ok(rendered)
}

/// The page to open, or the folder.
pub fn page(rendered: &Rendered, out: &Path) -> PathBuf {
    let page = rendered.files.iter().find(|file| file.file_name().is_some_and(|name| name == "index.html"));
    page.map_or_else(|| out.to_path_buf(), PathBuf::clone)
}

/// The recording under `results/` that was begun last.
pub fn newest() -> Result<PathBuf> {
    let folders = std::fs::read_dir("results").into_iter().flatten().flatten().map(|entry| entry.path());
    let mut begun: Vec<(String, PathBuf)> = folders
        .filter(|folder| folder.join("manifest.json").is_file())
        .filter_map(|folder| Some((started(&folder)?, folder)))
        .collect();
    begun.sort();
    match begun.pop() {
        Some((_, folder)) => Ok(folder),
        None => bail!(
            "there is no recording under results/; make one with `xmbench run --all`, or name one with --recording"
        ),
    }
}

fn started(folder: &Path) -> Option<String> {
    let text = std::fs::read_to_string(folder.join("manifest.json")).ok()?;
    let manifest: serde_json::Value = serde_json::from_str(&text).ok()?;
    Some(manifest["started"].as_str()?.to_string())
}
