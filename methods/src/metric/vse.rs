//! VSE0 and VSE++ (Faghri, Fleet, Kiros, Fidler, BMVC 2018): two encoders into one space, trained by a hinge on the scores of
//! a batch; VSE++ lets only the hardest wrong text and the hardest wrong image count.
//!
//! With `b` matching pairs a batch, image vectors `x_i` and texts of words `w_1 .. w_T`:
//!
//! ```text
//! v_i  = unit(W x_i + c)                                                                   (1)
//! t_j  = unit(GRU(w_1 .. w_T)_T)                                                           (2)
//! s_ij = v_i . t_j,  or for order embeddings  -|[t_j - v_i]+|                              (3)
//! VSE0   sum_i sum_{j != i} [margin + s_ij - s_ii]+ + [margin + s_ji - s_ii]+              (4)
//! VSE++  sum_i max_{j != i} [margin + s_ij - s_ii]+ + max_{j != i} [margin + s_ji - s_ii]+ (5)
//! ```
//!
//! Image vectors are given, as in the released code's `precomp` datasets: there is no network to fine-tune below (1).
//! The released VSE0 leaves `v_i` unscaled (`normalise_images = false`). Beyond the paper, as options: both directions of the
//! GRU averaged token by token, pooling by the mean or by GPO (VSE-infinity) on either side, and negatives of the same image
//! left out.

use std::{ops::Range, path::Path};

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use xmbench_datasets::{Images, Matrix, Texts};

use crate::{
    Codes, Error, Matcher, Method, PairScorer, Result, Run, Similarity, Training,
    card::Card,
    linalg::views::ImageInput,
    loss::{hinge_except, order_score, order_scores},
    nn::{Gpo, ImageEncoder, Lengths, Linear, Scaling, TextEncoder, TextLayer, TextSettings, Tokens, Weights, unit},
    params,
    train::{Model, Schedule, Step, train},
};

const NAME: &str = "vse";
const WEIGHTS: &str = "weights.safetensors";
const SHAPE: &str = "vse.toml";

/// Items that are encoded at once.
const BLOCK: usize = 256;

/// The method.
pub struct Vse;

/// Its parameters; the defaults are those of VSE++.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Equation (5) instead of (4).
    pub max_violation: bool,
    /// Epochs of (4) before (5) takes effect; 0 as in the paper. Keeps a fresh model from collapsing.
    pub warmup: usize,
    /// Margin of the hinge.
    pub margin: f64,
    /// Length of the vectors of (1) and (2).
    pub embedding: usize,
    /// Length of a word vector.
    pub word: usize,
    /// Layers of the GRU.
    pub layers: usize,
    /// Which score of (3).
    pub measure: Measure,
    /// Which text encoder.
    pub text_encoder: Encoder,
    /// How the vectors of a text's tokens become one.
    pub text_pooling: TextPooling,
    /// Which vectors stand for an image.
    pub image: ImageInput,
    /// How the vectors of an image's fragments become one.
    pub image_pooling: ImagePooling,
    /// Whether image features are scaled to unit length before (1).
    pub normalise_features: bool,
    /// Whether (1) scales to unit length.
    pub normalise_images: bool,
    /// Whether (1) and (2) end with absolute values.
    pub absolute: bool,
    /// Whether other texts of the same image are left out of the negatives.
    pub mask_same_image: bool,
    /// How the model is trained.
    #[serde(flatten)]
    pub schedule: Schedule,
}

/// How an image and a text are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Measure {
    /// Dot product of the vectors; their cosine where images are scaled.
    Cosine,
    /// Order violation.
    Order,
}

/// Recurrent layer of the text side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoder {
    /// One direction.
    Gru,
    /// Both directions, averaged token by token.
    Bigru,
}

/// Tokens to text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextPooling {
    /// The state where the recurrence ends.
    Last,
    /// The mean over tokens.
    Mean,
    /// Learnt weights over sorted values.
    Gpo,
}

/// Fragments to image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImagePooling {
    /// The mean over fragments, before (1).
    Mean,
    /// Learnt weights over sorted values, after the matrix of (1).
    Gpo,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            max_violation: true,
            warmup: 0,
            margin: 0.2,
            embedding: 1024,
            word: 300,
            layers: 1,
            measure: Measure::Cosine,
            text_encoder: Encoder::Gru,
            text_pooling: TextPooling::Last,
            image: ImageInput::Auto,
            image_pooling: ImagePooling::Mean,
            normalise_features: false,
            normalise_images: true,
            absolute: false,
            mask_same_image: false,
            schedule: Schedule::default(),
        }
    }
}

impl Params {
    /// Completed and checked parameters.
    ///
    /// # Errors
    /// As [`params::parse`], or a value out of range.
    pub fn read(table: &toml::Table) -> Result<Self> {
        let read: Self = params::parse(NAME, table)?;
        for (key, value, most) in
            [("embedding", read.embedding, 1 << 16), ("word", read.word, 1 << 16), ("layers", read.layers, 8)]
        {
            if value == 0 || value > most {
                return Err(params::out_of_range(NAME, key, &format!("1 to {most}"), value));
            }
        }
        if !(read.margin >= 0.0 && read.margin.is_finite()) {
            return Err(params::out_of_range(NAME, "margin", "a number from 0 up", read.margin));
        }
        read.schedule.check(NAME)?;
        Ok(read)
    }
}

impl Method for Vse {
    fn card(&self) -> &Card {
        crate::card!("vse.toml")
    }

    fn resolve(&self, table: &toml::Table) -> Result<toml::Table> {
        Params::read(table).map(|params| params::to_table(&params))
    }

    fn fit(&self, training: &Training<'_>, table: &toml::Table, run: &mut Run<'_>) -> Result<Box<dyn Matcher>> {
        let params = Params::read(table)?;
        let schedule = params.schedule.clone();
        let shape = Shape::of(training, &params)?;
        let mut model = Embedding::new(Weights::new(run.seed, &run.device), params, shape)?;
        train(&mut model, training, &schedule, run)?;
        model.matcher()
    }

    fn load(&self, from: &Path, device: &Device) -> Result<Box<dyn Matcher>> {
        let path = from.join(SHAPE);
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        let saved: Saved = toml::from_str(&text).map_err(|error| Error::Format {
            file: path.display().to_string(),
            expected: "the parameters and shape of a saved vse matcher".into(),
            found: error.message().into(),
        })?;
        let weights = Weights::open(&from.join(WEIGHTS), device)?;
        Ok(Box::new(Embedding::new(weights, Params::read(&saved.params)?, saved.shape)?))
    }
}

/// What the data decide.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Shape {
    image: ImageInput,
    image_width: usize,
    vocabulary: usize,
}

/// What is saved beside the weights.
#[derive(Serialize, Deserialize)]
struct Saved {
    params: toml::Table,
    shape: Shape,
}

impl Shape {
    fn of(training: &Training<'_>, params: &Params) -> Result<Self> {
        let images = &training.train.images;
        let wanted = if params.image_pooling == ImagePooling::Gpo { ImageInput::Fragments } else { params.image };
        let missing = || training.missing(NAME, wanted.need());
        let image = wanted.resolve(images).ok_or_else(missing)?;
        let image_width = image.width(images).ok_or_else(missing)?;
        if training.train.texts.tokens.is_none() || training.vocabulary == 0 {
            return Err(training.missing(NAME, "texts.tokens"));
        }
        Ok(Self { image, image_width, vocabulary: training.vocabulary })
    }
}

/// Both encoders, in training or fitted.
struct Embedding {
    params: Params,
    shape: Shape,
    weights: Weights,
    image: ImageEncoder,
    image_pool: Option<Gpo>,
    text: TextEncoder,
    text_pool: Option<Gpo>,
}

impl Embedding {
    fn new(mut weights: Weights, params: Params, shape: Shape) -> Result<Self> {
        let layer = Linear::xavier(&mut weights, "image", shape.image_width, params.embedding)?;
        let scaling = if params.normalise_images { Scaling::Unit } else { Scaling::None };
        let image = ImageEncoder { layer, scaling, absolute: params.absolute };
        let text = TextEncoder::new(
            &mut weights,
            "text",
            shape.vocabulary,
            TextSettings {
                layer: match params.text_encoder {
                    Encoder::Gru => TextLayer::Gru,
                    Encoder::Bigru => TextLayer::Bigru,
                },
                word: params.word,
                hidden: params.embedding,
                layers: params.layers,
            },
        )?;
        let mut pool = |wanted, name| if wanted { Gpo::new(&mut weights, name, 32, 32).map(Some) } else { Ok(None) };
        let image_pool = pool(params.image_pooling == ImagePooling::Gpo, "image.pool")?;
        let text_pool = pool(params.text_pooling == TextPooling::Gpo, "text.pool")?;
        Ok(Self { params, shape, weights, image, image_pool, text, text_pool })
    }

    /// Equation (1) for some images, `[items.len(), embedding]`.
    fn images(&self, images: &Images, items: &[usize]) -> Result<Tensor> {
        let matrix = match &self.image_pool {
            Some(_) => {
                let table = images.fragments.as_ref().ok_or_else(|| self.missing("images.fragments"))?;
                let rows = table.gather(items)?;
                Matrix { rows: items.len() * table.fragments(), cols: table.width(), data: rows.data }
            }
            None => self.shape.image.gather(NAME, images, items)?,
        };
        if matrix.cols != self.shape.image_width {
            return Err(Error::Format {
                file: format!("{} for method `{NAME}`", self.shape.image.need()),
                expected: format!("vectors of length {} as in training", self.shape.image_width),
                found: format!("length {}", matrix.cols),
            });
        }
        if let Some(at) = matrix.data.iter().position(|value| !value.is_finite()) {
            let row = at / matrix.cols;
            let image = items[row * items.len() / matrix.rows];
            return Err(Error::Numeric(format!(
                "{NAME}: expected finite features, found {} in image {image}, column {}; check the features",
                matrix.data[at],
                at % matrix.cols
            )));
        }
        let x = Tensor::from_vec(matrix.data, (matrix.rows, matrix.cols), self.weights.device())?;
        let x = if self.params.normalise_features { unit(&x)? } else { x };
        match &self.image_pool {
            None => self.image.forward(&x),
            Some(pool) => {
                let each = matrix.rows / items.len().max(1);
                let lengths = Lengths::new(std::iter::repeat_n(each, items.len()))?;
                self.image.finish(&pool.forward(&self.image.layer.forward(&x)?, &lengths)?.0)
            }
        }
    }

    /// Equation (2) for some texts, `[items.len(), embedding]`.
    fn texts(&self, texts: &Texts, items: &[usize]) -> Result<Tensor> {
        let tokens = texts.tokens.as_ref().ok_or_else(|| self.missing("texts.tokens"))?;
        if let Some(&item) = items.iter().find(|&&item| tokens[item].is_empty()) {
            return Err(Error::Numeric(format!(
                "{NAME}: text {item} (`{}`) has no tokens; drop empty captions from the dataset",
                texts.ids[item]
            )));
        }
        let tokens = Tokens::new(items.iter().map(|&item| tokens[item].as_slice()), self.weights.device())?;
        let pooled = match (self.params.text_pooling, &self.text_pool) {
            (TextPooling::Last, _) => self.text.last(&tokens)?,
            (_, Some(pool)) => pool.forward(&self.text.tokens(&tokens)?, &tokens.lengths)?.0,
            (_, None) => tokens.lengths.mean(&self.text.tokens(&tokens)?)?,
        };
        let scaled = unit(&pooled)?;
        Ok(if self.params.absolute { scaled.abs()? } else { scaled })
    }

    fn missing(&self, need: &str) -> Error {
        Error::Missing { method: NAME.into(), need: need.into(), dataset: "the items to encode".into() }
    }

    /// Codes of `n` items, block by block in the given order.
    fn encode(&self, order: &[usize], block: impl Fn(&[usize]) -> Result<Tensor>) -> Result<Codes> {
        let mut codes = Matrix::zeros(order.len(), self.params.embedding);
        for items in order.chunks(BLOCK) {
            let rows = block(items)?.flatten_all()?.to_vec1::<f32>()?;
            for (&item, row) in items.iter().zip(rows.chunks_exact(self.params.embedding)) {
                codes.row_mut(item).copy_from_slice(row);
            }
        }
        Ok(Codes::Dense(codes))
    }
}

impl Model for Embedding {
    fn weights(&self) -> &Weights {
        &self.weights
    }

    fn loss(&self, training: &Training<'_>, batch: &[(u32, u32)], step: &mut Step) -> Result<Tensor> {
        let hardest = self.params.max_violation && step.epoch >= self.params.warmup;
        let (images, texts): (Vec<usize>, Vec<usize>) = batch.iter().map(|&(i, t)| (i as usize, t as usize)).unzip();
        let v = self.images(&training.train.images, &images)?; // (1)
        let t = self.texts(&training.train.texts, &texts)?; // (2)
        let scores = match self.params.measure {
            Measure::Cosine => v.matmul(&t.t()?)?,
            Measure::Order => order_scores(&v, &t)?,
        }; // (3)
        let mut except = Vec::new();
        if self.params.mask_same_image {
            let pairs = &training.train.pairs;
            for &image in &images {
                let own = pairs.texts_of(image);
                except.extend(texts.iter().map(|&text| own.binary_search(&(text as u32)).is_ok()));
            }
        }
        hinge_except(&scores, self.params.margin, hardest, &except) // (4), (5)
    }

    fn matcher(&self) -> Result<Box<dyn Matcher>> {
        let weights = Weights::frozen(self.weights.snapshot()?, "trained weights", self.weights.device());
        Ok(Box::new(Self::new(weights, self.params.clone(), self.shape.clone())?))
    }
}

impl Matcher for Embedding {
    fn encode_images(&self, images: &Images) -> Result<Codes> {
        self.encode(&(0..images.len()).collect::<Vec<_>>(), |items| self.images(images, items))
    }

    fn encode_texts(&self, texts: &Texts) -> Result<Codes> {
        let tokens = texts.tokens.as_ref().ok_or_else(|| self.missing("texts.tokens"))?;
        // Texts of like length side by side keep the recurrence's products large.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&item| tokens[item].len());
        self.encode(&order, |items| self.texts(texts, items))
    }

    fn similarity(&self) -> Similarity<'_> {
        match self.params.measure {
            Measure::Order => Similarity::Pairwise(&OrderScorer),
            Measure::Cosine if self.params.normalise_images => Similarity::Cosine,
            Measure::Cosine => Similarity::Dot,
        }
    }

    fn save(&self, to: &Path) -> Result<()> {
        let saved = Saved { params: params::to_table(&self.params), shape: self.shape.clone() };
        let text = toml::to_string(&saved).expect("parameters and shape are plain values");
        std::fs::write(to.join(SHAPE), text).map_err(Error::io(to.join(SHAPE)))?;
        self.weights.save(&to.join(WEIGHTS))
    }
}

/// Order scores of pairs of dense codes.
struct OrderScorer;

impl PairScorer for OrderScorer {
    fn score(
        &self,
        images: &Codes,
        rows: Range<usize>,
        texts: &Codes,
        columns: Range<usize>,
        out: &mut [f32],
    ) -> Result<()> {
        let (Codes::Dense(images), Codes::Dense(texts)) = (images, texts) else {
            return Err(Error::Numeric(format!("{NAME}: order scores compare dense codes only")));
        };
        for (i, out) in rows.zip(out.chunks_mut(columns.len().max(1))) {
            for (score, j) in out.iter_mut().zip(columns.clone()) {
                *score = order_score(images.row(i), texts.row(j));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
