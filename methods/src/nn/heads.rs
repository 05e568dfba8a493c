//! Several attentions side by side, each over a part of the vectors (Vaswani et al., NIPS 2017):
//!
//! ```text
//! a = softmax(q k^T / sqrt(w / heads)),  a v of every head, one behind the other      (1)
//! ```
//! On the CPU this is one operation, item by item, with its gradient; it keeps nothing but its inputs.

use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Shape, Tensor};
use candle_nn::ops;
use rayon::prelude::*;

use super::{
    cross::{Real, fused::Rows},
    real::{dispatch, together, with},
};
use crate::{
    Result,
    linalg::gemm::{Mat, MatMut, gemm_serial},
};

/// Equation (1), `[items, steps, w]`, from queries, keys and values `[items, steps, w]`; steps where `real [items, steps]` is 0 are not
/// seen.
///
/// # Errors
/// If the shapes do not fit, or `heads` does not divide `w`.
pub(crate) fn attend([q, k, v]: [&Tensor; 3], heads: usize, real: Option<&Tensor>) -> Result<Tensor> {
    let (items, steps, w) = v.dims3()?;
    if heads == 0 || !w.is_multiple_of(heads) {
        return Err(crate::Error::Numeric(format!(
            "attention: expected a number of heads that divides the width {w}, found {heads}"
        )));
    }
    if v.device().is_cpu() {
        let real = match real {
            Some(real) if real.dims() != [items, steps] => {
                return Err(crate::Error::Numeric(format!(
                    "attention: expected a mask [{items}, {steps}], found {:?}",
                    real.dims()
                )));
            }
            Some(real) => Some(real.to_dtype(DType::U8)?.contiguous()?.flatten_all()?.to_vec1()?),
            None => None,
        };
        return Ok(q.contiguous()?.apply_op3(&k.contiguous()?, &v.contiguous()?, Heads { heads, real })?);
    }
    let each = w / heads;
    let part = |x: &Tensor| x.reshape((items, steps, heads, each))?.transpose(1, 2)?.contiguous();
    let scores = (part(q)?.matmul(&part(k)?.transpose(2, 3)?.contiguous()?)? * (1.0 / (each as f64).sqrt()))?;
    let scores = match real {
        Some(real) => scores.broadcast_add(&hidden(real, v)?)?,
        None => scores,
    };
    // `softmax_last_dim` passes no gradient on.
    let seen = ops::softmax(&scores, D::Minus1)?.matmul(&part(v)?)?;
    Ok(seen.transpose(1, 2)?.contiguous()?.reshape((items, steps, w))?)
}

/// What hides the steps behind an item's end where `real [items, steps]` is 0, `[items, 1, 1, steps]`, in the type of `like`.
///
/// # Errors
/// If a tensor operation fails.
pub(super) fn hidden(real: &Tensor, like: &Tensor) -> Result<Tensor> {
    // Nothing is left of a weight this far below the others.
    Ok(real.to_dtype(like.dtype())?.affine(1e9, -1e9)?.unsqueeze(1)?.unsqueeze(1)?)
}

struct Heads {
    heads: usize,
    /// `[items, steps]`.
    real: Option<Vec<u8>>,
}

impl Heads {
    fn rows(&self, item: usize, steps: usize) -> Rows<'_> {
        Rows { width: steps, seen: self.real.as_ref().map(|real| &real[item * steps..][..steps]) }
    }

    fn scale<T: Real>(&self, w: usize) -> T {
        T::of(1.0 / ((w / self.heads) as f64).sqrt())
    }

    /// `q kᵀ` of every head of an item, `[heads, steps, steps]`, as weights.
    fn weights<T: Real>(&self, item: usize, [q, k]: [&[T]; 2], [steps, w]: [usize; 2], s: &mut [T], out: &mut [T]) {
        let (each, scale) = (w / self.heads, self.scale(w));
        for (head, s) in s.chunks_exact_mut(steps * steps).enumerate() {
            let part = |x| head_of(x, head, each, steps, w);
            gemm_serial(scale, part(q), part(k).t(), T::ZERO, MatMut::new(s, steps, steps));
        }
        self.rows(item, steps).soften(s, out);
    }

    fn forward<T: Real>(&self, q: &[T], k: &[T], v: &[T], [_, steps, w]: [usize; 3]) -> Vec<T> {
        let mut out = vec![T::ZERO; v.len()];
        if out.is_empty() {
            return out;
        }
        let each = w / self.heads;
        out.par_chunks_mut(steps * w).enumerate().for_each_init(
            || [(); 2].map(|()| vec![T::ZERO; self.heads * steps * steps]),
            |[s, a], (item, out)| {
                let of = item * steps * w..(item + 1) * steps * w;
                self.weights(item, [&q[of.clone()], &k[of.clone()]], [steps, w], s, a);
                for (head, a) in a.chunks_exact(steps * steps).enumerate() {
                    let out = MatMut::strided(&mut out[head * each..], steps, each, w);
                    let v = head_of(&v[of.clone()], head, each, steps, w);
                    gemm_serial(T::ONE, Mat::new(a, steps, steps), v, T::ZERO, out);
                }
            },
        );
        out
    }

    fn backward<T: Real>(&self, given: [&[T]; 4], [_, steps, w]: [usize; 3]) -> [Vec<T>; 3] {
        let [q, k, v, grad] = given;
        let mut out = [vec![T::ZERO; q.len()], vec![T::ZERO; k.len()], vec![T::ZERO; v.len()]];
        if grad.is_empty() {
            return out;
        }
        let (each, scale) = (w / self.heads, self.scale(w));
        let [dq, dk, dv] = &mut out;
        let items = dq.par_chunks_mut(steps * w).zip(dk.par_chunks_mut(steps * w)).zip(dv.par_chunks_mut(steps * w));
        items.enumerate().for_each_init(
            || [(); 3].map(|()| vec![T::ZERO; self.heads * steps * steps]),
            |[s, a, da], (item, ((dq, dk), dv))| {
                let of = item * steps * w..(item + 1) * steps * w;
                let [q, k, v, grad] = [q, k, v, grad].map(|x| &x[of.clone()]);
                self.weights(item, [q, k], [steps, w], s, a);
                for (head, (a, da)) in a.chunks_exact(steps * steps).zip(da.chunks_exact_mut(steps * steps)).enumerate()
                {
                    let part = |x| head_of(x, head, each, steps, w);
                    let dv = MatMut::strided(&mut dv[head * each..], steps, each, w);
                    gemm_serial(T::ONE, Mat::new(a, steps, steps).t(), part(grad), T::ZERO, dv);
                    gemm_serial(T::ONE, part(grad), part(v).t(), T::ZERO, MatMut::new(da, steps, steps));
                }
                self.rows(item, steps).gradient(a, da, s);
                for (head, ds) in s.chunks_exact(steps * steps).enumerate() {
                    let part = |x| head_of(x, head, each, steps, w);
                    let (dq, dk) = (&mut dq[head * each..], &mut dk[head * each..]);
                    let ds = Mat::new(ds, steps, steps);
                    gemm_serial(scale, ds, part(k), T::ZERO, MatMut::strided(dq, steps, each, w));
                    gemm_serial(scale, ds.t(), part(q), T::ZERO, MatMut::strided(dk, steps, each, w));
                }
            },
        );
        out
    }
}

/// The columns of one head, `[steps, each]`, of `x [steps, w]`.
fn head_of<T>(x: &[T], head: usize, each: usize, steps: usize, w: usize) -> Mat<'_, T> {
    Mat::strided(&x[head * each..], steps, each, w)
}

impl CustomOp3 for Heads {
    fn name(&self) -> &'static str {
        "attention heads"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let shape = v_layout.shape().dims3()?.into();
        if q_layout.dims() != v_layout.dims() || k_layout.dims() != v_layout.dims() {
            candle_core::bail!(
                "attention heads: expected queries, keys and values of one shape, found {:?}, {:?} and {:?}",
                q_layout.dims(),
                k_layout.dims(),
                v_layout.dims()
            );
        }
        let out = together!(
            "attention heads",
            |q, k, v| self.forward(q, k, v, shape),
            (q, q_layout),
            (k, k_layout),
            (v, v_layout)
        );
        Ok((out, v_layout.shape().clone()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (grad, shape) = (grad.contiguous()?, v.dims3()?.into());
        dispatch!(v.dtype(), T => {
            let [dq, dk, dv] = with(q, |q| {
                with(k, |k| with(v, |v| with(&grad, |grad| Ok(self.backward::<T>([q, k, v, grad], shape)))))
            })?;
            let of = |data: Vec<T>| Ok::<_, candle_core::Error>(Some(Tensor::from_vec(data, v.shape(), v.device())?));
            Ok((of(dq)?, of(dk)?, of(dv)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::nn::checks::{draw, flat, follows_differences, on_threads};

    #[test]
    fn values_are_those_of_the_equation_and_gradients_follow_differences() {
        let inputs = [draw("q", &[3, 4, 6]), draw("k", &[3, 4, 6]), draw("v", &[3, 4, 6])];
        let real = Tensor::new(&[[1u8, 1, 1, 1], [1, 1, 0, 0], [1, 0, 1, 1]], &Device::Cpu).unwrap();
        let [q, k, v] = [0, 1, 2].map(|at| flat(&inputs[at]));
        for (heads, mask) in [(1, None), (2, Some(&real)), (3, Some(&real))] {
            let found = flat(&attend([&inputs[0], &inputs[1], &inputs[2]], heads, mask).unwrap());
            let (each, real) = (6 / heads, flat(&real));
            for (at, found) in found.iter().enumerate() {
                let (item, step, head) = (at / 24, at / 6 % 4, at % 6 / each);
                let row = |x: &[f64], step: usize| x[(item * 4 + step) * 6 + head * each..][..each].to_vec();
                let logit = |other: usize| {
                    let (q, k) = (row(&q, step), row(&k, other));
                    q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() / (each as f64).sqrt()
                };
                let seen = |other: &usize| mask.is_none() || real[item * 4 + other] != 0.0;
                let total: f64 = (0..4).filter(seen).map(|other| logit(other).exp()).sum();
                let sum: f64 = (0..4).filter(seen).map(|other| logit(other).exp() * row(&v, other)[at % each]).sum();
                assert!((found - sum / total).abs() < 1e-14, "{heads} {at}: {found} {}", sum / total);
            }
            follows_differences(&inputs, |at| {
                let y = attend([&at[0], &at[1], &at[2]], heads, mask).unwrap();
                (y * draw("cotangent", &[3, 4, 6]).as_tensor()).unwrap().sum_all().unwrap()
            });
        }
        assert!(attend([&inputs[0], &inputs[1], &inputs[2]], 4, None).is_err());
        assert!(attend([&inputs[0], &inputs[1], &inputs[2]], 2, Some(&real.t().unwrap())).is_err());
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let inputs = ["q", "k", "v"].map(|label| draw(label, &[40, 17, 32]));
        let run = |threads| {
            on_threads(threads, || {
                let y = attend([&inputs[0], &inputs[1], &inputs[2]], 4, None).unwrap();
                let grads = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                let grad = |at: usize| flat(grads.get(inputs[at].as_tensor()).unwrap());
                [flat(&y), grad(0), grad(1), grad(2)]
            })
        };
        assert!(run(1) == run(3));
    }
}
