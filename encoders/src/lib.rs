//! Frozen networks that turn pictures into features.
//!
//! An [`Encoder`] makes of each picture one vector, and a vector for each cell of a grid over it. Weights are files of the user's;
//! nothing is downloaded. [`open`] opens an encoder by name, [`KNOWN`] lists the names; [`extract`] makes a dataset of a folder of pictures. This crate knows datasets (whose
//! door for files and whose pictures it uses) and neither methods nor the harness.

mod encoder;
pub mod extract;
pub mod lite;
pub mod picture;
pub mod weights;

pub use encoder::{Encoded, Encoder, KNOWN, Known, Recipe, Seen, open};
pub use xmbench_datasets::{Error, Picture, Result};
