mod header;

use std::path::{Path, PathBuf};

use half::{f16, slice::HalfFloatSliceExt};
use memmap2::Mmap;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

pub(crate) use self::header::Header;
use crate::{Error, Matrix, Result, files::map};

/// A `.npy` file of floating-point numbers in C order, mapped into memory and read a row at a time.
#[derive(Debug)]
pub(crate) struct Npy {
    pub path: PathBuf,
    pub shape: Vec<usize>,
    kind: Kind,
    start: usize,
    map: Mmap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    F16,
    F32,
    F64,
}

impl Kind {
    fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

/// What the header of a `.npy` file says.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct NpyInfo {
    /// Lengths of the axes.
    pub shape: Vec<u64>,
    /// Type of an element as numpy writes it, such as `<f2`.
    pub dtype: String,
    /// Whether the first axis varies fastest.
    pub fortran_order: bool,
}

const REWRITE: &str = "write it again with numpy.save(file, numpy.ascontiguousarray(array, dtype=numpy.float32))";

impl Npy {
    /// Maps a file and checks its header against its length.
    ///
    /// # Errors
    /// If the file cannot be read, is no `.npy` file, holds something else than little-endian f16, f32 or f64 in C order,
    /// or is shorter or longer than its header promises.
    pub fn open(path: &Path) -> Result<Self> {
        let map = map(path)?;
        let (header, start) = Header::read(path, &map)?;
        let dtype = &header.descr;
        let kind = match header.number() {
            Some(('f', 2)) => Kind::F16,
            Some(('f', 4)) => Kind::F32,
            Some(('f', 8)) => Kind::F64,
            _ => {
                let found = format!("`{dtype}`");
                return Err(Error::content(path, "header", "type `<f2`, `<f4` or `<f8`", found, REWRITE));
            }
        };
        if header.fortran && header.shape.len() > 1 {
            return Err(Error::content(path, "header", "C order", "Fortran order", REWRITE));
        }
        let shape: Vec<usize> = header.shape.iter().map(|&length| length as usize).collect();
        let promised = u128::from(header.elements()) * kind.bytes() as u128;
        if (map.len() - start) as u128 != promised {
            let found = format!("{} bytes", map.len() - start);
            let expected = format!("{promised} bytes of data for shape {shape:?} of `{dtype}`");
            return Err(Error::content(
                path,
                "",
                expected,
                found,
                "the copy is incomplete or damaged: get the file again",
            ));
        }
        Ok(Self { path: path.to_owned(), shape, kind, start, map })
    }

    /// Values of a row: the product of every axis but the first.
    pub fn width(&self) -> usize {
        self.shape[1..].iter().product()
    }

    fn row_bytes(&self, row: usize) -> &[u8] {
        let length = self.width() * self.kind.bytes();
        &self.map[self.start + row * length..][..length]
    }

    /// Whether two rows hold the same bytes.
    pub fn same_rows(&self, a: usize, b: usize) -> bool {
        self.row_bytes(a) == self.row_bytes(b)
    }

    /// Reads a row as f32.
    ///
    /// # Errors
    /// If a value is NaN or infinite, in f32 as well.
    pub fn read(&self, row: usize, out: &mut [f32]) -> Result<()> {
        let bytes = self.row_bytes(row);
        match self.kind {
            Kind::F16 => match bytemuck::try_cast_slice::<u8, f16>(bytes) {
                Ok(values) if cfg!(target_endian = "little") => values.convert_to_f32_slice(out),
                _ => decode(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
            },
            Kind::F32 => decode(bytes, out, f32::from_le_bytes),
            Kind::F64 => decode(bytes, out, |b| f64::from_le_bytes(b) as f32),
        }
        match out.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(at) => Err(Error::content(
                &self.path,
                format!("row {row}, value {at}"),
                "a finite number",
                out[at].to_string(),
                "extract the features again, or drop the row and its captions",
            )),
        }
    }
}

pub(crate) fn decode<const N: usize>(bytes: &[u8], out: &mut [f32], value: impl Fn([u8; N]) -> f32) {
    for (out, chunk) in out.iter_mut().zip(bytes.chunks_exact(N)) {
        *out = value(chunk.try_into().expect("chunks_exact gives N bytes"));
    }
}

/// The header of a `.npy` file.
///
/// # Errors
/// If the file cannot be read or is no `.npy` file.
pub(crate) fn info(path: &Path) -> Result<NpyInfo> {
    let (header, _) = Header::read(path, &map(path)?)?;
    Ok(NpyInfo { shape: header.shape, dtype: header.descr, fortran_order: header.fortran })
}

/// SHA-256 of the SHA-256 of every 16 MiB of a file: the pieces are hashed in parallel, which a plain SHA-256 cannot be.
pub(crate) fn digest(path: &Path) -> Result<[u8; 32]> {
    let map = map(path)?;
    let pieces: Vec<[u8; 32]> = map.par_chunks(16 << 20).map(|piece| Sha256::digest(piece).into()).collect();
    Ok(Sha256::digest(pieces.concat()).into())
}

/// A vector (as a column) or matrix of any real type in either order, in memory: labels come as whole numbers.
///
/// # Errors
/// If the file cannot be read, is no `.npy` file, has another number of axes or bytes than it says, or holds NaN or infinity.
pub(crate) fn matrix(path: &Path) -> Result<Matrix> {
    let map = map(path)?;
    let (header, start) = Header::read(path, &map)?;
    let (rows, cols) = match header.shape[..] {
        [rows] => (rows as usize, 1),
        [rows, cols] => (rows as usize, cols as usize),
        _ => {
            let found = format!("{:?}", header.shape);
            return Err(Error::content(path, "header", "one or two axes", found, "save a vector an item"));
        }
    };
    let Some((each, number)) = header.number().and_then(|(kind, bytes)| Some((bytes, real(kind, bytes)?))) else {
        let found = format!("`{}`", header.descr);
        return Err(Error::content(path, "header", "real numbers, least significant byte first", found, REWRITE));
    };
    let bytes = &map[start..];
    if bytes.len() as u128 != rows as u128 * cols as u128 * each as u128 {
        let expected = format!("{rows} x {cols} values of {each} bytes");
        let next = "the copy is incomplete or damaged: get the file again";
        return Err(Error::content(path, "", expected, format!("{} bytes", bytes.len()), next));
    }
    let mut out = Matrix::zeros(rows, cols);
    for (at, value) in bytes.chunks_exact(each).map(number).enumerate() {
        let (row, col) = if header.fortran { (at % rows, at / rows) } else { (at / cols, at % cols) };
        if !value.is_finite() {
            let place = format!("row {row}, column {col}");
            let next = "compute the values again";
            return Err(Error::content(path, place, "a finite number", value.to_string(), next));
        }
        out.row_mut(row)[col] = value;
    }
    Ok(out)
}

/// What the bytes of a type stand for.
fn real(kind: char, bytes: usize) -> Option<fn(&[u8]) -> f32> {
    macro_rules! read {
        ($type:ty) => {
            |bytes: &[u8]| <$type>::from_le_bytes(bytes.try_into().expect("a value has all its bytes")) as f32
        };
    }
    Some(match (kind, bytes) {
        ('b' | 'u', 1) => |bytes| f32::from(bytes[0]),
        ('i', 1) => read!(i8),
        ('i', 2) => read!(i16),
        ('i', 4) => read!(i32),
        ('i', 8) => read!(i64),
        ('u', 2) => read!(u16),
        ('u', 4) => read!(u32),
        ('u', 8) => read!(u64),
        ('f', 2) => |bytes| f16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
        ('f', 4) => read!(f32),
        ('f', 8) => read!(f64),
        _ => return None,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use npyz::{Order, WriterBuilder};

    /// Writes values of any type that npyz writes.
    pub fn write<T: npyz::AutoSerialize + Copy>(path: &Path, shape: &[u64], order: Order, values: &[T]) {
        let options = npyz::WriteOptions::new().default_dtype().shape(shape).order(order);
        let mut writer = options.writer(std::fs::File::create(path).unwrap()).begin_nd().unwrap();
        writer.extend(values.iter().copied()).unwrap();
        writer.finish().unwrap();
    }

    fn message(path: &Path) -> String {
        let text = Npy::open(path).unwrap_err().to_string();
        text.replace(&*path.parent().unwrap().to_string_lossy(), "DIR")
    }

    #[test]
    fn all_kinds_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        let values = [0.5f32, -2.0, 1024.0, 0.0, 3.0, 65504.0];
        let read = |path: &Path| {
            let npy = Npy::open(path).unwrap();
            assert_eq!((npy.shape.as_slice(), npy.width()), ([2, 3].as_slice(), 3));
            let mut out = [0.0; 3];
            npy.read(1, &mut out).unwrap();
            assert_eq!(out, values[3..]);
        };
        write(&path, &[2, 3], Order::C, &values);
        read(&path);
        write(&path, &[2, 3], Order::C, &values.map(f64::from));
        read(&path);
        write(&path, &[2, 3], Order::C, &values.map(f16::from_f32));
        read(&path);
    }

    #[test]
    fn bad_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        write(&path, &[2, 3], Order::Fortran, &[0.0f32; 6]);
        insta::assert_snapshot!(message(&path), @"DIR/a.npy, header: expected C order, found Fortran order; write it again with numpy.save(file, numpy.ascontiguousarray(array, dtype=numpy.float32))");
        write(&path, &[6], Order::C, &[1i64; 6]);
        insta::assert_snapshot!(message(&path), @"DIR/a.npy, header: expected type `<f2`, `<f4` or `<f8`, found `<i8`; write it again with numpy.save(file, numpy.ascontiguousarray(array, dtype=numpy.float32))");
        write(&path, &[2, 3], Order::C, &[0.0f32; 6]);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        insta::assert_snapshot!(message(&path), @"DIR/a.npy: expected 24 bytes of data for shape [2, 3] of `<f4`, found 21 bytes; the copy is incomplete or damaged: get the file again");
        std::fs::write(&path, "PK\u{3}\u{4} no array").unwrap();
        insta::assert_snapshot!(message(&path), @r#"DIR/a.npy, header: expected a .npy file, which begins with \x93NUMPY, found "PK\u{3}\u{4} n"; write it again with numpy.save(file, numpy.ascontiguousarray(array, dtype=numpy.float32))"#);
    }

    /// Every prefix, every damaged header byte, and headers made to hurt: errors, never a panic.
    #[test]
    fn hostile_headers_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        write(&path, &[2, 3], Order::C, &[0.0f32; 6]);
        let whole = std::fs::read(&path).unwrap();
        for end in 0..whole.len() {
            std::fs::write(&path, &whole[..end]).unwrap();
            assert!(Npy::open(&path).is_err());
        }
        for at in 0..whole.len() - 24 {
            for byte in [0, b'9', b'(', 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = byte;
                std::fs::write(&path, damaged).unwrap();
                let _ = Npy::open(&path);
            }
        }
        let text = |shape: &str| format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
        let shapes = [
            "(4294967296, 4294967296)",
            "(0, 4294967296, 4294967296)",
            "(99999999999999999999999,)",
            "(-1, 3)",
            "3",
            "()",
        ];
        let deep = ["(".repeat(5000), "(".repeat(60_000)];
        for text in shapes.map(text).into_iter().chain(deep) {
            for version in [1u8, 2] {
                let mut bytes = b"\x93NUMPY".to_vec();
                bytes.extend([version, 0]);
                match version {
                    1 => bytes.extend((text.len() as u16).to_le_bytes()),
                    _ => bytes.extend((text.len() as u32).to_le_bytes()),
                }
                bytes.extend(text.as_bytes());
                std::fs::write(&path, bytes).unwrap();
                assert!(Npy::open(&path).is_err(), "{text:.80}");
            }
        }
    }
}
