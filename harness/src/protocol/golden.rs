//! The catalogue's `metric.*` operations, answered by the functions that score methods.

use xmbench_methods::golden::Operation;

/// Every golden operation of the harness.
pub fn operations() -> Vec<Operation> {
    Vec::new()
}
