//! Which row of a file is whose.

use std::{collections::HashMap, path::Path};

use xmbench_datasets::{Error, Result, Split, arrays};

use super::SPLIT;

/// The items that are asked for.
pub struct Asked<'a> {
    pub ids: &'a [String],
    /// The split that they are, where they are a whole one.
    pub split: Option<Split>,
}

/// Images or texts.
pub struct Side {
    /// `image` or `text`.
    pub name: &'static str,
    /// The parameter that names the ids.
    pub ids_key: &'static str,
    /// The file of ids; empty where there is none.
    pub ids: String,
}

/// A path with the split in the place of `{split}`.
pub fn of_split(place: &str, split: Option<Split>) -> String {
    place.replace(SPLIT, &split.unwrap_or(Split::Test).to_string())
}

impl Side {
    /// The row of each item that is asked for, of a file with so many; `axis` is what messages call a row, `place` the path as it was
    /// written.
    pub fn rows(&self, asked: &Asked<'_>, lines: usize, axis: &str, file: &Path, place: &str) -> Result<Vec<usize>> {
        let Self { name, ids_key, .. } = self;
        let split = asked.split.unwrap_or(Split::Test);
        if !self.ids.is_empty() {
            return self.by_id(asked, lines, axis, file);
        }
        if split != Split::Test && !place.contains(SPLIT) {
            let expected = format!("{axis}s of the test split, which is all that a file without ids holds");
            let found = format!("that the protocol asks for the {split} split");
            let next = format!("write {SPLIT} into the path, a file a split, or name a file of ids in `{ids_key}`");
            return Err(Error::content(file, "", expected, found, next));
        }
        let items = asked.ids.len();
        if lines == items {
            return Ok((0..items).collect());
        }
        let expected = format!("{items} {axis}s, one for each {name} of the {split} split, in its order");
        let next = format!("write one for each, or name the id of each {axis} in `{ids_key}`, a file of one id a line");
        Err(Error::content(file, "", expected, format!("{lines} {axis}s"), next))
    }

    fn by_id(&self, asked: &Asked<'_>, lines: usize, axis: &str, file: &Path) -> Result<Vec<usize>> {
        let Self { name, .. } = self;
        let path = of_split(&self.ids, asked.split);
        let path = Path::new(&path);
        let ids = arrays::ids(path)?;
        if ids.len() != lines {
            let expected = format!("{lines} lines, one for each {axis} of {}", file.display());
            let next = format!("write the id of {axis} k into line k");
            return Err(Error::content(path, "", expected, format!("{} lines", ids.len()), next));
        }
        let places: HashMap<&str, usize> = ids.iter().enumerate().map(|(at, id)| (id.as_str(), at)).collect();
        let row = |(at, id): (usize, &String)| {
            places.get(id.as_str()).copied().ok_or_else(|| {
                let split = asked.split.map(|split| format!(" of the {split} split")).unwrap_or_default();
                let expected = format!("the id `{id}`, {name} {at}{split}");
                let near = xmbench_datasets::nearest(id, ids.iter().map(String::as_str));
                let hint = near.map(|near| format!("; the nearest is `{near}`")).unwrap_or_default();
                let found = format!("no such line{hint}");
                let next = format!("add its {axis} and its id, or write ids as the dataset has them");
                Error::content(path, "", expected, found, next)
            })
        };
        asked.ids.iter().enumerate().map(row).collect()
    }
}
