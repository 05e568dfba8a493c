//! Files that hold arrays, by their first bytes: `.npy`, `.npz`, safetensors; and folders of numbered `.npy` files.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use safetensors::{Dtype, SafeTensors};

use super::{Bytes, Number, Part, REWRITE, zip};
use crate::{Error, Result, files, npy::Header};

/// The array of a file.
pub fn open(path: &Path, key: Option<&str>) -> Result<Part> {
    let map = Arc::new(files::map(path)?);
    if map.starts_with(b"\x93NUMPY") {
        if let Some(key) = key {
            let next = "leave out `#` and what follows";
            return Err(Error::content(path, "", "one array without a name", format!("`{key}` asked for"), next));
        }
        let end = map.len();
        return npy(path, "", Bytes::Mapped(map), 0, end);
    }
    if map.starts_with(b"PK") {
        let entries = zip::entries(path, &map)?;
        let names = entries.iter().map(|entry| entry.name.strip_suffix(".npy").unwrap_or(&entry.name));
        let at = chosen(path, &names.collect::<Vec<_>>(), key)?;
        let entry = &entries[at];
        let name = entry.name.strip_suffix(".npy").unwrap_or(&entry.name);
        return match zip::unpacked(path, entry, &map)? {
            None => npy(path, name, Bytes::Mapped(map.clone()), entry.start, entry.start + entry.packed),
            Some(bytes) => {
                let end = bytes.len();
                npy(path, name, Bytes::Unpacked(bytes.into()), 0, end)
            }
        };
    }
    tensor(path, key, map)
}

/// The array called `key`, or the only one.
fn chosen(path: &Path, names: &[&str], key: Option<&str>) -> Result<usize> {
    let shown = names.iter().take(20).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match key {
        Some(key) => names.iter().position(|name| *name == key).ok_or_else(|| {
            let near = crate::nearest(key, names.iter().copied());
            let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            let found = format!("`{key}`{hint}");
            Error::content(path, "", format!("one of its arrays {shown}"), found, "write `FILE#NAME`")
        }),
        None if names.len() == 1 => Ok(0),
        None => {
            let found = if names.is_empty() { "no array".into() } else { format!("{}: {shown}", names.len()) };
            Err(Error::content(path, "", "one array, or the name of one", found, "write `FILE#NAME`"))
        }
    }
}

/// The array of a `.npy` file that lies in `start..end` of `bytes`.
fn npy(path: &Path, key: &str, bytes: Bytes, start: usize, end: usize) -> Result<Part> {
    let wrong = |expected: String, found: String, next: &str| Err(Error::content(path, key, expected, found, next));
    let all = &bytes.all()[start..end];
    let (header, at) = Header::read(path, all)?;
    let number = match header.number() {
        Some(('f', 2)) => Number::F16,
        Some(('f', 4)) => Number::F32,
        Some(('f', 8)) => Number::F64,
        Some(('i', 1)) => Number::I8,
        Some(('u', 1)) => Number::U8,
        Some(('b', 1)) => Number::Bool,
        _ => {
            let expected = "type `<f2`, `<f4` or `<f8`, or for binary codes `|u1`, `|i1` or `|b1`";
            return wrong(expected.into(), format!("`{}`", header.descr), REWRITE);
        }
    };
    let [rows, cols] = header.shape[..] else {
        return wrong("two axes: rows and columns".into(), format!("shape {:?}", header.shape), REWRITE);
    };
    if header.fortran && rows > 1 && cols > 1 {
        return wrong("C order".into(), "Fortran order".into(), REWRITE);
    }
    let promised = u128::from(rows) * u128::from(cols) * number.bytes() as u128;
    if (all.len() - at) as u128 != promised {
        let expected = format!("{promised} bytes of data for shape {:?} of `{}`", header.shape, header.descr);
        let next = "the copy is incomplete or damaged: get the file again";
        return wrong(expected, format!("{} bytes", all.len() - at), next);
    }
    let (rows, cols) = (rows as usize, cols as usize);
    Ok(Part { path: path.into(), key: key.into(), bytes, start: start + at, rows, cols, number })
}

/// A tensor of a safetensors file.
fn tensor(path: &Path, key: Option<&str>, map: Arc<memmap2::Mmap>) -> Result<Part> {
    let tensors = SafeTensors::deserialize(&map).map_err(|error| {
        let expected = "a .npy, .npz or safetensors file, or a folder of .npy files";
        Error::content(path, "", expected, format!("none of them ({error})"), REWRITE)
    })?;
    let mut names = tensors.names();
    names.sort_unstable();
    let name = names[chosen(path, &names, key)?].to_owned();
    let view = tensors.tensor(&name).expect("a name of the file");
    let wrong = |expected: &str, found: String| Err(Error::content(path, &name, expected, found, REWRITE));
    let number = match view.dtype() {
        Dtype::F16 => Number::F16,
        Dtype::BF16 => Number::BF16,
        Dtype::F32 => Number::F32,
        Dtype::F64 => Number::F64,
        Dtype::I8 => Number::I8,
        Dtype::U8 => Number::U8,
        Dtype::BOOL => Number::Bool,
        other => {
            let expected = "type F16, BF16, F32 or F64, or for binary codes U8, I8 or BOOL";
            return wrong(expected, format!("{other:?}"));
        }
    };
    let [rows, cols] = *view.shape() else {
        return wrong("two axes: rows and columns", format!("shape {:?}", view.shape()));
    };
    // The reader has held the shape against the bytes; both lie in the map.
    let start = view.data().as_ptr() as usize - map.as_ptr() as usize;
    Ok(Part { path: path.into(), key: name, bytes: Bytes::Mapped(map), start, rows, cols, number })
}

/// Every file of a folder, in the order of its numbers.
pub fn folder(path: &Path, key: Option<&str>) -> Result<Vec<Part>> {
    numbered(path, key)?.iter().map(|path| open(path, None)).collect()
}

/// `NAME_0.npy`, `NAME_1.npy`, ..: all of one name, none missing.
pub fn numbered(folder: &Path, key: Option<&str>) -> Result<Vec<PathBuf>> {
    let wrong = |expected: String, found: String, next: &str| Err(Error::content(folder, "", expected, found, next));
    if let Some(key) = key {
        let next = "leave out `#` and what follows";
        return wrong("files without names of arrays".into(), format!("`{key}` asked for"), next);
    }
    let mut found: Vec<(String, u64, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let Some(stem) = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".npy"))
        else {
            continue;
        };
        let name = stem.trim_end_matches(|c: char| c.is_ascii_digit());
        let Ok(number) = stem[name.len()..].parse() else {
            let found = format!("`{stem}.npy`");
            return wrong(
                "names that end in a number, NAME_0.npy".into(),
                found,
                "name the file itself, or move it away",
            );
        };
        found.push((name.into(), number, path));
    }
    found.sort();
    let next = "name the folder that the files lie in, such as img_emb";
    let Some((first, ..)) = found.first() else {
        return wrong("files NAME_0.npy, NAME_1.npy, ..".into(), "none".into(), next);
    };
    for (at, (name, number, path)) in found.iter().enumerate() {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        if name != first {
            return wrong(
                format!("files of one name, {first}0.npy, ..").to_string(),
                format!("`{file}` as well"),
                next,
            );
        }
        if *number != at as u64 {
            let next = "get the missing file, or number them from 0 without gaps";
            return wrong(format!("`{first}{at}.npy`"), format!("`{file}` in its place"), next);
        }
    }
    Ok(found.into_iter().map(|(_, _, path)| path).collect())
}
