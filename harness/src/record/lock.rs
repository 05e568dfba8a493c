//! One run at a time writes into a recording folder.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
};

use super::{Error, Result, files};

/// Held as long as a run writes; the operating system lets go of it even after `kill -9`.
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock of the folder.
    ///
    /// # Errors
    /// [`Error::Locked`] with the holder's process number, or if the folder cannot be written.
    pub fn take(folder: &Path) -> Result<Self> {
        let path = folder.join(".lock");
        files::no_link(&path)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::io("write", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // On some systems a locked file cannot be read; the message then does without the number.
                let _ = file.take(32).read_to_string(&mut holder);
                let number = holder.trim().parse::<u32>();
                let holder = number.map_or("process unknown".into(), |number| format!("process {number}"));
                return Err(Error::Locked { path: folder.into(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(Error::io("lock", &path)(source)),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(Error::io("write", &path))?;
        Ok(Self { file, path })
    }

    /// Whether the folder still has the file that is held, and not another one or none.
    pub fn is_held(&self) -> bool {
        let (Ok(there), Ok(held)) = (fs::metadata(&self.path), self.file.metadata()) else { return false };
        same(&there, &held)
    }
}

#[cfg(unix)]
fn same(a: &fs::Metadata, b: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// A file that is held open cannot be removed elsewhere.
#[cfg(not(unix))]
fn same(_: &fs::Metadata, _: &fs::Metadata) -> bool {
    true
}
