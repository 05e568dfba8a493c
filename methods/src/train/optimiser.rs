//! Adam and stochastic gradient descent in PyTorch's convention, one fused pass over weights, gradient and moments.
//!
//! With `g` the gradient times the clipping factor, `d = weight_decay`, and `t` the steps of the weight, this one included:
//!
//! ```text
//! Adam      g += d w;          m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,
//!                              w -= lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
//! AdamW     w *= 1 - lr d;     then as Adam
//! SGD       g += d w;          m = momentum m + g,  w -= lr m
//! Nesterov  g += d w;          m = momentum m + g,  w -= lr (g + momentum m)
//! ```

use std::{collections::BTreeMap, sync::Mutex};

use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Tensor, Var, backprop::GradStore};
use rayon::prelude::*;

use super::{Moves, Optimiser, Schedule};
use crate::{Error, Result, nn::Weights};

const EPSILON: f64 = 1e-8;

/// Values a task takes; fixed, so that sums do not depend on the number of threads.
const CHUNK: usize = 1 << 14;

/// The state of an optimiser.
pub(super) struct State {
    kind: Optimiser,
    weights: BTreeMap<String, Moving>,
}

/// What an optimiser keeps of a weight.
struct Moving {
    /// First moment and, where steps are scaled, second moment.
    moments: Vec<Moment>,
    /// Steps that moved the weight.
    steps: u64,
}

/// A running mean as large as its weight.
enum Moment {
    Host(Vec<f32>),
    Device(Tensor),
}

impl State {
    pub(super) fn new(kind: Optimiser, weights: &Weights) -> Result<Self> {
        Self::with(kind, weights, weights.device().is_cpu())
    }

    /// Moments for the fused pass, or for operations of whole tensors.
    pub(super) fn with(kind: Optimiser, weights: &Weights, fused: bool) -> Result<Self> {
        let mut moving = BTreeMap::new();
        for (name, var) in weights.iter() {
            if var.dtype() != DType::F32 {
                return Err(Error::Numeric(format!("weight `{name}`: expected f32, found {:?}", var.dtype())));
            }
            let moment = || {
                Ok(if fused { Moment::Host(vec![0.0; var.elem_count()]) } else { Moment::Device(var.zeros_like()?) })
            };
            let number = if kind.adaptive() { 2 } else { 1 };
            let moments = (0..number).map(|_| moment()).collect::<Result<_>>()?;
            moving.insert(name.to_string(), Moving { moments, steps: 0 });
        }
        Ok(Self { kind, weights: moving })
    }

    /// Takes one step of the weights that `moves` holds, at each one's learning rate. The norm of their gradient is returned.
    pub(super) fn step(
        &mut self,
        weights: &Weights,
        moves: &Moves,
        grads: &GradStore,
        schedule: &Schedule,
        rate: &dyn Fn(&str) -> f64,
    ) -> Result<f64> {
        // As in PyTorch, a weight that took no part in the loss stays as it is.
        let moved = || {
            let held = weights.iter().filter(|(name, _)| moves.hold(name));
            held.filter_map(|(name, var)| Some((name, var, grads.get(var)?)))
        };
        let mut square = 0.0;
        for (_, _, grad) in moved() {
            square += sum_of_squares(grad)?;
        }
        let norm = square.sqrt();
        if !norm.is_finite() {
            return Ok(norm);
        }
        let clip = if schedule.clip > 0.0 { (schedule.clip / (norm + 1e-6)).min(1.0) } else { 1.0 };
        for (name, var, grad) in moved() {
            let moving = self.weights.get_mut(name).expect("each weight has moments");
            moving.steps += 1;
            let update = Update::new(self.kind, schedule, clip, rate(name), moving.steps);
            update.apply(var, grad, &mut moving.moments)?;
        }
        Ok(norm)
    }

    /// The steps that moved each weight.
    pub(super) fn moved(&self) -> BTreeMap<&str, u64> {
        self.weights.iter().map(|(name, moving)| (name.as_str(), moving.steps)).collect()
    }

    /// Every moment as a tensor, by `NAME.0` and `NAME.1`.
    pub(super) fn tensors(&self, weights: &Weights) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = BTreeMap::new();
        for (name, var) in weights.iter() {
            for (i, moment) in self.weights[name].moments.iter().enumerate() {
                let tensor = match moment {
                    Moment::Host(values) => Tensor::from_slice(values, var.shape(), var.device())?,
                    Moment::Device(tensor) => tensor.clone(),
                };
                tensors.insert(format!("{name}.{i}"), tensor);
            }
        }
        Ok(tensors)
    }

    /// Takes back what [`State::moved`] and [`State::tensors`] gave.
    pub(super) fn restore(
        &mut self,
        moved: &BTreeMap<String, u64>,
        tensors: &BTreeMap<String, Tensor>,
        file: &str,
    ) -> Result<()> {
        for (name, moving) in &mut self.weights {
            let absent = |expected: String| Error::Format { file: file.into(), expected, found: "none".into() };
            moving.steps = *moved.get(name).ok_or_else(|| absent(format!("the steps of weight `{name}`")))?;
            for (i, moment) in moving.moments.iter_mut().enumerate() {
                let tensor = tensors
                    .get(&format!("{name}.{i}"))
                    .ok_or_else(|| absent(format!("moment {i} of weight `{name}`")))?;
                match moment {
                    Moment::Host(values) => {
                        let saved = tensor.flatten_all()?.to_vec1::<f32>()?;
                        if saved.len() != values.len() {
                            return Err(Error::Format {
                                file: file.into(),
                                expected: format!("{} values in moment {i} of weight `{name}`", values.len()),
                                found: saved.len().to_string(),
                            });
                        }
                        *values = saved;
                    }
                    Moment::Device(values) => *values = tensor.to_device(values.device())?,
                }
            }
        }
        Ok(())
    }
}

/// Sum of the squares, in f64.
fn sum_of_squares(grad: &Tensor) -> Result<f64> {
    if !grad.device().is_cpu() {
        return Ok(grad.sqr()?.sum_all()?.to_dtype(DType::F64)?.to_scalar()?);
    }
    let sum = crate::nn::real::with::<f32, _>(&grad.contiguous()?, |values| {
        let parts: Vec<f64> = values
            .par_chunks(CHUNK)
            .map(|chunk| {
                let mut lanes = [0f64; 8];
                for (i, &x) in chunk.iter().enumerate() {
                    lanes[i % 8] += f64::from(x) * f64::from(x);
                }
                lanes.iter().sum()
            })
            .collect();
        Ok(parts.iter().sum())
    })?;
    Ok(sum)
}

/// One step of one weight.
struct Update {
    kind: Optimiser,
    clip: f64,
    /// L2 penalty that is added to the gradient.
    penalty: f64,
    /// Factor of the weight itself.
    keep: f64,
    rate: f64,
    /// Decay of the first and the second moment.
    decay: [f64; 2],
    correction: [f64; 2],
}

impl Update {
    /// The `steps`-th step of a weight.
    fn new(kind: Optimiser, schedule: &Schedule, clip: f64, rate: f64, steps: u64) -> Self {
        let (penalty, keep) = match kind {
            Optimiser::AdamW => (0.0, 1.0 - rate * schedule.weight_decay),
            _ => (schedule.weight_decay, 1.0),
        };
        let decay = if kind.adaptive() { [schedule.beta1, schedule.beta2] } else { [schedule.momentum, 0.0] };
        let correction = decay.map(|decay| 1.0 - decay.powf(steps as f64));
        Self { kind, clip, penalty, keep, rate, decay, correction }
    }

    fn apply(&self, var: &Var, grad: &Tensor, moments: &mut [Moment]) -> Result<()> {
        match moments {
            [Moment::Host(first), Moment::Host(second)] => self.adam(var, grad, first, second),
            [Moment::Host(first)] => self.sgd(var, grad, first),
            moments => self.composed(var, grad, moments),
        }
    }

    fn adam(&self, var: &Var, grad: &Tensor, first: &mut [f32], second: &mut [f32]) -> Result<()> {
        let (penalty, clip, keep) = (self.penalty as f32, self.clip as f32, self.keep as f32);
        let size = (self.rate / self.correction[0]) as f32;
        let root = (1.0 / self.correction[1].sqrt()) as f32;
        let [keep_1, keep_2] = self.decay.map(|decay| decay as f32);
        let [add_1, add_2] = self.decay.map(|decay| (1.0 - decay) as f32);
        let pass = Mutex::new((first, second));
        var.inplace_op2(
            &grad.contiguous()?,
            &Pass(|w: &mut [f32], g: &[f32]| {
                let mut moments = pass.lock().expect("one pass at a time");
                let (first, second) = &mut *moments;
                let (first, second) = (first.par_chunks_mut(CHUNK), second.par_chunks_mut(CHUNK));
                w.par_chunks_mut(CHUNK).zip(g.par_chunks(CHUNK)).zip(first).zip(second).for_each(|(((w, g), m), v)| {
                    for (((w, &g), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
                        let g = g * clip + penalty * *w;
                        *m = keep_1 * *m + add_1 * g;
                        *v = keep_2 * *v + add_2 * (g * g);
                        *w = keep * *w - size * *m / (v.sqrt() * root + EPSILON as f32);
                    }
                });
            }),
        )?;
        Ok(())
    }

    fn sgd(&self, var: &Var, grad: &Tensor, first: &mut [f32]) -> Result<()> {
        let (penalty, clip, rate) = (self.penalty as f32, self.clip as f32, self.rate as f32);
        let momentum = self.decay[0] as f32;
        let ahead = self.kind == Optimiser::Nesterov;
        let pass = Mutex::new(first);
        var.inplace_op2(
            &grad.contiguous()?,
            &Pass(|w: &mut [f32], g: &[f32]| {
                let mut first = pass.lock().expect("one pass at a time");
                let first = first.par_chunks_mut(CHUNK);
                w.par_chunks_mut(CHUNK).zip(g.par_chunks(CHUNK)).zip(first).for_each(|((w, g), m)| {
                    for ((w, &g), m) in w.iter_mut().zip(g).zip(m) {
                        let g = g * clip + penalty * *w;
                        *m = momentum * *m + g;
                        *w -= rate * if ahead { g + momentum * *m } else { *m };
                    }
                });
            }),
        )?;
        Ok(())
    }

    /// The same from operations of whole tensors, for other devices.
    fn composed(&self, var: &Var, grad: &Tensor, moments: &mut [Moment]) -> Result<()> {
        let w = var.as_detached_tensor();
        let g = ((grad.detach() * self.clip)? + (&w * self.penalty)?)?;
        let mut moments: Vec<&mut Tensor> = moments
            .iter_mut()
            .filter_map(|moment| if let Moment::Device(tensor) = moment { Some(tensor) } else { None })
            .collect();
        let change = match (self.kind, moments.as_mut_slice()) {
            (Optimiser::Adam | Optimiser::AdamW, [first, second]) => {
                **first = ((&**first * self.decay[0])? + (&g * (1.0 - self.decay[0]))?)?;
                **second = ((&**second * self.decay[1])? + (g.sqr()? * (1.0 - self.decay[1]))?)?;
                let scale = ((&**second * (1.0 / self.correction[1]))?.sqrt()? + EPSILON)?;
                ((&**first * (self.rate / self.correction[0]))? / scale)?
            }
            (kind, [first, ..]) => {
                **first = ((&**first * self.decay[0])? + &g)?;
                match kind {
                    Optimiser::Nesterov => ((g + (&**first * self.decay[0])?)? * self.rate)?,
                    _ => (&**first * self.rate)?,
                }
            }
            (_, []) => unreachable!("every optimiser has a moment"),
        };
        var.set(&((w * self.keep)? - change)?)?;
        Ok(())
    }
}

/// Applies a function to the values of a contiguous f32 weight and its gradient.
struct Pass<F>(F);

impl<F: Fn(&mut [f32], &[f32])> InplaceOp2 for Pass<F> {
    fn name(&self) -> &'static str {
        "optimiser"
    }

    fn cpu_fwd(&self, w: &mut CpuStorage, wl: &Layout, g: &CpuStorage, gl: &Layout) -> candle_core::Result<()> {
        match (w, wl.contiguous_offsets(), g, gl.contiguous_offsets()) {
            (CpuStorage::F32(w), Some((w0, w1)), CpuStorage::F32(g), Some((g0, g1))) if w1 - w0 == g1 - g0 => {
                (self.0)(&mut w[w0..w1], &g[g0..g1]);
                Ok(())
            }
            _ => candle_core::bail!("optimiser: expected contiguous f32 weights and gradients of one shape"),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use xmbench_datasets::random::Seed;

    use super::*;

    /// Three steps on `loss = sum(w^2) / 2`, whose gradient is `w`.
    fn walk(schedule: &Schedule) -> Vec<f32> {
        let mut weights = Weights::new(Seed(0), &Device::Cpu);
        let w = weights.insert("w", Tensor::new(&[1.0f32, -2.0, 0.5], &Device::Cpu).unwrap()).unwrap();
        let mut state = State::new(schedule.optimiser, &weights).unwrap();
        for _ in 0..3 {
            let grads = (w.sqr().unwrap().sum_all().unwrap() * 0.5).unwrap().backward().unwrap();
            state.step(&weights, &Moves::All, &grads, schedule, &|_| schedule.learning_rate).unwrap();
        }
        w.to_vec1().unwrap()
    }

    const ADAM: [f64; 3] = [0.701586274, -1.700623393, 0.204871256];
    const SGD: [f64; 3] = [0.481324499, -0.962648998, 0.240662249];
    const SGD_CLIPPED: [f64; 3] = [0.749763883, -1.499527766, 0.374881941];

    fn close(found: &[f32], expected: &[f64]) {
        for (a, b) in found.iter().zip(expected) {
            assert!((f64::from(*a) - b).abs() < 1e-6, "{found:?} {expected:?}");
        }
    }

    #[test]
    fn steps_are_those_of_pytorch() {
        let base = Schedule { learning_rate: 0.1, weight_decay: 0.01, clip: 0.0, ..Schedule::default() };
        // torch.optim.Adam(lr=0.1, weight_decay=0.01) and SGD(lr=0.1, momentum=0.9, weight_decay=0.01), recomputed in f64.
        close(&walk(&Schedule { optimiser: Optimiser::Adam, ..base.clone() }), &ADAM);
        close(&walk(&Schedule { optimiser: Optimiser::Sgd, ..base.clone() }), &SGD);
        close(&walk(&Schedule { optimiser: Optimiser::Sgd, clip: 1.0, ..base }), &SGD_CLIPPED);
    }
}
