//! Regions through a layer; texts as they are.

use std::path::Path;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use xmbench_datasets::{Images, Matrix, Texts};

use crate::{
    Codes, Error, Fragments, Result, Run, Similarity, Training,
    nn::{Linear, Weights, check_rows, unit},
    params::out_of_range,
    trained::Body,
};

/// What a dataset must have.
const NEED: &str = "images.fragments";
/// Images that are encoded at once.
const BLOCK: usize = 256;
/// Above this, not every whole number is an f32.
const EXACT: usize = 1 << 24;

/// Parameters of the layer over regions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Length of a region's vector, D.
    pub embedding: usize,
    /// Whether image features are scaled to unit length first.
    pub normalise_features: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { embedding: 512, normalise_features: false }
    }
}

/// What the data decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Length of a region's features.
    pub image_width: usize,
    /// Number of words.
    pub vocabulary: usize,
}

/// A body without a text encoder: the code of a text is its token numbers, vectors of length 1. Weights `image.weight` and `image.bias`.
pub struct Regions {
    method: &'static str,
    options: Options,
    shape: Shape,
    layer: Linear,
    device: Device,
}

impl Regions {
    fn new(method: &'static str, options: &Options, shape: Shape, weights: &mut Weights) -> Result<Self> {
        if shape.vocabulary > EXACT {
            return Err(Error::Numeric(format!(
                "{method}: expected a vocabulary of at most {EXACT} words, found {}; drop rare words from the dataset",
                shape.vocabulary
            )));
        }
        let layer = Linear::xavier(weights, "image", shape.image_width, options.embedding)?;
        Ok(Self { method, options: options.clone(), shape, layer, device: weights.device().clone() })
    }

    /// Features of the regions of some images, `[items, k, image_width]`.
    ///
    /// # Errors
    /// Features that are missing, of another width or not finite.
    pub fn features(&self, images: &Images, items: &[usize]) -> Result<Tensor> {
        let table = images.fragments.as_ref().ok_or_else(|| self.missing(NEED))?;
        let (regions, cols) = (table.fragments(), table.width());
        let rows = Matrix { rows: items.len() * regions, cols, data: table.gather(items)?.data };
        check_rows(self.method, &rows, (self.shape.image_width, NEED), "image", items)?;
        let x = Tensor::from_vec(rows.data, (items.len(), regions, cols), &self.device)?;
        if self.options.normalise_features { unit(&x) } else { Ok(x) }
    }

    /// The annotation vectors `a` of features, `[.., D]`.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn annotations(&self, features: &Tensor) -> Result<Tensor> {
        self.layer.forward(features)
    }

    /// The mean of the features of all regions, `[image_width]`.
    ///
    /// # Errors
    /// As [`Regions::features`].
    pub fn mean(&self, images: &Images) -> Result<Tensor> {
        let mut sums = vec![0f64; self.shape.image_width];
        let mut count = 0;
        for items in (0..images.len()).collect::<Vec<_>>().chunks(BLOCK) {
            let rows = self.features(images, items)?.flatten_to(1)?.to_vec2::<f32>()?;
            count += rows.len();
            rows.iter().for_each(|row| sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x)));
        }
        let mean: Vec<f32> = sums.into_iter().map(|sum| (sum / count.max(1) as f64) as f32).collect();
        Ok(Tensor::from_vec(mean, self.shape.image_width, &self.device)?)
    }

    /// The tokens of some texts, at least two each and all known.
    ///
    /// # Errors
    /// Texts without tokens, with one token, or with a token that was not trained.
    pub fn tokens<'a>(&self, texts: &'a Texts, items: &[usize]) -> Result<Vec<&'a [u32]>> {
        let tokens = texts.tokens.as_ref().ok_or_else(|| self.missing("texts.tokens"))?;
        let checked = |&item: &usize| {
            let text = tokens[item].as_slice();
            let wrong = |what: String| {
                Err(Error::Numeric(format!("{}: text {item} (`{}`) {what}", self.method, texts.ids[item])))
            };
            match text.iter().find(|&&token| token as usize >= self.shape.vocabulary) {
                Some(token) => wrong(format!(
                    "has the token {token}, outside the vocabulary of {} words that was trained; encode texts of the dataset that the \
                     method was fitted on",
                    self.shape.vocabulary
                )),
                None if text.len() < 2 => wrong(format!(
                    "has {} tokens, expected a start and at least one more to tell; drop empty captions from the dataset",
                    text.len()
                )),
                None => Ok(text),
            }
        };
        items.iter().map(checked).collect()
    }

    fn missing(&self, need: &str) -> Error {
        Error::Missing { method: self.method.into(), need: need.into(), dataset: "to encode".into() }
    }
}

impl Body for Regions {
    type Options = Options;
    type Ends = ();
    type Shape = Shape;
    type Seen = ();

    /// Of fragments; the decoder is the scorer.
    const SIMILARITY: Similarity<'static> = Similarity::Dot;

    fn check(options: &Options, method: &str) -> Result<()> {
        if options.embedding == 0 || options.embedding > 1 << 16 {
            return Err(out_of_range(method, "embedding", "1 to 65536", options.embedding));
        }
        Ok(())
    }

    fn fit(
        method: &'static str,
        options: &Options,
        (): (),
        training: &Training<'_>,
        _: &Run<'_>,
        weights: &mut Weights,
    ) -> Result<Self> {
        let (images, texts) = (&training.train.images, &training.train.texts);
        let table = images.fragments.as_ref().ok_or_else(|| training.missing(method, NEED))?;
        if texts.tokens.is_none() || training.vocabulary == 0 {
            return Err(training.missing(method, "texts.tokens"));
        }
        Self::new(method, options, Shape { image_width: table.width(), vocabulary: training.vocabulary }, weights)
    }

    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn on(&self, weights: &mut Weights) -> Result<Self> {
        Self::new(self.method, &self.options, self.shape.clone(), weights)
    }

    fn encode_images(&self, images: &Images) -> Result<Codes> {
        let each = images.fragments.as_ref().ok_or_else(|| self.missing(NEED))?.fragments();
        let offsets = (0..=images.len()).map(|image| image * each).collect();
        let mut codes = Fragments { dim: self.options.embedding, offsets, data: Vec::new() };
        for items in (0..images.len()).collect::<Vec<_>>().chunks(BLOCK) {
            let vectors = self.annotations(&self.features(images, items)?)?;
            codes.data.extend(vectors.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(Codes::Fragments(codes))
    }

    fn encode_texts(&self, texts: &Texts) -> Result<Codes> {
        let mut codes = Fragments { dim: 1, offsets: vec![0], data: Vec::new() };
        for text in self.tokens(texts, &(0..texts.ids.len()).collect::<Vec<_>>())? {
            codes.data.extend(text.iter().map(|&token| token as f32));
            codes.offsets.push(codes.data.len());
        }
        Ok(Codes::Fragments(codes))
    }

    fn save(&self, _: &Path) -> Result<()> {
        Ok(())
    }

    fn load(
        method: &'static str,
        options: &Options,
        (): (),
        shape: Shape,
        _: &Path,
        weights: &mut Weights,
    ) -> Result<Self> {
        Self::new(method, options, shape, weights)
    }
}
