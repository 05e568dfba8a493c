//! Saved f64 tensors: a safetensors file with strings beside the tensors, read back to the same bits.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use faer::{Mat, MatRef};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::{Error, Result};

/// The metadata entry that holds the strings.
const TEXT: &str = "text";

/// Named f64 tensors and strings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Store {
    /// Shape and row-major values by name.
    tensors: BTreeMap<String, (Vec<usize>, Vec<f64>)>,
    /// Strings by name.
    text: BTreeMap<String, String>,
    file: String,
}

impl Store {
    /// Adds a vector.
    #[must_use]
    pub fn with_vector(mut self, name: &str, values: &[f64]) -> Self {
        self.tensors.insert(name.into(), (vec![values.len()], values.to_vec()));
        self
    }

    /// Adds a matrix.
    #[must_use]
    pub fn with_matrix(mut self, name: &str, matrix: MatRef<'_, f64>) -> Self {
        let (rows, cols) = (matrix.nrows(), matrix.ncols());
        let values = (0..rows).flat_map(|i| (0..cols).map(move |j| matrix[(i, j)])).collect();
        self.tensors.insert(name.into(), (vec![rows, cols], values));
        self
    }

    /// Adds a string.
    #[must_use]
    pub fn with_text(mut self, name: &str, text: impl Into<String>) -> Self {
        self.text.insert(name.into(), text.into());
        self
    }

    /// Adds what serde writes as one word, such as a unit variant.
    ///
    /// # Panics
    /// If `T` is written as something else.
    #[must_use]
    pub fn with_word<T: serde::Serialize>(self, name: &str, word: &T) -> Self {
        let text = serde_json::to_value(word).ok().and_then(|value| value.as_str().map(str::to_string));
        self.with_text(name, text.expect("a word"))
    }

    /// Whether a tensor is there.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A vector.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn vector(&self, name: &str) -> Result<Vec<f64>> {
        match self.tensors.get(name) {
            Some((shape, values)) if shape.len() == 1 => Ok(values.clone()),
            found => Err(self.wrong(&format!("a vector `{name}`"), found.map(|(shape, _)| shape))),
        }
    }

    /// A matrix.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn matrix(&self, name: &str) -> Result<Mat<f64>> {
        match self.tensors.get(name) {
            Some((shape, values)) if shape.len() == 2 => {
                Ok(Mat::from_fn(shape[0], shape[1], |i, j| values[i * shape[1] + j]))
            }
            found => Err(self.wrong(&format!("a matrix `{name}`"), found.map(|(shape, _)| shape))),
        }
    }

    /// A string.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn text(&self, name: &str) -> Result<&str> {
        self.text.get(name).map(String::as_str).ok_or_else(|| self.wrong(&format!("metadata `{name}`"), None))
    }

    /// A string that serde reads as one word, such as a unit variant.
    ///
    /// # Errors
    /// If there is none of that name, or it is not a word of `T`.
    pub fn word<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T> {
        let text = self.text(name)?;
        serde_json::from_value(text.into()).map_err(|error| Error::Format {
            file: self.file.clone(),
            expected: format!("metadata `{name}`"),
            found: format!("`{text}` ({error})"),
        })
    }

    /// Checks that a tensor has as many `rows` or `columns` as another needs.
    ///
    /// # Errors
    /// If it has not.
    pub fn expect(&self, name: &str, what: &str, wanted: usize, found: usize) -> Result<()> {
        if wanted == found {
            return Ok(());
        }
        Err(Error::Format {
            file: self.file.clone(),
            expected: format!("`{name}` with {wanted} {what}"),
            found: found.to_string(),
        })
    }

    /// Writes a safetensors file.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let bytes: BTreeMap<&str, (Vec<usize>, Vec<u8>)> = self
            .tensors
            .iter()
            .map(|(name, (shape, values))| {
                (name.as_str(), (shape.clone(), values.iter().flat_map(|value| value.to_le_bytes()).collect()))
            })
            .collect();
        let views = bytes.iter().map(|(name, (shape, bytes))| {
            (*name, TensorView::new(Dtype::F64, shape.clone(), bytes).expect("the shape counts the values"))
        });
        // One entry, because the order of several would differ from save to save.
        let text = serde_json::to_string(&self.text).expect("strings are JSON");
        let file = safetensors::serialize(views, Some(HashMap::from([(TEXT.into(), text)])))
            .expect("names are distinct and sizes agree");
        std::fs::write(path, file).map_err(Error::io(path))
    }

    /// Reads a file that [`Store::save`] wrote.
    ///
    /// # Errors
    /// A missing or malformed file, or a tensor that is not f64.
    pub fn load(path: &Path) -> Result<Self> {
        let file = path.display().to_string();
        let wrong =
            |expected: &str, found: String| Error::Format { file: file.clone(), expected: expected.into(), found };
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| wrong("a safetensors file", e.to_string()))?;
        let parsed = SafeTensors::deserialize(&bytes).map_err(|e| wrong("a safetensors file", e.to_string()))?;
        let mut tensors = BTreeMap::new();
        for (name, view) in parsed.iter() {
            if view.dtype() != Dtype::F64 {
                return Err(wrong(&format!("`{name}` of type f64"), format!("{:?}", view.dtype())));
            }
            // Without values an axis may say that it is of any length, and matrices are walked by their axes.
            if let Some(&length) = view.shape().iter().find(|&&length| length > bytes.len()) {
                return Err(wrong(&format!("axes of `{name}` no longer than the file"), format!("{length}")));
            }
            let values = view.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().expect("8 bytes")));
            tensors.insert(name.to_string(), (view.shape().to_vec(), values.collect()));
        }
        let text = match header.metadata().as_ref().and_then(|metadata| metadata.get(TEXT)) {
            Some(text) => serde_json::from_str(text).map_err(|e| wrong("JSON as metadata `text`", e.to_string()))?,
            None => BTreeMap::new(),
        };
        Ok(Self { tensors, text, file })
    }

    fn wrong(&self, expected: &str, found: Option<&Vec<usize>>) -> Error {
        Error::Format {
            file: self.file.clone(),
            expected: expected.into(),
            found: found.map_or("none".into(), |shape| format!("a tensor of shape {shape:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_to_the_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let matrix = Mat::from_fn(3, 2, |i, j| ((i + 2 * j) as f64).exp() / 3.0);
        let store = Store::default()
            .with_vector("v", &[f64::MIN_POSITIVE, -0.0])
            .with_matrix("m", matrix.as_ref())
            .with_text("kind", "bow");
        store.save(&path).unwrap();
        let loaded = Store::load(&path).unwrap();
        assert_eq!(loaded.matrix("m").unwrap(), matrix);
        assert_eq!(loaded.vector("v").unwrap()[1].to_bits(), (-0.0f64).to_bits());
        assert_eq!(loaded.text("kind").unwrap(), "bow");
        assert!(
            loaded
                .vector("m")
                .unwrap_err()
                .to_string()
                .contains("a.safetensors: expected a vector `m`, found a tensor of shape [3, 2]")
        );
    }

    #[test]
    fn a_truncated_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        Store::default().with_vector("v", &[1.0, 2.0]).save(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        assert!(Store::load(&path).unwrap_err().to_string().contains("expected a safetensors file"));
    }

    #[test]
    fn an_axis_without_values_is_no_longer_than_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let header = r#"{"m":{"dtype":"F64","shape":[0,4611686018427387904],"data_offsets":[0,0]}}"#;
        std::fs::write(&path, [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()).unwrap();
        let text = Store::load(&path).unwrap_err().to_string();
        assert!(text.contains("axes of `m` no longer than the file, found 4611686018427387904"), "{text}");
    }
}
