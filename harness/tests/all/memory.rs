//! Parameters that no machine can hold: a row with its reason, and the rows behind it run.

use crate::common::Place;
use xmbench::record::Outcome;

const EXPERIMENT: &str = r#"
title = "Absurd"
seeds = [1]
protocol = { task = { kind = "pairs" } }
datasets = [{ name = "planted-fragments", train = 60, val = 20, test = 20 }]

[[methods]]
method = "vse"
label = "huge"
embedding = 65536
word = 65536
epochs = 1

[[methods]]
method = "kcca"
label = "beyond counting"
approximation = "rff"
features = 9000000000000000000

[[methods]]
method = "kcca"
label = "features"
approximation = "rff"
features = 1000000000000

[[methods]]
method = "vse"
label = "modest"
embedding = 16
word = 8
epochs = 1
batch = 20
"#;

/// The reason of each row that failed, `done` of the others.
fn outcomes(place: &Place, out: &str, labels: &[&str]) -> Vec<String> {
    let recording = place.recording(out);
    let outcome = |label: &&str| match &recording.trials.iter().find(|trial| trial.label == **label).unwrap().outcome {
        Outcome::Done => "done".to_string(),
        Outcome::Failed { reason } => reason.clone(),
    };
    labels.iter().map(outcome).collect()
}

#[test]
fn what_no_machine_holds_is_a_row_with_its_estimate_and_the_others_run() {
    let place = Place::new();
    place.write("a.toml", EXPERIMENT);
    // One gate of a GRU of that width has 65536 * 65536 weights from words: 16 GiB, and a training holds each four times.
    place.run("run a.toml --profile smoke --no-report --out out --max-memory 8GiB").code(1);
    let found = outcomes(&place, "out", &["huge", "beyond counting", "features", "modest"]);
    for reason in &found[..3] {
        assert!(reason.contains("may be used; choose smaller parameters or allow more with --max-memory"), "{reason}");
    }
    assert!(found[0].contains("at least ") && found[0].contains("GiB, and 8.0 GiB may be used"), "{}", found[0]);
    assert!(found[2].contains("TiB, and 8.0 GiB"), "{}", found[2]);
    assert!(found[1].contains("more than can be counted"), "{}", found[1]);
    assert_eq!(found[3], "done");
}

#[test]
fn a_limit_is_kept() {
    let place = Place::new();
    place.write("a.toml", EXPERIMENT);
    place.run("run a.toml --profile smoke --no-report --out out --max-memory 4KiB").code(1);
    let found = outcomes(&place, "out", &["modest"]);
    assert!(found[0].contains("4.0 KiB may be used"), "{}", found[0]);
    place.run("run a.toml --max-memory much").code(2).says(&["--max-memory", "expected a size as 8GiB"]);
}

/// The weights of each ask for some 325 KiB.
#[test]
fn what_finds_too_little_beside_others_is_fitted_alone() {
    let place = Place::new();
    let row = |label: &str, epochs: usize| {
        format!(
            "[[methods]]\nmethod = 'vse'\nlabel = '{label}'\nembedding = 64\nword = 32\nbatch = 20\nepochs = {epochs}\n"
        )
    };
    let head = EXPERIMENT.split("[[methods]]").next().unwrap();
    place.write("a.toml", &format!("{head}{}{}", row("first", 1), row("second", 2)));
    let threads = |limit: &str| -> Vec<Option<usize>> {
        let command =
            format!("run a.toml --profile smoke --no-report --no-clock --threads 2 --jobs 2 --max-memory {limit}");
        place.run(&format!("{command} --out {limit}")).code(0);
        assert_eq!(outcomes(&place, limit, &["first", "second"]), ["done"; 2]);
        let trials = place.recording(limit).trials;
        let fitted = trials.iter().filter(|trial| trial.method == "vse");
        fitted.map(|trial| trial.origin.as_ref().unwrap().fit_threads).collect()
    };
    assert_eq!(threads("8MiB"), [Some(1); 2]);
    assert_eq!(threads("600KiB"), [None; 2]);
}
