//! Tables of papers on the command line.

use crate::common::{EXPERIMENT, Place};

/// A table on the example experiment: one value that is recorded, one that a paper prints.
fn table(recorded: f64, printed: f64) -> String {
    format!(
        r#"
title = "Example"
paper = "A paper"
experiments = ["a.toml"]
profile = "smoke"
digits = 1
recorded = {{ from = "smoke", seeds = [1], protocol = "pairs: gallery the whole test split; R@1, R@5, R@10 = best-ranked own item, percent; ties: expected value over all orders; selected on val" }}

[tolerance]
paper = {{ ok = 1.0, close = 2.0, reason = "an example" }}
recorded = {{ ok = 0.1, reason = "an example" }}

[[cells]]
row = "CCA, 8 components"
label = "CCA components 8"
metric = "rsum"
paper = {{ value = {printed:?}, source = "table 1", evidence = "verified" }}
recorded = {recorded:?}
"#
    )
}

#[test]
fn the_list_says_what_data_a_table_needs() {
    let place = Place::new();
    let text = place.run("repro --list").code(0).stdout;
    for word in ["wiki-mm10", "03-wiki-correlation", "raw_features.mat", "svcl.ucsd.edu"] {
        assert!(text.contains(word), "`{word}` is not in\n{text}");
    }
    let json = place.run("repro --list --json").code(0).json();
    let wiki = json["tables"].as_array().unwrap().iter().find(|table| table["table"] == "wiki-mm10").unwrap();
    assert_eq!((&wiki["cells"], &wiki["data"][0]["dataset"]), (&12.into(), &"wiki".into()));
    assert!(!place.path("results").exists() && !place.path("reports").exists());
}

#[test]
fn absent_data_is_an_error_by_name_and_a_note_among_all() {
    let place = Place::new();
    place.run("repro wiki-mm10").code(2).says(&["table wiki-mm10", "wiki", "--data-dir", "XMBENCH_DATA"]);
    place.run("repro wiki-mm11").code(2).says(&["did you mean `wiki-mm10`?"]);
    place.run("repro nowhere.toml").code(2).says(&["cannot read table nowhere.toml"]);
    let json = place.run("repro --json").code(0).json();
    let cell = &json["tables"][0]["cells"][0];
    assert_eq!((&cell["paper"]["verdict"], &cell["holds"]), (&"NOT RUN".into(), &false.into()));
    assert!(cell["reason"].as_str().unwrap().contains("--data-dir"), "{cell}");
}

#[test]
fn a_cell_that_does_not_hold_exits_with_1_and_trials_are_run_once() {
    let place = Place::new();
    place.write("a.toml", EXPERIMENT).write("t.toml", &table(-1.0, -1.0));
    let json = place.run("repro t.toml --json").code(1).json();
    let table_of = |json: &serde_json::Value| json["tables"][0].clone();
    let cell = &table_of(&json)["cells"][0];
    assert_eq!((&cell["paper"]["verdict"], &cell["recorded"]["verdict"]), (&"OFF".into(), &"OFF".into()));
    let found = cell["found"].as_f64().unwrap();
    // Two grid points, their shuffled controls, and chance.
    assert_eq!((&table_of(&json)["done"], &table_of(&json)["recorded_before"]), (&5.into(), &0.into()));

    place.write("t.toml", &table(found, found + 1.5));
    let again = place.run("repro t.toml --json").code(0).json();
    let cell = &table_of(&again)["cells"][0];
    assert_eq!((&cell["paper"]["verdict"], &cell["recorded"]["verdict"]), (&"CLOSE".into(), &"OK".into()));
    assert_eq!((&table_of(&again)["done"], &table_of(&again)["recorded_before"]), (&0.into(), &5.into()));

    place.write("t.toml", &table(found, found + 2.5));
    let text = place.run("repro t.toml").code(1).stdout;
    assert!(text.contains("1 OFF") && text.contains("Command: `xmbench repro t.toml`"), "{text}");
    for file in ["repro.html", "repro-t.md", "repro-t.tex", "repro-t.csv"] {
        assert!(place.path("reports").join(file).exists(), "{file}");
    }

    place.write("t.toml", &table(found, found).replace("percent; ties", "percents; ties"));
    place.run("repro t.toml").code(2).says(&["recorded under", "record them anew"]);
}
