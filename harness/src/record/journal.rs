//! One file a finished trial: TOML, because it keeps every bit of a float and knows NaN, below a line with its SHA-256.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use sha2::{Digest, Sha256};

use crate::output::{plain, quoted, short};

use super::{Error, Id, Result, Trial, files};

/// Bytes of the longest file: a trial of some ten million queries.
const LONGEST: u64 = 4 << 30;

/// How often a file is tried again.
const ATTEMPTS: usize = 4;

/// How long a folder's removal may take, in which no file of it can be written.
const PAUSE: Duration = Duration::from_millis(10);

const HEAD: &str = "# xmbench trial, sha256 ";

/// The folder of the journal.
pub const JOURNAL: &str = "journal";

/// The journal of a recording folder.
pub struct Journal {
    folder: PathBuf,
}

impl Journal {
    /// The journal of the recording in `recording`.
    pub fn of(recording: &Path) -> Self {
        Self { folder: recording.join(JOURNAL) }
    }

    /// Adds a trial, or replaces the one with its key.
    ///
    /// # Errors
    /// If the file cannot be written; it is then absent or as it was.
    pub fn add(&self, trial: &Trial) -> Result<()> {
        // A folder that somebody removes at this moment is made again: the end of the run says that it was removed.
        for _ in 0..ATTEMPTS {
            if self.write(trial).is_ok() {
                return Ok(());
            }
            thread::sleep(PAUSE);
        }
        self.write(trial)
    }

    fn write(&self, trial: &Trial) -> Result<()> {
        fs::create_dir_all(&self.folder).map_err(Error::io("create", &self.folder))?;
        let path = self.folder.join(format!("{}.toml", Id::of(&trial.key())));
        let body = toml::to_string(trial).expect("a trial is a tree of plain values");
        files::replace_with(&path, format!("{HEAD}{}\n{body}", digest(&body)).as_bytes())
    }

    /// Every trial, by key.
    ///
    /// # Errors
    /// If a file cannot be read or is damaged.
    pub fn read(&self) -> Result<BTreeMap<String, Trial>> {
        let mut trials = BTreeMap::new();
        if !self.folder.is_dir() {
            return Ok(trials);
        }
        for entry in fs::read_dir(&self.folder).map_err(Error::io("read", &self.folder))? {
            let path = entry.map_err(Error::io("read", &self.folder))?.path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                let trial = read(&path)?;
                trials.insert(trial.key(), trial);
            }
        }
        Ok(trials)
    }

    /// Removes the journal with its leftovers.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub fn remove(&self) -> Result<()> {
        if self.folder.is_dir() {
            fs::remove_dir_all(&self.folder).map_err(Error::io("remove", &self.folder))?;
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Trial> {
    let damaged = |expected: &str, found: String| Error::Damaged {
        path: path.into(),
        expected: expected.into(),
        found,
        next: "delete this file; the next run makes its trial again",
    };
    let bytes = files::read(path, LONGEST)?;
    let text = String::from_utf8(bytes).map_err(|error| damaged("UTF-8", error.to_string()))?;
    let (head, body) = text.split_once('\n').unwrap_or((&text, ""));
    let promised = head.strip_prefix(HEAD).ok_or_else(|| damaged("a first line with a SHA-256", quoted(head)))?;
    if promised != digest(body) {
        return Err(damaged("the content that its first line promises", format!("{} other bytes", body.len())));
    }
    let trial: Trial =
        toml::from_str(body).map_err(|error| damaged("a trial", short(&plain(error.message()), 300).into_owned()))?;
    trial.check().map_err(|wrong| damaged(&wrong.expected, wrong.found))?;
    Ok(trial)
}

/// SHA-256 of a text, in lower-case hexadecimal.
pub(crate) fn digest(text: &str) -> String {
    digest_of(text.as_bytes())
}

/// SHA-256 of bytes, in lower-case hexadecimal.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
