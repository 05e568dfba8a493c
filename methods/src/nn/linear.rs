use candle_core::Tensor;

use super::{Activation, Weights, dense::dense, l2n, unit};
use crate::Result;

/// How a vector is scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scaling {
    /// Not at all.
    None,
    /// [`l2n`], as SCAN has it.
    L2n,
    /// [`unit()`], as PyTorch has it.
    Unit,
}

impl Scaling {
    /// Scales along the last dimension.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::None => Ok(x.clone()),
            Self::L2n => l2n(x),
            Self::Unit => unit(x),
        }
    }
}

/// Initial values of a layer `x W + b`; uniform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// Weights within `sqrt(6 / (in + out))` (Glorot and Bengio 2010); the bias starts at zero.
    Xavier,
    /// Weights and bias within `1 / sqrt(in)`, PyTorch's default.
    Pytorch,
}

impl Init {
    /// The weights `NAME.weight [in, out]` and `NAME.bias [out]`.
    pub(crate) fn layer(self, weights: &mut Weights, name: &str, input: usize, output: usize) -> Result<[Tensor; 2]> {
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        match self {
            Self::Xavier => {
                let bound = (6.0 / (input + output) as f64).sqrt();
                Ok([weights.uniform(&weight, &[input, output], bound)?, weights.zeros(&bias, &[output])?])
            }
            Self::Pytorch => {
                let bound = 1.0 / (input as f64).sqrt();
                Ok([weights.uniform(&weight, &[input, output], bound)?, weights.uniform(&bias, &[output], bound)?])
            }
        }
    }
}

/// `y = x W + b` along the last dimension; weights `NAME.weight [in, out]` and `NAME.bias [out]`.
pub struct Linear {
    matrix: Matrix,
    bias: Tensor,
}

enum Matrix {
    Plain(Tensor),
    /// `W = g V / |V|` with a scalar `g`: weight normalisation over the whole matrix.
    Normalised {
        v: Tensor,
        g: Tensor,
    },
}

impl Linear {
    /// With [`Init::Xavier`].
    ///
    /// # Errors
    /// If a weight cannot be made.
    pub fn xavier(weights: &mut Weights, name: &str, input: usize, output: usize) -> Result<Self> {
        let [weight, bias] = Init::Xavier.layer(weights, name, input, output)?;
        Ok(Self::from_parts(weight, bias))
    }

    /// With [`Init::Pytorch`].
    ///
    /// # Errors
    /// If a weight cannot be made.
    pub fn new(weights: &mut Weights, name: &str, input: usize, output: usize) -> Result<Self> {
        let [weight, bias] = Init::Pytorch.layer(weights, name, input, output)?;
        Ok(Self::from_parts(weight, bias))
    }

    /// The layer with given weights.
    pub(crate) fn from_parts(weight: Tensor, bias: Tensor) -> Self {
        Self { matrix: Matrix::Plain(weight), bias }
    }

    /// Direction `NAME.v [in, out]` and length `NAME.g [1]` apart; the initial matrix is that of [`Linear::new`].
    ///
    /// # Errors
    /// If a weight cannot be made.
    pub fn weight_normalised(weights: &mut Weights, name: &str, input: usize, output: usize) -> Result<Self> {
        let bound = 1.0 / (input as f64).sqrt();
        let v = weights.uniform(&format!("{name}.v"), &[input, output], bound)?;
        let g = weights.insert(&format!("{name}.g"), v.sqr()?.sum_all()?.sqrt()?.reshape(1)?.detach())?;
        let bias = weights.uniform(&format!("{name}.bias"), &[output], bound)?;
        Ok(Self { matrix: Matrix::Normalised { v, g }, bias })
    }

    /// `[.., in]` to `[.., out]`.
    ///
    /// # Errors
    /// If the last dimension is not `in`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.activated(x, Activation::Identity)
    }

    /// [`Linear::forward`] and a nonlinearity, as one operation.
    ///
    /// # Errors
    /// As [`Linear::forward`].
    pub fn activated(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let matrix = match &self.matrix {
            Matrix::Plain(w) => w.clone(),
            Matrix::Normalised { v, g } => v.broadcast_mul(&g.broadcast_div(&v.sqr()?.sum_all()?.sqrt()?)?)?,
        };
        // One flat product: batched ones run on one thread.
        let (input, output) = matrix.dims2()?;
        let rows = x.elem_count() / input.max(1);
        let mut shape = x.dims().to_vec();
        let y = dense(&x.reshape((rows, input))?, &matrix, &self.bias, activation)?;
        shape.pop();
        shape.push(output);
        Ok(y.reshape(shape)?)
    }
}

/// Image vectors to the joint space: a linear layer, then a scaling, then perhaps absolute values.
pub struct ImageEncoder {
    /// The layer.
    pub layer: Linear,
    /// How its output is scaled.
    pub scaling: Scaling,
    /// Whether absolute values are taken (order embeddings).
    pub absolute: bool,
}

impl ImageEncoder {
    /// `[.., in]` to `[.., out]`.
    ///
    /// # Errors
    /// If the last dimension is not `in`.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        self.finish(&self.layer.forward(images)?)
    }

    /// What follows the layer: scaling, then perhaps absolute values.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn finish(&self, projected: &Tensor) -> Result<Tensor> {
        let y = self.scaling.apply(projected)?;
        Ok(if self.absolute { y.abs()? } else { y })
    }
}
