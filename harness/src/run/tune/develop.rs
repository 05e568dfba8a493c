//! What tuning sees of a dataset: training and validation data, and nothing else.

use std::path::Path;

use anyhow::{Context, Result, bail};
use toml::Table;
use xmbench_datasets::{Checksum, Collection, Dataset, OptionValue, sources};
use xmbench_methods::Training;

use crate::run::{entry::DatasetEntry, splits::SEED};

/// The share of the training items that is held out where a dataset has no validation split and an option for one.
const HELD_OUT: f64 = 0.2;

/// The option that holds out validation items.
const VALIDATION: &str = "validation";

/// A dataset without its test split, which was dropped when this was made: nothing that has this can look at it.
#[derive(Debug)]
pub struct Development {
    /// The dataset with its options.
    pub called: String,
    /// Checksum of the whole dataset.
    pub checksum: Checksum,
    /// What settings are judged on.
    pub val: Collection,
    /// Whether that was held out of the training items here alone: where the rows are reported nothing is validated, and their last
    /// epoch is kept.
    pub held_out: bool,
    name: String,
    train: Collection,
    vocabulary: usize,
    classes: usize,
}

impl Development {
    /// Opens what an experiment's dataset is developed on: the split that its source makes when nothing is said, so that splits
    /// of other seeds take no part in what is chosen. Where there is no validation split, a fifth of the training items is held out
    /// if the source can do that.
    ///
    /// # Errors
    /// If the dataset cannot be opened, or has no validation data.
    pub fn open(entry: &DatasetEntry, data: Option<&Path>) -> Result<Self> {
        let known = |key: &str| {
            let source = sources().iter().find(|source| source.name == entry.name)?;
            source.options.iter().find(|option| option.name == key).map(|option| option.default)
        };
        let mut options = entry.options.clone();
        if let (Some(seed), Some(OptionValue::Integer(default))) = (options.get_mut(SEED), known(SEED)) {
            *seed = default.into();
        }
        let open = |options: &Table| {
            xmbench_datasets::open(&entry.name, options, data)
                .with_context(|| format!("cannot open dataset {}", entry.label()))
        };
        let mut dataset = open(&options)?;
        let held_out = dataset.val.is_none() && known(VALIDATION).is_some();
        if held_out {
            options.insert(VALIDATION.into(), HELD_OUT.into());
            dataset = open(&options)?;
        }
        let called = DatasetEntry { name: entry.name.clone(), options, ..DatasetEntry::default() }.label();
        Ok(Self { held_out, ..Self::of(dataset, called)? })
    }

    /// Takes training and validation data, and drops what else there is.
    ///
    /// # Errors
    /// If there are no validation data.
    pub fn of(dataset: Dataset, called: String) -> Result<Self> {
        let Dataset { name, checksum, words, classes, train, val, .. } = dataset;
        let Some(val) = val else {
            bail!("dataset {called} has no validation split, on which alone settings are judged")
        };
        Ok(Self {
            called,
            checksum,
            val,
            held_out: false,
            name,
            train,
            vocabulary: words.len(),
            classes: classes.len(),
        })
    }

    /// The view that a method gets.
    pub fn training(&self) -> Training<'_> {
        let Self { name, train, val, vocabulary, classes, .. } = self;
        Training { dataset: name, train, val: Some(val), vocabulary: *vocabulary, classes: *classes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, options: Table) -> DatasetEntry {
        DatasetEntry { name: name.into(), label: Some("as reported".into()), options, ..DatasetEntry::default() }
    }

    #[test]
    fn a_split_that_is_reported_on_is_not_the_one_that_is_developed_on() {
        let of = |seed: i64| {
            Development::open(&entry("emoji", Table::from_iter([(SEED.to_string(), seed.into())])), None).unwrap()
        };
        let reported = xmbench_datasets::open("emoji", &toml::toml! { seed = 1 }, None).unwrap();
        let developed = of(1);
        assert_eq!(developed.called, "emoji (seed=0)");
        assert_ne!(developed.checksum, reported.checksum);
        assert_ne!(developed.val.images.ids, reported.val.unwrap().images.ids);
        assert_eq!(developed.val.images.ids, of(2).val.images.ids);
    }

    #[test]
    fn without_validation_data_nothing_is_judged() {
        let error = Development::open(&entry("planted-linear", toml::toml! { val = 0 }), None).unwrap_err();
        assert!(error.to_string().contains("planted-linear (val=0) has no validation split"), "{error}");
    }
}
