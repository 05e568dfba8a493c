//! `xmbench claims`: what papers claim, put to a recording.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Status, report::newest, table};
use crate::{
    claims::{self, Stated, Tested, Verdict},
    output::{answer, json as to_json},
    record::store,
    run::Methods,
    stats::{metric::Metric, paired::Basis},
};

#[derive(clap::Args)]
pub struct Args {
    /// Claims by name, or methods for all that their papers claim; every claim when absent
    names: Vec<String>,
    /// Where the rows are recorded; the newest under results/ when absent
    #[arg(long, value_name = "DIR")]
    recording: Option<PathBuf>,
    /// Show what is claimed and how it is tested, read no recording
    #[arg(long)]
    list: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, methods: &Methods) -> Result<Status> {
    let all = claims::stated(methods);
    let chosen = claims::choose(&all, &args.names)?;
    if args.list {
        claims::check(&chosen, None, methods)?;
        answer(&if args.json { lines(chosen.iter().map(listed)) } else { listing(&chosen) })?;
        return Ok(Status::Done);
    }
    let (tests, without): (Vec<Stated<'_>>, Vec<Stated<'_>>) =
        chosen.iter().partition(|stated| !stated.claim.tests.is_empty());
    let tested = if tests.is_empty() {
        Vec::new()
    } else {
        let folder = args.recording.clone().map_or_else(newest, Ok)?;
        let recording = store::read(&folder)?;
        claims::check(&tests, Some(&recording), methods)?;
        // A verdict does not depend on which claims are looked at.
        let mut tested = claims::test(&all, &recording, Some(&folder));
        tested.retain(|it| tests.iter().any(|stated| std::ptr::eq(stated.claim, it.claim)));
        tested
    };
    if args.json {
        answer(&lines(tested.iter().map(as_json)))?;
        return Ok(Status::Done);
    }
    let mut parts = Vec::new();
    if !tested.is_empty() {
        parts.push(as_text(&tested));
    }
    if !without.is_empty() {
        let names: Vec<&str> = without.iter().map(|stated| stated.claim.id.as_str()).collect();
        let said = if args.names.is_empty() { format!("{} claims", names.len()) } else { names.join(", ") };
        parts.push(format!("without a test: {said}; `xmbench claims --list` shows them"));
    }
    answer(&parts.join("\n\n"))?;
    Ok(Status::Done)
}

fn lines(objects: impl Iterator<Item = Value>) -> String {
    objects.map(|object| to_json(&object)).collect::<Vec<_>>().join("\n")
}

fn listing(chosen: &[Stated<'_>]) -> String {
    let mut rows = vec![["CLAIM", "METHOD", "EVIDENCE", "TESTED BY", "TEXT"].map(str::to_string).to_vec()];
    for Stated { card, claim } in chosen {
        let tests = claim.tests.iter().map(|test| {
            let asked = if test.at_least == 0.0 { String::new() } else { format!(" by {}", test.at_least) };
            let on = test.dataset.as_ref().map(|dataset| format!(" on {dataset}")).unwrap_or_default();
            format!("{}{on}: {}{asked}, {}", test.experiment, claims::rows_text(test), test.metric)
        });
        let tests: Vec<String> = tests.collect();
        let tests = if tests.is_empty() { "-".into() } else { tests.join("; ") };
        let evidence = claims::evidence(claim.evidence).to_string();
        rows.push(vec![claim.id.clone(), card.name.clone(), evidence, tests, claim.text.clone()]);
    }
    table(&rows)
}

fn listed(Stated { card, claim }: &Stated<'_>) -> Value {
    json!({
        "claim": claim.id, "method": card.name, "evidence": claim.evidence, "text": claim.text, "tests": claim.tests,
    })
}

/// The table of verdicts, what stands behind each claim, the protocols, and how many there are of each verdict.
fn as_text(tested: &[Tested<'_>]) -> String {
    let heading = [
        "CLAIM",
        "METHOD",
        "EXPERIMENT",
        "DATASET",
        "ROWS",
        "METRIC",
        "GAIN",
        "95% INTERVAL",
        "AT LEAST",
        "P (HOLM)",
        "SEEDS",
        "IMAGES",
        "VERDICT",
    ];
    let mut rows = vec![heading.map(str::to_string).to_vec()];
    rows.extend(tested.iter().map(row));
    let mut lines = vec![table(&rows), String::new()];
    let (mut claim, mut protocols, mut single) = ("", Vec::new(), 0);
    for it in tested {
        if claim != it.claim.id {
            lines.push(format!("{}: {} ({})", it.claim.id, it.claim.text, claims::evidence(it.claim.evidence)));
            claim = &it.claim.id;
        }
        let place = if it.dataset.is_empty() { String::new() } else { format!(" on {}", it.dataset) };
        match &it.outcome {
            Err(missing) => lines.push(format!("  not run{place}: {}; `{}` runs it", missing.reason, missing.command)),
            Ok(finding) => {
                if it.test.equal_budget {
                    lines.push(format!("  training{place}: {}", claims::budget_text(it.test, &finding.budgets)));
                }
                match (finding.interval, finding.basis) {
                    (Some(_), Basis::Images) => {}
                    (Some(_), Basis::Seeds) => lines.push(format!("  interval{place}: Student's, over seeds alone")),
                    (Some(_), Basis::Clock) => lines.push(format!("  interval{place}: over samples of the clock")),
                    (None, Basis::Clock) => lines.push(format!("  no interval{place}: one sample of the clock")),
                    (None, _) => lines.push(format!("  no interval{place}: one seed, and {NO_QUERIES}")),
                }
                match it.obstacle() {
                    Some(claims::ONE_TRAINING) => single += 1,
                    Some(why) => lines.push(format!("  undecided{place}: {why}")),
                    None => {}
                }
                let protocol = format!("protocol of {}{place}: {}", it.test.experiment, finding.protocol);
                if !protocols.contains(&protocol) {
                    protocols.push(protocol);
                }
            }
        }
    }
    lines.push(String::new());
    lines.extend(protocols);
    if let Some((_, family)) = tested.iter().find_map(|it| it.adjusted) {
        lines.push(format!(
            "verdicts: at {:.0} % of all {family} tests of this recording together (Holm)",
            100.0 * claims::LEVEL
        ));
    }
    if single > 0 {
        lines.push(format!("{single} are undecided because of {}; `--seeds 1,2,3` runs three", claims::ONE_TRAINING));
    }
    let count = |verdict: Verdict| tested.iter().filter(|it| it.verdict() == verdict).count();
    let counts = Verdict::ALL.into_iter().map(|verdict| (verdict, count(verdict))).filter(|(_, count)| *count > 0);
    lines.push(counts.map(|(verdict, count)| format!("{count} {}", verdict.word())).collect::<Vec<_>>().join(", "));
    lines.join("\n")
}

const NO_QUERIES: &str = "the metric is no mean over recorded queries";

fn row(it: &Tested<'_>) -> Vec<String> {
    let dash = || "-".to_string();
    let mut row = vec![it.claim.id.clone(), it.card.name.clone(), it.test.experiment.clone()];
    row.push(if it.dataset.is_empty() { dash() } else { it.dataset.clone() });
    row.extend([claims::rows_text(it.test), it.test.metric.clone()]);
    match &it.outcome {
        Ok(finding) => row.extend([
            finding.metric.format_gain(finding.gain),
            finding.interval_text(),
            finding.metric.format_gain(it.test.at_least),
            it.p_text(),
            finding.seeds.len().to_string(),
            if finding.images == 0 { dash() } else { finding.images.to_string() },
        ]),
        Err(_) => {
            let asked = Metric::parse(&it.test.metric).format_gain(it.test.at_least);
            row.extend([dash(), dash(), asked, dash(), dash(), dash()]);
        }
    }
    row.push(it.verdict().word().into());
    row
}

fn as_json(it: &Tested<'_>) -> Value {
    let mut object = json!({
        "claim": it.claim.id, "method": it.card.name, "evidence": it.claim.evidence, "text": it.claim.text,
        "experiment": it.test.experiment, "dataset": it.dataset, "better": it.test.better, "worse": it.test.worse,
        "metric": it.test.metric, "at_least": it.test.at_least, "verdict": it.verdict().word(),
    });
    let more = match &it.outcome {
        Ok(finding) => json!({
            "values": finding.values, "gain": finding.gain, "interval": finding.interval.map(|it| [it.low, it.high]),
            "p": finding.p, "p_holm": it.adjusted.map(|(p, _)| p), "tests": it.adjusted.map(|(_, tests)| tests),
            "interval_over": match finding.basis {
                Basis::Images => "images and seeds",
                Basis::Seeds => "seeds",
                Basis::Clock => "samples of the clock",
            },
            "seeds": finding.seeds, "images": finding.images, "protocol": finding.protocol, "budgets": finding.budgets,
        }),
        Err(missing) => json!({ "reason": missing.reason, "command": missing.command }),
    };
    if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
        object.extend(more);
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::synthetic;

    #[test]
    fn verdicts_read_as_they_did() {
        let card = synthetic::claims();
        let stated: Vec<Stated<'_>> = claims::of_card(&card).collect();
        let tested = claims::test(&stated, &synthetic::recording(), Some("results/one".as_ref()));
        insta::assert_snapshot!("claims", as_text(&tested));
        insta::assert_snapshot!("claims-list", listing(&stated));
        let objects: Vec<Value> = tested.iter().map(as_json).collect();
        assert_eq!(objects[0]["verdict"], "SUPPORTED");
        assert_eq!(objects[0]["budgets"][0]["planned"], 12);
        assert!(objects[0]["interval"][0].as_f64().unwrap() > 0.0);
        let not_run = objects.iter().find(|object| object["verdict"] == "NOT RUN").unwrap();
        assert!(not_run["command"].as_str().unwrap().starts_with("xmbench run 01-recall"));
    }
}
