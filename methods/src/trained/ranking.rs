use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::{
    Result,
    loss::{Relations, hinge},
    params::out_of_range,
};

/// The bidirectional hinge over the scores of a batch, as VSE++ and most methods after it have it; flattened into their
/// parameters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ranking {
    /// Margin of the hinge.
    pub margin: f64,
    /// The hardest negative alone, or all.
    pub max_violation: bool,
    /// Epochs of all negatives before `max_violation` takes effect; 0 as in the papers. Keeps a fresh model from collapsing.
    pub warmup: usize,
}

impl Default for Ranking {
    /// That of VSE++.
    fn default() -> Self {
        Self { margin: 0.2, max_violation: true, warmup: 0 }
    }
}

impl Ranking {
    /// Checks every value; `method` is named in the error.
    ///
    /// # Errors
    /// A value out of range.
    pub fn check(&self, method: &str) -> Result<()> {
        if self.margin >= 0.0 && self.margin.is_finite() {
            return Ok(());
        }
        Err(out_of_range(method, "margin", "a number from 0 up", self.margin))
    }

    /// Whether only the hardest negatives count in an epoch, counted from 0.
    pub fn hardest(&self, epoch: usize) -> bool {
        self.max_violation && epoch >= self.warmup
    }

    /// The hinge of `scores [b, b]`, positives on the diagonal, summed over the batch: see [`hinge`].
    ///
    /// # Errors
    /// If the matrix is not square or the relations are of another shape.
    pub fn loss(&self, scores: &Tensor, relations: &Relations, epoch: usize) -> Result<Tensor> {
        hinge(scores, self.margin, self.hardest(epoch), relations)
    }

    /// [`Ranking::loss`] of `batch` pairs that all score the same, where that is a trap: on the hardest negatives the gradients
    /// of equal scores cancel.
    pub fn collapsed(&self, batch: usize, epoch: usize) -> Option<f64> {
        self.hardest(epoch).then_some(2.0 * batch as f64 * self.margin)
    }
}
