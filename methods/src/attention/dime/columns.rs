//! The mean and the largest value of every column of items `[n, M, q, d]` over their real vectors, each as one operation with its
//! gradient on the CPU. An item without real vectors has the mean 0, and its first vector's values for the largest.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::cells::Locals;
use crate::{
    Result,
    nn::{
        cross::{keep, vectorised},
        real::{Real, contiguous, dispatch, with},
    },
};

/// Values that a task takes at least.
const TASK: usize = 1 << 14;

/// The mean over the real vectors, `[n, M, d]`.
///
/// # Errors
/// If a tensor operation fails.
pub(super) fn mean(locals: &Locals) -> Result<Tensor> {
    if locals.vectors.device().is_cpu() {
        return pool(locals, Kind::Mean);
    }
    match locals.mask()? {
        None => Ok(locals.vectors.mean(2)?),
        Some(mask) => {
            let count = mask.to_dtype(locals.vectors.dtype())?.sum(2)?.maximum(1.0)?;
            Ok(keep(Some(&mask), &locals.vectors, 0.0)?.sum(2)?.broadcast_div(&count)?)
        }
    }
}

/// The largest value of each column over the real vectors, `[n, M, d]`; of equal ones the first has the gradient.
///
/// # Errors
/// If a tensor operation fails.
pub(super) fn largest(locals: &Locals) -> Result<Tensor> {
    if locals.vectors.device().is_cpu() {
        return pool(locals, Kind::Largest);
    }
    let first = keep(locals.mask()?.as_ref(), &locals.vectors.detach(), f64::NEG_INFINITY)?.argmax_keepdim(2)?;
    Ok(locals.vectors.contiguous()?.gather(&first.contiguous()?, 2)?.squeeze(2)?)
}

fn pool(locals: &Locals, kind: Kind) -> Result<Tensor> {
    let (n, m, q, _) = locals.vectors.dims4()?;
    let real = match &locals.real {
        Some(real) => {
            real.broadcast_as((n, m, q))?;
            Some(real.to_dtype(DType::U8)?.contiguous()?.flatten_all()?.to_vec1()?)
        }
        None => None,
    };
    Ok(locals.vectors.contiguous()?.apply_op1(Pool { kind, real })?)
}

#[derive(Clone, Copy)]
enum Kind {
    Mean,
    Largest,
}

struct Pool {
    kind: Kind,
    /// `[n or 1, M, q]`.
    real: Option<Vec<u8>>,
}

/// The number of the mask's rows that are real.
fn counted(real: Option<&[u8]>, q: usize) -> usize {
    real.map_or(q, |real| real.iter().filter(|&&real| real != 0).count())
}

vectorised! {
    fn sums<T: Real>(x: &[T], real: Option<&[u8]>, scale: T, out: &mut [T]) {
        for (row, x) in x.chunks_exact(out.len()).enumerate() {
            if real.is_none_or(|real| real[row] != 0) {
                out.iter_mut().zip(x).for_each(|(out, &x)| *out += x);
            }
        }
        out.iter_mut().for_each(|out| *out *= scale);
    }
}

vectorised! {
    /// The largest values, and as numbers of `T` the rows that they stand in; what is not a number stays.
    fn peaks<T: Real>(x: &[T], real: Option<&[u8]>, out: &mut [T], rows: &mut [T]) {
        let d = out.len();
        let start = real.map_or(0, |real| real.iter().position(|&real| real != 0).unwrap_or(0));
        out.copy_from_slice(&x[start * d..][..d]);
        rows.fill(T::from_f64(start as f64));
        for (row, x) in x.chunks_exact(d).enumerate().skip(start + 1) {
            if real.is_none_or(|real| real[row] != 0) {
                let number = T::from_f64(row as f64);
                for ((out, at), &x) in out.iter_mut().zip(rows.iter_mut()).zip(x) {
                    let most = *out;
                    // Not `x > most`: what is not a number is kept.
                    let more = x > most || (x.partial_cmp(&x).is_none() && most.partial_cmp(&most).is_some());
                    *out = if more { x } else { most };
                    *at = if more { number } else { *at };
                }
            }
        }
    }
}

vectorised! {
    /// `grad` in the rows that `rows` names.
    fn placed<T: Real>(rows: &[T], grad: &[T], out: &mut [T]) {
        for (row, out) in out.chunks_exact_mut(grad.len()).enumerate() {
            let number = T::from_f64(row as f64);
            for (out, (&at, &grad)) in out.iter_mut().zip(rows.iter().zip(grad)) {
                *out = if at == number { grad } else { T::ZERO };
            }
        }
    }
}

impl Pool {
    fn real(&self, item: usize, q: usize) -> Option<&[u8]> {
        self.real.as_ref().map(|real| &real[item * q % real.len()..][..q])
    }

    fn forward<T: Real>(&self, x: &[T], [n, m, q, d]: [usize; 4]) -> Vec<T> {
        let mut out = vec![T::ZERO; n * m * d];
        if x.is_empty() {
            return out;
        }
        let items = out.par_chunks_mut(d).zip(x.par_chunks(q * d)).enumerate().with_min_len(TASK.div_ceil(q * d));
        items.for_each_init(
            || vec![T::ZERO; d],
            |rows, (item, (out, x))| {
                let real = self.real(item, q);
                match self.kind {
                    Kind::Mean => sums(x, real, T::from_f64(1.0 / counted(real, q).max(1) as f64), out),
                    Kind::Largest => peaks(x, real, out, rows),
                }
            },
        );
        out
    }

    fn backward<T: Real>(&self, x: &[T], grad: &[T], [_, _, q, d]: [usize; 4]) -> Vec<T> {
        let mut dx = vec![T::ZERO; x.len()];
        if x.is_empty() {
            return dx;
        }
        let items = dx.par_chunks_mut(q * d).zip(x.par_chunks(q * d).zip(grad.par_chunks(d))).enumerate();
        items.with_min_len(TASK.div_ceil(q * d)).for_each_init(
            || (vec![T::ZERO; d], vec![T::ZERO; d]),
            |(most, rows), (item, (dx, (x, grad)))| {
                let real = self.real(item, q);
                match self.kind {
                    Kind::Mean => {
                        let scale = T::from_f64(1.0 / counted(real, q).max(1) as f64);
                        for (row, dx) in dx.chunks_exact_mut(d).enumerate() {
                            if real.is_none_or(|real| real[row] != 0) {
                                dx.iter_mut().zip(grad).for_each(|(dx, &grad)| *dx = grad * scale);
                            }
                        }
                    }
                    Kind::Largest => {
                        peaks(x, real, most, rows);
                        placed(rows, grad, dx);
                    }
                }
            },
        );
        dx
    }
}

impl CustomOp1 for Pool {
    fn name(&self) -> &'static str {
        "pooled columns"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let shape @ (n, m, _, d) = layout.shape().dims4()?;
        let out = match x {
            CpuStorage::F32(x) => CpuStorage::F32(self.forward(contiguous(x, layout)?, shape.into())),
            CpuStorage::F64(x) => CpuStorage::F64(self.forward(contiguous(x, layout)?, shape.into())),
            _ => candle_core::bail!("pooled columns: expected f32 or f64"),
        };
        Ok((out, Shape::from((n, m, d))))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let (grad, shape) = (grad.contiguous()?, x.dims4()?.into());
        dispatch!(x.dtype(), T => {
            let dx = with(x, |x| with(&grad, |grad| Ok(self.backward::<T>(x, grad, shape))))?;
            Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::nn::checks::{draw, flat, follows_differences};

    #[test]
    fn values_are_those_of_the_real_vectors_and_gradients_follow_differences() {
        let mask = |items: usize| {
            let values: Vec<u8> =
                (0..items * 12).map(|at| u8::from(at % 4 != 2 && at / 4 % 3 != 1 || at % 4 == 1)).collect();
            Tensor::from_vec(values, (items, 3, 4), &Device::Cpu).unwrap()
        };
        for real in [None, Some(mask(1)), Some(mask(2))] {
            let x = draw("x", &[2, 3, 4, 5]);
            let locals = |x: &Tensor| Locals { vectors: x.clone(), real: real.clone() };
            let (means, most) = (flat(&mean(&locals(&x)).unwrap()), flat(&largest(&locals(&x)).unwrap()));
            let there = real.as_ref().map(|real| flat(&real.broadcast_as((2, 3, 4)).unwrap()));
            let x = flat(&x);
            for at in 0..30 {
                let rows = (0..4).filter(|row| there.as_ref().is_none_or(|there| there[at / 5 * 4 + row] != 0.0));
                let column: Vec<f64> = rows.map(|row| x[(at / 5 * 4 + row) * 5 + at % 5]).collect();
                assert!((means[at] - column.iter().sum::<f64>() / column.len() as f64).abs() < 1e-15);
                assert_eq!(most[at], column.iter().copied().fold(f64::NEG_INFINITY, f64::max));
            }
            for pooled in [mean, largest] {
                follows_differences(&[draw("x", &[2, 3, 4, 5])], |at| {
                    let y = pooled(&locals(&at[0])).unwrap();
                    (y * draw("cotangent", &[2, 3, 5]).as_tensor()).unwrap().sum_all().unwrap()
                });
            }
        }
    }

    #[test]
    fn of_equal_values_the_first_has_the_gradient_and_what_is_no_number_is_seen() {
        let x = candle_core::Var::new(&[[[[1.0f64, 2.0], [3.0, 2.0], [3.0, f64::NAN]]]], &Device::Cpu).unwrap();
        let y = largest(&Locals { vectors: x.as_tensor().clone(), real: None }).unwrap();
        assert!(flat(&y)[0] == 3.0 && flat(&y)[1].is_nan());
        let grads = y.sum_all().unwrap().backward().unwrap();
        assert_eq!(flat(grads.get(x.as_tensor()).unwrap()), [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
    }
}
