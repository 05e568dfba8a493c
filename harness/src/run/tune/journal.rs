//! Every finished fit, a line each, so that an interrupted tuning goes on where it was.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::fit::Judged;
use crate::record::Id;

/// A finished fit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// What its score depends on.
    pub id: Id,
    /// Row.
    pub row: String,
    /// Dataset of the experiment.
    pub dataset: String,
    /// Number of the setting; 0 is the present one.
    pub setting: usize,
    /// Number of the rung.
    pub rung: usize,
    /// Epochs by then.
    pub epochs: usize,
    /// Validation score; absent of a setting that cannot be fitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<f64>,
    /// Why it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// Seconds of this fit, since the rung before.
    pub seconds: f64,
    /// Values of the parameters that are drawn.
    pub params: toml::Table,
}

impl Line {
    /// What came of the fit.
    pub fn judged(&self) -> Judged {
        match (self.validation, &self.failed) {
            (Some(score), _) => Judged::Score(score),
            (None, reason) => Judged::Failed(reason.clone().unwrap_or_default()),
        }
    }
}

/// The journal of a tuning.
pub struct Journal {
    path: PathBuf,
    file: File,
    lines: BTreeMap<Id, Line>,
}

impl Journal {
    /// Opens the journal, made if need be, and reads what it has.
    ///
    /// # Errors
    /// If it cannot be read or written, or has a line that is none. A last line that was cut short is as if it were not there.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = || format!("cannot read or write the journal {}", path.display());
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(failed),
        };
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut lines = BTreeMap::new();
        for (number, line) in text[..whole].lines().enumerate() {
            match serde_json::from_str::<Line>(line) {
                Ok(line) => drop(lines.insert(line.id.clone(), line)),
                Err(error) => bail!(
                    "{}, line {}: expected a finished fit, found {error}; mend it, or begin anew with --fresh",
                    path.display(),
                    number + 1
                ),
            }
        }
        let file = OpenOptions::new().create(true).write(true).truncate(false).open(path).with_context(failed)?;
        file.set_len(whole as u64).with_context(failed)?;
        drop(file);
        let file = OpenOptions::new().append(true).open(path).with_context(failed)?;
        Ok(Self { path: path.into(), file, lines })
    }

    /// A fit that was finished before.
    pub fn get(&self, id: &Id) -> Option<&Line> {
        self.lines.get(id)
    }

    /// Adds a finished fit.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add(&mut self, line: Line) -> Result<()> {
        let text = serde_json::to_string(&line).expect("a tree of plain values") + "\n";
        let failed = || format!("cannot write the journal {}", self.path.display());
        self.file.write_all(text.as_bytes()).with_context(failed)?;
        self.lines.insert(line.id.clone(), line);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str) -> Line {
        Line {
            id: Id::of(name),
            row: name.into(),
            dataset: "emoji".into(),
            setting: 1,
            rung: 0,
            epochs: 3,
            validation: Some(1.25),
            failed: None,
            seconds: 0.5,
            params: toml::toml! { margin = 0.5
            warmup = 2 },
        }
    }

    #[test]
    fn what_was_added_is_there_again_and_a_cut_line_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.tune.jsonl");
        let mut journal = Journal::open(&path).unwrap();
        journal.add(line("a")).unwrap();
        journal.add(line("b")).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 4]).unwrap();
        let mut again = Journal::open(&path).unwrap();
        assert_eq!((again.get(&Id::of("a")), again.get(&Id::of("b"))), (Some(&line("a")), None));
        again.add(line("b")).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        std::fs::write(&path, text.replace("\"epochs\":3", "\"epochs\":\"3\"")).unwrap();
        let error = Journal::open(&path).err().unwrap().to_string();
        assert!(error.contains("x.tune.jsonl, line 1: expected a finished fit, found"), "{error}");
    }
}
