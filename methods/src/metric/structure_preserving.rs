//! Structure-preserving embedding by a two-branch network (Wang, Li, Lazebnik, CVPR 2016; Wang, Li, Huang, Lazebnik, TPAMI 2019):
//! a bidirectional ranking loss, and neighbours within a modality kept nearer than others.
//!
//! With distances `d` of unit vectors, sentence `y` of image `x`, and `top` the mean of the `top_k` largest hinges of a sentence:
//!
//! ```text
//! L =  image_weight        top [margin + d(y, x) - d(y, x')]+       other images x'                                (1)
//!    + sentence_weight     top [margin + d(y, x) - d(y', x)]+       sentences y' of other images                    (2)
//!    + sentence_structure  top [margin + max d(y, y+) - d(y, y')]+  y+ of the same image                            (3)
//!    + image_structure     top [margin + max d(x, x+) - d(x, x')]+  x+ of the same class, where there are labels    (4)
//! ```
//!
//! (1) to (3) are the released code (lwwang/Two_branch_network@03f106f), weights and all: a distance is the root of the squared one
//! plus 1e-4, and a sentence is its own neighbour. (4) is the paper's, which has no image neighbours on captions. A step takes the different images of its
//! pairs, each with `sentences` of its texts, drawn again every time. Each branch is a hidden layer with batch normalisation and
//! dropout over a vector ([`crate::nn::Encoders`] has it as `hidden`); the released text vectors (PCA of Fisher vectors) are not to be
//! had, so that a bag of words goes through latent semantic analysis.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use xmbench_datasets::random::Stream;

use crate::{
    Result, Training,
    card::Card,
    loss::{Structure, structure_preserving},
    nn::{Encoders, Joint, TextModel},
    params::out_of_range,
    train::Schedule,
    trained::{Batch, Fitting, Items, Loss, Shared, Trained},
};

const NAME: &str = "structure_preserving";

/// The method.
pub static STRUCTURE_PRESERVING: Trained<Params> = Trained::new();

/// Its parameters; the defaults are those of lwwang/Two_branch_network@03f106f.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Margin of every hinge.
    pub margin: f64,
    /// Weight of (1).
    pub image_weight: f64,
    /// Weight of (2).
    pub sentence_weight: f64,
    /// Weight of (3).
    pub sentence_structure: f64,
    /// Weight of (4).
    pub image_structure: f64,
    /// How many of the largest hinges count.
    pub top_k: usize,
    /// Texts of each image in a step.
    pub sentences: usize,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            margin: 0.05,
            image_weight: 1.5,
            sentence_weight: 1.0,
            sentence_structure: 0.05,
            image_structure: 0.0,
            top_k: 10,
            sentences: 2,
        }
    }
}

impl Loss for Params {
    type Body = Joint;
    type Head = ();

    fn card() -> &'static Card {
        crate::card!("structure_preserving.toml")
    }

    fn shared() -> Shared<Joint> {
        let options = Encoders {
            embedding: 512,
            text_encoder: TextModel::Vectors,
            standardise: true,
            hidden: 2048,
            dropout: 0.5,
            ..Encoders::default()
        };
        let schedule =
            Schedule { epochs: 20, batch: 500, learning_rate: 1e-4, decay_every: 0, clip: 0.0, ..Schedule::default() };
        Shared { options, schedule, negatives: None }
    }

    fn check(&self, _: &Shared<Joint>) -> Result<()> {
        for (key, value) in [
            ("margin", self.margin),
            ("image_weight", self.image_weight),
            ("sentence_weight", self.sentence_weight),
            ("sentence_structure", self.sentence_structure),
            ("image_structure", self.image_structure),
        ] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(out_of_range(NAME, key, "a number from 0 up", value));
            }
        }
        if self.image_weight + self.sentence_weight == 0.0 {
            let expected = "above 0 where `sentence_weight` is 0: nothing else ties texts to images";
            return Err(out_of_range(NAME, "image_weight", expected, self.image_weight));
        }
        for (key, value) in [("top_k", self.top_k), ("sentences", self.sentences)] {
            if value == 0 {
                return Err(out_of_range(NAME, key, "at least 1", value));
            }
        }
        Ok(())
    }

    fn items(&self, training: &Training<'_>, pairs: &[(u32, u32)], stream: &mut Stream) -> Items {
        let mut items = Items { images: Vec::new(), texts: Vec::new(), owner: Vec::new() };
        for &(image, text) in pairs {
            let image = image as usize;
            if items.images.contains(&image) {
                continue;
            }
            let mut others: Vec<u32> = training.train.pairs.texts_of(image).to_vec();
            others.retain(|&other| other != text);
            let order = stream.permutation(others.len());
            let drawn = order.into_iter().take(self.sentences - 1).map(|at| others[at]);
            for text in std::iter::once(text).chain(drawn) {
                items.texts.push(text as usize);
                items.owner.push(items.images.len());
            }
            items.images.push(image);
        }
        items
    }

    fn head(&self, _: &mut Fitting<'_, Joint>) -> Result<()> {
        Ok(())
    }

    fn loss(&self, (): &(), batch: &Batch<'_, Joint>) -> Result<Tensor> {
        let (images, sentences) = (batch.v()?, batch.t()?);
        let classes = if self.image_structure > 0.0 { Some(batch.classes()?) } else { None };
        let settings = Structure {
            margin: self.margin,
            image_weight: self.image_weight,
            sentence_weight: self.sentence_weight,
            image_structure: self.image_structure,
            sentence_structure: self.sentence_structure,
            top_k: self.top_k,
        };
        let classes = classes.as_ref().map(|[images, _]| images.as_slice());
        Ok(structure_preserving(images, sentences, &batch.items.owner, classes, &settings)?.loss)
    }
}
