//! What is on the disk, whatever happens to the process.

use std::{fs::File, io::Write, process::Command};

use crate::common::{EVERY_KIND, EXPERIMENT, Place, TRAINING, all_numbers, finish, wait};
use xmbench::record::Outcome;

/// Enough trials that a process can be caught among them.
fn long() -> String {
    let seeds: Vec<String> = (1..=30).map(|seed| seed.to_string()).collect();
    EXPERIMENT.replace("[1, 2, 3]", &format!("[{}]", seeds.join(", ")))
}

#[test]
fn a_run_can_be_repeated_bit_by_bit_with_any_number_of_threads() {
    let place = Place::new();
    place.write("a.toml", EXPERIMENT);
    for (out, threads) in [("one", 1), ("again", 1), ("two", 2)] {
        place.run(&format!("run a.toml --profile smoke --no-report --out {out} --threads {threads}")).code(0);
    }
    let one = place.recording("one");
    // Two grid points and their shuffled controls, three seeds, and chance.
    assert_eq!(one.trials.len(), 13);
    assert!(
        one.trials
            .iter()
            .all(|trial| trial.outcome == Outcome::Done && !trial.queries.is_empty() || trial.method == "chance")
    );
    assert_eq!(all_numbers(&one), all_numbers(&place.recording("again")));
    assert_eq!(all_numbers(&one), all_numbers(&place.recording("two")));
    assert_eq!(place.recording("two").manifest.threads, 2);
}

#[test]
fn every_kind_of_method_gives_the_same_bits_on_one_thread_and_two() {
    let place = Place::new();
    place.write("a.toml", EVERY_KIND);
    for threads in [1, 2] {
        place.run(&format!("run a.toml --profile smoke --no-report --out {threads} --threads {threads}")).code(0);
    }
    let one = place.recording("1");
    assert_eq!(one.trials.len(), 6);
    assert_eq!(all_numbers(&one), all_numbers(&place.recording("2")));
}

/// The folder of the only trial's checkpoints holds a file.
fn has_checkpoint(place: &Place, out: &str) -> bool {
    let folders = std::fs::read_dir(place.path(out).join("checkpoints")).into_iter().flatten().flatten();
    folders.into_iter().any(|folder| std::fs::read_dir(folder.path()).into_iter().flatten().next().is_some())
}

#[test]
fn a_training_that_is_cut_off_resumes_to_the_same_numbers() {
    let place = Place::new();
    place.write("a.toml", TRAINING);
    place.run("run a.toml --profile smoke --no-report --out whole").code(0);
    let whole = place.recording("whole");
    for (out, signal, code) in [("killed", "-KILL", None), ("interrupted", "-INT", Some(130))] {
        let child = place.start(&format!("run a.toml --profile smoke --no-report --out {out}"));
        wait(|| has_checkpoint(&place, out));
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let output = finish(child);
        assert_eq!(output.code, code, "{}", output.stderr);
        let over = place.recording(out).trials.iter().any(|trial| trial.method != "chance");
        assert!(!over, "the training was over before the signal came");
        assert!(has_checkpoint(&place, out));
        place.run(&format!("run a.toml --profile smoke --no-report --out {out}")).code(0);
        assert_eq!(all_numbers(&place.recording(out)), all_numbers(&whole));
        assert!(!place.path(out).join("checkpoints").exists());
    }
}

#[test]
fn what_was_planted_is_found_and_shuffled_pairs_are_not() {
    let place = Place::new();
    place.write("a.toml", EXPERIMENT);
    place.run("run a.toml --profile smoke --no-report --out out").code(0);
    let recording = place.recording("out");
    let recall = |wanted: &str| {
        let row = recording.trials.iter().find(|trial| trial.key().contains(wanted)).unwrap();
        row.metrics["i2t R@1"]
    };
    assert!(recall("components=8/seed=1") > 50.0);
    // The gallery has 100 texts: a random order finds one in a hundred.
    assert!((recall("chance/chance") - 1.0).abs() < 1e-9);
    assert!(recall("/shuffled/components=8") < 10.0);
}

#[test]
fn a_second_run_does_only_what_is_new() {
    let place = Place::new();
    place.write("a.toml", EXPERIMENT);
    let run = |arguments: &str| {
        let json =
            place.run(&format!("run a.toml --profile smoke --no-report --json --out out {arguments}")).code(0).json();
        (json["done"].as_u64().unwrap(), json["recorded_before"].as_u64().unwrap())
    };
    assert_eq!(run(""), (13, 0));
    assert_eq!(run(""), (0, 13));
    assert_eq!(run("--seeds 1,2,3,4"), (4, 13));
    assert_eq!(run("--fresh"), (13, 0));
}

#[test]
fn a_row_more_leaves_one_row_of_chance() {
    let place = Place::new();
    place.write("a.toml", EXPERIMENT);
    place.run("run a.toml --profile smoke --no-report --out a").code(0);
    place.write(
        "a.toml",
        &format!("{EXPERIMENT}\n[[methods]]\nmethod = \"cca\"\nlabel = \"One direction\"\ncomponents = 1\n"),
    );
    place.run("run a.toml --profile smoke --no-report --out a").code(0);
    let recording = place.recording("a");
    assert_eq!(recording.trials.iter().filter(|trial| trial.method == "chance").count(), 1);
    // Two grid points and their controls as before, the new row, three seeds each, and chance.
    assert_eq!(recording.trials.len(), 16);
}

#[test]
fn a_killed_run_goes_on_where_it_was() {
    let place = Place::new();
    place.write("a.toml", &long());
    place.run("run a.toml --profile smoke --no-report --out whole").code(0);
    let mut child = place.start("run a.toml --profile smoke --no-report --out cut");
    place.wait_for_trials("cut", 3);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!place.path("cut/trials.parquet").exists());
    let kept = place.recording("cut").trials.len();
    assert!((3..121).contains(&kept), "{kept} trials were kept");
    let json = place.run("run a.toml --profile smoke --no-report --json --out cut").code(0).json();
    assert_eq!(json["recorded_before"].as_u64().unwrap() as usize, kept);
    assert_eq!(all_numbers(&place.recording("cut")), all_numbers(&place.recording("whole")));
    assert!(!place.path("cut/journal").exists() && !place.path("cut/checkpoints").exists());
}

#[cfg(unix)]
#[test]
fn an_interrupt_seals_what_is_done() {
    let place = Place::new();
    place.write("a.toml", &long());
    let child = place.start("run a.toml --profile smoke --no-report --json --out out");
    place.wait_for_trials("out", 2);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = finish(child).code(130);
    assert_eq!(output.json()["interrupted"], true);
    assert!(place.path("out/trials.parquet").exists() && !place.path("out/journal").exists());
    assert!(place.recording("out").trials.len() >= 2);
    place.run("run a.toml --profile smoke --no-report --out out").code(0);
    assert_eq!(place.recording("out").trials.len(), 121);
}

#[test]
fn two_runs_do_not_share_a_folder() {
    let place = Place::new();
    place.write("a.toml", &long());
    let mut first = place.start("run a.toml --profile smoke --no-report --out out");
    wait(|| place.path("out/manifest.json").exists());
    let second = place.run("run a.toml --profile smoke --no-report --out out").code(2);
    second.says(&["is in use by another run", &format!("process {}", first.id()), "--out"]);
    first.kill().unwrap();
    first.wait().unwrap();
}

#[test]
fn a_folder_that_disappears_during_a_run_is_an_error_at_its_end() {
    let place = Place::new();
    place.write("a.toml", &long());
    let child = place.start("run a.toml --profile smoke --no-report --out out");
    place.wait_for_trials("out", 3);
    // A trial may be written in between.
    wait(|| std::fs::remove_dir_all(place.path("out")).is_ok());
    finish(child)
        .code(2)
        .says(&["error: out disappeared while the run wrote into it", "121 trials that this run knew of"]);
    assert_eq!(place.recording("out").trials.len(), 121);

    let child = place.start("run a.toml --profile smoke --no-report --out lock");
    place.wait_for_trials("lock", 3);
    std::fs::remove_file(place.path("lock/.lock")).unwrap();
    finish(child).code(2).says(&["lock disappeared while the run wrote into it"]);
    assert_eq!(place.recording("lock").trials.len(), 121);
    place.run("run a.toml --profile smoke --no-report --out lock").code(0);
}

#[test]
fn a_folder_that_another_run_took_is_left_to_it() {
    let place = Place::new();
    place.write("a.toml", &long());
    let first = place.start("run a.toml --profile smoke --no-report --out out");
    place.wait_for_trials("out", 3);
    std::fs::remove_file(place.path("out/.lock")).unwrap();
    let held = File::create(place.path("out/.lock")).unwrap();
    held.lock().unwrap();
    finish(first).code(2).says(&[
        "out disappeared while the run wrote into it",
        "nothing more was written",
        "in use by another run",
    ]);
    assert!(!place.path("out/trials.parquet").exists());
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let place = Place::new();
    place.write("a.toml", EXPERIMENT).write("file", "");
    place.run("run a.toml --out file").code(2).says(&["cannot create file"]);
    place.run("run a.toml --out file/inside").code(2).says(&["cannot create file/inside"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_named_and_keeps_what_was_there() {
    // A process limit on file sizes stands in for the disk: writes fail alike.
    let place = Place::new();
    place.write("a.toml", EXPERIMENT);
    place.run("run a.toml --profile smoke --no-report --out out --seeds 1").code(0);
    let before = all_numbers(&place.recording("out"));
    let script = format!(
        "trap '' XFSZ; ulimit -f 1; exec {} run a.toml --profile smoke --no-report --out out",
        env!("CARGO_BIN_EXE_xmbench")
    );
    let output = Command::new("sh").args(["-c", &script]).current_dir(place.path("")).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("error: cannot write out/"), "{error}");
    assert_eq!(all_numbers(&place.recording("out")), before);
}

#[test]
fn damaged_files_are_named() {
    let place = Place::new();
    place.write("a.toml", EXPERIMENT);
    place.run("run a.toml --profile smoke --no-report --out out").code(0);
    let path = place.path("out/metrics.parquet");
    let whole = std::fs::read(&path).unwrap();
    File::create(&path).unwrap().write_all(&whole[..whole.len() / 2]).unwrap();
    for command in ["report --recording out --out reports", "run a.toml --profile smoke --out out"] {
        place.run(command).code(2).says(&["out/metrics.parquet is damaged", "--out"]);
    }
    std::fs::write(&path, whole).unwrap();
    place.write("out/journal/0.toml", "# xmbench trial, sha256 0\nid = 1\n");
    place
        .run("report --recording out --out reports")
        .code(2)
        .says(&["out/journal/0.toml is damaged", "delete this file"]);
    place.write("out/manifest.json", "{");
    place.run("report --recording out --out reports").code(2).says(&["out/manifest.json is damaged"]);
    place.run("report --recording nowhere --out reports").code(2).says(&["cannot read nowhere/manifest.json"]);
}

#[test]
fn another_profile_does_not_mix_in() {
    let place = Place::new();
    place.write("a.toml", EXPERIMENT);
    place.run("run a.toml --profile smoke --no-report --out out").code(0);
    place
        .run("run a.toml --profile full --no-report --out out")
        .code(2)
        .says(&["profile `smoke`, this run has `full`"]);
}
