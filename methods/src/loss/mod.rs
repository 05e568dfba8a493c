//! Losses that several families share.

use crate::golden::Operation;

mod golden;
mod hinge;
mod order;

pub use hinge::{hinge, hinge_except};
pub use order::{order_score, order_scores};

/// The golden operations of this module.
pub fn operations() -> Vec<Operation> {
    golden::operations()
}
