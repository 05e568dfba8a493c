//! Streams that are closed, full or left: progress nobody sees ends nothing, and an answer that nobody gets is an error.

use std::{
    os::unix::ffi::OsStrExt,
    process::{Command, Output},
};

use crate::common::{EXPERIMENT, Place};

/// Runs a line of bash in the place, where `$X` is the program; pipelines end as their first part does.
fn bash(place: &Place, line: &str) -> Output {
    let script = format!("set -o pipefail; X={}; {line}", env!("CARGO_BIN_EXE_xmbench"));
    Command::new("bash").args(["-c", &script]).current_dir(place.path("")).output().unwrap()
}

#[track_caller]
fn code(output: &Output, wanted: i32) {
    assert_eq!(output.status.code(), Some(wanted), "{output:?}");
}

#[test]
fn a_run_that_nobody_watches_runs_to_its_end() {
    let place = Place::new();
    place.write("a.toml", EXPERIMENT);
    // A pause lets the reader go before anything is written.
    for (out, streams) in [
        ("left", "2>&1 | true"),
        ("full", "> /dev/full 2> /dev/full"),
        ("closed", ">&- 2>&-"),
        ("reading", "2>&1 | head -n 1"),
    ] {
        let line =
            format!("(sleep 0.2; exec $X run a.toml --profile smoke --out {out} --reports {out}-reports) {streams}");
        code(&bash(&place, &line), 0);
        assert_eq!(place.recording(out).trials.len(), 13, "{out}");
        assert!(
            place.path(&format!("{out}/trials.parquet")).exists() && !place.path(&format!("{out}/journal")).exists()
        );
        assert!(place.path(&format!("{out}-reports/index.html")).exists());
    }
}

#[test]
fn an_answer_that_cannot_be_written_is_an_error() {
    let place = Place::new();
    place.write("a.toml", EXPERIMENT);
    place.run("run a.toml --profile smoke --no-report --out out").code(0);
    for command in [
        "run a.toml --profile smoke --no-report --out out --json",
        "run a.toml --dry-run",
        "report --recording out --out reports --json",
        "list methods",
        "list --json",
        "data list",
        "data show planted-linear",
        "claims --list",
        "check out",
        "--help",
        "--version",
    ] {
        let full = bash(&place, &format!("$X {command} > /dev/full"));
        code(&full, 2);
        if !command.starts_with("--") {
            let said = String::from_utf8_lossy(&full.stderr);
            assert!(said.contains("error: cannot write to stdout: No space left on device"), "{command}: {said}");
            code(&bash(&place, &format!("$X {command} >&-")), 2);
            // Whoever leaves a pipe knows: no message.
            let left = bash(&place, &format!("(sleep 0.2; exec $X {command}) | true"));
            code(&left, 2);
            assert!(!String::from_utf8_lossy(&left.stderr).contains("error"), "{left:?}");
        }
    }
    // Where nothing is listened to on purpose, everything is written.
    code(&bash(&place, "$X list methods > /dev/null"), 0);
    // What is on the disk is there, whoever hears of it.
    code(&bash(&place, "$X report --recording out --out reports > /dev/full"), 0);
    assert!(place.path("reports/index.html").exists());
    // The message of an error has nowhere to go, and the code says the same.
    code(&bash(&place, "$X run nowhere.toml 2> /dev/full"), 2);
}

#[test]
fn an_argument_that_is_no_text_is_named() {
    let place = Place::new();
    place.write("a.toml", EXPERIMENT);
    for arguments in [&["run", "a.toml", "--out"][..], &["run"], &["data", "inspect"], &["list"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xmbench"));
        command.args(arguments).arg(std::ffi::OsStr::from_bytes(b"caf\xe9")).current_dir(place.path(""));
        let output = command.output().unwrap();
        code(&output, 2);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.contains("error: the argument `caf\u{fffd}` is not UTF-8") && !said.contains("panicked"),
            "{said}"
        );
    }
}

#[test]
fn a_number_of_threads_that_makes_no_sense_is_refused() {
    let place = Place::new();
    place.write("a.toml", EXPERIMENT);
    for command in [
        "run a.toml --threads 5000",
        "bench-device --threads 5000",
        "explain --method cca --dataset emoji --query 1 --threads 5000",
    ] {
        place.run(command).code(2).says(&["5000", "expected a number from 1 to "]);
    }
    let output = bash(&place, "RAYON_NUM_THREADS=5000 $X run a.toml --out out");
    code(&output, 2);
    assert!(String::from_utf8_lossy(&output.stderr).contains("RAYON_NUM_THREADS"), "{output:?}");
}
