//! Equation (3): vectors to the joint space, by one layer or by two.

use candle_core::Tensor;
use xmbench_datasets::random::Stream;

use crate::{
    Result,
    nn::{LayerNames, Mlp, MlpSettings, Standardise, Weights},
};

/// Weights `NAME.weight`, `NAME.bias`, and of a hidden layer `NAME.hidden.*` and `NAME.norm.*`.
pub(super) struct Branch {
    standardise: Option<Standardise>,
    layers: Mlp,
}

impl Branch {
    /// Without a hidden layer if its width is 0.
    pub fn new(
        weights: &mut Weights,
        name: &str,
        [input, hidden, output]: [usize; 3],
        dropout: f64,
        standardise: Option<Standardise>,
    ) -> Result<Self> {
        let widths: Vec<usize> = [input].into_iter().chain((hidden > 0).then_some(hidden)).chain([output]).collect();
        let settings = MlpSettings { names: LayerNames::Last, norm: true, dropout, ..MlpSettings::default() };
        Ok(Self { standardise, layers: Mlp::new(weights, name, &widths, settings)? })
    }

    /// `[n, in]` to `[n, out]`.
    pub fn forward(&self, x: &Tensor, training: Option<&mut Stream>) -> Result<Tensor> {
        match &self.standardise {
            Some(standardise) => self.layers.forward(&standardise.forward(x)?, training),
            None => self.layers.forward(x, training),
        }
    }
}
