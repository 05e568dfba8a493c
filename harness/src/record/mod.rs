//! What a run leaves behind: trials, their numbers, and the circumstances.

pub mod check;
mod error;
pub mod examine;
pub mod files;
mod id;
mod journal;
pub mod kept;
mod lock;
mod merge;
mod origin;
mod pages;
pub mod phase;
mod running;
mod same;
pub(crate) mod section;
pub mod store;
#[cfg(test)]
pub(crate) mod synthetic;
mod tables;
#[cfg(test)]
mod tests;
mod tuned;
pub(crate) mod words;

pub use error::{Error, Result};
pub use id::{Id, Stem};
pub(crate) use journal::{digest, digest_of};
pub use origin::Origin;
pub use store::Store;
pub use tuned::{Rung, Tuned, TunedRow};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xmbench_methods::method::Epoch;

use crate::protocol::{Protocol, Query};

/// The curve of a trial that selected among settings: the position of each, from 1, and its validation score.
pub const SELECTION: &str = "selection by setting";

/// What a plot may be called in an experiment.
pub const PLOTS: [&str; 12] =
    ["recall", "pr", "topn", "radius", "bits", "unified", "ties", "sweep", "pareto", "years", "training", "rerank"];

/// The method of a trial that is the mean of the scores of others.
pub const ENSEMBLE: &str = "ensemble";

/// The method of a trial that orders the best of another anew. Its parameters are `first`, `second` (rows as tables name them)
/// and `shortlist`.
pub const RERANK: &str = "rerank";

/// A recording as it is read: the circumstances and every trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recording {
    /// The circumstances.
    pub manifest: Manifest,
    /// Every trial, sorted by experiment, dataset, position in the experiment, label, seed.
    pub trials: Vec<Trial>,
}

impl Recording {
    /// Drops all but some experiments, with what was noted of the others.
    pub fn keep_experiments(&mut self, names: &[String]) {
        self.trials.retain(|trial| names.contains(&trial.experiment));
        let Self { manifest, trials } = self;
        manifest.experiments.retain(|name, _| names.contains(name));
        manifest.left_out.retain(|it| names.contains(&it.experiment));
        manifest.datasets.retain(|name, _| trials.iter().any(|trial| trial.dataset == *name));
    }
}

/// The circumstances of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this layout.
    pub format: u32,
    /// Version of xmbench.
    pub version: String,
    /// When the recording was begun, UTC, `2026-01-31T12:00:00Z`.
    pub started: String,
    /// The command line that made it.
    pub command: String,
    /// `smoke`, `quick`, `full` or `paper`.
    pub profile: String,
    /// Git commit that the program was built from; empty where it was built outside a repository. This and what follows is of the last run: each
    /// trial has its own [`Origin`].
    pub commit: String,
    /// Whether the sources had uncommitted changes then.
    pub dirty: bool,
    /// Processor model.
    pub cpu: String,
    /// Instruction sets that matter here: `avx2 avx512f ...`.
    pub cpu_flags: String,
    /// Threads used.
    pub threads: usize,
    /// Memory of the machine, bytes.
    pub memory: u64,
    /// Operating system.
    pub os: String,
    /// Device, such as `cpu` or `cuda:0 (name)`.
    pub device: String,
    /// Compiler and the versions of the crates that compute.
    pub versions: BTreeMap<String, String>,
    /// The experiments as they were run: name to what the report prints.
    pub experiments: BTreeMap<String, ExperimentNote>,
    /// Datasets by name: checksum, sizes, notice.
    pub datasets: BTreeMap<String, DatasetNote>,
    /// What was asked for and not run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// SHA-256 of each sealed table, by its name; while tables are being replaced, of the old one and of the new one. Recordings of
    /// earlier versions have none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tables: BTreeMap<String, Vec<String>>,
}

/// An experiment that was not run, or not on one of its datasets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// The experiment.
    pub experiment: String,
    /// The dataset; empty for all of them.
    pub dataset: String,
    /// Why, and how to run it.
    pub reason: String,
}

/// What a report prints of an experiment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ExperimentNote {
    /// Heading.
    pub title: String,
    /// The paragraph above the table.
    pub analysis: String,
    /// Metrics that the table shows, in order: `i2t R@1`.
    pub columns: Vec<String>,
    /// Plots to draw, of [`PLOTS`].
    pub plots: Vec<String>,
    /// Values that the experiment states in advance.
    pub expected: Vec<Expected>,
    /// The experiment under its profile as TOML, from which any of its trials can be run again; recordings of earlier versions have
    /// none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
}

/// A value that an experiment states in advance, from a paper or from an independent re-run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// Row of the table.
    pub label: String,
    /// Dataset; empty for any.
    #[serde(default)]
    pub dataset: String,
    /// Metric: `i2t MAP@all`.
    pub metric: String,
    /// The value.
    pub value: f64,
    /// Largest difference that still counts as agreement; absent where the value is a yardstick and not a target.
    #[serde(default)]
    pub tolerance: Option<f64>,
    /// Where the value is from.
    pub source: String,
    /// `verified`, `recalled` or `measured`.
    pub evidence: xmbench_methods::card::Evidence,
}

/// What a report prints of a dataset.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DatasetNote {
    /// Options that shaped it.
    pub variant: String,
    /// SHA-256.
    pub checksum: String,
    /// `split -> [images, texts]`.
    pub sizes: BTreeMap<String, [usize; 2]>,
    /// Full name with citation.
    pub title: String,
    /// Terms.
    pub licence: String,
    /// Attribution that the licence asks for.
    pub attribution: String,
    /// What a reader of a table must know.
    pub caveat: String,
    /// What tables call it together with its other splits, where it is one of several and each has a seed of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
}

/// One point of an experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Identity: a hash of dataset checksum, method and code version, parameters, seed, protocol and device kind; of a row that is
    /// made of others, their identities stand for the parameters.
    pub id: Id,
    /// Experiment.
    pub experiment: String,
    /// Position of the method's entry in the experiment, so that tables keep its order.
    pub position: usize,
    /// Row label: `VSE++`.
    pub label: String,
    /// Method in the registry; `chance` for the closed-form control, [`ENSEMBLE`] or [`RERANK`] for rows that are made of others.
    pub method: String,
    /// What stands beside learned results.
    pub control: Control,
    /// Dataset.
    pub dataset: String,
    /// Its checksum.
    pub checksum: String,
    /// Complete parameters.
    pub params: serde_json::Value,
    /// The parameters that the experiment's grid varies: what tells rows of one label apart.
    pub swept: BTreeMap<String, String>,
    /// Where the trial selected among settings, those parameters in which they differ, with the values that it took.
    #[serde(default)]
    pub selected: BTreeMap<String, String>,
    /// What a table must say beside the row; mostly nothing.
    #[serde(default)]
    pub remark: String,
    /// Root seed.
    pub seed: u64,
    /// Full protocol.
    pub protocol: Protocol,
    /// `cpu` or `cuda`.
    pub device: String,
    /// Whether it ran through.
    pub outcome: Outcome,
    /// Metrics by name: `i2t R@1` in percent, `i2t MAP@all` as a fraction. `rsum` and `MedR` as the field has them.
    pub metrics: BTreeMap<String, f64>,
    /// Pessimistic and optimistic value of each metric that ties move.
    pub envelope: BTreeMap<String, [f64; 2]>,
    /// Curves by name: `i2t precision-recall` as (recall, precision), `i2t precision@n` as (n, precision).
    pub curves: BTreeMap<String, Vec<[f64; 2]>>,
    /// One entry an epoch.
    pub history: Vec<Epoch>,
    /// Raw timing samples.
    pub timings: Vec<Timing>,
    /// The most that the trial held on the heap, bytes; 0 where nobody counts.
    pub peak_memory: u64,
    /// Bytes of one image code and one text code.
    pub bytes_per_item: [f64; 2],
    /// Outcome of every query.
    pub queries: Vec<Query>,
    /// What each query contributes to a metric, by the metric's name with its direction, in the order of that direction's queries:
    /// `i2t MAP@50`. Those that `queries` give in closed form are not here.
    #[serde(default)]
    pub values: BTreeMap<String, Vec<f64>>,
    /// Whether items that the row was fitted on have codes of both their modalities.
    #[serde(default)]
    pub unified: bool,
    /// Where the numbers are from; recordings of earlier versions do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// SHA-256 of what stands first for each query ([`kept`]), where that was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
}

impl Trial {
    /// The place that this trial takes in a recording: one row of it, whatever its identity; a later trial of the same key
    /// replaces it.
    pub fn key(&self) -> String {
        let control = match self.control {
            Control::None => "",
            Control::Chance => "/chance",
            Control::Shuffled => "/shuffled",
        };
        let swept: String = self.swept.iter().map(|(name, value)| format!("/{name}={value}")).collect();
        format!(
            "{}/{}/{}/{}{control}{swept}/seed={}",
            self.experiment, self.dataset, self.position, self.label, self.seed
        )
    }

    /// Whether it fitted nothing and scores with what other trials fitted.
    pub fn is_made_of_others(&self) -> bool {
        [ENSEMBLE, RERANK].contains(&self.method.as_str())
    }

    /// The family of its method: that of the card, or what it is without one.
    pub fn family(&self) -> &'static str {
        match xmbench_methods::registry::find(&self.method) {
            Some(method) => &method.card().family,
            None if self.is_made_of_others() => "made of others",
            None => "other",
        }
    }

    /// Whether training ended at the epoch that validation liked best: more of it might have been better. Not of a training
    /// that was never validated.
    pub fn cut_short(&self) -> bool {
        let judged = self.history.iter().filter_map(|epoch| Some((epoch.epoch, epoch.validation?)));
        let best = judged.reduce(|best, epoch| if epoch.1 > best.1 { epoch } else { best });
        best.is_some_and(|(epoch, _)| self.history.last().is_some_and(|last| last.epoch == epoch))
    }

    /// What trials of a recording are sorted by.
    pub fn order(&self) -> impl Ord + use<> {
        let place = (self.experiment.clone(), self.dataset.clone(), self.position, self.label.clone());
        (place, self.control as u8, self.swept.clone(), self.seed)
    }
}

/// Rows that stand beside learned results.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Control {
    /// A method as it is.
    #[default]
    None,
    /// The expectation of a random order, in closed form.
    Chance,
    /// The method, fitted on pairs that were shuffled.
    Shuffled,
}

impl Outcome {
    /// A failure with its reason, which is cut where it is too long to be recorded.
    pub fn failed(reason: &str) -> Self {
        // Room for what says how much was cut.
        Self::Failed { reason: crate::output::short(reason, check::LONGEST_TEXT - 100).into_owned() }
    }
}

/// Whether a trial ran through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "status")]
pub enum Outcome {
    /// Numbers are there.
    Done,
    /// No numbers; the reason as printed.
    Failed {
        /// The reason.
        reason: String,
    },
}

/// Raw samples of one phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// `fit`, of settings that were not taken `rejected settings`, `encode images`, `encode texts`, `encode one text`, `index`,
    /// `query single`, `query batch`; of two stages also `first stage` and `second stage`, both of one query.
    pub phase: String,
    /// Items that one sample handles.
    pub items: usize,
    /// Seconds of each sample, in the order in which they were taken.
    pub seconds: Vec<f64>,
}
