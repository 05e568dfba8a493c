//! Arrays that another program wrote: embeddings, codes and scores.
//!
//! A place is a path, and behind a `#` the name of an array where a file has several:
//!
//! | place | what it is |
//! |---|---|
//! | `i.npy` | NumPy, two axes, C order |
//! | `both.npz#images` | an array of `numpy.savez` or `numpy.savez_compressed` |
//! | `both.safetensors#images` | a tensor |
//! | `img_emb` | a folder of `NAME_0.npy`, `NAME_1.npy`, ..: rows one file behind the other, as clip-retrieval writes them |
//!
//! What is not compressed is mapped into memory and read a row or a value at a time.

mod file;
mod zip;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use half::{bf16, f16, slice::HalfFloatSliceExt};
use memmap2::Mmap;

use crate::{Checksum, Error, Features, Hasher, Result, npy, precomp};

/// A matrix in one file or several.
#[derive(Debug, Clone)]
pub struct Array {
    parts: Vec<Part>,
    /// Rows before each part.
    firsts: Vec<usize>,
    rows: usize,
    cols: usize,
    number: Number,
}

/// Type of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// Half precision.
    F16,
    /// Half precision with the exponent of single precision.
    BF16,
    /// Single precision.
    F32,
    /// Double precision.
    F64,
    /// Whole numbers of 8 bits with a sign.
    I8,
    /// Bytes.
    U8,
    /// Truth values, a byte each.
    Bool,
}

impl Number {
    fn bytes(self) -> usize {
        match self {
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::F16 | Self::BF16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// Whether it has a fraction.
    pub fn is_real(self) -> bool {
        matches!(self, Self::F16 | Self::BF16 | Self::F32 | Self::F64)
    }

    /// As a message names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "float16",
            Self::BF16 => "bfloat16",
            Self::F32 => "float32",
            Self::F64 => "float64",
            Self::I8 => "int8",
            Self::U8 => "uint8",
            Self::Bool => "bool",
        }
    }
}

/// Rows of one file.
#[derive(Debug, Clone)]
struct Part {
    path: PathBuf,
    /// The array's name in the file, for messages; may be empty.
    key: String,
    bytes: Bytes,
    start: usize,
    rows: usize,
    cols: usize,
    number: Number,
}

#[derive(Debug, Clone)]
enum Bytes {
    Mapped(Arc<Mmap>),
    Unpacked(Arc<[u8]>),
}

impl Bytes {
    fn all(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Unpacked(bytes) => bytes,
        }
    }
}

/// How numpy writes what is read here.
pub const REWRITE: &str =
    "write it again with numpy.save(file, numpy.ascontiguousarray(array, dtype=numpy.float32)), a row an item";

impl Part {
    fn row(&self, row: usize) -> &[u8] {
        let length = self.cols * self.number.bytes();
        &self.bytes.all()[self.start + row * length..][..length]
    }

    fn place(&self, rest: &str) -> String {
        if self.key.is_empty() { rest.into() } else { format!("`{}`, {rest}", self.key) }
    }
}

impl Array {
    /// Opens what lies at a place.
    ///
    /// # Errors
    /// If there is nothing, or something else than a matrix of one of the known types in C order; a file that is shorter or longer
    /// than it says; an array that is not named among several; files of a folder that are not numbered from 0 or do not fit together.
    pub fn open(place: &str) -> Result<Self> {
        let (path, key) = split(place);
        let parts = if path.is_dir() { file::folder(&path, key)? } else { vec![file::open(&path, key)?] };
        let (cols, number) = (parts[0].cols, parts[0].number);
        for part in &parts {
            if (part.cols, part.number) != (cols, number) {
                let expected = format!("{cols} columns of {}, as in {}", number.name(), parts[0].path.display());
                let found = format!("{} columns of {}", part.cols, part.number.name());
                return Err(Error::content(&part.path, &part.key, expected, found, "write all files alike"));
            }
        }
        if cols == 0 {
            return Err(Error::content(&parts[0].path, &parts[0].key, "at least one column", "none", REWRITE));
        }
        let (mut firsts, mut rows) = (Vec::new(), 0usize);
        for part in &parts {
            firsts.push(rows);
            rows += part.rows;
        }
        Ok(Self { parts, firsts, rows, cols, number })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Type of an element.
    pub fn number(&self) -> Number {
        self.number
    }

    /// Where it was opened: the file, or the first of several.
    pub fn path(&self) -> &Path {
        &self.parts[0].path
    }

    fn part(&self, row: usize) -> (&Part, usize) {
        let at = self.firsts.partition_point(|&first| first <= row) - 1;
        // Empty files begin where the next one does: the last that begins at or before the row has it.
        (&self.parts[at], row - self.firsts[at])
    }

    /// The bytes of a row, as they lie in the file.
    pub fn bytes(&self, row: usize) -> &[u8] {
        let (part, row) = self.part(row);
        part.row(row)
    }

    /// An error that names a row and a column.
    pub fn wrong(&self, row: usize, col: usize, expected: &str, found: &str, next: &str) -> Error {
        let (part, row) = self.part(row);
        Error::content(&part.path, part.place(&format!("row {row}, column {col}")), expected, found, next)
    }

    /// The values of a row from column `from` on.
    ///
    /// # Errors
    /// If one is NaN or infinite, in f32 as well.
    pub fn values(&self, row: usize, from: usize, out: &mut [f32]) -> Result<()> {
        let each = self.number.bytes();
        let bytes = &self.bytes(row)[from * each..(from + out.len()) * each];
        match self.number {
            Number::F16 => match bytemuck::try_cast_slice::<u8, f16>(bytes) {
                Ok(values) if cfg!(target_endian = "little") => values.convert_to_f32_slice(out),
                _ => npy::decode(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
            },
            Number::BF16 => npy::decode(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
            Number::F32 => npy::decode(bytes, out, f32::from_le_bytes),
            Number::F64 => npy::decode(bytes, out, |b| f64::from_le_bytes(b) as f32),
            Number::I8 => npy::decode(bytes, out, |b| f32::from(i8::from_le_bytes(b))),
            Number::U8 | Number::Bool => npy::decode(bytes, out, |[b]: [u8; 1]| f32::from(b)),
        }
        match out.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(at) => {
                let next = "compute the values again; f32 holds up to 3.4e38";
                Err(self.wrong(row, from + at, "a finite number", &out[at].to_string(), next))
            }
        }
    }
}

/// One vector a row.
impl Features for Array {
    fn items(&self) -> usize {
        self.rows
    }
    fn fragments(&self) -> usize {
        1
    }
    fn width(&self) -> usize {
        self.cols
    }
    fn read(&self, item: usize, out: &mut [f32]) -> Result<()> {
        self.values(item, 0, out)
    }
}

/// The path of a place, and the name behind it. A `#` in the name of a file that is there is part of the name.
pub fn split(place: &str) -> (PathBuf, Option<&str>) {
    match place.rsplit_once('#') {
        Some((path, key)) if !Path::new(place).exists() => (path.into(), Some(key)),
        _ => (place.into(), None),
    }
}

/// The checksum of what lies at a place: of the whole file, or of all files of a folder that are read.
///
/// # Errors
/// If a file cannot be read, or a folder has none.
pub fn digest(place: &str) -> Result<Checksum> {
    let (path, key) = split(place);
    let files = if path.is_dir() { file::numbered(&path, key)? } else { vec![path] };
    let mut hasher = Hasher::default();
    for path in files {
        hasher.add("file", &npy::digest(&path)?);
    }
    Ok(hasher.finish())
}

/// The identifiers of rows, one a line.
///
/// # Errors
/// If the file cannot be read, is no UTF-8, or has an empty line or a line twice.
pub fn ids(path: &Path) -> Result<Vec<String>> {
    let ids = precomp::lines(path)?;
    let mut seen = std::collections::HashMap::new();
    for (at, id) in ids.iter().enumerate() {
        let wrong = |expected: String, found: String| {
            let next = "write the id of row k in line k, as the dataset has it";
            Err(Error::content(path, format!("line {}", at + 1), expected, found, next))
        };
        if id.is_empty() {
            return wrong("an id".into(), "an empty line".into());
        }
        if let Some(before) = seen.insert(id.as_str(), at) {
            return wrong("an id of its own".into(), format!("`{id}`, which line {} has already", before + 1));
        }
    }
    Ok(ids)
}

#[cfg(test)]
mod tests;
