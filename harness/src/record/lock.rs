//! One run at a time writes into a recording folder.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::Path,
};

use super::{Error, Result};

/// Held as long as a run writes; the operating system lets go of it even after `kill -9`.
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of the folder.
    ///
    /// # Errors
    /// [`Error::Locked`] with the holder's process number, or if the folder cannot be written.
    pub fn take(folder: &Path) -> Result<Self> {
        let path = folder.join(".lock");
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
                let _ = file.read_to_string(&mut holder);
                let holder =
                    if holder.is_empty() { "process unknown".into() } else { format!("process {}", holder.trim()) };
                return Err(Error::Locked { path: folder.into(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(Error::io("lock", &path)(source)),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(Error::io("write", &path))?;
        Ok(Self { _file: file })
    }
}
