//! Version 7.3: HDF5 behind a user block of 512 bytes, a dataset an array, its axes in reverse.
//!
//! Chunks may be packed (deflate, shuffle, checksums). Cells, structures and sparse matrices are groups and are not read. What a
//! file declares is held against its length before memory is taken: no chunk unpacks to more than deflate can hold.

use std::{cell::Cell, panic, path::Path, sync::Once};

use hdf5_reader::{
    ByteOrder, Dataset, Datatype, Hdf5File, OpenOptions, SliceInfo, SliceInfoElem, error::Error as Hdf5Error,
};
use memmap2::Mmap;

use super::{ArrayInfo, DAMAGED, DEFLATE_RATIO, LARGEST, Target};
use crate::{Error, Result};

const SIGNATURE: &[u8] = b"\x89HDF\r\n\x1a\n";

/// Where an HDF5 file may begin, as far as anybody writes user blocks.
const STARTS: [usize; 5] = [0, 512, 1024, 2048, 4096];

/// Values that are unpacked at a time, in bytes, where chunks allow.
const SLAB: u64 = 8 << 20;

/// Bytes that a chunk may have in any case: an array that may grow has chunks larger than what is in it yet.
const SMALL_CHUNK: u128 = 16 << 20;

/// Whether the bytes are those of such a file, damaged or not.
pub(super) fn is(bytes: &[u8]) -> bool {
    bytes.starts_with(b"MATLAB 7.3")
        || STARTS.iter().any(|&at| bytes.get(at..).is_some_and(|b| b.starts_with(SIGNATURE)))
        || (!bytes.is_empty() && bytes.len() < SIGNATURE.len() && SIGNATURE.starts_with(bytes))
}

pub(super) fn open(path: &Path, bytes: Mmap) -> Result<(Vec<ArrayInfo>, Hdf5File)> {
    let length = bytes.len() as u64;
    let damaged =
        |error: String| Error::content(path, "", "the arrays of a MAT-file of version 7.3 (HDF5)", error, DAMAGED);
    guarded(|| {
        // No resolver of external files or links: a file names no other.
        let file = Hdf5File::from_mmap_with_options(bytes, OpenOptions::default())?;
        let block = file.superblock();
        let end = block.base_address.saturating_add(block.eof_address);
        if end > length && block.eof_address > length {
            return Err(Hdf5Error::InvalidData(format!("{length} bytes of {}", block.eof_address)));
        }
        let root = file.root_group()?;
        let (groups, datasets) = root.member_names()?;
        let mut infos = Vec::with_capacity(groups.len() + datasets.len());
        for name in datasets {
            infos.push(info(name.clone(), &root.dataset(&name)?));
        }
        // `#refs#` holds what cells refer to.
        infos.extend(groups.into_iter().filter(|name| !name.starts_with('#')).map(|name| ArrayInfo {
            name,
            shape: Vec::new(),
            kind: "a group (structure, cell or sparse matrix)".into(),
            numeric: false,
        }));
        Ok((infos, file))
    })
    .map_err(damaged)
}

fn info(name: String, dataset: &Dataset) -> ArrayInfo {
    let class = dataset.attribute("MATLAB_class").ok().and_then(|attribute| attribute.read_string().ok());
    let class = class.map(|class| class.trim_end_matches(['\0', ' ']).to_owned());
    // An empty array holds its lengths in place of values.
    let empty = dataset.attribute("MATLAB_empty").is_ok();
    let mut shape: Vec<u64> = if empty { vec![0, 0] } else { dataset.shape().iter().rev().copied().collect() };
    if shape.len() == 1 {
        shape.push(1);
    }
    let stored = kind(dataset.dtype());
    let words = !empty && class.as_deref() == Some("char");
    let numeric = stored.is_some() && !words;
    let kind = match (words, stored) {
        (true, _) => "char".to_owned(),
        (_, Some(kind)) => class.filter(|class| class == "logical").unwrap_or_else(|| kind.to_owned()),
        (_, None) => "no real numbers".to_owned(),
    };
    ArrayInfo { name, shape, kind, numeric }
}

/// Type of the elements as MATLAB names it, where it is one that is read.
fn kind(datatype: &Datatype) -> Option<&'static str> {
    Some(match datatype {
        Datatype::FixedPoint { size: 1, signed: true, .. } => "int8",
        Datatype::FixedPoint { size: 1, signed: false, .. } => "uint8",
        Datatype::FixedPoint { size: 2, signed: true, .. } => "int16",
        Datatype::FixedPoint { size: 2, signed: false, .. } => "uint16",
        Datatype::FixedPoint { size: 4, signed: true, .. } => "int32",
        Datatype::FixedPoint { size: 4, signed: false, .. } => "uint32",
        Datatype::FixedPoint { size: 8, signed: true, .. } => "int64",
        Datatype::FixedPoint { size: 8, signed: false, .. } => "uint64",
        Datatype::FloatingPoint { size: 4, .. } => "single",
        Datatype::FloatingPoint { size: 8, .. } => "double",
        // h5py writes a numpy bool as an enumeration of one byte.
        Datatype::Enum { base, .. } if matches!(**base, Datatype::FixedPoint { size: 1, .. }) => "logical",
        _ => return None,
    })
}

/// Refuses an array that is larger than a file of this length can hold.
pub(super) fn check_size(file: &Hdf5File, path: &Path, name: &str, [rows, cols]: [u64; 2]) -> Result<()> {
    let wrong = |found: String| Err(Error::content(path, name, format!("{rows} x {cols} values"), found, DAMAGED));
    let found = guarded(|| {
        let dataset = file.root_group()?.dataset(name)?;
        let chunk = dataset.chunks().unwrap_or_default().into_iter().map(u128::from).collect::<Vec<_>>();
        Ok((dataset.raw_element_size()? as u128, chunk))
    });
    let (each, chunk) = match found {
        Ok(found) => found,
        Err(error) => return wrong(error),
    };
    let (declared, length) = (u128::from(rows) * u128::from(cols) * each, u128::from(file.storage().len()));
    if declared > LARGEST || declared > length * DEFLATE_RATIO {
        return wrong(format!("{declared} bytes of them in a file of {length}"));
    }
    let chunk = chunk.iter().try_fold(each, |bytes, &length| bytes.checked_mul(length));
    if chunk.is_none_or(|chunk| chunk > declared.max(SMALL_CHUNK)) {
        return wrong("chunks larger than all of them".into());
    }
    Ok(())
}

/// Reads the dataset that the target names.
pub(super) fn fill(file: &Hdf5File, out: &mut Target<'_>) -> Result<()> {
    let (rows, cols) = (out.matrix.rows as u64, out.matrix.cols as u64);
    if rows == 0 || cols == 0 {
        return Ok(());
    }
    let fail = |out: &Target<'_>, error: String| out.damaged(format!("{rows} x {cols} values"), error);
    let dataset = guarded(|| file.root_group()?.dataset(out.name)).map_err(|error| fail(out, error))?;
    let each = guarded(|| dataset.raw_element_size()).map_err(|error| fail(out, error))? as u64;
    // Rows of the dataset are columns of the matrix; whole chunks at a time, so that none is unpacked twice.
    let chunk = dataset.chunks().and_then(|chunks| chunks.first().copied()).map_or(1, u64::from).max(1);
    let step = (SLAB / rows.saturating_mul(each).max(1) / chunk).max(1).saturating_mul(chunk);
    let mut first = 0;
    while first < cols {
        let end = first.saturating_add(step).min(cols);
        let values = guarded(|| slab(&dataset, first..end)).map_err(|error| fail(out, error))?;
        if values.len() as u64 != (end - first) * rows {
            return Err(fail(out, format!("{} values from column {first} on", values.len())));
        }
        for (i, value) in values.into_iter().enumerate() {
            out.put(i % rows as usize, first as usize + i / rows as usize, value)?;
        }
        first = end;
    }
    Ok(())
}

/// Some rows of a dataset, one behind the other.
fn slab(dataset: &Dataset, range: std::ops::Range<u64>) -> std::result::Result<Vec<f64>, Hdf5Error> {
    let mut selection = SliceInfo::all(dataset.ndim());
    // A vector is one column, all of it.
    if dataset.ndim() > 1 {
        selection.selections[0] = SliceInfoElem::Slice { start: range.start, end: range.end, step: 1 };
    }
    macro_rules! read {
        ($($kind:literal => $type:ty),*) => {
            match kind(dataset.dtype()) {
                $(Some($kind) => dataset.read_slice::<$type>(&selection)?.into_iter().map(|value| value as f64).collect(),)*
                _ => return Err(Hdf5Error::InvalidData("another type of element".into())),
            }
        };
    }
    Ok(match dataset.dtype() {
        Datatype::Enum { .. } => dataset.read_slice::<Byte>(&selection)?.into_iter().map(|Byte(b)| b.into()).collect(),
        _ => read!("int8" => i8, "uint8" => u8, "int16" => i16, "uint16" => u16, "int32" => i32, "uint32" => u32,
                   "int64" => i64, "uint64" => u64, "single" => f32, "double" => f64),
    })
}

/// An element of an enumeration of one byte.
#[derive(Clone)]
struct Byte(u8);

impl hdf5_reader::H5Type for Byte {
    fn hdf5_type() -> Datatype {
        Datatype::FixedPoint { size: 1, signed: false, byte_order: ByteOrder::LittleEndian }
    }

    fn from_bytes(bytes: &[u8], _: &Datatype) -> std::result::Result<Self, Hdf5Error> {
        bytes.first().map(|&byte| Self(byte)).ok_or_else(|| Hdf5Error::InvalidData("an element without bytes".into()))
    }

    fn element_size(_: &Datatype) -> usize {
        1
    }
}

thread_local! {
    /// Whether this thread is inside the reader, whose panics are errors of the file.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread is worth a word.
pub(super) fn heard() -> bool {
    !INSIDE.get()
}

/// Calls the reader. A damaged file must not end the program, whatever the reader does with it, nor print where it stumbled.
pub(super) fn guarded<T>(call: impl FnOnce() -> std::result::Result<T, Hdf5Error>) -> std::result::Result<T, String> {
    static SILENCED: Once = Once::new();
    SILENCED.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if heard() {
                others(panic);
            }
        }));
    });
    let outer = INSIDE.replace(true);
    let called = panic::catch_unwind(panic::AssertUnwindSafe(call));
    INSIDE.set(outer);
    called.unwrap_or_else(|_| Err(Hdf5Error::InvalidData("lengths that contradict each other".into()))).map_err(
        |error| {
            let text = error.to_string();
            let mut letters = text.chars();
            letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
        },
    )
}
