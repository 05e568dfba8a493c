//! `xmbench check`: what holds of a recording.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::json;

use super::{Status, report::newest};
use crate::{
    output::{answer, json as to_json},
    record::{
        Outcome, Trial,
        examine::{Finding, examine},
    },
    stats::{bootstrap::Sample, metric::Metric},
};

#[derive(clap::Args)]
pub struct Args {
    /// The recording's folder; the newest under results/ when absent
    recording: Option<PathBuf>,
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
}

/// How far a metric may lie from what its queries give: the rounding of a sum.
const ROUNDING: f64 = 1e-6;

pub fn run(args: &Args) -> Result<Status> {
    let folder = args.recording.clone().map_or_else(newest, Ok)?;
    let (mut findings, trials) = examine(&folder)?;
    findings.push(metrics(&trials));
    let holds = findings.iter().all(|finding| finding.outcome.is_ok());
    if args.json {
        let object = |finding: &Finding| {
            let said = finding.outcome.as_ref().unwrap_or_else(|wrong| wrong);
            json!({ "what": finding.what, "holds": finding.outcome.is_ok(), "said": said })
        };
        let findings: Vec<_> = findings.iter().map(object).collect();
        let folder = folder.display().to_string();
        answer(&to_json(&json!({ "recording": folder, "holds": holds, "findings": findings })))?;
    } else {
        let line = |finding: &Finding| match &finding.outcome {
            Ok(said) => format!("ok     {}: {said}", finding.what),
            Err(wrong) => format!("WRONG  {}: {wrong}", finding.what),
        };
        let mut lines: Vec<String> = findings.iter().map(line).collect();
        let verdict = if holds { "everything holds" } else { "not everything holds" };
        lines.push(format!("{}: {verdict}", folder.display()));
        answer(&lines.join("\n"))?;
    }
    Ok(if holds { Status::Done } else { Status::Failed })
}

/// Computes every metric again that is a mean over recorded queries.
fn metrics(trials: &[Trial]) -> Finding {
    let mut computed = 0;
    for trial in trials.iter().filter(|trial| trial.outcome == Outcome::Done) {
        for (name, recorded) in &trial.metrics {
            let Some(sample) = Sample::of(&Metric::parse(name), &[trial]) else { continue };
            let found = sample.value();
            if (found - recorded).abs() > ROUNDING * recorded.abs().max(1.0) {
                let wrong = format!("{}: {name} is recorded as {recorded}, and its queries give {found}", trial.key());
                return Finding { what: "metrics".into(), outcome: Err(wrong) };
            }
            computed += 1;
        }
    }
    let said = format!("{computed} that are means over recorded queries, each is what its queries give");
    Finding { what: "metrics".into(), outcome: Ok(said) }
}
