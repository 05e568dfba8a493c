use candle_core::{DType, Tensor};
use candle_nn::ops;
use xmbench_datasets::random::Stream;

use crate::{
    Result,
    nn::{Linear, Weights, dropout},
};

/// Added to variances, as PyTorch has it.
const EPSILON: f32 = 1e-5;

/// Equation (1): weights `NAME.first [d, e]`, `NAME.second [e, e]`, and `NAME.norm.scale`, `NAME.norm.shift`.
pub(super) struct Projection {
    first: Linear,
    second: Linear,
    scale: Tensor,
    shift: Tensor,
}

impl Projection {
    /// With PyTorch's initial values.
    pub fn new(weights: &mut Weights, name: &str, input: usize, output: usize) -> Result<Self> {
        let one = Tensor::ones(output, DType::F32, weights.device())?;
        Ok(Self {
            first: Linear::new(weights, &format!("{name}.first"), input, output)?,
            second: Linear::new(weights, &format!("{name}.second"), output, output)?,
            scale: weights.insert(&format!("{name}.norm.scale"), one)?,
            shift: weights.zeros(&format!("{name}.norm.shift"), &[output])?,
        })
    }

    /// `[n, d]` to `[n, e]`; with a stream values are dropped.
    pub fn forward(&self, x: &Tensor, share: f64, stream: Option<&mut Stream>) -> Result<Tensor> {
        let p = self.first.forward(x)?;
        let y = self.second.forward(&p.gelu_erf()?)?;
        let y = match stream {
            Some(stream) if share > 0.0 => dropout(&y, share, stream)?,
            _ => y,
        };
        // The fast path passes no gradient on.
        Ok(ops::layer_norm_slow(&(p + y)?.contiguous()?, &self.scale, &self.shift, EPSILON)?) // (1)
    }
}

/// S and D of equation (7): weights `NAME.sign.*` and `NAME.distance.*`, `[1, e]`.
pub(super) struct Offsets {
    sign: Linear,
    distance: Linear,
}

impl Offsets {
    /// With PyTorch's initial values.
    pub fn new(weights: &mut Weights, name: &str, width: usize) -> Result<Self> {
        Ok(Self {
            sign: Linear::new(weights, &format!("{name}.sign"), 1, width)?,
            distance: Linear::new(weights, &format!("{name}.distance"), 1, width)?,
        })
    }

    /// From given layers.
    pub fn from_parts(sign: Linear, distance: Linear) -> Self {
        Self { sign, distance }
    }

    /// `S(sign d) + D(|d|)`, `[n, e]`.
    pub fn forward(&self, offsets: &[i64], like: &Tensor) -> Result<Tensor> {
        let column = |value: fn(i64) -> i64| -> Result<Tensor> {
            let values: Vec<f64> = offsets.iter().map(|&d| value(d) as f64).collect();
            Ok(Tensor::from_vec(values, (offsets.len(), 1), &candle_core::Device::Cpu)?
                .to_dtype(like.dtype())?
                .to_device(like.device())?)
        };
        Ok((self.sign.forward(&column(i64::signum)?)? + self.distance.forward(&column(i64::abs)?)?)?)
    }
}
