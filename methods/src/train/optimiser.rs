//! Adam and stochastic gradient descent in PyTorch's convention, one fused pass over weights, gradient and moments.
//!
//! With `g` the gradient times the clipping factor plus `weight_decay w`:
//!
//! ```text
//! Adam  m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,  w -= lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
//! SGD   m = 0.9 m + g,  w -= lr m
//! ```

use std::{collections::BTreeMap, sync::Mutex};

use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Tensor, Var, backprop::GradStore};
use rayon::prelude::*;

use super::{Optimiser, Schedule};
use crate::{Error, Result, nn::Weights};

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;
const EPSILON: f64 = 1e-8;
const MOMENTUM: f64 = 0.9;

/// Values a task takes; fixed, so that sums do not depend on the number of threads.
const CHUNK: usize = 1 << 14;

/// The state of an optimiser.
pub(super) struct State {
    kind: Optimiser,
    /// First moments and, for Adam, second moments, by weight.
    moments: BTreeMap<String, Vec<Moment>>,
    /// Steps taken.
    steps: u64,
}

/// A running mean as large as its weight.
enum Moment {
    Host(Vec<f32>),
    Device(Tensor),
}

impl State {
    pub(super) fn new(kind: Optimiser, weights: &Weights) -> Result<Self> {
        let mut moments = BTreeMap::new();
        for (name, var) in weights.iter() {
            if var.dtype() != DType::F32 {
                return Err(Error::Numeric(format!("weight `{name}`: expected f32, found {:?}", var.dtype())));
            }
            let moment = || {
                Ok(if var.device().is_cpu() {
                    Moment::Host(vec![0.0; var.elem_count()])
                } else {
                    Moment::Device(var.zeros_like()?)
                })
            };
            let number = if kind == Optimiser::Adam { 2 } else { 1 };
            moments.insert(name.to_string(), (0..number).map(|_| moment()).collect::<Result<_>>()?);
        }
        Ok(Self { kind, moments, steps: 0 })
    }

    /// Takes one step at each weight's learning rate. The gradient's norm is returned.
    pub(super) fn step(
        &mut self,
        weights: &Weights,
        grads: &GradStore,
        schedule: &Schedule,
        rate: &dyn Fn(&str) -> f64,
    ) -> Result<f64> {
        let mut square = 0.0;
        for (_, var) in weights.iter() {
            if let Some(grad) = grads.get(var) {
                square += sum_of_squares(grad)?;
            }
        }
        let norm = square.sqrt();
        if !norm.is_finite() {
            return Ok(norm);
        }
        let clip = if schedule.clip > 0.0 { (schedule.clip / (norm + 1e-6)).min(1.0) } else { 1.0 };
        self.steps += 1;
        let mut update = Update {
            kind: self.kind,
            clip,
            weight_decay: schedule.weight_decay,
            rate: 0.0,
            correction_1: 1.0 - BETA_1.powf(self.steps as f64),
            correction_2: 1.0 - BETA_2.powf(self.steps as f64),
        };
        for (name, var) in weights.iter() {
            // As in PyTorch, a weight that took no part in the loss stays as it is.
            let Some(grad) = grads.get(var) else { continue };
            update.rate = rate(name);
            update.apply(var, grad, self.moments.get_mut(name).expect("each weight has moments"))?;
        }
        Ok(norm)
    }

    /// Steps taken.
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    /// Every moment as a tensor, by `NAME.0` and `NAME.1`.
    pub(super) fn tensors(&self, weights: &Weights) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = BTreeMap::new();
        for (name, var) in weights.iter() {
            for (i, moment) in self.moments[name].iter().enumerate() {
                let tensor = match moment {
                    Moment::Host(values) => Tensor::from_slice(values, var.shape(), var.device())?,
                    Moment::Device(tensor) => tensor.clone(),
                };
                tensors.insert(format!("{name}.{i}"), tensor);
            }
        }
        Ok(tensors)
    }

    /// Takes back what [`State::tensors`] gave.
    pub(super) fn restore(&mut self, steps: u64, tensors: &BTreeMap<String, Tensor>, file: &str) -> Result<()> {
        for (name, moments) in &mut self.moments {
            for (i, moment) in moments.iter_mut().enumerate() {
                let tensor = tensors.get(&format!("{name}.{i}")).ok_or_else(|| Error::Format {
                    file: file.into(),
                    expected: format!("moment {i} of weight `{name}`"),
                    found: "none".into(),
                })?;
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
        self.steps = steps;
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

/// One step of one optimiser.
struct Update {
    kind: Optimiser,
    clip: f64,
    weight_decay: f64,
    rate: f64,
    correction_1: f64,
    correction_2: f64,
}

impl Update {
    fn apply(&self, var: &Var, grad: &Tensor, moments: &mut [Moment]) -> Result<()> {
        match (self.kind, moments) {
            (Optimiser::Adam, [Moment::Host(first), Moment::Host(second)]) => {
                let (weight_decay, clip) = (self.weight_decay as f32, self.clip as f32);
                let size = (self.rate / self.correction_1) as f32;
                let root = (1.0 / self.correction_2.sqrt()) as f32;
                let (keep_1, add_1) = (BETA_1 as f32, (1.0 - BETA_1) as f32);
                let (keep_2, add_2) = (BETA_2 as f32, (1.0 - BETA_2) as f32);
                let pass = Mutex::new((first.as_mut_slice(), second.as_mut_slice()));
                var.inplace_op2(
                    &grad.contiguous()?,
                    &Pass(|w: &mut [f32], g: &[f32]| {
                        let mut moments = pass.lock().expect("one pass at a time");
                        let (first, second) = &mut *moments;
                        let (first, second) = (first.par_chunks_mut(CHUNK), second.par_chunks_mut(CHUNK));
                        w.par_chunks_mut(CHUNK).zip(g.par_chunks(CHUNK)).zip(first).zip(second).for_each(
                            |(((w, g), m), v)| {
                                for (((w, &g), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
                                    let g = g * clip + weight_decay * *w;
                                    *m = keep_1 * *m + add_1 * g;
                                    *v = keep_2 * *v + add_2 * (g * g);
                                    *w -= size * *m / (v.sqrt() * root + EPSILON as f32);
                                }
                            },
                        );
                    }),
                )?;
            }
            (Optimiser::Sgd, [Moment::Host(first)]) => {
                let (weight_decay, clip, rate) = (self.weight_decay as f32, self.clip as f32, self.rate as f32);
                let pass = Mutex::new(first.as_mut_slice());
                var.inplace_op2(
                    &grad.contiguous()?,
                    &Pass(|w: &mut [f32], g: &[f32]| {
                        let mut first = pass.lock().expect("one pass at a time");
                        w.par_chunks_mut(CHUNK).zip(g.par_chunks(CHUNK)).zip(first.par_chunks_mut(CHUNK)).for_each(
                            |((w, g), m)| {
                                for ((w, &g), m) in w.iter_mut().zip(g).zip(m) {
                                    *m = MOMENTUM as f32 * *m + (g * clip + weight_decay * *w);
                                    *w -= rate * *m;
                                }
                            },
                        );
                    }),
                )?;
            }
            (kind, moments) => {
                let w = var.as_detached_tensor();
                let g = ((grad.detach() * self.clip)? + (&w * self.weight_decay)?)?;
                let mut moments: Vec<&mut Tensor> = moments
                    .iter_mut()
                    .filter_map(|moment| if let Moment::Device(tensor) = moment { Some(tensor) } else { None })
                    .collect();
                let change = if kind == Optimiser::Adam {
                    *moments[0] = ((&*moments[0] * BETA_1)? + (&g * (1.0 - BETA_1))?)?;
                    *moments[1] = ((&*moments[1] * BETA_2)? + (g.sqr()? * (1.0 - BETA_2))?)?;
                    let scale = ((&*moments[1] * (1.0 / self.correction_2))?.sqrt()? + EPSILON)?;
                    ((&*moments[0] * (self.rate / self.correction_1))? / scale)?
                } else {
                    *moments[0] = ((&*moments[0] * MOMENTUM)? + g)?;
                    (&*moments[0] * self.rate)?
                };
                var.set(&(w - change)?)?;
            }
        }
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
            state.step(&weights, &grads, schedule, &|_| schedule.learning_rate).unwrap();
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
