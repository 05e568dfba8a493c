//! Frozen networks that turn pictures into features, and texts.
//!
//! An [`Encoder`] makes of each picture one vector, and a vector for each cell of a grid over it; a [`TextEncoder`] makes one of each text, and one
//! of each token. Weights are files of the user's; nothing is downloaded. EfficientNet-Lite0 ([`lite`]) is always there, the networks of the hub
//! (CLIP, SigLIP, ViT, DINOv2, ResNet, BERT) with the feature `transformers`. [`open`] opens an encoder by name, [`KNOWN`] lists the names; [`extract`] makes a dataset of a folder of pictures. This crate knows datasets (whose
//! door for files and whose pictures it uses) and neither methods nor the harness.

mod encoder;
pub mod extract;
#[cfg(feature = "transformers")]
pub mod hub;
pub mod lite;
pub mod picture;
pub mod weights;

pub use encoder::{
    AUTO, Encoded, EncodedText, Encoder, KNOWN, Known, Recipe, Seen, TextEncoder, TextRecipe, open, open_texts,
};
pub use xmbench_datasets::{Error, Picture, Result};
