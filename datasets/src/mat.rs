use std::{panic, path::Path};

use matfile::{MatFile, NumericData};

use crate::{Error, Matrix, Result};

const DAMAGED: &str = "the copy is incomplete or damaged: get the file again";
const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;

/// The numeric arrays of a MAT-file of version 5.
///
/// # Errors
/// If the file cannot be read, is of another version, or ends inside an element.
pub(crate) fn read(path: &Path) -> Result<MatFile> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    check_elements(path, &bytes)?;
    // matfile multiplies lengths unchecked, which panics in a build with overflow checks; a damaged file must not end the
    // program.
    panic::catch_unwind(|| MatFile::parse(bytes.as_slice()))
        .map_err(|_| damaged(path, "lengths too large for it".into()))?
        .map_err(|error| damaged(path, error.to_string().to_lowercase()))
}

fn damaged(path: &Path, found: String) -> Error {
    Error::content(path, "", "the arrays of a MAT-file of version 5", found, DAMAGED)
}

/// Walks the top-level elements: matfile stops silently at one that it cannot read, so that a truncated file would look like
/// one with fewer arrays, and it prints a line about a type that it does not know.
fn check_elements(path: &Path, bytes: &[u8]) -> Result<()> {
    let little = match (bytes.get(124..126), bytes.get(126..128)) {
        (Some([0, 1]), Some(b"IM")) => true,
        (Some([1, 0]), Some(b"MI")) => false,
        _ => {
            let found = match bytes {
                bytes if bytes.starts_with(b"\x89HDF") || bytes.starts_with(b"MATLAB 7.3") => "version 7.3",
                bytes if bytes.len() < 128 => "a file shorter than its header",
                _ => "another header",
            };
            let next = "save it in MATLAB with `save FILE -v7`, or from Python with scipy.io.savemat";
            return Err(Error::content(path, "header", "a MAT-file of version 5", found, next));
        }
    };
    let number = |at: usize| {
        let word: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(if little { u32::from_le_bytes(word) } else { u32::from_be_bytes(word) })
    };
    let mut at = 128;
    while at < bytes.len() {
        let place = format!("byte {at}");
        let (Some(kind), Some(length)) = (number(at), number(at + 4)) else {
            return Err(Error::content(
                path,
                place,
                "the type and length of an element",
                "the end of the file",
                DAMAGED,
            ));
        };
        if kind != MATRIX && kind != COMPRESSED {
            let found = format!("an element of type {kind}");
            return Err(Error::content(path, place, "a matrix, plain or compressed (type 14 or 15)", found, DAMAGED));
        }
        let left = bytes.len() - at - 8;
        if length as usize > left {
            let expected = format!("an element of {length} bytes");
            return Err(Error::content(
                path,
                place,
                expected,
                format!("{left} bytes before the end of the file"),
                DAMAGED,
            ));
        }
        at += 8 + length as usize;
    }
    Ok(())
}

/// A two-dimensional real array of a MAT-file, row after row.
///
/// # Errors
/// If there is no such array, it is of another shape or complex, or holds NaN or infinity.
pub(crate) fn matrix(path: &Path, file: &MatFile, name: &str) -> Result<Matrix> {
    let Some(array) = file.find_by_name(name) else {
        let names: Vec<&str> = file.arrays().iter().map(matfile::Array::name).collect();
        let next = "check that this is the features file of the dataset";
        return Err(Error::content(path, "", format!("an array `{name}`"), format!("{names:?}"), next));
    };
    let &[rows, cols] = array.size().as_slice() else {
        return Err(Error::content(path, name, "rows and columns", format!("shape {:?}", array.size()), DAMAGED));
    };
    let Some(values) = values(array.data()) else {
        return Err(Error::content(path, name, "real numbers", "complex ones", DAMAGED));
    };
    let mut out = Matrix::zeros(rows, cols);
    for (i, value) in values.into_iter().enumerate() {
        // Column after column in the file.
        let (row, col) = (i % rows, i / rows);
        let value = value as f32;
        if !value.is_finite() {
            let place = format!("{name}, row {row}, column {col}");
            return Err(Error::content(
                path,
                place,
                "a finite number",
                value.to_string(),
                "compute the features again",
            ));
        }
        out.row_mut(row)[col] = value;
    }
    Ok(out)
}

fn values(data: &NumericData) -> Option<Vec<f64>> {
    macro_rules! real {
        ($($kind:ident),*) => {
            match data {
                $(NumericData::$kind { real, imag: None } => Some(real.iter().map(|&value| value as f64).collect()),)*
                _ => None,
            }
        };
    }
    real!(Int8, UInt8, Int16, UInt16, Int32, UInt32, Int64, UInt64, Single, Double)
}

/// Type of an array's elements as MATLAB names it.
pub(crate) fn kind(data: &NumericData) -> &'static str {
    match data {
        NumericData::Int8 { .. } => "int8",
        NumericData::UInt8 { .. } => "uint8",
        NumericData::Int16 { .. } => "int16",
        NumericData::UInt16 { .. } => "uint16",
        NumericData::Int32 { .. } => "int32",
        NumericData::UInt32 { .. } => "uint32",
        NumericData::Int64 { .. } => "int64",
        NumericData::UInt64 { .. } => "uint64",
        NumericData::Single { .. } => "single",
        NumericData::Double { .. } => "double",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A matrix element of doubles, as MATLAB writes it without compression.
    fn element(name: &str, size: [i32; 2], values: &[f64]) -> Vec<u8> {
        let mut body = Vec::new();
        let mut part = |kind: u32, bytes: Vec<u8>| {
            body.extend(kind.to_le_bytes());
            body.extend((bytes.len() as u32).to_le_bytes());
            body.extend(&bytes);
            body.resize(body.len().next_multiple_of(8), 0);
        };
        part(6, [6u32, 0].iter().flat_map(|word| word.to_le_bytes()).collect());
        part(5, size.iter().flat_map(|length| length.to_le_bytes()).collect());
        part(1, name.as_bytes().to_vec());
        part(9, values.iter().flat_map(|value| value.to_le_bytes()).collect());
        let mut out = MATRIX.to_le_bytes().to_vec();
        out.extend((body.len() as u32).to_le_bytes());
        out.extend(body);
        out
    }

    fn write(path: &Path, elements: &[Vec<u8>]) {
        let mut bytes = b"MATLAB 5.0 MAT-file".to_vec();
        bytes.resize(124, b' ');
        bytes.extend([0, 1, b'I', b'M']);
        bytes.extend(elements.concat());
        std::fs::write(path, bytes).unwrap();
    }

    fn message(path: &Path, name: &str) -> String {
        let error = read(path).and_then(|file| matrix(path, &file, name)).unwrap_err().to_string();
        error.replace(&*path.parent().unwrap().to_string_lossy(), "DIR")
    }

    #[test]
    fn columns_become_rows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mat");
        write(&path, &[element("a", [2, 3], &[1., 4., 2., 5., 3., 6.]), element("b", [1, 1], &[7.])]);
        let file = read(&path).unwrap();
        let a = matrix(&path, &file, "a").unwrap();
        assert_eq!((a.rows, a.cols, a.row(1)), (2, 3, [4., 5., 6.].as_slice()));
        assert_eq!(matrix(&path, &file, "b").unwrap().data, [7.]);
        assert_eq!(kind(file.arrays()[0].data()), "double");
        insta::assert_snapshot!(message(&path, "c"), @r#"DIR/a.mat: expected an array `c`, found ["a", "b"]; check that this is the features file of the dataset"#);
    }

    #[test]
    fn damaged_files_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mat");
        write(&path, &[element("a", [1, 2], &[1., f64::NAN])]);
        insta::assert_snapshot!(message(&path, "a"), @"DIR/a.mat, a, row 0, column 1: expected a finite number, found NaN; compute the features again");
        write(&path, &[element("a", [1, 3], &[1., 2.])]);
        assert!(message(&path, "a").contains("expected the arrays of a MAT-file"));
        write(&path, &[element("a", [i32::MAX, i32::MAX], &[1., 2.])]);
        assert!(message(&path, "a").contains("a.mat"));
        std::fs::write(&path, b"\x89HDF\r\n").unwrap();
        insta::assert_snapshot!(message(&path, "a"), @"DIR/a.mat, header: expected a MAT-file of version 5, found version 7.3; save it in MATLAB with `save FILE -v7`, or from Python with scipy.io.savemat");
        // Every prefix and every damaged byte: an error or other values, never a panic.
        write(&path, &[element("a", [2, 2], &[1., 2., 3., 4.]), element("b", [1, 1], &[7.])]);
        let whole = std::fs::read(&path).unwrap();
        insta::assert_snapshot!({ std::fs::write(&path, &whole[..200]).unwrap(); message(&path, "a") }, @"DIR/a.mat, byte 128: expected an element of 88 bytes, found 64 bytes before the end of the file; the copy is incomplete or damaged: get the file again");
        for end in 0..whole.len() {
            std::fs::write(&path, &whole[..end]).unwrap();
            assert!(read(&path).and_then(|file| matrix(&path, &file, "b")).is_err(), "{end}");
        }
        for at in 124..whole.len() {
            for byte in [0, 0x7f, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = byte;
                std::fs::write(&path, damaged).unwrap();
                let _ = read(&path).and_then(|file| matrix(&path, &file, "a"));
            }
        }
    }
}
