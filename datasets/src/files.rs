//! The one door: every reader of data opens its files here.
//!
//! What is no regular file is refused from its metadata, before it is opened: a FIFO waits for a writer that may never come, and
//! `/dev/zero` has no end. No more is read than the length that the metadata gives.
//!
//! A symbolic link among the files of a folder is followed as long as it stays inside that folder. A dataset is data from somebody
//! else: unpacked from an archive, a link `train_caps.txt` to a file of the user's would carry its lines into reports. A folder that
//! is a link, and a file that a user names himself, are the user's word and are followed.

use std::{
    fs::{self, File, Metadata},
    io::Read,
    path::{Path, PathBuf},
};

use memmap2::Mmap;

use crate::{Error, Result};

/// Opens a regular file and tells its length.
///
/// # Errors
/// If it is absent, no regular file, a link that leads out of its folder, or cannot be opened.
pub fn open(path: &Path) -> Result<(File, u64)> {
    within(path)?;
    regular(path, &fs::metadata(path).map_err(Error::io(path))?)?;
    let file = File::open(path).map_err(Error::io(path))?;
    // Once more of what was opened: between the two somebody may have put something else there.
    let found = file.metadata().map_err(Error::io(path))?;
    regular(path, &found)?;
    Ok((file, found.len()))
}

/// Maps a file into memory.
///
/// # Errors
/// As [`open`].
pub fn map(path: &Path) -> Result<Mmap> {
    let (file, _) = open(path)?;
    // SAFETY: the map is only read; a file that another program shortens meanwhile ends the process with a bus error, as
    // with every mapped file.
    unsafe { Mmap::map(&file) }.map_err(Error::io(path))
}

/// Reads a file, at most as many bytes as it says it has.
///
/// # Errors
/// As [`open`], and if it is larger than the memory that there is.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let (file, length) = open(path)?;
    let mut bytes = Vec::new();
    let room = usize::try_from(length).ok().and_then(|length| bytes.try_reserve_exact(length).ok());
    if room.is_none() {
        let next = "cut it into smaller files";
        return Err(Error::content(path, "", "a file that fits into memory", format!("{length} bytes"), next));
    }
    file.take(length).read_to_end(&mut bytes).map_err(Error::io(path))?;
    Ok(bytes)
}

/// Whether there is anything of that name, be it a file, a link that leads nowhere or something that [`open`] will refuse: what
/// is there must not pass for absent.
pub fn there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// The file that a user named himself: a link is followed wherever it leads.
///
/// # Errors
/// If it is absent.
pub fn named(path: &Path) -> Result<PathBuf> {
    match fs::symlink_metadata(path).map_err(Error::io(path))?.is_symlink() {
        true => fs::canonicalize(path).map_err(Error::io(path)),
        false => Ok(path.to_owned()),
    }
}

/// What is there in place of a regular file or folder.
pub(crate) fn odd(found: &Metadata) -> Option<&'static str> {
    let kind = found.file_type();
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        for (is, name) in [
            (kind.is_fifo(), "a FIFO"),
            (kind.is_socket(), "a socket"),
            (kind.is_char_device(), "a character device"),
            (kind.is_block_device(), "a block device"),
        ] {
            if is {
                return Some(name);
            }
        }
    }
    (!kind.is_file() && !kind.is_dir()).then_some("something else")
}

fn regular(path: &Path, found: &Metadata) -> Result<()> {
    let kind = if found.is_dir() { Some("a folder") } else { odd(found) };
    kind.map_or(Ok(()), |kind| {
        Err(Error::content(path, "", "a regular file", kind, "copy what it gives into a file, and name that"))
    })
}

/// Whether it is a link that [`open`] will refuse for where it leads.
pub(crate) fn leads_out(path: &Path) -> bool {
    outside(path).is_ok_and(|target| target.is_some())
}

/// The target of a link that leads out of the folder in which it lies.
fn outside(path: &Path) -> Result<Option<PathBuf>> {
    if !fs::symlink_metadata(path).map_err(Error::io(path))?.is_symlink() {
        return Ok(None);
    }
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = fs::canonicalize(folder).map_err(Error::io(folder))?;
    let target = fs::canonicalize(path).map_err(Error::io(path))?;
    Ok(Some(target).filter(|target| !target.starts_with(&folder)))
}

/// Refuses a link that leads out of the folder in which it lies.
fn within(path: &Path) -> Result<()> {
    outside(path)?.map_or(Ok(()), |target| {
        let found = format!("a link to {}", target.display());
        let next = "copy the file into the folder, or name the folder in which it lies";
        Err(Error::content(path, "", "a file that lies in this folder", found, next))
    })
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::{fs::symlink, net::UnixListener};

    use super::*;

    /// A FIFO, made by the system's own program: there is no call for it in the standard library.
    fn fifo(path: &Path) {
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    }

    /// What `call` says, or nothing if it has not come back after five seconds.
    fn said<T: Send + 'static>(call: impl FnOnce() -> Result<T> + Send + 'static) -> Option<String> {
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::spawn(move || send.send(call().map_or_else(|error| error.to_string(), |_| "read".into())));
        receive.recv_timeout(std::time::Duration::from_secs(5)).ok()
    }

    #[test]
    fn what_is_no_regular_file_is_refused_and_never_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fifo(&at("fifo"));
        let _listener = UnixListener::bind(at("socket")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        let zero = PathBuf::from("/dev/zero");
        for (path, kind) in [
            (at("fifo"), "a FIFO"),
            (at("socket"), "a socket"),
            (at("folder"), "a folder"),
            (zero, "a character device"),
        ] {
            let expected = format!(
                "{}: expected a regular file, found {kind}; copy what it gives into a file, and name that",
                path.display()
            );
            for reader in [|path: &Path| read(path).map(drop), |path: &Path| map(path).map(drop)] {
                let path = path.clone();
                assert_eq!(said(move || reader(&path)).as_deref(), Some(expected.as_str()));
            }
            if kind != "a folder" {
                let path = path.clone();
                assert_eq!(said(move || crate::inspect(&path)).as_deref(), Some(expected.as_str()));
            }
        }
    }

    /// In each place in which a dataset has a file.
    #[test]
    fn every_reader_refuses_a_fifo() {
        let root = tempfile::tempdir().unwrap();
        let make = |name: &str, files: &[&str]| {
            let folder = root.path().join(name);
            fs::create_dir_all(&folder).unwrap();
            files.iter().for_each(|file| fifo(&folder.join(file)));
        };
        let whole = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/v5.mat");
        make("f8k_precomp", &["train_ims.npy", "train_caps.txt", "test_ims.npy", "test_caps.txt"]);
        make("wiki", &["raw_features.mat", "categories.list"]);
        make("mnist", &["train-images-idx3-ubyte", "train-labels-idx1-ubyte"]);
        make("mfeat", &["mfeat-fou", "mfeat-zer"]);
        make("features", &["a.mat", "images.npy"]);
        for (name, file) in [
            ("precomp", "train_ims.npy"),
            ("wiki", "categories.list"),
            ("mnist-halves", "train-images-idx3-ubyte"),
            ("mfeat", "mfeat-fou"),
            ("features", "a.mat"),
        ] {
            let data = root.path().to_owned();
            let text = said(move || crate::open(name, &toml::Table::new(), Some(&data))).expect("it waits for nothing");
            assert!(text.contains(file) && text.contains("expected a regular file, found a FIFO"), "{name}: {text}");
        }
        // A file that may be absent is not absent when it is something else.
        fs::remove_file(root.path().join("features/a.mat")).unwrap();
        fs::copy(whole, root.path().join("features/a.mat")).unwrap();
        let data = root.path().to_owned();
        let text =
            said(move || crate::open("features", &toml::Table::new(), Some(&data))).expect("it waits for nothing");
        assert!(text.contains("images.npy: expected a regular file"), "{text}");
        let found = crate::inspect(&root.path().join("mnist")).unwrap();
        assert_eq!(found.content, ["train-images-idx3-ubyte: a FIFO", "train-labels-idx1-ubyte: a FIFO"]);
    }

    #[test]
    fn links_stay_in_their_folder() {
        let root = tempfile::tempdir().unwrap();
        let (data, secret) = (root.path().join("data"), root.path().join("secret"));
        fs::create_dir(&data).unwrap();
        fs::write(&secret, "mine\n").unwrap();
        fs::write(data.join("own"), "its own\n").unwrap();
        symlink("own", data.join("inside")).unwrap();
        symlink(&secret, data.join("outside")).unwrap();
        symlink("../secret", data.join("relative")).unwrap();
        symlink("nothing", data.join("broken")).unwrap();
        symlink(&data, root.path().join("elsewhere")).unwrap();
        assert_eq!(read(&data.join("inside")).unwrap(), b"its own\n");
        assert_eq!(read(&root.path().join("elsewhere/inside")).unwrap(), b"its own\n");
        for name in ["outside", "relative"] {
            let text = read(&data.join(name)).unwrap_err().to_string();
            let found = format!("found a link to {}; copy", secret.canonicalize().unwrap().display());
            assert!(text.contains("expected a file that lies in this folder") && text.contains(&found), "{text}");
        }
        assert!(read(&data.join("broken")).unwrap_err().to_string().contains("broken"));
        assert!(there(&data.join("broken")) && !there(&data.join("nothing")));
        // Named by the user it is followed.
        assert_eq!(crate::inspect(&data.join("outside")).unwrap().content, ["1 lines, 0 of them empty"]);
        let found = crate::inspect(&data).unwrap();
        assert!(
            found.content.contains(&"outside: a link that leads out of the folder".to_owned()),
            "{:?}",
            found.content
        );
    }

    #[test]
    fn a_file_without_a_length_is_empty() {
        // Files of the kernel say that they have none, and some of them have no end.
        assert_eq!(read(Path::new("/proc/self/status")).unwrap(), b"");
    }
}
