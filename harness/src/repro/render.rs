//! Judged tables as files: Markdown, LaTeX, CSV, and one HTML page with the plots of the experiments.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{PaperTable, Tolerance, judge::Judged};
use crate::{
    record::{Recording, Stem, files, section},
    report::{
        Rendered,
        export::{self, code, escape},
        plot::{self, Palette, Picture},
        results,
        score::Scores,
        table::{Cell, Column, Mark, Note, Raw, Row, RowKind, Table, Verdict},
    },
};

/// A table with what a run gave.
pub struct Part<'a> {
    /// The table.
    pub table: &'a PaperTable,
    /// Names of its experiments.
    pub experiments: Vec<String>,
    /// Its cells.
    pub cells: Vec<Judged<'a>>,
    /// What the cells were read from.
    pub recording: &'a Recording,
}

/// Writes `repro-NAME.md`, `.tex` and `.csv` for each table, the plots of their experiments, and `repro.html`.
///
/// # Errors
/// If a file cannot be written or a plot cannot be drawn.
pub fn render(parts: &[Part<'_>], out: &Path) -> Result<Rendered> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make the folder {}", out.display()))?;
    let mut rendered = Rendered::default();
    let mut write = |name: &str, bytes: &[u8]| -> Result<PathBuf> {
        let path = out.join(name);
        files::replace_with_unsynced(&path, bytes)
            .with_context(|| format!("cannot write {}; choose another folder with --reports", path.display()))?;
        rendered.files.push(path.clone());
        Ok(path)
    };
    let mut body = String::new();
    let mut tables = Vec::new();
    for part in parts {
        let table = table(part);
        for (ending, text) in export::files(&table) {
            write(&table.name.file(ending), text.as_bytes())?;
        }
        let pictures = pictures(part)?;
        for picture in &pictures {
            write(&picture.stem.file("svg"), picture.svg.as_bytes())?;
            write(&picture.stem.file("png"), &picture.png)?;
        }
        body += &section_of(part, &table, &pictures);
        tables.push(export::markdown(&table));
    }
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<title>xmbench: tables of papers, run again</title>\n<style>\n{}</style>\n\
         </head>\n<body>\n<header>\n<h1>Tables of papers, run again</h1>\n</header>\n{body}<script>\n{}</script>\n</body>\n</html>\n",
        include_str!("../report/page.css"),
        include_str!("../report/page.js")
    );
    let page = write("repro.html", page.as_bytes())?;
    rendered.files.sort();
    Ok(Rendered { page, tables, ..rendered })
}

fn section_of(part: &Part<'_>, table: &Table, pictures: &[Picture]) -> String {
    let text = &part.table.text;
    let paragraphs = text.analysis.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty());
    let paragraphs: String = paragraphs.map(|paragraph| format!("<p>{}</p>\n", code(paragraph))).collect();
    let mut out = format!("<section>\n<h2>{}</h2>\n{paragraphs}{}", escape(&text.title), export::html(table));
    let link = |file: String, ending: &str| format!("<a href=\"{}\" download>{ending}</a>", escape(&file));
    let links = export::ENDINGS.map(|ending| link(table.name.file(ending), ending));
    out += &format!("<p class=\"files\">This table as {}</p>\n", links.join(", "));
    for picture in pictures {
        let links = ["svg", "png"].map(|ending| link(picture.stem.file(ending), ending));
        out += &format!(
            "<figure class=\"plot\">\n{}</figure>\n<p class=\"files\">{} as {}</p>\n",
            picture.svg,
            escape(&picture.title),
            links.join(", ")
        );
    }
    out + "</section>\n"
}

/// The plots of the table's experiments.
fn pictures(part: &Part<'_>) -> Result<Vec<Picture>> {
    let palette = Palette::of(part.recording);
    let mut pictures = Vec::new();
    for section in
        section::sections(part.recording).iter().filter(|it| part.experiments.iter().any(|name| name == it.experiment))
    {
        let drawn = plot::pictures(section, &mut Scores::new(section), &palette)?;
        // A report of another recording in the same folder has plots of these names.
        pictures.extend(drawn.into_iter().map(|it| Picture { stem: Stem::of(&format!("repro-{}", it.stem)), ..it }));
    }
    Ok(pictures)
}

/// The table: a line a cell.
pub fn table(part: &Part<'_>) -> Table {
    let text = &part.table.text;
    let number = |value: f64| format!("{value:.*}", text.digits);
    let plain = |value: Option<f64>| Cell {
        text: value.map(number).unwrap_or_default(),
        raw: Raw { mean: value, ..Raw::default() },
        ..Cell::default()
    };
    // What is compared is what is printed: the difference, its sign, the verdict.
    let compared = |stated: Option<f64>, found: Option<f64>, verdict: Option<Verdict>| {
        let difference = stated.zip(found).map(|(stated, found)| found - stated);
        Cell {
            text: match (verdict, difference) {
                (None, _) => String::new(),
                // The sign of what rounds to nothing would read as one of something.
                (_, Some(difference)) if number(difference.abs()) == number(0.0) => number(0.0),
                (_, Some(difference)) => format!("{difference:+.*}", text.digits),
                (_, None) => "–".into(),
            },
            verdict,
            raw: Raw { mean: difference, ..Raw::default() },
            ..Cell::default()
        }
    };
    let mut remarks: Vec<String> = Vec::new();
    let mut remark = |text: String| {
        let at = remarks.iter().position(|other| *other == text).unwrap_or_else(|| {
            remarks.push(text);
            remarks.len() - 1
        });
        Mark::Number(at + 1)
    };
    let rows: Vec<Row> = part
        .cells
        .iter()
        .map(|judged| {
            let cell = judged.cell;
            let printed = cell.paper.as_ref();
            let mut marks = Vec::new();
            marks.extend(printed.map(|printed| remark(printed.source.trim().to_string())));
            marks.extend(
                cell.tolerance.as_ref().map(|own| remark(format!("against the paper {}", allowed(own, text.digits)))),
            );
            marks.extend(judged.reason.as_ref().map(|reason| remark(format!("not run: {reason}"))));
            let paper = printed.map(|printed| printed.value);
            Row {
                kind: if judged.found.is_some() { RowKind::Result } else { RowKind::Failed },
                name: format!("{}, {}", cell.row, cell.metric),
                marks,
                cells: vec![
                    plain(judged.found),
                    Cell {
                        marks: printed.and_then(|printed| results::evidence(printed.evidence)).into_iter().collect(),
                        ..plain(paper)
                    },
                    compared(paper, judged.found, judged.paper),
                    plain(cell.recorded),
                    compared(cell.recorded, judged.found, judged.recorded),
                ],
            }
        })
        .collect();
    let column =
        |group: &str, title: &str, name: &str| Column { group: group.into(), title: title.into(), name: name.into() };
    let mut table = Table {
        name: Stem::of(&format!("repro-{}", part.table.name)),
        title: text.title.clone(),
        context: vec![("table", part.table.name.clone()), ("protocol", text.recorded.protocol.clone())],
        stub: "method",
        columns: vec![
            column("", "this run", "this run"),
            column("the paper", "prints", "the paper"),
            column("the paper", "matches", "matches the paper"),
            column("our recording", "holds", "our recording"),
            column("our recording", "matches", "matches our recording"),
        ],
        rows,
        notes: Vec::new(),
    };
    table.notes = notes(part, &table, &remarks);
    table
}

fn notes(part: &Part<'_>, table: &Table, remarks: &[String]) -> Vec<Note> {
    let text = &part.table.text;
    let seeds = text.recorded.seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let mut notes = vec![
        Note::word("Command", format!("`{}`", part.table.command())),
        Note::word("Paper", text.paper.clone()),
        Note::word("Protocol", text.recorded.protocol.clone()),
        Note::word("Our recording", format!("{}; seeds {seeds}", text.recorded.from)),
        Note::word(
            "Matches",
            "difference of this run from the stated value, and OK, CLOSE or OFF by a tolerance that was fixed before the run",
        ),
        Note::word("Against the paper", allowed(&text.tolerance.paper, text.digits)),
        Note::word("Against our recording", allowed(&text.tolerance.recorded, text.digits)),
    ];
    let mut data = BTreeSet::new();
    for section in section::sections(part.recording) {
        if part.experiments.iter().any(|name| name == section.experiment) && data.insert(section.dataset.to_string()) {
            notes.push(Note::word("Data", results::data(&section)));
        }
    }
    if !data.is_empty() {
        notes.push(Note::word("Made by", results::made_by(&part.recording.manifest)));
    }
    let legend =
        [(Mark::Recalled, "from memory, not seen in the source"), (Mark::Measured, "from a small independent re-run")];
    notes.extend(legend.into_iter().filter(|(mark, _)| table.uses(*mark)).map(|(mark, text)| Note::mark(mark, text)));
    notes.extend(remarks.iter().enumerate().map(|(i, remark)| Note::mark(Mark::Number(i + 1), remark)));
    notes
}

/// A tolerance in words.
fn allowed(tolerance: &Tolerance, digits: usize) -> String {
    let close = tolerance.close.map(|close| format!(", CLOSE up to {close:.digits$}")).unwrap_or_default();
    format!("OK up to {:.digits$}{close}: {}", tolerance.ok, tolerance.reason.trim())
}
