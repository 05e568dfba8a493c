//! The table of what papers claim of a section's rows, with what came out.

use super::results;
use super::table::{Cell, Column, Mark, Note, Raw, Row, RowKind, Table};
use crate::claims::{self, Judged, Tested, Verdict};
use crate::record::{Manifest, Stem, section::Section};
use crate::run::Profile;
use xmbench_methods::card::Ground;

/// Endings of the files that the table becomes: words do not go into a CSV file of numbers, for which there is
/// `xmbench claims --json`.
pub const ENDINGS: [&str; 2] = ["md", "tex"];

/// The claims of papers whose rows the section has, and the hypotheses; a table each where there are some.
pub fn tables(section: &Section<'_>, tested: &[Tested<'_>], manifest: &Manifest) -> Vec<Table> {
    let here: Vec<&Tested<'_>> = tested.iter().filter(|it| it.stem.as_ref() == Some(&section.stem)).collect();
    let (hypotheses, stated): (Vec<&Tested<'_>>, Vec<&Tested<'_>>) =
        here.into_iter().partition(|it| it.claim.evidence == Ground::Hypothesis);
    let of = |name: &str, title: &str, tested: &[&Tested<'_>]| {
        (!tested.is_empty()).then(|| table(section, (name, title), tested, manifest))
    };
    let hypotheses = of("hypotheses", "Hypotheses, which no paper states", &hypotheses);
    of("claims", "Claims", &stated).into_iter().chain(hypotheses).collect()
}

fn table(section: &Section<'_>, (name, title): (&str, &str), tested: &[&Tested<'_>], manifest: &Manifest) -> Table {
    let heads = [
        "rows",
        "verdict",
        "metric",
        "gain",
        "95 % interval",
        "p (Holm)",
        "asked",
        "better",
        "worse",
        "seeds",
        "evidence",
    ];
    let mut reasons = Vec::new();
    let rows: Vec<Row> = tested.iter().map(|it| row(it, &mut reasons)).collect();
    let mut notes = vec![
        Note::word("Protocol", section.describe(section.protocol)),
        Note::word(
            "Gain",
            "by how much the first row is better, over the seeds that both ran; its interval is that of the paired bootstrap over \
             images and seeds, where no note says otherwise",
        ),
        Note::word("Verdict", verdicts(tested, manifest)),
        Note::word(
            "Evidence",
            "whether the claim was seen in the paper (verified) or is from memory (recalled); a hypothesis is stated by none",
        ),
    ];
    notes.push(Note::word("Made by", results::made_by(manifest)));
    notes.extend(reasons.iter().enumerate().map(|(i, reason)| Note::mark(Mark::Number(i + 1), reason)));
    Table {
        name: section.stem.with(name),
        title: format!("{title}: {} ({})", section.title(), section.dataset),
        context: results::context(section, manifest),
        stub: "claim",
        columns: heads
            .into_iter()
            .map(|head| Column { group: String::new(), title: head.into(), name: head.into() })
            .collect(),
        rows,
        notes,
    }
}

/// One verdict a claim over everything that was recorded, hypotheses last; `None` where nothing was put to the test.
pub fn overview(mut judged: Vec<Judged<'_>>, tested: &[Tested<'_>], manifest: &Manifest) -> Option<Table> {
    let planned = judged.len();
    judged.retain(|it| it.verdict != Verdict::NotRun);
    let rest = planned - judged.len();
    judged.sort_by_key(Judged::is_hypothesis);
    let text = |text: String| Cell { text, ..Cell::default() };
    let row = |it: &Judged<'_>| Row {
        kind: RowKind::Result,
        name: format!("{}: {}", it.card.label, it.claim.id),
        marks: Vec::new(),
        cells: [
            it.verdict.word().into(),
            it.tests_text(),
            claims::evidence(it.claim.evidence).into(),
            it.claim.text.clone(),
        ]
        .map(text)
        .into(),
    };
    let heads = ["verdict", "tests", "evidence", "what is claimed"];
    let run: Vec<&Tested<'_>> = tested.iter().filter(|it| it.outcome.is_ok()).collect();
    let mut notes = vec![
        Note::word("Verdict", verdicts(&run, manifest)),
        Note::word(
            "Tests",
            "one says no: NOT SUPPORTED; SUPPORTED is every test that was run. Each stands under its experiment, with its protocol",
        ),
    ];
    if rest > 0 {
        notes.push(Note::word("Not run", format!("{rest} more, of which no row is recorded here")));
    }
    notes.push(Note::word("Made by", results::made_by(manifest)));
    (!judged.is_empty()).then(|| Table {
        name: Stem::of("claims"),
        title: "What is claimed, and what came out".into(),
        context: vec![("profile", manifest.profile.clone())],
        stub: "claim",
        columns: heads.map(|head| Column { group: String::new(), title: head.into(), name: head.into() }).into(),
        rows: judged.iter().map(row).collect(),
        notes,
    })
}

fn row(it: &Tested<'_>, reasons: &mut Vec<String>) -> Row {
    let text = |text: String| Cell { text, ..Cell::default() };
    let evidence = claims::evidence(it.claim.evidence);
    let mut marks = vec![results::number(reasons, format!("{}: {}", it.card.label, it.claim.text))];
    let mut cells =
        vec![text(claims::rows_text(it.test)), text(it.verdict().word().into()), text(it.test.metric.clone())];
    let asked = text(claims::asked_text(it.test));
    match &it.outcome {
        Ok(finding) => {
            let number = |value: f64| {
                let raw = Raw { mean: Some(value), ..Raw::default() };
                Cell { text: finding.metric.format(value), raw, ..Cell::default() }
            };
            let interval = finding.interval.map(|_| finding.interval_text()).unwrap_or_default();
            let gain = Cell { text: finding.metric.format_gain(finding.gain), ..number(finding.gain) };
            let p = it.adjusted.map(|_| it.p_text()).unwrap_or_default();
            cells.extend([gain, text(interval), text(p), asked]);
            cells.extend(finding.values.map(number));
            cells.push(text(finding.seeds.len().to_string()));
            if it.test.equal_budget {
                marks.push(results::number(reasons, claims::budget_text(it.test, &finding.budgets)));
            }
            let said = finding.basis_text().into_iter().chain(it.obstacle());
            marks.extend(said.map(|said| results::number(reasons, said.to_string())));
        }
        Err(missing) => {
            cells.extend([Cell::default(), Cell::default(), Cell::default(), asked]);
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
        Verdict::Supported => "the gain is what is asked",
        Verdict::NotSupported => "it is not",
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
    if Profile::is_shortened(&manifest.profile) {
        text +=
            &format!(". Profile {} is shortened: a verdict on the claim itself needs a longer one", manifest.profile);
    }
    text
}
