//! The mean of the largest values of each channel, over packed sequences:
//!
//! ```text
//! y_c = mean of the min(k, n) largest of x_1c .. x_nc                (1)
//! ```
//! One operation with its gradient: each of the chosen values gets an equal share. Of equal values the first are chosen.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp1, D, Device, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::{
    lengths::Lengths,
    real::{Real, contiguous, dispatch, with},
};
use crate::{Error, Result};

/// Equation (1): `[total, d]` to `[items, d]`.
///
/// # Errors
/// If `k` is 0 or the shapes do not fit.
pub fn k_max(packed: &Tensor, lengths: &Lengths, k: usize) -> Result<Tensor> {
    let (total, _) = packed.dims2()?;
    if k == 0 || total != lengths.total() {
        return Err(Error::Numeric(format!(
            "k-max pooling: expected k of at least 1 and {} rows, found k = {k} and {total} rows",
            lengths.total()
        )));
    }
    if !packed.device().is_cpu() {
        return composed(packed, lengths, k);
    }
    Ok(packed.contiguous()?.apply_op1(Op { lengths: lengths.clone(), k, chosen: OnceLock::new() })?)
}

/// The same of tensor operations, for other devices.
fn composed(packed: &Tensor, lengths: &Lengths, k: usize) -> Result<Tensor> {
    let steps = lengths.longest();
    let channels = lengths.pad(packed, steps)?.transpose(1, 2)?.contiguous()?;
    let inside = lengths.mask(steps, packed.device())?.unsqueeze(1)?.broadcast_as(channels.shape())?.contiguous()?;
    let last = Tensor::full(f32::MIN, channels.shape(), packed.device())?.to_dtype(packed.dtype())?;
    let (sorted, _) = inside.where_cond(&channels, &last)?.sort_last_dim(false)?;
    let share = lengths.as_slice().iter().flat_map(|&n| {
        let m = k.min(n);
        (0..steps).map(move |p| if p < m { 1.0 / m as f64 } else { 0.0 })
    });
    let share = Tensor::from_vec(share.collect::<Vec<f64>>(), (lengths.len(), 1, steps), &Device::Cpu)?
        .to_dtype(packed.dtype())?
        .to_device(packed.device())?;
    let sorted = inside.where_cond(&sorted, &sorted.zeros_like()?)?;
    Ok(sorted.broadcast_mul(&share)?.sum(D::Minus1)?)
}

struct Op {
    lengths: Lengths,
    k: usize,
    /// The chosen rows of each item, place by place and channel by channel, for the way back.
    chosen: OnceLock<Vec<Vec<u32>>>,
}

impl Op {
    fn forward<T: Real>(&self, x: &[T], d: usize) -> Vec<T> {
        let mut y = vec![T::ZERO; self.lengths.len() * d];
        let chosen = y.par_chunks_mut(d).enumerate().map(|(item, y)| {
            let rows: Vec<&[T]> =
                x[self.lengths.range(item).start * d..][..self.lengths.as_slice()[item] * d].chunks_exact(d).collect();
            let m = self.k.min(rows.len());
            let (mut best, mut at) = (vec![T::ZERO; m * d], vec![0u32; m * d]);
            for (r, row) in rows.iter().enumerate() {
                for (c, &value) in row.iter().enumerate() {
                    // The place in descending order; behind equals, which came first.
                    let mut place = r.min(m);
                    while place > 0 && value > best[(place - 1) * d + c] {
                        place -= 1;
                    }
                    if place == m {
                        continue;
                    }
                    for p in (place + 1..m.min(r + 1)).rev() {
                        best[p * d + c] = best[(p - 1) * d + c];
                        at[p * d + c] = at[(p - 1) * d + c];
                    }
                    (best[place * d + c], at[place * d + c]) = (value, r as u32);
                }
            }
            for best in best.chunks_exact(d) {
                y.iter_mut().zip(best).for_each(|(y, &best)| *y += best);
            }
            let share = T::from_f64(1.0 / m as f64);
            y.iter_mut().for_each(|y| *y *= share);
            at
        });
        // The same values have the same places: of two passes one is kept.
        let _ = self.chosen.set(chosen.collect());
        y
    }

    fn backward<T: Real>(&self, total: usize, d: usize, grad: &[T]) -> Vec<T> {
        let mut dx = vec![T::ZERO; total * d];
        let chosen = self.chosen.get().map_or(&[][..], Vec::as_slice);
        let mut rest = &mut dx[..];
        let mut items = Vec::with_capacity(chosen.len());
        for (&n, chosen) in self.lengths.as_slice().iter().zip(chosen) {
            let (block, behind) = rest.split_at_mut(n * d);
            rest = behind;
            items.push((block, chosen));
        }
        items.into_par_iter().zip(grad.par_chunks(d)).for_each(|((block, chosen), grad)| {
            let share = T::from_f64(d as f64 / chosen.len() as f64);
            for chosen in chosen.chunks_exact(d) {
                for (c, (&row, &g)) in chosen.iter().zip(grad).enumerate() {
                    block[row as usize * d + c] += g * share;
                }
            }
        });
        dx
    }
}

impl CustomOp1 for Op {
    fn name(&self) -> &'static str {
        "k-max pooling"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (_, d) = layout.shape().dims2()?;
        let y = match x {
            CpuStorage::F32(x) => CpuStorage::F32(self.forward(contiguous(x, layout)?, d)),
            CpuStorage::F64(x) => CpuStorage::F64(self.forward(contiguous(x, layout)?, d)),
            _ => candle_core::bail!("k-max pooling: expected f32 or f64"),
        };
        Ok((y, Shape::from((self.lengths.len(), d))))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let ((total, d), grad) = (x.dims2()?, grad.contiguous()?);
        dispatch!(grad.dtype(), T => {
            let dx = with::<T, _>(&grad, |grad| Ok(self.backward(total, d, grad)))?;
            Ok(Some(Tensor::from_vec(dx, (total, d), &Device::Cpu)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Var};

    use super::*;
    use crate::nn::checks::{draw, flat, follows_differences};

    #[test]
    fn largest_values_by_hand() {
        // Channels (5, 1, 3 | 4), (2, 2, 7 | -1); of the second item there is one row alone.
        let x = Var::new(&[[5f64, 2.0], [1.0, 2.0], [3.0, 7.0], [4.0, -1.0]], &Device::Cpu).unwrap();
        let lengths = Lengths::new([3, 1]).unwrap();
        for (k, expected) in [
            (1, [[5.0, 7.0], [4.0, -1.0]]),
            (2, [[4.0, 4.5], [4.0, -1.0]]),
            (3, [[3.0, 11.0 / 3.0], [4.0, -1.0]]),
            (9, [[3.0, 11.0 / 3.0], [4.0, -1.0]]),
        ] {
            for y in [k_max(&x, &lengths, k).unwrap(), composed(&x, &lengths, k).unwrap()] {
                let apart =
                    flat(&y).iter().zip(expected.as_flattened()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(apart < 1e-12, "k = {k}: {y}");
            }
        }
        // Of the two 2s in the second channel the first is chosen.
        let grads = k_max(&x, &lengths, 2).unwrap().sum_all().unwrap().backward().unwrap();
        let grads = grads.get(&x).unwrap().to_vec2::<f64>().unwrap();
        assert_eq!(grads, [[0.5, 0.5], [0.0, 0.0], [0.5, 0.5], [1.0, 1.0]]);
    }

    #[test]
    fn every_k_agrees_with_sorting_and_with_finite_differences() {
        let lengths = Lengths::new([7, 1, 4, 12]).unwrap();
        let x = draw("pooled", &[24, 5]);
        for k in 1..14 {
            let found = flat(&k_max(&x, &lengths, k).unwrap());
            let rows = x.to_vec2::<f64>().unwrap();
            let expected = (0..4).flat_map(|item| {
                let rows = &rows[lengths.range(item)];
                (0..5).map(move |c| {
                    let mut values: Vec<f64> = rows.iter().map(|row| row[c]).collect();
                    values.sort_by(|a, b| b.total_cmp(a));
                    values.truncate(k);
                    values.iter().sum::<f64>() / values.len() as f64
                })
            });
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-12, "k = {k}");
            }
        }
        let weights = draw("weights", &[4, 5]).as_detached_tensor();
        follows_differences(&[x], |a| (k_max(&a[0], &lengths, 3).unwrap() * &weights).unwrap().sum_all().unwrap());
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() {
        let x = Tensor::zeros((3, 2), DType::F32, &Device::Cpu).unwrap();
        let error = |n: usize, k| k_max(&x, &Lengths::new([n]).unwrap(), k).unwrap_err().to_string();
        assert!(error(4, 2).contains("4 rows, found k = 2 and 3 rows") && error(3, 0).contains("found k = 0"));
    }
}
