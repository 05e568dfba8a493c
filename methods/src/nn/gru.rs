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

/// Equations (1) to (4). A row keeps r, z, `h W_n + b_n`, n.
struct Unit;

impl Cell for Unit {
    const NAME: &'static str = "gru recurrence";
    const GATES: usize = 3;
    const KEPT: usize = 4;
    const CARRIES: bool = false;

    #[inline]
    fn open<T: Real>(x: &[T], b: &[T], before: &[T], _: &mut [T], gates: &mut [T], out: &mut [T]) {
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

    #[inline]
    fn close<T: Real>(grad: &[T], gates: &[T], before: &[T], dh: &mut [T], _: &mut [T], dgx: &mut [T], dgh: &mut [T]) {
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

    fn composed(x: &Tensor, gh: &Tensor, before: &[Tensor], h: usize) -> candle_core::Result<Vec<Tensor>> {
        let gate = |i| candle_nn::ops::sigmoid(&(x.narrow(1, i * h, h)? + gh.narrow(1, i * h, h)?)?);
        let (r, z) = (gate(0)?, gate(1)?); // (1), (2)
        let n = (x.narrow(1, 2 * h, h)? + (r * gh.narrow(1, 2 * h, h)?)?)?.tanh()?; // (3)
        Ok(vec![(&n + (z * (&before[0] - &n)?)?)?]) // (4)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candle_core::{DType, Device, Var};
    use xmbench_datasets::random::Seed;

    use super::*;
    use crate::nn::{
        checks::{distance, draw},
        recurrence::{composed, states},
        steps::Steps,
    };

    #[test]
    fn gradients_are_those_of_finite_differences_and_of_candle() {
        let lengths = Lengths::new([3, 1, 5, 3]).unwrap();
        let (h, total) = (4, lengths.total());
        let arguments = [draw("gx", &[total, 3 * h]), draw("w", &[h, 3 * h]), draw("b", &[3 * h])];
        let weight = draw("cotangent", &[total, h]).as_detached_tensor();
        for reverse in [false, true] {
            let steps = Arc::new(Steps::new(&lengths, reverse));
            let fused = |a: &[Var; 3]| states::<Unit>(&a[0], &a[1], &a[2], steps.clone()).unwrap();
            let loss = |a: &[Var; 3]| (fused(a) * &weight).unwrap().sum_all().unwrap();
            let plain = composed::<Unit>(&arguments[0], &arguments[1], &arguments[2], &steps).unwrap();
            assert!(distance(&fused(&arguments), &plain) < 1e-14);
            let grads = loss(&arguments).backward().unwrap();
            let plain_grads = (plain * &weight).unwrap().sum_all().unwrap().backward().unwrap();
            for (which, argument) in arguments.iter().enumerate() {
                let grad = grads.get(argument).unwrap();
                assert!(distance(grad, plain_grads.get(argument).unwrap()) < 1e-12);
                let values = argument.flatten_all().unwrap().to_vec1::<f64>().unwrap();
                let grad = grad.flatten_all().unwrap().to_vec1::<f64>().unwrap();
                for i in (0..values.len()).step_by(5) {
                    let at = |shift: f64| {
                        let mut moved = values.clone();
                        moved[i] += shift;
                        let mut a = arguments.clone();
                        a[which] = Var::from_vec(moved, argument.dims(), &Device::Cpu).unwrap();
                        loss(&a).to_scalar::<f64>().unwrap()
                    };
                    let difference = (at(1e-5) - at(-1e-5)) / 2e-5;
                    assert!((difference - grad[i]).abs() < 1e-8, "argument {which}, value {i}");
                }
            }
        }
    }

    #[test]
    fn f32_follows_f64_and_what_is_kept_does_not_change_the_states() {
        let lengths = Lengths::new((0..40).map(|i| 1 + i * 7 % 12)).unwrap();
        let (h, total) = (33, lengths.total());
        let wide = [draw("gx", &[total, 3 * h]), draw("w", &[h, 3 * h]), draw("b", &[3 * h])];
        let narrow: Vec<Tensor> = wide.iter().map(|v| v.to_dtype(DType::F32).unwrap().detach()).collect();
        let steps = Arc::new(Steps::new(&lengths, true));
        let exact = states::<Unit>(&wide[0], &wide[1], &wide[2], steps.clone()).unwrap();
        let detached = states::<Unit>(&narrow[0], &narrow[1], &narrow[2], steps.clone()).unwrap();
        assert!(distance(&exact, &detached) < 2e-5);
        let tracked = Var::from_tensor(&narrow[0]).unwrap();
        let kept = states::<Unit>(&tracked, &narrow[1], &narrow[2], steps).unwrap();
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
        let lengths = Lengths::new((0..64).map(|i| 1 + i * 5 % 9)).unwrap();
        let (h, total) = (64, lengths.total());
        let narrow =
            |label: &str, shape: &[usize]| Var::from_tensor(&draw(label, shape).to_dtype(DType::F32).unwrap()).unwrap();
        let a = [narrow("gx", &[total, 3 * h]), narrow("w", &[h, 3 * h]), narrow("b", &[3 * h])];
        let compute = |threads| {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
                let out = states::<Unit>(&a[0], &a[1], &a[2], Arc::new(Steps::new(&lengths, false))).unwrap();
                let grads = out.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                a.iter()
                    .map(|v| grads.get(v).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap())
                    .collect::<Vec<_>>()
            })
        };
        let one = compute(1);
        assert!(compute(2) == one && compute(4) == one);
    }
}
