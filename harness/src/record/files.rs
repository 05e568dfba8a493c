//! Files that are whole or absent, whenever the process or the machine stops.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

use super::{Error, Result};

/// Writes `path` through a temporary sibling that is synced and renamed over it.
///
/// # Errors
/// If the folder cannot be written or the disk is full; `path` is then as it was before.
pub fn replace(path: &Path, write: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".partial-");
    // A recording is to be read by others too: as wide as the user's mask allows, not as narrow as a temporary file.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut temporary = builder.tempfile_in(folder).map_err(Error::io("write", path))?;
    write(temporary.as_file_mut()).map_err(Error::io("write", path))?;
    temporary.as_file().sync_all().map_err(Error::io("write", path))?;
    temporary.persist(path).map_err(|error| Error::io("write", path)(error.error))?;
    // The rename itself lives in the folder.
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io("write", folder))
}

/// Writes `path` as [`replace`] does.
///
/// # Errors
/// As [`replace`].
pub fn replace_with(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, |file| file.write_all(bytes))
}

/// Removes what a killed process left of files that it was writing into `folder`.
///
/// # Errors
/// If the folder cannot be read or a leftover cannot be removed.
pub fn sweep(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let path = entry.map_err(Error::io("read", folder))?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".partial-")) {
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_content_and_no_leftover() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        replace_with(&path, b"old").unwrap();
        let error = replace(&path, |file| {
            file.write_all(b"half of the n")?;
            Err(std::io::Error::from(std::io::ErrorKind::StorageFull))
        });
        assert!(error.unwrap_err().to_string().starts_with("cannot write "));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn leftovers_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".partial-x"), b"").unwrap();
        fs::write(folder.path().join("kept"), b"").unwrap();
        sweep(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
