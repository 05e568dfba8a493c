//! What a device does in a second: training steps, scoring and search, timed inside the program, so that a machine without a
//! compiler can be measured.
//!
//! Each [`Row`] is one piece of work that the program does anyway, repeated after a warm-up; the clock stops when the device has
//! finished. Pair scorers and the index compute on the processor wherever the codes were made, and their rows say so: the
//! rows beside them do the same products on the device.

mod scan;
mod search;
mod train;

use std::time::Duration;

use anyhow::Result;
use candle_core::Device;
use serde::Serialize;

use crate::{record::words, run::timing::Effort, stats};

/// How large the work is.
#[derive(Debug, Clone, PartialEq)]
pub struct Sizes {
    /// Lengths of the vectors that a training step makes; a row each.
    pub widths: Vec<usize>,
    /// Pairs a training step.
    pub batch: usize,
    /// Length of an image's features in training.
    pub features: usize,
    /// Words of the vocabulary in training.
    pub vocabulary: usize,
    /// Images and texts of which every pair is scored.
    pub scored: [usize; 2],
    /// Queries and gallery items of a search.
    pub searched: [usize; 2],
    /// Length of the vectors that are scored and searched.
    pub dim: usize,
}

impl Default for Sizes {
    /// Those of the benchmarks under `benches/`.
    fn default() -> Self {
        Self {
            widths: vec![256, 1024],
            batch: 128,
            features: 2048,
            vocabulary: 8000,
            scored: [500, 2500],
            searched: [1000, 200_000],
            dim: 256,
        }
    }
}

/// One piece of work, timed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What was done.
    pub work: String,
    /// What did it: `cpu`, `cuda:0`.
    pub device: String,
    /// Median of the samples, seconds.
    pub median: f64,
    /// First and third quartile, seconds.
    pub quartiles: [f64; 2],
    /// What one sample handles.
    pub items: usize,
    /// What the items are: `pairs`, `queries`.
    pub unit: &'static str,
    /// Every sample after the warm-up, seconds, in the order in which they were taken.
    pub samples: Vec<f64>,
}

impl Row {
    fn new(work: String, device: &str, (items, unit): (usize, &'static str), samples: Vec<f64>) -> Self {
        let sorted = stats::sorted(&samples);
        let at = |q: f64| stats::quantile(&sorted, q).unwrap_or(f64::NAN);
        Self { work, device: device.into(), median: at(0.5), quartiles: [at(0.25), at(0.75)], items, unit, samples }
    }

    /// Items a second, by the median.
    pub fn rate(&self) -> f64 {
        self.items as f64 / self.median
    }
}

/// Times each piece of work for about `budget` after a warm-up of at most half of that; `said` hears each row as it comes.
///
/// # Errors
/// If the device has no room for the work, or an operation fails on it.
pub fn measure(
    (device, name): (&Device, &str),
    sizes: &Sizes,
    budget: Duration,
    mut said: impl FnMut(&Row),
) -> Result<Vec<Row>> {
    let effort = Effort { warm_up: budget / 2, budget, samples: 1000 };
    let mut rows = Vec::new();
    let mut add = |row: Row| {
        said(&row);
        rows.push(row);
    };
    for &width in &sizes.widths {
        add(train::step((device, name), sizes, width, effort)?);
    }
    add(scan::matcher(sizes, effort)?);
    add(scan::tensors((device, name), sizes, effort)?);
    add(search::index(sizes, effort)?);
    add(search::product((device, name), sizes, effort)?);
    Ok(rows)
}

/// The two lines that begin a Markdown table of rows.
pub const HEAD: &str =
    "| work | computed on | median ms | quartiles ms | a second | samples |\n|---|---|---:|---:|---:|---:|";

/// A row as a line of that table.
pub fn line(row: &Row) -> String {
    let ms = |seconds: f64| words::digits(1e3 * seconds);
    let [low, high] = row.quartiles.map(ms);
    let rate = words::digits(row.rate());
    format!(
        "| {} | {} | {} | {low} to {high} | {rate} {} | {} |",
        row.work,
        row.device,
        ms(row.median),
        row.unit,
        row.samples.len()
    )
}

#[cfg(test)]
mod tests;
