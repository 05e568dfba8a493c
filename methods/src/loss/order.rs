//! Order similarity: `s_ij = -|[t_j - v_i]+|_2`, how far the text `t_j` sticks out above the image `v_i` in each dimension.
//!
//! Vendrov et al. square the norm; fartashf/vsepp@abe382f, the code of VSE++, does not, and is followed here. The gradient of a
//! pair without violation is 0.

use candle_core::{CpuStorage, CustomOp2, Device, Layout, Shape, Tensor};
use rayon::prelude::*;

use crate::{
    Error, Result,
    nn::real::{Real, contiguous, dispatch, with},
};

/// Scores of every image against every text: `[m, d]` and `[n, d]` to `[m, n]`.
///
/// # Errors
/// If the widths differ.
pub fn order_scores(images: &Tensor, texts: &Tensor) -> Result<Tensor> {
    if images.rank() != 2 || texts.rank() != 2 || images.dims()[1] != texts.dims()[1] {
        return Err(Error::Numeric(format!(
            "order similarity: expected [m, d] and [n, d], found {:?} and {:?}",
            images.dims(),
            texts.dims()
        )));
    }
    let local = |x: &Tensor| x.to_device(&Device::Cpu)?.contiguous();
    Ok(local(images)?.apply_op2(&local(texts)?, Order)?.to_device(images.device())?)
}

/// The order score of one pair of vectors of equal length.
pub fn order_score(image: &[f32], text: &[f32]) -> f32 {
    -violation(image, text).root()
}

/// `|[text - image]+|^2`, summed in sixteen interleaved parts.
#[inline]
fn violation<T: Real>(image: &[T], text: &[T]) -> T {
    let above = |v: T, t: T| if t - v < T::ZERO { T::ZERO } else { t - v };
    let mut parts = [T::ZERO; 16];
    let (images, texts) = (image.chunks_exact(16), text.chunks_exact(16));
    let rest = images.remainder().iter().zip(texts.remainder()).fold(T::ZERO, |sum, (&v, &t)| {
        let x = above(v, t);
        sum + x * x
    });
    for (v, t) in images.zip(texts) {
        for i in 0..16 {
            let x = above(v[i], t[i]);
            parts[i] += x * x;
        }
    }
    parts.into_iter().fold(rest, |sum, part| sum + part)
}

struct Order;

impl Order {
    fn forward<T: Real>(v: &[T], t: &[T], n: usize, d: usize) -> Vec<T> {
        let mut scores = vec![T::ZERO; v.len() / d.max(1) * n];
        scores.par_chunks_mut(n.max(1)).zip(v.par_chunks(d.max(1))).for_each(|(scores, v)| {
            for (score, t) in scores.iter_mut().zip(t.chunks_exact(d)) {
                *score = T::ZERO - violation(v, t).root();
            }
        });
        scores
    }

    /// `dv_i += sum_j g_ij [t_j - v_i]+ / |.|`; with the roles exchanged and the sign turned, the gradient of the texts.
    fn backward<T: Real>(
        own: &[T],
        other: &[T],
        d: usize,
        sign: T,
        g: impl Fn(usize, usize) -> (T, T) + Sync,
    ) -> Vec<T> {
        let mut grads = vec![T::ZERO; own.len()];
        grads.par_chunks_mut(d).zip(own.par_chunks(d)).enumerate().for_each(|(i, (grad, own))| {
            for (j, other) in other.chunks_exact(d).enumerate() {
                let (g, score) = g(i, j);
                if g == T::ZERO || score == T::ZERO {
                    continue;
                }
                // The score is minus the norm.
                let scale = T::ZERO - g / score;
                for ((grad, &own), &other) in grad.iter_mut().zip(own).zip(other) {
                    let above = sign * (other - own);
                    *grad += if above < T::ZERO { T::ZERO } else { sign * scale * above };
                }
            }
        });
        grads
    }
}

impl CustomOp2 for Order {
    fn name(&self) -> &'static str {
        "order similarity"
    }

    fn cpu_fwd(
        &self,
        v: &CpuStorage,
        v_layout: &Layout,
        t: &CpuStorage,
        t_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (m, n, d) = (v_layout.dims()[0], t_layout.dims()[0], v_layout.dims()[1]);
        let scores = match (v, t) {
            (CpuStorage::F32(v), CpuStorage::F32(t)) => {
                CpuStorage::F32(Self::forward(contiguous(v, v_layout)?, contiguous(t, t_layout)?, n, d))
            }
            (CpuStorage::F64(v), CpuStorage::F64(t)) => {
                CpuStorage::F64(Self::forward(contiguous(v, v_layout)?, contiguous(t, t_layout)?, n, d))
            }
            _ => candle_core::bail!("order similarity: expected two tensors of f32 or two of f64"),
        };
        Ok((scores, Shape::from((m, n))))
    }

    fn bwd(
        &self,
        v: &Tensor,
        t: &Tensor,
        scores: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let (n, d) = (t.dim(0)?, v.dim(1)?);
        let (v, t, grad) = (v.contiguous()?, t.contiguous()?, grad.contiguous()?);
        dispatch!(v.dtype(), T => {
            let (dv, dt) = with::<T, _>(&v, |vs| with::<T, _>(&t, |ts| with::<T, _>(scores, |s| with::<T, _>(&grad, |g| {
                let dv = Self::backward(vs, ts, d, 1.0, |i, j| (g[i * n + j], s[i * n + j]));
                let dt = Self::backward(ts, vs, d, -1.0, |j, i| (g[i * n + j], s[i * n + j]));
                Ok((dv, dt))
            }))))?;
            Ok((
                Some(Tensor::from_vec(dv, v.shape(), &Device::Cpu)?),
                Some(Tensor::from_vec(dt, t.shape(), &Device::Cpu)?),
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;

    #[test]
    fn a_text_below_its_image_scores_zero_and_pulls_nothing() {
        let images = Var::new(&[[1.0f64, 2.0], [0.0, 0.0]], &Device::Cpu).unwrap();
        let texts = Var::new(&[[1.0f64, 1.0], [4.0, 4.0]], &Device::Cpu).unwrap();
        let scores = order_scores(&images, &texts).unwrap();
        let found = scores.to_vec2::<f64>().unwrap();
        for (row, expected) in found.iter().zip([[0.0, -13f64.sqrt()], [-2f64.sqrt(), -32f64.sqrt()]]) {
            assert!((row[0] - expected[0]).abs() < 1e-12 && (row[1] - expected[1]).abs() < 1e-12);
        }
        let grads = scores.narrow(0, 0, 1).unwrap().sum_all().unwrap().backward().unwrap();
        let (dv, dt) = (grads.get(&images).unwrap(), grads.get(&texts).unwrap());
        let (dv, dt) = (dv.to_vec2::<f64>().unwrap(), dt.to_vec2::<f64>().unwrap());
        let r = 13f64.sqrt();
        assert!((dv[0][0] - 3.0 / r).abs() < 1e-12 && (dv[0][1] - 2.0 / r).abs() < 1e-12);
        assert_eq!((dv[1].as_slice(), dt[0].as_slice()), ([0.0, 0.0].as_slice(), [0.0, 0.0].as_slice()));
        assert!((dt[1][0] + 3.0 / r).abs() < 1e-12);
        assert_eq!(order_score(&[0.0f32, 0.0], &[3.0, 4.0]), -5.0);
    }
}
