//! The joint embedding of the textbooks: a linear layer over image features, both directions of an LSTM (or a small Transformer) and
//! a linear layer over words, cosine, and a hinge in both directions. Its first complete form is that of Kiros, Salakhutdinov and
//! Zemel, "Unifying visual-semantic embeddings with multimodal neural language models", 2014.
//!
//! ```text
//! v = unit(W x + a),   t = unit(U pool(LSTM(w_1 .. w_T)) + b),   s_ij = v_i . t_j                                 (1)
//! L = sum_i sum_{j in M(i)} [margin + s_ij - s_ii]+  +  sum_j sum_{i in M'(j)} [margin + s_ij - s_jj]+              (2)
//!   + class_weight sum_i (CE(v_i, y_i) + CE(t_i, y_i))                                                                         (3)
//! ```
//!
//! With `attention`, words `t_k` attend to regions `v_r` and the score is not one of two vectors:
//!
//! ```text
//! a_kr = softmax over r of lambda [v_r . t_k]+ / |[v . t_k]+|,   c_k = sum_r a_kr v_r,   s = mean_k cos(t_k, c_k)     (4)
//! ```
//!
//! (the cross attention of SCAN from words to regions, norm over words). Which negatives `M` count is `mining`: all; the hardest; the hardest that scores below the positive, else the easiest
//! (semi-hard, Schroff et al. 2015); one drawn with a probability against the density of its distance (Wu et al. 2017). CE is
//! the cross entropy of a linear classifier, one for both modalities or one each; of an item's several classes each step draws one.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::embedding::{Batch, Embedded, Loss, Negatives};
use crate::{
    Error, Result,
    card::Card,
    linalg::views::ImageInput,
    loss::{cross_entropy, hinge},
    nn::{
        Encoders, Shape, TextModel, TextPooling, Weights,
        cross::{Aggregation, Attention, Contexts, CrossAttention, CrossScorer, Direction, Norm, Relevance},
    },
    params::out_of_range,
    train::{Schedule, Step},
};

mod mining;

pub use mining::Mining;

/// The method.
pub struct JointEmbedding;

/// Its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Margin of (2).
    pub margin: f64,
    /// Which negatives count.
    pub mining: Mining,
    /// Epochs of all negatives before `mining` takes effect.
    pub warmup: usize,
    /// Weight of (3); 0 leaves it out.
    pub class_weight: f64,
    /// Whether images and texts share a classifier.
    pub shared_classifier: bool,
    /// Whether words attend to regions, equation (4).
    pub attention: bool,
    /// Inverse temperature lambda of the attention.
    pub lambda_softmax: f64,
    /// Which texts are negatives of an image.
    pub negatives: Negatives,
    /// The encoders.
    #[serde(flatten)]
    pub encoders: Encoders,
    /// How the model is trained.
    #[serde(flatten)]
    pub schedule: Schedule,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            margin: 0.2,
            mining: Mining::All,
            warmup: 0,
            class_weight: 0.0,
            shared_classifier: true,
            attention: false,
            lambda_softmax: 9.0,
            negatives: Negatives::Others,
            encoders: Encoders {
                text_encoder: TextModel::Bilstm,
                text_pooling: TextPooling::Mean,
                ..Encoders::default()
            },
            schedule: Schedule::default(),
        }
    }
}

impl Loss for Params {
    const NAME: &'static str = "joint_embedding";

    fn check(&self) -> Result<()> {
        for (key, value) in [("margin", self.margin), ("class_weight", self.class_weight)] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(out_of_range(Self::NAME, key, "a number from 0 up", value));
            }
        }
        if !(self.lambda_softmax > 0.0 && self.lambda_softmax.is_finite()) {
            return Err(out_of_range(Self::NAME, "lambda_softmax", "a number above 0", self.lambda_softmax));
        }
        if self.attention && self.encoders.text_encoder == TextModel::Vectors {
            let expected = "an encoder that reads words where `attention` is true";
            return Err(out_of_range(Self::NAME, "text_encoder", expected, "vectors"));
        }
        if self.attention && self.mining == Mining::DistanceWeighted {
            let expected = "another rule where `attention` is true: its scores are no distances on a sphere";
            return Err(out_of_range(Self::NAME, "mining", expected, "distance_weighted"));
        }
        Ok(())
    }

    fn complete(&mut self) {
        if self.attention {
            self.encoders.image = ImageInput::Fragments;
        }
    }

    fn attention(&self) -> Option<CrossScorer> {
        let settings = CrossAttention {
            direction: Direction::T2i,
            attention: Attention { norm: Norm::ClippedL2norm, lambda_softmax: self.lambda_softmax },
            relevance: Relevance { aggregation: Aggregation::Mean, lambda_lse: 1.0 },
        };
        self.attention.then_some(CrossScorer { settings, form: Contexts::Gram }) // (4)
    }

    fn encoders(&self) -> &Encoders {
        &self.encoders
    }

    fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    fn negatives(&self) -> Option<Negatives> {
        Some(self.negatives)
    }

    /// Weight and bias of the classifier of images, then of that of texts.
    fn learnt(&self, weights: &mut Weights, shape: &Shape) -> Result<Vec<Tensor>> {
        if self.class_weight == 0.0 {
            return Ok(Vec::new());
        }
        let (classes, width) = (shape.classes, self.encoders.embedding);
        if classes < 2 {
            return Err(Error::Numeric(format!(
                "joint_embedding: expected at least 2 classes for `class_weight` above 0, found {classes}; set it to 0 or choose a dataset with labels"
            )));
        }
        let bound = 1.0 / (width as f64).sqrt();
        let mut learnt = Vec::new();
        for name in if self.shared_classifier { ["classifier"; 2] } else { ["image.classifier", "text.classifier"] } {
            if self.shared_classifier && !learnt.is_empty() {
                learnt.extend_from_within(..);
                continue;
            }
            learnt.push(weights.uniform(&format!("{name}.weight"), &[width, classes], bound)?);
            learnt.push(weights.zeros(&format!("{name}.bias"), &[classes])?);
        }
        Ok(learnt)
    }

    fn loss(&self, learnt: &[Tensor], batch: &Batch<'_>, step: &mut Step) -> Result<Tensor> {
        let scores = batch.scores()?; // (1)
        let relations = batch.relations(self.negatives)?;
        let loss = match self.mining(step.epoch) {
            Mining::All => hinge(&scores, self.margin, false, &relations)?,
            Mining::Hardest => hinge(&scores, self.margin, true, &relations)?,
            mining => mining.hinge(&scores, self.margin, &relations, batch.v.dim(1)?, &mut step.stream)?,
        }; // (2)
        if learnt.is_empty() {
            return Ok(loss);
        }
        let mut heads = loss;
        for ((features, classes), head) in
            [&batch.v, &batch.t].into_iter().zip(batch.classes(&mut step.stream)?).zip(learnt.chunks_exact(2))
        {
            let classed = features.matmul(&head[0])?.broadcast_add(&head[1])?;
            // A sum over the batch, as (2) is one.
            let weight = self.class_weight * classes.len() as f64;
            heads = (heads + (cross_entropy(&classed, &classes)? * weight)?)?; // (3)
        }
        Ok(heads)
    }

    fn collapsed(&self, batch: usize, epoch: usize) -> Option<f64> {
        let trap = self.class_weight == 0.0 && self.mining(epoch) == Mining::Hardest;
        trap.then_some(2.0 * batch as f64 * self.margin)
    }
}

impl Params {
    fn mining(&self, epoch: usize) -> Mining {
        if epoch < self.warmup { Mining::All } else { self.mining }
    }
}

impl Embedded for JointEmbedding {
    type Loss = Params;

    fn card() -> &'static Card {
        crate::card!("joint_embedding.toml")
    }
}
