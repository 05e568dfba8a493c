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
use serde::{Deserialize, Serialize};
use xmbench_datasets::{Images, Matrix, Texts, random::Stream};

use self::branch::Branch;
pub use self::options::{Encoders, ImagePooling, TextModel, TextPooling};
use super::{Gpo, Lengths, Linear, Moments, Scaling, Standardise, TextEncoder, TextSettings, Tokens, Weights, unit};
use crate::{
    Error, Result, Run, Training,
    linalg::{inputs::Inputs, views::ImageInput},
};

/// What happens to vectors of the joint space at the end of an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finish {
    /// Whether image vectors are scaled to unit length.
    pub unit_images: bool,
    /// Whether text vectors are.
    pub unit_texts: bool,
    /// Whether absolute values are taken (order embeddings).
    pub absolute: bool,
}

impl Finish {
    /// Both sides of unit length.
    pub const UNIT: Self = Self { unit_images: true, unit_texts: true, absolute: false };
    /// Both sides as they are.
    pub const PLAIN: Self = Self { unit_images: false, unit_texts: false, absolute: false };
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
}

enum TextSide {
    Words { encoder: TextEncoder, pool: Option<Gpo>, layer: Option<Linear> },
    Vectors(Branch),
}

/// Vectors of the training texts where words are not read, `[texts, width]`.
pub type TextRows = Option<Matrix>;

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
    ) -> Result<(Self, TextRows)> {
        let (images, texts) = (&training.train.images, &training.train.texts);
        let wanted = if options.image_pooling == ImagePooling::Gpo { ImageInput::Fragments } else { options.image };
        let missing = || training.missing(method, wanted.need());
        let image = wanted.resolve(images).ok_or_else(missing)?;
        let image_width = image.width(images).ok_or_else(missing)?;
        let (vectors, rows) = match options.text_encoder {
            TextModel::Vectors => {
                let components = options.text_components;
                let inputs = Inputs::fit(method, training, image, options.text, components, run.seed)?;
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
        Ok((Self::new(method, options, finish, shape, vectors, moments, weights)?, rows))
    }

    /// The same encoders on fixed weights.
    ///
    /// # Errors
    /// A weight that is absent or of another shape.
    pub fn frozen(&self, weights: &mut Weights) -> Result<Self> {
        let vectors = self.vectors.clone();
        Self::new(self.method, &self.options, self.finish, self.shape.clone(), vectors, [None, None], weights)
    }

    fn new(
        method: &'static str,
        options: &Encoders,
        finish: Finish,
        shape: Shape,
        vectors: Option<Inputs>,
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
        let text = match options.text_encoder.layer() {
            None => TextSide::Vectors(branch("text", shape.text_width, text_moments)?),
            Some(layer) => {
                let settings = TextSettings { layer, word: options.word, hidden: width, layers: options.layers };
                let encoder = TextEncoder::new(weights, "text", shape.vocabulary, settings)?;
                let layer = match options.text_encoder {
                    TextModel::Gru | TextModel::Bigru => None,
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
        Ok(Self { method, options: options.clone(), finish, shape, image, image_pool, text, vectors })
    }

    /// What the data decided.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Equation (1) for some images, `[items.len(), embedding]`. With a stream the encoder is in training: batch normalisation
    /// goes by the batch and dropout drops.
    ///
    /// # Errors
    /// A representation that is missing, of another width or not finite.
    pub fn images(
        &self,
        images: &Images,
        items: &[usize],
        training: Option<&mut Stream>,
        device: &Device,
    ) -> Result<Tensor> {
        let matrix = match &self.image_pool {
            Some(_) => {
                let table = images.fragments.as_ref().ok_or_else(|| self.missing("images.fragments"))?;
                let rows = table.gather(items)?;
                Matrix { rows: items.len() * table.fragments(), cols: table.width(), data: rows.data }
            }
            None => self.shape.image.gather(self.method, images, items)?,
        };
        let expected = (self.shape.image_width, self.shape.image.need());
        check_rows(self.method, &matrix, expected, "image", |row| items[row * items.len() / matrix.rows])?;
        let x = Tensor::from_vec(matrix.data, (matrix.rows, matrix.cols), device)?;
        let x = if self.options.normalise_features { unit(&x)? } else { x };
        let projected = self.image.forward(&x, training)?;
        let pooled = match &self.image_pool {
            None => projected,
            Some(pool) => {
                let each = matrix.rows / items.len().max(1);
                pool.forward(&projected, &Lengths::new(std::iter::repeat_n(each, items.len()))?)?.0
            }
        };
        self.finish(&pooled, self.finish.unit_images)
    }

    /// Equation (2) for some texts, `[items.len(), embedding]`; `rows` are the vectors of all of `texts` where words are not
    /// read. The stream is that of [`Joint::images`].
    ///
    /// # Errors
    /// A representation that is missing, a text without words, or a word that was not trained.
    pub fn texts(
        &self,
        texts: &Texts,
        rows: &TextRows,
        items: &[usize],
        training: Option<&mut Stream>,
        device: &Device,
    ) -> Result<Tensor> {
        let pooled = match &self.text {
            TextSide::Vectors(branch) => {
                let rows = rows.as_ref().ok_or_else(|| self.missing(self.options.text.need()))?;
                let rows = select(rows, items);
                let expected = (self.shape.text_width, self.options.text.need());
                check_rows(self.method, &rows, expected, "text", |row| items[row])?;
                branch.forward(&Tensor::from_vec(rows.data, (rows.rows, rows.cols), device)?, training)?
            }
            TextSide::Words { encoder, pool, layer } => {
                let tokens = self.tokens(texts, items, device)?;
                let pooled = match (self.options.text_pooling, pool) {
                    (TextPooling::Last, _) => encoder.last(&tokens)?,
                    (_, Some(pool)) => pool.forward(&encoder.tokens(&tokens)?, &tokens.lengths)?.0,
                    (TextPooling::Max, _) => largest(&encoder.tokens(&tokens)?, &tokens.lengths)?,
                    (_, None) => tokens.lengths.mean(&encoder.tokens(&tokens)?)?,
                };
                match layer {
                    Some(layer) => layer.forward(&pooled)?,
                    None => pooled,
                }
            }
        };
        self.finish(&pooled, self.finish.unit_texts)
    }

    /// The vectors of an image's regions, each as in equation (1): `[items.len(), regions, embedding]`.
    ///
    /// # Errors
    /// As [`Joint::images`].
    pub fn regions(
        &self,
        images: &Images,
        items: &[usize],
        training: Option<&mut Stream>,
        device: &Device,
    ) -> Result<Tensor> {
        let table = images.fragments.as_ref().ok_or_else(|| self.missing("images.fragments"))?;
        let (regions, width) = (table.fragments(), table.width());
        let matrix = Matrix { rows: items.len() * regions, cols: width, data: table.gather(items)?.data };
        let expected = (self.shape.image_width, "images.fragments");
        check_rows(self.method, &matrix, expected, "image", |row| items[row / regions])?;
        let x = Tensor::from_vec(matrix.data, (matrix.rows, width), device)?;
        let x = if self.options.normalise_features { unit(&x)? } else { x };
        let y = self.finish(&self.image.forward(&x, training)?, self.finish.unit_images)?;
        Ok(y.reshape((items.len(), regions, self.options.embedding))?)
    }

    /// The vectors of the words of some texts, each as in equation (2) without pooling: `[words, embedding]`, text after text.
    ///
    /// # Errors
    /// As [`Joint::texts`], or encoders that read no words.
    pub fn words(&self, texts: &Texts, items: &[usize], device: &Device) -> Result<(Tensor, Lengths)> {
        let TextSide::Words { encoder, layer, .. } = &self.text else {
            return Err(Error::Numeric(format!(
                "{}: attention reads words, and `text_encoder = \"vectors\"` reads none; choose another",
                self.method
            )));
        };
        let tokens = self.tokens(texts, items, device)?;
        let words = encoder.tokens(&tokens)?;
        let words = match layer {
            Some(layer) => layer.forward(&words)?,
            None => words,
        };
        Ok((self.finish(&words, self.finish.unit_texts)?, tokens.lengths))
    }

    fn tokens(&self, texts: &Texts, items: &[usize], device: &Device) -> Result<Tokens> {
        let tokens = texts.tokens.as_ref().ok_or_else(|| self.missing("texts.tokens"))?;
        if let Some(&item) = items.iter().find(|&&item| tokens[item].is_empty()) {
            return Err(Error::Numeric(format!(
                "{}: text {item} (`{}`) has no tokens; drop empty captions from the dataset",
                self.method, texts.ids[item]
            )));
        }
        Tokens::new(items.iter().map(|&item| tokens[item].as_slice()), device)
    }

    fn finish(&self, pooled: &Tensor, scale: bool) -> Result<Tensor> {
        let scaling = if scale { Scaling::Unit } else { Scaling::None };
        let y = scaling.apply(pooled)?;
        Ok(if self.finish.absolute { y.abs()? } else { y })
    }

    fn missing(&self, need: &str) -> Error {
        Error::Missing { method: self.method.into(), need: need.into(), dataset: "to encode".into() }
    }
}

fn select(rows: &Matrix, items: &[usize]) -> Matrix {
    let data = items.iter().flat_map(|&item| rows.row(item)).copied().collect();
    Matrix { rows: items.len(), cols: rows.cols, data }
}

/// Refuses rows of another width than `expected` and values that are not finite.
fn check_rows(
    method: &str,
    rows: &Matrix,
    (width, need): (usize, &str),
    kind: &str,
    item: impl Fn(usize) -> usize,
) -> Result<()> {
    if rows.cols != width {
        return Err(Error::Format {
            file: format!("{need} for method `{method}`"),
            expected: format!("vectors of length {width} as in training"),
            found: format!("length {}", rows.cols),
        });
    }
    match rows.data.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Error::Numeric(format!(
            "{method}: expected finite features, found {} in {kind} {}, column {}; check the features",
            rows.data[at],
            item(at / rows.cols),
            at % rows.cols
        ))),
    }
}

/// The largest value of each column over a text's tokens, `[texts, width]`.
fn largest(tokens: &Tensor, lengths: &Lengths) -> Result<Tensor> {
    let steps = lengths.longest();
    let inside = lengths.mask(steps, tokens.device())?.to_dtype(DType::F32)?.unsqueeze(D::Minus1)?;
    let behind = ((inside - 1.0)? * 1e9)?;
    Ok(lengths.pad(tokens, steps)?.broadcast_add(&behind)?.max(1)?)
}
