//! Version 5: elements one behind the other, each plain or packed.

use std::{io::Read, panic, path::Path};

use flate2::read::ZlibDecoder;
use matfile::{MatFile, NumericData};

use super::{ArrayInfo, DAMAGED, LARGEST, Target};
use crate::{Error, Result};

pub(super) const MATRIX: u32 = 14;
pub(super) const COMPRESSED: u32 = 15;

/// The numeric arrays of a MAT-file of version 5.
pub(super) fn open(path: &Path, bytes: &[u8]) -> Result<(Vec<ArrayInfo>, MatFile)> {
    check_elements(path, bytes)?;
    // matfile multiplies lengths unchecked, which panics in a build with overflow checks; a damaged file must not end the
    // program.
    let file = panic::catch_unwind(|| MatFile::parse(bytes))
        .map_err(|_| damaged(path, "lengths too large for it".into()))?
        .map_err(|error| damaged(path, error.to_string().to_lowercase()))?;
    let info = |array: &matfile::Array| ArrayInfo {
        name: array.name().to_owned(),
        shape: array.size().iter().map(|&length| length as u64).collect(),
        kind: kind(array.data()).to_owned(),
        numeric: is_real(array.data()),
    };
    Ok((file.arrays().iter().map(info).collect(), file))
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
                bytes if bytes.len() < 128 => "a file shorter than its header",
                _ => "another header",
            };
            let next = "save it in MATLAB with `save FILE -v7` or `-v7.3`, or from Python with scipy.io.savemat";
            return Err(Error::content(path, "header", "a MAT-file of version 5 or 7.3", found, next));
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
        let body = &bytes[at + 8..at + 8 + length as usize];
        if kind == COMPRESSED {
            check_packed(path, &place, body, little)?;
        }
        at += 8 + length as usize;
    }
    Ok(())
}

/// Unpacks an element without keeping it: what it declares in its first eight bytes must be what it holds, since matfile
/// takes the memory for all that comes out.
fn check_packed(path: &Path, place: &str, body: &[u8], little: bool) -> Result<()> {
    let wrong = |expected: String, found: String| Err(Error::content(path, place, expected, found, DAMAGED));
    let mut unpacked = ZlibDecoder::new(body);
    let mut tag = [0u8; 8];
    if let Err(error) = unpacked.read_exact(&mut tag) {
        return wrong("a packed matrix".into(), error.to_string());
    }
    let length: [u8; 4] = [tag[4], tag[5], tag[6], tag[7]];
    let declared = u64::from(if little { u32::from_le_bytes(length) } else { u32::from_be_bytes(length) });
    if u128::from(declared) > LARGEST {
        return wrong(format!("at most {} GiB", LARGEST >> 30), format!("{declared} bytes"));
    }
    // One byte more than declared tells that there is more. Padding may follow, up to a multiple of eight.
    let most = declared + 8;
    match std::io::copy(&mut unpacked.by_ref().take(most), &mut std::io::sink()) {
        Ok(found) if found >= declared && found < most => Ok(()),
        Ok(found) if found < declared => wrong(format!("{declared} bytes when unpacked"), format!("{found}")),
        Ok(_) => wrong(format!("{declared} bytes when unpacked"), "more".into()),
        Err(error) => wrong("a whole packed matrix".into(), error.to_string()),
    }
}

/// Reads the array that the target names.
pub(super) fn fill(file: &MatFile, out: &mut Target<'_>) -> Result<()> {
    let values = file.find_by_name(out.name).and_then(|array| values(array.data()));
    let rows = out.matrix.rows;
    let wanted = out.matrix.data.len();
    let Some(values) = values.filter(|values| values.len() == wanted) else {
        return Err(out.damaged(format!("{wanted} real numbers"), "another number of them, or complex ones"));
    };
    for (i, value) in values.into_iter().enumerate() {
        // Column after column in the file.
        out.put(i % rows, i / rows, value)?;
    }
    Ok(())
}

fn is_real(data: &NumericData) -> bool {
    macro_rules! real {
        ($($kind:ident),*) => { matches!(data, $(NumericData::$kind { imag: None, .. })|*) };
    }
    real!(Int8, UInt8, Int16, UInt16, Int32, UInt32, Int64, UInt64, Single, Double)
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
fn kind(data: &NumericData) -> &'static str {
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
