//! Where a trial's numbers are from: a recording may be continued on another day, machine or version, and each trial keeps its own.

use serde::{Deserialize, Serialize};

use super::Manifest;

/// Program, command and machine of one trial.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// When it was recorded, UTC, `2026-01-31T12:00:00Z`.
    pub time: String,
    /// The command line.
    pub command: String,
    /// Git commit that the program was built from; empty where it was built outside a repository.
    pub commit: String,
    /// Whether the sources had uncommitted changes then.
    pub dirty: bool,
    /// Version of the code that numbers depend on.
    pub code: String,
    /// `release` or `debug`.
    pub build: String,
    /// Processor model.
    pub cpu: String,
    /// Instruction sets that kernels choose between.
    pub cpu_flags: String,
    /// Threads used.
    pub threads: usize,
    /// Device, such as `cpu` or `cuda:0 (name)`.
    pub device: String,
    /// Processes that ran or waited for a processor when the clock of the trial started and when it ended, means of a minute, in
    /// hundredths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<[u32; 2]>,
    /// Threads of the fit, where others were fitted beside it; otherwise it had all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fit_threads: Option<usize>,
}

impl Origin {
    /// That of a trial that is recorded at `time` in these circumstances.
    pub fn of(manifest: &Manifest, time: String) -> Self {
        let version = |name: &str| manifest.versions.get(name).cloned().unwrap_or_default();
        Self {
            time,
            command: manifest.command.clone(),
            commit: manifest.commit.clone(),
            dirty: manifest.dirty,
            code: version("code"),
            build: version("build"),
            cpu: manifest.cpu.clone(),
            cpu_flags: manifest.cpu_flags.clone(),
            threads: manifest.threads,
            device: manifest.device.clone(),
            load: None,
            fit_threads: None,
        }
    }

    /// Every text with what it is, but for the time, the load and what a fit had, in which trials of one run differ.
    pub fn parts(&self) -> [(&'static str, String); 9] {
        [
            ("command", self.command.clone()),
            ("commit", self.commit.clone()),
            ("uncommitted changes", if self.dirty { "yes" } else { "no" }.into()),
            ("code", self.code.clone()),
            ("build", self.build.clone()),
            ("processor", self.cpu.clone()),
            ("instruction sets", self.cpu_flags.clone()),
            ("threads", self.threads.to_string()),
            ("device", self.device.clone()),
        ]
    }

    /// In what the two differ, time and command aside: `threads 2 and 1`.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let pairs = self.parts().into_iter().zip(other.parts()).skip(1);
        pairs.filter(|((_, a), (_, b))| a != b).map(|((what, a), (_, b))| format!("{what} {a} and {b}")).collect()
    }
}
