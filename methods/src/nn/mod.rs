//! Layers that several families share: weights, GRU, text and image encoders, pooling, optimisers.

use crate::golden::Operation;

mod weights;

pub use weights::Weights;

/// The golden operations of this module.
pub fn operations() -> Vec<Operation> {
    Vec::new()
}
