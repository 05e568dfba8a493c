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
//! e_kr = lrelu(v_r . t_k),   a_kr = softmax over r of lambda e_kr / |e_.r|                                                 (4)
//! c_k = sum_r a_kr v_r,   s = mean_k cos(t_k, c_k)                                                                        (5)
//! ```
//!
//! (the cross attention of SCAN from words to regions: LeakyReLU of slope 0.1, norm over the words). The classifier of (3) then reads
//! the mean of the regions and the mean of the words, each scaled to unit length.
//!
//! Which negatives `M` count is `mining`: all; the hardest; the hardest that scores below the positive, else the easiest (semi-hard,
//! Schroff et al. 2015); one drawn with a probability against the density of its distance, if it is nearer than `cutoff` (Wu et al.
//! 2017; see [`DistanceWeighted`]). CE is the cross entropy of a linear classifier, one for both modalities or one each; of an item's
//! several classes each step draws one.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use xmbench_datasets::{Images, Texts};

use crate::{
    Codes, Result, Similarity,
    card::Card,
    loss::{DistanceWeighted, hinge},
    nn::{
        Encoders, Joint, TextLayer, TextModel, TextPooling,
        cross::{
            Aggregation, Attention, Contexts, CrossAttention, CrossScorer, Direction, Norm, Relevance, batch_scores,
        },
        unit,
    },
    params::out_of_range,
    trained::{Batch, Classifier, Fitting, Loss, Shared, Trained},
};

const NAME: &str = "joint_embedding";

mod mining;

pub use mining::Mining;

/// The method.
pub static JOINT_EMBEDDING: Trained<Params> = Trained::new();

/// Its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Margin of (2).
    pub margin: f64,
    /// Which negatives count.
    pub mining: Mining,
    /// Epochs of all negatives before `mining` takes effect.
    pub warmup: usize,
    /// Distance from which on a negative is never drawn, where they are drawn by distance.
    pub cutoff: f64,
    /// Weight of (3); 0 leaves it out.
    pub class_weight: f64,
    /// Whether images and texts share a classifier.
    pub shared_classifier: bool,
    /// Whether words attend to regions, equations (4) and (5).
    pub attention: bool,
    /// Inverse temperature lambda of the attention.
    pub lambda_softmax: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            margin: 0.2,
            mining: Mining::All,
            warmup: 0,
            cutoff: DistanceWeighted::default().cutoff,
            class_weight: 0.0,
            shared_classifier: true,
            attention: false,
            lambda_softmax: 9.0,
        }
    }
}

impl Loss for Params {
    type Body = Joint;
    type Head = Head;

    fn card() -> &'static Card {
        crate::card!("joint_embedding.toml")
    }

    fn shared() -> Shared<Joint> {
        let options = Encoders {
            text_encoder: TextModel::Words(TextLayer::Bilstm),
            text_pooling: TextPooling::Mean,
            ..Encoders::default()
        };
        Shared { options, ..Shared::default() }
    }

    /// Words attend to regions.
    fn imply(written: &mut toml::Table) {
        if written.get("attention").and_then(toml::Value::as_bool) == Some(true) {
            written.insert("image".into(), "fragments".into());
        }
    }

    fn check(&self, shared: &Shared<Joint>) -> Result<()> {
        for (key, value) in [("margin", self.margin), ("class_weight", self.class_weight)] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(out_of_range(NAME, key, "a number from 0 up", value));
            }
        }
        if !(self.lambda_softmax > 0.0 && self.lambda_softmax.is_finite()) {
            return Err(out_of_range(NAME, "lambda_softmax", "a number above 0", self.lambda_softmax));
        }
        if self.attention && shared.options.text_encoder == TextModel::Vectors {
            let expected = "an encoder that reads words where `attention` is true";
            return Err(out_of_range(NAME, "text_encoder", expected, "vectors"));
        }
        if !(self.cutoff > 0.0 && self.cutoff <= 2.0) {
            let expected = "above 0 and at most 2, the largest distance of unit vectors";
            return Err(out_of_range(NAME, "cutoff", expected, self.cutoff));
        }
        if self.mining != Mining::DistanceWeighted && self.cutoff != DistanceWeighted::default().cutoff {
            let expected = "the default where negatives are not drawn by distance";
            return Err(out_of_range(NAME, "cutoff", expected, self.cutoff));
        }
        if self.attention && self.mining == Mining::DistanceWeighted {
            let expected = "another rule where `attention` is true: its scores are no distances on a sphere";
            return Err(out_of_range(NAME, "mining", expected, "distance_weighted"));
        }
        Ok(())
    }

    fn head(&self, fitting: &mut Fitting<'_, Joint>) -> Result<Head> {
        let settings = CrossAttention {
            direction: Direction::T2i,
            attention: Attention { norm: Norm::ClippedL2norm, lambda_softmax: self.lambda_softmax },
            relevance: Relevance { aggregation: Aggregation::Mean, lambda_lse: 1.0 },
        };
        let scorer = self.attention.then_some(CrossScorer { settings, form: Contexts::Gram }); // (4), (5)
        let mut classifiers = Vec::new();
        if self.class_weight > 0.0 {
            let (classes, width) = (fitting.body.shape().classes, fitting.shared.options.embedding);
            let names =
                if self.shared_classifier { &["classifier"][..] } else { &["image.classifier", "text.classifier"] };
            for name in names {
                classifiers.push(Classifier::new(fitting, name, width, classes, "`class_weight` above 0")?);
            }
        }
        Ok(Head { scorer, classifiers })
    }

    fn loss(&self, head: &Head, batch: &Batch<'_, Joint>) -> Result<Tensor> {
        let (scores, features) = match &head.scorer {
            None => (batch.scores()?, [batch.v()?.clone(), batch.t()?.clone()]), // (1)
            Some(scorer) => {
                let (regions, words) = (batch.regions()?, batch.words()?);
                let scores = batch_scores(&scorer.settings, &regions.ends, &words.ends, &words.lengths)?;
                let features = [unit(&regions.ends.mean(1)?)?, unit(&words.lengths.mean(&words.ends)?)?];
                (scores, features) // (4), (5)
            }
        };
        let relations = batch.relations()?;
        let loss = match self.mining(batch.epoch) {
            Mining::All => hinge(&scores, self.margin, false, &relations)?,
            Mining::Hardest => hinge(&scores, self.margin, true, &relations)?,
            mining => {
                let distances = DistanceWeighted { cutoff: self.cutoff, ..DistanceWeighted::default() };
                mining.hinge(&scores, self.margin, &relations, (distances, features[0].dim(1)?), &mut batch.stream())?
            }
        }; // (2)
        let (Some(first), Some(last)) = (head.classifiers.first(), head.classifiers.last()) else { return Ok(loss) };
        let mut heads = loss;
        for ((features, classes), classifier) in features.iter().zip(batch.classes()?).zip([first, last]) {
            // A sum over the batch, as (2) is one.
            let weight = self.class_weight * classes.len() as f64;
            heads = (heads + (classifier.loss(features, &classes)? * weight)?)?; // (3)
        }
        Ok(heads)
    }

    fn collapsed(&self, batch: usize, epoch: usize) -> Option<f64> {
        let trap = self.class_weight == 0.0 && self.mining(epoch) == Mining::Hardest;
        trap.then_some(2.0 * batch as f64 * self.margin)
    }

    fn encode_images(&self, _: &Head, body: &Joint, images: &Images) -> Result<Codes> {
        if self.attention { body.encode_regions(images) } else { body.encode_images(images) }
    }

    fn encode_texts(&self, _: &Head, body: &Joint, texts: &Texts) -> Result<Codes> {
        if self.attention { body.encode_words(texts) } else { body.encode_texts(texts) }
    }

    fn similarity<'a>(&'a self, head: &'a Head) -> Similarity<'a> {
        match &head.scorer {
            Some(scorer) => Similarity::Pairwise(scorer),
            None => Similarity::Cosine,
        }
    }
}

impl Params {
    fn mining(&self, epoch: usize) -> Mining {
        if epoch < self.warmup { Mining::All } else { self.mining }
    }
}

/// What stands beside the encoders.
pub struct Head {
    /// Where words attend to regions.
    scorer: Option<CrossScorer>,
    /// One for both modalities, or one each; none without a weight.
    classifiers: Vec<Classifier>,
}
