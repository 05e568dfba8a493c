use candle_core::{DType, Device, Tensor, Var};
use xmbench_datasets::random::Stream;

use super::Weights;
use crate::{Error, Result};

const EPSILON: f64 = 1e-5;
/// Share of a batch in the running moments.
const MOMENTUM: f64 = 0.1;

/// Batch normalisation of columns (Ioffe and Szegedy 2015) in PyTorch's convention: `y = gamma (x - mean) / sqrt(var + 1e-5) + beta`
/// with the batch's mean and biased variance in training, running ones afterwards. Weights `NAME.gamma`, `NAME.beta`; the state
/// `NAME.running_mean`, `NAME.running_variance` is kept beside them and no gradient moves it.
pub struct BatchNorm {
    gamma: Tensor,
    beta: Tensor,
    mean: Var,
    variance: Var,
}

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
        let (mean, variance) = if training {
            let real = real.map(|real| real.to_dtype(x.dtype())?.unsqueeze(1)).transpose()?;
            let n = match &real {
                Some(real) => real.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()? as usize,
                None => x.dim(0)?,
            };
            if n < 2 {
                return Err(Error::Numeric(
                    "batch normalisation: expected at least 2 rows in a training batch, found 1; raise `batch` or set `hidden = 0`".into(),
                ));
            }
            let moment = |x: Tensor| -> Result<Tensor> {
                Ok(match &real {
                    Some(real) => (x.broadcast_mul(real)?.sum(0)? / n as f64)?,
                    None => x.mean(0)?,
                })
            };
            let mean = moment(x.clone())?;
            let variance = moment(x.broadcast_sub(&mean)?.sqr()?)?;
            let blend = |running: &Var, batch: Tensor| -> Result<()> {
                Ok(running.set(&((running.as_detached_tensor() * (1.0 - MOMENTUM))? + (batch * MOMENTUM)?)?)?)
            };
            blend(&self.mean, mean.detach())?;
            blend(&self.variance, (variance.detach() * (n as f64 / (n as f64 - 1.0)))?)?;
            (mean, variance)
        } else {
            (self.mean.as_detached_tensor(), self.variance.as_detached_tensor())
        };
        let scaled = x.broadcast_sub(&mean)?.broadcast_div(&(variance + EPSILON)?.sqrt()?)?;
        Ok(scaled.broadcast_mul(&self.gamma)?.broadcast_add(&self.beta)?)
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
