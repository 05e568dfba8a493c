//! Stacked cross attention: every query vector attends to the vectors of the other item and is compared with what it saw.
//!
//! For one image and one text, `C` (`c × d`) are the context's vectors and `Q` (`q × d`) those that ask: words ask regions
//! (`t2i`) or regions ask words (`i2t`).
//! ```text
//! S = C Qᵀ                                                      (1)
//! A = normalised S, along the queries, for each context row      (2)
//! W = softmax over the context of lambda_softmax A               (3)
//! a_q = sum_c W_cq C_c                                           (4)
//! r_q = Q_q · a_q / max(|Q_q| |a_q|, 1e-8)                       (5)
//! score = LogSumExp, maximum, sum or mean of r_q over q          (6)
//! ```
//! The attended vectors `a_q` are never built. With the Gram matrix `G = C Cᵀ` of the context item, made once an item,
//! ```text
//! Q_q · a_q = sum_c W_cq S_cq        |a_q|² = w_qᵀ G w_q          (7)
//! ```
//! so that beside the one product (1) for a whole block of items nothing costs `d` operations any more.
//! [`Contexts::Direct`] builds them nevertheless, as the released code (kuanghuei/SCAN@8063557) does, to compare.
//!
//! # Which piece to use
//!
//! Who attends to what ([`Attention`]: equations 2 and 3) and how that becomes a score ([`Relevance`]: 5 and 6) are apart;
//! [`CrossAttention`] is both with a [`Direction`].
//!
//! - *The scores as they stand above, to train*: [`batch_scores`]. One operation with its gradient on the CPU, which keeps nothing
//!   but its inputs; tensor operations elsewhere. *To score a gallery*: [`CrossScorer`], or [`scores`] on [`Stack`]s. Neither can
//!   be changed between two equations. To look at weights: [`attention`].
//! - *Anything in between of one's own*: the equations one by one on tensors, for all pairs of a batch at once, on any device.
//!   With `N` context items of `c` vectors and `M` query items of `q`, similarities and weights are `[N, M, q, c]`, attended
//!   vectors `[N, M, q, d]`, relevances `[N, M, q]` and scores `[N, M]`; u8 masks say which queries are `asked [N or 1, M, q]` and
//!   which context vectors are `seen`. [`Padded`] holds a side and makes the masks of its padding; then
//!
//! ```text
//! similarities(contexts, queries)                 S                 (1)
//! Attention::normalise, Attention::weights        A, W              (2), (3)
//! soften(logits, seen)                            W                 (3) of logits that are no inner products
//! soften_positive(logits, seen)                   W                 of those above 0 alone
//! attended(weights, contexts)                     a                 (4)
//! attended_plus(weights, contexts, base)          a + base          (4), as a layer over both sides adds them up
//! relevance(queries, attended)                    r, direct         (5)
//! project(s, weights, grams)                      Q · a, |a|²       (7)
//! relevance_from_grams(s, weights, grams, norms)  r, without a      (7), (5)
//! Relevance::aggregate(r, asked)                  scores            (6)
//! ```
//!
//! On the CPU each of (2) with (3), (4) and (7) is one operation with its gradient.
//! [`CrossAttention::pair_scores`] is these put together. Queries that are refined step by step differ from pair to pair
//! (`[N, M, q, d]`), and the vectors they began as are what `relevance` compares with what they saw. A threshold before the softmax
//! is a mask multiplied into `seen` (a mask for each query, as [`Masked`] has it; [`threshold`] finds where to put it); after it, weights are multiplied by one, or queries left out of `asked`. An attention that is
//! not an inner product begins at `soften`; one image and one question are `M = q = 1`. Only `attended` is `d` deep: where its
//! vectors are not needed for themselves the Gram form does without. An [`Interaction`] made of these pieces is trained on with
//! [`interact`] and compares a gallery in an [`InteractionScorer`], both tile by tile.
//!
//! Departures from the paper, all those of the released code: LeakyReLU of slope 0.1 where the paper has `max(0, x)`;
//! no mean inside LogSumExp (a maximum is taken out before, so that it cannot overflow). The gradient at a zero vector is
//! the derivative of the clamped formula, where the released code's is NaN.

mod backward;
mod composed;
pub(crate) mod fused;
pub(crate) mod golden;
mod kernel;
#[cfg(test)]
pub(crate) mod known;
mod masked;
mod op;
mod padded;
mod pairs;
mod panel;
mod real;
mod scorer;
mod stack;
mod tensors;
#[cfg(test)]
mod tests;
pub mod threshold;

use serde::{Deserialize, Serialize};

pub use backward::gradients;
pub use composed::composed_scores;
pub use golden::operations;
pub use kernel::{attention, scores};
pub use masked::{Kept, Masked, MaskedScorer, MeanOver, masked_scores};
pub use op::batch_scores;
pub use padded::{Padded, norms};
pub use pairs::{Block, Interaction, InteractionScorer, Pairing, Side, fragments, interact, padded};
pub use real::Real;
pub(crate) use real::vectorised;
pub use scorer::CrossScorer;
pub use stack::Stack;
pub use tensors::{
    attended, attended_plus, project, relevance, relevance_from_grams, similarities, soften, soften_positive,
};
pub(crate) use tensors::{floored_root, keep};

/// Which side asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Words ask, regions answer.
    T2i,
    /// Regions ask, words answer.
    I2t,
}

/// How similarities are normalised along the queries before the softmax, equation (2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Norm {
    /// Softmax.
    Softmax,
    /// Divided by the L2 norm + 1e-8.
    L2norm,
    /// Divided by the L1 norm + 1e-8.
    L1norm,
    /// LeakyReLU of slope 0.1.
    Clipped,
    /// LeakyReLU of slope 0.1, then divided by the L2 norm + 1e-8.
    ClippedL2norm,
    /// LeakyReLU of slope 0.1, then divided by the L1 norm + 1e-8.
    ClippedL1norm,
    /// As it is.
    NoNorm,
}

/// How the relevances of the query vectors become one score, equation (6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Aggregation {
    /// `log(sum exp(lambda_lse r)) / lambda_lse`.
    LogSumExp,
    /// Maximum.
    Max,
    /// Sum.
    Sum,
    /// Mean.
    Mean,
}

/// Whether attended vectors are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Contexts {
    /// No: inner products and norms come from similarities and Gram matrices, equation (7).
    Gram,
    /// Yes, equation (4).
    Direct,
}

/// Who attends to what: from similarities to weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attention {
    /// Equation (2).
    pub norm: Norm,
    /// Inverse temperature of equation (3), above 0.
    pub lambda_softmax: f64,
}

/// How what was seen becomes a score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Relevance {
    /// Equation (6).
    pub aggregation: Aggregation,
    /// Inverse temperature of LogSumExp, above 0.
    pub lambda_lse: f64,
}

/// The settings of stacked cross attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CrossAttention {
    /// Which side asks.
    pub direction: Direction,
    /// Equations (2) and (3).
    pub attention: Attention,
    /// Equation (6).
    pub relevance: Relevance,
}

impl Norm {
    fn clips(self) -> bool {
        matches!(self, Self::Clipped | Self::ClippedL2norm | Self::ClippedL1norm)
    }
}

/// LeakyReLU's slope below zero.
const SLOPE: f64 = 0.1;
/// Added to a norm before dividing by it, and the least product of norms in a cosine.
const EPS: f64 = 1e-8;
