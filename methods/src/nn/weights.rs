use std::{collections::BTreeMap, path::Path};

use candle_core::{DType, Device, Tensor, Var};
use xmbench_datasets::random::Seed;

use crate::{Error, Result, train::memory};

/// How often a training holds each weight, at least: itself, its gradient, the best so far, and the copy that is judged. Adam's two
/// moments come on top.
const COPIES: u64 = 4;

/// The tensors of a model, by name; matrices are stored `[in, out]`.
///
/// A model's layers are made by one constructor that asks for each weight by name. Given [`Weights::new`] it draws initial
/// values and training moves them; given [`Weights::frozen`] it takes the values of a snapshot or a file, without gradients.
pub struct Weights {
    vars: BTreeMap<String, Var>,
    origin: Origin,
    device: Device,
    /// Bytes of all that were drawn.
    bytes: u64,
}

/// Where the values of a weight come from when a layer asks for it.
enum Origin {
    Drawn(Seed),
    Frozen { values: BTreeMap<String, Tensor>, file: String },
}

impl Weights {
    /// No weights yet; initial values are drawn from `seed`, one stream a name.
    pub fn new(seed: Seed, device: &Device) -> Self {
        Self { vars: BTreeMap::new(), origin: Origin::Drawn(seed), device: device.clone(), bytes: 0 }
    }

    /// Fixed values, such as a [`Weights::snapshot`]; layers get plain tensors through which no graph is recorded. A weight
    /// that is absent or of another shape is an error when a layer asks for it; `file` is named in that error.
    pub fn frozen(values: BTreeMap<String, Tensor>, file: &str, device: &Device) -> Self {
        Self {
            vars: BTreeMap::new(),
            origin: Origin::Frozen { values, file: file.into() },
            device: device.clone(),
            bytes: 0,
        }
    }

    /// The fixed values of a file that [`Weights::save`] wrote.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn open(path: &Path, device: &Device) -> Result<Self> {
        let values = candle_core::safetensors::load(path, device).map_err(|error| Error::Format {
            file: path.display().to_string(),
            expected: "a safetensors file".into(),
            found: error.to_string(),
        })?;
        Ok(Self::frozen(values.into_iter().collect(), &path.display().to_string(), device))
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
        let Origin::Drawn(seed) = self.origin else { return self.take(name, shape) };
        self.ask(name, shape)?;
        let mut stream = seed.stream(&["init", name]);
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| stream.uniform(-bound, bound) as f32).collect();
        self.insert(name, Tensor::from_vec(values, shape, &self.device)?)
    }

    /// Adds a tensor with normal values of the given standard deviation.
    ///
    /// # Errors
    /// If the tensor cannot be made.
    pub fn normal(&mut self, name: &str, shape: &[usize], deviation: f64) -> Result<Tensor> {
        let Origin::Drawn(seed) = self.origin else { return self.take(name, shape) };
        self.ask(name, shape)?;
        let mut stream = seed.stream(&["init", name]);
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| (deviation * stream.normal()) as f32).collect();
        self.insert(name, Tensor::from_vec(values, shape, &self.device)?)
    }

    /// Refuses a weight that no training could hold together with the others, before any of it is there.
    fn ask(&mut self, name: &str, shape: &[usize]) -> Result<()> {
        let bytes = memory::bytes(shape, 4).and_then(|bytes| self.bytes.checked_add(bytes));
        let what = || format!("weight `{name}` of shape {shape:?}, with the others, gradients and copies");
        memory::ask(what, bytes.and_then(|bytes| bytes.checked_mul(COPIES)))?;
        self.bytes = bytes.unwrap_or(u64::MAX);
        Ok(())
    }

    /// Adds a tensor of zeros.
    ///
    /// # Errors
    /// If the tensor cannot be made.
    pub fn zeros(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        if matches!(self.origin, Origin::Frozen { .. }) {
            return self.take(name, shape);
        }
        self.ask(name, shape)?;
        self.insert(name, Tensor::zeros(shape, DType::F32, &self.device)?)
    }

    /// Adds a tensor of given values; frozen weights take their own value of that name instead.
    ///
    /// # Errors
    /// If the tensor cannot be made.
    pub fn insert(&mut self, name: &str, value: Tensor) -> Result<Tensor> {
        if matches!(self.origin, Origin::Frozen { .. }) {
            return self.take(name, value.dims());
        }
        let var = Var::from_tensor(&value)?;
        let tensor = var.as_tensor().clone();
        self.vars.insert(name.into(), var);
        Ok(tensor)
    }

    /// Adds a tensor that the model itself sets, such as a running mean: part of its state, moved by no gradient as long as it
    /// enters a loss detached only.
    ///
    /// # Errors
    /// If the tensor cannot be made.
    pub fn state(&mut self, name: &str, value: Tensor) -> Result<Var> {
        self.insert(name, value)?;
        Ok(self.vars[name].clone())
    }

    /// The frozen value of a name.
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let Origin::Frozen { values, file } = &self.origin else { unreachable!("only frozen weights are taken") };
        let wrong = |found: String| Error::Format {
            file: file.clone(),
            expected: format!("a tensor `{name}` of shape {shape:?}"),
            found,
        };
        let value = values.get(name).ok_or_else(|| wrong(values.keys().cloned().collect::<Vec<_>>().join(", ")))?;
        if value.dims() != shape {
            return Err(wrong(format!("shape {:?}", value.dims())));
        }
        let var = Var::from_tensor(&value.to_device(&self.device)?)?;
        let tensor = var.as_detached_tensor();
        self.vars.insert(name.into(), var);
        Ok(tensor)
    }

    /// A weight by its name.
    pub fn var(&self, name: &str) -> Option<&Var> {
        self.vars.get(name)
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
            let wrong = |found: String| Error::Format {
                file: "saved weights".into(),
                expected: format!("a tensor `{name}` of shape {:?}", var.dims()),
                found,
            };
            let value = values.get(name).ok_or_else(|| wrong(values.keys().cloned().collect::<Vec<_>>().join(", ")))?;
            if value.dims() != var.dims() {
                return Err(wrong(format!("shape {:?}", value.dims())));
            }
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
        candle_core::safetensors::save(&tensors, path)
            .map_err(|error| Error::Io { path: path.into(), source: std::io::Error::other(error.to_string()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gives_its_weight() {
        let mut weights = Weights::new(Seed(1), &Device::Cpu);
        let tensor = weights.insert("a.b", Tensor::new(&[1f32, 2.0], &Device::Cpu).unwrap()).unwrap();
        let var = weights.var("a.b").unwrap();
        assert!(var.id() == tensor.id() && weights.var("a").is_none());
        var.set(&Tensor::new(&[3f32, 4.0], &Device::Cpu).unwrap()).unwrap();
        assert_eq!(tensor.to_vec1::<f32>().unwrap(), [3.0, 4.0]);
    }

    #[test]
    fn a_weight_that_no_machine_holds_is_refused_before_it_is_drawn() {
        let mut weights = Weights::new(Seed(1), &Device::Cpu);
        let huge = [2048, 1_000_000_000_000];
        // 8 bytes of a thousand million million, four times: 2048 * 10^12 * 4 * 4 / 2^50 = 29.1 PiB.
        let error = weights.uniform("image.weight", &huge, 0.1).unwrap_err().to_string();
        assert!(error.starts_with("weight `image.weight` of shape [2048, 1000000000000]"), "{error}");
        assert!(error.contains("at least 29.1 PiB"), "{error}");
        assert!(weights.normal("a", &huge, 0.1).is_err() && weights.zeros("a", &huge).is_err());
        assert!(weights.zeros("a", &[usize::MAX, usize::MAX]).unwrap_err().to_string().contains("counted"));
        assert!(weights.zeros("a", &[2, 3]).is_ok());
    }
}
