//! Proof of equality with the authors' code: every golden file through the functions that the methods use, on any device.

mod command;

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use candle_core::Device;
use rayon::prelude::*;
use serde::{Serialize, Serializer};
use xmbench_methods::{
    golden::{Case, Operation, check},
    registry,
};

use crate::protocol;
pub use command::{VerifyArgs, run};

/// How one file compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// Operation; empty if the file cannot be read.
    pub op: String,
    /// File, relative to the folder.
    pub file: String,
    /// Whether every value agrees within the file's tolerance.
    pub verdict: Verdict,
    /// Largest absolute difference; infinite, and null in JSON, if something could not be compared.
    #[serde(serialize_with = "number_or_null")]
    pub max_abs: f64,
    /// Largest relative difference; likewise.
    #[serde(serialize_with = "number_or_null")]
    pub max_rel: f64,
    /// The tensor that uses most of its tolerance, or the one that could not be compared and why.
    pub worst: String,
    /// Why the file could not be read or the operation gave no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Where its tensors lay, `cpu` or `cuda:0`: `cpu` wherever the run is for an operation on plain numbers, as the metrics
    /// and the closed forms in f64 are; none if nothing ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

/// The outcome of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every compared value is within tolerance.
    Pass,
    /// A value is not, a tensor is absent, or the file cannot be used.
    Fail,
    /// Nothing here answers the operation.
    Unsupported,
}

/// JSON knows no infinity.
fn number_or_null<S: Serializer>(value: &f64, to: S) -> std::result::Result<S::Ok, S::Error> {
    value.is_finite().then_some(*value).serialize(to)
}

/// Every operation of the methods and of the harness, by name.
pub fn operations() -> BTreeMap<&'static str, Operation> {
    registry::operations().into_iter().chain(protocol::operations()).map(|op| (op.name, op)).collect()
}

/// Compares every `.safetensors` file below `folder` on the named device, in the order of their paths; with `op`, those whose
/// operation it matches (`*` for any characters, `?` for one) and those that cannot be read, since their operation is unknown.
///
/// # Errors
/// If the folder cannot be listed or holds no such file. What is wrong with one file is its line's [`Verdict::Fail`].
pub fn verify(folder: &Path, op: Option<&str>, (device, name): (&Device, &str)) -> Result<Vec<Line>> {
    let files = files(folder)?;
    let operations = operations();
    let line = |path: &PathBuf| {
        let file = path.strip_prefix(folder).unwrap_or(path).display().to_string();
        // A hostile file must not take the others' verdicts with it.
        let caught =
            std::panic::catch_unwind(AssertUnwindSafe(|| compare(path, file.clone(), &operations, op, (device, name))));
        caught.unwrap_or_else(|_| Some(Line::broken("", file, "the operation panicked".into())))
    };
    // Another device takes one piece of work after another anyway.
    let lines: Vec<Line> = match device {
        Device::Cpu => files.par_iter().filter_map(line).collect(),
        _ => files.iter().filter_map(line).collect(),
    };
    match op {
        Some(op) if lines.is_empty() => {
            bail!(
                "{}: expected a file whose operation matches `{op}`, found none; try `--op 'metric.*'`",
                folder.display()
            )
        }
        _ => Ok(lines),
    }
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in walkdir::WalkDir::new(folder).follow_links(true).sort_by_file_name() {
        let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
        if entry.file_type().is_file() && entry.path().extension().is_some_and(|ending| ending == "safetensors") {
            files.push(entry.into_path());
        }
    }
    if files.is_empty() {
        bail!("{}: expected golden files (*.safetensors), found none; pass their folder as --golden", folder.display());
    }
    Ok(files)
}

fn compare(
    path: &Path,
    file: String,
    operations: &BTreeMap<&str, Operation>,
    op: Option<&str>,
    (device, name): (&Device, &str),
) -> Option<Line> {
    let case = match Case::read(path) {
        Ok(case) => case.on(device),
        Err(error) => return Some(Line::broken("", file, error.to_string())),
    };
    if op.is_some_and(|pattern| !glob(pattern, &case.op)) {
        return None;
    }
    let Some(operation) = operations.get(case.op.as_str()) else {
        let line = Line::broken(&case.op, file, String::new());
        return Some(Line { verdict: Verdict::Unsupported, error: None, ..line });
    };
    let answer = (operation.run)(&case);
    let device = Some(if case.placed() { name.to_string() } else { "cpu".to_string() });
    Some(match answer {
        Err(error) => Line { device, ..Line::broken(&case.op, file, error.to_string()) },
        Ok(answer) => {
            let found = check(&case, &answer, operation.ignored);
            Line {
                op: case.op,
                file,
                verdict: if found.pass { Verdict::Pass } else { Verdict::Fail },
                max_abs: found.max_abs,
                max_rel: found.max_rel,
                worst: found.worst,
                error: None,
                device,
            }
        }
    })
}

impl Line {
    fn broken(op: &str, file: String, error: String) -> Self {
        let (max_abs, max_rel) = (f64::INFINITY, f64::INFINITY);
        let (op, worst, error) = (op.into(), String::new(), Some(error));
        Self { op, file, verdict: Verdict::Fail, max_abs, max_rel, worst, error, device: None }
    }
}

/// Whether a pattern with `*` and `?` matches the whole text.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    // Whether the pattern read so far matches the first j characters.
    let mut matched: Vec<bool> = (0..=text.len()).map(|j| j == 0).collect();
    for &symbol in &pattern {
        if symbol == '*' {
            (1..=text.len()).for_each(|j| matched[j] |= matched[j - 1]);
        } else {
            (1..=text.len())
                .rev()
                .for_each(|j| matched[j] = matched[j - 1] && (symbol == '?' || symbol == text[j - 1]));
            matched[0] = false;
        }
    }
    matched[text.len()]
}

#[cfg(test)]
mod tests;
