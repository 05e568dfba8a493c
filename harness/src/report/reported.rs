//! Rows that others report, from a CSV file, beside ours.
//!
//! ```text
//! row,dataset,metric,value,source
//! SCAN t2i,f8k,i2t R@1,48.6,"Lee et al. 2018, table 1"
//! ```
//!
//! `dataset` is as tables call it; a column `experiment` is possible and leaves out the tables of others.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use xmbench_datasets::files;

use super::table::{Cell, Head, Mark, Note, Raw, Row, RowKind, Table};
use crate::{
    output::quoted,
    record::{check, section::Section},
    stats::metric::Metric,
};

/// Lines of the longest file.
const MOST: usize = 10_000;

/// A value that somebody reports.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reported {
    row: String,
    dataset: String,
    #[serde(default)]
    experiment: String,
    metric: String,
    value: f64,
    source: String,
}

/// Reads a file.
///
/// # Errors
/// If it cannot be read, a column is missing or unknown, or a value is none; the line is named.
pub fn read(path: &Path) -> Result<Vec<Reported>> {
    let bytes = files::read(&files::named(path)?)?;
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes.as_slice());
    let mut out = Vec::new();
    for (at, line) in reader.deserialize::<Reported>().enumerate() {
        let place = || format!("{}, value {}", path.display(), at + 1);
        let line =
            line.with_context(|| format!("{}: expected row,dataset,metric,value,source[,experiment]", place()))?;
        for (what, text) in [("a row", &line.row), ("a dataset", &line.dataset), ("a metric", &line.metric)] {
            if let Err(wrong) = check::name(what, text) {
                bail!("{}: expected {}, found {}", place(), wrong.expected, wrong.found);
            }
            if text.is_empty() {
                bail!("{}: expected {what}, found nothing", place());
            }
        }
        if let Err(wrong) = check::text("a source", &line.source) {
            bail!("{}: expected {}, found {}", place(), wrong.expected, wrong.found);
        }
        if line.source.is_empty() || !line.value.is_finite() {
            bail!(
                "{}: expected a finite value and where it is from, found {} and {}",
                place(),
                line.value,
                quoted(&line.source)
            );
        }
        if out.len() == MOST {
            bail!("{}: expected at most {MOST} values", path.display());
        }
        out.push(line);
    }
    Ok(out)
}

impl Reported {
    fn is_of(&self, section: &Section<'_>) -> bool {
        self.dataset == section.dataset && (self.experiment.is_empty() || self.experiment == section.experiment)
    }

    /// Where it stands in a table.
    fn column(&self, table: &Table) -> Option<usize> {
        table.columns.iter().position(|column| column.name == self.metric)
    }
}

/// Adds the rows that are reported for a section to its table, before its controls; values of metrics that it does not show stay out.
pub fn add(table: &mut Table, section: &Section<'_>, reported: &[Reported]) {
    let here: Vec<(usize, &Reported)> =
        reported.iter().filter(|it| it.is_of(section)).filter_map(|it| Some((it.column(table)?, it))).collect();
    let mut names: Vec<(&str, &str)> = Vec::new();
    for (_, it) in &here {
        if !names.contains(&(&it.row, &it.source)) {
            names.push((&it.row, &it.source));
        }
    }
    let used = table.notes.iter().filter(|note| matches!(note.head, Head::Mark(Mark::Number(_)))).count();
    let mut sources: Vec<String> = Vec::new();
    let mut rows = Vec::new();
    for (name, source) in names {
        let Mark::Number(number) = super::results::number(&mut sources, format!("reported: {source}")) else {
            continue;
        };
        let mut cells = vec![Cell::default(); table.columns.len()];
        for (column, it) in here.iter().filter(|(_, it)| (it.row.as_str(), it.source.as_str()) == (name, source)) {
            cells[*column] = Cell {
                text: Metric::parse(&it.metric).format(it.value),
                raw: Raw { mean: Some(it.value), ..Raw::default() },
                ..Cell::default()
            };
        }
        rows.push(Row { kind: RowKind::Reported, name: name.into(), marks: vec![Mark::Number(used + number)], cells });
    }
    if rows.is_empty() {
        return;
    }
    let place = table.rows.iter().position(|row| row.kind == RowKind::Control).unwrap_or(table.rows.len());
    table.rows.splice(place..place, rows);
    table.notes.push(Note::word(
        "Reported",
        "rows of others, as they print them: data, features and protocol may be others, and they do not compete",
    ));
    let notes = sources.into_iter().enumerate().map(|(i, text)| Note::mark(Mark::Number(used + i + 1), text));
    table.notes.extend(notes);
}

/// The first value that no section's table has a place for, in words; none where every one has.
pub fn misplaced(sections: &[Section<'_>], reported: &[Reported]) -> Option<String> {
    let fits =
        |it: &&Reported| sections.iter().any(|section| it.is_of(section) && section.columns().contains(&it.metric));
    let lost = reported.iter().find(|it| !fits(it))?;
    let datasets: BTreeSet<String> = sections.iter().map(|section| section.dataset.into()).collect();
    let metrics: BTreeSet<String> =
        sections.iter().filter(|section| lost.is_of(section)).flat_map(Section::columns).collect();
    let known = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join(", ");
    Some(match metrics.is_empty() {
        true => format!(
            "row {}: no table of dataset {}{}; there are {}",
            quoted(&lost.row),
            quoted(&lost.dataset),
            if lost.experiment.is_empty() {
                String::new()
            } else {
                format!(" in experiment {}", quoted(&lost.experiment))
            },
            known(datasets)
        ),
        false => format!(
            "row {}: no table of dataset {} shows the metric {}; they show {}",
            quoted(&lost.row),
            quoted(&lost.dataset),
            quoted(&lost.metric),
            known(metrics)
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        record::{section, synthetic},
        report::{export, results, score::Scores},
    };

    fn parsed(text: &str) -> Result<Vec<Reported>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        std::fs::write(&path, text).unwrap();
        read(&path).map_err(|error| format!("{error:#}").replace(&folder.path().display().to_string(), ""))
    }

    const ROWS: &str = "row,dataset,metric,value,source\n\
                        Theirs,f8k,i2t R@1,48.6,\"A paper, table 1\"\n\
                        Theirs,f8k,t2i R@1,33.25,\"A paper, table 1\"\n";

    #[test]
    fn rows_of_others_stand_before_the_controls() {
        let recording = synthetic::recording();
        let sections = section::sections(&recording);
        let mut table = results::table(&sections[0], &mut Scores::new(&sections[0]), &recording.manifest);
        let before = table.clone();
        let reported = parsed(ROWS).unwrap();
        add(&mut table, &sections[0], &reported);
        let at = table.rows.iter().position(|row| row.name == "Theirs").unwrap();
        assert_eq!(table.rows[at].kind, RowKind::Reported);
        assert_eq!(table.rows[at + 1].kind, RowKind::Control);
        assert_eq!(table.rows.len(), before.rows.len() + 1);
        // What was best stays so.
        let bold = |table: &Table| table.rows.iter().flat_map(|row| &row.cells).filter(|cell| cell.bold).count();
        assert_eq!(bold(&table), bold(&before));
        let text = export::markdown(&table);
        assert!(text.contains(" 48.6 |") && text.contains("reported: A paper, table 1"), "{text}");
        // Of another dataset nothing changes.
        let mut other = before.clone();
        let elsewhere: Vec<Reported> = parsed(&ROWS.replace("f8k", "coco")).unwrap();
        add(&mut other, &sections[0], &elsewhere);
        assert_eq!(other, before);
        let first = &sections[..1];
        assert_eq!(misplaced(first, &reported), None);
        assert_eq!(misplaced(first, &elsewhere).unwrap(), "row `Theirs`: no table of dataset `coco`; there are f8k");
        let metric = parsed(&ROWS.replace("t2i R@1", "t2i R@7")).unwrap();
        assert!(misplaced(first, &metric).unwrap().contains("shows the metric `t2i R@7`; they show "));
    }

    #[test]
    fn wrong_files_are_named_by_their_value() {
        let said = |text: &str| parsed(text).unwrap_err();
        assert!(said("row,dataset,value\na,b,1\n").contains("value 1: expected row,dataset,metric,value,source"));
        assert!(said(&ROWS.replace("33.25", "many")).contains("value 2: expected row,"));
        assert!(said(&ROWS.replace("33.25", "inf")).contains("value 2: expected a finite value"));
        assert!(said(&ROWS.replace("Theirs,f8k,t2i", ",f8k,t2i")).contains("value 2: expected a row, found nothing"));
    }
}
