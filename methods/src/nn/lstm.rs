//! Long short-term memory over packed sequences, in PyTorch's convention.
//!
//! For each step of each sequence, with `x_* = x W_i* + b_i*` the input's part of a gate:
//!
//! ```text
//! i  = sigmoid(x_i + h W_i + b_i),  f = sigmoid(x_f + h W_f + b_f)  (1)
//! g  = tanh(x_g + h W_g + b_g),     o = sigmoid(x_o + h W_o + b_o)  (2)
//! c' = f c + i g,  c = 0 at the start                               (3)
//! h' = o tanh(c'),  h = 0 at the start                              (4)
//! ```

use candle_core::Tensor;

use super::{cell::Cell, layers::Layers, real::Real};
use crate::Result;

/// One or more layers of long short-term memory, in one direction or both. Weights are named
/// `NAME.LAYER.w_ih [in, 4h]`, `w_hh [h, 4h]`, `b_ih [4h]`, `b_hh [4h]`, and `NAME.LAYER.reverse.…` for the way back;
/// gates stand in the order i, f, g, o. Initial values are uniform within `1 / sqrt(h)`, as PyTorch has it.
pub type Lstm = Layers<Unit>;

/// Equations (1) to (4). A record holds the sums of i, f, g, o; then i, f, g, o and the `c` before; then the gradients of the
/// sums.
pub struct Unit;

impl Cell for Unit {
    const NAME: &'static str = "lstm recurrence";
    const GATES: usize = 4;
    const KEPT: usize = 5;
    const INPUT: &'static [(usize, usize, usize)] = &[(0, 4, 0)];
    const BLANK: Option<usize> = None;
    const CARRIES: bool = true;

    #[inline(always)]
    fn open<T: Real>(record: &mut [T], bias: &[T], _: &[T], carry: &mut [T], out: &mut [T]) {
        let h = out.len();
        // One pass a gate: with more slices at once the compiler cannot rule out that they overlap, and does not vectorise.
        for (gate, &b) in record[..2 * h].iter_mut().zip(bias) {
            *gate = (*gate + b).sigmoid(); // (1)
        }
        for (g, &b) in record[2 * h..3 * h].iter_mut().zip(&bias[2 * h..]) {
            *g = (*g + b).tanh(); // (2)
        }
        for (o, &b) in record[3 * h..4 * h].iter_mut().zip(&bias[3 * h..]) {
            *o = (*o + b).sigmoid();
        }
        let (gates, c) = record.split_at_mut(4 * h);
        c.copy_from_slice(carry);
        let ((i, f), (g, o)) = (gates[..2 * h].split_at(h), gates[2 * h..].split_at(h));
        for ((((carry, &c), &i), &f), &g) in carry.iter_mut().zip(&*c).zip(i).zip(f).zip(g) {
            *carry = f * c + i * g; // (3)
        }
        for ((out, &o), &carry) in out.iter_mut().zip(o).zip(&*carry) {
            *out = o * carry.tanh(); // (4)
        }
    }

    #[inline(always)]
    fn close<T: Real>(grad: &[T], record: &mut [T], _: &[T], dh: &mut [T], dcarry: &mut [T]) {
        let h = dh.len();
        let (grad, dcarry) = (&grad[..h], &mut dcarry[..h]);
        let (i, rest) = record.split_at_mut(h);
        let (f, rest) = rest.split_at_mut(h);
        let (g, rest) = rest.split_at_mut(h);
        let (o, c) = rest.split_at_mut(h);
        let c = &mut c[..h];
        for k in 0..h {
            let dout = dh[k] + grad[k];
            let squashed = (f[k] * c[k] + i[k] * g[k]).tanh();
            let dc = dcarry[k] + dout * o[k] * (T::ONE - squashed * squashed);
            let d_i = dc * g[k] * i[k] * (T::ONE - i[k]);
            let d_f = dc * c[k] * f[k] * (T::ONE - f[k]);
            let d_g = dc * i[k] * (T::ONE - g[k] * g[k]);
            let d_o = dout * squashed * o[k] * (T::ONE - o[k]);
            dcarry[k] = dc * f[k];
            dh[k] = T::ZERO;
            (i[k], f[k], g[k], o[k]) = (d_i, d_f, d_g, d_o);
        }
    }

    fn composed(x: &Tensor, gh: &Tensor, before: &[Tensor], h: usize) -> candle_core::Result<Vec<Tensor>> {
        let sum = |gate| x.narrow(1, gate * h, h)? + gh.narrow(1, gate * h, h)?;
        let gate = |gate| candle_nn::ops::sigmoid(&sum(gate)?);
        let (i, f, g, o) = (gate(0)?, gate(1)?, sum(2)?.tanh()?, gate(3)?); // (1), (2)
        let c = ((f * &before[1])? + (i * g)?)?; // (3)
        Ok(vec![(o * c.tanh()?)?, c]) // (4)
    }
}

/// One step of some rows by tensor operations, where what comes in depends on the states: `[h', c']`, `[rows, h]` each, from the
/// input's and the states' parts of the gates, `[rows, 4h]`, with all biases in either of them.
///
/// # Errors
/// If the shapes do not fit.
pub(crate) fn step(x: &Tensor, gh: &Tensor, h: &Tensor, c: &Tensor) -> Result<[Tensor; 2]> {
    let width = h.dim(1)?;
    let mut states = Unit::composed(x, gh, &[h.clone(), c.clone()], width)?.into_iter();
    match (states.next(), states.next()) {
        (Some(h), Some(c)) => Ok([h, c]),
        _ => unreachable!("a unit has two states"),
    }
}

#[cfg(test)]
mod tests;
