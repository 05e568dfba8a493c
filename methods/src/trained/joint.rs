//! Encoders of images and texts as the body of a method: pooled to one vector an item, or region by region and word by word.

use std::{cell::OnceCell, path::Path};

use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use xmbench_datasets::{Images, Texts};

use super::{Batch, Body};
use crate::{
    Codes, Result, Run, Similarity, Training,
    linalg::views::ImageInput,
    nn::{Encoders, Finish, Joint, Lengths, Shape, States, TextLayer, TextModel, Weights, WordSource},
};

/// Vectors of the regions of some images.
pub struct Regions {
    /// As the layer makes them, `[images, regions, d]`.
    pub raw: Tensor,
    /// As the encoder ends, scaled.
    pub ends: Tensor,
}

/// Vectors of the words of some texts, one text after another without padding.
pub struct Words {
    /// As the encoder makes them, `[total, d]`.
    pub raw: Tensor,
    /// As it ends, scaled.
    pub ends: Tensor,
    /// Words of each text.
    pub lengths: Lengths,
}

/// What of a step has been encoded.
#[derive(Default)]
pub struct Seen {
    v: OnceCell<Tensor>,
    t: OnceCell<Tensor>,
    regions: OnceCell<Regions>,
    states: OnceCell<States>,
    words: OnceCell<Words>,
}

/// A body that consists of an image and a text encoder.
pub trait Encoding: Body<Seen = Seen> {
    /// Both encoders.
    fn joint(&self) -> &Joint;
}

impl<B: Encoding> Batch<'_, B> {
    /// Image vectors, `[images, d]`.
    ///
    /// # Errors
    /// As [`Joint::images`].
    pub fn v(&self) -> Result<&Tensor> {
        let joint = self.body().joint();
        self.once(
            |seen| &seen.v,
            || match joint.pools_regions() {
                true => joint.pool_regions(&self.regions()?.raw),
                false => joint.images(&self.training.train.images, &self.items.images, Some(&mut self.stream())),
            },
        )
    }

    /// Text vectors, `[texts, d]`.
    ///
    /// # Errors
    /// As [`Joint::training_texts`].
    pub fn t(&self) -> Result<&Tensor> {
        let joint = self.body().joint();
        self.once(
            |seen| &seen.t,
            || match joint.pools_states() {
                true => joint.pool_states(self.states()?),
                false => joint.training_texts(&self.training.train.texts, &self.items.texts, Some(&mut self.stream())),
            },
        )
    }

    /// Scores of vectors, `v_i . t_j`, `[images, texts]`.
    ///
    /// # Errors
    /// As [`Batch::v`] and [`Batch::t`].
    pub fn scores(&self) -> Result<Tensor> {
        let v = self.v()?;
        Ok(v.matmul(&self.t()?.t()?)?)
    }

    /// Vectors of regions, in the dataset's order.
    ///
    /// # Errors
    /// As [`Joint::regions`].
    pub fn regions(&self) -> Result<&Regions> {
        let joint = self.body().joint();
        self.once(
            |seen| &seen.regions,
            || {
                let raw = joint.regions(&self.training.train.images, &self.items.images, Some(&mut self.stream()))?;
                Ok(Regions { ends: joint.finish_images(&raw)?, raw })
            },
        )
    }

    /// Vectors of words, in the order of the sentence.
    ///
    /// # Errors
    /// As [`Joint::states`].
    pub fn words(&self) -> Result<&Words> {
        let joint = self.body().joint();
        self.once(
            |seen| &seen.words,
            || {
                let states = self.states()?;
                let raw = joint.words(states)?;
                Ok(Words { ends: joint.finish_texts(&raw)?, raw, lengths: states.tokens.lengths.clone() })
            },
        )
    }

    /// The boxes of each image's regions, image after image, where the dataset has them.
    pub fn boxes(&self) -> Option<Vec<[f32; 4]>> {
        let images = &self.training.train.images;
        let boxes = images.boxes.as_ref()?;
        let each = boxes.len() / images.len().max(1);
        Some(self.items.images.iter().flat_map(|&item| &boxes[item * each..(item + 1) * each]).copied().collect())
    }

    fn states(&self) -> Result<&States> {
        let texts = &self.training.train.texts;
        self.once(|seen| &seen.states, || self.body().joint().states(texts, &self.items.texts))
    }
}

impl Body for Joint {
    type Options = Encoders;
    type Ends = Finish;
    type Shape = Shape;
    type Seen = Seen;

    const SIMILARITY: Similarity<'static> = Similarity::Cosine;

    fn check(options: &Encoders, method: &str) -> Result<()> {
        options.check(method)
    }

    fn fit(
        method: &'static str,
        options: &Encoders,
        ends: Finish,
        training: &Training<'_>,
        run: &Run<'_>,
        weights: &mut Weights,
    ) -> Result<Self> {
        Self::fit(method, options, ends, training, run, weights)
    }

    fn shape(&self) -> &Shape {
        self.shape()
    }

    fn on(&self, weights: &mut Weights) -> Result<Self> {
        self.on(weights)
    }

    fn encode_images(&self, images: &Images) -> Result<Codes> {
        self.encode_images(images)
    }

    fn encode_texts(&self, texts: &Texts) -> Result<Codes> {
        self.encode_texts(texts)
    }

    fn save(&self, to: &Path) -> Result<()> {
        self.save(to)
    }

    fn load(
        method: &'static str,
        options: &Encoders,
        ends: Finish,
        shape: Shape,
        from: &Path,
        weights: &mut Weights,
    ) -> Result<Self> {
        Self::load(method, options, ends, shape, from, weights)
    }
}

impl Encoding for Joint {
    fn joint(&self) -> &Joint {
        self
    }
}

/// Parameters of encoders that give every region and every word a vector of its own; flattened into those of the methods that
/// attend. The defaults are those of SCAN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FragmentEncoders {
    /// Length of the vectors of regions and words.
    pub embedding: usize,
    /// What reads a text.
    pub text_encoder: TextLayer,
    /// Length of a word vector.
    pub word: usize,
    /// Where word vectors come from.
    pub words: WordSource,
    /// Layers of the recurrence or Transformer.
    pub layers: usize,
    /// Whether image features are scaled to unit length first.
    pub normalise_features: bool,
    /// Width of a hidden layer between features and the joint space; 0 for none.
    pub hidden: usize,
    /// Share of the hidden layer that is dropped in training.
    pub dropout: f64,
}

impl Default for FragmentEncoders {
    fn default() -> Self {
        let Encoders { embedding, word, words, layers, normalise_features, hidden, dropout, .. } = Encoders::default();
        Self { embedding, text_encoder: TextLayer::Bigru, word, words, layers, normalise_features, hidden, dropout }
    }
}

impl FragmentEncoders {
    fn whole(&self) -> Encoders {
        let Self { embedding, text_encoder, word, words, layers, normalise_features, hidden, dropout } = *self;
        let (image, text_encoder) = (ImageInput::Fragments, TextModel::Words(text_encoder));
        Encoders {
            embedding,
            text_encoder,
            word,
            words,
            layers,
            normalise_features,
            hidden,
            dropout,
            image,
            ..Encoders::default()
        }
    }
}

/// [`Joint`] for methods that compare regions with words: its codes are fragments.
pub struct Attended(Joint);

impl Body for Attended {
    type Options = FragmentEncoders;
    type Ends = Finish;
    type Shape = Shape;
    type Seen = Seen;

    /// Of fragments; a loss on this body has a scorer of its own.
    const SIMILARITY: Similarity<'static> = Similarity::Dot;

    fn check(options: &FragmentEncoders, method: &str) -> Result<()> {
        options.whole().check(method)
    }

    fn fit(
        method: &'static str,
        options: &FragmentEncoders,
        ends: Finish,
        training: &Training<'_>,
        run: &Run<'_>,
        weights: &mut Weights,
    ) -> Result<Self> {
        Joint::fit(method, &options.whole(), ends, training, run, weights).map(Self)
    }

    fn shape(&self) -> &Shape {
        self.0.shape()
    }

    fn on(&self, weights: &mut Weights) -> Result<Self> {
        self.0.on(weights).map(Self)
    }

    fn encode_images(&self, images: &Images) -> Result<Codes> {
        self.0.encode_regions(images)
    }

    fn encode_texts(&self, texts: &Texts) -> Result<Codes> {
        self.0.encode_words(texts)
    }

    fn save(&self, to: &Path) -> Result<()> {
        self.0.save(to)
    }

    fn load(
        method: &'static str,
        options: &FragmentEncoders,
        ends: Finish,
        shape: Shape,
        from: &Path,
        weights: &mut Weights,
    ) -> Result<Self> {
        Joint::load(method, &options.whole(), ends, shape, from, weights).map(Self)
    }
}

impl Encoding for Attended {
    fn joint(&self) -> &Joint {
        &self.0
    }
}
