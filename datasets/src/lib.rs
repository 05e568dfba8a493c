//! What is retrieved: items, pairs, labels and splits, and where they come from.
//!
//! A [`Dataset`] holds one [`Collection`] per split. A collection offers its images and texts in several
//! representations (global vectors, fragments, tokens, bag of words, raw); a method takes those that it needs.
//! This crate knows neither methods nor the harness.

mod checksum;
mod collection;
mod error;
mod features;
mod labels;
mod pairs;
pub mod random;
mod sparse;

pub use checksum::{Checksum, Hasher};
pub use collection::{Collection, Dataset, Images, Notice, Picture, PictureSource, Split, Texts};
pub use error::{Error, Result};
pub use features::{FeatureTable, Features, Matrix, Subset};
pub use labels::Labels;
pub use pairs::Pairs;
pub use sparse::SparseRows;
