//! The trials under way: what a run that is killed leaves behind about them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Error, Id, Result, files};

/// Bytes of the longest note.
const LONGEST: u64 = 4096;

/// Trials under way, and how often the system had ended programs for want of memory when the last of them began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    ids: Vec<Id>,
    /// Of one start of the machine; the count begins anew with the next.
    boot: String,
    kills: u64,
}

impl Running {
    fn now(ids: &[Id]) -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_string();
        let counts = fs::read_to_string("/proc/vmstat").unwrap_or_default();
        let count = counts.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
        Self { ids: ids.to_vec(), boot, kills: count.unwrap_or(0) }
    }

    /// What the last run in `folder` left. A note that does not read says nothing: no number depends on it.
    pub fn left_in(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&files::read(&path(folder), LONGEST).ok()?).ok()
    }

    /// Notes which trials are under way; no note where none is. A folder that somebody has removed gets no note: the end of the run says
    /// that it was removed.
    ///
    /// # Errors
    /// If the note cannot be written or removed.
    pub fn are(folder: &Path, ids: &[Id]) -> Result<()> {
        if ids.is_empty() {
            return match fs::remove_file(path(folder)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(Error::io("remove", &path(folder))(error))
                }
                _ => Ok(()),
            };
        }
        let note = serde_json::to_vec(&Self::now(ids)).expect("a note is plain values");
        files::replace_with_unsynced(&path(folder), &note)
            .or_else(|error| if folder.is_dir() { Err(error) } else { Ok(()) })
    }

    /// Whether the trial of this identity was under way alone when the system ended a program for want of memory, which is then taken to
    /// have been this one.
    pub fn was_too_large(&self, id: &Id) -> bool {
        self.ids == [id.clone()] && self.is_before(&Self::now(&[]))
    }

    /// Whether several trials were under way when the system ended a program for want of memory.
    pub fn were_too_many(&self) -> bool {
        self.ids.len() > 1 && self.is_before(&Self::now(&[]))
    }

    fn is_before(&self, now: &Self) -> bool {
        self.boot == now.boot && self.kills < now.kills
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join("running.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(trials: &[&str], boot: &str, kills: u64) -> Running {
        Running { ids: trials.iter().map(|trial| Id::of(trial)).collect(), boot: boot.into(), kills }
    }

    #[test]
    fn only_a_kill_for_memory_since_the_trial_began_counts() {
        let left = note(&["a"], "first", 3);
        assert!(left.is_before(&note(&[], "first", 4)));
        assert!(!left.is_before(&note(&[], "first", 3)), "ended by something else");
        assert!(!left.is_before(&note(&[], "second", 4)), "the machine was started anew");
    }

    #[test]
    fn one_trial_was_too_large_and_several_were_too_many() {
        let now = Running::now(&[]);
        let of = |trials: &[&str]| Running { boot: now.boot.clone(), ..note(trials, "", 0) };
        // A machine that has not ended a program yet cannot tell.
        let killed = now.kills > 0;
        let (one, two) = (of(&["a"]), of(&["a", "b"]));
        assert_eq!((one.was_too_large(&Id::of("a")), one.were_too_many()), (killed, false));
        assert!(!one.was_too_large(&Id::of("b")), "another trial");
        assert_eq!((two.was_too_large(&Id::of("a")), two.were_too_many()), (false, killed));
    }

    #[test]
    fn a_note_reads_back_and_another_file_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let ids = ["a", "b"].map(Id::of);
        assert_eq!(Running::left_in(folder.path()), None);
        Running::are(folder.path(), &ids).unwrap();
        assert_eq!(Running::left_in(folder.path()).map(|left| left.ids), Some(ids.to_vec()));
        fs::write(path(folder.path()), r#"{"ids": ["../../victim"], "boot": "", "kills": 0}"#).unwrap();
        assert_eq!(Running::left_in(folder.path()), None);
        Running::are(folder.path(), &[]).unwrap();
        Running::are(folder.path(), &[]).unwrap();
        assert!(!path(folder.path()).exists());
        Running::are(&folder.path().join("removed"), &ids).unwrap();
    }
}
