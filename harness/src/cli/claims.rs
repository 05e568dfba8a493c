//! `xmbench claims`: what papers claim, put to a recording.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Status, report::newest, table};
use crate::{
    claims::{self, Finding, Judged, Stated, Tested},
    output::{answer, json as to_json},
    record::{store, words},
    run::Methods,
    stats::paired::Basis,
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
            let on = test.dataset.as_ref().map(|dataset| format!(" on {dataset}")).unwrap_or_default();
            let asked = claims::asked_text(test);
            format!("{}{on}: {}, {} {asked}", test.experiment, claims::rows_text(test), test.metric)
        });
        let tests = tests.collect::<Vec<_>>().join("; ");
        let tests = claim.untested.as_ref().map_or(tests, |reason| format!("nothing: {reason}"));
        let evidence = claims::evidence(claim.evidence).to_string();
        rows.push(vec![claim.id.clone(), card.name.clone(), evidence, tests, claim.text.clone()]);
    }
    table(&rows)
}

fn listed(Stated { card, claim }: &Stated<'_>) -> Value {
    json!({
        "claim": claim.id, "method": card.name, "evidence": claim.evidence, "text": claim.text, "tests": claim.tests,
        "untested": claim.untested,
    })
}

/// Each claim with its verdict and the tests behind it, hypotheses apart, then the protocols, and how many there are of each verdict.
fn as_text(tested: &[Tested<'_>]) -> String {
    let (hypotheses, stated): (Vec<Judged<'_>>, Vec<Judged<'_>>) =
        claims::judge(tested).into_iter().partition(Judged::is_hypothesis);
    let mut lines = Vec::new();
    for (head, judged) in [("Claims of papers", &stated), ("Hypotheses, which no paper states", &hypotheses)] {
        if judged.is_empty() {
            continue;
        }
        lines.extend([head.to_string(), String::new()]);
        for judged in judged {
            lines.extend(told(judged, tested));
        }
        lines.push(String::new());
    }
    let mut protocols = Vec::new();
    for it in tested {
        let Ok(finding) = &it.outcome else { continue };
        let protocol = format!("protocol of {}{}: {}", it.test.experiment, place(it), finding.protocol);
        if !protocols.contains(&protocol) {
            protocols.push(protocol);
        }
    }
    lines.extend(protocols);
    if let Some((_, family)) = tested.iter().find_map(|it| it.adjusted) {
        lines.push(format!(
            "verdicts: at {:.0} % of all {family} tests of this recording together (Holm); a claim is supported by every test of it that was run",
            100.0 * claims::LEVEL
        ));
    }
    lines.push(claims::counts(&[stated, hypotheses].concat()));
    let single = tested.iter().filter(|it| it.obstacle() == Some(claims::ONE_TRAINING)).count();
    if single > 0 {
        let tests = if single == 1 { "1 test is" } else { &format!("{single} tests are") };
        lines.push(format!("{tests} undecided because of {}; `--seeds 1,2,3` runs three", claims::ONE_TRAINING));
    }
    lines.join("\n")
}

fn place(it: &Tested<'_>) -> String {
    if it.dataset.is_empty() { String::new() } else { format!(" on {}", it.dataset) }
}

/// A claim with its verdict, and its tests.
fn told(judged: &Judged<'_>, tested: &[Tested<'_>]) -> Vec<String> {
    let Judged { card, claim, verdict, .. } = judged;
    let evidence = if judged.is_hypothesis() { "" } else { &format!(" ({})", claims::evidence(claim.evidence)) };
    let mut lines = vec![format!("{:<13}  {} {}: {}{evidence}", verdict.word(), card.name, claim.id, claim.text)];
    for it in tested.iter().filter(|it| std::ptr::eq(it.claim, *claim)) {
        let test = format!("{}{}: {}, {}", it.test.experiment, place(it), claims::rows_text(it.test), it.test.metric);
        let asked = claims::asked_text(it.test);
        match &it.outcome {
            Err(missing) => {
                lines.push(format!("  {test} {asked}: NOT RUN: {}; `{}` runs it", missing.reason, missing.command))
            }
            Ok(finding) => {
                let gain = finding.metric.format_gain(finding.gain);
                let interval = finding.interval.map(|_| format!(" {}", finding.interval_text())).unwrap_or_default();
                let p = if it.adjusted.is_some() { format!(", p {}", it.p_text()) } else { String::new() };
                let images = if finding.images == 0 {
                    String::new()
                } else {
                    format!(", {}", words::counted(finding.images, "image"))
                };
                let n = format!("{}{images}", words::counted(finding.seeds.len(), "seed"));
                lines.push(format!(
                    "  {test}: {gain}{interval} where {asked} is asked{p} ({n}): {}",
                    it.verdict().word()
                ));
                lines.extend(remarks(it, finding).into_iter().map(|remark| format!("    {remark}")));
            }
        }
    }
    lines
}

/// What must stand beside a finding.
fn remarks(it: &Tested<'_>, finding: &Finding) -> Vec<String> {
    let mut lines = Vec::new();
    if it.test.equal_budget {
        lines.push(format!("training: {}", claims::budget_text(it.test, &finding.budgets)));
    }
    lines.extend(finding.basis_text().map(str::to_string));
    lines.extend(it.obstacle().filter(|&why| why != claims::ONE_TRAINING).map(|why| format!("undecided: {why}")));
    lines
}

fn as_json(it: &Tested<'_>) -> Value {
    let mut object = json!({
        "claim": it.claim.id, "method": it.card.name, "evidence": it.claim.evidence, "text": it.claim.text,
        "experiment": it.test.experiment, "dataset": it.dataset, "better": it.test.better, "worse": it.test.worse,
        "metric": it.test.metric, "kind": it.test.kind, "asked": claims::asked_text(it.test), "verdict": it.verdict().word(),
    });
    let more = match &it.outcome {
        Ok(finding) => json!({
            "values": finding.values, "gain": finding.gain, "interval": finding.interval.map(|it| [it.low, it.high]),
            "p": finding.p, "p_holm": it.adjusted.map(|(p, _)| p), "tests": it.adjusted.map(|(_, tests)| tests),
            "interval_over": match finding.basis {
                Basis::Images => "images and seeds",
                Basis::Seeds => "seeds",
                Basis::Splits => "splits",
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
