//! The recurrent half of a GRU, fused, with its own backward pass.
//!
//! In PyTorch's convention, for each step of each sequence, with `x_*` the input's part of a gate (bias included):
//!
//! ```text
//! r  = sigmoid(x_r + h W_r + b_r)                                   (1)
//! z  = sigmoid(x_z + h W_z + b_z)                                   (2)
//! n  = tanh(x_n + r * (h W_n + b_n))                                (3)
//! h' = (1 - z) n + z h,  h = 0 at the start                         (4)
//! ```
//!
//! Sequences are walked side by side, longest first, so that the batch of a step is a prefix that shrinks. Each step is one
//! product `h W` and one pass over the gates, which are kept; backward, each step is one pass and one product, and the
//! gradient of `W` is a single product over all steps.

use std::{
    any::Any,
    sync::{Arc, Mutex},
};

use candle_core::{CpuStorage, CustomOp3, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::{
    lengths::{Lengths, index},
    real::{Real, contiguous, dispatch, with},
};
use crate::{
    Error, Result,
    linalg::gemm::{Mat, MatMut, gemm},
};

/// Sequences a task takes at least.
const GRAIN: usize = 8;

/// In which order the rows of packed sequences are walked.
#[derive(Debug)]
pub(crate) struct Steps {
    lengths: Lengths,
    /// Sequences, longest first.
    order: Vec<usize>,
    /// Number of sequences that reach each step.
    active: Vec<usize>,
    /// Rows before each step when rows are kept step by step, and the number of all rows.
    offsets: Vec<usize>,
    reverse: bool,
}

impl Steps {
    /// The walk from the first row of each sequence to its last; if `reverse`, the other way round.
    pub(crate) fn new(lengths: &Lengths, reverse: bool) -> Self {
        let each = lengths.as_slice();
        let mut order: Vec<usize> = (0..each.len()).collect();
        order.sort_by_key(|&b| std::cmp::Reverse(each[b]));
        let active: Vec<usize> = (0..lengths.longest()).map(|t| order.partition_point(|&b| each[b] > t)).collect();
        let mut offsets = vec![0];
        offsets.extend(active.iter().scan(0, |sum, n| {
            *sum += n;
            Some(*sum)
        }));
        Self { lengths: lengths.clone(), order, active, offsets, reverse }
    }

    /// Step `t` of sequence `order[k]`, counted in the rows of that sequence.
    fn position(&self, k: usize, t: usize) -> usize {
        if self.reverse { self.lengths.as_slice()[self.order[k]] - 1 - t } else { t }
    }

    /// Step `t` of sequence `order[k]`, counted in all rows.
    fn row(&self, k: usize, t: usize) -> usize {
        self.lengths.range(self.order[k]).start + self.position(k, t)
    }

    /// One slice a sequence, longest first.
    fn split<'a, T>(&self, mut data: &'a mut [T], width: usize) -> Vec<&'a mut [T]> {
        let mut slices: Vec<Option<&mut [T]>> = Vec::with_capacity(self.order.len());
        for &length in self.lengths.as_slice() {
            let (head, tail) = data.split_at_mut(length * width);
            slices.push(Some(head));
            data = tail;
        }
        self.order.iter().map(|&b| slices[b].take().expect("each sequence stands once in the order")).collect()
    }
}

/// The states after every row of packed sequences, `[total, h]`, from the input's part of the gates `gx [total, 3h]` and the
/// recurrent weights `w [h, 3h]` and `b [3h]`, gates in the order r, z, n.
///
/// # Errors
/// If shapes or types do not fit.
pub(crate) fn states(gx: &Tensor, w: &Tensor, b: &Tensor, steps: Arc<Steps>) -> Result<Tensor> {
    let h = w.dim(0)?;
    if gx.dims() != [steps.lengths.total(), 3 * h] || w.dims() != [h, 3 * h] || b.dims() != [3 * h] {
        return Err(Error::Numeric(format!(
            "recurrence over {} rows: inputs {:?}, weights {:?}, bias {:?} do not fit",
            steps.lengths.total(),
            gx.dims(),
            w.dims(),
            b.dims()
        )));
    }
    if steps.order.is_empty() {
        return Ok(gx.narrow(1, 0, h)?);
    }
    if !gx.device().is_cpu() {
        return composed(gx, w, b, &steps);
    }
    let keep = gx.track_op() || w.track_op() || b.track_op();
    let op = Recurrence { steps, keep, tape: Mutex::new(None) };
    Ok(gx.contiguous()?.apply_op3(&w.contiguous()?, &b.contiguous()?, op)?)
}

/// The same numbers from candle's own operations, for devices other than the CPU.
pub(crate) fn composed(gx: &Tensor, w: &Tensor, b: &Tensor, steps: &Steps) -> Result<Tensor> {
    let h = w.dim(0)?;
    let mut state = Tensor::zeros((steps.order.len(), h), gx.dtype(), gx.device())?;
    let mut outputs = Vec::with_capacity(steps.active.len());
    let mut place = vec![0; steps.lengths.total()];
    for (t, &active) in steps.active.iter().enumerate() {
        for k in 0..active {
            place[steps.row(k, t)] = steps.offsets[t] + k;
        }
        let x = gx.index_select(&index((0..active).map(|k| steps.row(k, t)), gx.device())?, 0)?;
        let before = state.narrow(0, 0, active)?;
        let gh = before.matmul(w)?.broadcast_add(b)?;
        let gate = |i| -> candle_core::Result<Tensor> {
            candle_nn::ops::sigmoid(&(x.narrow(1, i * h, h)? + gh.narrow(1, i * h, h)?)?)
        };
        let (r, z) = (gate(0)?, gate(1)?); // (1), (2)
        let n = (x.narrow(1, 2 * h, h)? + (r * gh.narrow(1, 2 * h, h)?)?)?.tanh()?; // (3)
        state = (&n + (z * (before - &n)?)?)?; // (4)
        outputs.push(state.clone());
    }
    Ok(Tensor::cat(&outputs, 0)?.index_select(&index(place, gx.device())?, 0)?)
}

/// What backward needs, rows step by step.
struct Tape<T> {
    /// r, z, `h W_n + b_n`, n; `[rows, 4h]`.
    gates: Vec<T>,
    /// The state before each row, `[rows, h]`.
    before: Vec<T>,
}

struct Recurrence {
    steps: Arc<Steps>,
    keep: bool,
    tape: Mutex<Option<Box<dyn Any + Send>>>,
}

/// Gradients of the three arguments.
struct Gradients<T> {
    gx: Vec<T>,
    w: Vec<T>,
    b: Vec<T>,
}

impl Recurrence {
    fn forward<T: Real>(&self, gx: &[T], w: &[T], b: &[T]) -> Vec<T> {
        let (steps, h) = (&*self.steps, b.len() / 3);
        let rows = steps.lengths.total();
        // Without backward, every step reuses the rows of the first.
        let kept = if self.keep { rows } else { steps.order.len() };
        let mut gates = vec![T::ZERO; kept * 4 * h];
        let mut before = vec![T::ZERO; kept * h];
        let mut out = vec![T::ZERO; rows * h];
        let mut sequences = steps.split(&mut out, h);
        for (t, &active) in steps.active.iter().enumerate() {
            let offset = if self.keep { steps.offsets[t] } else { 0 };
            let gates = &mut gates[offset * 4 * h..][..active * 4 * h];
            let (past, future) = before.split_at_mut(if self.keep { steps.offsets[t + 1] * h } else { kept * h });
            let past = &mut past[offset * h..];
            if t > 0 {
                let product = MatMut::strided(gates, active, 3 * h, 4 * h);
                gemm(T::ONE, Mat::new(past, active, h), Mat::new(w, h, 3 * h), T::ZERO, product);
            }
            sequences[..active]
                .par_iter_mut()
                .zip(gates.par_chunks_mut(4 * h))
                .zip(past.par_chunks(h))
                .enumerate()
                .with_min_len(GRAIN)
                .for_each(|(k, ((out, gates), before))| {
                    let position = steps.position(k, t);
                    let out = &mut out[position * h..][..h];
                    open(&gx[steps.row(k, t) * 3 * h..][..3 * h], b, before, gates, out);
                });
            let next = steps.active.get(t + 1).copied().unwrap_or(0);
            let future = if self.keep { future } else { past };
            for (k, state) in future.chunks_mut(h).enumerate().take(next) {
                state.copy_from_slice(&sequences[k][steps.position(k, t) * h..][..h]);
            }
        }
        if self.keep {
            *self.tape.lock().expect("no thread panicked with the tape") = Some(Box::new(Tape { gates, before }));
        }
        out
    }

    fn backward<T: Real>(&self, w: &[T], h: usize, grad: &[T]) -> candle_core::Result<Gradients<T>> {
        let tape = self.tape.lock().expect("no thread panicked with the tape");
        let Some(Tape { gates, before }) =
            tape.as_deref().and_then(|tape| (tape as &dyn Any).downcast_ref::<Tape<T>>())
        else {
            candle_core::bail!("the recurrence kept nothing to go backward with");
        };
        let steps = &*self.steps;
        let rows = steps.lengths.total();
        let mut dgx = vec![T::ZERO; rows * 3 * h];
        let mut dgh = vec![T::ZERO; rows * 3 * h];
        let mut dh = vec![T::ZERO; steps.order.len() * h];
        let mut sequences = steps.split(&mut dgx, 3 * h);
        for (t, &active) in steps.active.iter().enumerate().rev() {
            let offset = steps.offsets[t];
            let dgh = &mut dgh[offset * 3 * h..][..active * 3 * h];
            sequences[..active]
                .par_iter_mut()
                .zip(dgh.par_chunks_mut(3 * h))
                .zip(dh.par_chunks_mut(h))
                .zip(gates[offset * 4 * h..].par_chunks(4 * h))
                .zip(before[offset * h..].par_chunks(h))
                .enumerate()
                .with_min_len(GRAIN)
                .for_each(|(k, ((((dgx, dgh), dh), gates), before))| {
                    let dgx = &mut dgx[steps.position(k, t) * 3 * h..][..3 * h];
                    close(&grad[steps.row(k, t) * h..][..h], gates, before, dh, dgx, dgh);
                });
            if t > 0 {
                let weights = Mat::new(w, h, 3 * h).t();
                gemm(T::ONE, Mat::new(dgh, active, 3 * h), weights, T::ONE, MatMut::new(&mut dh, active, h));
            }
        }
        // The state before the first step is zero: its rows add nothing.
        let (first, rest) = (steps.offsets[1], rows - steps.offsets[1]);
        let mut dw = vec![T::ZERO; w.len()];
        let states = Mat::new(&before[first * h..], rest, h).t();
        gemm(T::ONE, states, Mat::new(&dgh[first * 3 * h..], rest, 3 * h), T::ZERO, MatMut::new(&mut dw, h, 3 * h));
        Ok(Gradients { gx: dgx, w: dw, b: column_sums(&dgh, 3 * h) })
    }
}

/// Equations (1) to (4) of one row. `gates` holds `h W` of r, z, n and takes r, z, `h W_n + b_n`, n.
#[inline]
fn open<T: Real>(x: &[T], b: &[T], before: &[T], gates: &mut [T], out: &mut [T]) {
    let h = out.len();
    let (x_r, x_z, x_n) = (&x[..h], &x[h..2 * h], &x[2 * h..3 * h]);
    let (b_r, b_z, b_n) = (&b[..h], &b[h..2 * h], &b[2 * h..3 * h]);
    let (r, rest) = gates.split_at_mut(h);
    let (z, rest) = rest.split_at_mut(h);
    let (u, n) = rest.split_at_mut(h);
    let (before, n) = (&before[..h], &mut n[..h]);
    for i in 0..h {
        r[i] = (x_r[i] + (r[i] + b_r[i])).sigmoid(); // (1)
        z[i] = (x_z[i] + (z[i] + b_z[i])).sigmoid(); // (2)
        u[i] += b_n[i];
        n[i] = (x_n[i] + r[i] * u[i]).tanh(); // (3)
        out[i] = n[i] + z[i] * (before[i] - n[i]); // (4)
    }
}

/// The gradient of one row. `dh` comes as the gradient from the following step and goes as what (4) passes straight on.
#[inline]
fn close<T: Real>(grad: &[T], gates: &[T], before: &[T], dh: &mut [T], dgx: &mut [T], dgh: &mut [T]) {
    let h = dh.len();
    let (grad, before) = (&grad[..h], &before[..h]);
    let (r, z, u, n) = (&gates[..h], &gates[h..2 * h], &gates[2 * h..3 * h], &gates[3 * h..4 * h]);
    let (dgx_r, rest) = dgx.split_at_mut(h);
    let (dgx_z, dgx_n) = rest.split_at_mut(h);
    let (dgh_r, rest) = dgh.split_at_mut(h);
    let (dgh_z, dgh_n) = rest.split_at_mut(h);
    let (dgx_n, dgh_n) = (&mut dgx_n[..h], &mut dgh_n[..h]);
    for i in 0..h {
        let g = dh[i] + grad[i];
        let dn = g * (T::ONE - z[i]) * (T::ONE - n[i] * n[i]);
        let dz = g * (before[i] - n[i]) * z[i] * (T::ONE - z[i]);
        let dr = dn * u[i] * r[i] * (T::ONE - r[i]);
        (dgx_r[i], dgx_z[i], dgx_n[i]) = (dr, dz, dn);
        (dgh_r[i], dgh_z[i], dgh_n[i]) = (dr, dz, dn * r[i]);
        dh[i] = g * z[i];
    }
}

/// Sums over rows, in f64, each column by one task.
pub(super) fn column_sums<T: Real>(data: &[T], width: usize) -> Vec<T> {
    const COLUMNS: usize = 256;
    let mut sums = vec![T::ZERO; width];
    sums.par_chunks_mut(COLUMNS).enumerate().for_each(|(c, sums)| {
        let mut wide = [0f64; COLUMNS];
        for row in data.chunks_exact(width) {
            for (sum, value) in wide.iter_mut().zip(&row[c * COLUMNS..][..sums.len()]) {
                *sum += value.to_f64();
            }
        }
        for (sum, wide) in sums.iter_mut().zip(wide) {
            *sum = T::from_f64(wide);
        }
    });
    sums
}

impl CustomOp3 for Recurrence {
    fn name(&self) -> &'static str {
        "gru recurrence"
    }

    fn cpu_fwd(
        &self,
        gx: &CpuStorage,
        gx_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let shape = Shape::from((self.steps.lengths.total(), w_layout.dims()[0]));
        let out = match (gx, w, b) {
            (CpuStorage::F32(gx), CpuStorage::F32(w), CpuStorage::F32(b)) => CpuStorage::F32(self.forward(
                contiguous(gx, gx_layout)?,
                contiguous(w, w_layout)?,
                contiguous(b, b_layout)?,
            )),
            (CpuStorage::F64(gx), CpuStorage::F64(w), CpuStorage::F64(b)) => CpuStorage::F64(self.forward(
                contiguous(gx, gx_layout)?,
                contiguous(w, w_layout)?,
                contiguous(b, b_layout)?,
            )),
            _ => candle_core::bail!("gru recurrence: expected inputs and weights of f32, or all of f64"),
        };
        Ok((out, shape))
    }

    fn bwd(
        &self,
        gx: &Tensor,
        w: &Tensor,
        b: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (w, grad, h) = (w.contiguous()?, grad.contiguous()?, w.dim(0)?);
        dispatch!(grad.dtype(), T => {
            let back = with::<T, _>(&w, |w| with::<T, _>(&grad, |grad| self.backward(w, h, grad)))?;
            Ok((
                Some(Tensor::from_vec(back.gx, gx.shape(), gx.device())?),
                Some(Tensor::from_vec(back.w, w.shape(), w.device())?),
                Some(Tensor::from_vec(back.b, b.shape(), b.device())?),
            ))
        })
    }
}
