//! Each seed on a split of its own: one table over all of them, whose intervals are over splits.

use crate::common::{EXPERIMENT, Place};

#[test]
fn one_table_is_over_all_splits() {
    let place = Place::new();
    let two = "label = 'two'\ncomponents = 2\n[[methods]]\nmethod = 'cca'\nlabel = 'eight'\ncomponents = 8";
    let split = |own: &str| {
        let on = EXPERIMENT.replace("name = \"planted-linear\"", &format!("name = \"planted-linear\"\n{own}"));
        on.replace("components = [2, 8]", two)
    };
    place.write("a.toml", &split("split_by_seed = true"));
    place.run("run a.toml --profile smoke --out out --reports reports").code(0);
    let recording = place.recording("out");
    let datasets: Vec<&str> = recording.manifest.datasets.keys().map(String::as_str).collect();
    assert_eq!(datasets, [1, 2, 3].map(|seed| format!("planted-linear, split {seed}")));
    for trial in recording.trials.iter().filter(|trial| trial.method == "cca") {
        assert_eq!(trial.dataset, format!("planted-linear, split {}", trial.seed));
    }

    let words = std::fs::read_to_string(place.path("reports/a-planted-linear.md")).unwrap();
    for said in [
        "means over seeds 1, 2, 3 ± standard deviation, each with a split of its own",
        "Nadeau and Bengio 2003",
        "3 splits of it",
    ] {
        assert!(words.contains(said), "{said}: {words}");
    }

    let said = place.run("compare eight two --recording out --metric rsum").code(0).stdout;
    assert!(said.contains("planted-linear  eight - two") && said.contains("A is better"), "{said}");

    // A split is what an experiment that names it has, and can be run again from the recording alone.
    place.write("b.toml", &split("label = \"planted-linear, split 2\"\nseed = 2").replace("[1, 2, 3]", "[2]"));
    let said = place.run("run b.toml --profile smoke --out out --no-report --json").code(0).json();
    assert_eq!((said["done"].as_u64(), said["recorded_before"].as_u64()), (Some(0), Some(4)));
    let again = place.run("rerun out --sample 6").code(0).stdout;
    assert!(again.ends_with("6 of 6 equal in every bit\n"), "{again}");
    // One seed is one split, and no table is over several.
    place.run("run a.toml --profile smoke --seeds 3 --out one --reports one-report").code(0);
    let words = std::fs::read_to_string(place.path("one-report/a-planted-linear-split-3.md")).unwrap();
    assert!(words.contains("one seed, 3"), "{words}");
}

#[test]
fn what_has_no_split_to_choose_is_told() {
    let place = Place::new();
    for (own, found) in
        [("name = \"precomp\"", "found none"), ("name = \"emoji\"\nseed = 1", "found that it says which one")]
    {
        place
            .write("a.toml", &EXPERIMENT.replace("name = \"planted-linear\"", &format!("{own}\nsplit_by_seed = true")));
        place.run("run a.toml").code(2).says(&["`split_by_seed` expects an option `seed`", found]);
    }
}
