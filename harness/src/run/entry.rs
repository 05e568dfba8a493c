//! What an experiment lists: datasets, methods, and rows that are made of others.

use serde::{Deserialize, Serialize};

/// A dataset with its options.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DatasetEntry {
    /// Name: `emoji`.
    pub name: String,
    /// What tables call it; name and options when absent.
    #[serde(default)]
    pub label: Option<String>,
    /// Whether each seed has a split of its own: the option `seed` of the dataset is that of the trial.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub split_by_seed: bool,
    /// Everything else in the entry.
    #[serde(flatten)]
    pub options: toml::Table,
}

impl DatasetEntry {
    /// What tables call it: `emoji (split=random)`; all its splits together, where each seed has one.
    pub fn label(&self) -> String {
        if let Some(label) = &self.label {
            return label.clone();
        }
        if self.options.is_empty() {
            return self.name.clone();
        }
        let plain = |value: &toml::Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
        let options: Vec<String> = self.options.iter().map(|(key, value)| format!("{key}={}", plain(value))).collect();
        format!("{} ({})", self.name, options.join(", "))
    }
}

/// A method with its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodEntry {
    /// Name in the registry.
    pub method: String,
    /// Row label; the card's when absent.
    #[serde(default)]
    pub label: Option<String>,
    /// Whether the method is also fitted on shuffled pairs.
    #[serde(default)]
    pub shuffled: bool,
    /// Parameters whose values do not make rows: the best one on the protocol's selection split is taken.
    #[serde(default)]
    pub select: Vec<String>,
    /// Whether the method is fitted to order shortlists alone: no gallery is scored with it, and for want of validation its last
    /// epoch is kept.
    #[serde(default)]
    pub shortlists_only: bool,
    /// What of the method's card stands beside the entry's rows.
    #[serde(default)]
    pub reported: Vec<Quoted>,
    /// Whether the row is tuned, and takes tuned parameters.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub tuned: bool,
    /// The parameters that make the row what it is: those of its entry, unless it says which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<Vec<String>>,
    /// Everything else in the entry: parameters, with an array for each that is swept.
    #[serde(flatten)]
    pub params: toml::Table,
}

fn yes() -> bool {
    true
}

impl MethodEntry {
    /// Whether a profile that changes parameters of `target` means this entry.
    pub fn answers(&self, target: &str) -> bool {
        self.method == target || self.label.as_deref() == Some(target)
    }

    /// Whether a parameter is one that makes the row what it is.
    pub fn owns(&self, key: &str) -> bool {
        self.own.as_ref().is_some_and(|own| own.iter().any(|it| it == key))
    }

    /// Notes which parameters are the entry's own, before a profile adds others.
    pub fn note_own(&mut self) {
        self.own.get_or_insert_with(|| self.params.keys().cloned().collect());
    }
}

/// Numbers of a method's card.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quoted {
    /// Dataset, as the card names it.
    pub dataset: String,
    /// Row, as the card names it; `{bits}` is the row's own value of what it sweeps. Rows of which the card has none go without.
    pub variant: String,
    /// Largest difference that still counts as agreement; absent where the numbers are a yardstick and not a target.
    #[serde(default)]
    pub tolerance: Option<f64>,
}

/// The mean of the scores of several rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnsembleEntry {
    /// Row label.
    pub label: String,
    /// Fitted rows, as tables name them; at least two.
    pub of: Vec<String>,
}

/// Two stages of retrieval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RerankEntry {
    /// Row label.
    pub label: String,
    /// The row that makes the shortlist: a fitted one or an ensemble, as tables name it.
    pub first: String,
    /// The row that orders it anew; likewise.
    pub second: String,
    /// Items a query that are ordered anew, or an array of such numbers, a row each.
    pub shortlist: toml::Value,
}
