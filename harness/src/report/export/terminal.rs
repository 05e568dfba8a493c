//! A table in so many columns of a terminal, for a look at it: what does not fit is in the files.

use crate::output::{clipped, plain, short};
use crate::record::words;
use crate::report::table::{Head, Mark, Row, RowKind, Table};

/// Columns of the narrowest terminal that people have.
pub const WIDTH: usize = 100;

/// Characters of the longest name of a row.
const NAME: usize = 40;

/// The table with its protocol, at most [`WIDTH`] characters wide: spreads go first, then columns from the middle.
pub fn terminal(table: &Table) -> String {
    let rows: Vec<&Row> = table.rows.iter().filter(|row| !row.kind.below()).collect();
    let name = |row: &Row| {
        let cut = if row.marks.contains(&Mark::CutShort) { "§" } else { "" };
        format!("{}{cut}", clipped(&plain(&row.name), NAME))
    };
    let cell = |row: &Row, column: usize, spreads: bool| {
        let cell = &row.cells[column];
        let text = if cell.text.is_empty() && row.kind == RowKind::Failed { "-" } else { cell.text.as_str() };
        let spread = if spreads && !cell.spread.is_empty() { format!(" ± {}", cell.spread) } else { String::new() };
        format!(
            "{}{spread}{}",
            plain(text),
            match cell.bold {
                true => "*",
                false if cell.marks.contains(&Mark::Alike) => "~",
                false => " ",
            }
        )
    };
    let of = |columns: &[usize], spreads: bool| -> Vec<Vec<String>> {
        let head = std::iter::once(table.stub.to_string());
        let head = head.chain(columns.iter().map(|&at| format!("{} ", table.columns[at].name))).collect();
        let body = rows
            .iter()
            .map(|row| std::iter::once(name(row)).chain(columns.iter().map(|&at| cell(row, at, spreads))).collect());
        std::iter::once(head).chain(body).collect()
    };
    let mut columns: Vec<usize> = (0..table.columns.len()).collect();
    let mut lines = of(&columns, true);
    let spreads = width(&lines) <= WIDTH;
    if !spreads {
        lines = of(&columns, false);
    }
    while width(&lines) > WIDTH && columns.len() > 1 {
        columns.remove(columns.len() / 2);
        lines = of(&columns, false);
    }
    let widths = widths(&lines);
    let mut out = format!("{}\n", short(&plain(&table.title), WIDTH));
    for line in &lines {
        let padded = line.iter().zip(&widths).enumerate().map(|(i, (text, &width))| match i {
            0 => format!("{text:width$}"),
            _ => format!("{text:>width$}"),
        });
        out += &format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end());
    }
    for note in &table.notes {
        match note.head {
            Head::Word("Protocol") => out += &format!("{}\n", wrapped(&plain(&note.text))),
            Head::Word("Seeds") => {
                let shown = if spreads { note.text.clone() } else { note.text.replace(" ± standard deviation", "") };
                out += &format!("{}\n", wrapped(&plain(&shown)));
            }
            _ => {}
        }
    }
    let hidden = table.columns.len() - columns.len();
    let mut legend = Vec::new();
    let shown = || rows.iter().flat_map(|row| columns.iter().map(|&at| &row.cells[at]));
    if shown().any(|cell| cell.bold) {
        legend.push("* best".to_string());
    }
    if shown().any(|cell| cell.marks.contains(&Mark::Alike)) {
        legend.push("~ not told from the best".into());
    }
    if rows.iter().any(|row| row.marks.contains(&Mark::CutShort)) {
        legend.push("§ training ended where validation was best".into());
    }
    if hidden > 0 {
        legend.push(words::counted(hidden, "more column"));
    }
    if !legend.is_empty() {
        out += &format!("{}\n", legend.join("; "));
    }
    out
}

fn widths(lines: &[Vec<String>]) -> Vec<usize> {
    let columns = lines.first().map_or(0, Vec::len);
    (0..columns).map(|at| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0)).collect()
}

fn width(lines: &[Vec<String>]) -> usize {
    let widths = widths(lines);
    widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1)
}

/// Words in lines of at most [`WIDTH`] characters.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always a line");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(word.to_string());
        } else {
            *line += if line.is_empty() { "" } else { " " };
            *line += word;
        }
    }
    lines.join("\n")
}
