//! What is retrieved: items, pairs, labels and splits, and where they come from.
//!
//! A [`Dataset`] holds one [`Collection`] per split. A collection offers its images and texts in several
//! representations (global vectors, fragments, tokens, bag of words, raw); a method takes those that it needs.
//! [`open`] opens a dataset by name, [`sources`] lists the names. This crate knows neither methods nor the harness.

mod audit;
mod checksum;
mod collection;
mod draft;
mod emoji;
mod error;
mod features;
mod inspect;
mod labels;
mod npy;
mod options;
mod pairs;
pub mod planted;
mod precomp;
pub mod random;
mod source;
mod sparse;
pub mod text;
mod wiki;

pub use audit::{Finding, Severity, audit};
pub use checksum::{Checksum, Hasher};
pub use collection::{Collection, Dataset, Images, Notice, Picture, PictureSource, Split, Texts};
pub use error::{Error, Result};
pub use features::{FeatureTable, Features, Matrix, Subset};
pub use inspect::{Inspection, inspect};
pub use labels::Labels;
pub use npy::NpyInfo;
pub use options::{OptionSpec, OptionValue};
pub use pairs::Pairs;
pub use source::{Source, open, sources};
pub use sparse::SparseRows;
