//! Multi-class N-pair loss (Sohn, NIPS 2016): an image must tell its own text from all the others of the batch at once.
//!
//! With vectors that are not scaled to unit length and `z_ij = v_i . t_j`:
//!
//! ```text
//! mc    1/b sum_i log(1 + sum_{j != i} exp(z_ij - z_ii))                                   (1)
//! ovo   1/b sum_i sum_{j != i} log(1 + exp(z_ij - z_ii))                                   (2)
//! L   = (1) or (2)  +  l2 / b sum_i (|v_i|^2 + |t_i|^2) / 2                                (3)
//! ```
//!
//! The paper has one modality and anchors that ask; across modalities texts ask as well: the mean of (1) over `z` and over its
//! transpose (`symmetric`). A batch of pairs of different images is the paper's batch of one pair a class. Codes are compared
//! by the dot product that was trained, or by their cosine (`measure`).

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::embedding::{Batch, Embedded, Loss, Negatives};
use crate::{
    Result, Similarity,
    card::Card,
    loss::{NPairForm, norm_penalty},
    nn::{Encoders, Finish},
    params::out_of_range,
    train::{Schedule, Step},
};

/// The method.
pub struct NPair;

/// Its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Equation (1) or (2).
    pub form: NPairForm,
    /// Weight of the squared lengths in (3).
    pub l2: f64,
    /// Whether texts ask as well.
    pub symmetric: bool,
    /// Whether vectors are scaled to unit length; the paper penalises length instead.
    pub normalise: bool,
    /// How codes are compared.
    pub measure: Measure,
    /// Which texts are negatives of an image.
    pub negatives: Negatives,
    /// The encoders.
    #[serde(flatten)]
    pub encoders: Encoders,
    /// How the model is trained.
    #[serde(flatten)]
    pub schedule: Schedule,
}

/// How codes are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Measure {
    /// By their angle.
    Cosine,
    /// By the product that is trained.
    Dot,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            form: NPairForm::Mc,
            l2: 0.002,
            symmetric: true,
            normalise: false,
            measure: Measure::Dot,
            negatives: Negatives::Others,
            encoders: Encoders { embedding: 512, ..Encoders::default() },
            schedule: Schedule { batch: 60, learning_rate: 3e-4, ..Schedule::default() },
        }
    }
}

impl Loss for Params {
    const NAME: &'static str = "n_pair";

    fn check(&self) -> Result<()> {
        if !(self.l2 >= 0.0 && self.l2.is_finite()) {
            return Err(out_of_range(Self::NAME, "l2", "a number from 0 up", self.l2));
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
        if self.normalise { Finish::UNIT } else { Finish::PLAIN }
    }

    fn similarity(&self) -> Similarity<'_> {
        match self.measure {
            Measure::Cosine => Similarity::Cosine,
            Measure::Dot => Similarity::Dot,
        }
    }

    fn loss(&self, _learnt: &[Tensor], batch: &Batch<'_>, _step: &mut Step) -> Result<Tensor> {
        let (z, relations) = (batch.scores()?, batch.relations(self.negatives)?);
        let mut loss = self.form.rows(&z, &relations)?.mean_all()?; // (1), (2)
        if self.symmetric {
            let reverse = self.form.rows(&z.t()?.contiguous()?, &relations.t())?.mean_all()?;
            loss = ((loss + reverse)? * 0.5)?;
        }
        Ok((loss + (norm_penalty(&batch.v, &batch.t)? * self.l2)?)?) // (3)
    }
}

impl Embedded for NPair {
    type Loss = Params;

    fn card() -> &'static Card {
        crate::card!("n_pair.toml")
    }
}
