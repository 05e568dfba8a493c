//! The command line, as a person meets it.

use crate::common::{EXPERIMENT, Place};

#[test]
fn help_lists_every_command_and_the_exit_codes() {
    let output = Place::new().run("--help").code(0);
    for word in ["list", "data", "run", "report", "repro", "compare", "claims", "exit codes"] {
        assert!(output.stdout.contains(word), "`{word}` is not in\n{}", output.stdout);
    }
    for command in ["list", "data", "run", "report", "repro", "compare", "claims"] {
        Place::new().run(&format!("{command} --help")).code(0);
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    for arguments in
        ["", "fly", "run --profile huge", "run --device gpu", "run --threads 0", "run --seeds one", "run --all x"]
    {
        Place::new().run(arguments).code(2);
    }
    Place::new().run("run").code(2).says(&["error: nothing to run", "--all"]);
}

#[test]
fn names_that_do_not_exist_are_told_the_nearest() {
    let place = Place::new();
    let error = place.run("run emoji-pear").code(2).stderr;
    insta::assert_snapshot!(error, @"error: no experiment `emoji-pear`; did you mean `01-emoji-pairs`?; `xmbench list experiments` shows them all, and a path to a .toml file works too");
    place.write("a.toml", &EXPERIMENT.replace("\"cca\"", "\"ccca\""));
    let error = place.run("run a.toml").code(2).stderr;
    insta::assert_snapshot!(error, @"error: experiment a, methods entry 1: no method `ccca`; did you mean `cca`?; `xmbench list methods` shows them all");
    place.write("b.toml", &EXPERIMENT.replace("components", "component"));
    let error = place.run("run b.toml").code(2).stderr;
    assert!(error.contains("`component`") && error.contains("did you mean `components`?"), "{error}");
    place.write("c.toml", &EXPERIMENT.replace("planted-linear", "planted-liner"));
    place.run("run c.toml --out out").code(2).says(&["planted-liner", "planted-linear"]);
    place.run("run d.toml").code(2).says(&["cannot read experiment d.toml"]);
}

#[test]
fn a_typing_error_in_an_experiment_is_shown_with_its_line() {
    let place = Place::new();
    place.write("a.toml", &EXPERIMENT.replace("columns =", "colums ="));
    let error = place.run("run a.toml").code(2).stderr;
    insta::assert_snapshot!(error, @r#"
    error: a.toml, line 5: unknown field `colums`, expected one of `title`, `analysis`, `seeds`, `columns`, `plots`, `expected`, `training_images`, `protocol`, `datasets`, `common`, `tuned`, `methods`, `ensembles`, `rerank`, `profile`; did you mean `columns`?
      | colums = ["i2t R@1", "t2i R@1", "rsum"]
    "#);
}

#[test]
fn a_column_or_a_label_that_does_not_exist_is_found_before_anything_is_fitted() {
    let place = Place::new();
    place.write("a.toml", &EXPERIMENT.replace("\"t2i R@1\"", "\"t2i R@2\""));
    place.run("run a.toml --out out").code(2).says(&["its protocol gives no metric `t2i R@2`; did you mean `t2i R@"]);
    let expected =
        "[[expected]]\nlabel = \"CCAA\"\nmetric = \"rsum\"\nvalue = 1\nsource = \"x\"\nevidence = \"measured\"\n";
    place.write("b.toml", &format!("{EXPERIMENT}\n{expected}"));
    place.run("run b.toml --out out").code(2).says(&["`CCAA`", "did you mean `CCA`?"]);
    place.write("c.toml", &EXPERIMENT.replace("kind = \"pairs\"", "kind = \"pairs\", cutoffs = [0]"));
    place.run("run c.toml --out out").code(2).says(&["c.toml: protocol, `cutoffs`"]);
}

#[test]
fn two_rows_and_two_recordings_compare() {
    let place = Place::new();
    place.write("a.toml", EXPERIMENT);
    let other = EXPERIMENT.replace("kind = \"pairs\"", "kind = \"pairs\", cutoffs = [1, 5]");
    place.write("other/a.toml", &other);
    for (experiment, out) in [("a.toml", "one"), ("a.toml", "again"), ("other/a.toml", "other")] {
        place.run(&format!("run {experiment} --profile smoke --no-report --out {out}")).code(0);
    }
    let same = place.run("compare one again --json").code(0).json();
    // Two grid points and their shuffled controls, three columns each.
    assert_eq!(same.as_array().unwrap().len(), 12);
    for row in same.as_array().unwrap() {
        assert_eq!((&row["difference"], &row["verdict"]), (&0.0.into(), &"identical".into()), "{row}");
    }
    assert!(place.run("compare one again").code(0).stdout.contains("identical: all 12 numbers, in every bit"));
    place.run("compare one other").code(2).says(&["task.cutoffs", "[1,5,10]", "[1,5]"]);
    place.run("compare one nowhere").code(2).says(&["not of one kind"]);
    place.run("compare CCC CCA --recording one").code(2).says(&["has no row `CCC`", "`CCA components=2`"]);
    place.run("compare CCA CCA").code(2).says(&["there is no recording under results/"]);
}

#[test]
fn claims_are_listed_and_told_apart() {
    let listed = Place::new().run("claims --list --json").code(0).stdout;
    let claims: Vec<serde_json::Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let scan = claims.iter().find(|claim| claim["claim"] == "mean-over-lse").unwrap();
    assert_eq!((&scan["method"], &scan["evidence"]), (&"scan".into(), &"recalled".into()));
    let some = Place::new().run("claims scan --list --json").code(0).stdout;
    assert!(some.lines().count() < claims.len() && some.contains("mean-over-lse"));
    Place::new().run("claims scna").code(2).says(&["no claim and no method `scna`; did you mean `scan`?"]);
}

#[test]
fn a_dry_run_lists_trials_and_writes_nothing() {
    let place = Place::new();
    place.write("a.toml", EXPERIMENT);
    let json = place.run("run a.toml --dry-run --json --seeds 4,5").code(0).json();
    // Two grid points and their shuffled controls, two seeds.
    assert_eq!(json["trials"].as_array().unwrap().len(), 8);
    assert_eq!(json["trials"][0]["swept"]["components"], "2");
    assert!(!place.path("results").exists());
}

#[test]
fn lists_are_readable_by_machines() {
    let json = Place::new().run("list --json").code(0).json();
    assert!(json["methods"].as_array().unwrap().iter().any(|method| method["name"] == "cca"));
    assert!(json["datasets"].as_array().unwrap().iter().any(|dataset| dataset["name"] == "emoji"));
    let experiments = json["experiments"].as_array().unwrap();
    assert!(
        experiments.iter().any(|experiment| experiment["name"] == "01-emoji-pairs" && experiment["profile"] == "smoke")
    );
}

#[test]
fn data_that_is_not_there_is_an_error_when_it_was_asked_for_by_name() {
    let output = Place::new().run("run 03-wiki-correlation --out out").code(2);
    output.says(&["wiki", "--data-dir", "XMBENCH_DATA"]);
}

#[test]
fn cuda_that_is_not_built_in_says_how_to_build_it() {
    if !cfg!(feature = "cuda") {
        let place = Place::new();
        place.write("a.toml", EXPERIMENT);
        place.run("run a.toml --device cuda").code(2).says(&["built without CUDA", "cuda-build.sh"]);
    }
}

/// Where a set is, what is wanted, and what is wrong with what is there.
#[test]
fn data_get_checks_what_is_there() {
    let place = Place::new();
    let prints = |command: &str, code: i32, texts: &[&str]| {
        let output = place.run(command).code(code);
        texts.iter().for_each(|text| assert!(output.stdout.contains(text), "`{text}` is not in:\n{}", output.stdout));
    };
    prints("data get wiki", 0, &["svcl.ucsd.edu", "terms:", "raw_features.mat", "1075232 bytes, sha256 ca628f76"]);
    prints("data get", 0, &["emoji: built in", "scan: features of SCAN"]);
    prints("data get nuswide10", 0, &["186,577 items"]);
    let unknown = place.run("data get flickr9k").code(2);
    unknown.says(&[
        "did you mean `flickr8k`?",
        "sets are flickr8k, flickr30k, coco, mirflickr25k, nuswide, wiki, vsepp, scan",
    ]);
    std::fs::create_dir_all(place.path("sets/wiki")).unwrap();
    prints("data get wiki --data-dir sets", 1, &["nothing of it is in sets"]);
    place.write("sets/wiki/categories.list", "art\n");
    prints("data get wiki --data-dir sets", 1, &["WRONG: expected 75 bytes, found 4", "not complete"]);
    let json = place.run("data get wiki --data-dir sets --json").code(1).json();
    assert_eq!(json["found"][0]["files"][3][1]["length"]["found"], 4);
    assert_eq!(json["found"][0]["files"][0][1], "missing");
    let folder = "sets/f30k_precomp";
    std::fs::create_dir_all(place.path(folder)).unwrap();
    for split in ["train", "dev", "test"] {
        place.write(&format!("{folder}/{split}_caps.txt"), "a dog\n");
        place.write(&format!("{folder}/{split}_ims.npy"), "not yet");
    }
    prints("data get scan --data-dir sets", 0, &["a precomp folder", "complete"]);
}
