//! Symmetric InfoNCE with a temperature (van den Oord, Li, Vinyals 2018; across modalities Zhang et al. 2020 and Radford et al.,
//! ICML 2021): a softmax over the batch in both directions.
//!
//! With unit vectors, `z_ij = v_i . t_j / tau`:
//!
//! ```text
//! L = 1/2b sum_i log(1 + sum_{j != i} exp(z_ij - z_ii)) + 1/2b sum_j log(1 + sum_{i != j} exp(z_ij - z_jj))    (1)
//! ```
//!
//! The logarithm of `1 / tau` is learnt from its initial value on and kept at or below log 100, as Radford et al. have it. With
//! tau = 1 and vectors of any length (1) is the symmetric N-pair loss.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::embedding::{Batch, Embedded, Loss, Negatives};
use crate::{
    Result,
    card::Card,
    loss::info_nce,
    nn::{Encoders, Shape, Weights},
    params::out_of_range,
    train::{Schedule, Step},
};

/// Largest `1 / tau`.
const SHARPEST: f64 = 100.0;

/// The method.
pub struct InfoNce;

/// Its parameters; encoders and schedule are those of VSE++ where the papers' are far larger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Temperature tau, the initial one where it is learnt.
    pub temperature: f64,
    /// Whether the temperature is learnt.
    pub learn_temperature: bool,
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
            temperature: 0.07,
            learn_temperature: true,
            negatives: Negatives::Others,
            encoders: Encoders::default(),
            schedule: Schedule::default(),
        }
    }
}

impl Loss for Params {
    const NAME: &'static str = "info_nce";

    fn check(&self) -> Result<()> {
        let least = 1.0 / SHARPEST;
        if !(self.temperature >= least && self.temperature.is_finite()) {
            return Err(out_of_range(Self::NAME, "temperature", &format!("a number from {least} up"), self.temperature));
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

    fn learnt(&self, weights: &mut Weights, _shape: &Shape) -> Result<Vec<Tensor>> {
        let scale = Tensor::new(&[-self.temperature.ln() as f32], weights.device())?;
        Ok(match self.learn_temperature {
            true => vec![weights.insert("log_scale", scale)?],
            false => vec![scale],
        })
    }

    fn loss(&self, learnt: &[Tensor], batch: &Batch<'_>, _step: &mut Step) -> Result<Tensor> {
        let scale = learnt[0].minimum(SHARPEST.ln())?.exp()?;
        let z = batch.scores()?.broadcast_mul(&scale)?;
        let [loss, _, _] = info_nce(&z, &batch.relations(self.negatives)?)?; // (1)
        Ok(loss)
    }
}

impl Embedded for InfoNce {
    type Loss = Params;

    fn card() -> &'static Card {
        crate::card!("info_nce.toml")
    }
}
