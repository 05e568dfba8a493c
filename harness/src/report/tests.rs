use std::collections::BTreeMap;
use std::path::Path;

use super::*;

/// Every file of a report on the made-up recording, by name.
fn files(recording: &Recording) -> BTreeMap<String, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let rendered = render(recording, folder.path()).unwrap();
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    rendered.files.iter().map(|path| (name(path), std::fs::read(path).unwrap())).collect()
}

fn text(files: &BTreeMap<String, Vec<u8>>, name: &str) -> String {
    String::from_utf8(files[name].clone()).unwrap()
}

#[test]
fn tables_read_as_they_did() {
    let files = files(&synthetic::recording());
    for (name, bytes) in &files {
        if [".md", ".tex", ".csv"].iter().any(|ending| name.ends_with(ending)) {
            insta::assert_snapshot!(name.as_str(), String::from_utf8(bytes.clone()).unwrap());
        }
    }
}

#[test]
fn rendering_twice_gives_the_same_bytes() {
    let recording = synthetic::recording();
    assert!(files(&recording) == files(&recording));
}

#[test]
fn means_are_over_the_seeds_that_every_row_ran() {
    // SCAN failed for seed 2, so that nobody's seed 2 counts.
    let recording = synthetic::recording();
    let value = |seed| {
        let mut trials = recording.trials.iter();
        let one = trials.find(|trial| trial.experiment == "01-recall" && trial.label == "CCA" && trial.seed == seed);
        one.unwrap().metrics["i2t R@1"]
    };
    let files = files(&recording);
    let mut reader = csv::Reader::from_reader(&files["01-recall-f8k.csv"][..]);
    let head = reader.headers().unwrap().clone();
    let at = |name: &str| head.iter().position(|column| column == name).unwrap();
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let row = |name: &str| rows.iter().find(|row| &row[at("row")] == name && &row[at("kind")] != "stated").unwrap();
    let number = |row: &csv::StringRecord, column: &str| row[at(column)].parse::<f64>().unwrap();
    assert_eq!(number(row("CCA"), "i2t R@1 mean"), (value(0) + value(1)) / 2.0);
    assert_eq!(&row("CCA")[at("i2t R@1 n")], "2");
    assert!(number(row("CCA"), "i2t R@1 low") < number(row("CCA"), "i2t R@1 mean"));
    assert_eq!(&row("IMRAM_2 & co")[at("kind")], "failed");
    assert!(row("IMRAM_2 & co")[at("note")].contains("loss is NaN at epoch 3"));
}

#[test]
fn a_missing_cell_is_a_dash_and_never_a_zero() {
    let mut recording = synthetic::recording();
    for trial in recording.trials.iter_mut().filter(|trial| trial.label == "CCA" && trial.seed == 1) {
        trial.metrics.remove("i2t R@5");
    }
    let files = files(&recording);
    let line = text(&files, "01-recall-f8k.md").lines().find(|line| line.starts_with("| CCA")).unwrap().to_string();
    let cells: Vec<&str> = line.split('|').map(str::trim).collect();
    assert_eq!(cells[3], "–");
    assert!(cells[2].contains('±') && !cells[4].is_empty());
}

#[test]
fn names_and_reasons_stay_text() {
    let mut recording = synthetic::recording();
    for trial in &mut recording.trials {
        if trial.label == "CCA" {
            trial.label = "<script>alert(1)</script> 50% a_b | c".to_string();
        }
        if let crate::record::Outcome::Failed { reason } = &mut trial.outcome {
            *reason = "</table><img src=x> #1 {x} \\input ~^$&".to_string();
        }
    }
    let files = files(&recording);
    for (name, bytes) in &files {
        let text = String::from_utf8_lossy(bytes);
        if name.ends_with(".html") || name.ends_with(".svg") {
            assert!(!text.contains("<script>alert") && !text.contains("<img"), "{name}");
        }
    }
    assert!(text(&files, "01-recall-f8k.md").contains("50% a\\_b \\| c"));
    let latex = text(&files, "01-recall-f8k.tex");
    assert!(latex.contains("50\\% a\\_b \\textbar{} c"));
    assert!(latex.contains("\\#1 \\{x\\} \\textbackslash{}input \\textasciitilde{}\\textasciicircum{}\\$\\&"));
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let page = text(&files(&synthetic::recording()), "index.html");
    let foreign = ["src=", "<link", "@import", "url("];
    assert!(foreign.iter().all(|part| !page.contains(part)));
    // The files it offers are there.
    let files = files(&synthetic::recording());
    for link in page.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        let known = link.starts_with('#') || link.starts_with("https://doi.org/") || files.contains_key(link);
        assert!(known, "{link}");
    }
}

#[test]
fn an_unknown_plot_is_an_error_that_names_the_known_ones() {
    let mut recording = synthetic::recording();
    recording.manifest.experiments.get_mut("01-recall").unwrap().plots.push("recal".to_string());
    let folder = tempfile::tempdir().unwrap();
    let error = render(&recording, folder.path()).unwrap_err().to_string();
    assert_eq!(
        error,
        "experiment 01-recall: no plot is called 'recal'; choose from recall, pr, topn, bits, sweep, pareto, training"
    );
    assert!(!folder.path().join("index.html").exists());
}

#[test]
fn a_recording_without_notes_still_makes_a_report() {
    let mut recording = synthetic::recording();
    recording.manifest = crate::record::Manifest::default();
    let files = files(&recording);
    assert!(text(&files, "01-recall-f8k.md").contains("i2t R@1 |"));
    assert!(text(&files, "index.html").contains("01-recall"));
}

/// For a look: `XMBENCH_LOOK=/tmp/look cargo test -p xmbench -- --ignored look`.
#[test]
#[ignore = "writes a report for a person to look at"]
fn look() {
    let folder = std::env::var("XMBENCH_LOOK").expect("XMBENCH_LOOK names the folder");
    render(&synthetic::recording(), Path::new(&folder)).unwrap();
}
