//! The table of what papers claim of a section's rows, with what came out.

use super::results;
use super::table::{Cell, Column, Mark, Note, Raw, Row, RowKind, Table};
use crate::claims::{self, Tested, Verdict};
use crate::record::{Manifest, section::Section};
use crate::stats::{metric::Metric, paired::Basis};

/// Endings of the files that the table becomes: words do not go into a CSV file of numbers, for which there is
/// `xmbench claims --json`.
pub const ENDINGS: [&str; 2] = ["md", "tex"];

/// The claims whose rows the section has; `None` where there is none.
pub fn table(section: &Section<'_>, tested: &[Tested<'_>], manifest: &Manifest) -> Option<Table> {
    let tested: Vec<&Tested<'_>> = tested.iter().filter(|it| it.stem.as_ref() == Some(&section.stem)).collect();
    // Nearly every claim is of a sign.
    let sizes = tested.iter().any(|it| it.test.at_least != 0.0);
    let mut heads =
        vec!["rows", "verdict", "metric", "gain", "95 % interval", "p (Holm)", "better", "worse", "seeds", "evidence"];
    if sizes {
        heads.insert(6, "at least");
    }
    let mut reasons = Vec::new();
    let rows: Vec<Row> = tested.iter().map(|it| row(it, sizes, &mut reasons)).collect();
    let mut notes = vec![
        Note::word("Protocol", section.describe(section.protocol)),
        Note::word(
            "Gain",
            "by how much the first row is better, over the seeds that both ran; its interval is that of the paired bootstrap over \
             images and seeds, where no note says otherwise",
        ),
        Note::word("Verdict", verdicts(&tested, manifest)),
        Note::word(
            "Evidence",
            "whether the claim was seen in the paper (verified), is from memory (recalled), or from a re-run",
        ),
    ];
    notes.push(Note::word("Made by", results::made_by(manifest)));
    notes.extend(reasons.iter().enumerate().map(|(i, reason)| Note::mark(Mark::Number(i + 1), reason)));
    let table = Table {
        name: section.stem.with("claims"),
        title: format!("Claims: {} ({})", section.title(), section.dataset),
        context: results::context(section, manifest),
        stub: "claim",
        columns: heads
            .into_iter()
            .map(|head| Column { group: String::new(), title: head.into(), name: head.into() })
            .collect(),
        rows,
        notes,
    };
    (!tested.is_empty()).then_some(table)
}

fn row(it: &Tested<'_>, sizes: bool, reasons: &mut Vec<String>) -> Row {
    let text = |text: String| Cell { text, ..Cell::default() };
    let evidence = claims::evidence(it.claim.evidence);
    let mut marks = vec![results::number(reasons, format!("{}: {}", it.card.label, it.claim.text))];
    let mut cells =
        vec![text(claims::rows_text(it.test)), text(it.verdict().word().into()), text(it.test.metric.clone())];
    let asked = Metric::parse(&it.test.metric).format_gain(it.test.at_least);
    let asked = sizes.then(|| text(asked));
    match &it.outcome {
        Ok(finding) => {
            let number = |value: f64| {
                let raw = Raw { mean: Some(value), ..Raw::default() };
                Cell { text: finding.metric.format(value), raw, ..Cell::default() }
            };
            let interval = finding.interval.map(|_| finding.interval_text()).unwrap_or_default();
            let gain = Cell { text: finding.metric.format_gain(finding.gain), ..number(finding.gain) };
            let p = it.adjusted.map(|_| it.p_text()).unwrap_or_default();
            cells.extend([gain, text(interval), text(p)].into_iter().chain(asked));
            cells.extend(finding.values.map(number));
            cells.push(text(finding.seeds.len().to_string()));
            if it.test.equal_budget {
                marks.push(results::number(reasons, claims::budget_text(it.test, &finding.budgets)));
            }
            let said = match finding.basis {
                Basis::Images => None,
                Basis::Seeds => Some("over seeds alone, by Student's t: the metric is no mean over recorded queries"),
                Basis::Clock => Some(
                    "percent of the other row's time, which was clocked at another moment; bootstrap over samples of the clock",
                ),
            };
            let said = said.into_iter().chain(it.obstacle());
            marks.extend(said.map(|said| results::number(reasons, said.to_string())));
        }
        Err(missing) => {
            cells.extend([(); 3].map(|()| Cell::default()).into_iter().chain(asked));
            cells.extend([(); 3].map(|()| Cell::default()));
            let said = format!("{}; `{}` runs it", missing.reason, missing.command);
            marks.push(results::number(reasons, said));
        }
    }
    cells.push(text(evidence.into()));
    Row { kind: RowKind::Result, name: it.claim.id.clone(), marks, cells }
}

fn verdicts(tested: &[&Tested<'_>], manifest: &Manifest) -> String {
    let meaning = |verdict: Verdict| match verdict {
        Verdict::Supported => "the gain is more than the claim asks",
        Verdict::NotSupported => "it is less",
        Verdict::Undecided => "neither can be told, or a note says what stands in the way",
        Verdict::NotRun => "a row is missing",
    };
    let used = Verdict::ALL.into_iter().filter(|verdict| tested.iter().any(|it| it.verdict() == *verdict));
    let mut text =
        used.map(|verdict| format!("{}: {}", verdict.word(), meaning(verdict))).collect::<Vec<_>>().join("; ");
    if let Some((_, family)) = tested.iter().find_map(|it| it.adjusted) {
        text += &format!(
            ". At {:.0} % of all {family} tests of this recording together, by Holm's correction of p, the two-sided probability that goes \
             with the interval",
            100.0 * claims::LEVEL
        );
    }
    if !matches!(manifest.profile.as_str(), "full" | "") {
        text +=
            &format!(". Profile {} is shortened: a verdict on the claim itself needs the full one", manifest.profile);
    }
    text
}
