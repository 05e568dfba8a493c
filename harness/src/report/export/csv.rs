//! CSV with the numbers behind the cells, in full precision: one line a row, five fields a column.

use super::Exporter;
use crate::output::plain;
use crate::report::table::{Head, Mark, Row, RowKind, Table};

/// CSV.
pub struct Csv;

impl Exporter for Csv {
    fn export(&self, table: &Table) -> String {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let mut head: Vec<String> = table.context.iter().map(|(key, _)| key.to_string()).collect();
        head.extend(["row", "kind", "selected on test", "note"].map(String::from));
        for column in &table.columns {
            head.extend(["mean", "sd", "n", "low", "high"].map(|part| format!("{} {part}", column.name)));
        }
        let mut lines = vec![head];
        let mut above = "";
        for row in &table.rows {
            let mut line: Vec<String> = table.context.iter().map(|(_, value)| value.clone()).collect();
            let (kind, name) = match row.kind {
                RowKind::Result => ("result", row.name.as_str()),
                RowKind::Failed => ("failed", row.name.as_str()),
                RowKind::Reported => ("reported", row.name.as_str()),
                RowKind::Control => ("control", row.name.as_str()),
                RowKind::Ties => ("ties", above),
                RowKind::Stated => ("stated", above),
            };
            above = name;
            let dagger = row.marks.contains(&Mark::Dagger);
            line.extend([name.to_string(), kind.to_string(), dagger.to_string(), note(table, row)]);
            for cell in &row.cells {
                let number = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
                let raw = &cell.raw;
                line.extend([
                    number(raw.mean),
                    number(raw.deviation),
                    raw.count.map(|count| count.to_string()).unwrap_or_default(),
                    number(raw.interval.map(|interval| interval.low)),
                    number(raw.interval.map(|interval| interval.high)),
                ]);
            }
            lines.push(line);
        }
        for line in lines {
            let line = line.iter().map(|field| cell(field));
            writer.write_record(line).expect("lines of one length go into memory");
        }
        String::from_utf8(writer.into_inner().expect("memory takes every byte")).expect("fields are UTF-8")
    }
}

/// A field that a spreadsheet shows as it is: what begins as a formula does, and is no number, is marked as text.
pub fn cell(text: &str) -> String {
    let text = plain(text);
    let formula = text.trim_start().starts_with(['=', '+', '-', '@']);
    match formula && text.parse::<f64>().is_err() {
        true => format!("'{text}"),
        false => text.into_owned(),
    }
}

/// The numbered notes of a row: sources, reasons.
fn note(table: &Table, row: &Row) -> String {
    let numbered = table.notes.iter().filter_map(|note| match note.head {
        Head::Mark(mark @ Mark::Number(_)) if row.marks.contains(&mark) => Some(note.text.as_str()),
        _ => None,
    });
    numbered.collect::<Vec<_>>().join("; ")
}
