//! What stands first for each query of a trial: a file of its own, named after the trial's identity, `best/ID.parquet`.
//!
//! It is written before its trial is recorded, and the trial has its SHA-256: a file without a trial is swept away by the next seal,
//! and one that is not what its trial promises is refused. Tables and journal do without it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use polars::prelude::*;

use super::{
    Error, Id, Result, Trial, check, digest_of, files,
    tables::{Table, frame, packed_frame},
};
use crate::{
    output::quoted,
    protocol::{Direction, Found},
};

/// The folder.
pub const FOLDER: &str = "best";

/// Items of each query that are kept.
pub const BEST: usize = 20;

/// Where the trial of this identity keeps its file.
pub fn path(recording: &Path, id: &Id) -> PathBuf {
    recording.join(FOLDER).join(format!("{id}.parquet"))
}

/// Writes what was found; the SHA-256 of the file.
///
/// # Errors
/// If it cannot be written.
pub fn write(recording: &Path, id: &Id, found: &[Found]) -> Result<String> {
    let folder = recording.join(FOLDER);
    fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    let column =
        |name: &str, of: fn(&Found) -> u32| Column::new(name.into(), found.iter().map(of).collect::<Vec<u32>>());
    let bytes = packed_frame(frame(vec![
        Column::new("direction".into(), found.iter().map(|it| it.direction.to_string()).collect::<Vec<_>>()),
        column("query", |it| it.query),
        column("item", |it| it.item),
        Column::new("score".into(), found.iter().map(|it| it.score).collect::<Vec<f32>>()),
        Column::new("rank".into(), found.iter().map(|it| it.rank).collect::<Vec<f64>>()),
        Column::new("own".into(), found.iter().map(|it| it.own).collect::<Vec<bool>>()),
    ]));
    files::replace_with(&path(recording, id), &bytes)?;
    Ok(digest_of(&bytes))
}

/// What was found for each query of a trial, every value in its range; nothing if the trial kept nothing.
///
/// # Errors
/// If the file is not there, is not the one that the trial promises, or holds what cannot be.
pub fn read(recording: &Path, trial: &Trial) -> Result<Option<Vec<Found>>> {
    let Some(promised) = &trial.kept else { return Ok(None) };
    files::no_link(&recording.join(FOLDER))?;
    let table = Table::of(path(recording, &trial.id), FOLDER, Some(("trial", std::slice::from_ref(promised))))?;
    let wrong = |error: PolarsError| table.damaged("a column of its type", error.to_string());
    let empty = |name: &str| table.damaged("a value in every cell", format!("an empty one in column {}", quoted(name)));
    let direction = table.column("direction")?.str().map_err(wrong)?;
    let query = table.column("query")?.u32().map_err(wrong)?;
    let item = table.column("item")?.u32().map_err(wrong)?;
    let score = table.column("score")?.f32().map_err(wrong)?;
    let rank = table.column("rank")?.f64().map_err(wrong)?;
    let own = table.column("own")?.bool().map_err(wrong)?;
    let mut found = Vec::with_capacity(table.height());
    for row in 0..table.height() {
        let direction = match direction.get(row).ok_or_else(|| empty("direction"))? {
            "i2t" => Direction::I2t,
            "t2i" => Direction::T2i,
            other => return Err(table.damaged("direction `i2t` or `t2i`", quoted(other))),
        };
        let one = Found {
            direction,
            query: query.get(row).ok_or_else(|| empty("query"))?,
            item: item.get(row).ok_or_else(|| empty("item"))?,
            score: score.get(row).ok_or_else(|| empty("score"))?,
            rank: rank.get(row).ok_or_else(|| empty("rank"))?,
            own: own.get(row).ok_or_else(|| empty("own"))?,
        };
        check::found(&one).map_err(|wrong| table.damaged(&wrong.expected, wrong.found))?;
        found.push(one);
    }
    Ok(Some(found))
}

/// Removes files that are named after an identity and that nothing needs.
///
/// # Errors
/// If the folder cannot be read or a file cannot be removed.
pub fn sweep(recording: &Path, needed: impl Fn(&Id) -> bool) -> Result<()> {
    let folder = recording.join(FOLDER);
    files::no_link(&folder)?;
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(&folder).map_err(Error::io("read", &folder))? {
        let path = entry.map_err(Error::io("read", &folder))?.path();
        let id: Option<Id> = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        let partial = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".partial-"));
        if partial || id.is_some_and(|id| !needed(&id)) {
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    // Goes only with the last one.
    let _ = fs::remove_dir(folder);
    Ok(())
}

/// That what was kept says of each query's best own item what the trial's queries say.
///
/// # Errors
/// How many do not.
pub fn agrees(trial: &Trial, found: &[Found]) -> std::result::Result<(), String> {
    let mut best: std::collections::BTreeMap<_, Found> = std::collections::BTreeMap::new();
    for it in found.iter().filter(|it| it.own) {
        let known = best.entry((it.direction as u8, it.query)).or_insert(*it);
        if it.rank < known.rank {
            *known = *it;
        }
    }
    let wrong = trial.queries.iter().filter(|query| {
        let Some(it) = best.get(&(query.direction as u8, query.query)) else { return false };
        // Of tied items any place of the group is possible.
        let (first, last) = (f64::from(query.better) + 1.0, f64::from(query.better) + f64::from(query.tied.max(1)));
        !(first..=last).contains(&it.rank)
    });
    match wrong.count() {
        0 => Ok(()),
        count => Err(format!("{count} queries whose best own item has another rank than in the table `queries`")),
    }
}
