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
//! Image vectors are given, as in the `precomp` datasets of fartashf/vsepp@abe382f: there is no network to fine-tune below (1). VSE0
//! there leaves `v_i` unscaled (`normalise_images = false`), and other texts of the same image count as negatives
//! (`negatives = "paper"`); here they are none. Beyond the paper, as options: the encoders of
//! [`crate::nn::Encoders`], and negatives within a modality, with weight `intra_modal`: (4) or (5) with `v_i . v_j`, and with
//! `t_i . t_j`, in place of `s_ij` off the diagonal.

use std::ops::Range;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::{
    Codes, Error, PairScorer, Result, Similarity,
    card::Card,
    loss::{order_score, order_scores},
    nn::{Finish, Joint, Scaling},
    params::out_of_range,
    trained::{Batch, Fitting, Loss, Ranking, Shared, Trained},
};

const NAME: &str = "vse";

/// The method.
pub static VSE: Trained<Params> = Trained::new();

/// Its parameters; the defaults are those of VSE++.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Equation (5), or (4).
    #[serde(flatten)]
    pub ranking: Ranking,
    /// Which score of (3).
    pub measure: Measure,
    /// Whether (1) scales to unit length.
    pub normalise_images: bool,
    /// Whether (1) and (2) end with absolute values.
    pub absolute: bool,
    /// Weight of the negatives within a modality; 0 for none.
    pub intra_modal: f64,
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
            ranking: Ranking::default(),
            measure: Measure::Cosine,
            normalise_images: true,
            absolute: false,
            intra_modal: 0.0,
        }
    }
}

impl Loss for Params {
    type Body = Joint;
    type Head = ();

    fn card() -> &'static Card {
        crate::card!("vse.toml")
    }

    fn check(&self, _: &Shared<Joint>) -> Result<()> {
        self.ranking.check(NAME)?;
        if !(self.intra_modal >= 0.0 && self.intra_modal.is_finite()) {
            return Err(out_of_range(NAME, "intra_modal", "a number from 0 up", self.intra_modal));
        }
        if self.intra_modal > 0.0 && self.measure == Measure::Order {
            let expected = "0 with order embeddings, which compare an image with a text only";
            return Err(out_of_range(NAME, "intra_modal", expected, self.intra_modal));
        }
        Ok(())
    }

    fn ends(&self) -> Finish {
        let images = if self.normalise_images { Scaling::Unit } else { Scaling::None };
        Finish { images, texts: Scaling::Unit, absolute: self.absolute }
    }

    fn head(&self, _: &mut Fitting<'_, Joint>) -> Result<()> {
        Ok(())
    }

    fn loss(&self, (): &(), batch: &Batch<'_, Joint>) -> Result<Tensor> {
        let scores = match self.measure {
            Measure::Cosine => batch.scores()?,
            Measure::Order => order_scores(batch.v()?, batch.t()?)?,
        }; // (3)
        let relations = batch.relations()?;
        let loss = self.ranking.loss(&scores, &relations, batch.epoch)?; // (4), (5)
        if self.intra_modal == 0.0 {
            return Ok(loss);
        }
        let own = Tensor::eye(scores.dim(0)?, scores.dtype(), scores.device())?;
        let within = |x: &Tensor| -> Result<Tensor> {
            let square = x.matmul(&x.t()?)?;
            // Symmetric off the diagonal, so that the hinge's two directions are one and the same.
            let mixed = (&square + (&scores - &square)?.mul(&own)?)?;
            Ok((self.ranking.loss(&mixed, &relations, batch.epoch)? * 0.5)?)
        };
        Ok((loss + ((within(batch.v()?)? + within(batch.t()?)?)? * self.intra_modal)?)?)
    }

    fn collapsed(&self, batch: usize, epoch: usize) -> Option<f64> {
        Some(self.ranking.collapsed(batch, epoch)? * (1.0 + self.intra_modal))
    }

    fn similarity<'a>(&'a self, (): &'a ()) -> Similarity<'a> {
        match self.measure {
            Measure::Order => Similarity::Pairwise(&OrderScorer),
            Measure::Cosine if self.normalise_images => Similarity::Cosine,
            Measure::Cosine => Similarity::Dot,
        }
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
