//! A reader with everything about its bytes in place.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Why bytes were refused.
pub type Refused = Box<dyn std::error::Error>;

/// A reader with everything about its bytes in place.
pub struct Stage {
    /// Bytes to begin from.
    pub seeds: Vec<Vec<u8>>,
    /// Holds the files; removed at the end.
    folder: tempfile::TempDir,
    /// The file that the bytes are written to; none for readers of text that is no file.
    file: Option<PathBuf>,
    /// What is made of the bytes before they are written, such as a packed stream of them.
    pack: fn(&[u8]) -> Vec<u8>,
    open: Open,
}

type Open = Box<dyn Fn(&Path, &[u8]) -> Result<(), Refused>>;

impl Stage {
    pub fn new(
        seeds: Vec<Vec<u8>>,
        open: impl Fn(&Path, &[u8]) -> Result<(), Refused> + 'static,
    ) -> Result<Self, Refused> {
        let folder = tempfile::tempdir()?;
        Ok(Self { seeds, folder, file: None, pack: <[u8]>::to_vec, open: Box::new(open) })
    }

    /// With a file that the bytes are written to.
    pub fn into(mut self, file: &str) -> Result<Self, Refused> {
        let path = self.folder.path().join(file);
        fs::create_dir_all(path.parent().ok_or("a file lies in a folder")?)?;
        self.file = Some(path);
        Ok(self)
    }

    /// With a sound file beside.
    pub fn beside(self, file: &str, bytes: &[u8]) -> Result<Self, Refused> {
        let path = self.folder.path().join(file);
        fs::create_dir_all(path.parent().ok_or("a file lies in a folder")?)?;
        fs::write(path, bytes)?;
        Ok(self)
    }

    pub fn packed(mut self, pack: fn(&[u8]) -> Vec<u8>) -> Self {
        self.pack = pack;
        self
    }

    /// Reads the bytes.
    ///
    /// # Errors
    /// What the reader says against them.
    pub fn read(&self, bytes: &[u8]) -> Result<(), Refused> {
        let packed = (self.pack)(bytes);
        if let Some(file) = &self.file {
            fs::write(file, &packed)?;
        }
        (self.open)(self.folder.path(), &packed)
    }
}
