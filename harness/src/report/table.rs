//! The one model of a table, which every format writes.

use crate::{record::Stem, stats::Interval};

/// Rows and columns with everything a reader needs to trust them.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Name of the files.
    pub name: Stem,
    /// Caption.
    pub title: String,
    /// What every row shares: experiment, dataset, protocol. Repeated on each line of a CSV file.
    pub context: Vec<(&'static str, String)>,
    /// Heading of the rows' names.
    pub stub: &'static str,
    /// Columns after the row's name.
    pub columns: Vec<Column>,
    /// Rows from top to bottom.
    pub rows: Vec<Row>,
    /// What stands below.
    pub notes: Vec<Note>,
}

/// A column.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// What it shares with its neighbours: the direction; may be empty.
    pub group: String,
    /// Heading below the group's.
    pub title: String,
    /// Heading where there is one line of headings: `i2t R@1`.
    pub name: String,
}

/// A row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// What it is.
    pub kind: RowKind,
    /// Name.
    pub name: String,
    /// Marks on the name.
    pub marks: Vec<Mark>,
    /// One cell a column.
    pub cells: Vec<Cell>,
}

/// What a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowKind {
    /// A result.
    Result,
    /// A result that did not come to be.
    Failed,
    /// The span that ties leave to the row above.
    Ties,
    /// What was stated in advance for the row above.
    Stated,
    /// A row that others report.
    Reported,
    /// A control, set apart by a rule.
    Control,
}

impl RowKind {
    /// Whether the row says something of the row above it.
    pub fn below(self) -> bool {
        matches!(self, Self::Ties | Self::Stated)
    }
}

/// A cell.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cell {
    /// What is printed; empty where there is nothing, which prints as a dash in rows of results and as nothing below them.
    pub text: String,
    /// Standard deviation as printed, without its sign.
    pub spread: String,
    /// Whether it is the best.
    pub bold: bool,
    /// Marks on the text.
    pub marks: Vec<Mark>,
    /// A word after the marks: the verdict.
    pub verdict: Option<Verdict>,
    /// The numbers behind the text.
    pub raw: Raw,
}

impl Cell {
    /// The verdict as printed: agreement with a number from memory is no more than that.
    pub fn judged(&self) -> Option<String> {
        let word = self.verdict?.word();
        let unverified = self.marks.contains(&Mark::Recalled) && self.verdict != Some(Verdict::NotRun);
        Some(if unverified { format!("{word}, UNVERIFIED") } else { word.to_string() })
    }
}

/// The numbers behind a cell, in full precision.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Raw {
    /// Mean, or the value itself.
    pub mean: Option<f64>,
    /// Standard deviation over seeds.
    pub deviation: Option<f64>,
    /// Seeds.
    pub count: Option<usize>,
    /// 95 % interval, or the span of ties.
    pub interval: Option<Interval>,
}

/// Whether our value agrees with the one stated in advance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Within the tolerance.
    Ok,
    /// Outside, but within what still counts as close.
    Close,
    /// Outside.
    Off,
    /// We have no value.
    NotRun,
}

impl Verdict {
    /// As printed.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Close => "CLOSE",
            Self::Off => "OFF",
            Self::NotRun => "NOT RUN",
        }
    }
}

/// A sign that a note explains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// Selected on the test split.
    Dagger,
    /// From memory.
    Recalled,
    /// From a small independent re-run.
    Measured,
    /// Training ended where validation was best.
    CutShort,
    /// Not told from the best.
    Alike,
    /// Samples scatter too much to compare.
    Noisy,
    /// A numbered note.
    Number(usize),
}

/// A line below the table.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// What it is about: `protocol`; or the mark that it explains.
    pub head: Head,
    /// The text.
    pub text: String,
}

/// How a note begins.
#[derive(Debug, Clone, PartialEq)]
pub enum Head {
    /// With a word.
    Word(&'static str),
    /// With the mark it explains.
    Mark(Mark),
    /// With a sample of bold print.
    Bold,
}

impl Note {
    /// A note that begins with a word.
    pub fn word(word: &'static str, text: impl Into<String>) -> Self {
        Self { head: Head::Word(word), text: text.into() }
    }

    /// A note that explains a mark.
    pub fn mark(mark: Mark, text: impl Into<String>) -> Self {
        Self { head: Head::Mark(mark), text: text.into() }
    }
}

impl Table {
    /// Neighbouring columns of one group: name and number of columns.
    pub fn groups(&self) -> Vec<(&str, usize)> {
        let mut groups: Vec<(&str, usize)> = Vec::new();
        for column in &self.columns {
            match groups.last_mut() {
                Some((group, count)) if *group == column.group => *count += 1,
                _ => groups.push((&column.group, 1)),
            }
        }
        groups
    }

    /// Whether a rule stands above the row: before the first control.
    pub fn rule_above(&self, row: usize) -> bool {
        let control = |row: usize| self.rows[row].kind == RowKind::Control;
        row > 0 && control(row) && !(0..row).any(control)
    }

    /// Whether any cell or row carries the mark.
    pub fn uses(&self, mark: Mark) -> bool {
        self.rows.iter().any(|row| row.marks.contains(&mark) || row.cells.iter().any(|cell| cell.marks.contains(&mark)))
    }
}
