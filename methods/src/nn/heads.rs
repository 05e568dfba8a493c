//! Several attentions side by side, each over a part of the vectors (Vaswani et al., NIPS 2017):
//!
//! ```text
//! a = softmax(q k^T / sqrt(w / heads)),  a v of every head, one behind the other      (1)
//! ```

use candle_core::{D, Tensor};
use candle_nn::ops;

use crate::Result;

/// Equation (1), `[items, steps, w]`, from queries, keys and values `[items, heads, steps, w / heads]`; `hidden` is added to the
/// logits (see [`hidden`]).
///
/// # Errors
/// If the shapes do not fit.
pub(crate) fn attend([q, k, v]: [&Tensor; 3], hidden: Option<&Tensor>) -> Result<Tensor> {
    let (items, heads, steps, each) = v.dims4()?;
    let scores = (q.matmul(&k.transpose(2, 3)?.contiguous()?)? * (1.0 / (each as f64).sqrt()))?;
    let scores = match hidden {
        Some(hidden) => scores.broadcast_add(hidden)?,
        None => scores,
    };
    // `softmax_last_dim` passes no gradient on.
    let seen = ops::softmax(&scores, D::Minus1)?.matmul(v)?;
    Ok(seen.transpose(1, 2)?.contiguous()?.reshape((items, steps, heads * each))?)
}

/// What hides the steps behind an item's end where `real [items, steps]` is 0, `[items, 1, 1, steps]`, in the type of `like`.
///
/// # Errors
/// If a tensor operation fails.
pub(crate) fn hidden(real: &Tensor, like: &Tensor) -> Result<Tensor> {
    // Nothing is left of a weight this far below the others.
    Ok(real.to_dtype(like.dtype())?.affine(1e9, -1e9)?.unsqueeze(1)?.unsqueeze(1)?)
}
