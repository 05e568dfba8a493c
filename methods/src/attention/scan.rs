//! SCAN: an image and a text are compared word by word, each word with what it sees of the image, or region by region.
//!
//! ```text
//! v_i = l2n(W x_i + b)                                        a region            (1)
//! u_j = l2n((h_j forth + h_j back) / 2)                       a word, from a GRU  (2)
//! S(image, text)  by stacked cross attention, see [`cross`](crate::nn::cross)         (3)
//! L = sum_b [margin + max_c S_bc - S_bb]+ + [margin + max_c S_cb - S_bb]+         (4)
//! ```
//! where `l2n(x) = x / (|x| + 1e-8)`. Lee, Chen, Hua, Hu and He, ECCV 2018.
//!
//! The maxima of (4) run over the batch, or become sums without `max_violation`. The released code (`kuanghuei/SCAN@8063557`) takes
//! only `(b, b)` to belong together (`negatives = "paper"`); here other texts of the same image are no negatives.
//!
//! Departures: scores come from Gram matrices unless `scoring = "direct"`, which changes nothing but the rounding; the
//! paper's ensemble is two models of one direction each, whose scores are averaged afterwards.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::{
    Result, Similarity,
    card::Card,
    golden::{Answer, Case, Operation},
    loss::{Relations, hinge},
    nn::{
        Finish, Scaling,
        cross::{
            self, Aggregation, Attention, Contexts, CrossAttention, CrossScorer, Direction, Norm, Relevance,
            batch_scores,
            golden::{Scored, values},
        },
    },
    params::out_of_range,
    trained::{Attended, Batch, Fitting, Loss, Ranking, Shared, Trained},
};

/// The method.
pub static SCAN: Trained<Params> = Trained::new();

/// Parameters; the defaults are the paper's for Flickr30K, of the direction that is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Which side asks.
    pub direction: Direction,
    /// Normalisation of similarities along the queries.
    pub raw_feature_norm: Norm,
    /// From relevances to a score.
    pub aggregation: Aggregation,
    /// Inverse temperature of the attention.
    pub lambda_softmax: f64,
    /// Inverse temperature of LogSumExp.
    pub lambda_lse: f64,
    /// Equation (4).
    #[serde(flatten)]
    pub ranking: Ranking,
    /// Whether attended vectors are built to score.
    pub scoring: Contexts,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            direction: Direction::T2i,
            raw_feature_norm: Norm::ClippedL2norm,
            aggregation: Aggregation::LogSumExp,
            lambda_softmax: 9.0,
            lambda_lse: 6.0,
            ranking: Ranking::default(),
            scoring: Contexts::Gram,
        }
    }
}

impl Loss for Params {
    type Body = Attended;
    type Head = CrossScorer;

    fn card() -> &'static Card {
        crate::card!("scan.toml")
    }

    fn imply(written: &mut toml::Table) {
        if written.get("direction").and_then(toml::Value::as_str) == Some("i2t") {
            written.entry("lambda_softmax").or_insert(toml::Value::Float(4.0));
            written.entry("lambda_lse").or_insert(toml::Value::Float(5.0));
        }
    }

    fn check(&self, shared: &Shared<Attended>) -> Result<()> {
        for (key, value) in [("lambda_softmax", self.lambda_softmax), ("lambda_lse", self.lambda_lse)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(out_of_range("scan", key, "a number above 0", value));
            }
        }
        shared.has_negatives("scan")?;
        self.ranking.check("scan")
    }

    fn ends(&self) -> Finish {
        Finish::both(Scaling::L2n)
    }

    fn head(&self, _: &mut Fitting<'_, Attended>) -> Result<CrossScorer> {
        let settings = CrossAttention {
            direction: self.direction,
            attention: Attention { norm: self.raw_feature_norm, lambda_softmax: self.lambda_softmax },
            relevance: Relevance { aggregation: self.aggregation, lambda_lse: self.lambda_lse },
        };
        Ok(CrossScorer { settings, form: self.scoring })
    }

    fn loss(&self, scorer: &CrossScorer, batch: &Batch<'_, Attended>) -> Result<Tensor> {
        let (regions, words) = (batch.regions()?, batch.words()?); // (1), (2)
        let scores = batch_scores(&scorer.settings, &regions.ends, &words.ends, &words.lengths)?; // (3)
        self.ranking.loss(&scores, &batch.relations()?, batch.epoch) // (4)
    }

    fn collapsed(&self, batch: usize, epoch: usize) -> Option<f64> {
        self.ranking.collapsed(batch, epoch)
    }

    fn similarity<'a>(&'a self, scorer: &'a CrossScorer) -> Similarity<'a> {
        Similarity::Pairwise(scorer)
    }

    fn operations() -> Vec<Operation> {
        let triplet = Operation { name: "loss.scan_triplet", run: scan_triplet, ignored: &[] };
        cross::operations().into_iter().chain([triplet]).collect()
    }
}

/// Equation (4) over (3), with gradients.
fn scan_triplet(case: &Case) -> Result<Answer> {
    let direction = case.config("cross_attn")?;
    case.only(&[
        "agg_func",
        "cross_attn",
        "lambda_lse",
        "lambda_softmax",
        "margin",
        "max_violation",
        "raw_feature_norm",
    ])?;
    let scored = Scored::new(case, direction)?;
    let pairs = Relations::diagonal(scored.scores.dim(0)?);
    let loss = hinge(&scored.scores, case.config("margin")?, case.config("max_violation")?, &pairs)?;
    scored.with_gradients(&loss, Answer::default().with("out.loss", values(&loss)?))
}

#[cfg(test)]
mod tests;
