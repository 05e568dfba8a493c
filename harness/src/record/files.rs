//! Files that are whole or absent, whenever the process or the machine stops.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::Path,
};

use super::{Error, Result};

/// Writes `path` through a temporary sibling that is synced and renamed over it.
///
/// # Errors
/// If the folder cannot be written or the disk is full; `path` is then as it was before.
pub fn replace(path: &Path, write: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<()> {
    let folder = swap(path, |file| {
        write(file)?;
        file.sync_all()
    })?;
    // The rename itself lives in the folder.
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io("write", folder))
}

/// Writes `path` as [`replace`] does, but waits for no disk: whole or absent when the process stops, not when the machine does. For
/// files that can be made again.
///
/// # Errors
/// As [`replace`].
pub fn replace_with_unsynced(path: &Path, bytes: &[u8]) -> Result<()> {
    swap(path, |file| file.write_all(bytes)).map(drop)
}

/// Writes a temporary sibling and renames it; the folder of both.
fn swap(path: &Path, write: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<&Path> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".partial-");
    // A recording is to be read by others too: as wide as the user's mask allows, not as narrow as a temporary file.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut temporary = builder.tempfile_in(folder).map_err(Error::io("write", path))?;
    write(temporary.as_file_mut()).map_err(Error::io("write", path))?;
    temporary.persist(path).map_err(|error| Error::io("write", path)(error.error))?;
    Ok(folder)
}

/// Reads a file of at most `most` bytes; nothing else than a file, because a pipe or a device may never end.
///
/// # Errors
/// If it is no file, is longer, or cannot be read.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let refused = |expected: String, found: String| Error::Damaged {
        path: path.into(),
        expected,
        found,
        next: "restore the file from a copy, or record anew into another folder with --out",
    };
    let kind = fs::metadata(path).map_err(Error::io("read", path))?;
    if !kind.is_file() {
        return Err(refused("a file".into(), "a folder, a pipe or a device".into()));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(Error::io("read", path))?;
    file.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    if bytes.len() as u64 > most {
        return Err(refused(format!("at most {most} bytes"), "more".into()));
    }
    Ok(bytes)
}

/// Refuses a link where a folder is about to be written or emptied: it may lead anywhere.
///
/// # Errors
/// If `path` is a link.
pub fn no_link(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(kind) if kind.file_type().is_symlink() => Err(Error::Damaged {
            path: path.into(),
            expected: "a part of the recording".into(),
            found: "a link that leads elsewhere".into(),
            next: "remove the link",
        }),
        _ => Ok(()),
    }
}

/// Writes `path` as [`replace`] does.
///
/// # Errors
/// As [`replace`].
pub fn replace_with(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, |file| file.write_all(bytes))
}

/// Bytes of the files in a folder and in the folders in it; links are not followed.
pub fn size(folder: &Path) -> u64 {
    let files = walkdir::WalkDir::new(folder).into_iter().filter_map(|entry| entry.ok()?.metadata().ok());
    files.filter(std::fs::Metadata::is_file).map(|file| file.len()).sum()
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

    #[cfg(unix)]
    #[test]
    fn only_files_are_read_and_only_so_much() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, b"four").unwrap();
        assert_eq!(read(&path, 4).unwrap(), b"four");
        assert!(read(&path, 3).unwrap_err().to_string().contains("at most 3 bytes"));
        for endless in [Path::new("/dev/zero"), folder.path()] {
            assert!(read(endless, 1 << 20).unwrap_err().to_string().contains("expected a file"), "{endless:?}");
        }
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
