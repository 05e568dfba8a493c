//! What ends each part of a layer that is normalised behind its parts, fused: a sum and layer normalisation (Ba, Kiros, Hinton 2016)
//!
//! ```text
//! y = scale (h - mean h) / sqrt(var h + 1e-5) + shift,  h = x + m b      along the last dimension     (1)
//! ```
//! with `b` what the part made of `x`, and `m` the mask of dropout: 0 or `1 / (1 - share)`, 1 outside training. The variance is biased.
//!
//! Backward, with `n` the normalised `h`, `r = 1 / sqrt(var h + 1e-5)` and `g' = g scale`:
//! `dh = r (g' - mean g' - n mean(g' n))`, `dx = dh`, `db = m dh`, `dscale = sum g n`, `dshift = sum g`.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp3, Device, Layout, Shape, Tensor};
use candle_nn::ops;
use rayon::prelude::*;
use xmbench_datasets::random::Stream;

use super::{
    Weights,
    dropped::Kept,
    real::{Real, contiguous, dispatch, dot, with},
};
use crate::Result;

/// Added to variances, as PyTorch has it.
const EPSILON: f64 = 1e-5;
/// Rows whose gradients of scale and shift are summed by one task; fixed, so that sums do not depend on the number of threads.
const ROWS: usize = 64;

/// Layer normalisation of a sum. Weights `NAME.scale` and `NAME.shift`.
pub(crate) struct ResidualNorm {
    scale: Tensor,
    shift: Tensor,
}

impl ResidualNorm {
    pub fn new(weights: &mut Weights, name: &str, width: usize) -> Result<Self> {
        let one = Tensor::ones(width, candle_core::DType::F32, weights.device())?;
        let scale = weights.insert(&format!("{name}.scale"), one)?;
        Ok(Self { scale, shift: weights.zeros(&format!("{name}.shift"), &[width])? })
    }

    #[cfg(test)]
    pub fn from_parts(scale: Tensor, shift: Tensor) -> Self {
        Self { scale, shift }
    }

    /// Equation (1) for rows `[n, width]`; dropout with a share and a stream.
    pub fn forward(&self, x: &Tensor, part: &Tensor, share: f64, training: Option<&mut Stream>) -> Result<Tensor> {
        let kept = match training {
            Some(stream) if share > 0.0 => Some(Kept::draw(part.elem_count(), share, stream)),
            _ => None,
        };
        if !x.device().is_cpu() {
            let part = match &kept {
                Some(kept) => (part * kept.factors(part)?)?,
                None => part.clone(),
            };
            // The fast path passes no gradient on.
            return Ok(ops::layer_norm_slow(&(x + part)?, &self.scale, &self.shift, EPSILON as f32)?);
        }
        let gains = Tensor::stack(&[&self.scale, &self.shift], 0)?;
        let op = Op { kept, saved: OnceLock::new() };
        Ok(x.contiguous()?.apply_op3(&part.contiguous()?, &gains, op)?)
    }
}

struct Op {
    kept: Option<Kept>,
    /// Mean and `r` of each row, for the way back.
    saved: OnceLock<Vec<[f64; 2]>>,
}

impl Op {
    /// `h` of row `i`.
    fn sum<T: Real>(&self, i: usize, x: &[T], part: &[T], h: &mut [T]) {
        match &self.kept {
            None => h.iter_mut().zip(x).zip(part).for_each(|((h, &x), &b)| *h = x + b),
            Some(kept) => {
                let (keep, scale) = (kept.range(i * x.len()..(i + 1) * x.len()), kept.scale::<T>());
                for (((h, &x), &b), &keep) in h.iter_mut().zip(x).zip(part).zip(keep) {
                    *h = if keep == 0 { x } else { x + b * scale };
                }
            }
        }
    }

    fn forward<T: Real>(&self, x: &[T], part: &[T], gains: &[T]) -> Vec<T> {
        let width = gains.len() / 2;
        let (scale, shift) = gains.split_at(width);
        let ones = vec![T::ONE; width];
        let mut y = vec![T::ZERO; x.len()];
        let rows = y.par_chunks_mut(width).zip(x.par_chunks(width)).zip(part.par_chunks(width));
        let saved = rows.enumerate().map(|(i, ((y, x), part))| {
            self.sum(i, x, part, y);
            let mean = dot(y, &ones) / T::from_f64(width as f64);
            y.iter_mut().for_each(|y| *y -= mean);
            let variance = dot(y, y).to_f64() / width as f64;
            let r = 1.0 / (variance + EPSILON).sqrt();
            let narrow = T::from_f64(r);
            for ((y, &scale), &shift) in y.iter_mut().zip(scale).zip(shift) {
                *y = *y * narrow * scale + shift;
            }
            [mean.to_f64(), r]
        });
        // The same rows have the same values: of two passes one is kept.
        let _ = self.saved.set(saved.collect());
        y
    }

    /// Gradients of `x`, of the part and of the gains.
    fn backward<T: Real>(&self, x: &[T], part: &[T], gains: &[T], grad: &[T]) -> [Vec<T>; 3] {
        let width = gains.len() / 2;
        let scale = &gains[..width];
        let saved = self.saved.get().map_or(&[][..], Vec::as_slice);
        let mut dx = vec![T::ZERO; x.len()];
        let blocks = dx.par_chunks_mut(ROWS * width).enumerate().map(|(block, dx)| {
            let (mut h, mut scaled, ones) = (vec![T::ZERO; width], vec![T::ZERO; width], vec![T::ONE; width]);
            let mut sums = vec![T::ZERO; 2 * width];
            for (at, dx) in dx.chunks_exact_mut(width).enumerate() {
                let i = block * ROWS + at;
                let row = i * width..(i + 1) * width;
                let (grad, [mean, r]) = (&grad[row.clone()], saved[i].map(T::from_f64));
                self.sum(i, &x[row.clone()], &part[row], &mut h);
                h.iter_mut().for_each(|h| *h = (*h - mean) * r);
                let (dscale, dshift) = sums.split_at_mut(width);
                for j in 0..width {
                    scaled[j] = grad[j] * scale[j];
                    dscale[j] += grad[j] * h[j];
                    dshift[j] += grad[j];
                }
                let n = T::from_f64(width as f64);
                let (mean, along) = (dot(&scaled, &ones) / n, dot(&scaled, &h) / n);
                for j in 0..width {
                    dx[j] = r * (scaled[j] - mean - h[j] * along);
                }
            }
            sums
        });
        let blocks: Vec<Vec<T>> = blocks.collect();
        let mut total = vec![0f64; 2 * width];
        for sums in &blocks {
            total.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum.to_f64());
        }
        let dpart = self.kept.as_ref().map_or_else(|| dx.clone(), |kept| kept.apply(&dx));
        [dx, dpart, total.into_iter().map(T::from_f64).collect()]
    }
}

impl CustomOp3 for Op {
    fn name(&self) -> &'static str {
        "residual normalisation"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        part: &CpuStorage,
        part_layout: &Layout,
        gains: &CpuStorage,
        gains_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (rows, width) = x_layout.shape().dims2()?;
        if part_layout.dims() != [rows, width] || gains_layout.dims() != [2, width] || width == 0 {
            candle_core::bail!(
                "residual normalisation: expected twice rows [{rows}, {width}] that are not empty, and [2, {width}], found {:?} and {:?}",
                part_layout.dims(),
                gains_layout.dims()
            );
        }
        let y = match (x, part, gains) {
            (CpuStorage::F32(x), CpuStorage::F32(part), CpuStorage::F32(gains)) => CpuStorage::F32(self.forward(
                contiguous(x, x_layout)?,
                contiguous(part, part_layout)?,
                contiguous(gains, gains_layout)?,
            )),
            (CpuStorage::F64(x), CpuStorage::F64(part), CpuStorage::F64(gains)) => CpuStorage::F64(self.forward(
                contiguous(x, x_layout)?,
                contiguous(part, part_layout)?,
                contiguous(gains, gains_layout)?,
            )),
            _ => candle_core::bail!("residual normalisation: expected all of f32, or all of f64"),
        };
        Ok((y, x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        part: &Tensor,
        gains: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        dispatch!(grad.dtype(), T => {
            let [dx, dpart, dgains] = with::<T, _>(x, |x| with::<T, _>(part, |part| with::<T, _>(gains, |gains| {
                with::<T, _>(&grad, |grad| Ok(self.backward(x, part, gains, grad)))
            })))?;
            let tensor = |values: Vec<T>, like: &Tensor| Tensor::from_vec(values, like.shape(), &Device::Cpu);
            Ok((Some(tensor(dx, x)?), Some(tensor(dpart, x)?), Some(tensor(dgains, gains)?)))
        })
    }
}
