//! Equation (3): vectors to the joint space, by one layer or by two.

use candle_core::Tensor;
use xmbench_datasets::random::Stream;

use crate::{
    Result,
    nn::{BatchNorm, Linear, Moments, Weights, dropout},
};

/// `(x - mean) * scale`, fixed before training.
pub(super) struct Affine {
    mean: Tensor,
    scale: Tensor,
}

impl Affine {
    /// Of moments, or frozen.
    pub fn new(weights: &mut Weights, name: &str, width: usize, moments: Option<&Moments>) -> Result<Self> {
        let device = weights.device().clone();
        let (mean, scale) = match moments {
            Some(moments) => (moments.mean.clone(), (1.0 / moments.spread) as f32),
            None => (vec![0.0; width], 1.0),
        };
        // Part of the model's state, and no gradient moves it.
        let mean = weights.insert(&format!("{name}.mean"), Tensor::from_vec(mean, width, &device)?)?.detach();
        let scale = weights.insert(&format!("{name}.scale"), Tensor::new(&[scale], &device)?)?.detach();
        Ok(Self { mean, scale })
    }
}

/// Weights `NAME.weight`, `NAME.bias`, and of a hidden layer `NAME.hidden.*` and `NAME.norm.*`.
pub(super) struct Branch {
    affine: Option<Affine>,
    hidden: Option<(Linear, BatchNorm)>,
    dropout: f64,
    layer: Linear,
}

impl Branch {
    pub fn new(
        weights: &mut Weights,
        name: &str,
        [input, hidden, output]: [usize; 3],
        dropout: f64,
        affine: Option<Affine>,
    ) -> Result<Self> {
        if hidden == 0 {
            return Ok(Self { affine, hidden: None, dropout, layer: Linear::xavier(weights, name, input, output)? });
        }
        let first = Linear::xavier(weights, &format!("{name}.hidden"), input, hidden)?;
        let norm = BatchNorm::new(weights, &format!("{name}.norm"), hidden)?;
        Ok(Self { affine, hidden: Some((first, norm)), dropout, layer: Linear::xavier(weights, name, hidden, output)? })
    }

    /// `[n, in]` to `[n, out]`.
    pub fn forward(&self, x: &Tensor, training: Option<&mut Stream>) -> Result<Tensor> {
        let x = match &self.affine {
            Some(affine) => x.broadcast_sub(&affine.mean)?.broadcast_mul(&affine.scale)?,
            None => x.clone(),
        };
        match &self.hidden {
            None => self.layer.forward(&x),
            Some((first, norm)) => {
                let y = norm.forward(&first.forward(&x)?, training.is_some())?.relu()?;
                let y = match training {
                    Some(stream) if self.dropout > 0.0 => dropout(&y, self.dropout, stream)?,
                    _ => y,
                };
                self.layer.forward(&y)
            }
        }
    }
}
