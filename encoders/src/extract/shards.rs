//! What is done of an extraction: a file for each chunk of pictures.
//!
//! A file is there as a whole or not at all (it is written beside and renamed), and ends with the SHA-256 of what is before. A file of
//! another extraction, or a damaged one, counts as absent: its pictures are encoded again.

use std::{
    fs,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use half::f16;
use sha2::{Digest, Sha256};
use xmbench_datasets::{Error, Result, files};

use super::Precision;
use crate::encoder::{Encoded, Recipe};

/// What a file begins with, and the version of what follows.
const MAGIC: &[u8; 8] = b"xmbshrd1";

/// What of a picture's file shows that it was changed: its length and when it was written, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    length: u64,
    modified: u64,
}

impl Stamp {
    /// Of a file that is there.
    pub fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        let modified = found.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Some(Self { length: found.len(), modified: modified.map_or(0, |time| time.as_nanos() as u64) })
    }
}

/// What became of a picture.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    Encoded(Encoded),
    /// Why it cannot be used.
    Skipped(String),
}

/// A picture and what became of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub stamp: Option<Stamp>,
    pub outcome: Outcome,
}

/// The chunks of one extraction.
pub(super) struct Store {
    folder: PathBuf,
    /// What they are chunks of.
    key: String,
    width: usize,
    cells: usize,
    region_width: usize,
    precision: Precision,
}

impl Store {
    /// The chunks in a folder; those of another extraction are removed, and all of them if `fresh`.
    pub fn open(work: &Path, key: &str, recipe: &Recipe, precision: Precision, fresh: bool) -> Result<Self> {
        let folder = work.join("chunks");
        let known = work.join("key");
        let same = files::there(&known) && files::read(&known)? == key.as_bytes();
        if (fresh || !same) && files::there(&folder) {
            fs::remove_dir_all(&folder).map_err(Error::write(&folder))?;
        }
        fs::create_dir_all(&folder).map_err(Error::write(&folder))?;
        fs::write(&known, key).map_err(Error::write(&known))?;
        Ok(Self {
            folder,
            key: key.to_owned(),
            width: recipe.width,
            cells: recipe.grid * recipe.grid,
            region_width: recipe.region_width,
            precision,
        })
    }

    fn path(&self, number: usize) -> PathBuf {
        self.folder.join(format!("{number:08}"))
    }

    /// Writes a chunk.
    pub fn write(&self, number: usize, rows: &[Row]) -> Result<()> {
        let mut out = Writer(MAGIC.to_vec());
        out.bytes(self.key.as_bytes());
        out.number(rows.len() as u64);
        for row in rows {
            out.0.push(u8::from(row.stamp.is_some()));
            let stamp = row.stamp.unwrap_or(Stamp { length: 0, modified: 0 });
            out.number(stamp.length);
            out.number(stamp.modified);
            match &row.outcome {
                Outcome::Skipped(reason) => {
                    out.0.push(0);
                    out.bytes(reason.as_bytes());
                }
                Outcome::Encoded(encoded) => {
                    out.0.push(1);
                    out.floats(&encoded.global);
                    out.floats(encoded.boxes.as_flattened());
                    match self.precision {
                        Precision::F32 => out.floats(&encoded.regions),
                        Precision::F16 => {
                            encoded.regions.iter().for_each(|&x| out.0.extend(f16::from_f32(x).to_le_bytes()));
                        }
                    }
                }
            }
        }
        let digest = Sha256::digest(&out.0);
        out.0.extend(digest);
        let (path, beside) = (self.path(number), self.folder.join("next"));
        fs::write(&beside, out.0).map_err(Error::write(&beside))?;
        fs::rename(&beside, &path).map_err(Error::write(&path))
    }

    /// Reads a chunk, unless it is absent, damaged or of another extraction.
    pub fn read(&self, number: usize) -> Result<Option<Vec<Row>>> {
        let path = self.path(number);
        if !files::there(&path) {
            return Ok(None);
        }
        let bytes = files::read(&path)?;
        let Some((content, digest)) = bytes.split_last_chunk::<32>() else { return Ok(None) };
        if Sha256::digest(content)[..] != digest[..] {
            return Ok(None);
        }
        Ok(self.rows(&mut Reader(content)))
    }

    fn rows(&self, from: &mut Reader<'_>) -> Option<Vec<Row>> {
        if from.take(MAGIC.len())? != MAGIC || from.bytes()? != self.key.as_bytes() {
            return None;
        }
        let count = from.number()?;
        let mut rows = Vec::new();
        for _ in 0..count {
            let there = from.take(1)?[0] == 1;
            let stamp = Stamp { length: from.number()?, modified: from.number()? };
            let outcome = match from.take(1)?[0] {
                0 => Outcome::Skipped(String::from_utf8_lossy(from.bytes()?).into_owned()),
                _ => {
                    let global = from.floats(self.width)?;
                    let boxes = from.floats(4 * self.cells)?.as_chunks::<4>().0.to_vec();
                    let count = self.cells * self.region_width;
                    let regions = match self.precision {
                        Precision::F32 => from.floats(count)?,
                        Precision::F16 => {
                            let (values, _) = from.take(2 * count)?.as_chunks::<2>();
                            values.iter().map(|&bytes| f16::from_le_bytes(bytes).to_f32()).collect()
                        }
                    };
                    Outcome::Encoded(Encoded { global, regions, boxes })
                }
            };
            rows.push(Row { stamp: there.then_some(stamp), outcome });
        }
        from.0.is_empty().then_some(rows)
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }
    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend(bytes);
    }
    fn floats(&mut self, values: &[f32]) {
        values.iter().for_each(|value| self.0.extend(value.to_le_bytes()));
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
    fn number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
    fn bytes(&mut self) -> Option<&'a [u8]> {
        let count = usize::try_from(self.number()?).ok()?;
        self.take(count)
    }
    fn floats(&mut self, count: usize) -> Option<Vec<f32>> {
        let (values, _) = self.take(count.checked_mul(4)?)?.as_chunks::<4>();
        Some(values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
    }
}
