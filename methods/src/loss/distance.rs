//! Squared Euclidean distances of two sets of vectors.
//!
//! They are summed from differences: `|x|² - 2 x.y + |y|²` loses all digits in f32 where two vectors are close, and there a
//! distance, its root, has its steepest gradient. Entries without gradient (hinges that are met, pairs that take no part) cost
//! nothing backward.

use candle_core::{CpuStorage, CustomOp2, Device, Layout, Shape, Tensor};
use rayon::prelude::*;

use crate::{
    Error, Result,
    nn::real::{Real, contiguous, dispatch, with},
};

/// `|x_i - y_j|²` of all rows of `x [n, d]` and `y [m, d]`: `[n, m]`, from 0 up, exactly 0 for equal rows.
///
/// # Errors
/// If either is not a matrix or is empty, or the widths differ.
pub fn squared_distances(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    match (x.dims(), y.dims()) {
        ([n, d], [m, width]) if d == width && n * m * d > 0 => {}
        (x, y) => {
            return Err(Error::Numeric(format!(
                "distances: expected [n, d] and [m, d] that are not empty, found {x:?} and {y:?}"
            )));
        }
    }
    let local = |x: &Tensor| x.to_device(&Device::Cpu)?.contiguous();
    Ok(local(x)?.apply_op2(&local(y)?, SquaredDistances)?.to_device(x.device())?)
}

/// `|a - b|²`, summed in sixteen interleaved parts.
#[inline]
fn squared<T: Real>(a: &[T], b: &[T]) -> T {
    let mut parts = [T::ZERO; 16];
    let (a_chunks, b_chunks) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest = a_chunks.remainder().iter().zip(b_chunks.remainder()).fold(T::ZERO, |sum, (&a, &b)| {
        let x = a - b;
        sum + x * x
    });
    for (a, b) in a_chunks.zip(b_chunks) {
        for i in 0..16 {
            let x = a[i] - b[i];
            parts[i] += x * x;
        }
    }
    parts.into_iter().fold(rest, |sum, part| sum + part)
}

struct SquaredDistances;

impl SquaredDistances {
    fn forward<T: Real>(x: &[T], y: &[T], m: usize, d: usize) -> Vec<T> {
        let mut distances = vec![T::ZERO; x.len() / d * m];
        distances.par_chunks_mut(m).zip(x.par_chunks(d)).for_each(|(distances, x)| {
            for (distance, y) in distances.iter_mut().zip(y.chunks_exact(d)) {
                *distance = squared(x, y);
            }
        });
        distances
    }

    /// `dx_i = 2 sum_j g_ij (x_i - y_j)`; with the roles exchanged, the gradient of `y`.
    fn backward<T: Real>(own: &[T], other: &[T], d: usize, g: impl Fn(usize, usize) -> T + Sync) -> Vec<T> {
        let mut grads = vec![T::ZERO; own.len()];
        grads.par_chunks_mut(d).zip(own.par_chunks(d)).enumerate().for_each(|(i, (grad, own))| {
            for (j, other) in other.chunks_exact(d).enumerate() {
                let g = g(i, j);
                // Not only for speed: a row of NaN that takes no part must not reach the gradient of this one.
                if g == T::ZERO {
                    continue;
                }
                let g = g + g;
                for ((grad, &own), &other) in grad.iter_mut().zip(own).zip(other) {
                    *grad += g * (own - other);
                }
            }
        });
        grads
    }
}

impl CustomOp2 for SquaredDistances {
    fn name(&self) -> &'static str {
        "squared distances"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (n, m, d) = (x_layout.dims()[0], y_layout.dims()[0], x_layout.dims()[1]);
        let distances = match (x, y) {
            (CpuStorage::F32(x), CpuStorage::F32(y)) => {
                CpuStorage::F32(Self::forward(contiguous(x, x_layout)?, contiguous(y, y_layout)?, m, d))
            }
            (CpuStorage::F64(x), CpuStorage::F64(y)) => {
                CpuStorage::F64(Self::forward(contiguous(x, x_layout)?, contiguous(y, y_layout)?, m, d))
            }
            _ => candle_core::bail!("distances: expected two tensors of f32 or two of f64"),
        };
        Ok((distances, Shape::from((n, m))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        y: &Tensor,
        _distances: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let (m, d) = (y.dim(0)?, x.dim(1)?);
        let (x, y, grad) = (x.contiguous()?, y.contiguous()?, grad.contiguous()?);
        dispatch!(x.dtype(), T => {
            let (dx, dy) = with::<T, _>(&x, |xs| with::<T, _>(&y, |ys| with::<T, _>(&grad, |g| {
                let dx = Self::backward(xs, ys, d, |i, j| g[i * m + j]);
                let dy = Self::backward(ys, xs, d, |j, i| g[i * m + j]);
                Ok((dx, dy))
            })))?;
            Ok((
                Some(Tensor::from_vec(dx, x.shape(), &Device::Cpu)?),
                Some(Tensor::from_vec(dy, y.shape(), &Device::Cpu)?),
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Var};

    use super::{
        super::support::{assert_gradients, normal},
        *,
    };

    #[test]
    fn distances_of_triangles() {
        let x = Tensor::new(&[[0f32, 0.0], [3.0, 4.0]], &Device::Cpu).unwrap();
        let y = Tensor::new(&[[3f32, 4.0], [0.0, 0.0], [6.0, 8.0]], &Device::Cpu).unwrap();
        let found = squared_distances(&x, &y).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(found, [[25.0, 0.0, 100.0], [0.0, 25.0, 25.0]]);
    }

    #[test]
    fn close_vectors_keep_their_digits() {
        // In f32 the squares of 1000.25 and 1000 are 62.5 apart to a unit of 0.06: 2^-4 is lost, differences are exact.
        let x = Tensor::full(1000.25f32, (1, 40), &Device::Cpu).unwrap();
        let y = Tensor::full(1000f32, (1, 40), &Device::Cpu).unwrap();
        assert_eq!(squared_distances(&x, &y).unwrap().to_vec2::<f32>().unwrap(), [[2.5]]);
        assert_eq!(squared_distances(&x, &x).unwrap().to_vec2::<f32>().unwrap(), [[0.0]]);
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let (x, y, weights) = (normal("x", 3, 19), normal("y", 4, 19), normal("w", 3, 4));
        assert_gradients(&[x, y], |at| {
            squared_distances(&at[0], &at[1]).unwrap().mul(&weights).unwrap().sum_all().unwrap()
        });
        let weights = normal("w", 3, 3);
        // One tensor on both sides gets both gradients.
        assert_gradients(&[normal("x", 3, 5)], |at| {
            squared_distances(&at[0], &at[0]).unwrap().mul(&weights).unwrap().sum_all().unwrap()
        });
    }

    #[test]
    fn a_row_without_gradient_does_not_leak() {
        let x = Var::new(&[[1f64, 2.0], [f64::NAN, 0.0]], &Device::Cpu).unwrap();
        let y = Var::new(&[[0f64, 0.0], [f64::NAN, 0.0]], &Device::Cpu).unwrap();
        let first = squared_distances(&x, &y).unwrap().narrow(0, 0, 1).unwrap().narrow(1, 0, 1).unwrap();
        let grads = first.sum_all().unwrap().backward().unwrap();
        assert_eq!(grads.get(&x).unwrap().to_vec2::<f64>().unwrap(), [[2.0, 4.0], [0.0, 0.0]]);
        assert_eq!(grads.get(&y).unwrap().to_vec2::<f64>().unwrap(), [[-2.0, -4.0], [0.0, 0.0]]);
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() {
        let zeros = |n: usize, d: usize| Tensor::zeros((n, d), DType::F32, &Device::Cpu).unwrap();
        let error = |x: &Tensor, y: &Tensor| squared_distances(x, y).unwrap_err().to_string();
        assert!(error(&zeros(2, 3), &zeros(2, 4)).contains("found [2, 3] and [2, 4]"));
        assert!(error(&zeros(0, 3), &zeros(2, 3)).contains("not empty"));
        assert!(error(&zeros(2, 3), &zeros(2, 3).to_dtype(DType::F64).unwrap()).contains("two of f64"));
    }
}
