//! Losses that several families share.

use crate::golden::Operation;

/// The golden operations of this module.
pub fn operations() -> Vec<Operation> {
    Vec::new()
}
