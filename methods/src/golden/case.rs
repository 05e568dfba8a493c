use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, SafeTensors};
use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// A tensor of a golden file, widened to f64.
#[derive(Debug, Clone)]
pub struct Array {
    /// Shape.
    pub shape: Vec<usize>,
    /// Row-major values; integers up to 2^53 are exact.
    pub data: Vec<f64>,
    place: Place,
}

/// Where the tensors of a case are put, and whether an operation asked.
#[derive(Debug, Clone)]
struct Place {
    device: Device,
    asked: Arc<AtomicBool>,
}

impl Place {
    fn new(device: &Device) -> Self {
        Self { device: device.clone(), asked: Arc::default() }
    }

    fn device(&self) -> &Device {
        self.asked.store(true, Ordering::Relaxed);
        &self.device
    }
}

/// A golden file: tensors by name, an operation, its configuration and its tolerance.
#[derive(Debug, Clone)]
pub struct Case {
    /// File name.
    pub file: String,
    /// Operation.
    pub op: String,
    /// Configuration, as JSON.
    pub config: serde_json::Value,
    /// Relative tolerance.
    pub rtol: f64,
    /// Absolute tolerance.
    pub atol: f64,
    /// Everything under `in.`, `param.`, `out.` and `grad.`.
    pub tensors: BTreeMap<String, Array>,
    place: Place,
}

impl Array {
    /// Values in a shape, on the CPU.
    pub fn new(shape: Vec<usize>, data: Vec<f64>) -> Self {
        Self { shape, data, place: Place::new(&Device::Cpu) }
    }

    /// The values as f32.
    pub fn f32(&self) -> Vec<f32> {
        self.data.iter().map(|&x| x as f32).collect()
    }

    /// The values as indices.
    pub fn indices(&self) -> Vec<usize> {
        self.data.iter().map(|&x| x as usize).collect()
    }

    /// The values as a matrix of f32 `[shape[0], rest]`.
    pub fn matrix(&self) -> xmbench_datasets::Matrix {
        let rows = self.shape.first().copied().unwrap_or(1);
        xmbench_datasets::Matrix { rows, cols: self.data.len() / rows.max(1), data: self.f32() }
    }

    /// The values as a tensor on the device of the case.
    ///
    /// # Errors
    /// If the shape does not fit, or the device has no room.
    pub fn tensor(&self, dtype: DType) -> Result<Tensor> {
        // Rounded here, so that every device starts from the same bits.
        let here = Tensor::from_slice(&self.data, self.shape.as_slice(), &Device::Cpu)?.to_dtype(dtype)?;
        Ok(here.to_device(self.place.device())?)
    }
}

impl Case {
    /// A case of an operation with its tensors, without configuration or tolerance, on the CPU.
    pub fn new(file: &str, op: &str, tensors: impl IntoIterator<Item = (String, Array)>) -> Self {
        Self {
            file: file.into(),
            op: op.into(),
            config: serde_json::Value::Object(serde_json::Map::new()),
            rtol: 0.0,
            atol: 0.0,
            tensors: BTreeMap::new(),
            place: Place::new(&Device::Cpu),
        }
        .holding(tensors)
    }

    fn holding(mut self, tensors: impl IntoIterator<Item = (String, Array)>) -> Self {
        let place = &self.place;
        let placed = tensors.into_iter().map(|(name, array)| (name, Array { place: place.clone(), ..array }));
        self.tensors = placed.collect();
        self
    }

    /// The case with the tensors that its operation makes on a device.
    #[must_use]
    pub fn on(mut self, device: &Device) -> Self {
        self.place = Place::new(device);
        let tensors = std::mem::take(&mut self.tensors);
        self.holding(tensors)
    }

    /// The device that tensors are put on.
    pub fn device(&self) -> &Device {
        self.place.device()
    }

    /// Whether the operation put a tensor on the device; one that works on plain numbers (the metrics, the closed forms in f64)
    /// runs on the processor wherever the case is.
    pub fn placed(&self) -> bool {
        self.place.asked.load(Ordering::Relaxed)
    }

    /// Reads a golden file; its tensors are put on the CPU until [`Case::on`] says otherwise.
    ///
    /// # Errors
    /// A file that is not safetensors, lacks `op`, or holds a tensor of an undocumented type.
    pub fn read(path: &Path) -> Result<Self> {
        let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let wrong =
            |expected: &str, found: String| Error::Format { file: file.clone(), expected: expected.into(), found };
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| wrong("a safetensors file", e.to_string()))?;
        let parsed = SafeTensors::deserialize(&bytes).map_err(|e| wrong("a safetensors file", e.to_string()))?;
        let meta = header.metadata().clone().unwrap_or_default();
        let entry =
            |key: &str| meta.get(key).cloned().ok_or_else(|| wrong(&format!("metadata `{key}`"), "none".into()));
        let number = |key: &str| {
            entry(key).and_then(|text| text.parse().map_err(|_| wrong(&format!("a number as `{key}`"), text.clone())))
        };
        let mut tensors = Vec::new();
        for (name, view) in parsed.iter() {
            let bytes = view.data();
            let data = match view.dtype() {
                Dtype::F64 => {
                    bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().expect("8 bytes"))).collect()
                }
                Dtype::F32 => bytes
                    .chunks_exact(4)
                    .map(|b| f64::from(f32::from_le_bytes(b.try_into().expect("4 bytes"))))
                    .collect(),
                Dtype::I64 => {
                    bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().expect("8 bytes")) as f64).collect()
                }
                Dtype::I32 => bytes
                    .chunks_exact(4)
                    .map(|b| f64::from(i32::from_le_bytes(b.try_into().expect("4 bytes"))))
                    .collect(),
                Dtype::U8 | Dtype::BOOL => bytes.iter().map(|&b| f64::from(b)).collect(),
                other => {
                    return Err(wrong(
                        &format!("`{name}` of type f32, f64, i32, i64, u8 or bool"),
                        format!("{other:?}"),
                    ));
                }
            };
            tensors.push((name.to_string(), Array::new(view.shape().to_vec(), data)));
        }
        let config = match meta.get("config") {
            Some(text) => serde_json::from_str(text).map_err(|e| wrong("JSON as `config`", e.to_string()))?,
            None => serde_json::Value::Object(serde_json::Map::new()),
        };
        let (op, rtol, atol) = (entry("op")?, number("rtol")?, number("atol")?);
        Ok(Self { config, rtol, atol, ..Self::new(&file, &op, tensors) })
    }

    /// Whether the file has a tensor.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A tensor by name.
    ///
    /// # Errors
    /// If it is absent.
    pub fn get(&self, name: &str) -> Result<&Array> {
        self.tensors.get(name).ok_or_else(|| Error::Format {
            file: self.file.clone(),
            expected: format!("a tensor `{name}`"),
            found: self.tensors.keys().cloned().collect::<Vec<_>>().join(", "),
        })
    }

    /// A configuration entry.
    ///
    /// # Errors
    /// If it is absent or of another type.
    pub fn config<T: DeserializeOwned>(&self, key: &str) -> Result<T> {
        serde_json::from_value(self.config[key].clone()).map_err(|error| Error::Format {
            file: self.file.clone(),
            expected: format!("configuration key `{key}`"),
            found: format!("{} ({error})", self.config[key]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_that_makes_no_tensor_was_nowhere() {
        let case = Case::new("f", "o", [("in.x".to_string(), Array::new(vec![2], vec![0.1, 2.0]))]);
        assert_eq!(case.get("in.x").unwrap().data, [0.1, 2.0]);
        assert!(!case.placed());
        let tensor = case.get("in.x").unwrap().tensor(DType::F32).unwrap();
        assert_eq!(tensor.to_vec1::<f32>().unwrap(), [0.1, 2.0]);
        assert!(case.placed());
        // Anew on another device, nothing was put there yet.
        let moved = case.on(&Device::Cpu);
        assert!(!moved.placed());
        assert!(moved.device().is_cpu() && moved.placed());
    }
}
