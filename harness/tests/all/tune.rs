//! `xmbench tune`: every trained row gets the same budget, on validation data, and experiments take what was found.

use std::fs;

use toml::Value;

use crate::common::{Place, wait};

/// Two rows whose rate, typed by hand, moves nothing, one that stays as typed, and one that nothing trains.
const EXPERIMENT: &str = r#"
title = "Tuning"
analysis = "A rate that is absurd."
seeds = [1]
columns = ["rsum"]
protocol = { task = { kind = "pairs" } }
datasets = [{ name = "planted-linear", label = "planted", seed = 3, train = 160, val = 50, test = 50 }]

[[methods]]
method = "cca"

[[methods]]
method = "vse"
label = "VSE0"
max_violation = false

[[methods]]
method = "contrastive"
label = "Contrastive, 1"
margin = 1.0

[[methods]]
method = "vse"
label = "As typed"
tuned = false

[profile.quick]
common = { text_encoder = "vectors", embedding = 16, epochs = 9, batch = 32, learning_rate = 1e-9, decay_every = 0 }

[profile.full]
common = { text_encoder = "vectors", embedding = 16, epochs = 2, batch = 32 }
"#;

/// A file of tuned rows up to its rows, and a row of it.
const HEAD: &str = "experiment = 'a'\nprofile = 'quick'\ntrials = 2\nseed = 1\nprogram = '1'\ncommit = ''\ndirty = false\n\
                    rungs = [{ settings = 2, epochs_over = 1 }]\n";
const ROW: &str = "[[rows]]\nrow = 'VSE0'\ndataset = 'planted'\nmethod = 'vse'\ndeveloped_on = 'x'\nchecksum = 'ab'\nafter = 2.0\n\
                   epochs = 9\nfits = 2\nfailed = 0\nseconds = 1.0\nranges = { margin = [0.1, 0.2] }\npresent = { margin = 0.2 }\n\
                   params = { margin = 0.1 }\n";

/// What was found, without what the clock says.
fn found(place: &Place, name: &str) -> String {
    let text = fs::read_to_string(place.path(name)).unwrap();
    text.lines().filter(|line| !line.starts_with("seconds")).collect::<Vec<_>>().join("\n")
}

fn table(place: &Place, name: &str) -> toml::Table {
    fs::read_to_string(place.path(name)).unwrap().parse().unwrap()
}

#[test]
fn an_absurd_rate_is_found_out_with_the_same_budget_for_every_row() {
    let place = Place::new();
    place.write("a.toml", EXPERIMENT);
    let output = place.run("tune a.toml --trials 9").code(0);
    assert!(output.stdout.lines().all(|line| line.chars().count() <= 100), "{}", output.stdout);
    assert!(output.stdout.contains("not tuned: As typed on planted: it keeps the parameters"), "{}", output.stdout);
    let whole = table(&place, "tuned/a.toml");
    let rows = whole["rows"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["row"].as_str().unwrap()).collect();
    assert_eq!(names, ["VSE0", "Contrastive, 1"]);
    for row in rows {
        let number = |key: &str| row[key].as_float().unwrap();
        assert!(number("after") > number("before") + 20.0, "{row}");
        let rate = |of: &str| row[of]["learning_rate"].as_float().unwrap();
        assert!(rate("present") == 1e-9 && (1e-4..=1e-2).contains(&rate("params")), "{row}");
        // 9 settings for one epoch, 3 for three, 2 for all nine: of every row.
        assert_eq!(row["fits"].as_integer(), Some(14));
        assert_eq!(row["developed_on"].as_str(), Some("planted-linear (seed=0, test=50, train=160, val=50)"));
    }
    // The margin is what makes that row, and its entry says so; of a sum there is no warm-up.
    let keys = |row: &Value| row["params"].as_table().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&rows[0]), ["learning_rate", "margin", "weight_decay"]);
    assert_eq!(keys(&rows[1]), ["learning_rate", "weight_decay"]);
    // Rows are tried with the same values of what they share.
    let journal = fs::read_to_string(place.path("tuned/a.tune.jsonl")).unwrap();
    let mut lines: Vec<serde_json::Value> = journal.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // They stand in the order in which they were finished.
    lines.sort_by_key(|line| line["setting"].as_u64());
    let rates = |row: &str| -> Vec<f64> {
        let first = lines.iter().filter(|line| line["row"] == row && line["rung"] == 0);
        first.map(|line| line["params"]["learning_rate"].as_f64().unwrap()).collect()
    };
    assert_eq!((rates("VSE0").len(), rates("VSE0")), (9, rates("Contrastive, 1")));
    assert!(!place.path("tuned/a.tune").exists());

    // An experiment that says so takes them: in that profile, and what it records can be run again without any file.
    let tuned = EXPERIMENT.replace("seeds = [1]", "seeds = [1]\ntuned = true");
    place.write("a.toml", &tuned);
    place.run("run a.toml --out out --reports report").code(0);
    place.run("run a.toml --profile full --out full --no-report").code(0);
    let rate = |folder: &str, label: &str| {
        let recording = place.recording(folder);
        let trial = recording.trials.iter().find(|trial| trial.label == label).unwrap();
        trial.params["learning_rate"].as_f64().unwrap()
    };
    assert_eq!(rate("out", "VSE0"), rows[0]["params"]["learning_rate"].as_float().unwrap());
    assert_eq!((rate("out", "As typed"), rate("full", "VSE0")), (1e-9, 2e-4));
    let page = fs::read_to_string(place.path("report/index.html")).unwrap();
    assert!(page.contains("What each row was tuned over") && page.contains("0.0001 to 0.01, log"));
    let words = fs::read_to_string(place.path("report/a-planted-tuned.md")).unwrap();
    assert!(words.contains("9 settings a row, 9 for 1/9, 3 for 1/3, 2 for all of its epochs"), "{words}");
    assert!(words.contains("VSE0") && !words.contains("As typed"), "{words}");
    fs::remove_dir_all(place.path("tuned")).unwrap();
    let again = place.run("rerun out").code(0).stdout;
    assert!(again.ends_with("4 of 4 equal in every bit\n"), "{again}");
}

#[test]
fn the_same_seed_finds_the_same_and_so_does_a_call_that_goes_on() {
    let (whole, killed, cut) = (Place::new(), Place::new(), Place::new());
    let command = "tune a.toml --trials 6 --rows VSE0";
    for place in [&whole, &killed, &cut] {
        place.write("a.toml", &EXPERIMENT.replace("epochs = 9", "epochs = 60"));
    }
    // Side by side or one after another.
    whole.run(&format!("{command} --threads 3 --jobs 3")).code(0);
    let wanted = found(&whole, "tuned/a.toml");
    // Killed in the middle, wherever that is.
    let journal = killed.path("tuned/a.tune.jsonl");
    let mut child = killed.start(command);
    wait(|| fs::read_to_string(&journal).is_ok_and(|text| text.lines().count() >= 3));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!killed.path("tuned/a.toml").exists());
    killed.run(&format!("{command} --jobs 1")).code(0);
    assert_eq!(found(&killed, "tuned/a.toml"), wanted);
    // Without time nothing is begun, and nothing is written as tuned.
    let output = cut.run(&format!("{command} --time-limit 0.0000001")).code(1);
    assert!(output.stdout.contains("not tuned: VSE0 on planted: the time was over"), "{}", output.stdout);
    assert!(!cut.path("tuned/a.toml").exists());
    cut.run(&format!("{command} --seed 2")).code(0);
    assert_ne!(found(&cut, "tuned/a.toml"), wanted);
    // Another budget does not stand beside it.
    cut.run("tune a.toml --trials 5 --rows VSE0 --seed 2")
        .code(2)
        .says(&["settings a row 6 there and 5 now", "--fresh"]);
    // Another row of the same budget does.
    cut.run("tune a.toml --trials 6 --seed 2 --rows Contrastive,").code(2).says(&["no trained row `Contrastive,`"]);
}

/// A row of which one split has what was tuned, and the others what is typed, would be two rows in one interval.
#[test]
fn what_was_tuned_counts_for_all_splits_or_is_refused() {
    let place = Place::new();
    let experiment = EXPERIMENT.replace("seed = 3,", "split_by_seed = true,");
    place.write("a.toml", &experiment.replace("seeds = [1]", "seeds = [1, 2]\ntuned = true"));
    let run = "run a.toml --dry-run";
    let on =
        |splits: &[&str]| splits.iter().map(|name| ROW.replace("'planted'", &format!("'{name}'"))).collect::<String>();
    let tuned = |splits: &[&str]| place.write("tuned/a.toml", &format!("{HEAD}{}", on(splits)));
    let refused =
        ["row `VSE0`: expected one on `planted`, for all splits, or one on each, found none on `planted, split 2`"];
    tuned(&["planted, split 1"]);
    place.run(run).code(2).says(&refused);
    for splits in [&["planted"][..], &["planted, split 1", "planted, split 2"], &["planted, split 1", "planted"]] {
        tuned(splits);
        let shown = place.run(run).code(0).stdout;
        let rows = shown.lines().filter(|line| line.contains("VSE0") && line.contains("margin=0.1 "));
        assert_eq!(rows.count(), 2, "{shown}");
    }
    // Other seeds are other splits.
    place.write("a.toml", &experiment.replace("seeds = [1]", "seeds = [1]\ntuned = true"));
    tuned(&["planted, split 1"]);
    place.run(run).code(0);
    place.run(&format!("{run} --seeds 1,2")).code(2).says(&refused);
}

#[test]
fn a_malformed_file_is_told_with_its_row_and_key() {
    let place = Place::new();
    place.write("a.toml", &EXPERIMENT.replace("seeds = [1]", "seeds = [1]\ntuned = true"));
    let run = "run a.toml --dry-run";
    place.run(run).code(2).says(&["a.toml: `tuned`: there is no ", "tuned/a.toml; `xmbench tune` makes one"]);
    // Which needs none.
    place.run("tune a.toml --trials 1 --rows VSE0").code(0);
    place.run(run).code(0);
    let good = format!("{HEAD}{ROW}");
    place.write("tuned/a.toml", &good);
    let shown = place.run(run).code(0).stdout;
    assert!(shown.lines().any(|line| line.contains("VSE0") && line.contains("margin=0.1 ")), "{shown}");
    for (from, to, said) in [
        ("after = 2.0", "after = 'much'", "row 1 `VSE0`: invalid type: string \"much\", expected f64 in `after`"),
        ("fits = 2", "fit = 2", "row 1 `VSE0`: unknown field `fit`"),
        ("after = 2.0", "after = nan", "a finite score of row `VSE0`"),
        ("trials = 2", "trial = 2", "unknown field `trial`"),
        ("dirty = false", "dirty = ", "line 7"),
        ("'VSE0'", "'VSE1'", "row `VSE1`: experiment a has no such row; did you mean `VSE0`?"),
        ("'planted'", "'plated'", "row `VSE0`: the experiment has no dataset `plated`; did you mean `planted`?"),
        ("'vse'", "'scan'", "row `VSE0`: it was tuned as method `scan`, and is `vse` here"),
        ("margin", "margn", "row `VSE0`: method `vse` has no parameter `margn`; did you mean `margin`?"),
        ("margin", "max_violation", "row `VSE0`: `max_violation` is what the row's own entry says"),
        ("params = { margin = 0.1 }", "params = { margin = -0.1 }", "row `VSE0` on planted: "),
        ("[0.1, 0.2]", "{ from = 2, to = 1, scale = 'log' }", "`from` below `to`, found 2 and 1"),
        (ROW, &format!("{ROW}{ROW}"), "row 2 `VSE0` on planted: it stands there before"),
    ] {
        place.write("tuned/a.toml", &good.replace(from, to));
        place.run(run).code(2).says(&["tuned/a.toml", said]);
    }
}
