//! Where similarities that mean something end: a threshold between those of vectors with a counterpart and those of vectors without.
//!
//! The largest similarities `max_c S_cq` of query vectors are taken as normally distributed: those of a matching pair with mean
//! `m+` and standard deviation `d+`, those of a pair that does not match with `m-` and `d-`. A threshold `t` errs by
//! ```text
//! E(t) = int_{-inf}^t f+ + alpha int_t^inf f-                                                    (1)
//! b1 t² + b2 t + b3 = 0                      where E is least, f+(t) = alpha f-(t)                (2)
//! b1 = d+² - d-²       b2 = 2 (m+ d-² - m- d+²)
//! b3 = (m- d+)² - (m+ d-)² + 2 (d+ d-)² ln(d- / (alpha d+))
//! t = (-b2 + sqrt(D)) / (2 b1) = -2 b3 / (b2 + sqrt(D)),   D = b2² - 4 b1 b3                      (3)
//! ```
//! The first form of (3) is 0 / 0 where the deviations are equal and loses its digits near there; the second, which [`boundary`]
//! takes where `b2 > 0`, does not. [`released_boundary`] is that of CrossmodalGroup/NAAF@cafcd6f, with its two small constants.

use candle_core::{DType, Tensor};

use super::{Block, Direction, Padded, Pairing, Side, similarities, tensors::keep};
use crate::{
    Result,
    nn::{Lengths, lengths::index},
};

/// A normal distribution that is known from samples.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Normal {
    /// Number of samples.
    pub count: f64,
    /// Their mean.
    pub mean: f64,
    /// The sum of their squared distances from it.
    pub squares: f64,
}

impl Normal {
    /// That of some samples.
    pub fn of(samples: &[f64]) -> Self {
        let count = samples.len() as f64;
        let mean = samples.iter().sum::<f64>() / count.max(1.0);
        Self { count, mean, squares: samples.iter().map(|x| (x - mean).powi(2)).sum() }
    }

    /// That of the samples of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let count = self.count + other.count;
        if count == 0.0 {
            return self;
        }
        let (apart, share) = (other.mean - self.mean, other.count / count);
        let squares = self.squares + other.squares + apart * apart * self.count * share;
        Self { count, mean: self.mean + apart * share, squares }
    }

    /// The unbiased standard deviation; not a number of fewer than two samples.
    pub fn deviation(&self) -> f64 {
        (self.squares / (self.count - 1.0)).sqrt()
    }
}

/// `[b1, b2, b3]` of equation (2); `eps` is added inside the logarithm.
fn quadratic(matching: &Normal, other: &Normal, alpha: f64, eps: f64) -> [f64; 3] {
    let ([m, n], [d, e]) = ([matching.mean, other.mean], [matching.deviation(), other.deviation()]);
    let (dd, ee) = (d * d, e * e);
    let ratio = (e / (alpha * d) + eps).ln();
    [dd - ee, 2.0 * (m * ee - n * dd), (n * d).powi(2) - (m * e).powi(2) + 2.0 * dd * ee * ratio]
}

/// The threshold of the least error, equation (3); nothing where there is none: a discriminant that is not above 0, equal
/// deviations with a mean `m+` that is not above `m-`, or a deviation of 0.
pub fn boundary(matching: &Normal, other: &Normal, alpha: f64) -> Option<f64> {
    let [b1, b2, b3] = quadratic(matching, other, alpha, 0.0);
    let root = Some(b2 * b2 - 4.0 * b1 * b3).filter(|&d| d > 0.0)?.sqrt();
    let t = if b2 > 0.0 { -2.0 * b3 / (b2 + root) } else { (root - b2) / (2.0 * b1) };
    t.is_finite().then_some(t)
}

/// The first form of equation (3) with 1e-10 added to its denominator and 1e-8 inside the logarithm; nothing where the discriminant
/// is not above 0. Of equal deviations it is 0.
pub fn released_boundary(matching: &Normal, other: &Normal, alpha: f64) -> Option<f64> {
    let [b1, b2, b3] = quadratic(matching, other, alpha, 1e-8);
    let root = Some(b2 * b2 - 4.0 * b1 * b3).filter(|&d| d > 0.0)?.sqrt();
    Some((root - b2) / (2.0 * b1 + 1e-10))
}

/// The largest value `[N, M, q]` over the context of `x [N, M, q, c]`, among what is `seen`; the first of equals has all of the
/// gradient.
///
/// # Errors
/// If the mask does not fit.
pub fn largest(x: &Tensor, seen: Option<&Tensor>) -> Result<Tensor> {
    let first = keep(seen, &x.detach(), f64::NEG_INFINITY)?.argmax_keepdim(3)?;
    Ok(x.contiguous()?.gather(&first.contiguous()?, 3)?.squeeze(3)?)
}

/// The largest similarity of every vector that asks with the other item's, pair after pair; without gradient. `pairs` are positions of an
/// image and a text among `images [images, regions, d]` and `words [total, d]`.
///
/// # Errors
/// If the widths differ, or there is no such image.
///
/// # Panics
/// If there is no such text.
pub fn peaks(
    direction: Direction,
    images: &Tensor,
    words: &Tensor,
    lengths: &Lengths,
    pairs: &[(usize, usize)],
) -> Result<Vec<f64>> {
    if pairs.is_empty() {
        return Ok(Vec::new());
    }
    let rows = index(pairs.iter().map(|pair| pair.0), images.device())?;
    let images = Padded::full(&images.detach().index_select(&rows, 0)?)?;
    let rows = index(pairs.iter().flat_map(|pair| lengths.range(pair.1)), words.device())?;
    let lengths = Lengths::new(pairs.iter().map(|pair| lengths.as_slice()[pair.1]))?;
    let texts = Padded::packed(&words.detach().index_select(&rows, 0)?, &lengths)?;
    let [images, texts] = [images, texts].map(|items| Side { items, made: Vec::new() });
    let block = Block::new(direction, &images, &texts, Pairing::Matching)?;
    let most = largest(&similarities(&block.contexts.items, &block.queries)?, block.seen.as_ref())?;
    let most = most.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    let Some(asked) = block.asked else { return Ok(most) };
    let asked = asked.flatten_all()?.to_vec1::<u8>()?;
    Ok(most.into_iter().zip(asked).filter(|&(_, asked)| asked != 0).map(|(x, _)| x).collect())
}

#[cfg(test)]
mod tests;
