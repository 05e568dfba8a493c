//! Experiments as TOML: what to run, under which protocol, and what the report says of it.
//!
//! ```toml
//! title = "Emoji: pairs"
//! analysis = "What the table shows."
//! seeds = [1, 2, 3]
//! columns = ["i2t R@1", "rsum"]
//! plots = ["recall"]
//! protocol = { task = { kind = "pairs" } }
//! common = { embedding = 256 }     # parameters of every method below that has them and does not say otherwise
//! training_images = [500, 1000]    # a learning curve: each row with so many training images and their texts; with all when absent
//! tuned = true                    # rows take their parameters from tuned/NAME.toml, or from the file of this name: see `tuned`
//!
//! [[datasets]]
//! name = "emoji"                  # every other key is an option of the dataset
//! split_by_seed = true            # each seed has a split of its own: the dataset's option `seed` is that of the trial
//!
//! [[methods]]
//! method = "vse"                  # every other key is a parameter of the method; an array sweeps over its values
//! label = "VSE++"
//! shuffled = true                 # also fitted on shuffled pairs, as a control
//! select = ["margin"]             # of a swept parameter's values, the best on the validation split makes the row
//! tuned = false                   # keeps the parameters that are typed, and is not tuned
//! shortlists_only = true          # too slow for a whole gallery: fitted, without validation, as the second stage of `rerank` alone
//!
//! [[ensembles]]                   # the mean of the scores of fitted rows is a row of its own
//! label = "SCAN, both directions"
//! of = ["SCAN t2i", "SCAN i2t"]   # two rows or more, as tables name them
//!
//! [[rerank]]                      # a row re-ranks the best of another
//! label = "VSE++, then SCAN t2i"
//! first = "VSE++"                 # makes the shortlist; a fitted row or an ensemble
//! second = "SCAN t2i"             # orders it anew; likewise
//! shortlist = [5, 10, 20, 50]     # items a query; an array sweeps
//!
//! [profile.smoke]                 # or quick, full, paper (that of full when absent); `off = true` leaves the experiment out
//! seeds = [1]
//! params."VSE++" = { epochs = 2 } # by label or by method; of `rerank` entries by label, and `shortlist` alone
//! ```

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use super::{
    Places,
    builtin::BUILTIN,
    entry::{DatasetEntry, EnsembleEntry, MethodEntry, RerankEntry},
    explain::explain,
    nearest,
    profile::{Profile, Profiles},
    splits::SEED,
    tuned::{self, Taken},
};
use crate::{
    protocol::Protocol,
    record::{Expected, ExperimentNote, PLOTS, check},
};

/// An experiment under one profile.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Experiment {
    /// File name without `.toml`: `01-emoji-pairs`.
    #[serde(skip)]
    pub name: String,
    /// Heading.
    pub title: String,
    /// The paragraph above the table.
    pub analysis: String,
    /// Root seeds; every method is run with each.
    pub seeds: Vec<u64>,
    /// Metrics that the table shows.
    pub columns: Vec<String>,
    /// Plots to draw.
    pub plots: Vec<String>,
    /// Values that are stated in advance.
    pub expected: Vec<Expected>,
    /// What the numbers mean.
    pub protocol: Protocol,
    /// What is run on.
    pub datasets: Vec<DatasetEntry>,
    /// Numbers of training images of a learning curve; every row with all of them where there are none.
    pub training_images: Vec<usize>,
    /// Parameters of every method that has them, unless its entry says otherwise.
    pub common: toml::Table,
    /// Tuned parameters of its rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tuned: Option<Taken>,
    /// What is run.
    pub methods: Vec<MethodEntry>,
    /// Rows that are means of others' scores.
    pub ensembles: Vec<EnsembleEntry>,
    /// Rows that order the best of one row by another.
    pub rerank: Vec<RerankEntry>,
    /// Whether the profile leaves the experiment out.
    #[serde(skip)]
    pub off: bool,
    /// Where files that parameters name are looked for.
    #[serde(skip)]
    pub places: Places,
}

/// The file as it is written, for every profile.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    title: String,
    #[serde(default)]
    analysis: String,
    seeds: Vec<u64>,
    #[serde(default)]
    columns: Vec<String>,
    #[serde(default)]
    plots: Vec<String>,
    #[serde(default)]
    expected: Vec<Expected>,
    #[serde(default)]
    training_images: Vec<usize>,
    protocol: Protocol,
    datasets: Vec<DatasetEntry>,
    #[serde(default)]
    common: toml::Table,
    #[serde(default)]
    tuned: Option<toml::Value>,
    methods: Vec<MethodEntry>,
    #[serde(default)]
    ensembles: Vec<EnsembleEntry>,
    #[serde(default)]
    rerank: Vec<RerankEntry>,
    #[serde(default)]
    profile: Profiles,
}

impl Experiment {
    /// Every built-in experiment, in the order of their numbers.
    ///
    /// # Errors
    /// If one is malformed; a test reads them all.
    pub fn builtin(profile: Profile) -> Result<Vec<Self>> {
        BUILTIN.iter().map(|(name, text)| Self::parse(name, &format!("{name}.toml"), text, profile)).collect()
    }

    /// The experiment of that name, of that name without its number, or in that file.
    ///
    /// # Errors
    /// If there is none, or it is malformed.
    pub fn find(name: &str, profile: Profile) -> Result<Self> {
        Self::found(name, profile, true)
    }

    /// As [`Experiment::find`], with the parameters that are typed: what is tuned is not asked, and need not be there.
    ///
    /// # Errors
    /// As [`Experiment::find`].
    pub fn as_typed(name: &str, profile: Profile) -> Result<Self> {
        Self::found(name, profile, false)
    }

    fn found(name: &str, profile: Profile, tuned: bool) -> Result<Self> {
        if name.ends_with(".toml") {
            let path = Path::new(name);
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read experiment {name}"))?;
            let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            let mut experiment = Self::read((&stem, name), &text, profile, tuned.then_some(path.parent()))?;
            experiment.places.beside = path.parent().map(Path::to_owned);
            return Ok(experiment);
        }
        let short = |full: &str| full.split_once('-').map_or(full.to_string(), |(_, rest)| rest.to_string());
        let found = BUILTIN.iter().find(|(full, _)| *full == name || short(full) == name);
        let Some((full, text)) = found else {
            let names = BUILTIN.iter().map(|(full, _)| *full);
            bail!(
                "no experiment `{name}`{}; `xmbench list experiments` shows them all, and a path to a .toml file works too",
                nearest(name, names)
            );
        };
        Self::read((full, &format!("{full}.toml")), text, profile, tuned.then_some(None))
    }

    /// Reads an experiment; `file` is what messages call it.
    ///
    /// # Errors
    /// Wrong TOML, an unknown or missing key, or values that make no sense; file and line are named.
    pub fn parse(name: &str, file: &str, text: &str, profile: Profile) -> Result<Self> {
        Self::read((name, file), text, profile, Some(None))
    }

    /// Reads it with what is tuned, which may lie beside it in a folder, or without.
    fn read((name, file): (&str, &str), text: &str, profile: Profile, tuned: Option<Option<&Path>>) -> Result<Self> {
        let wire: Wire = toml::from_str(text).map_err(|error| explain(file, text, &error))?;
        let (mut methods, mut rerank) = (wire.methods, wire.rerank);
        methods.iter_mut().for_each(MethodEntry::note_own);
        for (profile, change) in wire.profile.all() {
            for (target, params) in &change.params {
                if rerank.iter().any(|entry| entry.label == *target) {
                    if let Some(key) = params.keys().find(|key| *key != "shortlist") {
                        bail!("{file}: profile.{profile}.params.\"{target}\": expected `shortlist`, found `{key}`");
                    }
                } else if !methods.iter().any(|entry| entry.answers(target)) {
                    let names = methods.iter().flat_map(|entry| entry.label.iter().chain([&entry.method]));
                    let names = names.chain(rerank.iter().map(|entry| &entry.label));
                    bail!(
                        "{file}: profile.{profile}.params names `{target}`, which is neither a method nor a label here{}",
                        nearest(target, names.map(String::as_str))
                    );
                }
            }
        }
        let chosen = wire.profile.of(profile);
        // By method first, so that a label has the last word.
        for by_label in [false, true] {
            for entry in &mut methods {
                let target = if by_label { entry.label.as_ref() } else { Some(&entry.method) };
                let change = target.and_then(|target| chosen.params.get(target)).cloned().unwrap_or_default();
                entry.params.extend(change);
            }
        }
        for entry in &mut rerank {
            let shortlist = chosen.params.get(&entry.label).and_then(|params| params.get("shortlist"));
            entry.shortlist = shortlist.unwrap_or(&entry.shortlist).clone();
        }
        let mut common = wire.common;
        common.extend(chosen.common);
        let key = chosen.tuned.as_ref().or(wire.tuned.as_ref());
        let tuned = tuned.map_or(Ok(None), |beside| tuned::taken(key, (name, file), profile, beside))?;
        let experiment = Self {
            name: name.into(),
            title: wire.title,
            analysis: wire.analysis.trim().into(),
            seeds: chosen.seeds.unwrap_or(wire.seeds),
            columns: wire.columns,
            plots: wire.plots,
            expected: wire.expected,
            protocol: wire.protocol,
            training_images: wire.training_images,
            datasets: chosen.datasets.unwrap_or(wire.datasets),
            common,
            methods,
            ensembles: wire.ensembles,
            rerank,
            tuned,
            off: chosen.off,
            places: Places::default(),
        };
        experiment.check().with_context(|| file.to_string())?;
        Ok(experiment)
    }

    /// What a report prints of it.
    pub fn note(&self) -> ExperimentNote {
        ExperimentNote {
            title: self.title.clone(),
            analysis: self.analysis.clone(),
            columns: self.columns.clone(),
            plots: self.plots.clone(),
            expected: self.expected.clone(),
            source: self.source(),
        }
    }

    /// The experiment under its profile as TOML; [`Experiment::parse`] makes it again, under any profile.
    fn source(&self) -> String {
        toml::to_string(self).expect("a tree of plain values")
    }

    /// Takes other seeds.
    ///
    /// # Errors
    /// If it cannot be run under them.
    pub fn reseed(&mut self, seeds: &[u64]) -> Result<()> {
        self.seeds = seeds.to_vec();
        self.check().with_context(|| format!("experiment {}", self.name))
    }

    fn check(&self) -> Result<()> {
        for (key, empty) in [
            ("seeds", self.seeds.is_empty()),
            ("datasets", self.datasets.is_empty()),
            ("methods", self.methods.is_empty()),
        ] {
            if empty {
                bail!("`{key}` is empty: an experiment needs at least one");
            }
        }
        if let Some(seed) = self.seeds.iter().find(|&&seed| seed > i64::MAX as u64) {
            bail!("seed {seed} is out of range: seeds go up to {}", i64::MAX);
        }
        for entry in self.datasets.iter().filter(|entry| entry.split_by_seed) {
            let source = xmbench_datasets::sources().iter().find(|source| source.name == entry.name);
            let has = source.is_some_and(|source| source.options.iter().any(|option| option.name == SEED));
            if entry.options.contains_key(SEED) || !has {
                let found = if has { "that it says which one" } else { "none" };
                bail!(
                    "dataset {}: `split_by_seed` expects an option `{SEED}` of the dataset to set, found {found}",
                    entry.label()
                );
            }
        }
        if self.training_images.contains(&0) {
            bail!("`training_images`: expected numbers above 0, found 0");
        }
        self.protocol.check()?;
        self.tuned.as_ref().map_or(Ok(()), |taken| taken.check_datasets(&self.name, &self.datasets, &self.seeds))?;
        // What is recorded must read back.
        let note = check::name("a name", &self.name).and_then(|()| self.note().check());
        let entries = self.datasets.iter().map(DatasetEntry::label);
        let labels = self.methods.iter().filter_map(|entry| entry.label.clone());
        let made = self.ensembles.iter().map(|entry| &entry.label).chain(self.rerank.iter().map(|entry| &entry.label));
        let mut names = entries.chain(labels).chain(made.cloned());
        note.and_then(|()| names.try_for_each(|label| check::name("a label", &label)))
            .map_err(|wrong| anyhow!("expected {}, found {}", wrong.expected, wrong.found))?;
        if let Some(plot) = self.plots.iter().find(|plot| !PLOTS.contains(&plot.as_str())) {
            bail!("no plot `{plot}`: expected one of {}{}", PLOTS.join(", "), nearest(plot, PLOTS));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
title = "Example"
seeds = [1, 2]
protocol = { task = { kind = "pairs" } }

[[datasets]]
name = "emoji"

[[datasets]]
name = "emoji"
split = "random"

[[methods]]
method = "vse"
label = "VSE++"
shuffled = true
embedding = [64, 128]

[[methods]]
method = "cca"

[profile.smoke]
seeds = [7]
params.vse = { epochs = 1, margin = 0.1 }
params."VSE++" = { epochs = 2 }

[profile.full]
off = true
"#;

    fn parse(text: &str) -> String {
        format!("{:#}", Experiment::parse("example", "example.toml", text, Profile::Quick).unwrap_err())
    }

    #[test]
    fn entries_keep_options_and_parameters() {
        let experiment = Experiment::parse("example", "example.toml", TEXT, Profile::Quick).unwrap();
        assert_eq!(experiment.seeds, [1, 2]);
        let labels: Vec<String> = experiment.datasets.iter().map(DatasetEntry::label).collect();
        assert_eq!(labels, ["emoji", "emoji (split=random)"]);
        assert_eq!(experiment.methods[0].params, toml::toml! { embedding = [64, 128] });
        assert!(experiment.methods[0].shuffled && !experiment.methods[1].shuffled && !experiment.off);
    }

    #[test]
    fn a_profile_changes_seeds_and_parameters_and_the_label_wins() {
        let smoke = Experiment::parse("example", "example.toml", TEXT, Profile::Smoke).unwrap();
        assert_eq!(smoke.seeds, [7]);
        assert_eq!(
            smoke.methods[0].params,
            toml::toml! { embedding = [64, 128]
            epochs = 2
            margin = 0.1 }
        );
        assert!(smoke.methods[1].params.is_empty());
        assert!(Experiment::parse("example", "example.toml", TEXT, Profile::Full).unwrap().off);
        // A paper's profile is that of `full` where there is none.
        assert!(Experiment::parse("example", "example.toml", TEXT, Profile::Paper).unwrap().off);
        let text = format!("{TEXT}[profile.paper]\ncommon = {{ epochs = 30 }}\n");
        let paper = Experiment::parse("example", "example.toml", &text, Profile::Paper).unwrap();
        assert!(!paper.off && paper.common == toml::toml! { epochs = 30 });
    }

    #[test]
    fn messages_name_file_line_and_what_was_meant() {
        insta::assert_snapshot!(parse(&TEXT.replace("title =", "titel =")), @r#"
        example.toml, line 2: unknown field `titel`, expected one of `title`, `analysis`, `seeds`, `columns`, `plots`, `expected`, `training_images`, `protocol`, `datasets`, `common`, `tuned`, `methods`, `ensembles`, `rerank`, `profile`; did you mean `title`?
          | titel = "Example"
        "#);
        insta::assert_snapshot!(parse(&TEXT.replace("seeds = [1, 2]", "seeds = [1, 2")), @r#"
        example.toml, line 4: missing comma between array elements, expected `,`
          | protocol = { task = { kind = "pairs" } }
        "#);
        insta::assert_snapshot!(parse(&TEXT.replace("seeds = [1, 2]", "seeds = 3")), @r"
        example.toml, line 3: invalid type: integer `3`, expected a sequence
          | seeds = 3
        ");
        insta::assert_snapshot!(parse(&TEXT.replace("\"pairs\"", "\"pears\"")), @r#"
        example.toml, line 4: unknown variant `pears`, expected one of `pairs`, `category`, `correlation`
          | protocol = { task = { kind = "pears" } }
        "#);
        insta::assert_snapshot!(parse(&TEXT.replace("seeds = [7]", "seed = [7]")), @r"
        example.toml, line 23: unknown field `seed`, expected one of `off`, `seeds`, `datasets`, `common`, `tuned`, `params`; did you mean `seeds`?
          | seed = [7]
        ");
        insta::assert_snapshot!(parse(&TEXT.replace("params.vse ", "params.vsepp ")), @"example.toml: profile.smoke.params names `vsepp`, which is neither a method nor a label here; did you mean `vse`?");
        insta::assert_snapshot!(parse(&TEXT.replace("seeds = [1, 2]", "seeds = []")), @"example.toml: `seeds` is empty: an experiment needs at least one");
        insta::assert_snapshot!(parse(&TEXT.replace("seeds = [1, 2]", "seeds = [1]\nplots = [\"recal\"]")), @"example.toml: no plot `recal`: expected one of recall, pr, topn, radius, bits, unified, ties, sweep, pareto, years, training, rerank; did you mean `recall`?");
    }

    #[test]
    fn built_in_experiments_are_well_formed_in_every_profile() {
        for profile in Profile::ALL {
            let all = Experiment::builtin(profile).unwrap();
            assert_eq!(all.len(), BUILTIN.len());
            assert!(all.iter().all(|experiment| !experiment.analysis.is_empty() && !experiment.columns.is_empty()));
            for experiment in all.into_iter().filter(|experiment| !experiment.off) {
                // What a recording keeps of it is the experiment, whatever the profile under which that is read.
                let source = experiment.note().source;
                assert_eq!(Experiment::parse(&experiment.name, "x.toml", &source, Profile::Smoke).unwrap(), experiment);
            }
        }
    }

    #[test]
    fn names_work_with_and_without_their_number() {
        assert_eq!(Experiment::find("emoji-pairs", Profile::Smoke).unwrap().name, "01-emoji-pairs");
        let error = Experiment::find("emoji-pears", Profile::Smoke).unwrap_err().to_string();
        assert!(error.contains("did you mean `01-emoji-pairs`?"), "{error}");
    }
}
