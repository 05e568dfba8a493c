//! Golden vectors: a case is a file of an authors' inputs and outputs, an operation runs our functions on its inputs.

mod case;
mod check;

pub use case::{Array, Case};
#[cfg(test)]
pub(crate) use check::assert_files;
pub use check::{Verdict, check};

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::Result;

/// The folder of golden files: what `XMBENCH_GOLDEN` names, or else the part of the catalogue that lies in the project, one file for
/// every operation and branch.
pub fn folder() -> PathBuf {
    std::env::var_os("XMBENCH_GOLDEN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("golden"), PathBuf::from)
}

/// A named operation of the golden catalogue, answered by the functions that a method uses.
#[derive(Clone, Copy)]
pub struct Operation {
    /// Name in the catalogue: `attn.scan_t2i`.
    pub name: &'static str,
    /// Computes the outputs of a case.
    pub run: fn(&Case) -> Result<Answer>,
    /// Output tensors that the catalogue calls unstable or informational: a `*` at either end matches anything.
    pub ignored: &'static [&'static str],
}

/// What an operation computed, by the tensor's name in the file: `out.loss`, `grad.images`.
#[derive(Debug, Default)]
pub struct Answer {
    /// Computed values, in f64, row-major; compared with the file's under its `atol` and `rtol`.
    pub values: BTreeMap<String, Vec<f64>>,
}

impl Answer {
    /// Adds a tensor.
    #[must_use]
    pub fn with(mut self, name: &str, values: impl IntoIterator<Item = f64>) -> Self {
        self.values.insert(name.into(), values.into_iter().collect());
        self
    }
}
