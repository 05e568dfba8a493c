//! Rows that are made of fitted rows: what is recorded of them, and what is not run twice.

use std::process::Command;

use crate::common::{Place, all_numbers, finish, wait};
use xmbench::record::{Control, Outcome, Recording, Store, Trial};

/// Two trained rows, their mean, and each re-ranked by something.
const STAGES: &str = r#"
title = "Stages"
analysis = "What is made of fitted rows."
seeds = [1, 2]
columns = ["i2t R@1", "t2i R@1", "rsum", "i2t in shortlist"]
plots = ["rerank", "pareto"]
protocol = { task = { kind = "pairs" } }
datasets = [{ name = "planted-fragments", train = 120, val = 30, test = 40 }]

[[methods]]
method = "vse"
label = "VSE++"
embedding = 32
word = 16
epochs = 3
batch = 32

[[methods]]
method = "scan"
label = "SCAN"
embedding = 32
word = 16
epochs = 2
batch = 32

[[ensembles]]
label = "Both"
of = ["VSE++", "SCAN"]

[[rerank]]
label = "VSE++, then SCAN"
first = "VSE++"
second = "SCAN"
shortlist = [3, 1000]

[[rerank]]
label = "SCAN, then both"
first = "SCAN"
second = "Both"
shortlist = 1
"#;

fn run(place: &Place, file: &str, arguments: &str) -> (u64, u64, String) {
    let output =
        place.run(&format!("run {file} --profile smoke --no-report --lean --json --out out {arguments}")).code(0);
    let json = output.json();
    (json["done"].as_u64().unwrap(), json["recorded_before"].as_u64().unwrap(), output.stderr)
}

fn trial<'a>(recording: &'a Recording, key: &str) -> &'a Trial {
    recording.trials.iter().find(|trial| trial.key().ends_with(key)).unwrap_or_else(|| panic!("no trial {key}"))
}

#[test]
fn rows_made_of_others_are_recorded_and_not_run_again() {
    let place = Place::new();
    place.write("a.toml", STAGES);
    let listed = place.run("run a.toml --profile smoke --dry-run").code(0).stdout;
    for text in ["VSE++, then SCAN", "shortlist=1000", "of=[\"VSE++\", \"SCAN\"]", "12 trials"] {
        assert!(listed.contains(text), "`{text}` is not in\n{listed}");
    }
    // Two fitted rows, a mean, two sizes and one; two seeds; and chance.
    let (done, recorded, said) = run(&place, "a.toml", "");
    assert_eq!((done, recorded), (13, 0));
    assert!(!said.contains("fitted again"), "{said}");
    let (done, recorded, _) = run(&place, "a.toml", "");
    assert_eq!((done, recorded), (0, 13));
    assert!(!place.path("out/matchers").exists() && !place.path("out/checkpoints").exists());

    let recording = place.recording("out");
    assert!(recording.trials.iter().all(|trial| trial.outcome == Outcome::Done));
    for seed in [1, 2] {
        let of = |key: &str| trial(&recording, &format!("{key}/seed={seed}"));
        let (vse, scan) = (of("VSE++"), of("SCAN"));
        let (few, all, one) = (of("shortlist=3"), of("shortlist=1000"), of("SCAN, then both"));
        // A shortlist of everything is the second row: saved and read, it scores as it did.
        for metric in ["i2t R@1", "t2i R@1", "rsum", "i2t MeanR", "t2i MeanR"] {
            assert_eq!(all.metrics[metric], scan.metrics[metric], "{metric}");
        }
        assert_eq!((all.metrics["i2t in shortlist"], all.metrics["t2i in shortlist"]), (100.0, 100.0));
        // A shortlist of one item leaves the first row's best where it was.
        assert_eq!(one.metrics["i2t in shortlist"], one.metrics["i2t R@1"]);
        assert_eq!(one.metrics["i2t R@1"], scan.metrics["i2t R@1"]);
        for direction in ["i2t", "t2i"] {
            let held = few.metrics[&format!("{direction} in shortlist")];
            assert!(few.metrics[&format!("{direction} R@1")] <= held);
            let hits = vse.queries.iter().filter(|query| query.direction.to_string() == direction);
            let inside = hits.clone().filter(|query| query.better + query.tied <= 3).count();
            assert!((held - 100.0 * inside as f64 / hits.count() as f64).abs() < 1e-9, "no ties at the boundary here");
        }
        assert!(!scan.metrics.contains_key("i2t in shortlist"));
        assert_eq!(few.bytes_per_item, [0, 1].map(|side| vse.bytes_per_item[side] + scan.bytes_per_item[side]));
        assert_eq!((few.method.as_str(), few.params["second"].as_str()), ("rerank", Some("SCAN")));
        assert!(few.remark.contains("the best of VSE++, ordered anew by SCAN"), "{}", few.remark);
        let phases: Vec<&str> = few.timings.iter().map(|timing| timing.phase.as_str()).collect();
        let wanted = [
            "encode images",
            "encode texts",
            "encode one text",
            "index",
            "query single",
            "query batch",
            "first stage",
            "second stage",
        ];
        assert_eq!(phases, wanted);
        let both = of("Both");
        assert_eq!((both.method.as_str(), both.timings.len(), both.history.len()), ("ensemble", 6, 0));
    }
    let ids: std::collections::BTreeSet<&str> = recording.trials.iter().map(|trial| trial.id.as_str()).collect();
    assert_eq!(ids.len(), recording.trials.len());

    // Another row of what is recorded: its members are fitted again, and their records stay as they are.
    let before = all_numbers(&recording);
    let more = STAGES.replace("shortlist = [3, 1000]", "shortlist = [3, 5, 1000]");
    place.write("more/a.toml", &more);
    let (done, recorded, said) = run(&place, "more/a.toml", "");
    assert_eq!((done, recorded), (2, 13));
    assert_eq!(said.matches("its fitted matcher was not kept; it is fitted again").count(), 4, "{said}");
    let after = place.recording("out");
    let kept: Vec<String> = all_numbers(&after).into_iter().filter(|line| !line.contains("shortlist=5/")).collect();
    assert_eq!(kept, before);
    assert!(!place.path("out/matchers").exists() && !place.path("out/checkpoints").exists());

    // A report of all of it.
    place.run("report --recording out --out reports").code(0);
    let page = std::fs::read_to_string(place.path("reports/index.html")).unwrap();
    assert!(page.contains("ordered anew by SCAN") && !page.contains("Registered by another program"));
    for file in ["a-planted-fragments-rerank.svg", "a-planted-fragments-pareto.svg"] {
        let found = std::fs::read_dir(place.path("reports"))
            .unwrap()
            .flatten()
            .map(|entry| entry.file_name().into_string().unwrap());
        let names: Vec<String> = found.collect();
        let (stem, ending) = file.rsplit_once('-').unwrap();
        assert!(
            names.iter().any(|name| name.starts_with(stem) && name.ends_with(ending)),
            "{file} is not among {names:?}"
        );
    }
}

#[test]
fn an_interrupted_run_makes_its_rows_of_what_was_kept() {
    let place = Place::new();
    // Long enough that the signal comes while the second row trains.
    let long = STAGES.replace("seeds = [1, 2]", "seeds = [1]").replace("epochs = 2\n", "epochs = 60\n");
    place.write("a.toml", &long);
    let child = place.start("run a.toml --profile smoke --no-report --lean --out out");
    wait(|| std::fs::read_dir(place.path("out/matchers")).is_ok_and(|found| found.count() == 1));
    place.wait_for_trials("out", 2);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = finish(child);
    assert_eq!(output.code, Some(130), "{}", output.stderr);
    assert!(place.path("out/matchers").exists());
    let kept = place.recording("out").trials.len();
    let (done, recorded, said) = run(&place, "a.toml", "");
    assert_eq!((done as usize, recorded as usize), (7 - kept, kept));
    assert!(!said.contains("fitted again"), "{said}");
    assert!(!place.path("out/matchers").exists());
    place.run("run a.toml --profile smoke --no-report --lean --out whole").code(0);
    assert_eq!(all_numbers(&place.recording("out")), all_numbers(&place.recording("whole")));
}

#[test]
fn a_row_fails_with_what_it_is_made_of() {
    let place = Place::new();
    // Rates beyond all measure: the loss is not finite, and the row fails.
    let broken = STAGES.replace("label = \"SCAN\"\n", "label = \"SCAN\"\nlearning_rate = 1e30\n");
    place.write("a.toml", &broken);
    place.run("run a.toml --profile smoke --no-report --lean --out out").code(1);
    let recording = place.recording("out");
    let reason = |trial: &Trial| match &trial.outcome {
        Outcome::Failed { reason } => reason.clone(),
        Outcome::Done => "done".into(),
    };
    let own = reason(trial(&recording, "SCAN/seed=1"));
    assert_ne!(own, "done");
    for key in ["Both/seed=1", "shortlist=3/seed=1", "SCAN, then both/seed=2"] {
        let found = reason(trial(&recording, key));
        assert!(found.starts_with("row `SCAN`, which it is made of, failed: "), "{found}");
    }
    assert_eq!(reason(trial(&recording, "VSE++/seed=1")), "done");
    assert!(!place.path("out/matchers").exists());
}

#[test]
fn a_row_for_shortlists_is_fitted_and_scores_nothing_else() {
    let place = Place::new();
    // One epoch each: with and without validation the same weights are kept.
    let text = STAGES.replace("seeds = [1, 2]", "seeds = [1]").replace("epochs = 2\n", "epochs = 1\n");
    let slow = "\n[[methods]]\nmethod = \"scan\"\nlabel = \"Slow\"\nembedding = 32\nword = 16\nepochs = 1\nbatch = 32\nshortlists_only = true\n\
                [[rerank]]\nlabel = \"VSE++, then slow\"\nfirst = \"VSE++\"\nsecond = \"Slow\"\nshortlist = [3, 1000]\n";
    place.write("a.toml", &format!("{text}{slow}"));
    let (done, recorded, said) = run(&place, "a.toml", "");
    assert_eq!((done, recorded), (10, 0));
    assert!(said.contains("Slow seed 1: fitted for shortlists"), "{said}");
    let recording = place.recording("out");
    let slow = trial(&recording, "Slow/seed=1");
    assert!(slow.metrics.is_empty() && slow.queries.is_empty() && slow.curves.is_empty());
    assert_eq!((slow.history.len(), slow.history[0].validation), (1, None));
    let phases: Vec<&str> = slow.timings.iter().map(|timing| timing.phase.as_str()).collect();
    assert_eq!(phases, ["fit", "encode images", "encode texts", "encode one text"]);
    assert!(slow.remark.contains("orders shortlists alone"), "{}", slow.remark);
    let of = |label: &str, size: u32| {
        let found =
            recording.trials.iter().find(|trial| trial.label == label && trial.swept["shortlist"] == size.to_string());
        found.unwrap_or_else(|| panic!("no trial {label} {size}")).metrics.clone()
    };
    for size in [3, 1000] {
        assert_eq!(of("VSE++, then slow", size), of("VSE++, then SCAN", size));
    }
    place.run("report --recording out --out reports").code(0);
    let page = std::fs::read_to_string(place.path("reports/index.html")).unwrap();
    assert!(page.contains("orders shortlists alone"));
}

#[test]
fn the_clock_measures_what_was_trained_and_not_measured() {
    let place = Place::new();
    let text = STAGES.replace("seeds = [1, 2]", "seeds = [1]");
    place.write("a.toml", &text);
    run(&place, "a.toml", "");
    let whole = place.recording("out");
    let timed = |trial: &Trial| -> Vec<(String, usize)> {
        trial.timings.iter().map(|it| (it.phase.clone(), it.seconds.len())).collect()
    };
    for trial in whole.trials.iter().filter(|it| it.control == Control::None) {
        // Every row was asked in more than one round.
        assert!(timed(trial).iter().all(|(phase, samples)| phase == "fit" || *samples >= 2), "{:?}", timed(trial));
        assert!(trial.origin.as_ref().unwrap().load.is_some());
    }
    // A run that leaves the clock to another one keeps what that one needs.
    let output = place.run("run a.toml --profile smoke --no-report --lean --no-clock --out later").code(0);
    assert!(!output.stderr.contains("clocking") && place.path("later/matchers").exists());
    let output = place.run("run a.toml --profile smoke --no-report --lean --out later").code(0);
    assert!(output.stderr.contains("clocking") && !output.stderr.contains("fitted again"), "{}", output.stderr);
    assert!(!place.path("later/matchers").exists());
    // As a run leaves it that was killed between training and clock, and whose matchers somebody has removed.
    let mut store = Store::open(&place.path("out"), whole.manifest.clone()).unwrap();
    for trial in &whole.trials {
        let mut trial = trial.clone();
        trial.timings.retain(|timing| timing.phase == "fit");
        store.add(trial).unwrap();
    }
    drop(store);
    let (done, recorded, said) = run(&place, "a.toml", "");
    assert_eq!((done as usize, recorded as usize), (0, whole.trials.len()));
    assert!(said.contains("its fitted matcher was not kept; it is fitted again"), "{said}");
    let again = place.recording("out");
    for (before, after) in whole.trials.iter().zip(&again.trials) {
        let phases = |trial: &Trial| timed(trial).into_iter().map(|(phase, _)| phase).collect::<Vec<_>>();
        assert_eq!(phases(before), phases(after), "{}", before.key());
    }
    assert_eq!(all_numbers(&again), all_numbers(&whole));
    assert!(!place.path("out/matchers").exists());
}
