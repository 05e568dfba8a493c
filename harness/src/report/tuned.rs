//! The table of what each row was tuned over.

use super::results;
use super::table::{Cell, Column, Note, Raw, Row, RowKind, Table};
use crate::record::{Control, Manifest, Tuned, TunedRow, section::Section};

/// What was tried of the section's rows, and what was chosen; none where no row took tuned parameters.
pub fn table(section: &Section<'_>, manifest: &Manifest) -> Option<Table> {
    let tuned = Tuned::of_source(&section.note.source)?;
    // Of the very split, or of the dataset for all its splits.
    let names: Vec<&str> = std::iter::once(section.dataset).chain(section.data.of.as_deref()).collect();
    let found = |name: &str| names.iter().find_map(|dataset| tuned.find(name, dataset));
    let learned = section.rows.iter().filter(|row| row.control == Control::None);
    let rows: Vec<Row> = learned.filter_map(|it| Some(row(&it.name, found(&it.name)?, tuned.trials))).collect();
    if rows.is_empty() {
        return None;
    }
    let heads = ["over", "settings", "before", "after", "chosen"];
    let mut on: Vec<&str> =
        tuned.rows.iter().filter(|it| names.contains(&it.dataset.as_str())).map(|it| &*it.developed_on).collect();
    on.dedup();
    let program = format!(
        "program {}{}",
        tuned.program,
        match tuned.commit.get(..12) {
            Some(commit) =>
                format!(" at commit {commit}{}", if tuned.dirty { ", with uncommitted changes" } else { "" }),
            None => String::new(),
        }
    );
    let notes = vec![
        Note::word("Budget", format!("{}; seed {}, profile {}", tuned.budget(), tuned.seed, tuned.profile)),
        Note::word(
            "Before and after",
            format!(
                "validation scores, on {}, of the parameters that are typed and of the chosen ones. The former are among the settings, \
                 so that the latter are never worse there; no test item took part",
                on.join(" and ")
            ),
        ),
        Note::word(
            "Not in this table",
            "rows that nothing is tuned of: closed forms, and such as keep the parameters that are typed",
        ),
        Note::word("Tuned by", program),
        Note::word("Made by", results::made_by(manifest)),
    ];
    Some(Table {
        name: section.stem.with("tuned"),
        title: format!("What each row was tuned over: {} ({})", section.title(), section.dataset),
        context: results::context(section, manifest),
        stub: "row",
        columns: heads.map(|head| Column { group: String::new(), title: head.into(), name: head.into() }).into(),
        rows,
        notes,
    })
}

fn row(name: &str, found: &TunedRow, trials: usize) -> Row {
    let text = |text: String| Cell { text, ..Cell::default() };
    let score = |score: f64| Cell {
        text: format!("{score:.3}"),
        raw: Raw { mean: Some(score), ..Raw::default() },
        ..Cell::default()
    };
    let ranges: Vec<String> = found.ranges.iter().map(|(key, range)| format!("{key} {range}")).collect();
    let value = |value: &toml::Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
    let chosen: Vec<String> = found.params.iter().map(|(key, it)| format!("{key} {}", value(it))).collect();
    let tried = match found.failed {
        0 => trials.to_string(),
        failed => format!("{trials}, of which {failed} failed"),
    };
    let cells = vec![
        text(ranges.join("; ")),
        text(tried),
        found.before.map_or_else(|| text("failed".into()), score),
        score(found.after),
        text(chosen.join("; ")),
    ];
    Row { kind: RowKind::Result, name: name.into(), marks: Vec::new(), cells }
}
