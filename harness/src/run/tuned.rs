//! Tuned parameters: the files that hold them, and how an experiment takes them.
//!
//! An experiment, or a profile of it, says `tuned = true` for `tuned/NAME.toml` of its own name, or the name of another such file. Files
//! lie in `tuned` beside the experiment's; those of built-in experiments are part of the program. A file is taken in the profile
//! for which it was made, and in no other.
//!
//! What a parameter is, from the weakest word to the strongest: the method's default, `common`, what a profile says of the row, the tuned
//! value, what the row's own entry says. The last is what makes a row what it is, as `direction` or an ablation's `lambda = 0`; a
//! card can mark a parameter that no row is made of, as a learning rate, and then the tuned value wins over the entry, too. Of a
//! parameter that both a profile and the entry name, the profile's value counts. An entry with `tuned = false` keeps all that is
//! typed: it is not tuned.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result, anyhow, bail};
use serde::{Serialize, Serializer};
use toml::{Table, Value};
use xmbench_methods::Method;

use super::{
    Experiment, Planned, Profile,
    entry::{DatasetEntry, MethodEntry},
    explain::explain,
    nearest,
};
use crate::record::{Tuned, TunedRow};

include!(concat!(env!("OUT_DIR"), "/tuned.rs"));

/// The folder of tuned files, beside experiments.
pub const FOLDER: &str = "tuned";

/// Tuned rows that an experiment takes, and where they were read.
#[derive(Debug, Clone)]
pub struct Taken {
    /// What messages call the file.
    pub file: String,
    /// What it holds.
    pub tuned: Tuned,
}

/// As an experiment's source has it: the rows themselves, whose file may change.
impl Serialize for Taken {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.tuned.serialize(serializer)
    }
}

/// The same parameters, wherever they were read.
impl PartialEq for Taken {
    fn eq(&self, other: &Self) -> bool {
        self.tuned == other.tuned
    }
}

/// What the key `tuned` of an experiment asks for, if anything; `file` is what messages call the experiment, `beside` its folder.
///
/// # Errors
/// A value that is none, a file that is not there, or one that is malformed.
pub fn taken(
    key: Option<&Value>,
    (name, file): (&str, &str),
    profile: Profile,
    beside: Option<&Path>,
) -> Result<Option<Taken>> {
    let named = match key {
        None | Some(Value::Boolean(false)) => return Ok(None),
        Some(Value::Boolean(true)) => name,
        Some(Value::String(named)) => named.as_str(),
        // As a recording keeps it: whatever the profile under which it is read, it is what was run.
        Some(Value::Table(table)) => {
            let file = format!("{file}, `tuned`");
            return Ok(Some(Taken { tuned: of_table(&file, table.clone())?, file }));
        }
        Some(other) => {
            bail!("{file}: `tuned`: expected true, false or the name of a file of tuned rows, found {other}")
        }
    };
    let path = beside.map(|folder| folder.join(FOLDER).join(format!("{named}.toml")));
    let taken = match path.filter(|path| path.is_file()) {
        Some(path) => read(&path)?,
        None => {
            let names = || TUNED.iter().map(|(name, _)| *name);
            let (_, text) = TUNED.iter().find(|(name, _)| *name == named).ok_or_else(|| {
                let place = beside.map_or_else(|| Path::new(FOLDER).to_owned(), |folder| folder.join(FOLDER));
                anyhow!(
                    "{file}: `tuned`: there is no {}/{named}.toml{}; `xmbench tune` makes one",
                    place.display(),
                    nearest(named, names())
                )
            })?;
            let file = format!("{FOLDER}/{named}.toml");
            Taken { tuned: parse(&file, text)?, file }
        }
    };
    Ok((taken.tuned.profile == profile.name()).then_some(taken))
}

/// Reads a file of tuned rows.
///
/// # Errors
/// If it cannot be read or is malformed.
pub fn read(path: &Path) -> Result<Taken> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read tuned rows {file}"))?;
    Ok(Taken { tuned: parse(&file, &text)?, file })
}

/// Reads tuned rows; `file` is what messages call it.
///
/// # Errors
/// Wrong TOML, an unknown or missing key, or a value that cannot be; the file is named, and the row or the line.
pub fn parse(file: &str, text: &str) -> Result<Tuned> {
    let table: Table = toml::from_str(text).map_err(|error| explain(file, text, &error))?;
    of_table(file, table)
}

/// Row by row, so that what is wrong in one names it.
fn of_table(file: &str, mut table: Table) -> Result<Tuned> {
    let rows = match table.insert("rows".into(), Value::Array(Vec::new())) {
        Some(Value::Array(rows)) => rows,
        other => bail!("{file}: expected `[[rows]]`, found {}", other.map_or("none".into(), |it| it.to_string())),
    };
    let said = |error: &toml::de::Error| error.to_string().trim().replace('\n', " ");
    let mut tuned: Tuned = table.try_into().map_err(|error| anyhow!("{file}: {}", said(&error)))?;
    for (position, row) in rows.into_iter().enumerate() {
        let name = row.get("row").and_then(Value::as_str).map(|row| format!(" `{row}`")).unwrap_or_default();
        let read = row.try_into().map_err(|error| anyhow!("{file}: row {}{name}: {}", position + 1, said(&error)))?;
        tuned.rows.push(read);
    }
    tuned.check().map_err(|wrong| anyhow!("{file}: expected {}, found {}", wrong.expected, wrong.found))?;
    for (position, row) in tuned.rows.iter().enumerate() {
        if tuned.rows[..position].iter().any(|it| (&it.row, &it.dataset) == (&row.row, &row.dataset)) {
            bail!("{file}: row {} `{}` on {}: it stands there before", position + 1, row.row, row.dataset);
        }
    }
    Ok(tuned)
}

impl Taken {
    /// Whether the file is that of the experiment itself, whose every row it must know.
    fn is_own(&self, experiment: &str) -> bool {
        self.tuned.experiment == experiment
    }

    /// That every row is on a dataset of the experiment, or on a split of one, where the file is its own; and that no row has what was
    /// tuned on some splits of a dataset and what is typed on others, which tables would show as one.
    ///
    /// # Errors
    /// If one is not, or has.
    pub fn check_datasets(&self, experiment: &str, datasets: &[DatasetEntry], seeds: &[u64]) -> Result<()> {
        let splits = datasets.iter().flat_map(|entry| entry.opened(seeds)).map(|(entry, _)| entry.label());
        let names: Vec<String> = datasets.iter().map(DatasetEntry::label).chain(splits).collect();
        if let Some(row) = self.tuned.rows.iter().find(|row| self.is_own(experiment) && !names.contains(&row.dataset)) {
            let hint = nearest(&row.dataset, names.iter().map(String::as_str));
            bail!("{}: row `{}`: the experiment has no dataset `{}`{hint}", self.file, row.row, row.dataset);
        }
        datasets.iter().filter(|entry| entry.split_by_seed).try_for_each(|entry| self.check_splits(entry, seeds))
    }

    fn check_splits(&self, dataset: &DatasetEntry, seeds: &[u64]) -> Result<()> {
        let all = dataset.label();
        let splits: Vec<String> = dataset.opened(seeds).iter().map(|(entry, _)| entry.label()).collect();
        for row in self.tuned.rows.iter().filter(|row| splits.contains(&row.dataset)) {
            let is_on = |name: &String| self.tuned.rows.iter().any(|it| it.row == row.row && it.dataset == *name);
            if let Some(typed) = splits.iter().find(|split| !is_on(split) && !is_on(&all)) {
                bail!(
                    "{}: row `{}`: expected one on `{all}`, for all splits, or one on each, found none on `{typed}`; tune it anew",
                    self.file,
                    row.row
                );
            }
        }
        Ok(())
    }

    /// That every row is one of the plan, where the file is the experiment's own.
    ///
    /// # Errors
    /// If one is not.
    pub fn check_rows(&self, experiment: &Experiment, plan: &[Planned]) -> Result<()> {
        let names: Vec<String> = plan.iter().map(Planned::row).collect();
        if let Some(row) = self.tuned.rows.iter().find(|row| self.is_own(&experiment.name) && !names.contains(&row.row))
        {
            let hint = nearest(&row.row, names.iter().map(String::as_str));
            bail!("{}: row `{}`: experiment {} has no such row{hint}", self.file, row.row, experiment.name);
        }
        Ok(())
    }

    /// The tuned parameters of a row of an entry, by dataset.
    ///
    /// # Errors
    /// Parameters of another method, unknown ones, or such as make the row what it is.
    pub fn of_row(&self, row: &str, entry: &MethodEntry, method: &dyn Method) -> Result<BTreeMap<String, Table>> {
        let mut all = BTreeMap::new();
        for found in self.tuned.rows.iter().filter(|it| it.row == row && entry.tuned) {
            self.check_row(found, entry, method).with_context(|| format!("{}: row `{row}`", self.file))?;
            all.insert(found.dataset.clone(), found.params.clone());
        }
        Ok(all)
    }

    fn check_row(&self, row: &TunedRow, entry: &MethodEntry, method: &dyn Method) -> Result<()> {
        if row.method != entry.method {
            bail!("it was tuned as method `{}`, and is `{}` here; tune it anew", row.method, entry.method);
        }
        let known = method.resolve(&Table::new())?;
        for key in row.params.keys() {
            if !known.contains_key(key) {
                let hint = nearest(key, known.keys().map(String::as_str));
                bail!("method `{}` has no parameter `{key}`{hint}", row.method);
            }
            if entry.owns(key) && !is_marked(method, key) {
                bail!("`{key}` is what the row's own entry says; tune it anew, or take it out of the entry");
            }
        }
        Ok(())
    }
}

/// Whether a parameter is tuned although an entry states it.
pub fn is_marked(method: &dyn Method, key: &str) -> bool {
    method.card().tuned().any(|(known, tune)| known == key && tune.stated)
}
