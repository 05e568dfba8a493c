//! Networks of the hub: CLIP and SigLIP (pictures and texts), ViT, DINOv2, ResNet (pictures), BERT and MiniLM (texts).
//!
//! What is read is a folder in the hub's layout, which is the user's: `config.json` (the network's kind and sizes, `config.rs`), `model.safetensors` (its
//! weights) or the parts that `model.safetensors.index.json` lists, `preprocessor_config.json` (what is done to a picture, `pixels.rs`), `tokenizer.json`
//! (what is done to a text, `tokens.rs`), and of sentence-transformers `sentence_bert_config.json` and `1_Pooling/config.json`. Nothing is downloaded. A
//! PyTorch checkpoint is refused with the line that converts it.
//!
//! | kind | vector | region, one a cell of the grid | equations |
//! |---|---|---|---|
//! | `clip` | projected class token, in the space of the texts' | token of a patch | `vision.rs` (3), `text.rs` (2) |
//! | `siglip` | answer to the learnt query, in the space of the texts' | token of a patch | `vision.rs` (5), `text.rs` (3) |
//! | `vit`, `dinov2` | class token | token of a patch | `vision.rs` (4) |
//! | `resnet` | mean of the last map | place of the last map | `resnet.rs` |
//! | `bert` | | | `text.rs` (4) |
//!
//! Vectors are as the network gives them, of any length; BERT's have length one. A grid coarser than the network's is means of its places, as in adaptive
//! pooling.
//!
//! The reference is Hugging Face's `transformers` 5.24.0 in f32 on networks with random weights (`scripts/transformers/make.py`); the largest
//! differences of the tests are 1.6e-6 of values up to 4 (texts), 2.5e-6 of 6 (patches) and 1.3e-5 of 19 (ResNet), of MiniLM on its own weights 2.1e-7 of
//! vectors of length one. Pixels are equal to the bit.
//!
//! Written here and not taken from `candle-transformers` 0.11.1, which has networks of these names: its CLIP knows no activation but `quick_gelu` (LAION's
//! have `gelu`), reads no `config.json` and gives no tokens of patches with its vector; its DINOv2 wants Facebook's names of arrays, a classifier and
//! positions of 518 pixels, and interpolates them by the nearest where the reference is cubic; its ResNet wants torchvision's names; its ViT gives
//! scores of a classifier alone; its BERT knows two spellings of three activations. And its products run over all threads, so that bits would have
//! to be shown not to depend on their number: here a picture or text is the work of one thread, as in [`lite`](crate::lite).
//!
//! Departures from the reference: sums of normalisations and means are f64.

mod arrays;
mod config;
mod folder;
mod layers;
mod pillow;
mod pixels;
mod resnet;
mod text;
mod tokens;
mod vision;

use std::path::Path;

use rayon::prelude::*;
use serde::Deserialize;
use xmbench_datasets::{Error, Picture, Result};

use self::{
    config::{Config, Reading},
    folder::{Folder, typed},
    pixels::Pixels,
    resnet::Residual,
    text::{Pooling, Text},
    tokens::Tokens,
    vision::Vision,
};
use crate::{
    encoder::{Encoded, EncodedText, Encoder, Recipe, Seen, TextEncoder, TextRecipe},
    picture::Fit,
    weights::Weights,
};

/// The kinds of networks that there are.
pub use self::config::KINDS;

/// The kind of network that a folder holds.
///
/// # Errors
/// If there is no `config.json`, or it names a kind that is not known.
pub fn kind(folder: &Path) -> Result<&'static str> {
    let mut folder = Folder::new(folder);
    Ok(match configured(&mut folder)? {
        Config::Clip(_) => "clip",
        Config::Siglip(_) => "siglip",
        Config::Vit(_) => "vit",
        Config::Dino(_) => "dinov2",
        Config::Resnet(_) => "resnet",
        Config::Bert(_) => "bert",
    })
}

fn configured(folder: &mut Folder) -> Result<Config> {
    const NAME: &str = "config.json";
    let path = folder.file(NAME);
    let next = "name a folder in the hub's layout: config.json, model.safetensors and so on";
    let value = folder.json(NAME)?.ok_or_else(|| Error::content(&path, "", "a file", "nothing", next))?;
    Config::parse(&path, &value)
}

/// The network of a folder that sees.
enum Tower {
    Vision(Vision),
    Residual(Residual),
}

/// A network for pictures; with CLIP and SigLIP, one for texts beside it.
pub struct Pictures {
    recipe: Recipe,
    pixels: Pixels,
    tower: Tower,
    texts: Option<Sentences>,
}

/// A network for texts.
pub struct Sentences {
    recipe: TextRecipe,
    tokens: Tokens,
    tower: Text,
}

/// Opens the network for pictures in a folder, with `grid` cells a side, 0 for none; returns it with the SHA-256 of its weights.
///
/// # Errors
/// If a file is absent, damaged, or of a network that is not known here; if the network reads texts alone; if the grid is finer than its own.
pub fn pictures(path: &Path, fit: Fit, grid: usize) -> Result<(Pictures, String)> {
    let mut folder = Folder::new(path);
    let config = configured(&mut folder)?;
    if let Config::Bert(_) = config {
        let next = "name a network for pictures, and this one with --text-weights";
        return Err(Error::option("weights", "a network for pictures", "`bert`, which reads texts", next));
    }
    if fit == Fit::Crop {
        let next = "leave it out for what preprocessor_config.json says";
        return Err(Error::option("fit", "`published` or `stretch`", "`crop`, of EfficientNet", next));
    }
    let pixels = processor(&mut folder, fit)?;
    let side = pixels.side();
    let weights = folder.weights()?;
    let tower = match &config {
        Config::Clip(joint) => Tower::Vision(Vision::clip(&weights, &joint.seeing, side, joint.width)?),
        Config::Siglip(joint) => Tower::Vision(Vision::siglip(&weights, &joint.seeing, side)?),
        Config::Vit(seeing) => Tower::Vision(Vision::vit(&weights, seeing, side)?),
        Config::Dino(seeing) => Tower::Vision(Vision::dino(&weights, seeing, side)?),
        Config::Resnet(form) => Tower::Residual(Residual::read(&weights, form, side)?),
        Config::Bert(_) => unreachable!("refused above"),
    };
    let (name, width) = match &config {
        Config::Clip(joint) => ("clip", joint.width),
        Config::Siglip(joint) => ("siglip", joint.width),
        Config::Vit(seeing) => ("vit", seeing.form.width),
        Config::Dino(seeing) => ("dinov2", seeing.form.width),
        Config::Resnet(form) => ("resnet", form.widths.last().copied().unwrap_or_default()),
        Config::Bert(_) => unreachable!("refused above"),
    };
    let texts = match &config {
        Config::Clip(joint) => {
            let tower = Text::clip(&weights, &joint.reading, joint.width)?;
            Some(sentences(&mut folder, name, &weights, &joint.reading, tower, joint.reading.positions, None)?)
        }
        Config::Siglip(joint) => {
            let fill = filling(&mut folder, joint.reading.pad)?;
            let tower = Text::siglip(&weights, &joint.reading, joint.width)?;
            Some(sentences(&mut folder, name, &weights, &joint.reading, tower, joint.reading.positions, Some(fill))?)
        }
        _ => None,
    };
    let (cells, region_width) = match &tower {
        Tower::Vision(vision) => (vision.cells(), vision.token_width()),
        Tower::Residual(residual) => (residual.cells(), residual.width()),
    };
    if grid > cells {
        let next = format!("this network has {cells} x {cells} places");
        return Err(Error::option("grid", format!("0 to {cells} cells a side"), grid.to_string(), next));
    }
    let recipe = Recipe {
        encoder: name.to_owned(),
        side,
        fit,
        pixels: pixels.words(),
        width,
        grid,
        region_width: if grid > 0 { region_width } else { 0 },
        files: folder.read,
    };
    let digest = weights.digest().to_owned();
    Ok((Pictures { recipe, pixels, tower, texts }, digest))
}

/// Opens the network for sentences in a folder: BERT, or the text tower of CLIP or SigLIP.
///
/// # Errors
/// If a file is absent, damaged, or of a network that is not known here, or the network reads no texts.
pub fn texts(path: &Path) -> Result<Sentences> {
    let mut folder = Folder::new(path);
    let config = configured(&mut folder)?;
    match &config {
        Config::Bert(reading) => {
            let pooling = pooling(&mut folder)?;
            let length = longest(&mut folder, reading.positions)?;
            let weights = folder.weights()?;
            let tower = Text::bert(&weights, reading, pooling)?;
            sentences(&mut folder, "bert", &weights, reading, tower, length, None)
        }
        Config::Clip(joint) => {
            let weights = folder.weights()?;
            let tower = Text::clip(&weights, &joint.reading, joint.width)?;
            sentences(&mut folder, "clip", &weights, &joint.reading, tower, joint.reading.positions, None)
        }
        Config::Siglip(joint) => {
            let fill = filling(&mut folder, joint.reading.pad)?;
            let weights = folder.weights()?;
            let tower = Text::siglip(&weights, &joint.reading, joint.width)?;
            sentences(&mut folder, "siglip", &weights, &joint.reading, tower, joint.reading.positions, Some(fill))
        }
        Config::Vit(_) | Config::Dino(_) | Config::Resnet(_) => {
            let next = "name a folder of `bert`, `clip` or `siglip`";
            Err(Error::option("text-weights", "a network for texts", "one for pictures", next))
        }
    }
}

fn sentences(
    folder: &mut Folder,
    name: &str,
    weights: &Weights,
    reading: &Reading,
    tower: Text,
    length: usize,
    fill: Option<u32>,
) -> Result<Sentences> {
    let tokens = Tokens::read(folder, length, fill, reading.words)?;
    let recipe = TextRecipe {
        encoder: name.to_owned(),
        length,
        width: tower.vector_width(),
        token_width: tower.token_width(),
        weights_sha256: weights.digest().to_owned(),
        files: folder.read.clone(),
    };
    Ok(Sentences { recipe, tokens, tower })
}

/// The processor of pictures: of a file of its own, or of that which newer versions write for all processors.
fn processor(folder: &mut Folder, fit: Fit) -> Result<Pixels> {
    const NAME: &str = "preprocessor_config.json";
    const ALL: &str = "processor_config.json";
    if let Some(value) = folder.json(NAME)? {
        return Pixels::parse(&folder.file(NAME), &value, fit);
    }
    if let Some(value) = folder.json(ALL)?.as_ref().and_then(|value| value.get("image_processor")) {
        return Pixels::parse(&folder.file(ALL), value, fit);
    }
    let next = "AutoImageProcessor.from_pretrained(NAME).save_pretrained(FOLDER) writes it";
    Err(Error::content(folder.file(NAME), "", "a file", "nothing", next))
}

/// The token that SigLIP's texts are filled up with: that of the tokenizer if it names one, else that of the network.
fn filling(folder: &mut Folder, usual: u32) -> Result<u32> {
    const NAME: &str = "tokenizer_config.json";
    let Some(value) = folder.json(NAME)? else { return Ok(usual) };
    let token = value.get("pad_token").map(|token| token.get("content").unwrap_or(token));
    let Some(token) = token.and_then(|token| token.as_str()) else { return Ok(usual) };
    Tokens::number(folder, token)?.ok_or_else(|| {
        let next = "let tokenizer.json and tokenizer_config.json be of one tokenizer";
        Error::content(folder.file(NAME), "pad_token", "a token of tokenizer.json", format!("`{token}`"), next)
    })
}

/// What makes the vector of a sentence; the mean where nothing is said.
fn pooling(folder: &mut Folder) -> Result<Pooling> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Written {
        pooling_mode_cls_token: bool,
        pooling_mode_mean_tokens: bool,
        pooling_mode_max_tokens: bool,
        pooling_mode_mean_sqrt_len_tokens: bool,
        pooling_mode_weightedmean_tokens: bool,
        pooling_mode_lasttoken: bool,
    }
    const NAME: &str = "1_Pooling/config.json";
    let Some(value) = folder.json(NAME)? else { return Ok(Pooling::Mean) };
    let path = folder.file(NAME);
    let written: Written = typed(&path, "", &value)?;
    let others = written.pooling_mode_max_tokens
        || written.pooling_mode_mean_sqrt_len_tokens
        || written.pooling_mode_weightedmean_tokens
        || written.pooling_mode_lasttoken;
    match (written.pooling_mode_mean_tokens, written.pooling_mode_cls_token, others) {
        (true, false, false) => Ok(Pooling::Mean),
        (false, true, false) => Ok(Pooling::First),
        _ => {
            let expected = "pooling_mode_mean_tokens or pooling_mode_cls_token, one of them alone";
            Err(Error::content(path, "", expected, value.to_string(), "name a network that pools so"))
        }
    }
}

/// Tokens of the longest sentence: as sentence-transformers has it, else as many as there are places.
fn longest(folder: &mut Folder, positions: usize) -> Result<usize> {
    #[derive(Deserialize)]
    struct Written {
        max_seq_length: Option<usize>,
    }
    const NAME: &str = "sentence_bert_config.json";
    let Some(value) = folder.json(NAME)? else { return Ok(positions) };
    let written: Written = typed(&folder.file(NAME), "", &value)?;
    Ok(written.max_seq_length.unwrap_or(positions).min(positions))
}

impl Pictures {
    fn encode_one(&self, seen: &Seen) -> Result<Encoded> {
        let (global, map, edge) = match &self.tower {
            Tower::Vision(vision) => {
                let looked = vision.look(&seen.values);
                (looked.vector, looked.tokens, vision.cell() as f64)
            }
            Tower::Residual(residual) => {
                let (vector, map) = residual.look(&seen.values);
                (vector, map, self.pixels.side() as f64 / residual.cells() as f64)
            }
        };
        finite(&global)?;
        finite(&map)?;
        let (cells, width) = match &self.tower {
            Tower::Vision(vision) => (vision.cells(), vision.token_width()),
            Tower::Residual(residual) => (residual.cells(), residual.width()),
        };
        let grid = self.recipe.grid;
        let (mut regions, mut boxes) = (Vec::with_capacity(grid * grid * width), Vec::with_capacity(grid * grid));
        let span = |i: usize| i * cells / grid..((i + 1) * cells).div_ceil(grid);
        for (row, column) in (0..grid).flat_map(|row| (0..grid).map(move |column| (row, column))) {
            let (down, across) = (span(row), span(column));
            let places = down.clone().flat_map(|y| across.clone().map(move |x| y * cells + x));
            regions.extend(crate::lite::mean(&map, width, places));
            let within = [across.start, down.start, across.end, down.end].map(|at| at as f64 * edge);
            boxes.push(self.pixels.in_picture(seen.width, seen.height, within));
        }
        Ok(Encoded { global, regions, boxes })
    }
}

fn finite(values: &[f32]) -> Result<()> {
    match values.iter().all(|value| value.is_finite()) {
        true => Ok(()),
        false => {
            let next = "the weights are damaged, or not those of this network";
            Err(Error::option("weights", "a network of finite values", "others", next))
        }
    }
}

impl Encoder for Pictures {
    fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    fn prepare(&self, picture: &Picture) -> Seen {
        self.pixels.prepare(picture)
    }

    fn encode_seen(&self, seen: &[Seen]) -> Result<Vec<Encoded>> {
        // A picture is the work of one thread, so that its bits cannot depend on how many there are.
        seen.par_iter().map(|seen| self.encode_one(seen)).collect()
    }

    fn texts(&self) -> Option<&dyn TextEncoder> {
        self.texts.as_ref().map(|texts| texts as &dyn TextEncoder)
    }
}

impl TextEncoder for Sentences {
    fn recipe(&self) -> &TextRecipe {
        &self.recipe
    }

    fn encode_texts(&self, texts: &[&str]) -> Result<Vec<EncodedText>> {
        let one = |text: &&str| {
            let read = self.tower.read(&self.tokens.of(text)?)?;
            finite(&read.vector)?;
            finite(&read.tokens)?;
            Ok(EncodedText { vector: read.vector, tokens: read.tokens })
        };
        texts.par_iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests;
