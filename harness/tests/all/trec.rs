//! Runs of TREC: what a recording writes gives the numbers that it holds.

use xmbench::record::Trial;

use crate::common::{EXPERIMENT, Place};

#[test]
fn a_run_that_was_written_gives_the_recorded_recalls() {
    let place = Place::new();
    place.write("a.toml", EXPERIMENT);
    place.run("run a.toml --profile smoke --no-report --out out").code(0);
    let said = place.run("trec write out --out trec --json").code(0).json();
    let files = said["files"].as_array().unwrap().len();
    // Two rows of two directions, and the judgements of either direction.
    assert_eq!(files, 6, "{said}");
    let recording = place.recording("out");
    for swept in ["2", "8"] {
        let row = format!("-{swept}-");
        let of_row = |it: &&Trial| it.kept.is_some() && it.swept.values().any(|value| value == swept);
        let trial = recording.trials.iter().find(of_row).unwrap();
        for direction in ["i2t", "t2i"] {
            let folder = std::fs::read_dir(place.path("trec")).unwrap().map(|entry| entry.unwrap().file_name());
            let names: Vec<String> = folder.map(|name| name.into_string().unwrap()).collect();
            let run = names.iter().find(|name| name.ends_with(&format!("{direction}.run")) && name.contains(&row));
            let run = run.unwrap_or_else(|| panic!("{row} {direction}: {names:?}"));
            let qrels = format!("a-planted-linear-{direction}.qrels");
            let found = place.run(&format!("trec eval trec/{run} trec/{qrels} --json")).code(0).json();
            for k in [1, 5, 10] {
                let (ours, theirs) =
                    (&trial.metrics[&format!("{direction} R@{k}")], &found["metrics"][format!("R@{k}")]);
                assert!((ours - theirs.as_f64().unwrap()).abs() < 1e-9, "{row} {direction} R@{k}: {ours} and {theirs}");
            }
        }
    }
    let printed = place.run("trec eval trec/none.run trec/a-planted-linear-i2t.qrels").code(2).stderr;
    assert!(printed.contains("none.run"), "{printed}");
    place.write("lines.run", "q Q0 a 1\n");
    let printed = place.run("trec eval lines.run trec/a-planted-linear-i2t.qrels").code(2).stderr;
    assert!(printed.contains("line 1: expected 6 words, QUERY Q0 ITEM RANK SCORE TAG"), "{printed}");
    place.write("empty.qrels", "q 0 a 0\n");
    place.write("sound.run", "q Q0 a 1 1 t\n");
    let printed = place.run("trec eval sound.run empty.qrels").code(2).stderr;
    assert!(printed.contains("expected a query with a relevant item, found none"), "{printed}");
}

#[test]
fn a_recording_without_lists_says_so() {
    let place = Place::new();
    place.write("a.toml", EXPERIMENT);
    place.run("run a.toml --profile smoke --no-report --lean --out out").code(0);
    let said = place.run("trec write out").code(2).stderr;
    assert!(said.contains("keeps no best items; run it again without --lean"), "{said}");
}
