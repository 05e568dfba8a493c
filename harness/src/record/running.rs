//! The trial under way: what a run that is killed leaves behind about it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Error, Id, Result, files};

/// Bytes of the longest note.
const LONGEST: u64 = 4096;

/// A trial under way, and how often the system had ended programs for want of memory when it began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    id: Id,
    /// Of one start of the machine; the count begins anew with the next.
    boot: String,
    kills: u64,
}

impl Running {
    fn now(id: &Id) -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_string();
        let counts = fs::read_to_string("/proc/vmstat").unwrap_or_default();
        let count = counts.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
        Self { id: id.clone(), boot, kills: count.unwrap_or(0) }
    }

    /// What the last run in `folder` left. A note that does not read says nothing: no number depends on it.
    pub fn left_in(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&files::read(&path(folder), LONGEST).ok()?).ok()
    }

    /// Notes that the trial of this identity begins. A folder that somebody has removed gets no note: the end of the run says that it was
    /// removed.
    ///
    /// # Errors
    /// If the note cannot be written.
    pub fn begins(folder: &Path, id: &Id) -> Result<()> {
        let note = serde_json::to_vec(&Self::now(id)).expect("a note is plain values");
        files::replace_with_unsynced(&path(folder), &note)
            .or_else(|error| if folder.is_dir() { Err(error) } else { Ok(()) })
    }

    /// Removes the note, if there is one.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn ends(folder: &Path) -> Result<()> {
        match fs::remove_file(path(folder)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", &path(folder))(error))
            }
            _ => Ok(()),
        }
    }

    /// Whether the trial of this identity was under way when the system ended a program for want of memory, which is then taken to
    /// have been this one.
    pub fn was_too_large(&self, id: &Id) -> bool {
        self.is_before(&Self::now(id))
    }

    fn is_before(&self, now: &Self) -> bool {
        self.id == now.id && self.boot == now.boot && self.kills < now.kills
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join("running.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(trial: &str, boot: &str, kills: u64) -> Running {
        Running { id: Id::of(trial), boot: boot.into(), kills }
    }

    #[test]
    fn only_a_kill_for_memory_since_the_trial_began_counts() {
        let left = note("a", "first", 3);
        assert!(left.is_before(&note("a", "first", 4)));
        assert!(!left.is_before(&note("a", "first", 3)), "ended by something else");
        assert!(!left.is_before(&note("a", "second", 4)), "the machine was started anew");
        assert!(!left.is_before(&note("b", "first", 4)), "another trial");
    }

    #[test]
    fn a_note_reads_back_and_another_file_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Running::left_in(folder.path()), None);
        Running::begins(folder.path(), &Id::of("a")).unwrap();
        assert_eq!(Running::left_in(folder.path()).map(|left| left.id), Some(Id::of("a")));
        fs::write(path(folder.path()), r#"{"id": "../../victim", "boot": "", "kills": 0}"#).unwrap();
        assert_eq!(Running::left_in(folder.path()), None);
        Running::ends(folder.path()).unwrap();
        Running::ends(folder.path()).unwrap();
        assert!(!path(folder.path()).exists());
        Running::begins(&folder.path().join("removed"), &Id::of("a")).unwrap();
    }
}
