//! Programs as methods: what they are given, what they are refused, and how they end.

use std::{fs, path::Path, process::Command, time::Instant};

use crate::common::{self, Place, cells, floats};
use xmbench_datasets::Features;

const SHELL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/command/first_vectors.sh");
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/command/dual.py");
const LINEAR: &str = "{ name = 'planted-linear', image_width = 12, text_width = 12, train = 50, val = 10, test = 30 }";

/// An experiment of these entries.
fn place(dataset: &str, entries: &[&str]) -> Place {
    let place = Place::new();
    let entries: String = entries.iter().map(|entry| format!("[[methods]]\n{entry}\n")).collect();
    let head = "title = 'x'\nseeds = [3]\nprotocol = { task = { kind = 'pairs' } }\n";
    place.write("a.toml", &format!("{head}datasets = [{dataset}]\n{entries}"));
    place
}

fn all(table: &Option<xmbench_datasets::FeatureTable>) -> xmbench_datasets::Matrix {
    let table: &dyn Features = table.as_deref().unwrap();
    table.all().unwrap()
}

const RUN: &str = "run a.toml --profile smoke --no-report --out out --allow-commands";

/// A program that hands its input back: the row of the same files through `given`, to the last bit. The order in which it saw the
/// items is undone, and was none that pairs could be read from.
#[test]
fn the_shell_example_gives_the_row_of_its_files_and_sees_no_pairs() {
    let keep = "source = 'p.sh'\ncommand = 'sh \"$XMBENCH_SOURCE\"'";
    let place = place(
        LINEAR,
        &[
            &format!("method = 'command'\nlabel = 'program'\n{keep}\nsimilarity = 'dot'"),
            "method = 'given'\nlabel = 'files'\nimages = 'i.npy'\ntexts = 't.npy'\nsimilarity = 'dot'",
        ],
    );
    let shown = place.path("shown");
    fs::create_dir(&shown).unwrap();
    let spy = format!(
        "test -e '{0}'/\"$XMBENCH_PHASE\" || cp -R \"$XMBENCH_IN\" '{0}'/\"$XMBENCH_PHASE\"\n",
        shown.display()
    );
    let shell = fs::read_to_string(SHELL).unwrap().replace("set -eu\n", &format!("set -eu\n{spy}"));
    place.write("p.sh", &shell);
    let options = toml::toml! { image_width = 12 text_width = 12 train = 50 val = 10 test = 30 };
    let dataset = xmbench_datasets::open("planted-linear", &options, None).unwrap();
    let (images, texts) = (all(&dataset.test.images.global), all(&dataset.test.texts.global));
    for (name, matrix) in [("i.npy", &images), ("t.npy", &texts)] {
        fs::write(place.path(name), floats([matrix.rows, matrix.cols], matrix.data.iter().copied())).unwrap();
    }
    place.run(RUN).code(0);
    let recording = place.recording("out");
    let row = |label: &str| recording.trials.iter().find(|trial| trial.label == label).unwrap();
    assert_eq!(cells(row("program")), cells(row("files")));
    assert!(row("program").remark.contains("by the program"), "{}", row("program").remark);
    assert_eq!(row("program").params["sha256"]["source"].as_str().map(str::len), Some(64));

    let names = |phase: &str| {
        let mut names: Vec<String> = fs::read_dir(shown.join(phase))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(
        (names("fit"), names("images"), names("texts")),
        (vec!["train".into(), "val".into()], vec!["images.npy".into()], vec!["texts.npy".into()])
    );
    let pairs = fs::read_to_string(shown.join("fit/train/pairs.csv")).unwrap();
    assert_eq!(
        (pairs.lines().next(), pairs.lines().nth(2), pairs.lines().count()),
        (Some("image,text"), Some("1,1"), 51)
    );
    // Where each row of the test split went: each side to places of its own.
    let order = |path: &Path, matrix: &xmbench_datasets::Matrix| -> Vec<usize> {
        let bytes = fs::read(path).unwrap();
        let rows: Vec<&[u8]> = bytes[bytes.len() - 4 * matrix.data.len()..].chunks(4 * matrix.cols).collect();
        let place = |row: usize| {
            let own: Vec<u8> = matrix.row(row).iter().flat_map(|value| value.to_le_bytes()).collect();
            rows.iter().position(|found| *found == own).unwrap()
        };
        (0..matrix.rows).map(place).collect()
    };
    let (of_images, of_texts) =
        (order(&shown.join("images/images.npy"), &images), order(&shown.join("texts/texts.npy"), &texts));
    let kept = |a: &[usize], b: &[usize]| a.iter().zip(b).filter(|(a, b)| a == b).count();
    let plain: Vec<usize> = (0..30).collect();
    for (a, b) in [(&of_images, &of_texts), (&of_images, &plain), (&of_texts, &plain)] {
        assert!(kept(a, b) < 6, "{a:?} {b:?}");
    }
}

/// A program that finds every pair equal: the row of that matrix through `given`, clock and all.
#[test]
fn a_program_that_scores_pairs_gives_the_row_of_its_matrix() {
    let place = place(
        LINEAR,
        &[
            "method = 'command'\nlabel = 'program'\npairs = true\nsource = 'p.sh'\ncommand = 'sh \"$XMBENCH_SOURCE\"'",
            "method = 'given'\nlabel = 'files'\nscores = 's.npy'",
        ],
    );
    place.write("p.sh", "echo $XMBENCH_PHASE >> phases; test $XMBENCH_PHASE = fit || cp s.npy $XMBENCH_OUT");
    fs::write(place.path("s.npy"), floats([30, 30], vec![0.5; 900])).unwrap();
    place.run(RUN).code(0);
    let recording = place.recording("out");
    let row = |label: &str| recording.trials.iter().find(|trial| trial.label == label).unwrap();
    assert_eq!(cells(row("program")), cells(row("files")));
    assert!((row("program").metrics["i2t R@1"] - 100.0 / 30.0).abs() < 1e-9);
    // Fitted once; scored for the numbers, and in each round of the clock, which loads the matcher again.
    let phases = fs::read_to_string(place.path("phases")).unwrap();
    assert_eq!(phases.split_whitespace().collect::<Vec<_>>(), ["fit", "pairs", "pairs", "pairs"]);
}

#[test]
fn programs_run_only_where_the_command_line_allows_it() {
    let place = place(LINEAR, &["method = 'command'\ncommand = 'touch ran'"]);
    place
        .run("run a.toml --profile smoke --out out")
        .code(2)
        .says(&["row `Command` runs a program, `touch ran`", "--allow-commands"]);
    assert!(!place.path("ran").exists());
    place.run("run a.toml --dry-run").code(0);
    assert!(!place.path("ran").exists());
    // Allowed, it runs, and has written nothing.
    place.run(RUN).code(1).says(&["images.npy: expected what the program wrote, found nothing"]);
    assert!(place.path("ran").exists());
}

#[test]
fn a_program_that_fails_is_quoted_and_one_that_takes_too_long_is_ended_with_its_children() {
    let failing = "method = 'command'\nlabel = 'failing'\ncommand = 'echo first; echo no such table >&2; exit 3'";
    let slow = "method = 'command'\nlabel = 'slow'\ntime_limit = 0.5\n\
                command = 'sleep 87 & echo $! > child; echo started; wait'";
    let few = "method = 'command'\nlabel = 'few'\nsource = 'few.sh'\ncommand = 'sh \"$XMBENCH_SOURCE\"'";
    let place = place(LINEAR, &[failing, slow, few]);
    fs::write(place.path("few.npy"), floats([2, 3], (0..6).map(|i| i as f32))).unwrap();
    place.write("few.sh", "test $XMBENCH_PHASE = fit || cp few.npy $XMBENCH_OUT");
    let start = Instant::now();
    let output = place.run(RUN).code(1);
    assert!(start.elapsed().as_secs() < 60);
    output.says(&[
        "ended with exit status: 3 in phase `fit`; its last lines: first | no such table",
        "took longer than `time_limit`, 0.5 s, and was ended in phase `fit`; its last lines: started",
        "expected 30 rows, one for each of the images, found 2 rows",
    ]);
    let child = fs::read_to_string(place.path("child")).unwrap();
    // A zombie that nobody has waited for is dead as well.
    let state = || fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
    common::wait(|| state().is_empty() || state().contains(") Z"));
}

#[test]
fn the_example_in_pytorch_learns() {
    let ready = Command::new("python3").args(["-c", "import numpy, torch"]).output();
    if !ready.is_ok_and(|ready| ready.status.success()) {
        println!("skipped: python3 has no numpy and torch");
        return;
    }
    let dataset = "{ name = 'planted-fragments', train = 200, val = 20, test = 50 }";
    let entry =
        "method = 'command'\nsource = 'dual.py'\ncommand = 'python3 \"$XMBENCH_SOURCE\"'\noptions = 'epochs=20'";
    let place = place(dataset, &[entry]);
    fs::copy(PYTHON, place.path("dual.py")).unwrap();
    place.run(RUN).code(0);
    let recording = place.recording("out");
    let rsum = |label: &str| recording.trials.iter().find(|trial| trial.label == label).unwrap().metrics["rsum"];
    // Chance finds 1, 5 and 10 of 50 in both directions: 64.
    assert!(rsum("Command") > 3.0 * rsum("chance"), "{} {}", rsum("Command"), rsum("chance"));
}
