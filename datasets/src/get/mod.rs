//! Public sets: where they are to be had, under which terms, which files are wanted, and whether what lies in a folder is they.
//!
//! What is known of a set is data, `datasets/data/sets.toml`. A set comes in one or several layouts: pictures with captions, or features. A layout is looked
//! for in the data folder itself and in folders of the names under which its publisher gives it out. A file with a known length and
//! SHA-256 is held against them; of others it is said that they are there. Nothing is downloaded.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Error, Inspection, Result, files, inspect, nearest};

/// The table.
const TABLE: &str = include_str!("../../data/sets.toml");

/// A public set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Set {
    /// The name that it is asked for by.
    pub name: String,
    /// What it is called, and the paper.
    pub title: String,
    /// What is in it.
    pub what: String,
    /// Where it is to be had.
    pub places: Vec<String>,
    /// Under which terms.
    pub terms: String,
    /// In which forms it can be used.
    pub layouts: Vec<Layout>,
}

/// A form in which a set can be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// What it is.
    pub title: String,
    /// Names of the folders in which it is looked for, beside the data folder itself.
    pub folders: Vec<String>,
    /// What a folder must be recognised as, by the beginning of its kind.
    pub kind: Option<String>,
    /// The files that are wanted.
    #[serde(default)]
    pub files: Vec<Wanted>,
    /// What is done with it next.
    pub next: String,
}

/// A file, or a folder of pictures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// What is in it.
    pub what: String,
    /// Its length, where it is known.
    pub bytes: Option<u64>,
    /// Its SHA-256, where it is known.
    pub sha256: Option<String>,
    /// Whether a set is complete without it.
    #[serde(default)]
    pub optional: bool,
}

/// What became of a wanted file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It is there, and its SHA-256 is the known one.
    Right,
    /// It is there; nothing is known to hold it against.
    There,
    /// It is not there.
    Missing,
    /// It is there, with another length.
    Length {
        /// Bytes that it should have.
        expected: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// It is there, with other content.
    Content {
        /// The SHA-256 that it should have.
        expected: String,
        /// That which it has.
        found: String,
    },
    /// It is there and cannot be read; why.
    Unreadable(String),
}

/// A layout, and what of it is in a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// The layout's title.
    pub title: String,
    /// Where most of it is; `None` if there is nothing of it anywhere.
    pub folder: Option<PathBuf>,
    /// Each wanted file and what became of it.
    pub files: Vec<(String, State)>,
    /// What the folder was recognised as.
    pub recognised: Option<Inspection>,
    /// Whether nothing is missing or wrong.
    pub complete: bool,
    /// What is done with it next.
    pub next: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    precomp: Vec<Wanted>,
    set: Vec<Set>,
}

/// Every set, in the order of the table.
pub fn sets() -> Vec<Set> {
    let Table { precomp, mut set } = toml::from_str(TABLE).expect("the table is well-formed, which a test says");
    for layout in set.iter_mut().flat_map(|set| &mut set.layouts) {
        if layout.kind.as_deref() == Some("precomp folder") {
            layout.files.clone_from(&precomp);
        }
    }
    set
}

/// The set of that name.
///
/// # Errors
/// If there is none: all are named, and the nearest.
pub fn set(name: &str) -> Result<Set> {
    let sets = sets();
    if let Some(set) = sets.iter().find(|set| set.name == name) {
        return Ok(set.clone());
    }
    let names = sets.iter().map(|set| set.name.as_str());
    let next = nearest(name, names.clone()).map_or_else(
        || "`xmbench data get` shows them with what they are".to_owned(),
        |near| format!("did you mean `{near}`?"),
    );
    let expected = format!("one of {}", names.collect::<Vec<_>>().join(", "));
    Err(Error::option("set", expected, format!("`{name}`"), next))
}

/// What of each of a set's layouts is in a folder.
///
/// # Errors
/// If the folder cannot be read.
pub fn check(set: &Set, folder: &Path) -> Result<Vec<Checked>> {
    let folder = fs::canonicalize(folder).map_err(Error::io(folder))?;
    if !folder.is_dir() {
        return Err(Error::content(folder, "", "a folder", "a file", "name the folder with --data-dir"));
    }
    Ok(set.layouts.iter().map(|layout| checked(layout, &folder)).collect())
}

fn checked(layout: &Layout, root: &Path) -> Checked {
    let candidates: Vec<PathBuf> = std::iter::once(root.to_owned())
        .chain(layout.folders.iter().map(|name| root.join(name)))
        .filter(|path| path.is_dir())
        .collect();
    let there = |path: &PathBuf| layout.files.iter().filter(|file| files::there(&path.join(&file.name))).count();
    let recognised = |path: &PathBuf| layout.kind.as_deref().and_then(|kind| recognised(path, kind));
    // The first of those that hold most.
    let best = candidates.into_iter().rev().max_by_key(|path| (there(path), recognised(path).is_some()));
    let found = best.filter(|path| there(path) > 0 || recognised(path).is_some());
    let state = |file: &Wanted| found.as_ref().map_or(State::Missing, |path| state(&path.join(&file.name), file));
    let states: Vec<(&Wanted, State)> = layout.files.iter().map(|file| (file, state(file))).collect();
    let recognised = found.as_ref().and_then(recognised);
    let sound = states.iter().all(|(file, state)| match state {
        State::Right | State::There => true,
        State::Missing => file.optional,
        State::Length { .. } | State::Content { .. } | State::Unreadable(_) => false,
    });
    let complete = found.is_some() && sound && (layout.kind.is_none() || recognised.is_some());
    let next = match &found {
        Some(path) => layout.next.replace("FOLDER", &path.display().to_string()),
        None => layout.next.clone(),
    };
    let files = states.into_iter().map(|(file, state)| (file.name.clone(), state)).collect();
    Checked { title: layout.title.clone(), folder: found, files, recognised, complete, next }
}

/// What a folder, or for features one of its MAT-files, is recognised as, if it is of that kind.
fn recognised(path: &Path, kind: &str) -> Option<Inspection> {
    let of = |path: &Path| inspect(path).ok().filter(|found| found.kind.starts_with(kind));
    of(path).or_else(|| {
        let mut files: Vec<PathBuf> = fs::read_dir(path).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.sort();
        files.iter().filter(|file| file.extension().is_some_and(|ending| ending == "mat")).find_map(|file| of(file))
    })
}

fn state(path: &Path, wanted: &Wanted) -> State {
    if !files::there(path) {
        return State::Missing;
    }
    if path.is_dir() {
        return match wanted.bytes {
            None => State::There,
            Some(_) => State::Unreadable("expected a file, found a folder".into()),
        };
    }
    let (mut file, found) = match files::open(path) {
        Ok(opened) => opened,
        Err(error) => return State::Unreadable(error.to_string()),
    };
    if let Some(expected) = wanted.bytes.filter(|&expected| expected != found) {
        return State::Length { expected, found };
    }
    let Some(expected) = &wanted.sha256 else { return State::There };
    let mut hasher = Sha256::new();
    if let Err(error) = std::io::copy(&mut file, &mut hasher) {
        return State::Unreadable(error.to_string());
    }
    let found: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if found == *expected { State::Right } else { State::Content { expected: expected.clone(), found } }
}

#[cfg(test)]
mod tests;
