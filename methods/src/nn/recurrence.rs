//! The recurrent half of gated units, fused, with its own backward pass; what the gates compute is a [`Cell`].
//!
//! Sequences are walked side by side, longest first, so that the batch of a step is a prefix that shrinks. Each step is one
//! product `h W` and one pass over the gates, which are kept; backward, each step is one pass and one product, and the
//! gradient of `W` is a single product over all steps.

use std::{
    any::Any,
    marker::PhantomData,
    sync::{Arc, Mutex},
};

use candle_core::{CpuStorage, CustomOp3, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::{
    lengths::index,
    real::{Real, contiguous, dispatch, with},
    steps::Steps,
};
use crate::{
    Error, Result,
    linalg::gemm::{Mat, MatMut, gemm},
};

/// Sequences a task takes at least.
const GRAIN: usize = 8;

/// What happens to one row of one step, states of length `h`.
pub(crate) trait Cell: Send + Sync + 'static {
    /// What errors call it.
    const NAME: &'static str;
    /// Gates, each `h` columns of the weights.
    const GATES: usize;
    /// Vectors of length `h` that a row keeps for backward; at least `GATES`.
    const KEPT: usize;
    /// Whether a second state, kept to the cell, goes from step to step.
    const CARRIES: bool;

    /// One row forward. `kept` starts with `h W` (zeros at the first step) and takes what backward needs; `carry` is the
    /// second state, before and after.
    fn open<T: Real>(x: &[T], b: &[T], before: &[T], carry: &mut [T], kept: &mut [T], out: &mut [T]);

    /// One row backward. `dh` and `dcarry` come as gradients from the following step; `dh` goes as what reaches the state before
    /// other than through `h W`, `dcarry` as the gradient of the second state before. `dgx` and `dgh` take the gradients
    /// of the input's and the state's part of the gates.
    fn close<T: Real>(
        grad: &[T],
        kept: &[T],
        before: &[T],
        dh: &mut [T],
        dcarry: &mut [T],
        dgx: &mut [T],
        dgh: &mut [T],
    );

    /// The same step of all rows from candle's own operations: the new states from the old ones, the output first.
    fn composed(x: &Tensor, gh: &Tensor, before: &[Tensor], h: usize) -> candle_core::Result<Vec<Tensor>>;
}

/// The states after every row of packed sequences, `[total, h]`, from the input's part of the gates `gx [total, gates * h]`
/// and the recurrent weights `w [h, gates * h]` and `b [gates * h]`.
///
/// # Errors
/// If shapes or types do not fit.
pub(crate) fn states<C: Cell>(gx: &Tensor, w: &Tensor, b: &Tensor, steps: Arc<Steps>) -> Result<Tensor> {
    let h = w.dim(0)?;
    if gx.dims() != [steps.lengths.total(), C::GATES * h] || w.dims() != [h, C::GATES * h] || b.dims() != [C::GATES * h]
    {
        return Err(Error::Numeric(format!(
            "{} over {} rows: inputs {:?}, weights {:?}, bias {:?} do not fit",
            C::NAME,
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
        return composed::<C>(gx, w, b, &steps);
    }
    let keep = gx.track_op() || w.track_op() || b.track_op();
    let op = Recurrence::<C> { steps, keep, tape: Mutex::new(None), cell: PhantomData };
    Ok(gx.contiguous()?.apply_op3(&w.contiguous()?, &b.contiguous()?, op)?)
}

/// The same numbers from candle's own operations, for devices other than the CPU.
pub(crate) fn composed<C: Cell>(gx: &Tensor, w: &Tensor, b: &Tensor, steps: &Steps) -> Result<Tensor> {
    let h = w.dim(0)?;
    let zero = Tensor::zeros((steps.order.len(), h), gx.dtype(), gx.device())?;
    let mut state = vec![zero; 1 + usize::from(C::CARRIES)];
    let mut outputs = Vec::with_capacity(steps.active.len());
    let mut place = vec![0; steps.lengths.total()];
    for (t, &active) in steps.active.iter().enumerate() {
        for k in 0..active {
            place[steps.row(k, t)] = steps.offsets[t] + k;
        }
        let x = gx.index_select(&index((0..active).map(|k| steps.row(k, t)), gx.device())?, 0)?;
        let before = state.iter().map(|s| s.narrow(0, 0, active)).collect::<candle_core::Result<Vec<_>>>()?;
        let gh = before[0].matmul(w)?.broadcast_add(b)?;
        state = C::composed(&x, &gh, &before, h)?;
        outputs.push(state[0].clone());
    }
    Ok(Tensor::cat(&outputs, 0)?.index_select(&index(place, gx.device())?, 0)?)
}

/// What backward needs, rows step by step.
struct Tape<T> {
    /// What the cell keeps, `[rows, KEPT * h]`.
    kept: Vec<T>,
    /// The state before each row, `[rows, h]`.
    before: Vec<T>,
}

struct Recurrence<C> {
    steps: Arc<Steps>,
    keep: bool,
    tape: Mutex<Option<Box<dyn Any + Send>>>,
    cell: PhantomData<C>,
}

/// Gradients of the three arguments.
struct Gradients<T> {
    gx: Vec<T>,
    w: Vec<T>,
    b: Vec<T>,
}

impl<C: Cell> Recurrence<C> {
    fn forward<T: Real>(&self, gx: &[T], w: &[T], b: &[T]) -> Vec<T> {
        let (steps, h, g) = (&*self.steps, b.len() / C::GATES, b.len());
        let (rows, wide) = (steps.lengths.total(), C::KEPT * h);
        // Without backward, every step reuses the rows of the first.
        let places = if self.keep { rows } else { steps.order.len() };
        let mut kept = vec![T::ZERO; places * wide];
        let mut before = vec![T::ZERO; places * h];
        let (mut carry, second) = second_state::<C, T>(steps.order.len(), h);
        let mut out = vec![T::ZERO; rows * h];
        let mut sequences = steps.split(&mut out, h);
        for (t, &active) in steps.active.iter().enumerate() {
            let offset = if self.keep { steps.offsets[t] } else { 0 };
            let kept = &mut kept[offset * wide..][..active * wide];
            let (past, future) = before.split_at_mut(if self.keep { steps.offsets[t + 1] * h } else { places * h });
            let past = &mut past[offset * h..];
            if t > 0 {
                let product = MatMut::strided(kept, active, g, wide);
                gemm(T::ONE, Mat::new(past, active, h), Mat::new(w, h, g), T::ZERO, product);
            }
            sequences[..active]
                .par_iter_mut()
                .zip(kept.par_chunks_mut(wide))
                .zip(past.par_chunks(h))
                .zip(carry.par_chunks_mut(second))
                .enumerate()
                .with_min_len(GRAIN)
                .for_each(|(k, (((out, kept), before), carry))| {
                    let position = steps.position(k, t);
                    let out = &mut out[position * h..][..h];
                    C::open(&gx[steps.row(k, t) * g..][..g], b, before, carry, kept, out);
                });
            let next = steps.active.get(t + 1).copied().unwrap_or(0);
            let future = if self.keep { future } else { past };
            for (k, state) in future.chunks_mut(h).enumerate().take(next) {
                state.copy_from_slice(&sequences[k][steps.position(k, t) * h..][..h]);
            }
        }
        if self.keep {
            *self.tape.lock().expect("no thread panicked with the tape") = Some(Box::new(Tape { kept, before }));
        }
        out
    }

    fn backward<T: Real>(&self, w: &[T], h: usize, grad: &[T]) -> candle_core::Result<Gradients<T>> {
        let tape = self.tape.lock().expect("no thread panicked with the tape");
        let Some(Tape { kept, before }) = tape.as_deref().and_then(|tape| (tape as &dyn Any).downcast_ref::<Tape<T>>())
        else {
            candle_core::bail!("{} kept nothing to go backward with", C::NAME);
        };
        let (steps, g, wide) = (&*self.steps, C::GATES * h, C::KEPT * h);
        let rows = steps.lengths.total();
        let mut dgx = vec![T::ZERO; rows * g];
        let mut dgh = vec![T::ZERO; rows * g];
        let mut dh = vec![T::ZERO; steps.order.len() * h];
        let (mut dcarry, second) = second_state::<C, T>(steps.order.len(), h);
        let mut sequences = steps.split(&mut dgx, g);
        for (t, &active) in steps.active.iter().enumerate().rev() {
            let offset = steps.offsets[t];
            let dgh = &mut dgh[offset * g..][..active * g];
            sequences[..active]
                .par_iter_mut()
                .zip(dgh.par_chunks_mut(g))
                .zip(dh.par_chunks_mut(h))
                .zip(dcarry.par_chunks_mut(second))
                .zip(kept[offset * wide..].par_chunks(wide))
                .zip(before[offset * h..].par_chunks(h))
                .enumerate()
                .with_min_len(GRAIN)
                .for_each(|(k, (((((dgx, dgh), dh), dcarry), kept), before))| {
                    let dgx = &mut dgx[steps.position(k, t) * g..][..g];
                    C::close(&grad[steps.row(k, t) * h..][..h], kept, before, dh, dcarry, dgx, dgh);
                });
            if t > 0 {
                let weights = Mat::new(w, h, g).t();
                gemm(T::ONE, Mat::new(dgh, active, g), weights, T::ONE, MatMut::new(&mut dh, active, h));
            }
        }
        // The state before the first step is zero: its rows add nothing.
        let (first, rest) = (steps.offsets[1], rows - steps.offsets[1]);
        let mut dw = vec![T::ZERO; w.len()];
        let states = Mat::new(&before[first * h..], rest, h).t();
        gemm(T::ONE, states, Mat::new(&dgh[first * g..], rest, g), T::ZERO, MatMut::new(&mut dw, h, g));
        Ok(Gradients { gx: dgx, w: dw, b: column_sums(&dgh, g) })
    }
}

/// Zeros for the second state of every sequence, and their length; one unread value where a cell has none.
fn second_state<C: Cell, T: Real>(sequences: usize, h: usize) -> (Vec<T>, usize) {
    let width = if C::CARRIES { h } else { 1 };
    (vec![T::ZERO; sequences * width], width)
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

impl<C: Cell> CustomOp3 for Recurrence<C> {
    fn name(&self) -> &'static str {
        C::NAME
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
            _ => candle_core::bail!("{}: expected inputs and weights of f32, or all of f64", C::NAME),
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
