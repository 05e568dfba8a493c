//! Gated recurrent units over packed sequences, in PyTorch's convention (the equations stand in `recurrence`).
//!
//! The input's part of the gates, `x W_ih + b_ih`, is one product over all steps of all sequences.

use std::sync::Arc;

use candle_core::Tensor;

use super::{
    Weights,
    lengths::Lengths,
    recurrence::{Steps, states},
};
use crate::Result;

/// One or more layers of gated recurrent units, in one direction or both. Weights are named
/// `NAME.LAYER.w_ih [in, 3h]`, `w_hh [h, 3h]`, `b_ih [3h]`, `b_hh [3h]`, and `NAME.LAYER.reverse.…` for the way back;
/// gates stand in the order r, z, n. Initial values are uniform within `1 / sqrt(h)`, as PyTorch has it.
pub struct Gru {
    /// Directions of each layer.
    layers: Vec<Vec<Direction>>,
    hidden: usize,
}

struct Direction {
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor,
    b_hh: Tensor,
    reverse: bool,
}

impl Direction {
    fn forward(&self, x: &Tensor, lengths: &Lengths) -> Result<Tensor> {
        let gx = x.matmul(&self.w_ih)?.broadcast_add(&self.b_ih)?;
        states(&gx, &self.w_hh, &self.b_hh, Arc::new(Steps::new(lengths, self.reverse)))
    }
}

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
        let ways: &[bool] = if bidirectional { &[false, true] } else { &[false] };
        let bound = 1.0 / (hidden as f64).sqrt();
        let layers = (0..layers)
            .map(|layer| {
                let input = if layer == 0 { input } else { ways.len() * hidden };
                let direction = |&reverse: &bool| {
                    let at = if reverse { format!("{name}.{layer}.reverse") } else { format!("{name}.{layer}") };
                    Ok(Direction {
                        w_ih: weights.uniform(&format!("{at}.w_ih"), &[input, 3 * hidden], bound)?,
                        w_hh: weights.uniform(&format!("{at}.w_hh"), &[hidden, 3 * hidden], bound)?,
                        b_ih: weights.uniform(&format!("{at}.b_ih"), &[3 * hidden], bound)?,
                        b_hh: weights.uniform(&format!("{at}.b_hh"), &[3 * hidden], bound)?,
                        reverse,
                    })
                };
                ways.iter().map(direction).collect()
            })
            .collect::<Result<_>>()?;
        Ok(Self { layers, hidden })
    }

    /// Length of a state.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// The states of the last layer after every row of packed sequences `x [total, in]`: `[total, h]` of the way forth and,
    /// if there is one, of the way back, which starts at the last row of each sequence.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn directions(&self, x: &Tensor, lengths: &Lengths) -> Result<Vec<Tensor>> {
        let mut outputs: Vec<Tensor> = Vec::new();
        for layer in &self.layers {
            let input = match outputs.as_slice() {
                [] => x.clone(),
                [one] => one.clone(),
                both => Tensor::cat(both, 1)?,
            };
            outputs = layer.iter().map(|direction| direction.forward(&input, lengths)).collect::<Result<_>>()?;
        }
        Ok(outputs)
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
        let outputs = self.directions(&lengths.unpad(x)?, lengths)?;
        lengths.pad(&Tensor::cat(&outputs, 1)?, x.dim(1)?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};
    use xmbench_datasets::random::Seed;

    use super::*;
    use crate::nn::recurrence::composed;

    fn draw(label: &str, shape: &[usize]) -> Var {
        let mut stream = Seed(5).stream(&["gru", label]);
        let values: Vec<f64> = (0..shape.iter().product()).map(|_| 0.7 * stream.normal()).collect();
        Var::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    /// Largest difference of two tensors.
    fn distance(a: &Tensor, b: &Tensor) -> f64 {
        let a = a.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let b = b.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert_eq!(a.len(), b.len());
        a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn gradients_are_those_of_finite_differences_and_of_candle() {
        let lengths = Lengths::new([3, 1, 5, 3]).unwrap();
        let (h, total) = (4, lengths.total());
        let arguments = [draw("gx", &[total, 3 * h]), draw("w", &[h, 3 * h]), draw("b", &[3 * h])];
        let weight = draw("cotangent", &[total, h]).as_detached_tensor();
        for reverse in [false, true] {
            let steps = Arc::new(Steps::new(&lengths, reverse));
            let fused = |a: &[Var; 3]| states(&a[0], &a[1], &a[2], steps.clone()).unwrap();
            let loss = |a: &[Var; 3]| (fused(a) * &weight).unwrap().sum_all().unwrap();
            let plain = composed(&arguments[0], &arguments[1], &arguments[2], &steps).unwrap();
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
        let exact = states(&wide[0], &wide[1], &wide[2], steps.clone()).unwrap();
        let detached = states(&narrow[0], &narrow[1], &narrow[2], steps.clone()).unwrap();
        assert!(distance(&exact, &detached) < 2e-5);
        let tracked = Var::from_tensor(&narrow[0]).unwrap();
        let kept = states(&tracked, &narrow[1], &narrow[2], steps).unwrap();
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
                let out = states(&a[0], &a[1], &a[2], Arc::new(Steps::new(&lengths, false))).unwrap();
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
