//! Equations (3) behind their layers, and (4), as one operation with its gradient: `y = u + g (q - u)` for `g = sigmoid(x)` and
//! `u = tanh(z)`.
//!
//! ```text
//! dx = dy (q - u) g (1 - g),   dz = dy (1 - g) (1 - u²),   dq = dy g
//! ```
//! `g` and `u` are computed again rather than kept.

use candle_core::{CpuStorage, CustomOp3, Layout, Shape, Tensor};
use rayon::prelude::*;

use crate::{
    Result,
    nn::{
        cross::vectorised,
        real::{Real, dispatch, together, with},
    },
};

/// Values that a task takes.
const TASK: usize = 1 << 14;

/// Equation (4) of `x` and `z [N, M, q, d]` for memories `[M, q, d]` or `[N, M, q, d]`.
///
/// # Errors
/// If the shapes do not fit.
pub(super) fn gated(x: &Tensor, z: &Tensor, memory: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() {
        return Ok(x.contiguous()?.apply_op3(&z.contiguous()?, &memory.contiguous()?, Gate)?);
    }
    let (gate, update) = (candle_nn::ops::sigmoid(x)?, z.tanh()?);
    Ok((&update + (gate * memory.broadcast_sub(&update)?)?)?)
}

struct Gate;

vectorised! {
    fn forward<T: Real>(x: &[T], z: &[T], q: &[T], y: &mut [T]) {
        for (y, (&x, (&z, &q))) in y.iter_mut().zip(x.iter().zip(z.iter().zip(q))) {
            let (g, u) = (x.sigmoid(), z.tanh());
            *y = u + g * (q - u);
        }
    }
}

vectorised! {
    fn backward<T: Real>(given: [&[T]; 4], dx: &mut [T], dz: &mut [T], dq: &mut [T]) {
        let [x, z, q, dy] = given;
        let out = dx.iter_mut().zip(dz.iter_mut().zip(dq.iter_mut()));
        for ((dx, (dz, dq)), ((&x, &z), (&q, &dy))) in out.zip(x.iter().zip(z).zip(q.iter().zip(dy))) {
            let (g, u) = (x.sigmoid(), z.tanh());
            let closed = T::ONE - g;
            *dx = dy * (q - u) * g * closed;
            *dz = dy * closed * (T::ONE - u * u);
            *dq = dy * g;
        }
    }
}

impl Gate {
    fn run<T: Real>(x: &[T], z: &[T], q: &[T]) -> Vec<T> {
        let mut y = vec![T::ZERO; x.len()];
        let items = y.chunks_mut(q.len().max(1)).zip(x.chunks(q.len().max(1)).zip(z.chunks(q.len().max(1))));
        for (y, (x, z)) in items {
            let parts = y.par_chunks_mut(TASK).zip(x.par_chunks(TASK)).zip(z.par_chunks(TASK).zip(q.par_chunks(TASK)));
            parts.for_each(|((y, x), (z, q))| forward(x, z, q, y));
        }
        y
    }

    fn gradients<T: Real>(x: &[T], z: &[T], q: &[T], dy: &[T]) -> [Vec<T>; 3] {
        let mut out = [vec![T::ZERO; x.len()], vec![T::ZERO; x.len()], vec![T::ZERO; x.len()]];
        let [dx, dz, dq] = &mut out;
        for start in (0..x.len()).step_by(q.len().max(1)) {
            let of = start..start + q.len();
            let (x, z, dy) = (&x[of.clone()], &z[of.clone()], &dy[of.clone()]);
            let (dx, dz, dq) = (&mut dx[of.clone()], &mut dz[of.clone()], &mut dq[of]);
            let parts = dx.par_chunks_mut(TASK).zip(dz.par_chunks_mut(TASK)).zip(dq.par_chunks_mut(TASK)).enumerate();
            parts.for_each(|(part, ((dx, dz), dq))| {
                let at = part * TASK..part * TASK + dx.len();
                backward([&x[at.clone()], &z[at.clone()], &q[at.clone()], &dy[at]], dx, dz, dq);
            });
        }
        if q.len() < x.len() {
            // Memories that several items share.
            let mut total = vec![T::ZERO; q.len()];
            for dq in dq.chunks_exact(q.len()) {
                total.iter_mut().zip(dq).for_each(|(total, &dq)| *total += dq);
            }
            *dq = total;
        }
        out
    }
}

impl CustomOp3 for Gate {
    fn name(&self) -> &'static str {
        "gated memory"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        z: &CpuStorage,
        z_layout: &Layout,
        q: &CpuStorage,
        q_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let dims = x_layout.dims();
        if z_layout.dims() != dims || !(q_layout.dims() == dims || q_layout.dims() == &dims[1..]) {
            candle_core::bail!(
                "gated memory: expected {dims:?} twice and memories of it, found {:?} and {:?}",
                z_layout.dims(),
                q_layout.dims()
            );
        }
        let y = together!("gated memory", Self::run, (x, x_layout), (z, z_layout), (q, q_layout));
        Ok((y, x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        z: &Tensor,
        q: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        dispatch!(x.dtype(), T => {
            let [dx, dz, dq] = with(x, |x| {
                with(z, |z| with(q, |q| with(&grad, |grad| Ok(Self::gradients::<T>(x, z, q, grad)))))
            })?;
            let device = x.device();
            Ok((
                Some(Tensor::from_vec(dx, x.shape(), device)?),
                Some(Tensor::from_vec(dz, z.shape(), device)?),
                Some(Tensor::from_vec(dq, q.shape(), device)?),
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;
    use crate::nn::checks::{draw, flat, follows_differences};

    #[test]
    fn values_are_those_of_the_equations_and_gradients_follow_differences() {
        for shape in [&[2, 3, 4][..], &[3, 2, 3, 4]] {
            let inputs = [draw("x", &[3, 2, 3, 4]), draw("z", &[3, 2, 3, 4]), draw("q", shape)];
            let found = flat(&gated(&inputs[0], &inputs[1], &inputs[2]).unwrap());
            let [x, z, q] = [0, 1, 2].map(|at| flat(&inputs[at]));
            for (i, found) in found.iter().enumerate() {
                let (g, u) = (1.0 / (1.0 + (-x[i]).exp()), z[i].tanh());
                assert!((found - (g * q[i % q.len()] + (1.0 - g) * u)).abs() < 1e-15);
            }
            follows_differences(&inputs, |at| {
                let y = gated(&at[0], &at[1], &at[2]).unwrap();
                (y * draw("cotangent", &[3, 2, 3, 4]).as_tensor()).unwrap().sum_all().unwrap()
            });
            let narrow = |at: usize| inputs[at].to_dtype(DType::F32).unwrap();
            let single = flat(&gated(&narrow(0), &narrow(1), &narrow(2)).unwrap());
            assert!(single.iter().zip(found).all(|(a, b)| (a - b).abs() < 1e-6));
        }
    }
}
