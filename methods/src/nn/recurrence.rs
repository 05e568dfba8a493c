//! One direction of a layer of gated units as one operation with its own backward pass; what the gates compute is a [`Cell`].
//!
//! Each row has a record that starts as the input's part of the gates (one product over all rows), takes the state's part,
//! becomes what backward needs, and at last the gradients of the gates: nothing else is as large. Sequences are walked side by
//! side in groups that do not wait for each other, longest first, so that the batch of a step is a prefix that shrinks.
//! Backward, the gradient of each weight is a single product over all rows.

use std::{
    any::Any,
    marker::PhantomData,
    sync::{Arc, Mutex, PoisonError},
};

use candle_core::{CpuStorage, CustomOp3, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::{
    Lengths,
    cell::Cell,
    gradients::hand_over,
    lengths::index,
    panels::Panels,
    real::{Real, Scratch, column_sums, contiguous, dispatch, with},
    rows::{self, Close, Open},
    steps::Steps,
};
use crate::{
    Error, Result,
    linalg::gemm::{Mat, MatMut, gemm},
};

/// The states after every row of packed sequences, `[total, h]`, from `x [total, in]` and the weights `w_ih [in, gates * h]`,
/// `w_hh [h, gates * h]`, `b_ih` and `b_hh [gates * h]`.
///
/// # Errors
/// If shapes or types do not fit.
pub(crate) fn states<C: Cell>(x: &Tensor, weights: &[Tensor; 4], lengths: &Lengths, reverse: bool) -> Result<Tensor> {
    let [w_ih, w_hh, b_ih, b_hh] = weights;
    let (input, h) = (w_ih.dim(0)?, w_hh.dim(0)?);
    let gates = C::GATES * h;
    if x.dims() != [lengths.total(), input]
        || w_ih.dims() != [input, gates]
        || w_hh.dims() != [h, gates]
        || b_ih.dims() != [gates]
        || b_hh.dims() != [gates]
    {
        return Err(Error::Numeric(format!(
            "{} over {} rows: inputs {:?} and weights {:?} do not fit",
            C::NAME,
            lengths.total(),
            x.dims(),
            weights.iter().map(Tensor::dims).collect::<Vec<_>>()
        )));
    }
    if lengths.is_empty() {
        return Ok(x.matmul(w_ih)?.narrow(1, 0, h)?);
    }
    if !x.device().is_cpu() {
        return composed::<C>(x, weights, lengths, reverse);
    }
    let groups = Steps::groups(lengths, reverse);
    let rows: Vec<usize> = groups.iter().flat_map(|group| group.rows.iter().copied()).collect();
    let mut places = vec![0; rows.len()];
    rows.iter().enumerate().for_each(|(place, &row)| places[row] = place);
    let parts = [w_ih.contiguous()?, w_hh.contiguous()?, b_ih.contiguous()?];
    let gradients = Arc::new(Mutex::new(None));
    let handle = parts[0].apply_op3(&parts[1], &parts[2], Handle { gradients: gradients.clone() })?;
    let keep = x.track_op() || handle.track_op() || b_hh.track_op();
    let tape = Mutex::new(None);
    let op = Recurrence::<C> { groups, rows, places, parts, gradients, keep, tape, cell: PhantomData };
    Ok(x.contiguous()?.apply_op3(&handle, &b_hh.contiguous()?, op)?)
}

/// The same numbers from candle's own operations, for devices other than the CPU.
pub(crate) fn composed<C: Cell>(x: &Tensor, weights: &[Tensor; 4], lengths: &Lengths, reverse: bool) -> Result<Tensor> {
    let ([w_ih, w_hh, b_ih, b_hh], steps) = (weights, Steps::new(lengths, reverse));
    let h = w_hh.dim(0)?;
    let gx = x.matmul(w_ih)?.broadcast_add(b_ih)?;
    let zero = Tensor::zeros((lengths.len(), h), gx.dtype(), gx.device())?;
    let mut state = vec![zero; 1 + usize::from(C::CARRIES)];
    let mut outputs = Vec::with_capacity(steps.active.len());
    let mut places = vec![0; lengths.total()];
    for (t, &active) in steps.active.iter().enumerate() {
        let rows = steps.offsets[t]..steps.offsets[t + 1];
        rows.clone().for_each(|place| places[steps.rows[place]] = place);
        let x = gx.index_select(&index(steps.rows[rows].iter().copied(), gx.device())?, 0)?;
        let before = state.iter().map(|s| s.narrow(0, 0, active)).collect::<candle_core::Result<Vec<_>>>()?;
        let gh = before[0].matmul(w_hh)?.broadcast_add(b_hh)?;
        state = C::composed(&x, &gh, &before, h)?;
        outputs.push(state[0].clone());
    }
    Ok(Tensor::cat(&outputs, 0)?.index_select(&index(places, gx.device())?, 0)?)
}

/// What backward needs, rows group by group and step by step.
struct Tape<T: Real> {
    /// `[rows, KEPT * h]`.
    records: Scratch<T>,
    /// `[rows, in]`.
    inputs: Scratch<T>,
    /// `[rows, h]`.
    states: Scratch<T>,
}

/// Gradients of `w_ih`, `w_hh` and `b_ih`, from the operation that computes them to the one that hands them on.
type Gradients = Arc<Mutex<Option<[Tensor; 3]>>>;

struct Recurrence<C> {
    groups: Vec<Steps>,
    /// The packed row at each place, and the other way round.
    rows: Vec<usize>,
    places: Vec<usize>,
    /// `w_ih`, `w_hh`, `b_ih`.
    parts: [Tensor; 3],
    gradients: Gradients,
    keep: bool,
    tape: Mutex<Option<Box<dyn Any + Send>>>,
    cell: PhantomData<C>,
}

/// An operation has three arguments at most: this one takes three weights and stands for them.
struct Handle {
    gradients: Gradients,
}

/// Rows of `to`, each of which takes the row of `from` that `which` names.
fn gather<T: Real>(to: &mut [T], from: &[T], which: &[usize], width: usize) {
    to.par_chunks_mut(width).zip(which).with_min_len(64).for_each(|(to, &row)| {
        to.copy_from_slice(&from[row * width..][..width]);
    });
}

/// Cuts a buffer of rows into one slice a group.
fn split<'a, T>(mut data: &'a mut [T], groups: &[Steps], width: usize) -> Vec<&'a mut [T]> {
    let mut slices = Vec::with_capacity(groups.len());
    for group in groups {
        let (head, tail) = data.split_at_mut(group.rows.len() * width);
        slices.push(head);
        data = tail;
    }
    slices
}

impl<C: Cell> Recurrence<C> {
    fn forward<T: Real>(&self, x: &[T], w_ih: &[T], w_hh: &[T], b_ih: &[T], b_hh: &[T]) -> Vec<T> {
        let (rows, gates) = (self.rows.len(), b_hh.len());
        let (h, input) = (gates / C::GATES, w_ih.len() / gates);
        let wide = C::KEPT * h;
        let mut inputs = Scratch::any(rows * input);
        let mut records = Scratch::any(rows * wide);
        let mut states = Scratch::any(rows * h);
        gather(&mut inputs, x, &self.rows, input);
        for &(gate, number, at) in C::INPUT {
            let weights = Mat::strided(&w_ih[gate * h..], input, number * h, gates);
            let to = MatMut::strided(&mut records[at * h..], rows, number * h, wide);
            gemm(T::ONE, Mat::new(&inputs, rows, input), weights, T::ZERO, to);
        }
        if let Some(at) = C::BLANK {
            records.par_chunks_mut(wide).with_min_len(64).for_each(|record| record[at * h..][..h].fill(T::ZERO));
        }
        let mut bias = vec![T::ZERO; wide];
        bias[..gates].copy_from_slice(b_hh);
        for &(gate, number, at) in C::INPUT {
            let both = bias[at * h..][..number * h].iter_mut().zip(&b_ih[gate * h..]);
            both.for_each(|(sum, &b)| *sum += b);
        }
        let panels = Panels::new(w_hh, h, gates, false);
        let zeros = vec![T::ZERO; h];
        let tasks = split(&mut records, &self.groups, wide).into_iter().zip(split(&mut states, &self.groups, h));
        let tasks: Vec<_> = self.groups.iter().zip(tasks).collect();
        tasks.into_par_iter().for_each(|(group, (records, states))| {
            let width = if C::CARRIES { h } else { 0 };
            let mut carry = Scratch::zeros(group.active[0] * width);
            for (t, &active) in group.active.iter().enumerate() {
                let (start, before) = (group.offsets[t], if t > 0 { group.offsets[t - 1] } else { 0 });
                let records = &mut records[start * wide..][..active * wide];
                let (past, now) = states.split_at_mut(start * h);
                let past = &past[before * h..];
                panels.add_product(if t > 0 { active } else { 0 }, past, h, records, wide);
                let out = &mut now[..active * h];
                rows::all::<C>(Open { records, bias: &bias, before: past, zeros: &zeros, carry: &mut carry, out });
            }
        });
        let mut out = vec![T::ZERO; rows * h];
        gather(&mut out, &states, &self.places, h);
        if self.keep {
            let tape: Box<dyn Any + Send> = Box::new(Tape { records, inputs, states });
            *self.tape.lock().unwrap_or_else(PoisonError::into_inner) = Some(tape);
        }
        out
    }

    /// The gradients of `x` if that `wants` one, of `w_ih`, `w_hh`, `b_ih` and `b_hh`.
    fn backward<T: Real>(
        &self,
        wants: bool,
        w_ih: &[T],
        w_hh: &[T],
        h: usize,
        grad: &[T],
    ) -> candle_core::Result<Back<T>> {
        let tape = self.tape.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Ok(tape)) = tape.map(<Box<dyn Any + Send>>::downcast::<Tape<T>>) else {
            candle_core::bail!("{}: expected a graph to go backward through once, found nothing kept", C::NAME);
        };
        let Tape { mut records, inputs, states } = *tape;
        let (rows, gates, wide) = (self.rows.len(), C::GATES * h, C::KEPT * h);
        let input = w_ih.len() / gates;
        let panels = Panels::new(w_hh, gates, h, true);
        // The state before each row.
        let mut before = Scratch::any(rows * h);
        let tasks = split(&mut records, &self.groups, wide).into_iter().zip(split(&mut before, &self.groups, h));
        let mut start = 0;
        let tasks: Vec<_> = self
            .groups
            .iter()
            .zip(tasks)
            .map(|(group, buffers)| {
                let place = start;
                start += group.rows.len();
                (group, place, buffers)
            })
            .collect();
        tasks.into_par_iter().for_each(|(group, place, (records, kept))| {
            let width = if C::CARRIES { h } else { 0 };
            let mut dh = Scratch::zeros(group.active[0] * h);
            let mut dcarry = Scratch::zeros(group.active[0] * width);
            let states = &states[place * h..][..group.rows.len() * h];
            for (t, &active) in group.active.iter().enumerate().rev() {
                let start = group.offsets[t];
                let records = &mut records[start * wide..][..active * wide];
                let kept = &mut kept[start * h..][..active * h];
                match t {
                    0 => kept.fill(T::ZERO),
                    _ => kept.copy_from_slice(&states[group.offsets[t - 1] * h..][..active * h]),
                }
                let at = &group.rows[start..start + active];
                let (dh_rows, dcarry) = (&mut dh[..], &mut dcarry[..]);
                rows::all::<C>(Close { grad, at, records: &mut *records, before: kept, dh: dh_rows, dcarry });
                panels.add_product(if t > 0 { active } else { 0 }, records, wide, &mut dh, h);
            }
        });
        let sums = column_sums(&records, wide);
        let (mut dw_ih, mut dw_hh) = (vec![T::ZERO; w_ih.len()], vec![T::ZERO; w_hh.len()]);
        let (mut db_ih, db_hh) = (vec![T::ZERO; gates], sums[..gates].to_vec());
        let gradients = Mat::strided(&records, rows, gates, wide);
        gemm(T::ONE, Mat::new(&before, rows, h).t(), gradients, T::ZERO, MatMut::new(&mut dw_hh, h, gates));
        for &(gate, number, at) in C::INPUT {
            let gradients = Mat::strided(&records[at * h..], rows, number * h, wide);
            let to = MatMut::strided(&mut dw_ih[gate * h..], input, number * h, gates);
            gemm(T::ONE, Mat::new(&inputs, rows, input).t(), gradients, T::ZERO, to);
            db_ih[gate * h..][..number * h].copy_from_slice(&sums[at * h..][..number * h]);
        }
        let x = wants.then(|| {
            let mut by_place = inputs;
            let mut beta = T::ZERO;
            for &(gate, number, at) in C::INPUT {
                let gradients = Mat::strided(&records[at * h..], rows, number * h, wide);
                let weights = Mat::strided(&w_ih[gate * h..], input, number * h, gates).t();
                gemm(T::ONE, gradients, weights, beta, MatMut::new(&mut by_place, rows, input));
                beta = T::ONE;
            }
            let mut dx = vec![T::ZERO; rows * input];
            gather(&mut dx, &by_place, &self.places, input);
            dx
        });
        Ok(Back { x, w_ih: dw_ih, w_hh: dw_hh, b_ih: db_ih, b_hh: db_hh })
    }
}

struct Back<T> {
    x: Option<Vec<T>>,
    w_ih: Vec<T>,
    w_hh: Vec<T>,
    b_ih: Vec<T>,
    b_hh: Vec<T>,
}

impl<C: Cell> CustomOp3 for Recurrence<C> {
    fn name(&self) -> &'static str {
        C::NAME
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        _handle: &CpuStorage,
        _: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let [w_ih, w_hh, b_ih] = &self.parts;
        let shape = Shape::from((self.rows.len(), w_hh.dim(0)?));
        let out = dispatch!(w_ih.dtype(), T => {
            let x = contiguous(x.as_slice::<T>()?, x_layout)?;
            let b_hh = contiguous(b.as_slice::<T>()?, b_layout)?;
            let out = with::<T, _>(w_ih, |w_ih| {
                with::<T, _>(w_hh, |w_hh| with::<T, _>(b_ih, |b_ih| Ok(self.forward(x, w_ih, w_hh, b_ih, b_hh))))
            })?;
            <T as candle_core::WithDType>::to_cpu_storage_owned(out)
        });
        Ok((out, shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        handle: &Tensor,
        _b: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [w_ih, w_hh, b_ih] = &self.parts;
        let (grad, h, device) = (grad.contiguous()?, w_hh.dim(0)?, x.device());
        dispatch!(grad.dtype(), T => {
            let back = with::<T, _>(w_ih, |w_ih| {
                with::<T, _>(w_hh, |w_hh| with::<T, _>(&grad, |grad| self.backward(x.track_op(), w_ih, w_hh, h, grad)))
            })?;
            let parts = [
                Tensor::from_vec(back.w_ih, w_ih.shape(), device)?,
                Tensor::from_vec(back.w_hh, w_hh.shape(), device)?,
                Tensor::from_vec(back.b_ih, b_ih.shape(), device)?,
            ];
            *self.gradients.lock().unwrap_or_else(PoisonError::into_inner) = Some(parts);
            let gates = back.b_hh.len();
            let dx = back.x.map(|dx| Tensor::from_vec(dx, x.shape(), device)).transpose()?;
            Ok((dx, Some(handle.zeros_like()?), Some(Tensor::from_vec(back.b_hh, gates, device)?)))
        })
    }
}

impl CustomOp3 for Handle {
    fn name(&self) -> &'static str {
        "weights of a recurrence"
    }

    fn cpu_fwd(
        &self,
        w_ih: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let one = match w_ih {
            CpuStorage::F32(_) => CpuStorage::F32(vec![0.0]),
            CpuStorage::F64(_) => CpuStorage::F64(vec![0.0]),
            _ => candle_core::bail!("recurrence: expected weights of f32 or f64"),
        };
        Ok((one, Shape::from(1)))
    }

    fn bwd(
        &self,
        w_ih: &Tensor,
        w_hh: &Tensor,
        b_ih: &Tensor,
        _: &Tensor,
        _: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        match self.gradients.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some([of_w_ih, of_w_hh, of_b_ih]) => {
                Ok((hand_over(w_ih, of_w_ih), hand_over(w_hh, of_w_hh), hand_over(b_ih, of_b_ih)))
            }
            None => candle_core::bail!("recurrence: expected gradients of the weights, found none"),
        }
    }
}

#[cfg(test)]
mod tests;
