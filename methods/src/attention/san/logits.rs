//! Equation (1) and the product of (2) as one operation with its gradient: `l_j = w · tanh(s_j + a)` for what is seen `s_j` and what
//! asks `a`. No hidden vector of a pair outlives its sum.
//!
//! ```text
//! dh_j = dl_j w (1 - h_j²),   ds_j = sum of dh_j over the questions,   da = sum of dh_j over j,   dw = sum of dl_j h_j
//! ```

use candle_core::{CpuStorage, CustomOp3, Layout, Shape, Tensor};
use rayon::prelude::*;

use crate::{
    Result,
    nn::{
        cross::vectorised,
        real::{Real, dispatch, dot, together, with},
    },
};

/// Logits `[N, M, 1, c]` of `seen [N, c, width]` for `asked [M, width]` or `[N, M, width]`, with `weight [width, 1]`.
///
/// # Errors
/// If the shapes do not fit.
pub(super) fn hidden_logits(seen: &Tensor, asked: &Tensor, weight: &Tensor) -> Result<Tensor> {
    if seen.device().is_cpu() {
        return Ok(seen.contiguous()?.apply_op3(&asked.contiguous()?, &weight.contiguous()?, Logits)?);
    }
    let asked = if asked.rank() == 2 { asked.unsqueeze(0)? } else { asked.clone() };
    let h = seen.unsqueeze(1)?.broadcast_add(&asked.unsqueeze(2)?)?.tanh()?;
    let (n, m, c, width) = h.dims4()?;
    Ok(h.reshape((n * m * c, width))?.matmul(weight)?.reshape((n, m, 1, c))?)
}

struct Logits;

vectorised! {
    /// `tanh(s_j + a)` of every row of `seen`.
    fn hidden<T: Real>(seen: &[T], asked: &[T], h: &mut [T]) {
        for (h, seen) in h.chunks_exact_mut(asked.len()).zip(seen.chunks_exact(asked.len())) {
            for (h, (&seen, &asked)) in h.iter_mut().zip(seen.iter().zip(asked)) {
                *h = (seen + asked).tanh();
            }
        }
    }
}

vectorised! {
    /// Adds one question's gradients: to those of what is seen, of what asks, and of the weight.
    fn back<T: Real>(h: &[T], w: &[T], grad: &[T], ds: &mut [T], da: &mut [T], dw: &mut [T]) {
        let width = w.len();
        for ((h, ds), &grad) in h.chunks_exact(width).zip(ds.chunks_exact_mut(width)).zip(grad) {
            for i in 0..width {
                let dh = grad * w[i] * (T::ONE - h[i] * h[i]);
                ds[i] += dh;
                da[i] += dh;
                dw[i] += grad * h[i];
            }
        }
    }
}

impl Logits {
    fn forward<T: Real>(seen: &[T], asked: &[T], w: &[T], [n, m, c, width]: [usize; 4]) -> Vec<T> {
        let mut out = vec![T::ZERO; n * m * c];
        if out.is_empty() || width == 0 {
            return out;
        }
        let shared = asked.len() == m * width;
        out.par_chunks_mut(m * c).enumerate().for_each_init(
            || vec![T::ZERO; c * width],
            |h, (at, out)| {
                let asked = if shared { asked } else { &asked[at * m * width..][..m * width] };
                for (out, asked) in out.chunks_exact_mut(c).zip(asked.chunks_exact(width)) {
                    hidden(&seen[at * c * width..][..c * width], asked, h);
                    out.iter_mut().zip(h.chunks_exact(width)).for_each(|(out, h)| *out = dot(h, w));
                }
            },
        );
        out
    }

    fn backward<T: Real>(seen: &[T], asked: &[T], w: &[T], grad: &[T], [n, m, c, width]: [usize; 4]) -> [Vec<T>; 3] {
        let mut ds = vec![T::ZERO; seen.len()];
        let mut da = vec![T::ZERO; n * m * width];
        let mut each = vec![T::ZERO; n * width];
        let shared = asked.len() == m * width;
        if !grad.is_empty() && width > 0 {
            let items = ds.par_chunks_mut(c * width).zip(da.par_chunks_mut(m * width)).zip(each.par_chunks_mut(width));
            items.enumerate().for_each_init(
                || vec![T::ZERO; c * width],
                |h, (at, ((ds, da), dw))| {
                    let asked = if shared { asked } else { &asked[at * m * width..][..m * width] };
                    let grad = &grad[at * m * c..][..m * c];
                    let questions = asked.chunks_exact(width).zip(da.chunks_exact_mut(width));
                    for ((asked, da), grad) in questions.zip(grad.chunks_exact(c)) {
                        hidden(&seen[at * c * width..][..c * width], asked, h);
                        back(h, w, grad, ds, da, dw);
                    }
                },
            );
        }
        let total = |parts: Vec<T>, len: usize| {
            let mut total = vec![T::ZERO; len];
            for part in parts.chunks_exact(len.max(1)) {
                total.iter_mut().zip(part).for_each(|(total, &part)| *total += part);
            }
            total
        };
        [ds, total(da, asked.len()), total(each, width)]
    }
}

impl CustomOp3 for Logits {
    fn name(&self) -> &'static str {
        "logits of hidden vectors"
    }

    fn cpu_fwd(
        &self,
        seen: &CpuStorage,
        seen_layout: &Layout,
        asked: &CpuStorage,
        asked_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (n, c, width) = seen_layout.shape().dims3()?;
        let m = match *asked_layout.dims() {
            [m, own] if own == width => m,
            [items, m, own] if own == width && items == n => m,
            ref other => candle_core::bail!(
                "logits of hidden vectors: expected questions [M, {width}] or [{n}, M, {width}], found {other:?}"
            ),
        };
        if w_layout.dims() != [width, 1] {
            candle_core::bail!("logits of hidden vectors: expected a weight [{width}, 1], found {:?}", w_layout.dims());
        }
        let shape = [n, m, c, width];
        let out = together!(
            "logits of hidden vectors",
            |seen, asked, w| Self::forward(seen, asked, w, shape),
            (seen, seen_layout),
            (asked, asked_layout),
            (w, w_layout)
        );
        Ok((out, Shape::from((n, m, 1, c))))
    }

    fn bwd(
        &self,
        seen: &Tensor,
        asked: &Tensor,
        w: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (grad, (n, c, width)) = (grad.contiguous()?, seen.dims3()?);
        let shape = [n, grad.dim(1)?, c, width];
        dispatch!(seen.dtype(), T => {
            let [ds, da, dw] = with(seen, |seen| {
                with(asked, |asked| {
                    with(w, |w| with(&grad, |grad| Ok(Self::backward::<T>(seen, asked, w, grad, shape))))
                })
            })?;
            let device = seen.device();
            Ok((
                Some(Tensor::from_vec(ds, seen.shape(), device)?),
                Some(Tensor::from_vec(da, asked.shape(), device)?),
                Some(Tensor::from_vec(dw, w.shape(), device)?),
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::checks::{draw, flat, follows_differences};

    #[test]
    fn values_are_those_of_the_equations_and_gradients_follow_differences() {
        for shape in [&[2, 5][..], &[3, 2, 5]] {
            let inputs = [draw("seen", &[3, 4, 5]), draw("asked", shape), draw("weight", &[5, 1])];
            let found = flat(&hidden_logits(&inputs[0], &inputs[1], &inputs[2]).unwrap());
            let [seen, asked, w] = [0, 1, 2].map(|at| flat(&inputs[at]));
            for (at, found) in found.iter().enumerate() {
                let (n, m, c) = (at / 8, at / 4 % 2, at % 4);
                let question = if shape.len() == 2 { m } else { n * 2 + m };
                let term = |i: usize| w[i] * (seen[(n * 4 + c) * 5 + i] + asked[question * 5 + i]).tanh();
                assert!((found - (0..5).map(term).sum::<f64>()).abs() < 1e-14);
            }
            follows_differences(&inputs, |at| {
                let logits = hidden_logits(&at[0], &at[1], &at[2]).unwrap();
                (logits * draw("cotangent", &[3, 2, 1, 4]).as_tensor()).unwrap().sum_all().unwrap()
            });
        }
        let wrong = hidden_logits(&draw("seen", &[3, 4, 5]), &draw("asked", &[2, 6]), &draw("weight", &[5, 1]));
        assert!(wrong.unwrap_err().to_string().contains("[M, 5] or [3, M, 5]"));
    }
}
