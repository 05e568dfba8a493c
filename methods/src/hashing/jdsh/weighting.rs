//! How JDSH weighs an affinity by its distribution, equations (2) and (3) of [`super`], and the fit of that distribution.
//!
//! ```text
//! loc     = the mode: the middle of the fullest of 100 bins from MIN to MAX, each counted with two on either side     (5)
//! scale_l = sqrt(mean of (s - loc)² over s <= loc)       a Gaussian's deviation, fitted to one half                   (6)
//! scale_r = mean of s - loc over s >= loc                a Laplacian's scale, fitted to one half                      (7)
//! ```
//!
//! over the entries off the diagonal of up to 64 random batches of training pairs; MIN and MAX are the least and the greatest of them. The
//! draw is one of its own: runs of different seeds have the same constants. Batches, not the training set as a whole, because rows of
//! (1) are scaled within a batch.

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};
use xmbench_datasets::random::Seed;

use super::super::networks::Networks;
use crate::{Error, Result, Training, nn::Weights};

/// Batches that the distribution is read off.
const BATCHES: usize = 64;
/// Bins of the histogram.
const BINS: usize = 100;
/// Bins on either side that count with one.
const SPAN: usize = 2;

/// Where the constants are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightingSource {
    /// Equations (5) to (7) on the training set.
    Fitted,
    /// Released for MIRFlickr on AlexNet features.
    MirFlickr,
    /// Released for NUS-WIDE on AlexNet features.
    NusWide,
    /// No weighting.
    None,
}

impl WeightingSource {
    /// The constants; those that were fitted become weights of the model, and frozen weights hold their own.
    pub(super) fn resolve(self, fitted: Option<Weighting>, weights: &mut Weights) -> Result<Option<Weighting>> {
        let released = |loc, scale_left, scale_right, min, max| {
            Some(Weighting { loc_left: loc, scale_left, loc_right: loc, scale_right, min, max })
        };
        match self {
            Self::None => Ok(None),
            Self::MirFlickr => Ok(released(-0.49, 0.019, 0.088, -0.52, 0.68)),
            Self::NusWide => Ok(released(-0.62, 0.0128, 0.086, -0.64, 0.75)),
            Self::Fitted => {
                let values = fitted.map_or([0.0; 6], Weighting::values).map(|value| value as f32);
                let kept = weights.insert("weighting", Tensor::new(&values, weights.device())?)?;
                let kept: Vec<f32> = kept.to_vec1()?;
                let [loc_left, scale_left, loc_right, scale_right, min, max] =
                    std::array::from_fn(|i| f64::from(kept[i]));
                Ok(Some(Weighting { loc_left, scale_left, loc_right, scale_right, min, max }))
            }
        }
    }
}

/// The constants of equations (2) and (3).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weighting {
    /// Mode, as the left half has it.
    pub loc_left: f64,
    /// Equation (6).
    pub scale_left: f64,
    /// Mode, as the right half has it.
    pub loc_right: f64,
    /// Equation (7).
    pub scale_right: f64,
    /// The least value.
    pub min: f64,
    /// The greatest value.
    pub max: f64,
}

impl Weighting {
    pub(super) fn values(self) -> [f64; 6] {
        [self.loc_left, self.scale_left, self.loc_right, self.scale_right, self.min, self.max]
    }

    /// `lo` and `hi` of equation (2) for the factors `a` and `b`.
    pub fn thresholds(&self, factors: [f64; 2]) -> [f64; 2] {
        [self.loc_left - factors[0] * self.scale_left, self.loc_right + factors[1] * self.scale_right]
    }

    /// Equation (3) but for `mu`, with `weights = [L1, L2]`.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn apply(&self, affinity: &Tensor, factors: [f64; 2], weights: [f64; 2]) -> Result<Tensor> {
        let [low, high] = self.thresholds(factors);
        let s = affinity.detach();
        let far = (s.affine(-1.0, self.min)?.exp()? * weights[0])?;
        let s = s.lt(low)?.where_cond(&(&s * (far + 1.0)?)?, &s)?;
        let near = ((&s - self.max)?.exp()? * weights[1])?;
        Ok(s.gt(high)?.where_cond(&(&s * (near + 1.0)?)?, &s)?)
    }

    /// The constants of a training set, in batches of `batch` pairs, whose affinities `joint` makes of their features.
    ///
    /// # Errors
    /// Fewer than two pairs, or features that cannot be read.
    pub(super) fn fit(
        body: &Networks,
        training: &Training<'_>,
        batch: usize,
        joint: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
    ) -> Result<Self> {
        let pairs = training.train.pairs.all();
        let batch = batch.min(pairs.len());
        if batch < 2 {
            let found = batch;
            return Err(Error::Numeric(format!(
                "jdsh: expected at least 2 pairs a batch to see how their affinities are distributed, found {found}; raise \
                 `batch` or set `weighting = \"none\"`"
            )));
        }
        let order = Seed(0).stream(&["jdsh", "weighting"]).permutation(pairs.len());
        let mut entries = Vec::new();
        for block in order.chunks_exact(batch).take(BATCHES) {
            let (images, texts): (Vec<usize>, Vec<usize>) =
                block.iter().map(|&p| (pairs[p].0 as usize, pairs[p].1 as usize)).unzip();
            let [images, texts] = body.centred(&body.features(training, &images, &texts)?)?;
            let rows = joint(&images, &texts)?.to_dtype(DType::F64)?.to_vec2::<f64>()?;
            for (i, row) in rows.iter().enumerate() {
                entries.extend(row.iter().enumerate().filter(|&(j, _)| i != j).map(|(_, &value)| value));
            }
        }
        Ok(Self::of(&entries))
    }

    /// Equations (5) to (7) of some values, of which there is one at least.
    pub fn of(entries: &[f64]) -> Self {
        let min = entries.iter().copied().fold(f64::INFINITY, f64::min);
        let max = entries.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let width = (max - min) / BINS as f64;
        let mut counts = [0usize; BINS];
        for entry in entries {
            // All equal: one bin.
            let bin = if width > 0.0 { ((entry - min) / width) as usize } else { 0 };
            counts[bin.min(BINS - 1)] += 1;
        }
        let around = |bin: usize| counts[bin.saturating_sub(SPAN)..BINS.min(bin + SPAN + 1)].iter().sum::<usize>();
        let fullest = (0..BINS).rev().max_by_key(|&bin| around(bin)).unwrap_or(0);
        let loc = min + (fullest as f64 + 0.5) * width; // (5)
        let half = |keep: &dyn Fn(f64) -> bool, power: i32| {
            let (mut sum, mut count) = (0.0, 0usize);
            for gap in entries.iter().map(|entry| entry - loc).filter(|&gap| keep(gap)) {
                sum += gap.powi(power);
                count += 1;
            }
            sum / count.max(1) as f64
        };
        let scale_left = half(&|gap| gap <= 0.0, 2).sqrt(); // (6)
        let scale_right = half(&|gap| gap >= 0.0, 1); // (7)
        Self { loc_left: loc, scale_left, loc_right: loc, scale_right, min, max }
    }
}
