//! Files of weights: named arrays of numbers, from `.safetensors` or from a PyTorch checkpoint as `torch.save` wrote it before 1.6.
//!
//! A file is a stranger's: every offset, shape and stride is held against the bytes that are there before memory is taken, and
//! memory is taken for those arrays alone that a network asks for.

mod pickle;
mod torch;

use std::{collections::BTreeMap, path::Path, path::PathBuf};

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};
use xmbench_datasets::{Error, Result, files, nearest};

/// What went wrong inside a file, and where.
pub(crate) struct Flaw {
    place: String,
    expected: String,
    found: String,
}

impl Flaw {
    fn new(place: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { place: place.into(), expected: expected.into(), found: found.into() }
    }
}

const NEXT: &str = "name a .safetensors file, or a PyTorch checkpoint in the form before 1.6; others are converted with \
                    safetensors.torch.save_file(torch.load(FILE, weights_only=True), \"weights.safetensors\")";

/// How a number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    F16,
    Bf16,
    F32,
    F64,
    /// No weight: counters and masks, which are passed over.
    Other,
}

impl Kind {
    fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
            Self::Other => 1,
        }
    }
}

/// An array inside the file.
#[derive(Debug, Clone)]
struct Entry {
    kind: Kind,
    shape: Vec<usize>,
    /// Elements from one index to the next, for each axis.
    strides: Vec<usize>,
    /// Which of the files has it.
    part: usize,
    /// Byte at which the storage begins, the bytes that it has, and the element of it at which the array begins.
    start: usize,
    length: usize,
    offset: usize,
}

/// The arrays of a file, or of several that are parts of one network.
pub struct Weights {
    path: PathBuf,
    parts: Vec<Vec<u8>>,
    entries: BTreeMap<String, Entry>,
    digest: String,
}

impl Weights {
    /// Reads a file and finds its arrays.
    ///
    /// # Errors
    /// If it cannot be read, is in neither form, or is damaged.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = files::read(&files::named(path)?)?;
        Self::parse(path, bytes)
    }

    /// As [`read`](Self::read), of bytes; `path` is for messages.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(path: &Path, bytes: Vec<u8>) -> Result<Self> {
        let entries =
            entries(&bytes).map_err(|flaw| Error::content(path, flaw.place, flaw.expected, flaw.found, NEXT))?;
        let digest = hexadecimal(&bytes);
        Ok(Self { path: path.to_owned(), parts: vec![bytes], entries, digest })
    }

    /// One network's arrays out of its parts; `path` is the file that lists them, `digest` what stands for the whole.
    ///
    /// # Errors
    /// The name of an array that is in two of them.
    #[cfg(feature = "transformers")]
    pub(crate) fn joined(path: &Path, parts: Vec<Self>, digest: String) -> std::result::Result<Self, String> {
        let mut whole = Self { path: path.to_owned(), parts: Vec::new(), entries: BTreeMap::new(), digest };
        for part in parts {
            let before = whole.parts.len();
            whole.parts.extend(part.parts);
            for (name, mut entry) in part.entries {
                entry.part += before;
                if whole.entries.contains_key(&name) {
                    return Err(name);
                }
                whole.entries.insert(name, entry);
            }
        }
        Ok(whole)
    }

    /// SHA-256 of the file, in hexadecimal; of a network in parts, that of the list which `sha256sum` prints of them by name.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Names and shapes of the arrays.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), &entry.shape[..]))
    }

    /// Whether there is an array of that name.
    pub fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The values of an array, the last axis varying fastest.
    ///
    /// # Errors
    /// If there is none of that name and shape, or a value is not finite.
    pub fn take(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let wrong = |place: &str, expected: String, found: String| {
            let next = "name the weights of this network, or another --encoder";
            Err(Error::content(&self.path, place, expected, found, next))
        };
        let Some(entry) = self.entries.get(name) else {
            let near = nearest(name, self.entries.keys().map(String::as_str));
            let found = near.map_or("no such array".to_owned(), |near| format!("`{near}` and no such array"));
            return wrong("", format!("an array `{name}` of shape {shape:?}"), found);
        };
        let place = format!("array `{name}`");
        if entry.shape != shape {
            return wrong(&place, format!("shape {shape:?}"), format!("{:?}", entry.shape));
        }
        let storage = &self.parts[entry.part][entry.start..entry.start + entry.length];
        let read: fn(&[u8]) -> f32 = match entry.kind {
            Kind::F16 => |b| f16::from_le_bytes([b[0], b[1]]).to_f32(),
            Kind::Bf16 => |b| bf16::from_le_bytes([b[0], b[1]]).to_f32(),
            Kind::F32 => |b| f32::from_le_bytes(b.try_into().expect("four bytes a value")),
            Kind::F64 => |b| f64::from_le_bytes(b.try_into().expect("eight bytes a value")) as f32,
            Kind::Other => return wrong(&place, "floating-point numbers".into(), "whole numbers".into()),
        };
        let each = entry.kind.bytes();
        let count = shape.iter().product();
        let mut values = Vec::with_capacity(count);
        let mut index = vec![0; shape.len()];
        for _ in 0..count {
            let at = entry.offset + index.iter().zip(&entry.strides).map(|(i, stride)| i * stride).sum::<usize>();
            let value = read(&storage[at * each..][..each]);
            if !value.is_finite() {
                return wrong(&place, "finite numbers".into(), format!("{value} at {index:?}"));
            }
            values.push(value);
            for axis in (0..shape.len()).rev() {
                index[axis] += 1;
                if index[axis] < shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        Ok(values)
    }
}

/// SHA-256 of bytes, in hexadecimal.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn entries(bytes: &[u8]) -> std::result::Result<BTreeMap<String, Entry>, Flaw> {
    if torch::begins(bytes) {
        return torch::entries(bytes);
    }
    let expected = "a .safetensors file, or a PyTorch checkpoint in the form before 1.6";
    if bytes.starts_with(b"PK\x03\x04") {
        return Err(Flaw::new("", expected, "a zip archive, as torch.save writes since 1.6"));
    }
    let (length, header) =
        SafeTensors::read_metadata(bytes).map_err(|error| Flaw::new("", expected, format!("neither ({error})")))?;
    let data = length + 8;
    let entry = |name: &str| {
        let info = header.info(name)?;
        let kind = match info.dtype {
            Dtype::F16 => Kind::F16,
            Dtype::BF16 => Kind::Bf16,
            Dtype::F32 => Kind::F32,
            Dtype::F64 => Kind::F64,
            _ => Kind::Other,
        };
        let (start, end) = info.data_offsets;
        let strides = contiguous(&info.shape)?;
        let (start, length) = (data + start, end - start);
        Some(Entry { kind, shape: info.shape.clone(), strides, part: 0, start, length, offset: 0 })
    };
    header
        .offset_keys()
        .into_iter()
        .map(|name| {
            let found = entry(&name).ok_or_else(|| Flaw::new(format!("array `{name}`"), "a shape", "a larger one"))?;
            Ok((name, found))
        })
        .collect()
}

/// The strides of an array whose last axis varies fastest, unless they overflow.
fn contiguous(shape: &[usize]) -> Option<Vec<usize>> {
    let mut strides = vec![1usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].checked_mul(shape[axis])?;
    }
    Some(strides)
}

#[cfg(test)]
mod tests;
