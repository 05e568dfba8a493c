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
//! The released VSE0 leaves `v_i` unscaled (`normalise_images = false`), and the released code counts other texts of the same
//! image as negatives (`negatives = "paper"`); here they are none. Beyond the paper, as options: the encoders of
//! [`crate::nn::Encoders`], and negatives within a modality, with weight `intra_modal`: (4) or (5) with `v_i . v_j`, and with
//! `t_i . t_j`, in place of `s_ij` off the diagonal.

use std::ops::Range;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::embedding::{Batch, Embedded, Loss, Negatives};
use crate::{
    Codes, Error, PairScorer, Result, Similarity,
    card::Card,
    loss::{hinge, order_score, order_scores},
    nn::{Encoders, Finish},
    params::out_of_range,
    train::{Schedule, Step},
};

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
    /// Which score of (3).
    pub measure: Measure,
    /// Whether (1) scales to unit length.
    pub normalise_images: bool,
    /// Whether (1) and (2) end with absolute values.
    pub absolute: bool,
    /// Which texts are negatives of an image.
    pub negatives: Negatives,
    /// Weight of the negatives within a modality; 0 for none.
    pub intra_modal: f64,
    /// The encoders.
    #[serde(flatten)]
    pub encoders: Encoders,
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

impl Default for Params {
    fn default() -> Self {
        Self {
            max_violation: true,
            warmup: 0,
            margin: 0.2,
            measure: Measure::Cosine,
            normalise_images: true,
            absolute: false,
            negatives: Negatives::Others,
            intra_modal: 0.0,
            encoders: Encoders::default(),
            schedule: Schedule::default(),
        }
    }
}

impl Loss for Params {
    const NAME: &'static str = "vse";

    fn check(&self) -> Result<()> {
        for (key, value) in [("margin", self.margin), ("intra_modal", self.intra_modal)] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(out_of_range(Self::NAME, key, "a number from 0 up", value));
            }
        }
        if self.intra_modal > 0.0 && self.measure == Measure::Order {
            let expected = "0 with order embeddings, which compare an image with a text only";
            return Err(out_of_range(Self::NAME, "intra_modal", expected, self.intra_modal));
        }
        Ok(())
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

    fn finish(&self) -> Finish {
        Finish { unit_images: self.normalise_images, unit_texts: true, absolute: self.absolute }
    }

    fn similarity(&self) -> Similarity<'_> {
        match self.measure {
            Measure::Order => Similarity::Pairwise(&OrderScorer),
            Measure::Cosine if self.normalise_images => Similarity::Cosine,
            Measure::Cosine => Similarity::Dot,
        }
    }

    fn loss(&self, _learnt: &[Tensor], batch: &Batch<'_>, step: &mut Step) -> Result<Tensor> {
        let hardest = self.hardest(step.epoch);
        let scores = match self.measure {
            Measure::Cosine => batch.scores()?,
            Measure::Order => order_scores(&batch.v, &batch.t)?,
        }; // (3)
        let relations = batch.relations(self.negatives)?;
        let loss = hinge(&scores, self.margin, hardest, &relations)?; // (4), (5)
        if self.intra_modal == 0.0 {
            return Ok(loss);
        }
        let own = Tensor::eye(scores.dim(0)?, scores.dtype(), scores.device())?;
        let within = |x: &Tensor| -> Result<Tensor> {
            let square = x.matmul(&x.t()?)?;
            // Symmetric off the diagonal, so that the hinge's two directions are one and the same.
            let mixed = (&square + (&scores - &square)?.mul(&own)?)?;
            Ok((hinge(&mixed, self.margin, hardest, &relations)? * 0.5)?)
        };
        Ok((loss + ((within(&batch.v)? + within(&batch.t)?)? * self.intra_modal)?)?)
    }

    fn collapsed(&self, batch: usize, epoch: usize) -> Option<f64> {
        let directions = 2.0 + 2.0 * self.intra_modal;
        self.hardest(epoch).then_some(directions * batch as f64 * self.margin)
    }
}

impl Params {
    fn hardest(&self, epoch: usize) -> bool {
        self.max_violation && epoch >= self.warmup
    }
}

impl Embedded for Vse {
    type Loss = Params;

    fn card() -> &'static Card {
        crate::card!("vse.toml")
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
            return Err(Error::Numeric("vse: order scores compare dense codes only".into()));
        };
        for (i, out) in rows.zip(out.chunks_mut(columns.len().max(1))) {
            for (score, j) in out.iter_mut().zip(columns.clone()) {
                *score = order_score(images.row(i), texts.row(j));
            }
        }
        Ok(())
    }
}
