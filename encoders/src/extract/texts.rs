//! Vectors of captions: a file for each chunk of pictures, in `OUT/.extract`.
//!
//! As with the chunks of `shards.rs`, a file is there as a whole or not at all, ends with the SHA-256 of what is before, and counts as absent if it is damaged
//! or of other captions or another network.

use std::{fs, path::PathBuf};

use sha2::{Digest, Sha256};
use xmbench_datasets::{Error, Result, captions::Captioned, files};

use super::{CHUNK, WORK, digest, program};
use crate::encoder::{TextEncoder, TextRecipe};

/// The captions of an extraction and who reads them.
pub(super) struct Reader<'a> {
    encoder: &'a dyn TextEncoder,
    items: &'a [Captioned],
    folder: PathBuf,
    /// Whether their vectors are in the space of the pictures'.
    pub joint: bool,
}

impl<'a> Reader<'a> {
    pub fn open(
        encoder: &'a dyn TextEncoder,
        items: &'a [Captioned],
        work: &std::path::Path,
        joint: bool,
        fresh: bool,
    ) -> Result<Self> {
        let folder = work.join("texts");
        if fresh && files::there(&folder) {
            fs::remove_dir_all(&folder).map_err(Error::write(&folder))?;
        }
        fs::create_dir_all(&folder).map_err(Error::write(&folder))?;
        Ok(Self { encoder, items, folder, joint })
    }

    /// What is done to a caption.
    pub fn recipe(&self) -> &TextRecipe {
        self.encoder.recipe()
    }

    /// Values of a vector.
    pub fn width(&self) -> usize {
        self.encoder.recipe().width
    }

    fn captions(&self, number: usize) -> Vec<&'a str> {
        let items = self.items.chunks(CHUNK).nth(number).unwrap_or_default();
        items.iter().flat_map(|item| &item.captions).map(String::as_str).collect()
    }

    fn key(&self, captions: &[&str]) -> String {
        digest(&(program(), self.encoder.recipe(), captions))
    }

    /// The vectors of a chunk's captions, unless they are not there.
    fn there(&self, number: usize, key: &str, captions: usize) -> Result<Option<Vec<f32>>> {
        let path = self.folder.join(format!("{number:08}"));
        if !files::there(&path) {
            return Ok(None);
        }
        let bytes = files::read(&path)?;
        let Some((content, digest)) = bytes.split_last_chunk::<32>() else { return Ok(None) };
        let whole = Sha256::digest(content)[..] == digest[..];
        let Some(values) = content.strip_prefix(key.as_bytes()).filter(|_| whole) else { return Ok(None) };
        let values: Vec<f32> = values.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        Ok(Some(values).filter(|values| values.len() == captions * self.width()))
    }

    /// Reads the captions of a chunk if that was not done before; returns how many there are.
    pub fn ensure(&self, number: usize) -> Result<usize> {
        let captions = self.captions(number);
        let key = self.key(&captions);
        if self.there(number, &key, captions.len())?.is_none() {
            let mut out = key.into_bytes();
            for text in self.encoder.encode_texts(&captions)? {
                text.vector.iter().for_each(|value| out.extend(value.to_le_bytes()));
            }
            let digest = Sha256::digest(&out);
            out.extend(digest);
            let (path, beside) = (self.folder.join(format!("{number:08}")), self.folder.join("next"));
            fs::write(&beside, out).map_err(Error::write(&beside))?;
            fs::rename(&beside, &path).map_err(Error::write(&path))?;
        }
        Ok(captions.len())
    }

    /// Hands on the vectors of the captions of each of these items, `[captions, width]`; items are in the order of the listing.
    pub fn each(
        &self,
        wanted: impl Iterator<Item = usize>,
        mut take: impl FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let mut open: Option<(usize, Vec<f32>)> = None;
        for at in wanted {
            let number = at / CHUNK;
            if open.as_ref().is_none_or(|(open, _)| *open != number) {
                let captions = self.captions(number);
                let values = self.there(number, &self.key(&captions), captions.len())?.ok_or_else(|| {
                    let next = "something else writes there; begin anew with --fresh";
                    Error::content(
                        WORK,
                        format!("captions {number}"),
                        "what was written before",
                        "something else",
                        next,
                    )
                })?;
                open = Some((number, values));
            }
            let Some((_, values)) = &open else { continue };
            let before: usize = self.items[number * CHUNK..at].iter().map(|item| item.captions.len()).sum();
            let width = self.width();
            take(at, &values[before * width..][..self.items[at].captions.len() * width])?;
        }
        Ok(())
    }
}
