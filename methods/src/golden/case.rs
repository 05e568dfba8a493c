use std::{collections::BTreeMap, path::Path};

use safetensors::{Dtype, SafeTensors};
use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// A tensor of a golden file, widened to f64.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Shape.
    pub shape: Vec<usize>,
    /// Row-major values; integers up to 2^53 are exact.
    pub data: Vec<f64>,
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
}

impl Array {
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

    /// The values as a tensor on the CPU.
    ///
    /// # Errors
    /// If the shape does not fit.
    pub fn tensor(&self, dtype: candle_core::DType) -> Result<candle_core::Tensor> {
        Ok(candle_core::Tensor::from_slice(&self.data, self.shape.as_slice(), &candle_core::Device::Cpu)?
            .to_dtype(dtype)?)
    }
}

impl Case {
    /// Reads a golden file.
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
        let mut tensors = BTreeMap::new();
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
            tensors.insert(name.to_string(), Array { shape: view.shape().to_vec(), data });
        }
        let config = match meta.get("config") {
            Some(text) => serde_json::from_str(text).map_err(|e| wrong("JSON as `config`", e.to_string()))?,
            None => serde_json::Value::Object(serde_json::Map::new()),
        };
        let (op, rtol, atol) = (entry("op")?, number("rtol")?, number("atol")?);
        Ok(Self { file, op, config, rtol, atol, tensors })
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
