use candle_core::Tensor;
use candle_nn::ops;

use crate::{
    Result,
    nn::{BatchNorm, Init, Lengths, Linear, Mlp, MlpSettings, Weights, unit},
};

/// Equations (4) and (6) of one side: weights `NAME.local.*` (batch normalisation), `NAME.layer.*` with `NAME.global.*`, and
/// `NAME.gate.*`, a hidden layer of `d` with ReLU and a linear one to a number.
pub(super) struct Context {
    local: BatchNorm,
    layer: Linear,
    global: BatchNorm,
    gate: Mlp,
}

/// What is made of the fragments of some items.
pub(super) struct Described {
    /// `l`, `[total, d]`.
    pub locals: Tensor,
    /// `g`, `[items, d]`.
    pub global: Tensor,
    /// `f`, `[items, d]`.
    pub fused: Tensor,
}

impl Context {
    pub fn new(weights: &mut Weights, name: &str, width: usize) -> Result<Self> {
        let settings = MlpSettings { init: Init::Pytorch, ..MlpSettings::default() };
        Ok(Self {
            local: BatchNorm::new(weights, &format!("{name}.local"), width)?,
            layer: Linear::new(weights, &format!("{name}.layer"), width, width)?,
            global: BatchNorm::new(weights, &format!("{name}.global"), width)?,
            gate: Mlp::new(weights, &format!("{name}.gate"), &[2 * width, width, 1], settings)?,
        })
    }

    /// Of context vectors `z [total, d]`; in training batch normalisation goes by the batch.
    ///
    /// # Errors
    /// A training batch of one item, which has no variance.
    pub fn describe(&self, z: &Tensor, lengths: &Lengths, training: bool) -> Result<Described> {
        let locals = unit(&self.local.forward(z, training)?.relu()?)?; // (4)
        let mean = lengths.mean(z)?;
        let global = unit(&self.global.forward(&self.layer.forward(&mean)?, training)?.relu()?)?;
        let gate = ops::sigmoid(&self.gate.forward(&Tensor::cat(&[&mean, &global], 1)?, None)?)?;
        let rest = gate.affine(-1.0, 1.0)?;
        let fused = unit(&(mean.broadcast_mul(&gate)? + global.broadcast_mul(&rest)?)?)?; // (6)
        Ok(Described { locals, global, fused })
    }
}
