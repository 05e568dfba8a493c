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

use super::{Weights, layers::Layers, lengths::Lengths, real::Real, recurrence::Cell};
use crate::Result;

/// One or more layers of gated recurrent units, in one direction or both. Weights are named
/// `NAME.LAYER.w_ih [in, 3h]`, `w_hh [h, 3h]`, `b_ih [3h]`, `b_hh [3h]`, and `NAME.LAYER.reverse.…` for the way back;
/// gates stand in the order r, z, n. Initial values are uniform within `1 / sqrt(h)`, as PyTorch has it.
pub struct Gru(Layers<Unit>);

impl Gru {
    /// Layers over vectors of length `input`, each direction with states of length `hidden`. A layer after the first reads
    /// both directions of the one below, one behind the other.
    ///
    /// # Errors
    /// If a weight cannot be made.
    pub fn new(
        weights: &mut Weights,
        name: &str,
        input: usize,
        hidden: usize,
        layers: usize,
        bidirectional: bool,
    ) -> Result<Self> {
        Layers::new(weights, name, input, hidden, layers, bidirectional).map(Self)
    }

    /// Length of a state.
    pub fn hidden(&self) -> usize {
        self.0.hidden
    }

    /// The states of the last layer after every row of packed sequences `x [total, in]`: `[total, h]` of the way forth and,
    /// if there is one, of the way back, which starts at the last row of each sequence.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn directions(&self, x: &Tensor, lengths: &Lengths) -> Result<Vec<Tensor>> {
        self.0.directions(x, lengths)
    }

    /// The mean of both directions after every row, `[total, h]`; with one direction, that.
    ///
    /// # Errors
    /// As [`Gru::directions`].
    pub fn average(&self, x: &Tensor, lengths: &Lengths) -> Result<Tensor> {
        match self.directions(x, lengths)?.as_slice() {
            [one] => Ok(one.clone()),
            both => Ok(((&both[0] + &both[1])? * 0.5)?),
        }
    }

    /// Both directions one behind the other for padded sequences: `[b, t, in]` to `[b, t, directions * h]`, zero behind the
    /// end of a sequence.
    ///
    /// # Errors
    /// As [`Gru::directions`].
    pub fn forward(&self, x: &Tensor, lengths: &Lengths) -> Result<Tensor> {
        self.0.forward(x, lengths)
    }
}

/// Equations (1) to (4). A record holds the sums of r and z, `h W_n` and `x_n`; then r, z, `h W_n + b_n`, n; then the gradients
/// of the first four.
struct Unit;

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

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};
    use xmbench_datasets::random::Seed;

    use super::*;
    use crate::nn::{
        checks::{distance, draw, draw_f32, flat, follows_differences, on_threads},
        recurrence::{composed, states},
    };

    const G: usize = Unit::GATES;

    #[test]
    fn gradients_are_those_of_finite_differences_and_of_candle() {
        let lengths = Lengths::new([3, 1, 5, 3]).unwrap();
        let (input, h, total) = (2, 4, lengths.total());
        let arguments = [
            draw("x", &[total, input]),
            draw("w_ih", &[input, G * h]),
            draw("w_hh", &[h, G * h]),
            draw("b_ih", &[G * h]),
            draw("b_hh", &[G * h]),
        ];
        let weights = |a: &[Var]| [1, 2, 3, 4].map(|i: usize| a[i].as_tensor().clone());
        let cotangent = draw("cotangent", &[total, h]).as_detached_tensor();
        let weigh = |y: &Tensor| (y * &cotangent).unwrap().sum_all().unwrap();
        for reverse in [false, true] {
            let fused = |a: &[Var]| states::<Unit>(&a[0], &weights(a), &lengths, reverse).unwrap();
            let plain = composed::<Unit>(&arguments[0], &weights(&arguments), &lengths, reverse).unwrap();
            assert!(distance(&fused(&arguments), &plain) < 1e-14);
            let grads = weigh(&fused(&arguments)).backward().unwrap();
            let plain_grads = weigh(&plain).backward().unwrap();
            for argument in &arguments {
                assert!(distance(grads.get(argument).unwrap(), plain_grads.get(argument).unwrap()) < 1e-12);
            }
            follows_differences(&arguments, |a| weigh(&fused(a)));
        }
    }

    #[test]
    fn f32_follows_f64_and_what_is_kept_does_not_change_the_states() {
        let lengths = Lengths::new((0..150).map(|i| 1 + i * 7 % 12)).unwrap();
        let (input, h, total) = (20, 33, lengths.total());
        let shapes =
            [("w_ih", vec![input, G * h]), ("w_hh", vec![h, G * h]), ("b_ih", vec![G * h]), ("b_hh", vec![G * h])];
        // About the size that initial values have.
        let weights = shapes.map(|(label, shape)| (draw(label, &shape).as_detached_tensor() * 0.3).unwrap());
        let x = draw("x", &[total, input]).as_detached_tensor();
        let narrow = |t: &Tensor| t.to_dtype(DType::F32).unwrap();
        let exact = states::<Unit>(&x, &weights, &lengths, true).unwrap();
        let plain = composed::<Unit>(&x, &weights, &lengths, true).unwrap();
        assert!(distance(&exact, &plain) < 1e-12);
        let weights = weights.each_ref().map(narrow);
        let detached = states::<Unit>(&narrow(&x), &weights, &lengths, true).unwrap();
        assert!(distance(&exact, &detached) < 2e-5);
        let tracked = Var::from_tensor(&narrow(&x)).unwrap();
        let kept = states::<Unit>(&tracked, &weights, &lengths, true).unwrap();
        assert_eq!(distance(&kept, &detached), 0.0);
    }

    #[test]
    fn padding_and_company_change_no_bit() {
        let mut weights = Weights::new(Seed(1), &Device::Cpu);
        let gru = Gru::new(&mut weights, "gru", 6, 8, 2, true).unwrap();
        let x = draw("x", &[3, 5, 6]).to_dtype(DType::F32).unwrap();
        let lengths = Lengths::new([2, 5, 3]).unwrap();
        let all = gru.forward(&x, &lengths).unwrap();
        assert_eq!(all.dims(), [3, 5, 16]);
        for (b, &length) in [2, 5, 3].iter().enumerate() {
            let alone = x.narrow(0, b, 1).unwrap().narrow(1, 0, length).unwrap().contiguous().unwrap();
            let alone = gru.forward(&alone, &Lengths::new([length]).unwrap()).unwrap();
            let row = all.narrow(0, b, 1).unwrap();
            assert!(distance(&row.narrow(1, 0, length).unwrap(), &alone) < 1e-6);
            let behind = row.narrow(1, length, 5 - length).unwrap();
            assert_eq!(behind.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap(), 0.0);
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let lengths = Lengths::new((0..140).map(|i| 1 + i * 5 % 9)).unwrap();
        let (input, h, total) = (30, 64, lengths.total());
        let a = [
            draw_f32("x", &[total, input]),
            draw_f32("w_ih", &[input, G * h]),
            draw_f32("w_hh", &[h, G * h]),
            draw_f32("b_ih", &[G * h]),
            draw_f32("b_hh", &[G * h]),
        ];
        let weights = [1, 2, 3, 4].map(|i: usize| a[i].as_tensor().clone());
        let compute = |threads| {
            on_threads(threads, || {
                let out = states::<Unit>(&a[0], &weights, &lengths, false).unwrap();
                let grads = out.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                a.iter().map(|v| flat(grads.get(v).unwrap())).collect::<Vec<_>>()
            })
        };
        let one = compute(1);
        assert!(compute(2) == one && compute(4) == one);
    }
}
