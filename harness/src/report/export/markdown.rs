//! GitHub's Markdown.

use super::{Exporter, blank};
use crate::output::plain;
use crate::report::table::{Cell, Head, Mark, Row, RowKind, Table};

/// Markdown.
pub struct Markdown;

impl Exporter for Markdown {
    fn export(&self, table: &Table) -> String {
        let mut lines: Vec<Vec<String>> = Vec::new();
        let mut head = vec![table.stub.to_string()];
        head.extend(table.columns.iter().map(|column| escape(&column.name)));
        lines.push(head);
        for (i, row) in table.rows.iter().enumerate() {
            if table.rule_above(i) {
                lines.push(
                    std::iter::once("*controls*".to_string())
                        .chain(table.columns.iter().map(|_| String::new()))
                        .collect(),
                );
            }
            lines.push(std::iter::once(name(row)).chain(row.cells.iter().map(|cell| text(row, cell))).collect());
        }
        let widths: Vec<usize> = (0..=table.columns.len())
            .map(|i| lines.iter().map(|line| line[i].chars().count()).max().unwrap_or(0))
            .collect();
        let line = |cells: &[String]| {
            let padded = cells.iter().zip(&widths).enumerate().map(|(i, (cell, width))| match i {
                0 => format!(" {cell:<width$} "),
                _ => format!(" {cell:>width$} "),
            });
            format!("|{}|\n", padded.collect::<Vec<_>>().join("|"))
        };
        let rule = widths.iter().enumerate().map(|(i, width)| match i {
            0 => format!(":{}", "-".repeat(width + 1)),
            _ => format!("{}:", "-".repeat(width + 1)),
        });
        let mut out = format!("**{}**\n\n{}", escape(&table.title), line(&lines[0]));
        out += &format!("|{}|\n", rule.collect::<Vec<_>>().join("|"));
        out.extend(lines[1..].iter().map(|cells| line(cells)));
        out.push('\n');
        for note in &table.notes {
            let head = match &note.head {
                Head::Word(word) => format!("{word}: "),
                Head::Mark(mark) => format!("{} ", sign(*mark)),
                Head::Bold => "**bold**: ".to_string(),
            };
            out += &format!("- {head}{}\n", escape(&note.text));
        }
        out
    }
}

fn name(row: &Row) -> String {
    // Two numbers side by side would read as one.
    let marks = row.marks.iter().map(|mark| sign(*mark)).collect::<String>().replace("</sup><sup>", ",");
    match row.kind {
        RowKind::Ties | RowKind::Stated => format!("↳ *{}*{marks}", escape(&row.name)),
        _ => format!("{}{marks}", escape(&row.name)),
    }
}

fn text(row: &Row, cell: &Cell) -> String {
    if let Some(blank) = blank(row.kind, cell) {
        return blank.to_string();
    }
    let mut text = escape(&cell.text);
    if cell.bold {
        text = format!("**{text}**");
    }
    if !cell.spread.is_empty() {
        text += &format!(" ± {}", cell.spread);
    }
    text.extend(cell.marks.iter().map(|mark| sign(*mark)));
    if let Some(word) = cell.judged() {
        text += &format!(" {word}");
    }
    text
}

fn sign(mark: Mark) -> String {
    match mark {
        Mark::Dagger => "†".to_string(),
        Mark::Recalled => "°".to_string(),
        Mark::Measured => "^".to_string(),
        Mark::CutShort => "§".to_string(),
        Mark::Alike => "<sup>≈</sup>".to_string(),
        Mark::Noisy => "‡".to_string(),
        Mark::Number(number) => format!("<sup>{number}</sup>"),
    }
}

/// Text that Markdown prints as it is. Code between backticks keeps its backticks and needs no escapes inside.
pub fn escape(text: &str) -> String {
    let text = plain(text);
    // Runs of several backticks pair up by their length: what is code then is not for us to say.
    let code = text.matches('`').count().is_multiple_of(2) && !text.contains("``");
    let mut inside = false;
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '`' if code => {
                inside = !inside;
                out.push(c);
            }
            '|' => out.push_str("\\|"),
            '\\' | '*' | '_' | '`' | '<' | '>' | '[' | ']' | '#' | '~' if !inside => out.extend(['\\', c]),
            _ => out.push(c),
        }
    }
    out
}
