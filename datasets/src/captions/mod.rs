//! Captions of pictures as people have them.
//!
//! | file | a row of it |
//! |---|---|
//! | `.csv`, `.tsv` with a header | columns for the image and a caption; one row a caption. Classes (separated by `;` or by a bar) and a split may stand beside |
//! | `.jsonl`, or `.json` with a list | an object with `image` and `caption` or `captions`, `labels` and `split` where there are some |
//! | `.json` of COCO | `images` and `annotations`; annotations with a category become classes, so that captions and instances are two files |
//! | `dataset_*.json` of Karpathy and Fei-Fei | `images` with `sentences` and `split`; `restval` counts as training |
//! | `.token.txt` of Flickr8k and Flickr30k | `NAME.jpg#0`, a tab, the caption |
//! | a `.txt` beside each picture | a caption a line; the folder in which the picture lies is its class |
//!
//! Names of columns and keys are those that go around (`file_name`, `filename`, `image_name`; `text`, `comment`, `sentence`). An image that is named
//! without its folder or its ending is looked for. A row that is broken is an error that names it; nothing is guessed and nothing passed over.

mod beside;
mod json;
mod lists;
mod rows;

use std::{
    collections::HashMap,
    path::{Component, Path, PathBuf},
};

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{Error, Result, files, text::has_word};

pub use self::lists::{assign, parse_list};

/// A picture and what is said of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Captioned {
    /// Its file, within the folder of pictures.
    pub image: String,
    /// Its captions, in the order in which they were read; at least one.
    pub captions: Vec<String>,
    /// Its classes.
    pub labels: Vec<String>,
    /// `train`, `dev` or `test`, where the captions say so.
    pub split: Option<String>,
}

/// A file that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// Its name, without its folder.
    pub file: String,
    /// What it was taken for.
    pub format: &'static str,
    /// SHA-256 of its bytes.
    pub sha256: String,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Every picture that has a caption, in the order in which they were first named.
    pub items: Vec<Captioned>,
    /// The files.
    pub origins: Vec<Origin>,
    /// Pictures that were named, or lie there, and have no caption.
    pub bare: usize,
}

/// Files that are taken for captions where they lie among the pictures.
const USUAL: [&str; 4] = ["captions.csv", "captions.tsv", "captions.jsonl", "metadata.jsonl"];

/// Endings of pictures.
const ENDINGS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];

const NEXT: &str = "correct the row, or leave it out";

/// Reads captions from files, or from what lies in the folder of pictures if none is named.
///
/// # Errors
/// If a file cannot be read, is in none of the forms, or has a broken row; if no picture has a caption.
pub fn read(images: &Path, captions: &[PathBuf]) -> Result<Listing> {
    if !images.is_dir() {
        let next = "name the folder in which the pictures lie";
        return Err(Error::content(images, "", "a folder of pictures", "none", next));
    }
    let mut collector = Collector::default();
    let mut origins = Vec::new();
    let usual = USUAL.iter().map(|name| images.join(name)).find(|path| files::there(path));
    let (named, own) = match usual {
        Some(path) if captions.is_empty() => (vec![path], true),
        _ => (captions.to_vec(), false),
    };
    let mut bare = 0;
    if named.is_empty() {
        bare = beside::read(images, &mut collector)?;
        origins.push(Origin { file: "*.txt".into(), format: "a text beside each picture", sha256: String::new() });
    }
    for path in &named {
        // What a user names is followed wherever it leads; what lies among the pictures is somebody's data.
        let bytes = files::read(&if own { path.clone() } else { files::named(path)? })?;
        let format = parse(path, &bytes, &mut collector)?;
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        origins.push(Origin { file, format, sha256 });
    }
    let (mut items, silent): (Vec<_>, Vec<_>) = collector.items.into_iter().partition(|item| !item.captions.is_empty());
    if items.is_empty() {
        let found = format!("{} pictures without one", bare + silent.len());
        let next =
            format!("name a file with --captions, or put one of {} or a .txt for each picture there", USUAL.join(", "));
        return Err(Error::content(images, "", "captions", found, next));
    }
    items.iter_mut().for_each(|item| locate(images, item));
    let mut seen = HashMap::new();
    for item in &items {
        if let Some(other) = seen.insert(&item.image, &item.captions[0]) {
            let found = format!("it twice, once for `{other}`");
            let next = "write the image's name in one way";
            return Err(Error::content(images.join(&item.image), "", "one name for a picture", found, next));
        }
    }
    Ok(Listing { items, origins, bare: bare + silent.len() })
}

/// Reads the bytes of one file; says what form it is in. `path` is for its ending and for messages.
fn parse(path: &Path, bytes: &[u8], into: &mut Collector) -> Result<&'static str> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count();
        Error::content(path, format!("line {line}"), "text in UTF-8", "other bytes", "convert it with iconv -t UTF-8")
    })?;
    let text = text.trim_start_matches('\u{feff}');
    let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    match ending.as_str() {
        "tsv" => rows::table(path, text, b'\t', into),
        "csv" => rows::table(path, text, rows::delimiter(text), into),
        "jsonl" | "ndjson" => json::lines(path, text, into),
        "json" => json::whole(path, text, into),
        _ if rows::is_token(text) => rows::token(path, text, into),
        _ if rows::has_header(text) => rows::table(path, text, rows::delimiter(text), into),
        _ => {
            let first = text.lines().next().unwrap_or_default();
            let found: String = first.chars().take(60).collect();
            let expected = "captions: .csv or .tsv with a header, .jsonl, COCO's or Karpathy's .json, or Flickr's NAME#0, tab, caption";
            Err(Error::content(path, "line 1", expected, format!("`{found}`"), "write it in one of these forms"))
        }
    }
}

/// The captions of a file of its own, for readers of bytes.
///
/// # Errors
/// As [`read`].
pub fn parse_bytes(path: &Path, bytes: &[u8]) -> Result<Vec<Captioned>> {
    let mut collector = Collector::default();
    parse(path, bytes, &mut collector)?;
    Ok(collector.items)
}

/// Pictures by name, in the order in which they were first named.
#[derive(Default)]
struct Collector {
    items: Vec<Captioned>,
    at: HashMap<String, usize>,
}

/// Where a row stands, for messages.
#[derive(Clone, Copy)]
struct Row<'a> {
    path: &'a Path,
    place: &'a str,
}

impl Row<'_> {
    fn error(&self, expected: impl Into<String>, found: impl Into<String>) -> Error {
        Error::content(self.path, self.place, expected, found, NEXT)
    }
}

impl Collector {
    /// The picture of that name, which is new or known.
    fn image(&mut self, row: Row<'_>, name: &str) -> Result<&mut Captioned> {
        let name = name.trim();
        let name = name.strip_prefix("./").unwrap_or(name);
        let inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        if name.is_empty() || !inside || name.chars().any(char::is_control) {
            let found = if name.is_empty() { "none".into() } else { format!("`{}`", name.escape_debug()) };
            return Err(row.error("the name of an image within the folder of pictures", found));
        }
        let at = *self.at.entry(name.to_owned()).or_insert_with(|| {
            let (captions, labels) = (Vec::new(), Vec::new());
            self.items.push(Captioned { image: name.to_owned(), captions, labels, split: None });
            self.items.len() - 1
        });
        Ok(&mut self.items[at])
    }

    fn caption(&mut self, row: Row<'_>, image: &str, caption: &str) -> Result<()> {
        let caption = one_line(caption);
        if !has_word(&caption) {
            return Err(row.error("a caption", "none"));
        }
        self.image(row, image)?.captions.push(caption);
        Ok(())
    }

    fn label(&mut self, row: Row<'_>, image: &str, label: &str) -> Result<()> {
        let label = one_line(label);
        let labels = &mut self.image(row, image)?.labels;
        if !label.is_empty() && !labels.contains(&label) {
            labels.push(label);
        }
        Ok(())
    }

    fn split(&mut self, row: Row<'_>, image: &str, split: &str) -> Result<()> {
        let Some(split) = split_name(split) else {
            return Err(row.error("a split: train, val or test", format!("`{}`", split.escape_debug())));
        };
        let known = &mut self.image(row, image)?.split;
        match known {
            Some(known) if known != split => {
                Err(row.error(format!("split {known} for {image}, as in a row before"), split))
            }
            _ => {
                *known = Some(split.to_owned());
                Ok(())
            }
        }
    }
}

/// The name of a split's files for what people call it; `restval` is what Karpathy and Fei-Fei add to COCO's training images.
fn split_name(said: &str) -> Option<&'static str> {
    match said.trim().to_ascii_lowercase().as_str() {
        "train" | "training" | "restval" => Some("train"),
        "dev" | "val" | "valid" | "validation" => Some("dev"),
        "test" | "testing" => Some("test"),
        _ => None,
    }
}

/// White space of any kind and length becomes a space: a caption is a line of a file.
fn one_line(text: &str) -> String {
    let clean = text.replace(|c: char| c.is_control() && !c.is_whitespace(), "");
    clean.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Finds the file of a picture that is named without its folder or its ending.
fn locate(images: &Path, item: &mut Captioned) {
    let is_file = |name: &str| images.join(name).is_file();
    if is_file(&item.image) {
        return;
    }
    let last = item.image.rsplit('/').next().unwrap_or(&item.image);
    let names = [item.image.as_str(), last].map(str::to_owned);
    let with_endings = names.iter().flat_map(|name| ENDINGS.iter().map(move |ending| format!("{name}.{ending}")));
    if let Some(found) = names.iter().cloned().chain(with_endings).find(|name| is_file(name)) {
        item.image = found;
    }
}

#[cfg(test)]
mod tests;
