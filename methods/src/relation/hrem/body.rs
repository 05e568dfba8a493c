//! The encoders, equations (1) to (4): what is left of the method once it is trained.

use std::{cell::OnceCell, path::Path};

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use xmbench_datasets::{Images, Matrix, Texts, WordVectors, random::Stream};

use super::pooled::{self, Encoded, Pool, Pooling};
use crate::{
    Codes, Error, Result, Run, Similarity, Training,
    nn::{
        Activation, Dense, Embedding, Init, LayerNames, Lengths, Linear, Mlp, MlpSettings, Relating, TextEncoder,
        TextLayer, TextSettings, Tokens, Weights, WordSource, check_rows, in_blocks, unit,
    },
    params::out_of_range,
    trained::{Batch, Body},
};

/// What a dataset must have.
const REGIONS: &str = "images.fragments";
const WORDS: &str = "texts.tokens";
/// Items that are encoded at once.
const BLOCK: usize = 128;

/// Parameters of the encoders.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Length of a vector of the joint space, d.
    pub embedding: usize,
    /// What reads a text.
    pub text_encoder: TextModel,
    /// Length of a word vector.
    pub word: usize,
    /// Where word vectors come from.
    pub words: WordSource,
    /// Layers of the recurrence or Transformer that reads.
    pub layers: usize,
    /// Whether image features are scaled to unit length first.
    pub normalise_features: bool,
    /// Width of the hidden layer of (1); 0 leaves the MLP out.
    pub hidden: usize,
    /// Share that layers of relations drop in training.
    pub dropout: f64,
    /// Heads of those layers.
    pub heads: usize,
    /// How (3) begins.
    pub pooling: Pooling,
    /// `k` of (3).
    pub k: usize,
    /// `alpha` of (3).
    pub pooled_share: f64,
    /// Share of regions that training leaves out.
    pub drop_regions: f64,
    /// Share of words that training hides, replaces or leaves out.
    pub drop_words: f64,
}

/// What makes vectors of words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextModel {
    /// Nothing reads: word vectors through a linear layer.
    Words,
    /// A layer over words; behind both directions of an LSTM side by side, and behind a Transformer, a linear one.
    #[serde(untagged)]
    Read(TextLayer),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            embedding: 1024,
            text_encoder: TextModel::Read(TextLayer::Bigru),
            word: 300,
            words: WordSource::Learned,
            layers: 1,
            normalise_features: false,
            hidden: 512,
            dropout: 0.1,
            heads: 16,
            pooling: Pooling::Kmax,
            k: 2,
            pooled_share: 0.8,
            drop_regions: 0.2,
            drop_words: 0.2,
        }
    }
}

impl Options {
    /// A layer of relations between vectors of the joint space.
    pub fn relating(&self) -> Relating {
        Relating { width: self.embedding, heads: self.heads, hidden: self.embedding, dropout: self.dropout }
    }

    fn pool(&self) -> pooled::Shape {
        pooled::Shape { pooling: self.pooling, k: self.k, share: self.pooled_share, layer: self.relating() }
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

/// Equations (1) and (2) with what pools them. Weights `image.fc`, `image.mlp`, `image.relating`, `text.*`, `text.relating`.
pub struct Encoders {
    method: &'static str,
    options: Options,
    shape: Shape,
    fc: Dense,
    mlp: Option<Mlp>,
    reader: Reader,
    pools: [Pool; 2],
    device: Device,
}

/// Equation (2).
enum Reader {
    Words { embedding: Embedding, layer: Dense },
    Read { encoder: TextEncoder, layer: Option<Linear> },
}

/// What of a step has been encoded.
#[derive(Default)]
pub struct Seen {
    images: OnceCell<Encoded>,
    texts: OnceCell<Encoded>,
}

impl Batch<'_, Encoders> {
    /// Images, in training.
    pub(super) fn image_nodes(&self) -> Result<&Encoded> {
        let images = &self.training.train.images;
        self.once(|seen| &seen.images, || self.body().images(images, &self.items.images, Some(&mut self.stream())))
    }

    /// Texts, in training.
    pub(super) fn text_nodes(&self) -> Result<&Encoded> {
        let texts = &self.training.train.texts;
        self.once(|seen| &seen.texts, || self.body().texts(texts, &self.items.texts, Some(&mut self.stream())))
    }
}

impl Encoders {
    pub(super) fn new(
        method: &'static str,
        options: &Options,
        shape: Shape,
        vectors: Option<&WordVectors>,
        weights: &mut Weights,
    ) -> Result<Self> {
        let (d, word) = (options.embedding, options.word);
        let fc = Dense::new(weights, "image.fc", shape.image_width, d, Activation::Identity)?;
        let mlp = match options.hidden {
            0 => None,
            hidden => {
                let settings = MlpSettings {
                    names: LayerNames::Numbered,
                    norm: true,
                    init: Init::Xavier,
                    ..MlpSettings::default()
                };
                Some(Mlp::new(weights, "image.mlp", &[shape.image_width, hidden, d], settings)?)
            }
        };
        // One more word, which stands for one that training hides.
        let known = shape.vocabulary + 1;
        let reader = match options.text_encoder {
            TextModel::Words => Reader::Words {
                embedding: Embedding::new(weights, "text.embedding", [known, word], options.words, vectors)?,
                layer: Dense::new(weights, "text.layer", word, d, Activation::Identity)?,
            },
            TextModel::Read(layer) => {
                let settings = TextSettings { layer, word, hidden: d, layers: options.layers, words: options.words };
                let encoder = TextEncoder::new(weights, "text", known, settings, vectors)?;
                let layer = match layer {
                    TextLayer::Gru | TextLayer::Bigru => None,
                    _ => Some(Linear::xavier(weights, "text.layer", encoder.width(), d)?),
                };
                Reader::Read { encoder, layer }
            }
        };
        let pools = [Pool::new(weights, "image", options.pool())?, Pool::new(weights, "text", options.pool())?];
        let device = weights.device().clone();
        Ok(Self { method, options: options.clone(), shape, fc, mlp, reader, pools, device })
    }

    /// Equation (1) for rows of features, `[n, image_width]` to `[n, d]`.
    pub(super) fn regions(&self, x: &Tensor, training: Option<&mut Stream>) -> Result<Tensor> {
        let z = self.fc.forward(x)?;
        Ok(match &self.mlp {
            Some(mlp) => (z + mlp.forward(x, training)?)?, // (1)
            None => z,
        })
    }

    /// Equations (1), (3) and (4) for some images. With a stream the encoder is in training: regions are left out, batch normalisation
    /// goes by the batch and dropout drops.
    ///
    /// # Errors
    /// Features that are missing, of another width or not finite.
    pub fn images(&self, images: &Images, items: &[usize], mut training: Option<&mut Stream>) -> Result<Encoded> {
        let table = images.fragments.as_ref().ok_or_else(|| self.missing(REGIONS))?;
        let (each, cols) = (table.fragments(), table.width());
        let mut rows = Matrix { rows: items.len() * each, cols, data: table.gather(items)?.data };
        check_rows(self.method, &rows, (self.shape.image_width, REGIONS), "image", items)?;
        let mut lengths = vec![each; items.len()];
        if let (Some(stream), true) = (&mut training, self.options.drop_regions > 0.0) {
            (rows, lengths) = thinned(&rows, each, self.options.drop_regions, stream);
        }
        let x = Tensor::from_vec(rows.data, (rows.rows, rows.cols), &self.device)?;
        let x = if self.options.normalise_features { unit(&x)? } else { x };
        let z = self.regions(&x, training.as_deref_mut())?;
        self.pools[0].forward(z, Lengths::new(lengths)?, training)
    }

    /// Equations (2) to (4) for some texts. With a stream the encoder is in training: words are hidden, replaced or left out.
    ///
    /// # Errors
    /// A representation that is missing, a text without words, or a word that was not trained.
    pub fn texts(&self, texts: &Texts, items: &[usize], mut training: Option<&mut Stream>) -> Result<Encoded> {
        let tokens = texts.tokens.as_ref().ok_or_else(|| self.missing(WORDS))?;
        let mut read = Vec::with_capacity(items.len());
        for &item in items {
            let text = tokens[item].as_slice();
            let wrong = |what: String| {
                Err(Error::Numeric(format!("{}: text {item} (`{}`) {what}", self.method, texts.ids[item])))
            };
            if text.is_empty() {
                return wrong("has no tokens; drop empty captions from the dataset".into());
            }
            if let Some(token) = text.iter().find(|&&token| token as usize >= self.shape.vocabulary) {
                return wrong(format!(
                    "has the token {token}, outside the vocabulary of {} words that was trained; encode texts of the dataset that the \
                     method was fitted on",
                    self.shape.vocabulary
                ));
            }
            read.push(match &mut training {
                Some(stream) if self.options.drop_words > 0.0 => {
                    disturbed(text, self.options.drop_words, self.shape.vocabulary, stream)
                }
                _ => text.to_vec(),
            });
        }
        let tokens = Tokens::new(read.iter().map(Vec::as_slice), &self.device)?;
        let z = match &self.reader {
            Reader::Words { embedding, layer } => layer.forward(&embedding.forward(&tokens.ids)?)?,
            Reader::Read { encoder, layer: None } => encoder.tokens(&tokens)?,
            Reader::Read { encoder, layer: Some(layer) } => layer.forward(&encoder.tokens(&tokens)?)?,
        }; // (2)
        self.pools[1].forward(z, tokens.lengths, training)
    }

    /// What pools regions.
    pub(super) fn image_pool(&self) -> &Pool {
        &self.pools[0]
    }

    fn missing(&self, need: &str) -> Error {
        Error::Missing { method: self.method.into(), need: need.into(), dataset: "to encode".into() }
    }
}

/// The regions that are not left out, each with probability `share`, and how many each image keeps: all, where none would be left.
fn thinned(rows: &Matrix, each: usize, share: f64, stream: &mut Stream) -> (Matrix, Vec<usize>) {
    let mut data = Vec::with_capacity(rows.data.len());
    let mut lengths = Vec::with_capacity(rows.rows / each.max(1));
    for image in 0..rows.rows / each.max(1) {
        let mut kept: Vec<usize> = (0..each).filter(|_| stream.unit() >= share).collect();
        if kept.is_empty() {
            kept = (0..each).collect();
        }
        kept.iter().for_each(|region| data.extend_from_slice(rows.row(image * each + region)));
        lengths.push(kept.len());
    }
    (Matrix { rows: lengths.iter().sum(), cols: rows.cols, data }, lengths)
}

/// A text of which each word is disturbed with probability `share`: hidden (the token `vocabulary`) in 5 of 10 cases, replaced by any
/// word in 1 and left out in 4. The first and the last token, which begin and end it, stay.
fn disturbed(text: &[u32], share: f64, vocabulary: usize, stream: &mut Stream) -> Vec<u32> {
    let mut words = Vec::with_capacity(text.len());
    for (at, &word) in text.iter().enumerate() {
        if at == 0 || at + 1 == text.len() {
            words.push(word);
            continue;
        }
        match stream.unit() / share {
            u if u >= 1.0 => words.push(word),
            u if u < 0.5 => words.push(vocabulary as u32),
            u if u < 0.6 => words.push(stream.below(vocabulary) as u32),
            _ => {}
        }
    }
    words
}

impl Body for Encoders {
    type Options = Options;
    type Ends = ();
    type Shape = Shape;
    type Seen = Seen;

    const SIMILARITY: Similarity<'static> = Similarity::Cosine;

    fn check(options: &Options, method: &str) -> Result<()> {
        for (key, value, least, most) in [
            ("embedding", options.embedding, 1, 1 << 16),
            ("word", options.word, 1, 1 << 16),
            ("layers", options.layers, 1, 8),
            ("hidden", options.hidden, 0, 1 << 16),
            ("k", options.k, 1, 1 << 16),
        ] {
            if value < least || value > most {
                return Err(out_of_range(method, key, &format!("{least} to {most}"), value));
            }
        }
        if options.heads == 0 || !options.embedding.is_multiple_of(options.heads) {
            let expected = format!("a number that divides `embedding`, which is {}", options.embedding);
            return Err(out_of_range(method, "heads", &expected, options.heads));
        }
        for (key, value) in
            [("dropout", options.dropout), ("drop_regions", options.drop_regions), ("drop_words", options.drop_words)]
        {
            if !(0.0..1.0).contains(&value) {
                return Err(out_of_range(method, key, "a number from 0 to below 1", value));
            }
        }
        if !(0.0..=1.0).contains(&options.pooled_share) {
            return Err(out_of_range(method, "pooled_share", "a number from 0 to 1", options.pooled_share));
        }
        let default = Options::default();
        if options.pooling == Pooling::Gpo && options.k != default.k {
            return Err(out_of_range(method, "k", "the default, as `gpo` has no use for it", options.k));
        }
        if options.text_encoder == TextModel::Words && options.layers != default.layers {
            return Err(out_of_range(method, "layers", "the default, as nothing reads `words`", options.layers));
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
        let table = images.fragments.as_ref().ok_or_else(|| training.missing(method, REGIONS))?;
        if texts.tokens.is_none() || training.vocabulary == 0 {
            return Err(training.missing(method, WORDS));
        }
        let shape = Shape { image_width: table.width(), vocabulary: training.vocabulary };
        Self::new(method, options, shape, options.words.vectors(method, training, options.word)?, weights)
    }

    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn on(&self, weights: &mut Weights) -> Result<Self> {
        Self::new(self.method, &self.options, self.shape.clone(), None, weights)
    }

    fn encode_images(&self, images: &Images) -> Result<Codes> {
        let order: Vec<usize> = (0..images.len()).collect();
        in_blocks(&order, self.options.embedding, BLOCK, |items| Ok(self.images(images, items, None)?.unit.detach()))
            .map(Codes::Dense)
    }

    fn encode_texts(&self, texts: &Texts) -> Result<Codes> {
        let mut order: Vec<usize> = (0..texts.ids.len()).collect();
        if let Some(tokens) = &texts.tokens {
            // Texts of like length side by side keep the recurrence's products large.
            order.sort_by_key(|&item| tokens[item].len());
        }
        in_blocks(&order, self.options.embedding, BLOCK, |items| Ok(self.texts(texts, items, None)?.unit.detach()))
            .map(Codes::Dense)
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
        Self::new(method, options, shape, None, weights)
    }
}

#[cfg(test)]
mod tests {
    use xmbench_datasets::random::Seed;

    use super::*;

    #[test]
    fn regions_and_words_are_disturbed_as_often_as_is_said() {
        let mut stream = Seed(1).stream(&["disturb"]);
        let rows = Matrix { rows: 40_000, cols: 1, data: (0..40_000).map(|i| i as f32).collect() };
        let (kept, lengths) = thinned(&rows, 40, 0.2, &mut stream);
        assert_eq!((lengths.len(), lengths.iter().sum::<usize>()), (1000, kept.rows));
        assert!((kept.rows as f64 / 40_000.0 - 0.8).abs() < 0.01 && kept.data.is_sorted(), "{}", kept.rows);
        // An image of which nothing would be left keeps all: of two regions, both are lost in 81 of 100 cases.
        let (_, lengths) = thinned(&rows, 2, 0.9, &mut stream);
        let share = |n| lengths.iter().filter(|&&length| length == n).count() as f64 / 20_000.0;
        assert!((share(1) - 0.18).abs() < 0.01 && (share(2) - (0.81 + 0.01)).abs() < 0.01);
        let text: Vec<u32> = (0..50_002).map(|_| 3).collect();
        let words = disturbed(&text, 0.2, 1000, &mut stream);
        let share = |count: usize| count as f64 / 50_000.0;
        let of = |word: u32| share(words.iter().filter(|&&w| w == word).count());
        assert!((of(1000) - 0.1).abs() < 0.005 && (of(3) - 0.8).abs() < 0.008);
        assert!((share(text.len() - words.len()) - 0.08).abs() < 0.005);
        assert!(words.iter().all(|&word| word <= 1000));
        // Nothing is left out of what begins and ends a text.
        for _ in 0..100 {
            let words = disturbed(&[1, 7, 2], 0.99, 5, &mut stream);
            assert!(words[0] == 1 && words[words.len() - 1] == 2 && words.len() >= 2);
            assert_eq!(disturbed(&[4], 0.99, 5, &mut stream), [4]);
        }
    }
}
