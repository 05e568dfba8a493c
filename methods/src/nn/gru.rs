//! Gated recurrent units over packed sequences, in PyTorch's convention.
//!
//! For each step of each sequence, with `x_* = x W_i* + b_i*` the input's part of a gate:
//!
//! ```text
//! r  = sigmoid(x_r + h W_r + b_r)                                   (1)
//! z  = sigmoid(x_z + h W_z + b_z)                                   (2)
//! n  = tanh(x_n + r * (h W_n + b_n))                                (3)
//! h' = (1 - z) n + z h,  h = 0 at the start                         (4)
//! ```

use candle_core::Tensor;

use super::{cell::Cell, layers::Layers, real::Real};

/// One or more layers of gated recurrent units, in one direction or both. Weights are named
/// `NAME.LAYER.w_ih [in, 3h]`, `w_hh [h, 3h]`, `b_ih [3h]`, `b_hh [3h]`, and `NAME.LAYER.reverse.…` for the way back;
/// gates stand in the order r, z, n. Initial values are uniform within `1 / sqrt(h)`, as PyTorch has it.
pub type Gru = Layers<Unit>;

/// Equations (1) to (4). A record holds the sums of r and z, `h W_n` and `x_n`; then r, z, `h W_n + b_n`, n; then the gradients
/// of the first four.
pub struct Unit;

impl Cell for Unit {
    const NAME: &'static str = "gru recurrence";
    const GATES: usize = 3;
    const KEPT: usize = 4;
    const INPUT: &'static [(usize, usize, usize)] = &[(0, 2, 0), (2, 1, 3)];
    const BLANK: Option<usize> = Some(2);
    const CARRIES: bool = false;

    #[inline(always)]
    fn open<T: Real>(record: &mut [T], bias: &[T], before: &[T], _: &mut [T], out: &mut [T]) {
        let h = out.len();
        // One pass a gate: with more slices at once the compiler cannot rule out that they overlap, and does not vectorise.
        for (gate, &b) in record[..2 * h].iter_mut().zip(bias) {
            *gate = (*gate + b).sigmoid(); // (1), (2)
        }
        let (gates, rest) = record.split_at_mut(2 * h);
        let ((r, z), (u, n)) = (gates.split_at(h), rest.split_at_mut(h));
        for (u, &b) in u.iter_mut().zip(&bias[2 * h..3 * h]) {
            *u += b;
        }
        for (((n, &b), &r), &u) in n.iter_mut().zip(&bias[3 * h..]).zip(r).zip(&*u) {
            *n = (*n + b + r * u).tanh(); // (3)
        }
        for (((out, &n), &z), &before) in out.iter_mut().zip(&*n).zip(z).zip(before) {
            *out = n + z * (before - n); // (4)
        }
    }

    #[inline(always)]
    fn close<T: Real>(grad: &[T], record: &mut [T], before: &[T], dh: &mut [T], _: &mut [T]) {
        let h = dh.len();
        let (grad, before) = (&grad[..h], &before[..h]);
        let (r, rest) = record.split_at_mut(h);
        let (z, rest) = rest.split_at_mut(h);
        let (u, n) = rest.split_at_mut(h);
        let n = &mut n[..h];
        for i in 0..h {
            let g = dh[i] + grad[i];
            let dn = g * (T::ONE - z[i]) * (T::ONE - n[i] * n[i]);
            let dz = g * (before[i] - n[i]) * z[i] * (T::ONE - z[i]);
            let dr = dn * u[i] * r[i] * (T::ONE - r[i]);
            dh[i] = g * z[i];
            (u[i], n[i], r[i], z[i]) = (dn * r[i], dn, dr, dz);
        }
    }

    fn composed(x: &Tensor, gh: &Tensor, before: &[Tensor], h: usize) -> candle_core::Result<Vec<Tensor>> {
        let gate = |i| candle_nn::ops::sigmoid(&(x.narrow(1, i * h, h)? + gh.narrow(1, i * h, h)?)?);
        let (r, z) = (gate(0)?, gate(1)?); // (1), (2)
        let n = (x.narrow(1, 2 * h, h)? + (r * gh.narrow(1, 2 * h, h)?)?)?.tanh()?; // (3)
        Ok(vec![(&n + (z * (&before[0] - &n)?)?)?]) // (4)
    }
}
