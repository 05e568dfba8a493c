//! Trials of a recording, run again from the recording alone.

use crate::common::{self, EVERY_KIND, Place};

/// Every kind of method, the mean of two and a shortlist.
fn every_kind() -> String {
    format!(
        "{EVERY_KIND}\n[[ensembles]]\nlabel = \"Both\"\nof = [\"VSE++\", \"SCAN\"]\n\n[[rerank]]\nlabel = \"CCA, then both\"\n\
         first = \"CCA\"\nsecond = \"Both\"\nshortlist = [3, 9]\n"
    )
}

#[test]
fn every_row_comes_out_the_same_on_another_number_of_threads() {
    let place = Place::new();
    // DJSRH needs labels, and fails here; a failure that repeats is no difference.
    place.write("a.toml", &every_kind());
    place.run("run a.toml --profile smoke --no-report --out out --threads 2");
    // The recording says enough: the experiment's file is gone.
    std::fs::remove_file(place.path("a.toml")).unwrap();
    let output = place.run("rerun out --threads 1").code(0);
    let trials = place.recording("out").trials.iter().filter(|trial| trial.method != "chance").count();
    assert!(output.stdout.ends_with(&format!("{trials} of {trials} equal in every bit\n")), "{}", output.stdout);
    // One row that is made of others brings what it is made of, and nothing is left in the recording.
    let before = std::fs::read(place.path("out/manifest.json")).unwrap();
    let one = place.run("rerun out --json").code(0).stdout;
    assert_eq!(one.lines().count(), trials);
    let one = place.run("rerun out --row Both --seed 1").code(0).stdout;
    assert!(one.starts_with("equal    a planted-fragments") && one.ends_with("1 of 1 equal in every bit\n"), "{one}");
    assert_eq!(std::fs::read(place.path("out/manifest.json")).unwrap(), before);
    let two = place.run("rerun out --sample 2 --draw 7").code(0).stdout;
    assert_eq!(place.run("rerun out --sample 2 --draw 7").code(0).stdout, two);
    assert!(two.ends_with("2 of 2 equal in every bit\n"));
}

#[test]
fn what_the_recording_does_not_have_is_said() {
    let place = Place::new();
    place.write("a.toml", common::EXPERIMENT);
    place.run("run a.toml --profile smoke --no-report --out out").code(0);
    place.run("rerun out --row CAC").code(2).says(&["the recording has no row `CAC` of these"]);
    place.run("rerun out --seed 9").code(2).says(&["no trial of these"]);
    // An earlier version kept no experiment.
    let path = place.path("out/manifest.json");
    let mut manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    manifest["experiments"]["a"].as_object_mut().unwrap().remove("source");
    std::fs::write(&path, manifest.to_string()).unwrap();
    place.run("rerun out").code(2).says(&["the recording does not hold experiment `a`", "xmbench run"]);
    // A number that is not what comes out: the experiment that is kept is another one.
    manifest["experiments"]["a"]["source"] = common::EXPERIMENT
        .replace("planted-linear\"", "planted-linear\"\nlabel = \"planted-linear\"\nnoise = 0.7")
        .into();
    std::fs::write(&path, manifest.to_string()).unwrap();
    let output = place.run("rerun out --seed 1").code(1);
    assert!(
        output.stdout.contains("DIFFERS  a planted-linear") && output.stdout.contains(" recorded, "),
        "{}",
        output.stdout
    );
}
