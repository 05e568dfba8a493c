//! The equations of the module as tensor operations, with gradients, on any device; each on its own, so that a method can put its
//! own step between two of them.
//!
//! All pairs of a batch are handled at once: `N` context items of `c` vectors and `M` query items of `q` vectors, of which some
//! are padding. Similarities and weights are `[N, M, q, c]`, relevances `[N, M, q]`, scores `[N, M]`. Nothing is larger than the
//! attended vectors, `[N, M, q, d]`, and these are built only by [`attended`].
//!
//! Two masks, both u8 and both broadcast, say what takes part: `asked [N or 1, M, q]` the query vectors, `seen` (anything that
//! broadcasts to `[N, M, q, c]`) the context vectors. [`Padded`] makes those of the padding; what a method leaves out besides is
//! multiplied into them. A padded vector is zero, whatever stood there before.

use candle_core::{D, Tensor};

use super::{
    Aggregation, Attention, EPS, Norm, Padded, Relevance, SLOPE,
    fused::{self, Rule, weigh},
};
use crate::{Error, Result};

/// Equation (1): the inner products of all query vectors with all context vectors, `[N, M, q, c]`. The queries are
/// `[M, q, d]`, or `[N, M, q, d]` where they differ from context to context.
///
/// # Errors
/// If the widths differ, or queries of another number of contexts are given.
pub fn similarities(contexts: &Padded, queries: &Tensor) -> Result<Tensor> {
    let (n, c, d) = contexts.vectors().dims3()?;
    match *queries.dims() {
        [m, q, width] if width == d => {
            // One product for all pairs: a broadcast one would need [N, M, q, d] on the way back.
            let (queries, contexts) = (queries.reshape((m * q, d))?, contexts.vectors().reshape((n * c, d))?);
            Ok(queries.matmul(&contexts.t()?)?.reshape((m, q, n, c))?.permute((2, 0, 1, 3))?.contiguous()?)
        }
        [items, m, q, width] if width == d && items == n => {
            let queries = queries.reshape((n, m * q, d))?;
            Ok(queries.matmul(&contexts.vectors().t()?)?.reshape((n, m, q, c))?)
        }
        ref other => Err(Error::Numeric(format!(
            "cross attention: expected queries [M, q, {d}] or [{n}, M, q, {d}] for contexts {:?}, found {other:?}",
            contexts.vectors().dims()
        ))),
    }
}

/// Equation (3) without its factor: the softmax of `logits [N, M, q, c]` over the context. What is not `seen` has weight 0; a
/// query that sees nothing has weight 0 everywhere.
///
/// # Errors
/// If the mask does not fit.
pub fn soften(logits: &Tensor, seen: Option<&Tensor>) -> Result<Tensor> {
    if logits.device().is_cpu() && logits.rank() == 4 {
        return Ok(weigh(Rule::PLAIN, logits, None, seen)?);
    }
    softmax(logits, 3, seen)
}

/// The softmax over the context of those of the `logits [N, M, q, c]` that are above 0, with `1e-8` for one more logit of 0 that
/// nobody has: all weights are 0 where none is.
///
/// # Errors
/// If the mask does not fit.
pub fn soften_positive(logits: &Tensor, seen: Option<&Tensor>) -> Result<Tensor> {
    if logits.device().is_cpu() {
        return Ok(weigh(Rule { positive: true, ..Rule::PLAIN }, logits, None, seen)?);
    }
    let mut above = logits.gt(0.0)?;
    if let Some(seen) = seen {
        above = above.broadcast_mul(seen)?;
    }
    let none = logits.zeros_like()?;
    // Not below 0, so that the small constant keeps its place where nothing is large.
    let peak = above.where_cond(logits, &none)?.detach().max_keepdim(D::Minus1)?;
    let terms = above.where_cond(&logits.broadcast_sub(&peak)?, &(&none + f64::NEG_INFINITY)?)?.exp()?;
    let total = (terms.sum_keepdim(D::Minus1)? + (peak.neg()?.exp()? * EPS)?)?;
    Ok(terms.broadcast_div(&total)?)
}

/// Equation (4): the attended vectors `[N, M, q, d]` for `weights [N, M, q, c]`.
///
/// # Errors
/// If the weights are of other contexts.
pub fn attended(weights: &Tensor, contexts: &Padded) -> Result<Tensor> {
    let ((n, c, d), (items, m, q, seen)) = (contexts.vectors().dims3()?, weights.dims4()?);
    if (items, seen) != (n, c) {
        return Err(Error::Numeric(format!(
            "cross attention: expected weights [{n}, M, q, {c}] for contexts {:?}, found {:?}",
            contexts.vectors().dims(),
            weights.dims()
        )));
    }
    Ok(weights.reshape((n, m * q, c))?.matmul(contexts.vectors())?.reshape((n, m, q, d))?)
}

/// [`attended`] and a vector beside each, `base [M, q, d]` or `[N, M, q, d]`, added.
///
/// # Errors
/// If the shapes do not fit.
pub fn attended_plus(weights: &Tensor, contexts: &Tensor, base: &Tensor) -> Result<Tensor> {
    if weights.device().is_cpu() {
        return Ok(fused::attended_plus(weights, contexts, base)?);
    }
    Ok(attended(weights, &Padded::full(contexts)?)?.broadcast_add(base)?)
}

/// Equation (5) from attended vectors `[N, M, q, d]`: the cosine of each query vector, `[M, q, d]` or `[N, M, q, d]`, with what it
/// saw, `[N, M, q]`. The queries need not be those that asked.
///
/// # Errors
/// If the shapes do not fit.
pub fn relevance(queries: &Tensor, attended: &Tensor) -> Result<Tensor> {
    let inner = attended.broadcast_mul(queries)?.sum(D::Minus1)?;
    relate(&inner, &attended.sqr()?.sum(D::Minus1)?, &super::norms(queries)?)
}

/// [`relevance`] without attended vectors, from equation (7). `s [N, M, q, c]` are the similarities of the queries that are
/// compared, `norms` their lengths (`[M, q]` or `[N, M, q]`), and `grams [N, c, c]` the Gram matrices of the contexts.
///
/// # Errors
/// If the shapes do not fit.
pub fn relevance_from_grams(s: &Tensor, weights: &Tensor, grams: &Tensor, norms: &Tensor) -> Result<Tensor> {
    let [inner, square] = project(s, weights, grams)?;
    relate(&inner, &square, norms)
}

/// Equation (7): the inner product of each query vector with what it saw, and the squared length of the latter, each `[N, M, q]`.
///
/// # Errors
/// If the shapes do not fit.
pub fn project(s: &Tensor, weights: &Tensor, grams: &Tensor) -> Result<[Tensor; 2]> {
    let (n, m, q, c) = weights.dims4()?;
    if weights.device().is_cpu() {
        return Ok(fused::project(s, weights, grams)?);
    }
    let spread = weights.reshape((n, m * q, c))?.matmul(grams)?.reshape(weights.shape())?;
    Ok([(weights * s)?.sum(D::Minus1)?, (weights * spread)?.sum(D::Minus1)?])
}

/// Equation (5) from inner products and squared lengths `[N, M, q]`, and the lengths of the queries (`[M, q]` or `[N, M, q]`).
fn relate(inner: &Tensor, square: &Tensor, norms: &Tensor) -> Result<Tensor> {
    let product = floored_root(square)?.broadcast_mul(norms)?;
    Ok((inner / product.maximum(EPS)?)?)
}

impl Attention {
    /// Equation (2) of similarities `[N, M, q, c]`, along the queries; those that are not asked count for nothing, and their rows
    /// have no meaning.
    ///
    /// # Errors
    /// If the mask does not fit.
    pub fn normalise(&self, s: &Tensor, asked: Option<&Tensor>) -> Result<Tensor> {
        let asked = asked.map(|asked| asked.unsqueeze(3)).transpose()?;
        let clipped = if self.norm.clips() { s.gt(0.0)?.where_cond(s, &(s * SLOPE)?)? } else { s.clone() };
        let real = || keep(asked.as_ref(), &clipped, 0.0);
        match self.norm {
            Norm::Clipped | Norm::NoNorm => Ok(clipped),
            Norm::L2norm | Norm::ClippedL2norm => {
                let x = real()?;
                Ok(x.broadcast_div(&(floored_root(&x.sqr()?.sum_keepdim(2)?)? + EPS)?)?)
            }
            Norm::L1norm | Norm::ClippedL1norm => {
                let x = real()?;
                Ok(x.broadcast_div(&(x.abs()?.sum_keepdim(2)? + EPS)?)?)
            }
            Norm::Softmax => softmax(&clipped, 2, asked.as_ref()),
        }
    }

    /// Equations (2) and (3): the weights `[N, M, q, c]` of the context vectors for each query vector, from similarities of the same
    /// shape, which a method may have changed before.
    ///
    /// # Errors
    /// If a mask does not fit.
    pub fn weights(&self, s: &Tensor, asked: Option<&Tensor>, seen: Option<&Tensor>) -> Result<Tensor> {
        if s.device().is_cpu() {
            return Ok(weigh(Rule { attention: *self, ..Rule::PLAIN }, s, asked, seen)?);
        }
        soften(&(self.normalise(s, asked)? * self.lambda_softmax)?, seen)
    }

    /// [`Attention::weights`], but that an L2 norm divides as `max(norm, 1e-12)`; a row of zeros then passes no gradient. The other
    /// norms are the same.
    ///
    /// # Errors
    /// If a mask does not fit.
    pub fn floored_weights(&self, s: &Tensor, asked: Option<&Tensor>, seen: Option<&Tensor>) -> Result<Tensor> {
        let squares = matches!(self.norm, Norm::L2norm | Norm::ClippedL2norm);
        if s.device().is_cpu() {
            return Ok(weigh(Rule { attention: *self, floored: squares, ..Rule::PLAIN }, s, asked, seen)?);
        }
        if !squares {
            return self.weights(s, asked, seen);
        }
        let clipped = Self { norm: if self.norm.clips() { Norm::Clipped } else { Norm::NoNorm }, ..*self };
        let x = clipped.normalise(s, None)?;
        let mask = asked.map(|asked| asked.unsqueeze(3)).transpose()?;
        let x = keep(mask.as_ref(), &x, 0.0)?;
        let squares = x.sqr()?.sum_keepdim(2)?;
        let there = squares.gt(0.0)?.to_dtype(x.dtype())?;
        let unit = x.broadcast_mul(&(floored_root(&squares)?.maximum(1e-12)?.recip()? * there)?)?;
        soften(&(unit * self.lambda_softmax)?, seen)
    }
}

impl Relevance {
    /// Equation (6): the scores `[N, M]` of relevances `[N, M, q]`, over the query vectors that are asked. A pair without any has
    /// the score 0.
    ///
    /// # Errors
    /// If the mask does not fit.
    pub fn aggregate(&self, r: &Tensor, asked: Option<&Tensor>) -> Result<Tensor> {
        let kept = keep(asked, r, 0.0)?;
        let counts = match asked {
            Some(asked) => Some(asked.to_dtype(r.dtype())?.sum(D::Minus1)?),
            None => None,
        };
        let scores = match self.aggregation {
            Aggregation::LogSumExp => {
                let x = keep(asked, &(r * self.lambda_lse)?, f64::NEG_INFINITY)?;
                let (terms, peak) = exponentials(&x, 2)?;
                ((total(&terms, 2)?.log()? + peak)?.squeeze(2)? / self.lambda_lse)?
            }
            Aggregation::Max => {
                // Of equal maxima the first gets all of the gradient, as in the kernel; the reduction would give it to each.
                let first = keep(asked, &r.detach(), f64::NEG_INFINITY)?.argmax_keepdim(2)?;
                let most = r.contiguous()?.gather(&first.contiguous()?, 2)?.squeeze(2)?;
                // What is not a number loses every comparison, but must reach the score.
                (most + (kept.detach().sum(2)? * 0.0)?)?
            }
            Aggregation::Sum => kept.sum(2)?,
            Aggregation::Mean => match &counts {
                Some(counts) => kept.sum(2)?.broadcast_div(&counts.maximum(1.0)?)?,
                None => kept.mean(2)?,
            },
        };
        match counts {
            Some(counts) => keep(Some(&counts.gt(0.0)?), &scores, 0.0),
            None => Ok(scores),
        }
    }
}

/// The softmax along `dim` of what the mask keeps; 0 for the rest, and everywhere where nothing is left.
fn softmax(x: &Tensor, dim: usize, mask: Option<&Tensor>) -> Result<Tensor> {
    let (terms, _) = exponentials(&keep(mask, x, f64::NEG_INFINITY)?, dim)?;
    Ok(terms.broadcast_div(&total(&terms, dim)?)?)
}

/// `exp(x - peak)` and the largest entry `peak` along `dim`, which is kept; without gradient, as it cancels.
fn exponentials(x: &Tensor, dim: usize) -> Result<(Tensor, Tensor)> {
    // A finite peak where everything is left out: there all terms are 0.
    let peak = x.detach().max_keepdim(dim)?.maximum(-1e30)?;
    Ok((x.broadcast_sub(&peak)?.exp()?, peak))
}

/// The sum of exponentials along `dim`: at least 1, or 0 where everything is left out. There it is lifted, so that it divides.
fn total(terms: &Tensor, dim: usize) -> Result<Tensor> {
    Ok(terms.sum_keepdim(dim)?.maximum(0.5)?)
}

/// `x` where `mask` is not 0, `other` elsewhere; the mask broadcasts, and without one all is kept.
pub(crate) fn keep(mask: Option<&Tensor>, x: &Tensor, other: f64) -> Result<Tensor> {
    let Some(mask) = mask else { return Ok(x.clone()) };
    let other = Tensor::new(other, x.device())?.to_dtype(x.dtype())?.broadcast_as(x.shape())?;
    Ok(mask.broadcast_as(x.shape())?.where_cond(x, &other)?)
}

/// The root of squares, with a finite gradient at 0.
pub(crate) fn floored_root(squares: &Tensor) -> Result<Tensor> {
    Ok(squares.maximum(1e-30)?.sqrt()?)
}

#[cfg(test)]
mod tests;
