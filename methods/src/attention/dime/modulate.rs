//! What equations (3) and (5) do to a vector entry by entry, each as one operation with its gradient on the CPU.
//!
//! ```text
//! (3)  y = x (1 + u),  u = p / max(|p|, 1e-12) along the vectors of an item,  p = m g
//!      dx = dy (1 + u),  du = dy x,  dp = (du - u (u·du)) / |p|,  dm = dp g,  dg = sum of dp m
//! (5)  y = x tanh(a) + b
//!      dx = dy tanh(a),  da = dy x (1 - tanh(a)²),  db = dy
//! ```
//! A column `p` of zeros stays zero and passes no gradient; vectors that are not real take no part.

use candle_core::{CpuStorage, CustomOp3, DType, Layout, Shape, Tensor};
use rayon::prelude::*;

use crate::{
    Result,
    nn::{
        cross::{floored_root, keep, vectorised},
        real::{Real, dispatch, together, with},
    },
};

/// Values that a task takes at least.
const TASK: usize = 1 << 13;
/// The least length of a column.
const LEAST: f64 = 1e-12;

/// Equation (3), `[N, M, q, d]`, for vectors `x` and their maps `m`, each `[n, M, q, d]` with `n` 1 or `N`, and `global [N, d]`;
/// `real [1 or N, M, q]` says which vectors are.
///
/// # Errors
/// If the shapes do not fit.
pub(super) fn guide(x: &Tensor, m: &Tensor, global: &Tensor, real: Option<&Tensor>) -> Result<Tensor> {
    if x.device().is_cpu() {
        let real = match real {
            Some(real) => Some((real.dim(0)?, real.to_dtype(DType::U8)?.contiguous()?.flatten_all()?.to_vec1()?)),
            None => None,
        };
        return Ok(x.contiguous()?.apply_op3(&m.contiguous()?, &global.contiguous()?, Guide { real })?);
    }
    let guided = m.broadcast_mul(&global.unsqueeze(1)?.unsqueeze(1)?)?;
    let guided = match real {
        Some(real) => keep(Some(&real.unsqueeze(3)?), &guided, 0.0)?,
        None => guided,
    };
    let squares = guided.sqr()?.sum_keepdim(2)?;
    let there = squares.gt(0.0)?.to_dtype(x.dtype())?;
    let unit = guided.broadcast_mul(&(floored_root(&squares)?.maximum(LEAST)?.recip()? * there)?)?;
    Ok((unit + 1.0)?.broadcast_mul(x)?)
}

/// `x tanh(a) + b` for `a` and `b [N, M, q, d]`, and `x` of this shape or `[1, M, q, d]`.
///
/// # Errors
/// If the shapes do not fit.
pub(super) fn modulate(x: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() {
        return Ok(x.contiguous()?.apply_op3(&a.contiguous()?, &b.contiguous()?, Modulate)?);
    }
    Ok((a.tanh()?.broadcast_mul(x)? + b)?)
}

struct Guide {
    /// `1` or `N`, and the mask.
    real: Option<(usize, Vec<u8>)>,
}

vectorised! {
    /// Inverse lengths of the columns of `m g` over the real rows; 0 for a column of zeros.
    fn lengths<T: Real>(m: &[T], g: &[T], real: Option<&[u8]>, inverse: &mut [T]) {
        inverse.fill(T::ZERO);
        for (row, m) in m.chunks_exact(g.len()).enumerate() {
            if real.is_none_or(|real| real[row] != 0) {
                for (total, (&m, &g)) in inverse.iter_mut().zip(m.iter().zip(g)) {
                    let p = m * g;
                    *total += p * p;
                }
            }
        }
        let least = T::from_f64(LEAST);
        for total in inverse.iter_mut() {
            let root = total.root();
            let below = if root < least { least } else { root };
            *total = if root == T::ZERO { T::ZERO } else { T::ONE / below };
        }
    }
}

vectorised! {
    fn guided<T: Real>(x: &[T], m: &[T], g: &[T], real: Option<&[u8]>, inverse: &[T], y: &mut [T]) {
        let d = g.len();
        for (row, ((y, x), m)) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(m.chunks_exact(d)).enumerate() {
            if real.is_none_or(|real| real[row] != 0) {
                for i in 0..d {
                    y[i] = x[i] + x[i] * (m[i] * g[i] * inverse[i]);
                }
            } else {
                y.copy_from_slice(x);
            }
        }
    }
}

vectorised! {
    /// Adds to `dx`, `dm` and `dg`; `along` is scratch of `g`'s length.
    fn guided_back<T: Real>(
        given: [&[T]; 4],
        real: Option<&[u8]>,
        inverse: &[T],
        along: &mut [T],
        dx: &mut [T],
        dm: &mut [T],
        dg: &mut [T],
    ) {
        let [x, m, g, dy] = given;
        let (d, least) = (g.len(), T::from_f64(LEAST));
        along.fill(T::ZERO);
        for (row, ((x, m), dy)) in x.chunks_exact(d).zip(m.chunks_exact(d)).zip(dy.chunks_exact(d)).enumerate() {
            if real.is_none_or(|real| real[row] != 0) {
                for i in 0..d {
                    along[i] += m[i] * g[i] * inverse[i] * (dy[i] * x[i]);
                }
            }
        }
        for (along, &inverse) in along.iter_mut().zip(inverse) {
            // Below the floor the length does not depend on the column.
            *along = if inverse * least >= T::ONE { T::ZERO } else { *along };
        }
        let rows = x.chunks_exact(d).zip(m.chunks_exact(d)).zip(dy.chunks_exact(d));
        let out = dx.chunks_exact_mut(d).zip(dm.chunks_exact_mut(d));
        for (row, (((x, m), dy), (dx, dm))) in rows.zip(out).enumerate() {
            if real.is_none_or(|real| real[row] != 0) {
                for i in 0..d {
                    let u = m[i] * g[i] * inverse[i];
                    let dp = (dy[i] * x[i] - u * along[i]) * inverse[i];
                    dx[i] += dy[i] + dy[i] * u;
                    dm[i] += dp * g[i];
                    dg[i] += dp * m[i];
                }
            } else {
                dx.iter_mut().zip(dy).for_each(|(dx, &dy)| *dx += dy);
            }
        }
    }
}

impl Guide {
    /// The mask of a block.
    fn real(&self, n: usize, m: usize, blocks: usize, q: usize) -> Option<&[u8]> {
        self.real.as_ref().map(|(items, real)| &real[(if *items == 1 { m } else { n * blocks + m }) * q..][..q])
    }

    fn forward<T: Real>(&self, x: &[T], maps: &[T], global: &[T], [n, m, q, d]: [usize; 4]) -> Vec<T> {
        let mut y = vec![T::ZERO; n * m * q * d];
        if y.is_empty() {
            return y;
        }
        let block = q * d;
        y.par_chunks_mut(block).enumerate().with_min_len(TASK.div_ceil(block)).for_each_init(
            || vec![T::ZERO; d],
            |inverse, (at, y)| {
                let from = at * block % x.len();
                let (x, maps, g) = (&x[from..from + block], &maps[from..from + block], &global[at / m * d..][..d]);
                let real = self.real(at / m, at % m, m, q);
                lengths(maps, g, real, inverse);
                guided(x, maps, g, real, inverse, y);
            },
        );
        y
    }

    fn backward<T: Real>(&self, given: [&[T]; 4], [n, m, q, d]: [usize; 4]) -> [Vec<T>; 3] {
        let [x, maps, global, dy] = given;
        let (mut dx, mut dm) = (vec![T::ZERO; x.len()], vec![T::ZERO; x.len()]);
        let mut dg = vec![T::ZERO; global.len()];
        if dy.is_empty() {
            return [dx, dm, dg];
        }
        let block = q * d;
        // A task goes through all pairs that share its vectors, and gives the gradient of the global vector of each.
        let (own, pairs) = (x.len() / block, n * m * block / x.len());
        let mut each = vec![T::ZERO; n * m * d];
        let parts = dx.par_chunks_mut(block).zip(dm.par_chunks_mut(block)).zip(each.par_chunks_mut(pairs * d));
        parts.enumerate().with_min_len(TASK.div_ceil(block * pairs)).for_each_init(
            || (vec![T::ZERO; d], vec![T::ZERO; d]),
            |(inverse, along), (at, ((dx, dm), each))| {
                let (x, maps) = (&x[at * block..][..block], &maps[at * block..][..block]);
                for (pair, dg) in (at..n * m).step_by(own).zip(each.chunks_exact_mut(d)) {
                    let (g, dy) = (&global[pair / m * d..][..d], &dy[pair * block..][..block]);
                    let real = self.real(pair / m, pair % m, m, q);
                    lengths(maps, g, real, inverse);
                    guided_back([x, maps, g, dy], real, inverse, along, dx, dm, dg);
                }
            },
        );
        for (at, each) in each.chunks_exact(d).enumerate() {
            let pair = at / pairs + at % pairs * own;
            dg[pair / m * d..][..d].iter_mut().zip(each).for_each(|(dg, &each)| *dg += each);
        }
        [dx, dm, dg]
    }
}

impl CustomOp3 for Guide {
    fn name(&self) -> &'static str {
        "guided vectors"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        maps: &CpuStorage,
        maps_layout: &Layout,
        global: &CpuStorage,
        global_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let ((items, m, q, d), (n, width)) = (x_layout.shape().dims4()?, global_layout.shape().dims2()?);
        let masked = self.real.as_ref().is_some_and(|(items, real)| real.len() != items * m * q);
        if maps_layout.dims() != x_layout.dims() || width != d || !(items == 1 || items == n) || masked {
            candle_core::bail!(
                "guided vectors: expected maps {:?} and a vector of {d} values for each item, found {:?} and {:?}",
                x_layout.dims(),
                maps_layout.dims(),
                global_layout.dims()
            );
        }
        let y = together!(
            "guided vectors",
            |x, maps, global| self.forward(x, maps, global, [n, m, q, d]),
            (x, x_layout),
            (maps, maps_layout),
            (global, global_layout)
        );
        Ok((y, Shape::from((n, m, q, d))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        maps: &Tensor,
        global: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (grad, shape) = (grad.contiguous()?, grad.dims4()?.into());
        dispatch!(x.dtype(), T => {
            let [dx, dm, dg] = with(x, |x| {
                with(maps, |maps| {
                    with(global, |global| with(&grad, |grad| Ok(self.backward::<T>([x, maps, global, grad], shape))))
                })
            })?;
            let device = x.device();
            Ok((
                Some(Tensor::from_vec(dx, x.shape(), device)?),
                Some(Tensor::from_vec(dm, maps.shape(), device)?),
                Some(Tensor::from_vec(dg, global.shape(), device)?),
            ))
        })
    }
}

struct Modulate;

vectorised! {
    fn modulated<T: Real>(x: &[T], a: &[T], b: &[T], y: &mut [T]) {
        for (y, (&x, (&a, &b))) in y.iter_mut().zip(x.iter().zip(a.iter().zip(b))) {
            *y = x * a.tanh() + b;
        }
    }
}

vectorised! {
    fn modulated_back<T: Real>(x: &[T], a: &[T], dy: &[T], dx: &mut [T], da: &mut [T]) {
        for ((dx, da), (&x, (&a, &dy))) in dx.iter_mut().zip(da.iter_mut()).zip(x.iter().zip(a.iter().zip(dy))) {
            let t = a.tanh();
            *dx += dy * t;
            *da = dy * x * (T::ONE - t * t);
        }
    }
}

impl Modulate {
    fn forward<T: Real>(x: &[T], a: &[T], b: &[T]) -> Vec<T> {
        let mut y = vec![T::ZERO; a.len()];
        let all = x.len().max(1);
        for ((y, a), b) in y.chunks_mut(all).zip(a.chunks(all)).zip(b.chunks(all)) {
            let parts = y.par_chunks_mut(TASK).zip(a.par_chunks(TASK)).zip(b.par_chunks(TASK).zip(x.par_chunks(TASK)));
            parts.for_each(|((y, a), (b, x))| modulated(x, a, b, y));
        }
        y
    }

    fn backward<T: Real>(x: &[T], a: &[T], dy: &[T]) -> [Vec<T>; 2] {
        let (mut dx, mut da) = (vec![T::ZERO; x.len()], vec![T::ZERO; a.len()]);
        let all = x.len().max(1);
        for ((da, a), dy) in da.chunks_mut(all).zip(a.chunks(all)).zip(dy.chunks(all)) {
            let given = x.par_chunks(TASK).zip(a.par_chunks(TASK).zip(dy.par_chunks(TASK)));
            let parts = dx.par_chunks_mut(TASK).zip(da.par_chunks_mut(TASK)).zip(given);
            parts.for_each(|((dx, da), (x, (a, dy)))| modulated_back(x, a, dy, dx, da));
        }
        [dx, da]
    }
}

impl CustomOp3 for Modulate {
    fn name(&self) -> &'static str {
        "modulated vectors"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (dims, shape) = (a_layout.shape().dims4()?, x_layout.shape().dims4()?);
        if b_layout.dims() != a_layout.dims() || !(shape == dims || shape == (1, dims.1, dims.2, dims.3)) {
            candle_core::bail!(
                "modulated vectors: expected {:?} twice, and vectors of this shape or of one item, found {:?} and {:?}",
                a_layout.dims(),
                b_layout.dims(),
                x_layout.dims()
            );
        }
        let y = together!("modulated vectors", Self::forward, (x, x_layout), (a, a_layout), (b, b_layout));
        Ok((y, a_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        a: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        dispatch!(x.dtype(), T => {
            let [dx, da] = with(x, |x| with(a, |a| with(&grad, |grad| Ok(Self::backward::<T>(x, a, grad)))))?;
            let device = x.device();
            let dx = Tensor::from_vec(dx, x.shape(), device)?;
            Ok((Some(dx), Some(Tensor::from_vec(da, a.shape(), device)?), Some(grad)))
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::nn::checks::{draw, flat, follows_differences, on_threads};

    fn weighted(y: &Tensor) -> Tensor {
        (y * draw("cotangent", &[2, 3, 4, 5]).as_tensor()).unwrap().sum_all().unwrap()
    }

    #[test]
    fn guided_vectors_are_those_of_the_equation_and_gradients_follow_differences() {
        let mask: Vec<u8> = (0..24).map(|at| u8::from(at % 5 != 3)).collect();
        let of_pairs = Tensor::from_vec(mask.clone(), (2, 3, 4), &Device::Cpu).unwrap();
        let of_items = Tensor::from_vec(mask[..12].to_vec(), (1, 3, 4), &Device::Cpu).unwrap();
        for n in [1, 2] {
            for real in [None, Some(&of_items), Some(&of_pairs)] {
                let inputs = [draw("x", &[n, 3, 4, 5]), draw("m", &[n, 3, 4, 5]), draw("g", &[2, 5])];
                let found = flat(&guide(&inputs[0], &inputs[1], &inputs[2], real).unwrap());
                let [x, m, g] = [0, 1, 2].map(|at| flat(&inputs[at]));
                let there = real.map(|real| flat(&real.broadcast_as((2, 3, 4)).unwrap()));
                for (at, found) in found.iter().enumerate() {
                    let (pair, row, i) = (at / 20, at / 5 % 4, at % 5);
                    let from = |row: usize| (pair % (n * 3)) * 20 + row * 5 + i;
                    let is = |row: &usize| there.as_ref().is_none_or(|there| there[pair * 4 + row] != 0.0);
                    let p = |row: usize| m[from(row)] * g[pair / 3 * 5 + i];
                    let length = (0..4).filter(is).map(|row| p(row) * p(row)).sum::<f64>().sqrt();
                    if is(&row) {
                        let expected = x[from(row)] * (1.0 + p(row) / length);
                        assert!((found - expected).abs() < 1e-14, "{n} {at}: {found} {expected}");
                    }
                }
                follows_differences(&inputs, |at| weighted(&guide(&at[0], &at[1], &at[2], real).unwrap()));
            }
        }
        assert!(guide(&draw("x", &[3, 3, 4, 5]), &draw("m", &[3, 3, 4, 5]), &draw("g", &[2, 5]), None).is_err());
    }

    #[test]
    fn a_column_of_zeros_passes_nothing() {
        let inputs = [draw("x", &[1, 3, 4, 5]), draw("m", &[1, 3, 4, 5])];
        let g = candle_core::Var::from_tensor(&Tensor::zeros((2, 5), DType::F64, &Device::Cpu).unwrap()).unwrap();
        let y = guide(&inputs[0], &inputs[1], &g, None).unwrap();
        let grads = weighted(&y).backward().unwrap();
        assert!(flat(grads.get(inputs[1].as_tensor()).unwrap()).iter().all(|&x| x == 0.0));
        assert!(flat(grads.get(g.as_tensor()).unwrap()).iter().all(|&x| x == 0.0));
    }

    #[test]
    fn modulated_vectors_are_those_of_the_equation_and_gradients_follow_differences() {
        for n in [1, 2] {
            let inputs = [draw("x", &[n, 3, 4, 5]), draw("a", &[2, 3, 4, 5]), draw("b", &[2, 3, 4, 5])];
            let found = flat(&modulate(&inputs[0], &inputs[1], &inputs[2]).unwrap());
            let [x, a, b] = [0, 1, 2].map(|at| flat(&inputs[at]));
            for (at, found) in found.iter().enumerate() {
                assert!((found - (x[at % x.len()] * a[at].tanh() + b[at])).abs() < 1e-15);
            }
            follows_differences(&inputs, |at| weighted(&modulate(&at[0], &at[1], &at[2]).unwrap()));
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let inputs = [draw("x", &[1, 30, 36, 32]), draw("m", &[1, 30, 36, 32]), draw("g", &[20, 32])];
        let run = |threads| {
            on_threads(threads, || {
                let y = guide(&inputs[0], &inputs[1], &inputs[2], None).unwrap();
                let y = modulate(&inputs[0], &y, &y).unwrap();
                let grads = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                let grad = |at: usize| flat(grads.get(inputs[at].as_tensor()).unwrap());
                [flat(&y), grad(0), grad(1), grad(2)]
            })
        };
        assert!(run(1) == run(3));
    }
}
