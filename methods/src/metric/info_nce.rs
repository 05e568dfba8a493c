//! Symmetric InfoNCE with a temperature (van den Oord, Li, Vinyals 2018; across modalities Zhang et al. 2020 and Radford et al.,
//! ICML 2021): a softmax over the batch in both directions.
//!
//! With unit vectors, `z_ij = v_i . t_j / tau`:
//!
//! ```text
//! L = 1/2b sum_i log(1 + sum_{j != i} exp(z_ij - z_ii)) + 1/2b sum_j log(1 + sum_{i != j} exp(z_ij - z_jj))    (1)
//! ```
//!
//! The logarithm of `1 / tau` is learnt from its initial value on and set back to log 100 after a step that leaves it above, as
//! Radford et al. have it. With tau = 1 and vectors of any length (1) is the symmetric N-pair loss.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::{
    Result,
    card::Card,
    loss::info_nce,
    nn::{Joint, Weights},
    params::out_of_range,
    train::Step,
    trained::{Batch, Fitting, Loss, Shared, Trained},
};

const NAME: &str = "info_nce";

/// The weight that is learnt.
const LOG_SCALE: &str = "log_scale";

/// Largest `1 / tau`.
const SHARPEST: f64 = 100.0;

/// The method.
pub static INFO_NCE: Trained<Params> = Trained::new();

/// Its parameters; encoders and schedule are those of VSE++ where the papers' are far larger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Temperature tau, the initial one where it is learnt.
    pub temperature: f64,
    /// Whether the temperature is learnt.
    pub learn_temperature: bool,
}

impl Default for Params {
    fn default() -> Self {
        Self { temperature: 0.07, learn_temperature: true }
    }
}

impl Loss for Params {
    type Body = Joint;
    /// Logarithm of `1 / tau`.
    type Head = Tensor;

    fn card() -> &'static Card {
        crate::card!("info_nce.toml")
    }

    fn check(&self, _: &Shared<Joint>) -> Result<()> {
        let least = 1.0 / SHARPEST;
        if !(self.temperature >= least && self.temperature.is_finite()) {
            return Err(out_of_range(NAME, "temperature", &format!("a number from {least} up"), self.temperature));
        }
        Ok(())
    }

    fn head(&self, fitting: &mut Fitting<'_, Joint>) -> Result<Tensor> {
        let scale = Tensor::new(&[-self.temperature.ln() as f32], &fitting.device())?;
        match self.learn_temperature {
            true => fitting.weights.insert(LOG_SCALE, scale),
            false => Ok(scale),
        }
    }

    fn loss(&self, log_scale: &Tensor, batch: &Batch<'_, Joint>) -> Result<Tensor> {
        let z = batch.scores()?.broadcast_mul(&log_scale.exp()?)?;
        let [loss, _, _] = info_nce(&z, &batch.relations()?)?; // (1)
        Ok(loss)
    }

    /// Not in the loss: beyond the cap its gradient would be zero, and the temperature stuck.
    fn after(&self, _: &Tensor, weights: &Weights, _: &Step) -> Result<()> {
        if let Some(log_scale) = weights.var(LOG_SCALE) {
            log_scale.set(&log_scale.as_detached_tensor().minimum(SHARPEST.ln())?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use xmbench_datasets::random::Seed;

    use super::*;

    #[test]
    fn a_sharpness_above_the_cap_comes_back() {
        let mut weights = Weights::new(Seed(1), &Device::Cpu);
        let head = weights.insert(LOG_SCALE, Tensor::new(&[6f32], &Device::Cpu).unwrap()).unwrap();
        let step = Step { epoch: 0, step: 0, phase: 0, stream: Seed(1).stream(&["step"]) };
        Params::default().after(&head, &weights, &step).unwrap();
        assert_eq!(head.to_vec1::<f32>().unwrap(), [100f32.ln()]);
    }
}
