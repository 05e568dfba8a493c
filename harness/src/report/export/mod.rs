//! Tables as text: one file a format.

pub mod bibtex;
mod csv;
mod html;
mod latex;
mod markdown;
mod terminal;

#[cfg(test)]
pub use csv::cell as csv_cell;
pub use html::{code, escape};
pub use latex::paper;
pub use markdown::escape as markdown_cell;
#[cfg(test)]
pub use terminal::WIDTH as TERMINAL;
pub use terminal::terminal;

use super::table::{Cell, RowKind, Table};

/// Writes a table in one format.
trait Exporter {
    /// The whole text.
    fn export(&self, table: &Table) -> String;
}

/// Endings of the files that a table becomes.
pub const ENDINGS: [&str; 3] = ["md", "tex", "csv"];

/// The table in every format that becomes a file: ending and text.
pub fn files(table: &Table) -> Vec<(&'static str, String)> {
    let formats: [&dyn Exporter; 3] = [&markdown::Markdown, &latex::Latex, &csv::Csv];
    ENDINGS.into_iter().zip(formats).map(|(ending, format)| (ending, format.export(table))).collect()
}

/// The table as Markdown.
pub fn markdown(table: &Table) -> String {
    markdown::Markdown.export(table)
}

/// The table as a part of the page.
pub fn html(table: &Table) -> String {
    html::Html.export(table)
}

/// What stands for a cell without text: a dash in rows of results, nothing below them.
fn blank(kind: RowKind, cell: &Cell) -> Option<&'static str> {
    cell.text.is_empty().then_some(if kind.below() { "" } else { "–" })
}
