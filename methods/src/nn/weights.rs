use std::{collections::BTreeMap, path::Path};

use candle_core::{DType, Device, Tensor, Var};
use xmbench_datasets::random::Seed;

use crate::{Error, Result};

/// The trainable tensors of a model, by name; matrices are stored `[in, out]`.
pub struct Weights {
    vars: BTreeMap<String, Var>,
    seed: Seed,
    device: Device,
}

impl Weights {
    /// No weights yet; initial values are drawn from `seed`, one stream a name.
    pub fn new(seed: Seed, device: &Device) -> Self {
        Self { vars: BTreeMap::new(), seed, device: device.clone() }
    }

    /// Where the weights live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Adds a tensor with values uniform in `[-bound, bound)`.
    ///
    /// # Errors
    /// If the tensor cannot be made.
    pub fn uniform(&mut self, name: &str, shape: &[usize], bound: f64) -> Result<Tensor> {
        let mut stream = self.seed.stream(&["init", name]);
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| stream.uniform(-bound, bound) as f32).collect();
        self.insert(name, Tensor::from_vec(values, shape, &self.device)?)
    }

    /// Adds a tensor of zeros.
    ///
    /// # Errors
    /// If the tensor cannot be made.
    pub fn zeros(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.insert(name, Tensor::zeros(shape, DType::F32, &self.device)?)
    }

    /// Adds a tensor of given values.
    ///
    /// # Errors
    /// If the tensor cannot be made.
    pub fn insert(&mut self, name: &str, value: Tensor) -> Result<Tensor> {
        let var = Var::from_tensor(&value)?;
        let tensor = var.as_tensor().clone();
        self.vars.insert(name.into(), var);
        Ok(tensor)
    }

    /// Every weight by name, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.vars.iter().map(|(name, var)| (name.as_str(), var))
    }

    /// A copy that later steps do not change.
    ///
    /// # Errors
    /// If a tensor cannot be copied.
    pub fn snapshot(&self) -> Result<BTreeMap<String, Tensor>> {
        self.vars.iter().map(|(name, var)| Ok((name.clone(), var.as_tensor().copy()?))).collect()
    }

    /// Takes the values of a snapshot.
    ///
    /// # Errors
    /// If a weight is absent or has another shape.
    pub fn restore(&self, values: &BTreeMap<String, Tensor>) -> Result<()> {
        for (name, var) in &self.vars {
            let value = values.get(name).ok_or_else(|| Error::Format {
                file: "saved weights".into(),
                expected: format!("a tensor `{name}`"),
                found: values.keys().cloned().collect::<Vec<_>>().join(", "),
            })?;
            var.set(&value.to_device(&self.device)?)?;
        }
        Ok(())
    }

    /// Writes every weight as safetensors.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let tensors: std::collections::HashMap<String, Tensor> = self.snapshot()?.into_iter().collect();
        Ok(candle_core::safetensors::save(&tensors, path)?)
    }

    /// Takes the values of a file that [`Weights::save`] wrote.
    ///
    /// # Errors
    /// If the file is malformed or a weight is absent.
    pub fn read(&self, path: &Path) -> Result<()> {
        self.restore(&candle_core::safetensors::load(path, &self.device)?.into_iter().collect())
    }
}
