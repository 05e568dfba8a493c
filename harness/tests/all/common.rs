//! A small language for tests of the command line.
#![allow(missing_docs)]

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use xmbench::record::{Recording, Trial, store};

/// An experiment that takes a moment: closed-form and trained trials on planted data.
pub const EXPERIMENT: &str = r#"
title = "Example"
analysis = "What is planted is found."
seeds = [1, 2, 3]
columns = ["i2t R@1", "t2i R@1", "rsum"]
protocol = { task = { kind = "pairs" } }

[[datasets]]
name = "planted-linear"

[[methods]]
method = "cca"
components = [2, 8]
shuffled = true
"#;

/// Every kind of method, brought down to seconds.
pub const EVERY_KIND: &str = r#"
title = "Every kind"
analysis = "One of each."
seeds = [1]
columns = ["i2t R@1", "t2i R@1", "rsum"]
protocol = { task = { kind = "pairs" } }

[[datasets]]
name = "planted-fragments"
train = 120
val = 30
test = 40

[[methods]]
method = "cca"

[[methods]]
method = "vse"
shuffled = true
embedding = 32
word = 16
epochs = 3
batch = 32

[[methods]]
method = "scan"
embedding = 32
word = 16
epochs = 2
batch = 32

[[methods]]
method = "djsrh"
bits = 32
text_hidden = 64
epochs = 3
"#;

/// One training of many epochs.
pub const TRAINING: &str = r#"
title = "Training"
seeds = [1]
protocol = { task = { kind = "pairs" } }
datasets = [{ name = "planted-fragments", train = 200, val = 40, test = 40 }]

[[methods]]
method = "vse"
embedding = 64
word = 32
epochs = 100
batch = 32
"#;

/// A folder of its own, in which the program is run.
pub struct Place(tempfile::TempDir);

/// What a command printed and how it ended.
pub struct Output {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Place {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> &Self {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), text).unwrap();
        self
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xmbench"));
        command.args(arguments.split_whitespace()).current_dir(self.0.path());
        for name in ["XMBENCH_DATA", "RAYON_NUM_THREADS", "POLARS_MAX_THREADS"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs to the end; arguments are separated by spaces.
    pub fn run(&self, arguments: &str) -> Output {
        finish(self.command(arguments).spawn().unwrap())
    }

    /// Starts, and does not wait.
    pub fn start(&self, arguments: &str) -> Child {
        self.command(arguments).spawn().unwrap()
    }

    pub fn recording(&self, name: &str) -> Recording {
        store::read(&self.path(name)).unwrap()
    }

    /// Waits until the recording's journal holds so many trials.
    pub fn wait_for_trials(&self, name: &str, trials: usize) {
        let journal = self.path(name).join("journal");
        wait(|| count(&journal) >= trials);
    }
}

pub fn count(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "toml")).count()
}

/// Waits until `ready`, at most a minute.
pub fn wait(mut ready: impl FnMut() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited for a minute in vain");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits for the end.
pub fn finish(child: Child) -> Output {
    let output = child.wait_with_output().unwrap();
    Output {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Output {
    /// Asserts the exit code.
    #[track_caller]
    pub fn code(self, wanted: i32) -> Self {
        assert_eq!(self.code, Some(wanted), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Asserts that stderr holds each of the texts.
    #[track_caller]
    pub fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "`{text}` is not in stderr:\n{}", self.stderr);
        }
        self
    }

    /// stdout as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in stdout:\n{}", self.stdout))
    }
}

/// Everything of a trial that must not depend on time or machine.
pub fn numbers(trial: &Trial) -> String {
    let Trial { id, metrics, envelope, curves, queries, bytes_per_item, outcome, .. } = trial;
    let history: Vec<_> = trial
        .history
        .iter()
        .map(|epoch| (epoch.epoch, epoch.loss.to_bits(), epoch.validation.map(f64::to_bits)))
        .collect();
    format!(
        "{} {id} {outcome:?} {metrics:?} {envelope:?} {curves:?} {queries:?} {bytes_per_item:?} {history:?}",
        trial.key()
    )
}

/// The [`numbers`] of every trial.
pub fn all_numbers(recording: &Recording) -> Vec<String> {
    recording.trials.iter().map(numbers).collect()
}

/// Everything that a trial measured of scores, to the last bit.
pub fn cells(trial: &Trial) -> String {
    let metrics: Vec<_> = trial.metrics.iter().map(|(name, value)| (name, value.to_bits())).collect();
    format!("{metrics:?} {:?} {:?} {:?}", trial.envelope, trial.curves, trial.queries)
}

/// A NumPy file of any type, in C order.
pub fn npy<const N: usize>(descr: &str, shape: [usize; N], data: &[u8]) -> Vec<u8> {
    let shape = shape.map(|length| length.to_string()).join(", ");
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    let mut out = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    out.extend(format!("{header:<117}\n").bytes());
    out.extend(data);
    out
}

/// A NumPy file of f32.
pub fn floats(shape: [usize; 2], values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    npy("<f4", shape, &values.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<_>>())
}
