//! `xmbench report`: tables and plots of a recording.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{Status, print};
use crate::record::{Recording, store};

#[derive(clap::Args)]
pub struct Args {
    /// The recording's folder; the newest under results/ when absent
    #[arg(long, value_name = "DIR")]
    recording: Option<PathBuf>,
    /// Where tables and plots go
    #[arg(long, value_name = "DIR", default_value = "reports")]
    out: PathBuf,
}

pub fn run(args: &Args) -> Result<Status> {
    let folder = args.recording.clone().map_or_else(newest, Ok)?;
    let recording = store::read(&folder)?;
    let rendered =
        render(&recording, &args.out).with_context(|| format!("cannot render the report of {}", folder.display()))?;
    print(&rendered.text);
    for file in &rendered.files {
        print(&file.display().to_string());
    }
    Ok(Status::Done)
}

/// What was rendered.
pub struct Rendered {
    /// The tables, for a terminal.
    pub text: String,
    /// The files, the page to open first.
    pub files: Vec<PathBuf>,
}

/// Renders a recording into a folder.
pub fn render(recording: &Recording, out: &Path) -> Result<Rendered> {
    let _ = (recording, out);
    Ok(Rendered { text: String::new(), files: vec![] })
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
