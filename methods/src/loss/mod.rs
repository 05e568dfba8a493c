//! Losses that several families share.

use crate::golden::Operation;

mod canonical;
mod golden;
mod hinge;
mod order;

pub use canonical::{CanonicalCorrelation, Correlated, Objective, canonical_correlation};
pub use hinge::{hinge, hinge_except};
pub use order::{order_score, order_scores};

/// The golden operations of this module.
pub fn operations() -> Vec<Operation> {
    golden::operations()
}
