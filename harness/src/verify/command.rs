//! `xmbench verify`.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::Result;
use clap::Args;
use xmbench_methods::golden::folder;

use super::{Line, Verdict, verify};
use crate::{
    output::{answer, json},
    run::device::{self, Choice},
};

/// Compare with the values that the authors' code computes
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Folder with golden files (*.safetensors), searched with its subfolders; those that lie in the project when absent
    #[arg(long, value_name = "DIR")]
    pub golden: Option<PathBuf>,
    /// Only operations that match, such as `loss.*`
    #[arg(long, value_name = "GLOB")]
    pub op: Option<String>,
    /// Print one JSON object a file on stdout
    #[arg(long)]
    pub json: bool,
    /// Count an operation that nothing answers as a failure
    #[arg(long)]
    pub require_all: bool,
    /// Where tensors are put: auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    pub device: Choice,
}

/// Runs the command; true if everything agrees, false if a file fails or, with `--require-all`, is unsupported.
///
/// # Errors
/// A folder that cannot be read or holds no golden file, or a device that is not there.
pub fn run(args: &VerifyArgs) -> Result<bool> {
    let (device, name) = device::open(args.device)?;
    let lines = verify(&args.golden.clone().unwrap_or_else(folder), args.op.as_deref(), (&device, &name))?;
    match args.json {
        true => lines.iter().try_for_each(|line| answer(&json(line)))?,
        false => answer(table(&lines, !device.is_cpu()).trim_end())?,
    }
    let bad = |line: &Line| line.verdict == Verdict::Fail || args.require_all && line.verdict == Verdict::Unsupported;
    Ok(!lines.iter().any(bad))
}

/// What a person reads: a line a file, then a line an operation, then the totals. With `places`, where each file's tensors lay.
pub(super) fn table(lines: &[Line], places: bool) -> String {
    let number = |value: f64| if value.is_finite() { format!("{value:.1e}") } else { "-".to_string() };
    let word = |verdict| match verdict {
        Verdict::Pass => "pass",
        Verdict::Fail => "FAIL",
        Verdict::Unsupported => "unsupported",
    };
    let mut rows = vec![["operation", "case", "device", "max abs", "max rel", "verdict"].map(String::from).to_vec()];
    for line in lines {
        let stem = line.file.trim_end_matches(".safetensors");
        let case = stem.strip_prefix(&format!("{}__", line.op)).unwrap_or(stem);
        let op = if line.op.is_empty() { "?" } else { &line.op };
        let why = line.error.as_ref().or((line.verdict == Verdict::Fail).then_some(&line.worst));
        let verdict = why.map_or(word(line.verdict).to_string(), |why| format!("{}: {why}", word(line.verdict)));
        let place = line.device.clone().unwrap_or("-".into());
        rows.push(vec![op.into(), case.into(), place, number(line.max_abs), number(line.max_rel), verdict]);
    }
    if !places {
        rows.iter_mut().for_each(|row| drop(row.remove(2)));
    }
    let mut summary: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    for line in lines {
        summary.entry(&line.op).or_default()[line.verdict as usize] += 1;
    }
    let mut out = aligned(&rows);
    out.push('\n');
    let mut rows = vec![["operation", "pass", "fail", "unsupported"].map(String::from).to_vec()];
    let count = |n: usize| if n == 0 { ".".to_string() } else { n.to_string() };
    let mut totals = [0; 3];
    for (op, counts) in &summary {
        let op = if op.is_empty() { "?" } else { op };
        rows.push(vec![op.into(), count(counts[0]), count(counts[1]), count(counts[2])]);
        totals.iter_mut().zip(counts).for_each(|(total, n)| *total += n);
    }
    rows.push(vec!["total".into(), count(totals[0]), count(totals[1]), count(totals[2])]);
    out + &aligned(&rows)
}

/// Columns of equal width, the last one ragged.
fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}
