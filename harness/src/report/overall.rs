//! One table of all sections: methods by datasets.
//!
//! A row is a name, whatever experiments it stands in; a column is a headline metric of a dataset under one protocol. Settings may differ from
//! column to column, as experiments do. A name that stands twice under one column, with numbers of its own, has a row for each, which the
//! experiment tells apart.

use std::collections::BTreeSet;

use super::results;
use super::score::{Score, Scores};
use super::table::{Cell, Column, Mark, Note, Raw, Row, RowKind, Table};
use crate::protocol::{Direction, Protocol};
use crate::record::{
    Control, Id, Manifest, Stem, Trial,
    section::{Row as Trials, Section},
    words,
};
use crate::stats::{self, metric::Metric, time};

/// A column: of which data, under which protocol, what.
#[derive(Debug, Clone, PartialEq)]
struct Place {
    dataset: String,
    checksum: String,
    protocol: Protocol,
    metric: Metric,
    /// The first experiment that has it.
    experiment: String,
}

/// A score of a row of a section.
struct Entry {
    name: String,
    experiment: String,
    family: String,
    year: Option<u16>,
    /// Bytes of a text's code.
    bytes: Option<f64>,
    /// Median milliseconds of a query.
    query: Option<f64>,
    column: usize,
    score: Score,
    marks: Vec<Mark>,
    trials: BTreeSet<Id>,
}

/// What goes into the table, section by section.
#[derive(Default)]
pub struct Overall {
    places: Vec<Place>,
    entries: Vec<Entry>,
}

impl Overall {
    /// Adds the headline of a section: `rsum`, or the first metric of each direction; none of correlations.
    pub fn add(&mut self, section: &Section<'_>, scores: &mut Scores<'_>) {
        for metric in headline(section) {
            let column = self.place(section, &metric);
            for (row, score) in section.rows.iter().zip(scores.of(&metric)) {
                if let (Some(score), Some(trial), Control::None) = (score, row.trials.first(), row.control) {
                    self.entries.push(entry(section, (row, trial), (column, score)));
                }
            }
        }
    }

    fn place(&mut self, section: &Section<'_>, metric: &Metric) -> usize {
        let place = Place {
            dataset: section.dataset.into(),
            checksum: section.checksums.join(", "),
            protocol: section.protocol.clone(),
            metric: metric.clone(),
            experiment: section.experiment.into(),
        };
        let same = |known: &Place| Place { experiment: place.experiment.clone(), ..known.clone() } == place;
        self.places.iter().position(same).unwrap_or_else(|| {
            self.places.push(place);
            self.places.len() - 1
        })
    }

    /// The table; none where a single section is all there is.
    pub fn table(self, manifest: &Manifest) -> Option<Table> {
        let Self { places, entries } = self;
        let experiments: BTreeSet<&str> = places.iter().map(|place| place.experiment.as_str()).collect();
        if experiments.len() < 2 {
            return None;
        }
        let mut lines: Vec<Line> = Vec::new();
        for entry in &entries {
            let known = lines.iter_mut().filter(|line| line.name == entry.name).find(|line| line.takes(entry));
            match known {
                Some(line) => line.cells[entry.column] = Some(entry),
                None => {
                    let mut cells = vec![None; places.len()];
                    cells[entry.column] = Some(entry);
                    lines.push(Line { name: &entry.name, cells });
                }
            }
        }
        let families: Vec<&str> = entries.iter().map(|entry| entry.family.as_str()).collect();
        let family = |line: &Line<'_>| families.iter().position(|it| *it == line.first().family);
        lines.sort_by_key(family);
        let rows = lines.iter().map(|line| row(line, &lines, &places)).collect();
        let mut heads = ["family", "year", "ms a query", "bytes a text"].map(|head| Column {
            group: String::new(),
            title: head.into(),
            name: head.into(),
        });
        heads[2].title = "ms / query".into();
        let columns = heads.into_iter().chain(places.iter().map(|place| column(place, &places))).collect();
        let mut table = Table {
            name: Stem::of("overall"),
            title: "Methods by datasets".into(),
            context: vec![("profile", manifest.profile.clone())],
            stub: "method",
            columns,
            rows,
            notes: vec![
                Note::word(
                    "Columns",
                    "the headline of each dataset under each protocol, which its own section has in full",
                ),
                Note::word(
                    "Rows",
                    "one a name: settings may differ from column to column, as experiments do. A name with several numbers in one column has \
                     a row for each, with its experiment. Sections say what can be told apart; this table does not",
                ),
                Note::word(
                    "Time and size",
                    "of the first experiment that a row stands in: median of one text that asks, its encoding apart",
                ),
                Note::word("Made by", results::made_by(manifest)),
            ],
        };
        let legend: Vec<Note> = results::legend(&table).collect();
        table.notes.extend(legend);
        Some(table)
    }
}

/// A row of the table.
struct Line<'a> {
    name: &'a str,
    cells: Vec<Option<&'a Entry>>,
}

impl Line<'_> {
    fn first(&self) -> &Entry {
        self.cells.iter().flatten().next().expect("a line begins with an entry")
    }

    /// Whether it has room for an entry, or has its very numbers.
    fn takes(&self, entry: &Entry) -> bool {
        self.cells[entry.column].is_none_or(|known| known.trials == entry.trials)
    }
}

fn headline(section: &Section<'_>) -> Vec<Metric> {
    let metrics: Vec<Metric> = section.columns().iter().map(|name| Metric::parse(name)).collect();
    if let Some(sum) = metrics.iter().find(|metric| metric.name == "rsum") {
        return vec![sum.clone()];
    }
    let first = |direction: Direction| {
        let of = |metric: &&Metric| metric.direction == Some(direction) && metric.is_contested();
        metrics.iter().filter(of).find(|metric| !metric.less_is_better()).cloned()
    };
    [Direction::I2t, Direction::T2i].into_iter().filter_map(first).collect()
}

fn entry(section: &Section<'_>, (row, trial): (&Trials<'_>, &Trial), (column, score): (usize, &Score)) -> Entry {
    let card = xmbench_methods::registry::find(&trial.method).map(|method| method.card());
    Entry {
        name: row.name.clone(),
        experiment: section.experiment.into(),
        family: trial.family().into(),
        year: card.map(|card| card.year),
        bytes: Some(trial.bytes_per_item[1]).filter(|bytes| *bytes > 0.0),
        query: stats::quantile(&time::queries(&row.trials), 0.5),
        column,
        score: score.clone(),
        marks: results::caveats(row),
        trials: row.trials.iter().map(|trial| trial.id.clone()).collect(),
    }
}

fn row(line: &Line<'_>, lines: &[Line<'_>], places: &[Place]) -> Row {
    let first = line.first();
    let several = lines.iter().filter(|other| other.name == line.name).count() > 1;
    let number = |value: Option<f64>, text: fn(f64) -> String| Cell {
        text: value.map(text).unwrap_or_default(),
        raw: Raw { mean: value, ..Raw::default() },
        ..Cell::default()
    };
    let mut cells = vec![
        Cell { text: first.family.clone(), ..Cell::default() },
        number(first.year.map(f64::from), |year| format!("{year:.0}")),
        number(first.query, words::digits),
        number(first.bytes, words::count),
    ];
    cells.extend(line.cells.iter().zip(places).map(|(entry, place)| {
        let Some(Entry { score, marks, .. }) = entry else { return Cell::default() };
        Cell { text: place.metric.format(score.mean), marks: marks.clone(), raw: score.raw(), ..Cell::default() }
    }));
    let name = if several { format!("{} ({})", line.name, first.experiment) } else { line.name.to_string() };
    Row { kind: RowKind::Result, name, marks: Vec::new(), cells }
}

/// Its dataset above it; with the experiment where one metric of one dataset stands under several protocols.
fn column(place: &Place, places: &[Place]) -> Column {
    let alike = |other: &&Place| other.dataset == place.dataset && other.metric == place.metric;
    let title = match places.iter().filter(alike).count() {
        1 => place.metric.name.clone(),
        _ => format!("{} ({})", place.metric.name, place.experiment),
    };
    Column { group: place.dataset.clone(), name: format!("{} {title}", place.dataset), title }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{section, synthetic};

    fn overall() -> Table {
        let recording = synthetic::recording();
        let mut overall = Overall::default();
        for section in &section::sections(&recording) {
            overall.add(section, &mut Scores::new(section));
        }
        overall.table(&recording.manifest).unwrap()
    }

    #[test]
    fn a_name_has_one_row_and_each_dataset_its_headline() {
        let table = overall();
        let heads: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(heads[..4], ["family", "year", "ms a query", "bytes a text"]);
        assert!(heads[4..].iter().any(|head| head.starts_with("f8k ")), "{heads:?}");
        assert!(heads[4..].iter().any(|head| head.starts_with("wiki i2t ")), "{heads:?}");
        let names: Vec<&str> = table.rows.iter().map(|row| row.name.as_str()).collect();
        let distinct: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(names.len(), distinct.len(), "{names:?}");
        assert!(table.rows.iter().all(|row| row.cells.len() == heads.len()));
        assert!(table.rows.iter().all(|row| row.cells[4..].iter().any(|cell| cell.raw.mean.is_some())));
        assert!(!names.contains(&"chance"), "{names:?}");
    }

    #[test]
    fn a_number_that_is_no_equal_of_the_others_carries_its_mark() {
        let table = overall();
        let marked = |mark: Mark| {
            let cells = |row: &Row| row.cells.iter().any(|cell| cell.marks.contains(&mark));
            table.rows.iter().filter(|row| cells(row)).map(|row| row.name.as_str()).collect::<Vec<_>>()
        };
        assert!(!marked(Mark::Dagger).is_empty() && !marked(Mark::CutShort).is_empty());
        assert!(marked(Mark::CutShort).len() < table.rows.len());
        let explained = |mark: Mark| table.notes.iter().any(|note| note.head == super::super::table::Head::Mark(mark));
        assert!(explained(Mark::Dagger) && explained(Mark::CutShort));
    }

    #[test]
    fn one_section_needs_no_table_of_all() {
        let recording = synthetic::recording();
        let sections = section::sections(&recording);
        let mut overall = Overall::default();
        overall.add(&sections[0], &mut Scores::new(&sections[0]));
        assert!(overall.table(&recording.manifest).is_none());
    }
}
