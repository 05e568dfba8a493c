//! An image and a text encoder into one space: what every method of the metric family trains, so that only losses differ.
//!
//! ```text
//! v = finish(branch(x))                                     image vector x, or pooled fragments           (1)
//! t = finish(pool(recurrence(w_1 .. w_T)))                  words, by GRU or both directions averaged     (2a)
//! t = finish(W pool(LSTM or Transformer(w_1 .. w_T)) + b)   words                                         (2b)
//! t = finish(branch(y))                                     text vector y: given, or a bag of words       (2c)
//! branch(x) = W x + b,  or  W dropout(relu(norm(U x + a))) + b  with batch normalisation                  (3)
//! ```

mod branch;
mod codes;
mod options;

use candle_core::{D, DType, Device, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use xmbench_datasets::{Images, Matrix, Texts, WordVectors, random::Stream};

use self::branch::Branch;
pub use self::options::{Encoders, ImagePooling, TextModel, TextPooling};
use super::{
    Gpo, Lengths, Linear, Moments, Scaling, Standardise, TextEncoder, TextLayer, TextSettings, Tokens, Weights, unit,
};
use crate::{
    Error, Result, Run, Training,
    linalg::{
        inputs::{Inputs, Views},
        select,
        views::ImageInput,
    },
};

/// What happens to vectors of the joint space at the end of an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finish {
    /// How image vectors are scaled.
    pub images: Scaling,
    /// How text vectors are.
    pub texts: Scaling,
    /// Whether absolute values are taken (order embeddings).
    pub absolute: bool,
}

impl Finish {
    /// Both sides alike.
    pub const fn both(scaling: Scaling) -> Self {
        Self { images: scaling, texts: scaling, absolute: false }
    }
}

impl Default for Finish {
    /// Both sides of unit length.
    fn default() -> Self {
        Self::both(Scaling::Unit)
    }
}

/// What the data decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Which vectors stand for an image; never `auto`.
    pub image: ImageInput,
    /// Their length.
    pub image_width: usize,
    /// Length of text vectors; 0 where words are read.
    pub text_width: usize,
    /// Number of words.
    pub vocabulary: usize,
    /// Number of classes; 0 without labels.
    pub classes: usize,
}

/// Both encoders, in training or fitted.
pub struct Joint {
    method: &'static str,
    options: Encoders,
    finish: Finish,
    shape: Shape,
    image: Branch,
    image_pool: Option<Gpo>,
    text: TextSide,
    vectors: Option<Inputs>,
    /// Vectors of the training texts, while training.
    rows: TextRows,
    device: Device,
}

enum TextSide {
    Words { encoder: TextEncoder, pool: Option<Gpo>, layer: Option<Linear> },
    Vectors(Branch),
}

/// Vectors of texts where words are not read, `[texts, width]`.
type TextRows = Option<Matrix>;

/// Some texts as they are read, before a layer and before pooling.
pub struct States {
    /// Their words.
    pub tokens: Tokens,
    /// A vector a word, `[total, width]`, text after text.
    pub states: Tensor,
}

impl Joint {
    /// Encoders for the training split, with weights of their own drawn into `weights`.
    ///
    /// # Errors
    /// A representation that the dataset does not offer, features that are not finite, or weights that cannot be made.
    pub fn fit(
        method: &'static str,
        options: &Encoders,
        finish: Finish,
        training: &Training<'_>,
        run: &Run<'_>,
        weights: &mut Weights,
    ) -> Result<Self> {
        let (images, texts) = (&training.train.images, &training.train.texts);
        let wanted = if options.image_pooling == ImagePooling::Gpo { ImageInput::Fragments } else { options.image };
        let missing = || training.missing(method, wanted.need());
        let image = wanted.resolve(images).ok_or_else(missing)?;
        let image_width = image.width(images).ok_or_else(missing)?;
        let (vectors, rows) = match options.text_encoder {
            TextModel::Vectors => {
                let views = Views { image, text: options.text, text_components: options.text_components };
                let inputs = Inputs::fit(method, training, views, run.seed)?;
                let rows = inputs.texts(texts)?;
                (Some(inputs), Some(rows))
            }
            _ if texts.tokens.is_none() || training.vocabulary == 0 => {
                return Err(training.missing(method, "texts.tokens (or vectors: `text_encoder = \"vectors\"`)"));
            }
            _ => (None, None),
        };
        let text_width = rows.as_ref().map_or(0, |rows| rows.cols);
        let classes = training.classes;
        let shape = Shape { image, image_width, text_width, vocabulary: training.vocabulary, classes };
        let moments = match options.standardise {
            true => {
                let x = Moments::of(method, images.len(), |items| image.gather(method, images, items))?;
                let y = rows.as_ref().map(|rows| {
                    let some = |items: &[usize]| Ok(select(rows, items));
                    Moments::of(method, rows.rows, some)
                });
                [Some(x), y.transpose()?]
            }
            false => [None, None],
        };
        let words = options.words.vectors(method, training, options.word)?;
        let joint = Self::new(method, options, finish, shape, (vectors, words), moments, weights)?;
        Ok(Self { rows, ..joint })
    }

    /// The same encoders on other weights.
    ///
    /// # Errors
    /// A weight that is absent or of another shape.
    pub fn on(&self, weights: &mut Weights) -> Result<Self> {
        let vectors = self.vectors.clone();
        Self::new(self.method, &self.options, self.finish, self.shape.clone(), (vectors, None), [None, None], weights)
    }

    fn new(
        method: &'static str,
        options: &Encoders,
        finish: Finish,
        shape: Shape,
        (vectors, words): (Option<Inputs>, Option<&WordVectors>),
        [image_moments, text_moments]: [Option<Moments>; 2],
        weights: &mut Weights,
    ) -> Result<Self> {
        let width = options.embedding;
        let mut branch = |name: &str, input: usize, moments: Option<Moments>| {
            let standardise = match options.standardise {
                true => Some(Standardise::in_weights(weights, name, input, moments.as_ref())?),
                false => None,
            };
            Branch::new(weights, name, [input, options.hidden, width], options.dropout, standardise)
        };
        let image = branch("image", shape.image_width, image_moments)?;
        let text = match options.text_encoder {
            TextModel::Vectors => TextSide::Vectors(branch("text", shape.text_width, text_moments)?),
            TextModel::Words(layer) => {
                let Encoders { word, layers, words: source, .. } = *options;
                let settings = TextSettings { layer, word, hidden: width, layers, words: source };
                let encoder = TextEncoder::new(weights, "text", shape.vocabulary, settings, words)?;
                let layer = match layer {
                    TextLayer::Gru | TextLayer::Bigru => None,
                    _ => Some(Linear::xavier(weights, "text.layer", encoder.width(), width)?),
                };
                let pool = match options.text_pooling {
                    TextPooling::Gpo => Some(Gpo::new(weights, "text.pool", 32, 32)?),
                    _ => None,
                };
                TextSide::Words { encoder, pool, layer }
            }
        };
        let image_pool = match options.image_pooling {
            ImagePooling::Gpo => Some(Gpo::new(weights, "image.pool", 32, 32)?),
            ImagePooling::Mean => None,
        };
        Ok(Self {
            method,
            options: options.clone(),
            finish,
            shape,
            image,
            image_pool,
            text,
            vectors,
            rows: None,
            device: weights.device().clone(),
        })
    }

    /// What the data decided.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Length of the vectors of the joint space.
    pub fn width(&self) -> usize {
        self.options.embedding
    }

    /// Equation (1) for some images, `[items.len(), embedding]`. With a stream the encoder is in training: batch normalisation
    /// goes by the batch and dropout drops.
    ///
    /// # Errors
    /// A representation that is missing, of another width or not finite.
    pub fn images(&self, images: &Images, items: &[usize], training: Option<&mut Stream>) -> Result<Tensor> {
        if self.pools_regions() {
            return self.pool_regions(&self.regions(images, items, training)?);
        }
        let rows = self.shape.image.gather(self.method, images, items)?;
        self.finish_images(&self.project(rows, items, training)?)
    }

    /// Whether equation (1) pools the vectors of regions, rather than their features.
    pub fn pools_regions(&self) -> bool {
        self.image_pool.is_some()
    }

    /// Equation (1) from the vectors of regions, `[items, regions, embedding]` to `[items, embedding]`.
    ///
    /// # Errors
    /// If regions are not pooled, or a tensor operation fails.
    pub fn pool_regions(&self, regions: &Tensor) -> Result<Tensor> {
        let Some(pool) = &self.image_pool else {
            return Err(Error::Numeric(format!(
                "{}: expected `image_pooling` over the vectors of regions",
                self.method
            )));
        };
        let (items, each, width) = regions.dims3()?;
        let lengths = Lengths::new(std::iter::repeat_n(each, items))?;
        self.finish_images(&pool.forward(&regions.reshape((items * each, width))?, &lengths)?.0)
    }

    /// The vectors of the regions of some images, each as in equation (1) before it is scaled: `[items.len(), regions,
    /// embedding]`.
    ///
    /// # Errors
    /// As [`Joint::images`].
    pub fn regions(&self, images: &Images, items: &[usize], training: Option<&mut Stream>) -> Result<Tensor> {
        let table = images.fragments.as_ref().ok_or_else(|| self.missing("images.fragments"))?;
        let (regions, cols) = (table.fragments(), table.width());
        let rows = Matrix { rows: items.len() * regions, cols, data: table.gather(items)?.data };
        Ok(self.project(rows, items, training)?.reshape((items.len(), regions, self.options.embedding))?)
    }

    /// [`Joint::regions`] of given features `[total, width]`, such as altered ones: `[total, embedding]`.
    ///
    /// # Errors
    /// Features of another width or not finite.
    pub fn fragments(&self, rows: Matrix, training: Option<&mut Stream>) -> Result<Tensor> {
        let each: Vec<usize> = (0..rows.rows).collect();
        self.project(rows, &each, training)
    }

    /// Image features, one or more rows an item, through the branch.
    fn project(&self, rows: Matrix, items: &[usize], training: Option<&mut Stream>) -> Result<Tensor> {
        check_rows(self.method, &rows, (self.shape.image_width, self.shape.image.need()), "image", items)?;
        let x = Tensor::from_vec(rows.data, (rows.rows, rows.cols), &self.device)?;
        let x = if self.options.normalise_features { unit(&x)? } else { x };
        self.image.forward(&x, training)
    }

    /// Equation (2) for some texts, `[items.len(), embedding]`; `rows` are the vectors of all of `texts` where words are not
    /// read. The stream is that of [`Joint::images`].
    ///
    /// # Errors
    /// A representation that is missing, a text without words, or a word that was not trained.
    fn texts(&self, texts: &Texts, rows: &TextRows, items: &[usize], training: Option<&mut Stream>) -> Result<Tensor> {
        match &self.text {
            TextSide::Vectors(branch) => {
                let rows = rows.as_ref().ok_or_else(|| self.missing(self.options.text.need()))?;
                let rows = select(rows, items);
                check_rows(self.method, &rows, (self.shape.text_width, self.options.text.need()), "text", items)?;
                let y = Tensor::from_vec(rows.data, (rows.rows, rows.cols), &self.device)?;
                self.finish_texts(&branch.forward(&y, training)?)
            }
            TextSide::Words { encoder, .. } if self.options.text_pooling == TextPooling::Last => {
                self.end_texts(&encoder.last(&self.tokens(texts, items)?)?)
            }
            TextSide::Words { .. } => self.pool_states(&self.states(texts, items)?),
        }
    }

    /// Equation (2) for some training texts.
    ///
    /// # Errors
    /// As [`Joint::encode_texts`].
    pub fn training_texts(&self, texts: &Texts, items: &[usize], training: Option<&mut Stream>) -> Result<Tensor> {
        self.texts(texts, &self.rows, items, training)
    }

    /// Whether equation (2) pools [`Joint::states`].
    pub fn pools_states(&self) -> bool {
        matches!(self.text, TextSide::Words { .. }) && self.options.text_pooling != TextPooling::Last
    }

    /// Equation (2) from the states of words, `[texts, embedding]`.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn pool_states(&self, read: &States) -> Result<Tensor> {
        let (states, lengths) = (&read.states, &read.tokens.lengths);
        let pooled = match (&self.text, self.options.text_pooling) {
            (TextSide::Words { pool: Some(pool), .. }, _) => pool.forward(states, lengths)?.0,
            (_, TextPooling::Max) => largest(states, lengths)?,
            _ => lengths.mean(states)?,
        };
        self.end_texts(&pooled)
    }

    /// What is read word by word.
    ///
    /// # Errors
    /// As [`Joint::encode_texts`], or encoders that read no words.
    pub fn states(&self, texts: &Texts, items: &[usize]) -> Result<States> {
        let TextSide::Words { encoder, .. } = &self.text else {
            return Err(Error::Numeric(format!(
                "{}: attention reads words, and `text_encoder = \"vectors\"` reads none; choose another",
                self.method
            )));
        };
        let tokens = self.tokens(texts, items)?;
        Ok(States { states: encoder.tokens(&tokens)?, tokens })
    }

    /// The vectors of words, each as in equation (2) without pooling and before it is scaled: `[total, embedding]`.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn words(&self, read: &States) -> Result<Tensor> {
        self.layer(&read.states)
    }

    fn layer(&self, x: &Tensor) -> Result<Tensor> {
        match &self.text {
            TextSide::Words { layer: Some(layer), .. } => layer.forward(x),
            _ => Ok(x.clone()),
        }
    }

    fn end_texts(&self, pooled: &Tensor) -> Result<Tensor> {
        self.finish_texts(&self.layer(pooled)?)
    }

    fn tokens(&self, texts: &Texts, items: &[usize]) -> Result<Tokens> {
        let tokens = texts.tokens.as_ref().ok_or_else(|| self.missing("texts.tokens"))?;
        if let Some(&item) = items.iter().find(|&&item| tokens[item].is_empty()) {
            return Err(Error::Numeric(format!(
                "{}: text {item} (`{}`) has no tokens; drop empty captions from the dataset",
                self.method, texts.ids[item]
            )));
        }
        Tokens::new(items.iter().map(|&item| tokens[item].as_slice()), &self.device)
    }

    /// How image vectors end.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn finish_images(&self, y: &Tensor) -> Result<Tensor> {
        self.finish(y, self.finish.images)
    }

    /// How text vectors end.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn finish_texts(&self, y: &Tensor) -> Result<Tensor> {
        self.finish(y, self.finish.texts)
    }

    fn finish(&self, y: &Tensor, scaling: Scaling) -> Result<Tensor> {
        let y = scaling.apply(y)?;
        Ok(if self.finish.absolute { y.abs()? } else { y })
    }

    fn missing(&self, need: &str) -> Error {
        Error::Missing { method: self.method.into(), need: need.into(), dataset: "to encode".into() }
    }
}

/// Refuses rows of another width than `expected` and values that are not finite; each item has equally many rows.
pub(crate) fn check_rows(
    method: &str,
    rows: &Matrix,
    (width, need): (usize, &str),
    kind: &str,
    items: &[usize],
) -> Result<()> {
    if rows.cols != width {
        return Err(Error::Format {
            file: format!("{need} for method `{method}`"),
            expected: format!("vectors of length {width} as in training"),
            found: format!("length {}", rows.cols),
        });
    }
    // Without an early end, which the loop could not be vectorised with.
    let sound = |part: &[f32]| part.iter().fold(true, |sound, value| sound & value.is_finite());
    if rows.data.par_chunks(1 << 14).all(sound) {
        return Ok(());
    }
    let Some(at) = rows.data.iter().position(|value| !value.is_finite()) else { return Ok(()) };
    let (row, column) = (at / rows.cols, at % rows.cols);
    let each = rows.rows / items.len();
    let region = if each > 1 { format!("region {} of ", row % each) } else { String::new() };
    Err(Error::Numeric(format!(
        "{method}: expected finite features, found {} in {region}{kind} {}, column {column}; check the features",
        rows.data[at],
        items[row / each],
    )))
}

/// The largest value of each column over a text's tokens, `[texts, width]`.
fn largest(tokens: &Tensor, lengths: &Lengths) -> Result<Tensor> {
    let steps = lengths.longest();
    let inside = lengths.mask(steps, tokens.device())?.to_dtype(DType::F32)?.unsqueeze(D::Minus1)?;
    let behind = ((inside - 1.0)? * 1e9)?;
    Ok(lengths.pad(tokens, steps)?.broadcast_add(&behind)?.max(1)?)
}
