use std::collections::BTreeMap;

use xmbench_datasets::{Collection, Error, Split};
use xmbench_methods::{Codes, Result};

use super::{Found, Protocol, Query, Task, category, correlation, found::Keep, pairs};
use crate::retrieval::Compared;

/// One split with its codes.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// The items.
    pub collection: &'a Collection,
    /// A code an image, one list a matcher.
    pub images: &'a [Codes],
    /// A code a text, one list a matcher.
    pub texts: &'a [Codes],
}

/// What a metric of two stages is called after its direction: the share of queries, in percent, with a relevant item in the
/// shortlist. No order of the shortlist finds one for more queries.
pub const IN_SHORTLIST: &str = "in shortlist";

/// What a protocol measured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evaluation {
    /// Metrics by name. Pairs: `i2t R@1` and `rsum` in percent, `i2t MedR`, `i2t MeanR`. Category: `i2t MAP@all`, `i2t MAP@R`,
    /// `i2t MAP@50`, `i2t P@50`, `i2t nDCG@50` as fractions, and without a direction the mean of both. Likewise `t2i`. Correlation: `correlation`,
    /// the sum over the dimensions. With two stages, except for correlation, `i2t in shortlist` in percent.
    pub metrics: BTreeMap<String, f64>,
    /// Pessimistic and optimistic value of each metric that ties move: the ends over all orders of tied items.
    pub envelope: BTreeMap<String, [f64; 2]>,
    /// Curves by name. Pairs: `i2t recall@n` as (n, percent). Category: `i2t precision-recall` as (recall, interpolated precision)
    /// at 11 levels, `i2t precision-recall full` not interpolated at 101, `i2t precision@n` as (n, precision), and of binary codes
    /// `i2t precision@radius` and `i2t recall@radius` as (Hamming radius, mean over queries). Correlation:
    /// `correlation by dimension` as (dimension from 1, Pearson correlation).
    pub curves: BTreeMap<String, Vec<[f64; 2]>>,
    /// Outcome of every query; none for correlation.
    pub queries: Vec<Query>,
    /// Category: what each query contributes to a metric under the protocol's tie rule, by the metric's name with its direction, in the
    /// order of that direction's queries. MAP@all is in `queries`.
    pub values: BTreeMap<String, Vec<f64>>,
    /// What stands first for each query, where that was asked for; none for correlation.
    pub found: Vec<Found>,
}

impl Protocol {
    /// The split that is searched.
    pub fn gallery(&self) -> Split {
        match self.task {
            Task::Pairs { .. } | Task::Correlation { .. } => self.split,
            Task::Category { gallery, .. } => gallery,
        }
    }

    /// Refuses settings that mean nothing: a cutoff or a number of folds or dimensions of 0, or nothing to measure.
    ///
    /// # Errors
    /// The setting's name, what it may be, what it is.
    pub fn check(&self) -> Result<()> {
        let wrong = |name: &str, expected: &str, found: String| {
            Err(Error::option(format!("protocol, `{name}`"), expected, found, "correct the experiment's protocol")
                .into())
        };
        for (name, split) in [("split", self.split), ("select_on", self.select_on)] {
            if split == Split::Database {
                return wrong(name, "train, val or test: a database is searched and asks nothing", split.to_string());
            }
        }
        let (cutoffs, folds) = match &self.task {
            Task::Pairs { cutoffs, folds } => (cutoffs, *folds),
            Task::Category { cutoffs, .. } => (cutoffs, 1),
            Task::Correlation { dimensions: 0 } => return wrong("dimensions", "at least 1", "0".into()),
            Task::Correlation { .. } => return Ok(()),
        };
        if let Some(k) = cutoffs.iter().find(|k| **k == 0 || u32::try_from(**k).is_err()) {
            return wrong("cutoffs", "numbers from 1 to 4294967295", k.to_string());
        }
        let mut sorted = cutoffs.clone();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() != cutoffs.len() {
            return wrong("cutoffs", "different numbers", format!("{cutoffs:?}"));
        }
        if matches!(self.task, Task::Pairs { .. }) && cutoffs.is_empty() {
            return wrong("cutoffs", "at least one number", "none".into());
        }
        if folds == 0 {
            return wrong("folds", "at least 1", "0".into());
        }
        Ok(())
    }

    fn category(&self, brief: bool, best: usize) -> Option<category::Settings<'_>> {
        match &self.task {
            Task::Pairs { .. } | Task::Correlation { .. } => None,
            Task::Category { cutoffs, denominator, .. } => {
                Some(category::Settings { cutoffs, denominator: *denominator, ties: self.ties, brief, best })
            }
        }
    }
}

/// Scores codes under a protocol. Only the category task looks at `gallery`.
///
/// # Errors
/// Codes that do not match the items or the similarity, a score that is not a number, missing labels, an empty split, or, for
/// pairs, an item to which nothing belongs, or, for correlation, codes of several matchers, or codes that are not dense and of one
/// sufficient width.
pub fn evaluate<'a>(
    protocol: &Protocol,
    queries: Side<'a>,
    gallery: Side<'a>,
    compared: impl Into<Compared<'a>>,
) -> Result<Evaluation> {
    measure(protocol, queries, gallery, &compared.into(), false, 0)
}

/// As [`evaluate`], keeping the `best` items of each query: their scores are those that the metrics are made of, asked for once.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_and_keep<'a>(
    protocol: &Protocol,
    queries: Side<'a>,
    gallery: Side<'a>,
    compared: impl Into<Compared<'a>>,
    best: usize,
) -> Result<Evaluation> {
    measure(protocol, queries, gallery, &compared.into(), false, best)
}

/// The number that selects settings and epochs: [`selection_score`] of an evaluation, without computing what it does not need.
///
/// # Errors
/// As [`evaluate`].
pub fn judge<'a>(
    protocol: &Protocol,
    queries: Side<'a>,
    gallery: Side<'a>,
    compared: impl Into<Compared<'a>>,
) -> Result<f64> {
    Ok(selection_score(&measure(protocol, queries, gallery, &compared.into(), true, 0)?, protocol))
}

fn measure(
    protocol: &Protocol,
    queries: Side<'_>,
    gallery: Side<'_>,
    compared: &Compared<'_>,
    brief: bool,
    best: usize,
) -> Result<Evaluation> {
    protocol.check()?;
    queries.check("query")?;
    match &protocol.task {
        Task::Pairs { cutoffs, folds } => {
            pairs::evaluate((cutoffs, *folds, protocol.ties), queries, compared, Keep { best, ties: protocol.ties })
        }
        Task::Category { .. } => {
            gallery.check("gallery")?;
            let settings = protocol.category(brief, best).expect("the task is category");
            category::evaluate(settings, queries, gallery, compared)
        }
        Task::Correlation { dimensions } => correlation::evaluate(*dimensions, queries),
    }
}

/// What a random order of the gallery would score on average, in closed form.
///
/// # Errors
/// As [`evaluate`], as far as they concern the items.
pub fn chance(protocol: &Protocol, queries: &Collection, gallery: &Collection) -> Result<Evaluation> {
    protocol.check()?;
    populated(queries, "query")?;
    match &protocol.task {
        Task::Pairs { cutoffs, folds } => pairs::chance((cutoffs, *folds, protocol.ties), queries),
        Task::Category { .. } => {
            populated(gallery, "gallery")?;
            category::chance(protocol.category(false, 0).expect("the task is category"), queries, gallery)
        }
        Task::Correlation { dimensions } => correlation::chance(*dimensions, queries),
    }
}

/// What settings and epochs are selected by, higher is better: the sum of recalls for pairs, the mean of both directions' MAP@all
/// for category, the total for correlation.
pub fn selection_score(evaluation: &Evaluation, protocol: &Protocol) -> f64 {
    let name = match protocol.task {
        Task::Pairs { .. } => "rsum",
        Task::Category { .. } => "MAP@all",
        Task::Correlation { .. } => correlation::METRIC,
    };
    evaluation.metrics.get(name).copied().unwrap_or(f64::NAN)
}

fn populated(collection: &Collection, role: &str) -> Result<()> {
    for (kind, items) in [("images", collection.images.len()), ("texts", collection.texts.len())] {
        if items == 0 {
            let next = "choose a split that has some";
            return Err(Error::option(format!("{kind} of the {role} split"), "at least one", "none", next).into());
        }
    }
    Ok(())
}

impl Side<'_> {
    fn check(&self, role: &str) -> Result<()> {
        populated(self.collection, role)?;
        let (images, texts) = (self.collection.images.len(), self.collection.texts.len());
        let lists = [("images", images, self.images), ("texts", texts, self.texts)];
        for (kind, items, codes) in
            lists.into_iter().flat_map(|(kind, n, lists)| lists.iter().map(move |it| (kind, n, it)))
        {
            if codes.len() != items {
                let (name, next) = (format!("codes of the {role} {kind}"), "encode every item once, in order");
                return Err(Error::option(name, format!("{items}, one an item"), codes.len().to_string(), next).into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
