//! Pairs that a program scores: which items were asked for, and the matrices that it wrote.

use std::{
    collections::HashMap,
    fs,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use xmbench_datasets::{Checksum, Hasher, arrays::Array, files};

use super::view::rows;
use crate::{Codes, Error, Fragments, Result};

/// Items of one side that a program was given to read.
pub struct Asked {
    /// The folder with their view.
    pub folder: PathBuf,
    /// What is in it.
    content: Checksum,
    /// The number of the first item; the next has the next.
    start: usize,
    /// The row of the view that each item has.
    pub rows: Vec<usize>,
}

/// Everything that was asked so far.
#[derive(Default)]
pub struct Pairs {
    sides: HashMap<&'static str, Vec<Asked>>,
    /// By the places of the images and the texts among those that were asked for.
    pub scored: HashMap<(usize, usize), Arc<Array>>,
}

impl Pairs {
    /// Where the next view of a side goes, beside those that are there.
    pub fn next(&self, side: &str) -> String {
        format!("{side}-{}", self.sides.get(side).map_or(0, Vec::len))
    }

    /// The codes of the items whose view was written: their numbers, as fragments of width 1. What was asked for before, to the byte,
    /// keeps its numbers and its scores.
    ///
    /// # Errors
    /// If the view cannot be read, or there are more items than numbers.
    pub fn number(&mut self, side: &'static str, folder: PathBuf, order: &[usize]) -> Result<Codes> {
        let content = content(&folder)?;
        let known = self.sides.entry(side).or_default();
        let start = match known.iter().find(|asked| asked.content == content && asked.rows.len() == order.len()) {
            Some(asked) => {
                fs::remove_dir_all(&folder).map_err(Error::io(&folder))?;
                asked.start
            }
            None => {
                let start = known.last().map_or(0, |asked| asked.start + asked.rows.len());
                known.push(Asked { folder, content, start, rows: rows(order) });
                start
            }
        };
        let end = start + order.len();
        let most = Fragments::LARGEST;
        let wrong = || Error::Numeric(format!("command: expected at most {most} {side} to score, found {end}"));
        Fragments::numbers(start..end).map(Codes::Fragments).ok_or_else(wrong)
    }

    /// The place of those among whom the given items are, and their rows in the view.
    ///
    /// # Errors
    /// Codes that are no numbers of this matcher.
    pub fn rows(&self, side: &str, codes: &Codes, items: Range<usize>) -> Result<(usize, Vec<usize>)> {
        let foreign = || Error::Numeric("command: expected codes of this matcher; encode both sides with it".into());
        let Codes::Fragments(Fragments { dim: 1, data, .. }) = codes else { return Err(foreign()) };
        let numbers = data.get(items).ok_or_else(foreign)?;
        let known = self.sides.get(side).map_or(&[][..], Vec::as_slice);
        let first = *numbers.first().ok_or_else(foreign)? as usize;
        let place = known.partition_point(|asked| asked.start <= first).checked_sub(1).ok_or_else(foreign)?;
        let asked = &known[place];
        let row = |&number: &f32| {
            let item = (number as usize).checked_sub(asked.start);
            item.and_then(|item| asked.rows.get(item)).copied().ok_or_else(foreign)
        };
        Ok((place, numbers.iter().map(row).collect::<Result<_>>()?))
    }

    /// Those who were asked for at a place that [`Pairs::rows`] gave.
    pub fn at(&self, side: &str, place: usize) -> &Asked {
        &self.sides[side][place]
    }
}

/// A digest of the files in a folder.
fn content(folder: &Path) -> Result<Checksum> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        paths.push(entry.map_err(Error::io(folder))?.path());
    }
    paths.sort();
    let mut hasher = Hasher::default();
    for path in paths {
        hasher.add(&path.file_name().unwrap_or_default().to_string_lossy(), &files::read(&path)?);
    }
    Ok(hasher.finish())
}
