//! The trials of one experiment on one dataset under one protocol, as rows: what one table and its plots show.

use std::collections::{BTreeMap, BTreeSet};

use xmbench_datasets::Split;

use super::{Control, DatasetNote, ExperimentNote, Outcome, Recording, Stem, Trial, words};
use crate::protocol::Protocol;

/// One table's worth of trials.
#[derive(Debug)]
pub struct Section<'a> {
    /// Name of the files: `01-recall-f8k`.
    pub stem: Stem,
    /// Experiment.
    pub experiment: &'a str,
    /// Dataset; where rows are over several splits of it, what these are called together.
    pub dataset: &'a str,
    /// Its checksum; of several splits one each.
    pub checksums: Vec<&'a str>,
    /// What the recording says of the experiment.
    pub note: ExperimentNote,
    /// What the recording says of the dataset; of several splits, of the first.
    pub data: DatasetNote,
    /// The protocol of every row, which may differ in `select_on` alone.
    pub protocol: &'a Protocol,
    /// Rows in the order of the experiment, controls last.
    pub rows: Vec<Row<'a>>,
    /// The seeds that every learned row ran, or nothing if there is no such seed.
    pub seeds: Vec<u64>,
    /// Seeds that some row ran and that are left out of the means because another row did not.
    pub left_out: Vec<u64>,
}

/// The trials of one method under one setting.
#[derive(Debug)]
pub struct Row<'a> {
    /// Label without the swept parameters: one colour in every plot.
    pub label: &'a str,
    /// Label with the swept parameters.
    pub name: String,
    /// What stands beside learned results.
    pub control: Control,
    /// Whether anything was selected on the test split.
    pub dagger: bool,
    /// The parameters that tell rows of one label apart.
    pub swept: &'a BTreeMap<String, String>,
    /// Trials that ran through and count for means, by seed.
    pub trials: Vec<&'a Trial>,
    /// Seeds and reasons of trials that did not.
    pub failures: Vec<(u64, &'a str)>,
}

/// Cuts a recording into sections, sorted by experiment and dataset. Rows keep the seeds that every learned row ran.
pub fn sections(recording: &Recording) -> Vec<Section<'_>> {
    let mut sections = whole_sections(recording);
    sections.iter_mut().for_each(Section::restrict);
    sections
}

/// As [`sections`], but every row keeps all of its seeds.
pub fn whole_sections(recording: &Recording) -> Vec<Section<'_>> {
    let note = |trial: &Trial| recording.manifest.datasets.get(&trial.dataset);
    let mut groups: BTreeMap<(&str, &str, &str), Vec<(Protocol, Vec<&Trial>)>> = BTreeMap::new();
    for trial in &recording.trials {
        let data = match note(trial).filter(|note| note.checksum == trial.checksum).and_then(|note| note.of.as_deref())
        {
            Some(all) => (all, ""),
            None => (trial.dataset.as_str(), trial.checksum.as_str()),
        };
        let protocols = groups.entry((&trial.experiment, data.0, data.1)).or_default();
        // Selection is the one field in which rows of a table may differ: a dagger says so.
        let protocol = Protocol { select_on: Split::Val, ..trial.protocol.clone() };
        match protocols.iter_mut().find(|(other, _)| *other == protocol) {
            Some((_, trials)) => trials.push(trial),
            None => protocols.push((protocol, vec![trial])),
        }
    }
    let mut sections = Vec::new();
    let mut stems = BTreeSet::new();
    for ((experiment, all, _), protocols) in groups {
        for (_, trials) in protocols {
            let splits: BTreeMap<&str, &Trial> = trials.iter().map(|&trial| (trial.dataset.as_str(), trial)).collect();
            let mut splits: Vec<&Trial> = splits.into_values().collect();
            splits.sort_by_key(|trial| (trial.dataset.len(), &trial.dataset));
            let dataset = if splits.len() > 1 { all } else { &splits[0].dataset };
            let base = Stem::of(&format!("{experiment}-{dataset}"));
            let numbered = (2..).map(|i| base.with(&i.to_string()));
            let stem = std::iter::once(base.clone()).chain(numbered).find(|stem| !stems.contains(stem));
            let stem = stem.expect("an endless sequence holds a free name");
            stems.insert(stem.clone());
            let rows = rows(&trials);
            let (seeds, left_out) = common_seeds(&rows);
            sections.push(Section {
                stem,
                experiment,
                dataset,
                checksums: splits.iter().map(|trial| trial.checksum.as_str()).collect(),
                note: recording.manifest.experiments.get(experiment).cloned().unwrap_or_default(),
                data: note(splits[0]).cloned().unwrap_or_default(),
                // A protocol that a dagger row bent must not stand for all.
                protocol: trials
                    .iter()
                    .map(|trial| &trial.protocol)
                    .find(|protocol| protocol.select_on != Split::Test)
                    .unwrap_or(&trials[0].protocol),
                rows,
                seeds,
                left_out,
            });
        }
    }
    sections
}

impl<'a> Section<'a> {
    /// A protocol in words, for the splits that the dataset has; a recording that does not list them is taken at its word.
    pub fn describe(&self, protocol: &Protocol) -> String {
        if self.data.sizes.is_empty() { protocol.to_string() } else { protocol.with_splits(self.data.sizes.keys()) }
    }

    /// Whether each seed has a split of its own.
    pub fn is_over_splits(&self) -> bool {
        self.checksums.len() > 1
    }

    /// Items that ask by items that trained, where rows are over several splits of one dataset: what one split is tested on others are
    /// trained on. 0 where all seeds have the same data.
    pub fn overlap(&self) -> f64 {
        let images =
            |split: Split| self.data.sizes.get(&split.to_string()).map_or(1, |[images, _]| *images).max(1) as f64;
        if self.is_over_splits() { images(self.protocol.split) / images(Split::Train) } else { 0.0 }
    }

    /// Keeps the common seeds of each row. A control that ran none of them keeps its own: chance knows no seed.
    fn restrict(&mut self) {
        for row in &mut self.rows {
            let common = row.trials.iter().any(|trial| self.seeds.contains(&trial.seed));
            if common && row.control != Control::Chance {
                row.trials.retain(|trial| self.seeds.contains(&trial.seed));
            }
        }
    }

    /// Heading: the experiment's title, else its name.
    pub fn title(&self) -> &str {
        if self.note.title.is_empty() { self.experiment } else { &self.note.title }
    }

    /// Metrics that the table shows: those that the experiment names, else all that were recorded.
    pub fn columns(&self) -> Vec<String> {
        if !self.note.columns.is_empty() {
            return self.note.columns.clone();
        }
        let all = self.rows.iter().flat_map(|row| &row.trials).flat_map(|trial| trial.metrics.keys());
        all.collect::<BTreeSet<_>>().into_iter().cloned().collect()
    }

    /// A trial that kept its queries, to count them.
    pub fn asked(&self) -> Option<&'a Trial> {
        self.rows.iter().flat_map(|row| &row.trials).copied().find(|trial| !trial.queries.is_empty())
    }
}

impl<'a> Row<'a> {
    /// Code length, where the experiment varies it.
    pub fn bits(&self) -> Option<&'a str> {
        self.swept.get("bits").map(String::as_str)
    }

    /// Code length in bits, varied or not; none of a row without codes, nor of chance.
    pub fn length(&self) -> Option<u64> {
        let bits = match self.bits() {
            Some(bits) => bits.parse().ok()?,
            None => self.trials.first()?.params.get("bits")?.as_u64()?,
        };
        Some(bits).filter(|bits| *bits > 0)
    }
}

fn rows<'a>(trials: &[&'a Trial]) -> Vec<Row<'a>> {
    let mut rows: Vec<(usize, Row<'a>)> = Vec::new();
    for trial in trials {
        let dagger = trial.protocol.select_on == Split::Test;
        let same = |(position, row): &&mut (usize, Row<'a>)| {
            (*position, row.label, row.control, row.dagger, row.swept)
                == (trial.position, &trial.label, trial.control, dagger, &trial.swept)
        };
        let (_, row) = match rows.iter_mut().find(same) {
            Some(at) => at,
            None => {
                let row = Row {
                    label: &trial.label,
                    name: words::row(trial),
                    control: trial.control,
                    dagger,
                    swept: &trial.swept,
                    trials: Vec::new(),
                    failures: Vec::new(),
                };
                rows.push((trial.position, row));
                rows.last_mut().expect("a row was just added")
            }
        };
        match &trial.outcome {
            Outcome::Done => row.trials.push(trial),
            Outcome::Failed { reason } => row.failures.push((trial.seed, reason)),
        }
    }
    let rank = |control| match control {
        Control::None => 0,
        Control::Shuffled => 1,
        Control::Chance => 2,
    };
    let key = |(position, row): &(usize, Row<'a>)| {
        let swept: Vec<_> = row.swept.values().map(|value| words::natural(value)).collect();
        (rank(row.control), *position, swept, row.name.clone(), row.dagger)
    };
    rows.sort_by_cached_key(key);
    for (_, row) in &mut rows {
        row.trials.sort_by_key(|trial| trial.seed);
        row.failures.sort();
    }
    rows.into_iter().map(|(_, row)| row).collect()
}

/// The seeds that all rows with numbers ran, controls aside, and the others that some ran.
fn common_seeds(rows: &[Row<'_>]) -> (Vec<u64>, Vec<u64>) {
    let ran = rows.iter().filter(|row| row.control == Control::None && !row.trials.is_empty());
    let sets: Vec<BTreeSet<u64>> = ran.map(|row| row.trials.iter().map(|trial| trial.seed).collect()).collect();
    let all: BTreeSet<u64> = sets.iter().flatten().copied().collect();
    let (common, left_out): (Vec<u64>, _) = all.iter().partition(|seed| sets.iter().all(|set| set.contains(seed)));
    (common, left_out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{DatasetNote, synthetic};

    #[test]
    fn splits_of_one_dataset_are_one_table() {
        let mut recording = synthetic::recording();
        recording.trials.clear();
        for seed in [1, 2, 10] {
            let split = format!("d, split {seed}");
            recording.trials.extend(["a", "b"].map(|row| synthetic::trial("e", 0, row, &split, seed)));
            let sizes = [("train", [80, 80]), ("test", [20, 20])].map(|(name, size)| (name.to_string(), size));
            let checksum = format!("{seed:064}");
            recording
                .trials
                .iter_mut()
                .filter(|trial| trial.dataset == split)
                .for_each(|it| it.checksum.clone_from(&checksum));
            let note = DatasetNote { checksum, sizes: sizes.into(), of: Some("d".into()), ..DatasetNote::default() };
            recording.manifest.datasets.insert(split, note);
        }
        let all = sections(&recording);
        let [section] = &all[..] else { panic!("{} tables", all.len()) };
        assert_eq!((section.dataset, &section.seeds[..], section.rows.len()), ("d", &[1, 2, 10][..], 2));
        assert_eq!(section.checksums, [1, 2, 10].map(|seed| format!("{seed:064}")));
        assert_eq!(section.overlap(), 0.25);
        // One of them alone is what it is called.
        recording.trials.retain(|trial| trial.seed == 2);
        let section = sections(&recording).remove(0);
        assert_eq!((section.dataset, section.overlap()), ("d, split 2", 0.0));
        // What the recording says is of other data.
        recording.trials.iter_mut().for_each(|trial| trial.checksum = "7".repeat(64));
        assert_eq!(sections(&recording)[0].dataset, "d, split 2");
    }
}
