//! Vectors divided by their length, fused: `y = x / den`, `den = max(|x| + added, floor)`, along the last dimension.
//!
//! Backward: `dx = g / den - x (x . g) / (|x| den^2)`, the second term only where the length is not floored.

use candle_core::{CpuStorage, CustomOp1, D, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::real::{Real, contiguous, dot};
use crate::Result;

/// `x / (|x|_2 + 1e-8)` along the last dimension (SCAN's normalisation). A zero vector stays zero and passes no gradient.
///
/// # Errors
/// If a tensor operation fails.
pub fn l2n(x: &Tensor) -> Result<Tensor> {
    normalise(x, Normalise { added: 1e-8, floor: 0.0 })
}

/// `x / max(|x|_2, 1e-12)` along the last dimension (PyTorch's `normalize`). A zero vector stays zero and passes no gradient.
///
/// # Errors
/// If a tensor operation fails.
pub fn unit(x: &Tensor) -> Result<Tensor> {
    normalise(x, Normalise { added: 0.0, floor: 1e-12 })
}

fn normalise(x: &Tensor, op: Normalise) -> Result<Tensor> {
    if x.device().is_cpu() && x.rank() > 0 && x.elem_count() > 0 {
        return Ok(x.contiguous()?.apply_op1(op)?);
    }
    // The root's slope at zero is infinite: a number far below both floors keeps the gradient of a zero vector finite.
    let norm = (x.sqr()?.sum_keepdim(D::Minus1)? + 1e-36)?.sqrt()?;
    Ok(x.broadcast_div(&(norm + op.added)?.maximum(op.floor)?)?)
}

#[derive(Clone, Copy)]
struct Normalise {
    added: f64,
    floor: f64,
}

impl Normalise {
    fn denominator<T: Real>(self, norm: T) -> T {
        let den = norm + T::from_f64(self.added);
        let floor = T::from_f64(self.floor);
        // Written so that NaN is kept.
        if den < floor { floor } else { den }
    }

    fn forward<T: Real>(self, x: &[T], width: usize) -> CpuStorage {
        let mut y = vec![T::ZERO; x.len()];
        y.par_chunks_mut(width).zip(x.par_chunks(width)).with_min_len(16).for_each(|(y, x)| {
            let scale = T::ONE / self.denominator(dot(x, x).root());
            for (y, &x) in y.iter_mut().zip(x) {
                *y = x * scale;
            }
        });
        T::to_cpu_storage_owned(y)
    }

    fn backward<T: Real>(self, x: &[T], g: &[T], width: usize) -> Vec<T> {
        let mut dx = vec![T::ZERO; x.len()];
        let rows = dx.par_chunks_mut(width).zip(x.par_chunks(width)).zip(g.par_chunks(width));
        rows.with_min_len(16).for_each(|((dx, x), g)| {
            let norm = dot(x, x).root();
            if norm == T::ZERO {
                return;
            }
            let den = self.denominator(norm);
            let floored = den == T::from_f64(self.floor);
            let along = if floored { T::ZERO } else { dot(x, g) / (norm * den * den) };
            let scale = T::ONE / den;
            for ((dx, &x), &g) in dx.iter_mut().zip(x).zip(g) {
                *dx = g * scale - x * along;
            }
        });
        dx
    }
}

impl CustomOp1 for Normalise {
    fn name(&self) -> &'static str {
        "normalise"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let width = layout.dims()[layout.dims().len() - 1];
        let y = match x {
            CpuStorage::F32(x) => self.forward(contiguous(x, layout)?, width),
            CpuStorage::F64(x) => self.forward(contiguous(x, layout)?, width),
            _ => candle_core::bail!("normalise: expected f32 or f64"),
        };
        Ok((y, layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, g: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let width = x.dim(D::Minus1)?;
        let (x, g) = (x.contiguous()?, g.contiguous()?);
        super::real::dispatch!(x.dtype(), T => {
            let dx = super::real::with(&x, |x| super::real::with(&g, |g| Ok(self.backward::<T>(x, g, width))))?;
            Ok(Some(Tensor::from_vec(dx, g.shape(), g.device())?))
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn lengths_become_one_and_zero_vectors_pass_nothing() {
        let x = Var::new(&[[3.0f64, 4.0], [0.0, 0.0], [-5.0, 12.0]], &Device::Cpu).unwrap();
        for (y, tolerance) in [(l2n(&x).unwrap(), 3e-9), (unit(&x).unwrap(), 1e-15)] {
            let rows = y.to_vec2::<f64>().unwrap();
            for (row, expected) in rows.iter().zip([[0.6, 0.8], [0.0, 0.0], [-5.0 / 13.0, 12.0 / 13.0]]) {
                assert!((row[0] - expected[0]).abs() <= tolerance && (row[1] - expected[1]).abs() <= tolerance);
            }
            // d/dx of x/|x| along (1, 0): (1 - x^2/n^2, -xy/n^2) / n.
            let g = y.narrow(1, 0, 1).unwrap().sum_all().unwrap().backward().unwrap();
            let g = g.get(&x).unwrap().to_vec2::<f64>().unwrap();
            assert!((g[0][0] - 0.64 / 5.0).abs() < 1e-8 && (g[0][1] + 0.48 / 5.0).abs() < 1e-8);
            assert_eq!(g[1], [0.0, 0.0]);
        }
    }
}
