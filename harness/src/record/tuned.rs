//! What tuning found: the parameters of trained rows that did best on validation data, and what was spent on each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use toml::Table;
use xmbench_methods::card::Domain;

use super::check::{self, Checked};

/// The tuned rows of an experiment: a file of `experiments/tuned`, and part of what a recording keeps of the experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuned {
    /// The experiment whose rows they are.
    pub experiment: String,
    /// The profile under which they were tuned, and in which alone they are taken.
    pub profile: String,
    /// Settings that were tried of each row, the one it had before among them.
    pub trials: usize,
    /// Root seed of the draws and of the fits.
    pub seed: u64,
    /// Version of the code that computed.
    pub program: String,
    /// Git commit that the program was built from; empty where it was built outside a repository.
    pub commit: String,
    /// Whether the sources had uncommitted changes then.
    pub dirty: bool,
    /// How many settings were fitted for how long, from the shortest; the same for every row.
    pub rungs: Vec<Rung>,
    /// The rows.
    pub rows: Vec<TunedRow>,
}

/// One step of successive halving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rung {
    /// Settings a row.
    pub settings: usize,
    /// The share of a row's own epochs that they are trained for is one over this, rounded up.
    pub epochs_over: usize,
}

/// What came out for one row on one dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunedRow {
    /// The row as tables name it: `DJSRH 16 bits`.
    pub row: String,
    /// The dataset as the experiment calls it.
    pub dataset: String,
    /// The method.
    pub method: String,
    /// The dataset with the options under which its training and validation splits were used.
    pub developed_on: String,
    /// Checksum of that dataset.
    pub checksum: String,
    /// Validation score of the setting that the row had before; absent where that setting failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<f64>,
    /// Validation score of the setting that was chosen.
    pub after: f64,
    /// Epochs of a whole fit.
    pub epochs: usize,
    /// Fits, those included that went on from a shorter one.
    pub fits: usize,
    /// Settings that could not be fitted: their loss left the numbers, or their model collapsed.
    pub failed: usize,
    /// Seconds of all fits.
    pub seconds: f64,
    /// What each parameter was drawn from.
    pub ranges: BTreeMap<String, Domain>,
    /// What the row had before.
    pub present: Table,
    /// What was chosen.
    pub params: Table,
}

impl Tuned {
    /// What the source of an experiment, as a recording keeps it, says of tuning; nothing where it says nothing.
    pub fn of_source(source: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Part {
            tuned: Option<Tuned>,
        }
        toml::from_str::<Part>(source).ok()?.tuned.filter(|tuned| tuned.check().is_ok())
    }

    /// That every value is in its range.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check(&self) -> Checked {
        check::name("an experiment", &self.experiment)?;
        check::name("a profile", &self.profile)?;
        for (what, number) in [("`trials`", self.trials), ("`rungs`", self.rungs.len())] {
            if number == 0 {
                return check::wrong(format!("{what} of 1 or more"), number);
            }
        }
        if let Some(rung) = self.rungs.iter().find(|rung| rung.settings == 0 || rung.epochs_over == 0) {
            return check::wrong(
                "rungs of 1 setting or more, for one over 1 or more of the epochs",
                format!("{rung:?}"),
            );
        }
        self.rows.iter().try_for_each(TunedRow::check)
    }

    /// What was found for a row, as tables name it, on a dataset.
    pub fn find(&self, row: &str, dataset: &str) -> Option<&TunedRow> {
        self.rows.iter().find(|it| it.row == row && it.dataset == dataset)
    }

    /// As a file: what belongs to one row stands in one table of a few lines.
    ///
    /// # Panics
    /// Never: these are plain values.
    pub fn to_toml(&self) -> String {
        fn line(out: &mut String, key: &str, value: impl Serialize) {
            let value = toml::Value::try_from(value).expect("a tree of plain values");
            *out += &format!("{key} = {value}\n");
        }
        let mut out = String::new();
        line(&mut out, "experiment", &self.experiment);
        line(&mut out, "profile", &self.profile);
        line(&mut out, "trials", self.trials);
        line(&mut out, "seed", self.seed);
        line(&mut out, "program", &self.program);
        line(&mut out, "commit", &self.commit);
        line(&mut out, "dirty", self.dirty);
        line(&mut out, "rungs", &self.rungs);
        if self.rows.is_empty() {
            out += "rows = []\n";
        }
        for row in &self.rows {
            out += "\n[[rows]]\n";
            line(&mut out, "row", &row.row);
            line(&mut out, "dataset", &row.dataset);
            line(&mut out, "method", &row.method);
            line(&mut out, "developed_on", &row.developed_on);
            line(&mut out, "checksum", &row.checksum);
            if let Some(before) = row.before {
                line(&mut out, "before", before);
            }
            line(&mut out, "after", row.after);
            line(&mut out, "epochs", row.epochs);
            line(&mut out, "fits", row.fits);
            line(&mut out, "failed", row.failed);
            line(&mut out, "seconds", row.seconds);
            line(&mut out, "ranges", &row.ranges);
            line(&mut out, "present", &row.present);
            line(&mut out, "params", &row.params);
        }
        out
    }

    /// The budget in words: `16 settings a row: 16 for 1/9 of its epochs, 6 for 1/3, 2 for all`.
    pub fn budget(&self) -> String {
        let rung = |rung: &Rung| match rung.epochs_over {
            1 => format!("{} for all", rung.settings),
            over => format!("{} for 1/{over}", rung.settings),
        };
        let rungs: Vec<String> = self.rungs.iter().map(rung).collect();
        format!("{} settings a row, {} of its epochs", self.trials, rungs.join(", "))
    }
}

impl TunedRow {
    fn check(&self) -> Checked {
        for (what, text) in [
            ("a row", &self.row),
            ("a dataset", &self.dataset),
            ("a method", &self.method),
            ("what it was developed on", &self.developed_on),
        ] {
            check::name(what, text)?;
        }
        check::checksum(&self.checksum)?;
        check::amount("seconds", self.seconds)?;
        if let Some(score) = self.before.iter().chain([&self.after]).find(|score| !score.is_finite()) {
            return check::wrong(format!("a finite score of row `{}`", self.row), score);
        }
        for (key, range) in &self.ranges {
            check::name("a parameter", key)?;
            range.check().or_else(|error| check::wrong(format!("a range of `{key}`"), error))?;
        }
        for (key, value) in self.params.iter().chain(&self.present) {
            check::name("a parameter", key)?;
            check::text("a parameter's value", &value.to_string())?;
        }
        match self.params.keys().find(|key| !self.ranges.contains_key(*key) || !self.present.contains_key(*key)) {
            Some(key) => check::wrong(format!("`ranges` and `present` with `{key}`, which `params` has"), "none"),
            None => Ok(()),
        }
    }

    /// The tuned parameters whose value is another one than before: name, before, after.
    pub fn changes(&self) -> Vec<(&str, String, String)> {
        let text = |value: &toml::Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
        let changed = self.params.iter().filter(|(key, value)| self.present.get(*key) != Some(value));
        changed
            .map(|(key, value)| (key.as_str(), self.present.get(key).map(text).unwrap_or("none".into()), text(value)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_reads_back_as_what_was_written() {
        let domain = |text: &str| toml::from_str::<BTreeMap<String, Domain>>(text).unwrap();
        let row = TunedRow {
            row: "DJSRH 16 bits".into(),
            dataset: "emoji, \"split\" 1".into(),
            method: "djsrh".into(),
            developed_on: "emoji".into(),
            checksum: "ab01".into(),
            before: None,
            after: 0.1 + 0.2,
            epochs: 9,
            fits: 4,
            failed: 1,
            seconds: 1.5,
            ranges: domain("rate = { from = 1e-4, to = 0.01, scale = 'log' }\nwarmup = [0, 1]"),
            present: toml::toml! { rate = 0.5
            warmup = 1 },
            params: toml::toml! { rate = 0.001
            warmup = 1 },
        };
        let tuned = Tuned {
            experiment: "02-emoji-hashing".into(),
            profile: "quick".into(),
            trials: 6,
            seed: 1,
            program: "0.1.0+ab".into(),
            commit: String::new(),
            dirty: false,
            rungs: vec![Rung { settings: 6, epochs_over: 3 }, Rung { settings: 2, epochs_over: 1 }],
            rows: vec![row.clone(), TunedRow { before: Some(-1.0), dataset: "b".into(), ..row.clone() }],
        };
        assert_eq!(toml::from_str::<Tuned>(&tuned.to_toml()).unwrap(), tuned);
        let none = Tuned { rows: Vec::new(), ..tuned.clone() };
        assert_eq!(toml::from_str::<Tuned>(&none.to_toml()).unwrap(), none);
        assert_eq!(tuned.budget(), "6 settings a row, 6 for 1/3, 2 for all of its epochs");
        assert_eq!(row.changes(), [("rate", "0.5".to_string(), "0.001".to_string())]);
        assert!(tuned.check().is_ok());
        let lacks = Tuned { rows: vec![TunedRow { present: Table::new(), ..row }], ..tuned };
        assert!(lacks.check().unwrap_err().expected.contains("`present` with `rate`"));
    }
}
