//! The same scores composed of tensor operations, for devices without a kernel of ours and to check ours.

use candle_core::{D, DType, Result, Tensor};
use candle_nn::ops::softmax;

use super::{Aggregation, CrossAttention, Direction, EPS, Norm, SLOPE, op::check};
use crate::nn::Lengths;

/// As [`super::batch_scores`], on any device, from the Gram matrices, with the gradient of the tensor library.
///
/// # Errors
/// As [`super::batch_scores`].
pub fn composed_scores(
    settings: &CrossAttention,
    images: &Tensor,
    words: &Tensor,
    lengths: &Lengths,
) -> crate::Result<Tensor> {
    check(images, words, lengths)?;
    let real = lengths.mask(lengths.longest(), images.device())?;
    Ok(padded_scores(settings, images, &lengths.pad(words, lengths.longest())?, &real)?)
}

/// `words` is `[texts, longest, d]`, zero where `real [texts, longest]` is.
fn padded_scores(settings: &CrossAttention, images: &Tensor, words: &Tensor, real: &Tensor) -> Result<Tensor> {
    let ((items, regions, d), (texts, longest, _)) = (images.dims3()?, words.dims3()?);
    let norms = |x: &Tensor| x.sqr()?.sum(D::Minus1)?.maximum(1e-30)?.sqrt();
    let flat = images.reshape((items * regions, d))?.matmul(&words.reshape((texts * longest, d))?.t()?)?;

    // [images, regions, texts, words] and [images, texts, queries]
    let s = flat.reshape((items, regions, texts, longest))?;
    let (inner, square, norms, asked) = match settings.direction {
        Direction::T2i => {
            let asked = real.unsqueeze(0)?;
            let a = normalise(settings.norm, &s, 3, &real.reshape((1, 1, texts, longest))?)?;
            let w = softmax(&(a * settings.lambda_softmax)?, 1)?;
            let gram = images.matmul(&images.t()?)?;
            let spread = gram.matmul(&w.reshape((items, regions, texts * longest))?)?.reshape(w.shape())?;
            let square = (&w * spread)?.sum(1)?;
            ((w * &s)?.sum(1)?, square, norms(words)?.unsqueeze(0)?, asked)
        }
        Direction::I2t => {
            let here = real.reshape((1, 1, texts, longest))?;
            let a = normalise(settings.norm, &s, 1, &here)?;
            let w = softmax(&keep(&here, &(a * settings.lambda_softmax)?, -1e9)?, 3)?;
            let gram = words.matmul(&words.t()?)?;
            let stacked = w.permute((2, 0, 1, 3))?.contiguous()?;
            let spread = stacked.reshape((texts, items * regions, longest))?.matmul(&gram)?.reshape(stacked.shape())?;
            let square = (stacked * spread)?.sum(3)?.permute((1, 0, 2))?;
            let inner = (w * &s)?.sum(3)?.transpose(1, 2)?;
            let asked = Tensor::ones((1, 1, regions), DType::U8, images.device())?;
            (inner, square, norms(images)?.unsqueeze(1)?, asked)
        }
    };
    let product = square.maximum(1e-30)?.sqrt()?.broadcast_mul(&norms)?;
    let r = (inner / product.maximum(EPS)?)?;
    let count = || asked.to_dtype(r.dtype())?.sum(D::Minus1);
    match settings.aggregation {
        Aggregation::LogSumExp => {
            let exponents = keep(&asked, &(r * settings.lambda_lse)?, -1e9)?;
            exponents.log_sum_exp(D::Minus1)? / settings.lambda_lse
        }
        Aggregation::Max => keep(&asked, &r, -1e9)?.max(D::Minus1),
        Aggregation::Sum => keep(&asked, &r, 0.0)?.sum(D::Minus1),
        Aggregation::Mean => keep(&asked, &r, 0.0)?.sum(D::Minus1)?.broadcast_div(&count()?),
    }
}

/// `x` where `mask` is set, `other` elsewhere; `mask` broadcasts.
fn keep(mask: &Tensor, x: &Tensor, other: f64) -> Result<Tensor> {
    let other = Tensor::full(other, x.shape(), x.device())?.to_dtype(x.dtype())?;
    mask.broadcast_as(x.shape())?.where_cond(x, &other)
}

/// Equation (2) along `dim`, where `real` tells words from padding.
fn normalise(norm: Norm, s: &Tensor, dim: usize, real: &Tensor) -> Result<Tensor> {
    let x = if norm.clips() { candle_nn::ops::leaky_relu(s, SLOPE)? } else { s.clone() };
    match norm {
        Norm::Clipped | Norm::NoNorm => Ok(x),
        Norm::L2norm | Norm::ClippedL2norm => {
            x.broadcast_div(&(x.sqr()?.sum_keepdim(dim)?.maximum(1e-30)?.sqrt()? + EPS)?)
        }
        Norm::L1norm | Norm::ClippedL1norm => x.broadcast_div(&(x.abs()?.sum_keepdim(dim)? + EPS)?),
        Norm::Softmax => softmax(&keep(real, &x, -1e9)?, dim),
    }
}
