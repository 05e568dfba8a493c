//! A Transformer layer whose rows may have relations to each other, normalised behind its parts as in PyTorch's
//! `TransformerEncoderLayer` (`norm_first=False`, ReLU), over packed sequences. With `x` the rows, `N` layer normalisation, `d`
//! dropout, `r` the relations and `h` heads:
//!
//! ```text
//! [q k v] = x W + b,  a = softmax(q k^T / sqrt(w / h) + r),  y = N_1(x + d((d(a) v of every head) W_o + b_o))     (1)
//! z = N_2(y + d(d(relu(y W_1 + b_1)) W_2 + b_2))                                                              (2)
//! ```
//! No position codes: without relations the rows are a set.

use candle_core::Tensor;
use xmbench_datasets::random::Stream;

use super::{Activation, Dense, Lengths, Weights, attend::attend, dropped::dropped, residual_norm::ResidualNorm};
use crate::{Error, Result};

/// The layer. Weights `NAME.attention [w, 3w]`, `NAME.output [w, w]`, `NAME.wide [w, f]` and `NAME.narrow [f, w]`, each with
/// `.weight` (Xavier's uniform values at first) and `.bias`; `NAME.norm_1` and `NAME.norm_2` with `.scale` and `.shift`.
pub struct RelatingLayer {
    attention: Dense,
    output: Dense,
    wide: Dense,
    narrow: Dense,
    norms: [ResidualNorm; 2],
    width: usize,
    heads: usize,
    dropout: f64,
}

/// The shape of a [`RelatingLayer`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Relating {
    /// Length of a row, `w`.
    pub width: usize,
    /// Heads, `h`.
    pub heads: usize,
    /// Width of the hidden layer of (2), `f`.
    pub hidden: usize,
    /// Share that `d` drops.
    pub dropout: f64,
}

impl RelatingLayer {
    /// A layer with weights of its own.
    ///
    /// # Errors
    /// If the heads do not divide the width, or a weight cannot be made.
    pub fn new(weights: &mut Weights, name: &str, shape: Relating) -> Result<Self> {
        let Relating { width, heads, hidden, dropout } = shape;
        if heads == 0 || !width.is_multiple_of(heads) {
            return Err(Error::Numeric(format!(
                "layer `{name}`: expected a number of heads that divides the width {width}, found {heads}"
            )));
        }
        let mut dense = |part: &str, input, output, activation| {
            Dense::new(weights, &format!("{name}.{part}"), input, output, activation)
        };
        Ok(Self {
            attention: dense("attention", width, 3 * width, Activation::Identity)?,
            output: dense("output", width, width, Activation::Identity)?,
            wide: dense("wide", width, hidden, Activation::Relu)?,
            narrow: dense("narrow", hidden, width, Activation::Identity)?,
            norms: [
                ResidualNorm::new(weights, &format!("{name}.norm_1"), width)?,
                ResidualNorm::new(weights, &format!("{name}.norm_2"), width)?,
            ],
            width,
            heads,
            dropout,
        })
    }

    /// One vector a row, `[total, w]` to the same; rows see the rows of their own sequence. Relations `[n, n]` are for one sequence of
    /// `n` rows: row `i` sees row `j` with `r_ij` added to every head's logit, and not at all where it is minus infinity. With a stream
    /// the layer is in training.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn forward(
        &self,
        x: &Tensor,
        lengths: &Lengths,
        relations: Option<&Tensor>,
        mut training: Option<&mut Stream>,
    ) -> Result<Tensor> {
        if x.dims() != [lengths.total(), self.width] {
            return Err(Error::Numeric(format!(
                "layer of relations: expected rows [{}, {}], found {:?}",
                lengths.total(),
                self.width,
                x.dims()
            )));
        }
        let qkv = self.attention.forward(x)?;
        let seen = attend(&qkv, lengths, self.heads, relations, self.dropout, training.as_deref_mut())?;
        let seen = self.output.forward(&seen)?;
        let y = self.norms[0].forward(x, &seen, self.dropout, training.as_deref_mut())?; // (1)
        let wide = dropped(&self.wide.forward(&y)?, self.dropout, training.as_deref_mut())?;
        self.norms[1].forward(&y, &self.narrow.forward(&wide)?, self.dropout, training) // (2)
    }
}

#[cfg(test)]
mod tests;
