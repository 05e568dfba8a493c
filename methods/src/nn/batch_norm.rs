//! Batch normalisation, on the CPU one operation: three passes over the values, and two on the way back. With `n` real rows, `u_i` 1 for
//! a real row and 0 for another, and moments over the real rows:
//!
//! ```text
//! y_i = gamma h_i + beta,  h_i = (x_i - mean) r,  r = 1 / sqrt(var + 1e-5)                       (1)
//! ```
//!
//! Backward, sums over all rows: `dbeta = sum g_i`, `dgamma = sum g_i h_i`, `dx_i = r gamma (g_i - u_i (dbeta + h_i dgamma) / n)`.

use candle_core::{CpuStorage, CustomOp3, Device, Layout, Shape, Tensor, Var, WithDType};
use rayon::prelude::*;
use xmbench_datasets::random::Stream;

use super::{
    Weights,
    real::{Real, dispatch, together, with},
};
use crate::{Error, Result};

const EPSILON: f64 = 1e-5;
/// Share of a batch in the running moments.
const MOMENTUM: f64 = 0.1;
/// Rows whose sums one task makes; fixed, so that sums do not depend on the number of threads.
const ROWS: usize = 64;

/// Batch normalisation of columns (Ioffe and Szegedy 2015) in PyTorch's convention: `y = gamma (x - mean) / sqrt(var + 1e-5) + beta`
/// with the batch's mean and biased variance in training, running ones afterwards. Weights `NAME.gamma`, `NAME.beta`; the state
/// `NAME.running_mean`, `NAME.running_variance` is kept beside them and no gradient moves it.
pub struct BatchNorm {
    gamma: Tensor,
    beta: Tensor,
    mean: Var,
    variance: Var,
}

/// What a batch becomes, with its mean and biased variance.
type Normalised = (Tensor, [Tensor; 2]);

impl BatchNorm {
    /// Of `width` columns, initially the identity on standardised columns.
    ///
    /// # Errors
    /// If a weight cannot be made.
    pub fn new(weights: &mut Weights, name: &str, width: usize) -> Result<Self> {
        let device = weights.device().clone();
        let filled = |value: f32| -> Result<Tensor> { Ok(Tensor::full(value, width, &device)?) };
        Ok(Self {
            gamma: weights.insert(&format!("{name}.gamma"), filled(1.0)?)?,
            beta: weights.insert(&format!("{name}.beta"), filled(0.0)?)?,
            mean: weights.state(&format!("{name}.running_mean"), filled(0.0)?)?,
            variance: weights.state(&format!("{name}.running_variance"), filled(1.0)?)?,
        })
    }

    /// `[n, width]` to the same; in training it also moves the running moments.
    ///
    /// # Errors
    /// A training batch of one row, which has no variance.
    pub fn forward(&self, x: &Tensor, training: bool) -> Result<Tensor> {
        self.of_real(x, None, training)
    }

    /// [`BatchNorm::forward`] where only some rows are real: `real [n]`, u8, is 0 at the others, which take no part in the batch's
    /// moments and come out without meaning; they must be finite.
    ///
    /// # Errors
    /// A training batch of fewer than two real rows.
    pub fn of_real(&self, x: &Tensor, real: Option<&Tensor>, training: bool) -> Result<Tensor> {
        if !training {
            return self.scaled(x, [&self.mean.as_detached_tensor(), &self.variance.as_detached_tensor()]);
        }
        let marks = real.map(|real| real.to_device(&Device::Cpu)?.to_vec1::<u8>()).transpose()?;
        let n = marks.as_ref().map_or(x.dim(0)?, |marks| marks.iter().filter(|&&mark| mark != 0).count());
        if n < 2 {
            return Err(Error::Numeric(format!(
                "batch normalisation: expected at least 2 rows in a training batch, found {n}; raise `batch` or set `hidden = 0`"
            )));
        }
        let (y, [mean, variance]) =
            if x.device().is_cpu() { self.fused(x, marks, n)? } else { self.composed(x, real, n)? };
        let blend = |running: &Var, batch: Tensor| -> Result<()> {
            Ok(running.set(&((running.as_detached_tensor() * (1.0 - MOMENTUM))? + (batch * MOMENTUM)?)?)?)
        };
        blend(&self.mean, mean.detach())?;
        blend(&self.variance, (variance.detach() * (n as f64 / (n as f64 - 1.0)))?)?;
        Ok(y)
    }

    /// Equation (1) under moments that are given.
    fn scaled(&self, x: &Tensor, [mean, variance]: [&Tensor; 2]) -> Result<Tensor> {
        let h = x.broadcast_sub(mean)?.broadcast_div(&(variance + EPSILON)?.sqrt()?)?;
        Ok(h.broadcast_mul(&self.gamma)?.broadcast_add(&self.beta)?)
    }

    /// Equation (1) of tensor operations, for other devices.
    fn composed(&self, x: &Tensor, real: Option<&Tensor>, n: usize) -> Result<Normalised> {
        let real = real.map(|real| real.to_dtype(x.dtype())?.unsqueeze(1)).transpose()?;
        let moment = |x: Tensor| -> Result<Tensor> {
            Ok(match &real {
                Some(real) => (x.broadcast_mul(real)?.sum(0)? / n as f64)?,
                None => x.mean(0)?,
            })
        };
        let mean = moment(x.clone())?;
        let variance = moment(x.broadcast_sub(&mean)?.sqr()?)?;
        Ok((self.scaled(x, [&mean, &variance])?, [mean, variance]))
    }

    fn fused(&self, x: &Tensor, real: Option<Vec<u8>>, n: usize) -> Result<Normalised> {
        let x = x.contiguous()?;
        let (op, variance) = Op::of_batch(&x, real, n)?;
        let tensor = |values: &[f64]| Tensor::new(values, &Device::Cpu)?.to_dtype(x.dtype());
        let moments = [tensor(&op.mean)?, tensor(&variance)?];
        Ok((x.apply_op3(&self.gamma, &self.beta, op)?, moments))
    }
}

/// Equation (1) with the moments of a batch.
struct Op {
    /// Not 0 where a row is real; all are if absent.
    real: Option<Vec<u8>>,
    /// Real rows.
    n: usize,
    /// Of each column.
    mean: Vec<f64>,
    r: Vec<f64>,
}

impl Op {
    fn is_real(&self, row: usize) -> bool {
        self.real.as_ref().is_none_or(|real| real[row] != 0)
    }

    /// With the moments of the real rows; also their biased variance.
    fn of_batch(x: &Tensor, real: Option<Vec<u8>>, n: usize) -> candle_core::Result<(Self, Vec<f64>)> {
        let width = x.dim(1)?;
        let mut op = Self { real, n, mean: Vec::new(), r: Vec::new() };
        let variance = dispatch!(x.dtype(), T => {
            with::<T, _>(x, |x| {
                op.mean = op.moment(x, width, |_, x| x.to_f64());
                Ok(op.moment(x, width, |j, x| (x.to_f64() - op.mean[j]).powi(2)))
            })?
        });
        op.r = variance.iter().map(|variance| 1.0 / (variance + EPSILON).sqrt()).collect();
        Ok((op, variance))
    }

    /// The mean over real rows of what `of` makes of each value and its column.
    fn moment<T: Real>(&self, x: &[T], width: usize, of: impl Fn(usize, T) -> f64 + Sync) -> Vec<f64> {
        let [sums] = sums(x.len() / width, width, |i, [sums]: [&mut [f64]; 1]| {
            if self.is_real(i) {
                let row = &x[i * width..(i + 1) * width];
                sums.iter_mut().zip(row).enumerate().for_each(|(j, (sum, &x))| *sum += of(j, x));
            }
        });
        sums.into_iter().map(|sum| sum / self.n as f64).collect()
    }

    /// Means and `r` in the precision of the values.
    fn narrow<T: Real>(&self) -> [Vec<T>; 2] {
        [&self.mean, &self.r].map(|values| values.iter().map(|&value| T::from_f64(value)).collect())
    }

    fn forward<T: Real>(&self, x: &[T], gamma: &[T], beta: &[T]) -> Vec<T> {
        let (width, [mean, r]) = (gamma.len(), self.narrow::<T>());
        let mut y = vec![T::ZERO; x.len()];
        y.par_chunks_mut(width).zip(x.par_chunks(width)).for_each(|(y, x)| {
            for j in 0..width {
                y[j] = (x[j] - mean[j]) * r[j] * gamma[j] + beta[j];
            }
        });
        y
    }

    /// Gradients of the values, of `gamma` and of `beta`.
    fn backward<T: Real>(&self, x: &[T], gamma: &[T], grad: &[T]) -> [Vec<T>; 3] {
        let (width, [mean, r]) = (gamma.len(), self.narrow::<T>());
        let [dgamma, dbeta] = sums(x.len() / width, width, |i, [dgamma, dbeta]: [&mut [f64]; 2]| {
            let (x, grad) = (&x[i * width..][..width], &grad[i * width..][..width]);
            for j in 0..width {
                let g = grad[j].to_f64();
                dgamma[j] += g * ((x[j] - mean[j]) * r[j]).to_f64();
                dbeta[j] += g;
            }
        });
        let narrow = |values: Vec<f64>| -> Vec<T> { values.into_iter().map(T::from_f64).collect() };
        let shares = [&dbeta, &dgamma].map(|sums| narrow(sums.iter().map(|sum| sum / self.n as f64).collect()));
        let outer: Vec<T> = gamma.iter().zip(&r).map(|(&gamma, &r)| gamma * r).collect();
        let mut dx = vec![T::ZERO; x.len()];
        dx.par_chunks_mut(width).enumerate().for_each(|(i, dx)| {
            let (x, grad) = (&x[i * width..][..width], &grad[i * width..][..width]);
            let u = if self.is_real(i) { T::ONE } else { T::ZERO };
            for j in 0..width {
                let h = (x[j] - mean[j]) * r[j];
                dx[j] = outer[j] * (grad[j] - u * (shares[0][j] + h * shares[1][j]));
            }
        });
        [dx, narrow(dgamma), narrow(dbeta)]
    }
}

/// Sums over rows that `add` makes of each, `N` a column.
fn sums<const N: usize>(rows: usize, width: usize, add: impl Fn(usize, [&mut [f64]; N]) + Sync) -> [Vec<f64>; N] {
    let blocks = (0..rows.div_ceil(ROWS)).into_par_iter().map(|block| {
        let mut sums = [(); N].map(|()| vec![0f64; width]);
        for row in block * ROWS..rows.min((block + 1) * ROWS) {
            add(row, sums.each_mut().map(Vec::as_mut_slice));
        }
        sums
    });
    let mut total = [(); N].map(|()| vec![0f64; width]);
    for sums in blocks.collect::<Vec<_>>() {
        for (total, sum) in total.iter_mut().flatten().zip(sums.iter().flatten()) {
            *total += sum;
        }
    }
    total
}

impl CustomOp3 for Op {
    fn name(&self) -> &'static str {
        "batch normalisation"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        gamma: &CpuStorage,
        gamma_layout: &Layout,
        beta: &CpuStorage,
        beta_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (rows, width) = x_layout.shape().dims2()?;
        if [gamma_layout.dims(), beta_layout.dims(), &[self.mean.len()]] != [&[width]; 3] {
            candle_core::bail!(
                "batch normalisation: expected rows [{rows}, {width}] and two gains [{width}], found {:?} and {:?}",
                gamma_layout.dims(),
                beta_layout.dims()
            );
        }
        let y = together!(
            "batch normalisation",
            |x, gamma, beta| self.forward(x, gamma, beta),
            (x, x_layout),
            (gamma, gamma_layout),
            (beta, beta_layout)
        );
        Ok((y, x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        gamma: &Tensor,
        beta: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        dispatch!(grad.dtype(), T => {
            let [dx, dgamma, dbeta] = with::<T, _>(x, |x| with::<T, _>(gamma, |gamma| {
                with::<T, _>(&grad, |grad| Ok(self.backward(x, gamma, grad)))
            }))?;
            let tensor = |values: Vec<T>, like: &Tensor| Tensor::from_vec(values, like.shape(), &Device::Cpu);
            Ok((Some(tensor(dx, x)?), Some(tensor(dgamma, gamma)?), Some(tensor(dbeta, beta)?)))
        })
    }
}

/// Drops each value with probability `share` and scales the rest by `1 / (1 - share)`.
///
/// # Errors
/// If a tensor operation fails.
pub fn dropout(x: &Tensor, share: f64, stream: &mut Stream) -> Result<Tensor> {
    let keep = (1.0 / (1.0 - share)) as f32;
    let mask: Vec<f32> = (0..x.elem_count()).map(|_| if stream.unit() < share { 0.0 } else { keep }).collect();
    let mask = Tensor::from_vec(mask, x.shape(), &Device::Cpu)?.to_device(x.device())?.to_dtype(x.dtype())?;
    Ok((x * mask)?)
}

#[cfg(test)]
mod tests {
    use candle_core::DType;
    use xmbench_datasets::random::Seed;

    use super::*;

    #[test]
    fn columns_are_standardised_by_the_batch_and_then_by_the_running_moments() {
        let mut weights = Weights::new(Seed(1), &Device::Cpu);
        let norm = BatchNorm::new(&mut weights, "norm", 2).unwrap();
        let x = Tensor::new(&[[1f32, 10.0], [3.0, 10.0]], &Device::Cpu).unwrap();
        let y = norm.forward(&x, true).unwrap().to_vec2::<f32>().unwrap();
        // Mean 2, biased variance 1; a constant column becomes beta.
        assert!((y[0][0] + 1.0).abs() < 1e-5 && (y[1][0] - 1.0).abs() < 1e-5 && y[0][1] == 0.0, "{y:?}");
        // Running mean 0.2 and 1.0; unbiased variance 2 and 0: 0.9 + 0.2 and 0.9.
        let y = norm.forward(&x, false).unwrap().to_vec2::<f32>().unwrap();
        assert!((y[0][0] - 0.8 / 1.10001f32.sqrt()).abs() < 1e-6, "{y:?}");
        assert!((y[0][1] - 9.0 / 0.90001f32.sqrt()).abs() < 1e-5, "{y:?}");
        assert!(norm.forward(&x.narrow(0, 0, 1).unwrap(), true).is_err());
        let grads = norm.forward(&x, true).unwrap().sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let moved: Vec<&str> =
            weights.iter().filter(|(_, var)| grads.get(var).is_some()).map(|(name, _)| name).collect();
        assert_eq!(moved, ["norm.beta", "norm.gamma"]);
    }

    #[test]
    fn rows_that_are_not_real_change_nothing() {
        let two = || BatchNorm::new(&mut Weights::new(Seed(1), &Device::Cpu), "norm", 2).unwrap();
        let (packed, padded) = (two(), two());
        let x = Tensor::new(&[[1f32, 10.0], [3.0, 20.0], [7.0, -30.0]], &Device::Cpu).unwrap();
        let wide = Tensor::new(&[[1f32, 10.0], [99.0, 99.0], [3.0, 20.0], [7.0, -30.0]], &Device::Cpu).unwrap();
        let real = Tensor::new(&[1u8, 0, 1, 1], &Device::Cpu).unwrap();
        for training in [true, false] {
            let expected = packed.forward(&x, training).unwrap().to_vec2::<f32>().unwrap();
            let found = padded.of_real(&wide, Some(&real), training).unwrap().to_vec2::<f32>().unwrap();
            for (expected, found) in expected.iter().zip([&found[0], &found[2], &found[3]]) {
                let apart = expected.iter().zip(found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(apart < 1e-5, "{expected:?} {found:?}");
            }
        }
        let one = Tensor::new(&[0u8, 0, 1, 0], &Device::Cpu).unwrap();
        assert!(padded.of_real(&wide, Some(&one), true).is_err());
    }

    /// Values and gradients of both ways to compute it, in f64, of 150 rows (three tasks) with unequal gradients.
    #[test]
    fn the_fused_form_is_the_composed_one() {
        let mut stream = Seed(5).stream(&["x"]);
        let mut random = |shape: &[usize]| {
            let values: Vec<f64> = (0..shape.iter().product()).map(|_| 1.0 + 2.0 * stream.normal()).collect();
            Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu).unwrap()).unwrap()
        };
        let (x, weight) = (random(&[150, 3]), random(&[150, 3]));
        let state = || Var::zeros(3, DType::F64, &Device::Cpu).unwrap();
        let (gamma, beta) = (random(&[3]), random(&[3]));
        let norm = BatchNorm {
            gamma: gamma.as_tensor().clone(),
            beta: beta.as_tensor().clone(),
            mean: state(),
            variance: state(),
        };
        let marks: Vec<u8> = (0..150).map(|i| u8::from(i % 5 != 1)).collect();
        let real = Tensor::new(marks.as_slice(), &Device::Cpu).unwrap();
        for (marks, real, n) in [(None, None, 150), (Some(marks), Some(&real), 120)] {
            let found = norm.fused(&x, marks, n).unwrap();
            let expected = norm.composed(&x, real, n).unwrap();
            let all = |(y, [mean, variance]): Normalised| {
                let grads = (&y * weight.as_tensor()).unwrap().sum_all().unwrap().backward().unwrap();
                let grads = [&x, &gamma, &beta].map(|var| grads.get(var).expect("a gradient").clone());
                [vec![y, mean, variance], grads.to_vec()].concat()
            };
            for (found, expected) in all(found).into_iter().zip(all(expected)) {
                let apart = (found - expected).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
                assert!(apart < 1e-10, "{apart} with {n} real rows");
            }
        }
    }

    #[test]
    fn dropout_keeps_the_mean() {
        let x = Tensor::ones(10_000, DType::F32, &Device::Cpu).unwrap();
        let y = dropout(&x, 0.25, &mut Seed(1).stream(&["x"])).unwrap().to_vec1::<f32>().unwrap();
        let zeros = y.iter().filter(|value| **value == 0.0).count();
        assert!(
            (2300..2700).contains(&zeros) && y.iter().all(|value| *value == 0.0 || (value - 4.0 / 3.0).abs() < 1e-6)
        );
    }
}
