use std::collections::BTreeMap;

use super::{
    judge::{Judged, judge, verdict},
    render::{Part, render},
    *,
};
use crate::{
    record::{Control, Recording, synthetic},
    report::{export, table::Verdict},
};

const TEXT: &str = r#"
title = "Pairs_of a paper"
paper = "A. Author & B. Author, 2018, Table 3"
analysis = "What the table shows."
experiments = ["01-recall"]
profile = "quick"
digits = 1
recorded = { from = "profile quick, CPU", seeds = [0, 1], protocol = "pairs: made up" }

[tolerance]
paper = { ok = 2.0, close = 6.0, reason = "other features" }
recorded = { ok = 0.1, reason = "rounding" }

[[cells]]
row = "random"
label = "chance"
metric = "i2t R@1"
paper = { value = 0.5, source = "Table 3", evidence = "verified" }
recorded = 0.5

[[cells]]
row = "CCA"
metric = "i2t R@1"
paper = { value = 11.0, source = "Table 3", evidence = "recalled" }
recorded = 10.0

[[cells]]
row = "CCA"
metric = "avg R@1"
recorded = 10.0

[[cells]]
row = "VSE++"
metric = "t2i R@1"
paper = { value = 30.0, source = "README", evidence = "measured" }
tolerance = { ok = 1.0, reason = "the same features" }

[[cells]]
row = "IMRAM"
label = "IMRAM_2 & co"
metric = "i2t R@1"
paper = { value = 40.0, source = "Table 3", evidence = "recalled" }
recorded = 38.0

[[cells]]
row = "HREM"
metric = "i2t R@1"
paper = { value = 50.0, source = "Table 3", evidence = "recalled" }
"#;

fn parsed(text: &str) -> PaperTable {
    PaperTable::parse("example", "example.toml", text).unwrap()
}

/// The example with `CCA i2t R@1` recorded as the made-up recording has it.
fn example(recording: &Recording) -> PaperTable {
    let mut table = parsed(TEXT);
    let cells = judge(&table, &["01-recall".into()], recording, None);
    let found: Vec<Option<f64>> = cells.iter().map(|cell| cell.found).collect();
    table.text.cells[1].recorded = found[1];
    table.text.cells[2].recorded = found[2].map(|value| value + 0.2);
    table
}

#[test]
fn verdicts_turn_at_the_tolerance() {
    let tolerance = Tolerance { ok: 0.005, close: Some(0.015), reason: String::new() };
    let of = |found: f64| verdict(0.25, Some(found), &tolerance);
    // 0.25 + 0.005 is no binary number: the last bit must not decide.
    assert_eq!([of(0.25), of(0.255), of(0.245)], [Verdict::Ok; 3]);
    assert_eq!([of(0.25501), of(0.24499), of(0.265), of(0.235)], [Verdict::Close; 4]);
    assert_eq!([of(0.26501), of(0.23499), of(f64::INFINITY)], [Verdict::Off; 3]);
    assert_eq!(verdict(0.25, None, &tolerance), Verdict::NotRun);
    let strict = Tolerance { close: None, ..tolerance };
    assert_eq!(verdict(0.25, Some(0.2551), &strict), Verdict::Off);
    let exact = Tolerance { ok: 0.0, ..strict };
    assert_eq!([verdict(0.25, Some(0.25), &exact), verdict(0.25, Some(0.2501), &exact)], [Verdict::Ok, Verdict::Off]);
}

#[test]
fn cells_are_means_over_the_recorded_seeds_and_say_why_they_are_empty() {
    let recording = synthetic::recording();
    let table = example(&recording);
    let cells = judge(&table, &["01-recall".into()], &recording, None);
    let value = |label: &str, metric: &str, seed: u64| {
        let mut trials = recording.trials.iter().filter(|trial| trial.control == Control::None);
        trials
            .find(|trial| trial.experiment == "01-recall" && trial.label == label && trial.seed == seed)
            .unwrap()
            .metrics[metric]
    };
    let mean = |metric: &str| (value("CCA", metric, 0) + value("CCA", metric, 1)) / 2.0;
    assert_eq!(cells[0].found, Some(0.5));
    assert!((cells[1].found.unwrap() - mean("i2t R@1")).abs() < 1e-12);
    assert!((cells[2].found.unwrap() - (mean("i2t R@1") + mean("t2i R@1")) / 2.0).abs() < 1e-12);
    assert_eq!((cells[2].paper, cells[2].recorded), (None, Some(Verdict::Off)));
    assert!(cells[4].reason.as_ref().unwrap().contains("seed 0 failed: loss is NaN"));
    assert!(cells[5].reason.as_ref().unwrap().contains("no trial of row `HREM` in 01-recall"));
    assert_eq!((cells[5].paper, cells[5].recorded), (Some(Verdict::NotRun), None));
    let holds: Vec<bool> = cells.iter().map(Judged::holds).collect();
    assert_eq!([holds[0], holds[2], holds[4], holds[5]], [true, false, false, false]);
    let absent = judge(&table, &["01-recall".into()], &recording, Some("no data"));
    assert!(absent.iter().all(|cell| cell.found.is_none() && cell.reason.as_deref() == Some("no data")));
    let mut few = parsed(TEXT);
    few.text.recorded.seeds = vec![0, 7];
    let cells = judge(&few, &["01-recall".into()], &recording, None);
    assert!(cells[1].reason.as_ref().unwrap().contains("1 of 2 seeds were run"));
}

#[test]
fn rendered_tables_read_as_they_did() {
    let recording = synthetic::recording();
    let table = example(&recording);
    let experiments = vec!["01-recall".to_string()];
    let files = || {
        let cells = judge(&table, &experiments, &recording, None);
        let part = Part { table: &table, experiments: experiments.clone(), cells, recording: &recording };
        let folder = tempfile::tempdir().unwrap();
        let rendered = render(&[part], folder.path()).unwrap();
        let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
        rendered.files.iter().map(|path| (name(path), std::fs::read(path).unwrap())).collect::<BTreeMap<_, _>>()
    };
    let first = files();
    assert!(first == files(), "rendering twice gives other bytes");
    for ending in export::ENDINGS {
        let name = format!("repro-example.{ending}");
        insta::assert_snapshot!(name.as_str(), String::from_utf8(first[&name].clone()).unwrap());
    }
    let page = String::from_utf8(first["repro.html"].clone()).unwrap();
    assert!(page.contains("A. Author &amp; B. Author") && page.contains("class=\"verdict not-run\""));
    assert!(["src=", "<link", "@import", "url("].iter().all(|part| !page.contains(part)));
    for link in page.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(first.contains_key(link), "{link}");
    }
}

#[test]
fn what_is_wrong_with_a_table_is_named() {
    let error = |text: &str| format!("{:#}", PaperTable::parse("example", "example.toml", text).unwrap_err());
    assert!(error(&TEXT.replace("digits = 1", "digit = 1")).contains("unknown field `digit`"));
    assert!(error(&TEXT.replace("close = 6.0", "close = 1.0")).contains("found ok = 2 and close = 1"));
    assert!(error(&TEXT.replace("ok = 0.1", "ok = nan")).contains("expected 0 <= ok <= close"));
    assert!(error(&TEXT.replace("recorded = 38.0", "recorded = inf")).contains("finite values, found inf"));
    assert!(error(&TEXT.replace("[\"01-recall\"]", "[]")).contains("`experiments` is empty"));
    let error = PaperTable::find("wiki-mm11").unwrap_err().to_string();
    assert!(error.contains("did you mean `wiki-mm10`?") && error.contains("--list"), "{error}");
    let error = format!("{:#}", parsed(TEXT).experiments().unwrap_err());
    assert!(error.contains("table example: no experiment `01-recall`"), "{error}");
}

#[test]
fn built_in_tables_agree_with_their_experiments() {
    for table in PaperTable::builtin().unwrap() {
        let experiments = table.experiments().unwrap();
        assert!(!table.text.analysis.is_empty());
        let methods = crate::run::Methods::with(&[]);
        let rows: Vec<String> = experiments
            .iter()
            .flat_map(|experiment| crate::run::plan(experiment, &methods).unwrap())
            .map(|planned| crate::record::words::label(&planned.label, &planned.swept))
            .collect();
        for cell in &table.text.cells {
            assert!(
                cell.label() == "chance" || rows.iter().any(|row| row == cell.label()),
                "{}: {}",
                table.name,
                cell.row
            );
            assert!(cell.paper.is_some() || cell.recorded.is_some(), "{}: {}", table.name, cell.row);
        }
    }
}
