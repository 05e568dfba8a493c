//! From a folder of pictures with captions to a folder of features that the dataset `precomp` reads.
//!
//! 1. Captions are read and splits that they or lists name are assigned (`datasets/src/captions`).
//! 2. Pictures go through the encoder, [`CHUNK`] at a time; each chunk becomes a file in `OUT/.extract` (`shards.rs`). A run that was interrupted goes on
//!    behind the chunks that are there. A picture that cannot be used is noted with its reason, and the next one is taken.
//!    Where there is a network for texts, captions go through it in the same way (`texts.rs`).
//! 3. Where nobody named splits, they are drawn from a seed, near duplicates of one another into the same one (`split.rs`).
//! 4. The files of each split are written beside the chunks, moved to their places, and last of all the manifest (`folder.rs`). What is in the
//!    folder is a function of pictures, captions, weights and settings: not of the clock, the threads or interruptions.

mod folder;
mod shards;
mod split;
mod texts;

use std::{
    fs::{self, File, TryLockError},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use xmbench_datasets::{
    Error, Notice, Result,
    captions::{self, Captioned, Listing},
    files,
};

pub use self::{
    folder::{Manifest, Sizes, Skipped},
    split::{Drawn, Splitting},
};
use self::{
    shards::{Outcome, Row, Stamp, Store},
    texts::Reader,
};
use crate::{
    encoder::{Encoder, Seen, TextEncoder},
    picture::{Limit, decode},
};

/// Pictures that go through the encoder together.
pub const CHUNK: usize = 64;

/// Bytes of the largest file that is taken for a picture.
const LARGEST: u64 = 256 << 20;

/// The folder of what is not finished.
const WORK: &str = ".extract";

/// How features are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Two bytes a value.
    #[default]
    F16,
    /// Four bytes a value.
    F32,
}

/// What is to be extracted.
#[derive(Debug, Clone)]
pub struct Job {
    /// The folder of pictures.
    pub images: PathBuf,
    /// Files of captions; what lies among the pictures when there are none.
    pub captions: Vec<PathBuf>,
    /// Lists of the images of a split.
    pub lists: Vec<(String, PathBuf)>,
    /// How splits are drawn; what captions and lists say goes before where it is `None`.
    pub drawn: Option<Drawn>,
    /// The largest picture.
    pub limit: Limit,
    /// How features are stored.
    pub precision: Precision,
    /// The folder that is written.
    pub out: PathBuf,
    /// Whether features that are in it are replaced.
    pub fresh: bool,
    /// Title, licence and attribution of the pictures; what is empty is filled in.
    pub notice: Notice,
}

/// How far an extraction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Pictures that are done.
    pub done: usize,
    /// Of so many.
    pub total: usize,
    /// Those of `done` that cannot be used.
    pub skipped: usize,
    /// Those of `done` that were not before this run began.
    pub fresh: usize,
}

/// Who watches an extraction.
pub trait Watch: Sync {
    /// A chunk is done.
    fn progress(&self, at: Progress);
    /// So many captions are read, of the pictures of so many chunks out of all.
    fn read(&self, captions: usize, chunks: usize, of: usize) {
        let _ = (captions, chunks, of);
    }
    /// Whether to stop behind the chunk under way.
    fn stopped(&self) -> bool;
}

/// How an extraction ended.
#[derive(Debug)]
pub enum End {
    /// The folder is complete.
    Done(Box<Manifest>),
    /// It was before, for the same pictures, captions, weights and settings.
    Already(Box<Manifest>),
    /// It was stopped; the same command goes on, but for `fresh`.
    Stopped {
        /// Pictures that are done.
        done: usize,
        /// Of so many.
        total: usize,
    },
}

/// Extracts the features of a folder of pictures with an encoder whose weights have this SHA-256, and of their captions if the encoder
/// has a network for them.
///
/// # Errors
/// If captions cannot be read, a list does not fit them, no picture can be used, a split is empty, the folder holds other features and `fresh` is not set,
/// another extraction is writing there, or a file cannot be written.
pub fn extract(job: &Job, encoder: &dyn Encoder, weights: &str, watch: &dyn Watch) -> Result<End> {
    extract_with(job, encoder, weights, None, watch)
}

/// As [`extract`], with a network of its own for captions.
///
/// # Errors
/// As [`extract`].
pub fn extract_with(
    job: &Job,
    encoder: &dyn Encoder,
    weights: &str,
    texts: Option<&dyn TextEncoder>,
    watch: &dyn Watch,
) -> Result<End> {
    let joint = texts.is_none();
    let texts = texts.or_else(|| encoder.texts());
    let mut listing = captions::read(&job.images, &job.captions)?;
    if !job.lists.is_empty() {
        captions::assign(&mut listing.items, &job.lists)?;
    }
    let splitting = Splitting::of(&mut listing.items, job.drawn)?;
    let mut request =
        digest(&(program(), encoder.recipe(), weights, job.precision, &listing.items, &splitting, job.limit.pixels));
    if let Some(texts) = texts {
        request = digest(&(request, texts.recipe(), joint));
    }
    if let Some(found) = Manifest::read(&job.out)?
        && !job.fresh
        && found.request == request
    {
        return Ok(End::Already(Box::new(found)));
    }
    let work = job.out.join(WORK);
    // A folder in which an extraction is under way was looked at when it began.
    if !job.fresh && !files::there(&work) {
        folder::refuse_others(&job.out)?;
    }
    fs::create_dir_all(&work).map_err(Error::write(&work))?;
    let lock = lock(&work)?;
    let images: Vec<&str> = listing.items.iter().map(|item| item.image.as_str()).collect();
    let key = digest(&(program(), encoder.recipe(), weights, job.precision, &images, job.limit.pixels));
    let store = Store::open(&work, &key, encoder.recipe(), job.precision, job.fresh)?;
    if let Some(done) = encode(job, encoder, &store, &listing, watch)? {
        return Ok(End::Stopped { done, total: listing.items.len() });
    }
    let reader = texts.map(|texts| Reader::open(texts, &listing.items, &work, joint, job.fresh)).transpose()?;
    if let Some(reader) = &reader {
        let (mut captions, chunks) = (0, listing.items.len().div_ceil(CHUNK));
        for number in 0..chunks {
            if watch.stopped() {
                return Ok(End::Stopped { done: listing.items.len(), total: listing.items.len() });
            }
            captions += reader.ensure(number)?;
            watch.read(captions, number + 1, chunks);
        }
    }
    let manifest =
        folder::write(job, (encoder.recipe(), weights), reader.as_ref(), &listing, &splitting, &store, &request)?;
    fs::remove_dir_all(&work).map_err(Error::write(&work))?;
    drop(lock);
    Ok(End::Done(Box::new(manifest)))
}

/// Sends what is not done through the encoder; returns how many are if it was stopped.
fn encode(
    job: &Job,
    encoder: &dyn Encoder,
    store: &Store,
    listing: &Listing,
    watch: &dyn Watch,
) -> Result<Option<usize>> {
    let root = fs::canonicalize(&job.images).map_err(Error::io(&job.images))?;
    let mut at = Progress { total: listing.items.len(), ..Progress::default() };
    for (number, items) in listing.items.chunks(CHUNK).enumerate() {
        let stamps: Vec<Option<Stamp>> = items.iter().map(|item| Stamp::of(&root.join(&item.image))).collect();
        let known = store.read(number)?.filter(|rows| rows.iter().map(|row| &row.stamp).eq(&stamps));
        let rows = match known {
            Some(rows) => rows,
            None if watch.stopped() => return Ok(Some(at.done)),
            None => {
                let rows = chunk(&root, encoder, job.limit, items, stamps)?;
                store.write(number, &rows)?;
                at.fresh += rows.len();
                rows
            }
        };
        at.done += rows.len();
        at.skipped += rows.iter().filter(|row| matches!(row.outcome, Outcome::Skipped(_))).count();
        watch.progress(at);
    }
    Ok(None)
}

/// What the encoder makes of some pictures.
fn chunk(
    root: &Path,
    encoder: &dyn Encoder,
    limit: Limit,
    items: &[Captioned],
    stamps: Vec<Option<Stamp>>,
) -> Result<Vec<Row>> {
    let seen: Vec<std::result::Result<Seen, String>> =
        items.par_iter().map(|item| look(root, encoder, limit, &item.image)).collect();
    let (mut usable, mut reasons) = (Vec::new(), Vec::new());
    for found in seen {
        match found {
            Ok(seen) => {
                usable.push(seen);
                reasons.push(None);
            }
            Err(reason) => reasons.push(Some(reason)),
        }
    }
    let mut encoded = encoder.encode_seen(&usable)?.into_iter();
    let rows = stamps.into_iter().zip(reasons).map(|(stamp, reason)| {
        let outcome = match reason {
            Some(reason) => Outcome::Skipped(reason),
            None => Outcome::Encoded(encoded.next().expect("an answer for each picture")),
        };
        Row { stamp, outcome }
    });
    Ok(rows.collect())
}

/// Reads and prepares a picture, or says why that cannot be done.
fn look(root: &Path, encoder: &dyn Encoder, limit: Limit, image: &str) -> std::result::Result<Seen, String> {
    let path = root.join(image);
    let real = fs::canonicalize(&path).map_err(|error| format!("cannot be read: {error}"))?;
    if !real.starts_with(root) {
        return Err(format!("expected a file within the folder of pictures, found a link to {}", real.display()));
    }
    let length = fs::metadata(&real).map_err(|error| format!("cannot be read: {error}"))?.len();
    if length > LARGEST {
        return Err(format!("expected at most {LARGEST} bytes, found {length}"));
    }
    let bytes = files::read(&real).map_err(|error| match error {
        Error::Content { expected, found, .. } => format!("expected {expected}, found {found}"),
        other => other.to_string(),
    })?;
    // Decoders of damaged files are the work of others: one that panics costs a picture and not the run.
    let decoded = catch_unwind(AssertUnwindSafe(|| decode(&bytes, limit)));
    let picture = decoded.map_err(|_| "the decoder stopped at it".to_owned())??;
    Ok(encoder.prepare(&picture))
}

/// Name and version of this program.
fn program() -> String {
    format!("xmbench {}", env!("CARGO_PKG_VERSION"))
}

/// SHA-256 of a value as JSON.
fn digest(value: &impl Serialize) -> String {
    hex(&Sha256::digest(serde_json::to_vec(value).expect("a tree of plain values")))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Only one extraction writes into a folder.
fn lock(work: &Path) -> Result<File> {
    let path = work.join("lock");
    let file = File::create(&path).map_err(Error::write(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let next = "wait for it, or name another folder";
            Err(Error::content(work, "", "a folder of its own", "another extraction that writes there", next))
        }
        Err(TryLockError::Error(error)) => Err(Error::Write { path, source: error }),
    }
}

#[cfg(test)]
mod tests;
