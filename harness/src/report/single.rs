//! The table of one evaluation, without a recording.

use super::table::{Cell, Column, Note, Raw, Row, RowKind, Table};
use crate::{
    protocol::{Direction, Evaluation, Protocol, Task},
    record::Stem,
    stats::{Interval, metric::Metric},
};

/// What is evaluated.
pub struct Single<'a> {
    /// Name of the row.
    pub name: &'a str,
    /// Caption.
    pub title: &'a str,
    /// What the numbers mean.
    pub protocol: &'a Protocol,
    /// The protocol in words.
    pub described: String,
    /// The numbers.
    pub found: &'a Evaluation,
    /// Those of a random order.
    pub chance: &'a Evaluation,
    /// What was read.
    pub data: String,
    /// The command.
    pub command: String,
}

/// The names of a protocol's metrics in the order of a table: direction by direction, then what both share.
pub fn columns(protocol: &Protocol) -> Vec<String> {
    let directions = [Direction::I2t, Direction::T2i];
    let each = |names: &[String]| -> Vec<String> {
        directions.iter().flat_map(|direction| names.iter().map(move |name| format!("{direction} {name}"))).collect()
    };
    let list = |name: &str, cutoffs: &[usize]| cutoffs.iter().map(|k| format!("{name}@{k}")).collect::<Vec<_>>();
    match &protocol.task {
        Task::Pairs { cutoffs, .. } => {
            let ranks = ["MedR", "MeanR"].map(str::to_string);
            [each(&[list("R", cutoffs), ranks.to_vec()].concat()), vec!["rsum".to_string()]].concat()
        }
        Task::Category { cutoffs, .. } => {
            let all = ["MAP@all", "MAP@R"].map(str::to_string).to_vec();
            let own = [all.clone(), list("MAP", cutoffs), list("P", cutoffs), list("nDCG", cutoffs)].concat();
            [each(&own), all].concat()
        }
        Task::Correlation { .. } => vec!["correlation".to_string()],
    }
}

/// The table.
pub fn table(single: &Single<'_>) -> Table {
    let names: Vec<String> =
        columns(single.protocol).into_iter().filter(|name| single.found.metrics.contains_key(name)).collect();
    let metrics: Vec<Metric> = names.iter().map(|name| Metric::parse(name)).collect();
    let row = |kind: RowKind, name: &str, of: &Evaluation| {
        let cell = |metric: &Metric| {
            let mean = of.metrics.get(&metric.name).copied();
            let text = mean.map(|mean| metric.format(mean)).unwrap_or_default();
            Cell { text, raw: Raw { mean, count: mean.map(|_| 1), ..Raw::default() }, ..Cell::default() }
        };
        Row { kind, name: name.into(), marks: Vec::new(), cells: metrics.iter().map(cell).collect() }
    };
    // Shown where it reaches half a point, as in the tables of a recording.
    let ties = |metric: &Metric| match single.found.envelope.get(&metric.name) {
        Some(&[a, b]) if (a - b).abs() >= metric.half_a_point() => {
            let (low, high) = (a.min(b), a.max(b));
            let text = format!("{}–{}", metric.format(low), metric.format(high));
            Cell { text, raw: Raw { interval: Some(Interval { low, high }), ..Raw::default() }, ..Cell::default() }
        }
        _ => Cell::default(),
    };
    let ties: Vec<Cell> = metrics.iter().map(ties).collect();
    let mut rows = vec![row(RowKind::Result, single.name, single.found)];
    if ties.iter().any(|cell| !cell.text.is_empty()) {
        rows.push(Row { kind: RowKind::Ties, name: "ties".into(), marks: Vec::new(), cells: ties });
    }
    rows.push(row(RowKind::Control, "chance", single.chance));
    let column = |metric: &Metric| Column {
        group: metric.group().into(),
        title: metric.short().into(),
        name: metric.name.clone(),
    };
    Table {
        name: Stem::of(single.name),
        title: single.title.into(),
        context: vec![("protocol", single.described.clone())],
        stub: "method",
        columns: metrics.iter().map(column).collect(),
        rows,
        notes: vec![
            Note::word("protocol", &single.described),
            Note::word("data", &single.data),
            Note::word("made by", format!("`{}`", single.command)),
        ],
    }
}
