//! A part of the page.

use super::{Exporter, blank};
use crate::output::lines;
use crate::report::table::{Cell, Head, Mark, Row, RowKind, Table, Verdict};

/// HTML.
pub struct Html;

impl Exporter for Html {
    fn export(&self, table: &Table) -> String {
        let mut out = format!(
            "<figure class=\"table\" id=\"{0}\">\n<figcaption>{1}</figcaption>\n<div class=\"scroll\"><table>\n<thead>\n",
            table.name,
            escape(&table.title)
        );
        if table.columns.iter().any(|column| !column.group.is_empty()) {
            let heads = table.groups().into_iter().map(|(group, count)| {
                let class = if group.is_empty() { "" } else { " class=\"group\"" };
                format!("<th colspan=\"{count}\"{class} scope=\"colgroup\">{}</th>", escape(group))
            });
            out += &format!("<tr><th></th>{}</tr>\n", heads.collect::<String>());
        }
        let titles = table.columns.iter().map(|column| format!("<th scope=\"col\">{}</th>", escape(&column.title)));
        out += &format!(
            "<tr class=\"sortable\"><th scope=\"col\">{}</th>{}</tr>\n</thead>\n",
            escape(table.stub),
            titles.collect::<String>()
        );
        let mut open = false;
        for (i, row) in table.rows.iter().enumerate() {
            // A body a row and what stands below it, so that sorting keeps them together.
            if !row.kind.below() {
                if open {
                    out += "</tbody>\n";
                }
                out += match (row.kind, table.rule_above(i)) {
                    (RowKind::Control, true) => "<tbody class=\"control first\">\n",
                    (RowKind::Control, false) => "<tbody class=\"control\">\n",
                    _ => "<tbody>\n",
                };
                open = true;
            }
            let class = match row.kind {
                RowKind::Ties | RowKind::Stated => " class=\"below\"",
                RowKind::Failed => " class=\"failed\"",
                RowKind::Reported => " class=\"reported\"",
                _ => "",
            };
            let cells: String = row.cells.iter().map(|cell| text(row, cell)).collect();
            out +=
                &format!("<tr{class}><th scope=\"row\">{}{}</th>{cells}</tr>\n", escape(&row.name), signs(&row.marks));
        }
        if open {
            out += "</tbody>\n";
        }
        out += "</table></div>\n<ul class=\"notes\">\n";
        if table.rows.iter().any(|row| !row.kind.below() && row.cells.iter().any(|cell| cell.raw.interval.is_some())) {
            out += "<li><b>Small print</b> below a value: its 95 % interval</li>\n";
        }
        for note in &table.notes {
            let head = match &note.head {
                Head::Word(word) => format!("<b>{word}</b> "),
                Head::Mark(mark) => format!("{} ", sign(*mark)),
                Head::Bold => "<b>Bold</b> ".to_string(),
            };
            out += &format!("<li>{head}{}</li>\n", code(&note.text));
        }
        out + "</ul>\n</figure>\n"
    }
}

fn text(row: &Row, cell: &Cell) -> String {
    if let Some(blank) = blank(row.kind, cell) {
        return format!("<td>{blank}</td>");
    }
    let mut text = escape(&cell.text);
    if cell.bold {
        text = format!("<strong>{text}</strong>");
    }
    if !cell.spread.is_empty() {
        text += &format!("<span class=\"spread\"> ± {}</span>", escape(&cell.spread));
    }
    text += &signs(&cell.marks);
    if let (Some(verdict), Some(word)) = (cell.verdict, cell.judged()) {
        let class = match verdict {
            Verdict::Ok => "ok",
            Verdict::Close => "close",
            Verdict::Off => "off",
            Verdict::NotRun => "not-run",
        };
        text += &format!(" <span class=\"verdict {class}\">{}</span>", escape(&word));
    }
    // The interval has the digits of the value, so that one can be read against the other.
    let digits = cell.text.split_once('.').map_or(0, |(_, digits)| digits.len());
    if let (false, Some(interval)) = (row.kind.below(), cell.raw.interval) {
        text += &format!("<span class=\"interval\">{:.digits$} to {:.digits$}</span>", interval.low, interval.high);
    }
    let value = cell.raw.mean.map(|mean| format!(" data-value=\"{mean}\"")).unwrap_or_default();
    format!("<td{value}>{text}</td>")
}

fn signs(marks: &[Mark]) -> String {
    // Two numbers side by side would read as one.
    marks.iter().map(|mark| sign(*mark)).collect::<String>().replace("</sup><sup>", ",")
}

fn sign(mark: Mark) -> String {
    match mark {
        Mark::Dagger => "†".to_string(),
        Mark::Recalled => "<sup>°</sup>".to_string(),
        Mark::Measured => "<sup>^</sup>".to_string(),
        Mark::CutShort => "<sup>§</sup>".to_string(),
        Mark::Alike => "<sup>≈</sup>".to_string(),
        Mark::Noisy => "‡".to_string(),
        Mark::Number(number) => format!("<sup>{number}</sup>"),
    }
}

/// Text with code between backticks.
pub fn code(text: &str) -> String {
    let parts: Vec<&str> = text.split('`').collect();
    if parts.len().is_multiple_of(2) {
        return escape(text);
    }
    let part =
        |(i, part): (usize, &&str)| if i % 2 == 1 { format!("<code>{}</code>", escape(part)) } else { escape(part) };
    parts.iter().enumerate().map(part).collect()
}

/// Text that HTML and SVG print as it is, in elements and in attributes; what XML forbids is not in it.
pub fn escape(text: &str) -> String {
    lines(text)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}
