//! MAT-files: version 5, and version 7.3, which is HDF5.
//!
//! A matrix has the same rows and columns whichever version holds it: HDF5 stores a MATLAB array with its axes in reverse, and
//! [`MatFile::matrix`] turns them back. An array as numpy's users write one with h5py, an item a row, comes out with a column an
//! item, as it does in MATLAB.

#[cfg(test)]
pub(crate) mod tests;
mod v5;
mod v73;

use std::path::{Path, PathBuf};

use crate::{Error, Matrix, Result, files};

const DAMAGED: &str = "the copy is incomplete or damaged: get the file again";

/// The most bytes that one array may take, as declared or as f32: features of 186,577 items of 4096 doubles are 6 GB.
const LARGEST: u128 = 16 << 30;

/// No deflate stream is longer than this times what it was packed into (1032, and some for the container).
const DEFLATE_RATIO: u128 = 1040;

/// Whether the bytes begin as a MAT-file of version 4: type (0, 10, 20, ... 52 and, most significant byte first, as many
/// thousands), rows, columns, whether complex, and the length of a name that ends with a zero.
fn is_v4(bytes: &[u8]) -> bool {
    let Some(head) = bytes.get(..20) else { return false };
    let words = |read: fn([u8; 4]) -> u32| -> Vec<u32> {
        head.chunks_exact(4).map(|word| read(word.try_into().expect("chunks of four"))).collect()
    };
    [(words(u32::from_le_bytes), 0), (words(u32::from_be_bytes), 1000)].into_iter().any(|(words, order)| {
        let name = words[4] as usize;
        let kind = words[0].wrapping_sub(order);
        kind % 10 <= 2
            && kind / 10 <= 5
            && words[3] <= 1
            && (1..=64).contains(&name)
            && bytes.get(20 + name - 1) == Some(&0)
    })
}

/// An open MAT-file.
pub(crate) struct MatFile {
    path: PathBuf,
    infos: Vec<ArrayInfo>,
    arrays: Arrays,
}

enum Arrays {
    V5(v5::Arrays),
    V73(hdf5_reader::Hdf5File),
}

/// An array of a MAT-file, before its values are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ArrayInfo {
    pub name: String,
    /// Lengths of the axes as MATLAB has them; empty where there is no array.
    pub shape: Vec<u64>,
    /// Type of an element as MATLAB names it, or what there is in its place.
    pub kind: String,
    /// Whether it holds real numbers.
    pub numeric: bool,
}

impl std::fmt::Display for ArrayInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.shape[..] {
            [] => write!(f, "{} {}", self.name, self.kind),
            _ => write!(f, "{} {:?} {}", self.name, self.shape, self.kind),
        }
    }
}

impl MatFile {
    /// Opens a file of either version and lists what it holds.
    ///
    /// # Errors
    /// If the file cannot be read, is of another version, or ends inside an array.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = files::map(path)?;
        let (infos, arrays) = if v73::is(&bytes) {
            let (infos, file) = v73::open(path, bytes)?;
            (infos, Arrays::V73(file))
        } else {
            let (infos, file) = v5::open(path, bytes)?;
            (infos, Arrays::V5(file))
        };
        Ok(Self { path: path.to_owned(), infos, arrays })
    }

    /// What it holds, in the order of the file.
    pub fn infos(&self) -> &[ArrayInfo] {
        &self.infos
    }

    /// Which version it is.
    pub fn version(&self) -> &'static str {
        match self.arrays {
            Arrays::V5(_) => "5",
            Arrays::V73(_) => "7.3 (HDF5)",
        }
    }

    /// A two-dimensional real array, row after row.
    ///
    /// # Errors
    /// If there is no such array, it is of another shape or complex, larger than it can be, or holds NaN or infinity.
    pub fn matrix(&self, name: &str) -> Result<Matrix> {
        let Some((at, info)) = self.infos.iter().enumerate().find(|(_, info)| info.name == name) else {
            let names: Vec<&str> = self.infos.iter().map(|info| info.name.as_str()).collect();
            let next = "check that this is the features file of the dataset";
            return Err(Error::content(&self.path, "", format!("an array `{name}`"), format!("{names:?}"), next));
        };
        if !info.numeric {
            let next = "save it as a full numeric matrix, for example with full(double(X))";
            return Err(Error::content(&self.path, name, "real numbers", &info.kind, next));
        }
        let &[rows, cols] = info.shape.as_slice() else {
            let found = format!("shape {:?}", info.shape);
            return Err(Error::content(&self.path, name, "rows and columns", found, "save features, a vector an item"));
        };
        // Before memory is taken.
        if let Arrays::V73(file) = &self.arrays {
            v73::check_size(file, &self.path, name, [rows, cols])?;
        }
        let mut out = Target::new(&self.path, name, rows, cols)?;
        match &self.arrays {
            Arrays::V5(arrays) => arrays.fill(at, &mut out),
            Arrays::V73(file) => v73::fill(file, &mut out),
        }?;
        Ok(out.matrix)
    }
}

/// A matrix that values are put into, and the place that an error names.
struct Target<'a> {
    path: &'a Path,
    name: &'a str,
    matrix: Matrix,
}

impl<'a> Target<'a> {
    fn new(path: &'a Path, name: &'a str, rows: u64, cols: u64) -> Result<Self> {
        let bytes = u128::from(rows) * u128::from(cols) * 4;
        let mut data: Vec<f32> = Vec::new();
        if bytes > LARGEST || data.try_reserve_exact((bytes / 4) as usize).is_err() {
            let (expected, found) = (format!("at most {} GiB of values", LARGEST >> 30), format!("{rows} x {cols}"));
            return Err(Error::content(path, name, expected, found, "cut the features into smaller files"));
        }
        data.resize((bytes / 4) as usize, 0.0);
        Ok(Self { path, name, matrix: Matrix { rows: rows as usize, cols: cols as usize, data } })
    }

    fn put(&mut self, row: usize, col: usize, value: f64) -> Result<()> {
        let value = value as f32;
        if !value.is_finite() {
            let place = format!("{}, row {row}, column {col}", self.name);
            let next = "compute the features again";
            return Err(Error::content(self.path, place, "a finite number", value.to_string(), next));
        }
        self.matrix.data[row * self.matrix.cols + col] = value;
        Ok(())
    }

    fn damaged(&self, expected: impl Into<String>, found: impl Into<String>) -> Error {
        Error::content(self.path, self.name, expected, found, DAMAGED)
    }
}
