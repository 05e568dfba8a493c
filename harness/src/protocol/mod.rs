//! The full meaning of a number: task, split, gallery, folds, positives, metric, cutoff, tie rule, aggregation.
//!
//! [`evaluate`] scores codes under a [`Protocol`]; [`chance`] is what a random order would score. Metrics are functions of one
//! query's [`Ranking`] or [`Standing`], which know how many items tie, so that the expected value over all orders of tied items
//! has a closed form.

mod category;
mod correlation;
mod describe;
mod evaluate;
mod found;
mod golden;
mod pairs;
mod query;
mod range;
mod rank;
mod ranking;
mod relevance;
mod tally;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use xmbench_datasets::Split;

pub use describe::differences;
pub use evaluate::{Evaluation, IN_SHORTLIST, Side, chance, evaluate, evaluate_and_keep, judge, selection_score};
pub use found::Found;
pub use golden::operations;
pub use query::Query;
pub use range::range;
pub use rank::{Standing, mean as mean_rank, median as median_rank};
pub use ranking::{Group, Ranking, discounted_gain, first_k_relevant, weighted_precision};

pub use crate::retrieval::Direction;

/// A protocol: printed under every table and stored with every number. Two numbers compare only if their protocols are equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protocol {
    /// What is asked of a method.
    pub task: Task,
    /// Which split is scored.
    #[serde(default = "test")]
    pub split: Split,
    /// Which split settings and epochs were selected on. `test` only imitates a paper that did so, and marks its row with a dagger.
    #[serde(default = "val")]
    pub select_on: Split,
    /// How equal scores count.
    #[serde(default)]
    pub ties: Ties,
}

impl Protocol {
    /// What most papers on images and texts print: R@1, R@5 and R@10 of the whole test split, both directions.
    pub fn pairs() -> Self {
        let task = Task::Pairs { cutoffs: recall_cutoffs(), folds: one() };
        Self { task, split: test(), select_on: val(), ties: Ties::default() }
    }
}

fn test() -> Split {
    Split::Test
}

fn val() -> Split {
    Split::Val
}

/// What is asked of a method.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind", deny_unknown_fields)]
pub enum Task {
    /// Find the text of an image and the image of a text. R@K is the hit rate: an image's best-ranked own text counts.
    Pairs {
        /// Cutoffs of R@K.
        #[serde(default = "recall_cutoffs")]
        cutoffs: Vec<usize>,
        /// The split is cut into this many consecutive folds of images, and metrics are averaged over them; 1 for the whole split.
        #[serde(default = "one")]
        folds: usize,
    },
    /// Find items of the other kind that share a class with the query.
    Category {
        /// The gallery: the scored split itself, `train`, or `database`, which is all but the queries where a dataset tells it from its
        /// training split, as in the hashing literature.
        #[serde(default = "test")]
        gallery: Split,
        /// Cutoffs of MAP@k, precision@k and nDCG@k.
        #[serde(default = "category_cutoffs")]
        cutoffs: Vec<usize>,
        /// What the sum of precisions in MAP@k is divided by.
        #[serde(default)]
        denominator: Denominator,
    },
    /// Correlate the codes of pairs, dimension by dimension. The task asks no queries and knows no ties.
    Correlation {
        /// How many dimensions are summed, from the first on; codes have at least as many.
        dimensions: usize,
    },
}

fn recall_cutoffs() -> Vec<usize> {
    vec![1, 5, 10]
}

fn one() -> usize {
    1
}

fn category_cutoffs() -> Vec<usize> {
    vec![50]
}

/// What the sum of precisions at the hits within the first k is divided by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Denominator {
    /// All relevant items of the gallery: trec_eval's map_cut.
    Relevant,
    /// The hits within the first k: the hashing literature. Not monotone in k and not calibrated: random codes score well.
    #[default]
    Hits,
    /// The smaller of k and the number of relevant items.
    MinKRelevant,
}

/// How equal scores count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ties {
    /// The expected value over all orders of the tied items, in closed form.
    #[default]
    Expected,
    /// The best order of the tied items: the upper end.
    Optimistic,
    /// The worst order of the tied items: the lower end.
    Pessimistic,
}
