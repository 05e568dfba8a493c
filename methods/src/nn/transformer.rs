//! A transformer encoder (Vaswani et al., NIPS 2017) over packed sequences, normalised before each part as in
//! PyTorch's `TransformerEncoderLayer(norm_first=True, dropout=0)`, which trains without a warm-up.
//!
//! With `x_p` the vectors of one sequence, `w` their length, `N` layer normalisation:
//!
//! ```text
//! y_p = sqrt(w) x_p + P(p),  P(p, 2i) = sin(p 10000^(-2i/w)),  P(p, 2i + 1) = cos(p 10000^(-2i/w))   (1)
//! [q k v] = N(y) W,  a = softmax(q k^T / sqrt(w / heads)),  y <- y + concatenated(a v) W_o            (2)
//! y <- y + relu(N(y) W_1) W_2,  W_1 [w, 4w]                                                           (3)
//! ```
//! (2) and (3) once a layer, then `N` once more. Every product has a bias. No dropout.

use candle_core::{Device, Tensor};
use candle_nn::ops;

use super::{Activation, Dense, Weights, heads, lengths::Lengths};
use crate::{Error, Result};

/// Added to variances, as PyTorch has it.
const EPSILON: f32 = 1e-5;

/// The encoder. Weights of layer `L`: `NAME.L.attention [w, 3w]` and `NAME.L.output [w, w]` of (2), `NAME.L.wide [w, 4w]` and
/// `NAME.L.narrow [4w, w]` of (3), each with `.weight` (Xavier's uniform values at first) and `.bias`; `NAME.L.norm_1` and
/// `NAME.L.norm_2`, and at the end `NAME.norm`, each with `.scale` and `.shift`.
pub struct Transformer {
    layers: Vec<Layer>,
    norm: Norm,
    width: usize,
    heads: usize,
}

struct Layer {
    attention: Dense,
    output: Dense,
    wide: Dense,
    narrow: Dense,
    norms: [Norm; 2],
}

/// Layer normalisation.
struct Norm {
    scale: Tensor,
    shift: Tensor,
}

impl Norm {
    fn new(weights: &mut Weights, name: &str, width: usize) -> Result<Self> {
        let one = Tensor::ones(width, candle_core::DType::F32, weights.device())?;
        let scale = weights.insert(&format!("{name}.scale"), one)?;
        Ok(Self { scale, shift: weights.zeros(&format!("{name}.shift"), &[width])? })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        // The fast path passes no gradient on.
        Ok(ops::layer_norm_slow(x, &self.scale, &self.shift, EPSILON)?)
    }
}

impl Transformer {
    /// `layers` layers over vectors of length `width`, each with `heads` heads.
    ///
    /// # Errors
    /// If `heads` does not divide `width`, or a weight cannot be made.
    pub fn new(weights: &mut Weights, name: &str, width: usize, heads: usize, layers: usize) -> Result<Self> {
        if heads == 0 || !width.is_multiple_of(heads) {
            return Err(Error::Numeric(format!(
                "transformer `{name}`: expected a number of heads that divides the width {width}, found {heads}"
            )));
        }
        let layer = |layer| {
            let at = format!("{name}.{layer}");
            let mut dense = |part: &str, input, output, activation| {
                Dense::new(weights, &format!("{at}.{part}"), input, output, activation)
            };
            Ok(Layer {
                attention: dense("attention", width, 3 * width, Activation::Identity)?,
                output: dense("output", width, width, Activation::Identity)?,
                wide: dense("wide", width, 4 * width, Activation::Relu)?,
                narrow: dense("narrow", 4 * width, width, Activation::Identity)?,
                norms: [
                    Norm::new(weights, &format!("{at}.norm_1"), width)?,
                    Norm::new(weights, &format!("{at}.norm_2"), width)?,
                ],
            })
        };
        let layers = (0..layers).map(layer).collect::<Result<_>>()?;
        Ok(Self { layers, norm: Norm::new(weights, &format!("{name}.norm"), width)?, width, heads })
    }

    /// One vector a row of packed sequences: `[total, w]` to `[total, w]`. Rows see the rows of their own sequence alone.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn forward(&self, x: &Tensor, lengths: &Lengths) -> Result<Tensor> {
        if x.dims() != [lengths.total(), self.width] {
            return Err(Error::Numeric(format!(
                "transformer: expected rows [{}, {}], found {:?}",
                lengths.total(),
                self.width,
                x.dims()
            )));
        }
        if lengths.is_empty() {
            return Ok(x.clone());
        }
        let mask = lengths.mask(lengths.longest(), x.device())?;
        let mut y = ((x * (self.width as f64).sqrt())? + self.positions(lengths, x)?)?; // (1)
        for layer in &self.layers {
            let seen = self.attend(&layer.attention.forward(&layer.norms[0].forward(&y)?)?, lengths, &mask)?;
            y = (y + layer.output.forward(&seen)?)?; // (2)
            let wide = layer.wide.forward(&layer.norms[1].forward(&y)?)?;
            y = (y + layer.narrow.forward(&wide)?)?; // (3)
        }
        self.norm.forward(&y)
    }

    /// `a v` of equation (2), heads one behind the other, `[total, w]`, from `[total, 3w]`.
    fn attend(&self, qkv: &Tensor, lengths: &Lengths, real: &Tensor) -> Result<Tensor> {
        let padded = lengths.pad(qkv, lengths.longest())?;
        let part = |which: usize| padded.narrow(2, which * self.width, self.width)?.contiguous();
        lengths.unpad(&heads::attend([&part(0)?, &part(1)?, &part(2)?], self.heads, Some(real))?)
    }

    /// `P` of equation (1), `[total, w]`.
    fn positions(&self, lengths: &Lengths, like: &Tensor) -> Result<Tensor> {
        let code = |p: usize| {
            (0..self.width).map(move |i| {
                let angle = p as f64 * 10000f64.powf(-((i / 2 * 2) as f64) / self.width as f64);
                if i % 2 == 0 { angle.sin() } else { angle.cos() }
            })
        };
        let table: Vec<f64> = (0..lengths.longest()).flat_map(code).collect();
        let row = |p: usize| &table[p * self.width..(p + 1) * self.width];
        let codes: Vec<f64> = lengths.as_slice().iter().flat_map(|&n| (0..n).flat_map(row).copied()).collect();
        let codes = Tensor::from_vec(codes, (lengths.total(), self.width), &Device::Cpu)?;
        Ok(codes.to_dtype(like.dtype())?.to_device(like.device())?)
    }
}

#[cfg(test)]
mod tests;
