//! What is retrieved: items, pairs, labels and splits, and where they come from.
//!
//! A [`Dataset`] holds one [`Collection`] per split. A collection offers its images and texts in several
//! representations (global vectors, fragments, tokens, bag of words, raw); a method takes those that it needs.
//! [`open`] opens a dataset by name, [`sources`] lists the names. This crate knows neither methods nor the harness.

pub mod arrays;
mod audit;
pub mod captions;
mod checksum;
mod clipart;
mod collection;
pub mod controls;
mod draft;
mod emoji;
mod error;
mod features;
pub mod files;
pub mod get;
mod halves;
mod idx;
mod inspect;
mod labelled;
mod labels;
mod mat;
mod mfeat;
mod nearest;
mod npy;
mod options;
mod pack;
mod pairs;
pub mod planted;
mod precomp;
pub mod random;
mod series;
mod source;
mod sparse;
pub mod text;
pub mod trec;
mod twins;
mod wiki;
mod words;

pub use audit::{Finding, Progress, Severity, audit, audit_with};
pub use checksum::{Checksum, Hasher};
pub use collection::{Collection, Dataset, Images, Notice, Picture, PictureSource, Split, Texts};
pub use error::{Error, Result};
pub use features::{FeatureTable, Features, Matrix, Subset};
pub use inspect::{Inspection, inspect};
pub use labels::Labels;
pub use nearest::nearest;
pub use npy::NpyInfo;
pub use options::{OptionSpec, OptionValue};
pub use pairs::Pairs;
pub use source::{Source, open, sources};
pub use sparse::SparseRows;
pub use twins::groups as near_duplicates;
pub use words::WordVectors;

/// The folder of data that tests run on where it is present: `XMBENCH_DATA`, or beside the repository.
#[cfg(test)]
pub(crate) fn test_data(name: &str) -> Option<std::path::PathBuf> {
    let beside = || concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data").into();
    let root = std::env::var_os("XMBENCH_DATA").map_or_else(beside, std::path::PathBuf::from);
    if root.join(name).is_dir() {
        return Some(root);
    }
    println!("skipped: {} is not there", root.join(name).display());
    None
}
