//! Lists of the images of a split, a name a line, as Flickr8k and the hashing literature have them.

use std::{collections::HashMap, path::Path};

use super::{Captioned, Row, split_name};
use crate::{Result, precomp::lines};

/// Assigns splits from lists: `(split, file)`, a name a line, with or without folder and ending. What the captions said goes; images in none of the lists
/// have no split.
///
/// # Errors
/// If a list cannot be read, names an image that has no caption, one that two images may be meant by, or one that another list has; if
/// a split is not train, val or test.
pub fn assign(items: &mut [Captioned], lists: &[(String, std::path::PathBuf)]) -> Result<()> {
    items.iter_mut().for_each(|item| item.split = None);
    for (split, path) in lists {
        parse_list(items, split, path, &lines(&crate::files::named(path)?)?)?;
    }
    Ok(())
}

/// One list, given its lines.
///
/// # Errors
/// As [`assign`].
pub fn parse_list(items: &mut [Captioned], split: &str, path: &Path, lines: &[String]) -> Result<()> {
    let file = Row { path, place: "" };
    let split = split_name(split).ok_or_else(|| file.error("a split: train, val or test", format!("`{split}`")))?;
    // A whole name goes before a part of one; a part that several images have is none's.
    let mut whole: HashMap<&str, usize> = HashMap::new();
    let mut parts: HashMap<&str, Option<usize>> = HashMap::new();
    for (at, item) in items.iter().enumerate() {
        let image = item.image.as_str();
        whole.insert(image, at);
        let last = image.rsplit('/').next().unwrap_or(image);
        let stem = last.rsplit_once('.').map_or(last, |(stem, _)| stem);
        let path = image.rsplit_once('.').map_or(image, |(path, _)| path);
        let mut names = vec![last, stem, path];
        names.sort_unstable();
        names.dedup();
        for name in names {
            parts.entry(name).and_modify(|known| *known = None).or_insert(Some(at));
        }
    }
    let mut found = Vec::new();
    for (number, name) in lines.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
        let place = format!("line {}", number + 1);
        let row = Row { path, place: &place };
        let last = name.rsplit('/').next().unwrap_or(name);
        let known = whole.get(name.as_str()).copied().map(Some);
        match known.or_else(|| parts.get(name.as_str()).or_else(|| parts.get(last)).copied()) {
            Some(Some(at)) => found.push((at, place)),
            Some(None) => return Err(row.error("the name of one image", format!("`{name}`, which several have"))),
            None => return Err(row.error("the name of an image that has captions", format!("`{name}`"))),
        }
    }
    for (at, place) in found {
        if let Some(other) = items[at].split.as_ref().filter(|other| *other != split) {
            let expected = format!("an image that is in no other list than {split}'s");
            let found = format!("`{}`, which is in {other}'s", items[at].image);
            return Err(Row { path, place: &place }.error(expected, found));
        }
        items[at].split = Some(split.to_owned());
    }
    Ok(())
}
