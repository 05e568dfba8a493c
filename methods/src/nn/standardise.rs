use candle_core::{Device, Tensor};
use xmbench_datasets::Matrix;

use super::{Moments, Weights};
use crate::{Error, Result, linalg::store::Store};

/// `(x - mean) * scale` with one mean a column and one scale for all of them, fixed before training: no gradient moves it.
#[derive(Debug, Clone)]
pub struct Standardise {
    /// `[width]`.
    mean: Tensor,
    /// `[1]`.
    scale: Tensor,
}

impl Standardise {
    /// By the mean of `moments` and one over their spread; without moments, what leaves vectors of `width` values as they are.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn new(width: usize, moments: Option<&Moments>, device: &Device) -> Result<Self> {
        let (mean, scale) = match moments {
            Some(moments) => (moments.mean.clone(), (1.0 / moments.spread) as f32),
            None => (vec![0.0; width], 1.0),
        };
        Ok(Self { mean: Tensor::from_vec(mean, width, device)?, scale: Tensor::new(&[scale], device)? })
    }

    /// The same as weights `NAME.mean` and `NAME.scale`: part of the model's state. Frozen weights take their own values.
    ///
    /// # Errors
    /// If a weight cannot be made.
    pub fn in_weights(weights: &mut Weights, name: &str, width: usize, moments: Option<&Moments>) -> Result<Self> {
        let Self { mean, scale } = Self::new(width, moments, &weights.device().clone())?;
        let mean = weights.insert(&format!("{name}.mean"), mean)?.detach();
        let scale = weights.insert(&format!("{name}.scale"), scale)?.detach();
        Ok(Self { mean, scale })
    }

    /// Length of the vectors.
    pub fn width(&self) -> usize {
        self.mean.elem_count()
    }

    /// Where it lives.
    pub fn device(&self) -> &Device {
        self.mean.device()
    }

    /// `[.., width]` to the same.
    ///
    /// # Errors
    /// If the last dimension is not `width`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.broadcast_sub(&self.mean)?.broadcast_mul(&self.scale)?)
    }

    /// The same of rows `[n, width]`, to the same bits. `method` is named in the error.
    ///
    /// # Errors
    /// Rows of another width.
    pub fn rows(&self, method: &str, mut rows: Matrix) -> Result<Matrix> {
        if rows.cols != self.width() {
            return Err(Error::Numeric(format!(
                "{method}: expected vectors of {} values as in training, found {}",
                self.width(),
                rows.cols
            )));
        }
        let (mean, scale) = self.values()?;
        for i in 0..rows.rows {
            rows.row_mut(i).iter_mut().zip(&mean).for_each(|(value, mean)| *value = (*value - mean) * scale);
        }
        Ok(rows)
    }

    fn values(&self) -> Result<(Vec<f32>, f32)> {
        Ok((self.mean.to_vec1()?, self.scale.squeeze(0)?.to_scalar()?))
    }

    /// Adds `VIEW.mean` and `VIEW.scale`.
    ///
    /// # Errors
    /// If the values cannot be read.
    pub fn save(&self, store: Store, view: &str) -> Result<Store> {
        let (mean, scale) = self.values()?;
        let mean: Vec<f64> = mean.into_iter().map(f64::from).collect();
        Ok(store.with_vector(&format!("{view}.mean"), &mean).with_vector(&format!("{view}.scale"), &[f64::from(scale)]))
    }

    /// Reads what [`Standardise::save`] added.
    ///
    /// # Errors
    /// If it is not there.
    pub fn load(store: &Store, view: &str, device: &Device) -> Result<Self> {
        let read = |name: &str| -> Result<Tensor> {
            let values: Vec<f32> = store.vector(name)?.into_iter().map(|value| value as f32).collect();
            let n = values.len();
            Ok(Tensor::from_vec(values, n, device)?)
        };
        let name = format!("{view}.scale");
        let scale = read(&name)?;
        store.expect(&name, "value", 1, scale.elem_count())?;
        Ok(Self { mean: read(&format!("{view}.mean"))?, scale })
    }
}

#[cfg(test)]
mod tests {
    use xmbench_datasets::random::Seed;

    use super::*;

    fn moments() -> Moments {
        Moments { mean: vec![1.0, -0.3, 0.7], spread: 4.0 }
    }

    #[test]
    fn rows_and_tensors_get_the_same_bits() {
        let given = Standardise::new(3, Some(&moments()), &Device::Cpu).unwrap();
        let rows = Matrix { rows: 2, cols: 3, data: vec![5.0, 0.7, 0.7, -7.0, 0.1, 0.2] };
        let x = Tensor::from_slice(&rows.data, (2, 3), &Device::Cpu).unwrap();
        let found = given.rows("m", rows.clone()).unwrap();
        assert_eq!((found.row(0)[0], found.row(1)[0], found.row(0)[2]), (1.0, -2.0, 0.0));
        assert!((found.row(0)[1] - 0.25).abs() < 1e-7);
        assert_eq!(given.forward(&x).unwrap().to_vec2::<f32>().unwrap().concat(), found.data);
        let none = Standardise::new(3, None, &Device::Cpu).unwrap();
        assert_eq!(none.rows("m", rows.clone()).unwrap(), rows);
        let error = none.rows("m", Matrix::zeros(1, 2)).unwrap_err().to_string();
        assert!(error.contains("m: expected vectors of 3 values as in training, found 2"), "{error}");
    }

    #[test]
    fn files_and_frozen_weights_keep_it_and_no_gradient_moves_it() {
        let mut weights = Weights::new(Seed(1), &Device::Cpu);
        let given = Standardise::in_weights(&mut weights, "image", 3, Some(&moments())).unwrap();
        let x = candle_core::Var::new(&[[1f32, 2.0, 3.0]], &Device::Cpu).unwrap();
        let grads = given.forward(&x).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(weights.iter().all(|(_, var)| grads.get(var).is_none()));
        let values = |other: &Standardise| other.values().unwrap();
        let mut frozen = Weights::frozen(weights.snapshot().unwrap(), "here", &Device::Cpu);
        let loaded = Standardise::in_weights(&mut frozen, "image", 3, None).unwrap();
        assert_eq!(values(&loaded), values(&given));
        let store = given.save(Store::default(), "image").unwrap();
        assert_eq!(values(&Standardise::load(&store, "image", &Device::Cpu).unwrap()), values(&given));
        let error = Standardise::load(&store.with_vector("image.scale", &[1.0, 2.0]), "image", &Device::Cpu);
        assert!(error.unwrap_err().to_string().contains("`image.scale` with 1 value"));
    }
}
