//! Equations (4) and (7).

use candle_core::{CpuStorage, CustomOp3, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::{
    super::{Real, panel::dot, real::vectorised},
    least,
};
use crate::{
    linalg::gemm::{Mat, MatMut, gemm_serial},
    nn::real::{together, with},
};

/// Equation (7): `[2, N, M, q]` from similarities, weights and Gram matrices.
struct Project;

/// [`project`](super::super::project) on the CPU.
pub(in super::super) fn project(s: &Tensor, weights: &Tensor, grams: &Tensor) -> candle_core::Result<[Tensor; 2]> {
    let found = s.contiguous()?.apply_op3(&weights.contiguous()?, &grams.contiguous()?, Project)?;
    Ok([found.get(0)?, found.get(1)?])
}

vectorised! {
    /// Row by row `a · b`.
    fn row_dots<T: Real>(c: usize, a: &[T], b: &[T], out: &mut [T]) {
        for (out, (a, b)) in out.iter_mut().zip(a.chunks_exact(c).zip(b.chunks_exact(c))) {
            *out = dot(a, b);
        }
    }
}

vectorised! {
    /// Row by row `g s + 2 h x` into `x`, `g w` into `ds`, and `h w` into `scaled`.
    fn spread<T: Real>(c: usize, g: &[T], h: &[T], s: &[T], w: &[T], x: &mut [T], ds: &mut [T], scaled: &mut [T]) {
        for (row, (&g, &h)) in g.iter().zip(h).enumerate() {
            let at = row * c..(row + 1) * c;
            let (s, w) = (&s[at.clone()], &w[at.clone()]);
            let (x, ds, scaled) = (&mut x[at.clone()], &mut ds[at.clone()], &mut scaled[at]);
            let twice = h + h;
            for i in 0..c {
                x[i] = g * s[i] + twice * x[i];
                ds[i] = g * w[i];
                scaled[i] = h * w[i];
            }
        }
    }
}

impl Project {
    fn forward<T: Real>(s: &[T], w: &[T], grams: &[T], [n, m, q, c]: [usize; 4]) -> Vec<T> {
        let rows = m * q;
        let mut out = vec![T::ZERO; 2 * n * rows];
        if out.is_empty() || c == 0 {
            return out;
        }
        let (inner, square) = out.split_at_mut(n * rows);
        let items =
            inner.par_chunks_mut(rows).zip(square.par_chunks_mut(rows)).enumerate().with_min_len(least(rows * c));
        items.for_each_init(
            || vec![T::ZERO; rows * c],
            |spread, (at, (inner, square))| {
                let (s, w) = (&s[at * rows * c..][..rows * c], &w[at * rows * c..][..rows * c]);
                let gram = Mat::new(&grams[at * c * c..], c, c);
                gemm_serial(T::ONE, Mat::new(w, rows, c), gram, T::ZERO, MatMut::new(spread, rows, c));
                row_dots(c, w, s, inner);
                row_dots(c, w, spread, square);
            },
        );
        out
    }

    fn backward<T: Real>(s: &[T], w: &[T], grams: &[T], grad: &[T], [n, m, q, c]: [usize; 4]) -> [Vec<T>; 3] {
        let rows = m * q;
        let mut out = [vec![T::ZERO; s.len()], vec![T::ZERO; w.len()], vec![T::ZERO; grams.len()]];
        if s.is_empty() {
            return out;
        }
        let [ds, dw, dg] = &mut out;
        let items = ds.par_chunks_mut(rows * c).zip(dw.par_chunks_mut(rows * c)).zip(dg.par_chunks_mut(c * c));
        items.enumerate().with_min_len(least(rows * c)).for_each_init(
            || vec![T::ZERO; rows * c],
            |scaled, (at, ((ds, dw), dg))| {
                let (s, w) = (&s[at * rows * c..][..rows * c], &w[at * rows * c..][..rows * c]);
                let (g, h) = (&grad[at * rows..][..rows], &grad[(n + at) * rows..][..rows]);
                let gram = Mat::new(&grams[at * c * c..], c, c);
                gemm_serial(T::ONE, Mat::new(w, rows, c), gram, T::ZERO, MatMut::new(dw, rows, c));
                spread(c, g, h, s, w, dw, ds, scaled);
                let scaled = Mat::new(scaled, rows, c).t();
                gemm_serial(T::ONE, scaled, Mat::new(w, rows, c), T::ZERO, MatMut::new(dg, c, c));
            },
        );
        out
    }
}

impl CustomOp3 for Project {
    fn name(&self) -> &'static str {
        "attended lengths"
    }

    fn cpu_fwd(
        &self,
        s: &CpuStorage,
        s_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
        grams: &CpuStorage,
        grams_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let shape @ (n, m, q, c) = w_layout.shape().dims4()?;
        if s_layout.dims() != w_layout.dims() || grams_layout.dims() != [n, c, c] {
            candle_core::bail!(
                "attended lengths: expected similarities {:?} and Gram matrices [{n}, {c}, {c}], found {:?} and {:?}",
                w_layout.dims(),
                s_layout.dims(),
                grams_layout.dims()
            );
        }
        let shape = shape.into();
        let out = together!(
            "attended lengths",
            |s, w, grams| Self::forward(s, w, grams, shape),
            (s, s_layout),
            (w, w_layout),
            (grams, grams_layout)
        );
        Ok((out, Shape::from((2, n, m, q))))
    }

    fn bwd(
        &self,
        s: &Tensor,
        w: &Tensor,
        grams: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (shape, grad) = (w.dims4()?.into(), grad.contiguous()?);
        crate::nn::real::dispatch!(w.dtype(), T => {
            let [ds, dw, dg] = with(s, |s| {
                with(w, |w| with(grams, |grams| with(&grad, |grad| Ok(Self::backward::<T>(s, w, grams, grad, shape)))))
            })?;
            let device = w.device();
            Ok((
                Some(Tensor::from_vec(ds, s.shape(), device)?),
                Some(Tensor::from_vec(dw, w.shape(), device)?),
                Some(Tensor::from_vec(dg, grams.shape(), device)?),
            ))
        })
    }
}

/// Equation (4) and something beside it: `weights [N, M, q, c]` of `contexts [N, c, e]`, on top of `base`, `[M, q, e]` or
/// `[N, M, q, e]`.
struct AttendedPlus;

/// `W C + base` on the CPU, `[N, M, q, e]`.
pub(in super::super) fn attended_plus(
    weights: &Tensor,
    contexts: &Tensor,
    base: &Tensor,
) -> candle_core::Result<Tensor> {
    weights.contiguous()?.apply_op3(&contexts.contiguous()?, &base.contiguous()?, AttendedPlus)
}

impl AttendedPlus {
    fn forward<T: Real>(w: &[T], contexts: &[T], base: &[T], [rows, c, e]: [usize; 3], n: usize) -> Vec<T> {
        let mut out = Vec::with_capacity(n * rows * e);
        while out.len() < n * rows * e {
            out.extend_from_slice(base);
        }
        if out.is_empty() {
            return out;
        }
        out.par_chunks_mut(rows * e).enumerate().with_min_len(least(rows * e)).for_each(|(at, out)| {
            let w = Mat::new(&w[at * rows * c..], rows, c);
            gemm_serial(T::ONE, w, Mat::new(&contexts[at * c * e..], c, e), T::ONE, MatMut::new(out, rows, e));
        });
        out
    }

    fn backward<T: Real>(w: &[T], contexts: &[T], grad: &[T], [rows, c, e]: [usize; 3]) -> [Vec<T>; 2] {
        let (mut dw, mut dc) = (vec![T::ZERO; w.len()], vec![T::ZERO; contexts.len()]);
        if grad.is_empty() || c == 0 {
            return [dw, dc];
        }
        let items = dw.par_chunks_mut(rows * c).zip(dc.par_chunks_mut(c * e)).enumerate();
        items.with_min_len(least(rows * e)).for_each(|(at, (dw, dc))| {
            let grad = Mat::new(&grad[at * rows * e..], rows, e);
            let contexts = Mat::new(&contexts[at * c * e..], c, e);
            gemm_serial(T::ONE, grad, contexts.t(), T::ZERO, MatMut::new(dw, rows, c));
            gemm_serial(T::ONE, Mat::new(&w[at * rows * c..], rows, c).t(), grad, T::ZERO, MatMut::new(dc, c, e));
        });
        [dw, dc]
    }
}

impl CustomOp3 for AttendedPlus {
    fn name(&self) -> &'static str {
        "attended vectors"
    }

    fn cpu_fwd(
        &self,
        w: &CpuStorage,
        w_layout: &Layout,
        contexts: &CpuStorage,
        contexts_layout: &Layout,
        base: &CpuStorage,
        base_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let ((n, m, q, c), (items, seen, e)) = (w_layout.shape().dims4()?, contexts_layout.shape().dims3()?);
        let fits = base_layout.dims() == [m, q, e] || base_layout.dims() == [n, m, q, e];
        if (items, seen) != (n, c) || !fits || e == 0 {
            candle_core::bail!(
                "attended vectors: expected contexts [{n}, {c}, e] and [{m}, {q}, e] or [{n}, {m}, {q}, e] beside them, found {:?} and {:?}",
                contexts_layout.dims(),
                base_layout.dims()
            );
        }
        let sizes = [m * q, c, e];
        let out = together!(
            "attended vectors",
            |w, x, base| Self::forward(w, x, base, sizes, n),
            (w, w_layout),
            (contexts, contexts_layout),
            (base, base_layout)
        );
        Ok((out, Shape::from((n, m, q, e))))
    }

    fn bwd(
        &self,
        w: &Tensor,
        contexts: &Tensor,
        base: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (grad, (_, m, q, c), e) = (grad.contiguous()?, w.dims4()?, contexts.dim(2)?);
        let of_base = if base.rank() == 3 { grad.sum(0)? } else { grad.clone() };
        crate::nn::real::dispatch!(w.dtype(), T => {
            let [dw, dc] = with(w, |w| {
                with(contexts, |contexts| with(&grad, |grad| Ok(Self::backward::<T>(w, contexts, grad, [m * q, c, e]))))
            })?;
            let device = w.device();
            let of_weights = Tensor::from_vec(dw, w.shape(), device)?;
            Ok((Some(of_weights), Some(Tensor::from_vec(dc, contexts.shape(), device)?), Some(of_base)))
        })
    }
}
