//! What a program is given to read: NumPy arrays, JSON lines and a table of pairs.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use serde_json::json;
use xmbench_datasets::{Features, Images, Pairs, Texts};

use crate::{Error, Result};

/// The row that each item has where row `k` is item `order[k]`.
pub fn rows(order: &[usize]) -> Vec<usize> {
    let mut rows = vec![0; order.len()];
    order.iter().enumerate().for_each(|(row, &item)| rows[item] = row);
    rows
}

/// `images.npy` and `fragments.npy`, in the given order of items.
pub fn images(folder: &Path, images: &Images, order: Option<&[usize]>) -> Result<()> {
    let order = of(order, images.len());
    array(&folder.join("images.npy"), images.global.as_deref(), &order, false)?;
    array(&folder.join("fragments.npy"), images.fragments.as_deref(), &order, true)
}

/// `texts.npy` and `texts.jsonl`, in the given order of items.
pub fn texts(folder: &Path, texts: &Texts, order: Option<&[usize]>) -> Result<()> {
    let order = of(order, texts.len());
    array(&folder.join("texts.npy"), texts.global.as_deref(), &order, false)?;
    if texts.raw.is_none() && texts.tokens.is_none() {
        return Ok(());
    }
    write(&folder.join("texts.jsonl"), |out| {
        for &item in order.iter() {
            let (text, tokens) =
                (texts.raw.as_ref().map(|raw| &raw[item]), texts.tokens.as_ref().map(|all| &all[item]));
            writeln!(out, "{}", json!({ "text": text, "tokens": tokens }))?;
        }
        Ok(Ok(()))
    })
}

/// `pairs.csv`: the rows of an image and a text that belong together.
pub fn pairs(folder: &Path, pairs: &Pairs) -> Result<()> {
    write(&folder.join("pairs.csv"), |out| {
        writeln!(out, "image,text")?;
        for (image, text) in pairs.all() {
            writeln!(out, "{image},{text}")?;
        }
        Ok(Ok(()))
    })
}

fn of(order: Option<&[usize]>, items: usize) -> Vec<usize> {
    order.map_or_else(|| (0..items).collect(), <[usize]>::to_vec)
}

/// An array of f32, `[n, d]`, or `[n, r, d]` of fragments; no file where there is no table.
fn array(path: &Path, table: Option<&dyn Features>, order: &[usize], fragments: bool) -> Result<()> {
    let Some(table) = table else { return Ok(()) };
    let shape = match fragments {
        true => format!("{}, {}, {}", order.len(), table.fragments(), table.width()),
        false => format!("{}, {}", order.len(), table.width()),
    };
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}");
    let width = (10 + header.len() + 1).next_multiple_of(64) - 11;
    let mut values = vec![0.0f32; table.fragments() * table.width()];
    write(path, |out| {
        out.write_all(b"\x93NUMPY\x01\x00")?;
        out.write_all(&(width as u16 + 1).to_le_bytes())?;
        writeln!(out, "{header:<width$}")?;
        for &item in order {
            if let Err(error) = table.read(item, &mut values) {
                return Ok(Err(error.into()));
            }
            values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes()))?;
        }
        Ok(Ok(()))
    })
}

/// Writes a file; the inner error is that of what is written.
fn write(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<Result<()>>) -> Result<()> {
    let mut out = BufWriter::new(File::create(path).map_err(Error::io(path))?);
    let filled = fill(&mut out).and_then(|filled| out.flush().map(|()| filled));
    filled.map_err(Error::io(path))?
}
