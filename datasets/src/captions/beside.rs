//! A text beside each picture.

use std::path::Path;

use walkdir::WalkDir;

use super::{Collector, ENDINGS, Row};
use crate::{Error, Result, files};

/// Reads the text beside each picture of a folder and those below it, in the order of their names; returns how many pictures have none. Links to folders
/// are not followed.
pub(super) fn read(images: &Path, into: &mut Collector) -> Result<usize> {
    let mut bare = 0;
    for entry in WalkDir::new(images).sort_by_file_name() {
        let entry = entry.map_err(|error| {
            let path = error.path().unwrap_or(images).to_owned();
            Error::Io { path, source: error.into() }
        })?;
        let path = entry.path();
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        if entry.file_type().is_dir() || !ENDINGS.contains(&ending.as_str()) {
            continue;
        }
        let text = path.with_extension("txt");
        if !files::there(&text) {
            bare += 1;
            continue;
        }
        let within = path.strip_prefix(images).unwrap_or(path);
        let row = Row { path: &text, place: "" };
        let Some(name) = within.to_str() else {
            return Err(row.error("a picture whose name is UTF-8", format!("`{}`", within.display())));
        };
        let name = name.replace('\\', "/");
        let captions = crate::precomp::lines(&text)?;
        let captions: Vec<&String> = captions.iter().filter(|line| !line.is_empty()).collect();
        if captions.is_empty() {
            return Err(row.error("a caption a line", "an empty file"));
        }
        captions.iter().try_for_each(|caption| into.caption(row, &name, caption))?;
        if let Some((folder, _)) = name.rsplit_once('/') {
            into.label(row, &name, folder)?;
        }
    }
    Ok(bare)
}
