//! Tables of papers, run again: what the paper prints, what we recorded once, what a run gives now, and whether they agree.
//!
//! ```toml
//! title = "Correlation and abstraction on Wikipedia"
//! paper = "Rasiwasia et al., ACM MM 2010"         # printed as the source
//! analysis = "What the table shows."
//! experiments = ["03-wiki-correlation"]           # all are run; a cell is read from the first that has its row
//! profile = "full"
//! digits = 4
//!
//! [recorded]                                      # under what our own values were taken
//! from = "profile full, CPU"
//! seeds = [1]
//! protocol = "category: ..."                      # as printed; the experiment must still have it
//!
//! [tolerance]                                     # fixed before the run
//! paper = { ok = 0.005, close = 0.015, reason = "..." }
//! recorded = { ok = 0.0005, reason = "..." }
//!
//! [[cells]]
//! row = "SCM"                                     # what the table calls it
//! label = "SCM"                                   # the experiment's row, `chance` for a random order; `row` when absent
//! metric = "i2t MAP@all"                          # `avg X` is the mean of `i2t X` and `t2i X`
//! dataset = "wiki"                                # only where experiments have several
//! paper = { value = 0.277, source = "table 2", evidence = "recalled" }
//! recorded = 0.2744
//! tolerance = { ok = 0.01, reason = "..." }       # in place of the table's against the paper
//! ```

pub mod judge;
pub mod render;

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use xmbench_methods::card::Evidence;

use crate::run::{Experiment, Profile, explain, nearest};

/// A paper's table with our values beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct PaperTable {
    /// File name without `.toml`: `wiki-mm10`.
    pub name: String,
    /// What names it on the command line: its name, or the path of its file.
    pub argument: String,
    /// What the file says.
    pub text: Wire,
}

/// The file as it is written.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wire {
    /// Heading.
    pub title: String,
    /// Paper and table.
    pub paper: String,
    /// The paragraph above the table.
    #[serde(default)]
    pub analysis: String,
    /// Experiments by name or path.
    pub experiments: Vec<String>,
    /// How much of them is run.
    pub profile: Profile,
    /// Digits after the point of every value.
    pub digits: usize,
    /// Under what our own values were taken.
    pub recorded: Recorded,
    /// How far apart values may be.
    pub tolerance: Tolerances,
    /// The cells, row by row.
    pub cells: Vec<Cell>,
}

/// Under what our own values were taken.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// Profile, machine.
    pub from: String,
    /// Seeds that the values are means over.
    pub seeds: Vec<u64>,
    /// The protocol as printed.
    pub protocol: String,
}

/// How far apart values may be.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tolerances {
    /// Our run from the paper.
    pub paper: Tolerance,
    /// Our run from our recording.
    pub recorded: Tolerance,
}

/// How far apart two values may be, and why so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tolerance {
    /// Up to this difference values agree.
    pub ok: f64,
    /// Up to this one they are close; absent where there is no such thing.
    pub close: Option<f64>,
    /// Why.
    pub reason: String,
}

/// A cell of a paper's table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// What the table calls the row.
    pub row: String,
    /// The experiment's row; `row` when absent.
    #[serde(default)]
    pub label: Option<String>,
    /// Metric by its stored name.
    pub metric: String,
    /// Dataset as tables call it; any when absent.
    #[serde(default)]
    pub dataset: Option<String>,
    /// What the paper prints; absent where it prints nothing.
    #[serde(default)]
    pub paper: Option<Printed>,
    /// What we recorded; absent before the first run.
    #[serde(default)]
    pub recorded: Option<f64>,
    /// In place of the table's tolerance against the paper.
    #[serde(default)]
    pub tolerance: Option<Tolerance>,
}

/// A value that a paper prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Printed {
    /// The value.
    pub value: f64,
    /// Where it was seen.
    pub source: String,
    /// How sure it is.
    pub evidence: Evidence,
}

macro_rules! builtin {
    ($($name:literal),* $(,)?) => {
        /// The tables that are part of the program: name and text.
        const BUILTIN: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../repro/", $name, ".toml")))),*];
    };
}
builtin!["mnist-halves", "wiki-mm10"];

impl PaperTable {
    /// Every built-in table.
    ///
    /// # Errors
    /// If one is malformed; a test reads them all.
    pub fn builtin() -> Result<Vec<Self>> {
        BUILTIN.iter().map(|(name, text)| Self::parse(name, &format!("{name}.toml"), text)).collect()
    }

    /// The table of that name, or in that file.
    ///
    /// # Errors
    /// If there is none, or it is malformed.
    pub fn find(name: &str) -> Result<Self> {
        if name.ends_with(".toml") {
            let text = std::fs::read_to_string(name).with_context(|| format!("cannot read table {name}"))?;
            let stem = Path::new(name).file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            return Ok(Self { argument: name.into(), ..Self::parse(&stem, name, &text)? });
        }
        match BUILTIN.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => Self::parse(name, &format!("{name}.toml"), text),
            None => bail!(
                "no table `{name}`{}; `xmbench repro --list` shows them all, and a path to a .toml file works too",
                nearest(name, BUILTIN.iter().map(|(known, _)| *known))
            ),
        }
    }

    /// Reads a table; `file` is what messages call it.
    ///
    /// # Errors
    /// Wrong TOML, an unknown or missing key, no cells, or tolerances that make no sense.
    pub fn parse(name: &str, file: &str, text: &str) -> Result<Self> {
        let wire: Wire = toml::from_str(text).map_err(|error| explain(file, text, &error))?;
        for (key, empty) in [("cells", wire.cells.is_empty()), ("experiments", wire.experiments.is_empty())] {
            if empty {
                bail!("{file}: `{key}` is empty: a table needs at least one");
            }
        }
        let own = wire.cells.iter().filter_map(|cell| cell.tolerance.as_ref());
        for tolerance in own.chain([&wire.tolerance.paper, &wire.tolerance.recorded]) {
            let close = tolerance.close.unwrap_or(tolerance.ok);
            if !(tolerance.ok >= 0.0 && close >= tolerance.ok && close.is_finite()) {
                bail!("{file}: tolerance: expected 0 <= ok <= close, found ok = {} and close = {close}", tolerance.ok);
            }
        }
        let values =
            wire.cells.iter().flat_map(|cell| cell.recorded.into_iter().chain(cell.paper.as_ref().map(|it| it.value)));
        if let Some(value) = values.into_iter().find(|value| !value.is_finite()) {
            bail!("{file}: cells: expected finite values, found {value}");
        }
        Ok(Self { name: name.into(), argument: name.into(), text: wire })
    }

    /// The experiments under the table's profile, with the seeds of our recording.
    ///
    /// # Errors
    /// An experiment that does not exist, that the profile leaves out, or whose protocol is not that of our values.
    pub fn experiments(&self) -> Result<Vec<Experiment>> {
        let Wire { experiments, profile, recorded, .. } = &self.text;
        let found = experiments.iter().map(|name| {
            let mut experiment =
                Experiment::find(name, *profile).with_context(|| format!("table {}", self.name))?;
            if experiment.off {
                bail!("table {}: experiment {name} is not part of profile {profile}", self.name);
            }
            let protocol = experiment.protocol.to_string();
            if protocol != recorded.protocol {
                bail!(
                    "table {}: its values were recorded under `{}`, experiment {name} has `{protocol}`; record them anew",
                    self.name,
                    recorded.protocol
                );
            }
            experiment.seeds.clone_from(&recorded.seeds);
            Ok(experiment)
        });
        found.collect()
    }

    /// The command that runs the table.
    pub fn command(&self) -> String {
        format!("xmbench repro {}", self.argument)
    }
}

impl Cell {
    /// The experiment's row.
    pub fn label(&self) -> &str {
        self.label.as_deref().unwrap_or(&self.row)
    }
}

#[cfg(test)]
mod tests;
