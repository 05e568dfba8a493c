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
//! The default of `l2` is that of a port (0.002, recalled) whose formula has 1/4 where (3) has 1/2. On vectors of unit length the
//! penalty would be a constant: with `normalise` it is 0.
//!
//! The paper has one modality and anchors that ask; across modalities texts ask as well: the mean of (1) over `z` and over its
//! transpose (`symmetric`). A batch of pairs of different images is the paper's batch of one pair a class. Codes are compared
//! by the dot product that was trained, or by their cosine (`measure`).

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::{
    Result, Similarity,
    card::Card,
    loss::{NPairForm, norm_penalty},
    nn::{Encoders, Finish, Joint, Scaling},
    params::out_of_range,
    train::Schedule,
    trained::{Batch, Fitting, Loss, Shared, Trained},
};

const NAME: &str = "n_pair";

/// The method.
pub static N_PAIR: Trained<Params> = Trained::new();

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
        Self { form: NPairForm::Mc, l2: 0.001, symmetric: true, normalise: false, measure: Measure::Dot }
    }
}

impl Loss for Params {
    type Body = Joint;
    type Head = ();

    fn card() -> &'static Card {
        crate::card!("n_pair.toml")
    }

    fn shared() -> Shared<Joint> {
        Shared {
            options: Encoders { embedding: 512, ..Encoders::default() },
            schedule: Schedule { batch: 60, learning_rate: 3e-4, ..Schedule::default() },
            ..Shared::default()
        }
    }

    fn imply(written: &mut toml::Table) {
        if written.get("normalise").and_then(toml::Value::as_bool) == Some(true) {
            written.entry("l2").or_insert(toml::Value::Float(0.0));
        }
    }

    fn check(&self, _: &Shared<Joint>) -> Result<()> {
        if !(self.l2 >= 0.0 && self.l2.is_finite()) {
            return Err(out_of_range(NAME, "l2", "a number from 0 up", self.l2));
        }
        if self.normalise && self.l2 > 0.0 {
            return Err(out_of_range(NAME, "l2", "0 with `normalise`: all vectors have length 1", self.l2));
        }
        Ok(())
    }

    fn ends(&self) -> Finish {
        Finish::both(if self.normalise { Scaling::Unit } else { Scaling::None })
    }

    fn head(&self, _: &mut Fitting<'_, Joint>) -> Result<()> {
        Ok(())
    }

    fn loss(&self, (): &(), batch: &Batch<'_, Joint>) -> Result<Tensor> {
        let (z, relations) = (batch.scores()?, batch.relations()?);
        let mut loss = self.form.rows(&z, &relations)?.mean_all()?; // (1), (2)
        if self.symmetric {
            let reverse = self.form.rows(&z.t()?.contiguous()?, &relations.t())?.mean_all()?;
            loss = ((loss + reverse)? * 0.5)?;
        }
        Ok((loss + (norm_penalty(batch.v()?, batch.t()?)? * self.l2)?)?) // (3)
    }
    fn similarity<'a>(&'a self, (): &'a ()) -> Similarity<'a> {
        match self.measure {
            Measure::Cosine => Similarity::Cosine,
            Measure::Dot => Similarity::Dot,
        }
    }
}
