//! LaTeX with booktabs and nothing else.
//!
//! A table must not run over the margin, and without `graphicx` nothing scales it: the size of the type follows from an
//! estimate of the width, and a table that is too wide for the smallest size is cut into blocks of whole columns.

use anyhow::{Result, bail};

use super::{Exporter, blank};
use crate::output::plain;
use crate::report::table::{Cell, Column, Head, Mark, Note, Row, RowKind, Table};

/// LaTeX.
pub struct Latex;

/// Sizes of type, and how many average characters of each a line of `article` holds.
const SIZES: [(&str, f64); 4] = [("small", 72.0), ("footnotesize", 80.0), ("scriptsize", 90.0), ("tiny", 112.0)];
/// What separates two columns, in characters.
const GAP: f64 = 1.8;

impl Exporter for Latex {
    fn export(&self, table: &Table) -> String {
        let columns: Vec<usize> = (0..table.columns.len()).collect();
        let whole = width(table, &columns);
        let (size, limit) = SIZES.iter().find(|(_, limit)| whole <= *limit).copied().unwrap_or(SIZES[3]);
        let mut out = format!(
            "% needs \\usepackage{{booktabs}}\n\\begin{{table*}}[t]\n  \\centering\n  \\caption{{{}}}\n  \\label{{tab:{}}}\n  \
             \\{size}\\setlength{{\\tabcolsep}}{{3pt}}\n",
            escape(&table.title),
            table.name
        );
        let blocks: Vec<String> = blocks(table, limit).iter().map(|columns| tabular(table, columns, &name)).collect();
        out += &blocks.join("  \\par\\medskip\n");
        out += "  \\par\\smallskip\n  \\begin{minipage}{\\textwidth}\\scriptsize\\raggedright\\sloppy\n";
        for line in &table.notes {
            out += &format!("    {}.\\par\n", note(line));
        }
        out + "  \\end{minipage}\n\\end{table*}\n"
    }
}

/// Average characters of a line of a column, and of a page, in type of normal size.
const NORMAL: [f64; 2] = [42.0, 92.0];

/// The table as papers have it: type of normal size, its notes in one paragraph, and behind a row's name what it is cited by.
///
/// # Errors
/// If it is wider than a page.
pub fn paper(table: &Table, cited: impl Fn(&Row) -> Option<String>) -> Result<String> {
    let columns: Vec<usize> = (0..table.columns.len()).collect();
    // A citation takes some four characters.
    let wide = width(table, &columns) + 4.0;
    if wide > NORMAL[1] {
        let [_, page] = NORMAL;
        bail!("the table is {wide:.0} characters wide, and a page has {page:.0}; name fewer columns with --column");
    }
    let kind = if wide <= NORMAL[0] { "table" } else { "table*" };
    let named = |row: &Row| {
        let key = cited(row).map(|key| format!("~\\cite{{{key}}}"));
        name(row) + key.as_deref().unwrap_or_default()
    };
    let notes: Vec<String> = table.notes.iter().map(note).collect();
    Ok(format!(
        "% needs \\usepackage{{booktabs}}; what is cited: xmbench report --cite\n\\begin{{{kind}}}[t]\n  \\centering\n  \
         \\caption{{{}}}\n  \\label{{tab:{}}}\n{}  \\par\\smallskip\n  {{\\footnotesize {}.\\par}}\n\\end{{{kind}}}\n",
        escape(&table.title),
        table.name,
        tabular(table, &columns, &named),
        notes.join("; ")
    ))
}

/// A note without its full stop.
fn note(note: &Note) -> String {
    let head = match &note.head {
        Head::Word(word) => format!("\\emph{{{word}:}} "),
        Head::Mark(mark) => format!("{}\\,", sign(*mark)),
        Head::Bold => "\\textbf{Bold:} ".to_string(),
    };
    format!("{head}{}", code(note.text.trim_end_matches('.')))
}

/// Cuts the columns into blocks that fit, between groups where possible.
fn blocks(table: &Table, limit: f64) -> Vec<Vec<usize>> {
    let mut blocks: Vec<Vec<usize>> = vec![Vec::new()];
    let mut next = 0;
    for (_, count) in table.groups() {
        let group: Vec<usize> = (next..next + count).collect();
        next += count;
        let last = blocks.last().expect("there is always a block");
        let joined: Vec<usize> = last.iter().chain(&group).copied().collect();
        if last.is_empty() || width(table, &joined) <= limit {
            *blocks.last_mut().expect("there is always a block") = joined;
        } else {
            blocks.push(group);
        }
    }
    blocks
}

/// Width of a block in average characters.
fn width(table: &Table, columns: &[usize]) -> f64 {
    let len = |text: &str| text.chars().count() as f64;
    let name =
        table.rows.iter().map(|row| len(&row.name) + row.marks.len() as f64 + if row.kind.below() { 1.0 } else { 0.0 });
    let cell = |cell: &Cell| {
        let spread = if cell.spread.is_empty() { 0.0 } else { 1.5 + 0.8 * len(&cell.spread) };
        let verdict = cell.judged().map_or(0.0, |word| 1.0 + len(&word));
        len(&cell.text) * if cell.bold { 1.15 } else { 1.0 } + spread + verdict + cell.marks.len() as f64
    };
    let column = |i: &usize| {
        let cells = table.rows.iter().map(|row| cell(&row.cells[*i]));
        cells.fold(len(&table.columns[*i].title), f64::max) + GAP
    };
    name.fold(0.0, f64::max) + columns.iter().map(column).sum::<f64>()
}

fn tabular(table: &Table, columns: &[usize], name: &dyn Fn(&Row) -> String) -> String {
    let mut out = format!("  \\begin{{tabular}}{{@{{}}l{}@{{}}}}\n    \\toprule\n", "r".repeat(columns.len()));
    out += &groups(table, columns);
    let titles = columns.iter().map(|i| format!(" & {}", escape(&table.columns[*i].title)));
    out += &format!("    {} \\\\\n    \\midrule\n", titles.collect::<String>().trim_start());
    for (i, row) in table.rows.iter().enumerate() {
        let cells: Vec<String> = columns.iter().map(|i| text(row, &row.cells[*i])).collect();
        // A block shows a row below another only if it has something to say there.
        if row.kind.below() && cells.iter().all(String::is_empty) {
            continue;
        }
        if table.rule_above(i) {
            out += "    \\midrule\n";
        }
        out += &format!("    {} & {} \\\\\n", name(row), cells.join(" & "));
    }
    out + "    \\bottomrule\n  \\end{tabular}\n"
}

/// The line of groups with its short rules, if there is any group.
fn groups(table: &Table, columns: &[usize]) -> String {
    let shown: Vec<&Column> = columns.iter().map(|i| &table.columns[*i]).collect();
    if shown.iter().all(|column| column.group.is_empty()) {
        return String::new();
    }
    let (mut heads, mut rules, mut at) = (String::new(), String::new(), 0);
    for group in shown.chunk_by(|a, b| a.group == b.group) {
        let (first, last) = (at + 2, at + 1 + group.len());
        at += group.len();
        match group[0].group.as_str() {
            "" => heads += &" &".repeat(group.len()),
            name => {
                heads += &format!(" & \\multicolumn{{{}}}{{c}}{{{}}}", group.len(), escape(name));
                rules += &format!(" \\cmidrule(lr){{{first}-{last}}}");
            }
        }
    }
    format!("    {} \\\\\n    {}\n", heads.trim_start(), rules.trim_start())
}

fn name(row: &Row) -> String {
    // Two numbers side by side would read as one.
    let marks = row.marks.iter().map(|mark| sign(*mark)).collect::<String>().replace("}\\textsuperscript{", ",");
    match row.kind {
        RowKind::Ties | RowKind::Stated => format!("\\quad\\textit{{{}}}{marks}", escape(&row.name)),
        _ => format!("{}{marks}", escape(&row.name)),
    }
}

fn text(row: &Row, cell: &Cell) -> String {
    if let Some(blank) = blank(row.kind, cell) {
        return if blank.is_empty() { String::new() } else { "--".to_string() };
    }
    let mut text = escape(&cell.text);
    if cell.bold {
        text = format!("\\textbf{{{text}}}");
    }
    if !cell.spread.is_empty() {
        text += &format!("\\,{{\\tiny$\\pm${}}}", escape(&cell.spread));
    }
    text.extend(cell.marks.iter().map(|mark| sign(*mark)));
    if let Some(word) = cell.judged() {
        text += &format!(" {word}");
    }
    if row.kind.below() { format!("\\textit{{{text}}}") } else { text }
}

fn sign(mark: Mark) -> String {
    match mark {
        Mark::Dagger => "\\textdagger{}".to_string(),
        Mark::Recalled => "$^{\\circ}$".to_string(),
        Mark::Measured => "$^{\\wedge}$".to_string(),
        Mark::CutShort => "\\textsuperscript{\\S}".to_string(),
        Mark::Alike => "$^{\\approx}$".to_string(),
        Mark::Noisy => "\\textdaggerdbl{}".to_string(),
        Mark::Number(number) => format!("\\textsuperscript{{{number}}}"),
    }
}

/// Text with code between backticks, where `--` stays two hyphens.
fn code(text: &str) -> String {
    let parts: Vec<&str> = text.split('`').collect();
    if parts.len().is_multiple_of(2) {
        return escape(text);
    }
    let part = |(i, part): (usize, &&str)| match i % 2 {
        1 => format!("\\texttt{{{}}}", escape(part).replace('-', "{-}")),
        _ => escape(part),
    };
    parts.iter().enumerate().map(part).collect()
}

/// Text that LaTeX prints as it is. Letters that pdfLaTeX's standard fonts lack become their code point.
pub fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in plain(text).chars() {
        match c {
            '\\' => out.push_str("\\textbackslash{}"),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '<' => out.push_str("\\textless{}"),
            '>' => out.push_str("\\textgreater{}"),
            '|' => out.push_str("\\textbar{}"),
            '"' => out.push_str("''"),
            '`' => out.push_str("\\textasciigrave{}"),
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', c]),
            '–' => out.push_str("--"),
            '—' => out.push_str("---"),
            '‘' | '’' => out.push('\''),
            '“' => out.push_str("``"),
            '”' => out.push_str("''"),
            '†' => out.push_str("\\textdagger{}"),
            '‡' => out.push_str("\\textdaggerdbl{}"),
            '±' => out.push_str("$\\pm$"),
            '×' => out.push_str("$\\times$"),
            '·' => out.push_str("$\\cdot$"),
            '≤' => out.push_str("$\\leq$"),
            '≥' => out.push_str("$\\geq$"),
            '→' => out.push_str("$\\to$"),
            'α' => out.push_str("$\\alpha$"),
            'β' => out.push_str("$\\beta$"),
            'γ' => out.push_str("$\\gamma$"),
            'λ' => out.push_str("$\\lambda$"),
            'μ' | 'µ' => out.push_str("$\\mu$"),
            'σ' => out.push_str("$\\sigma$"),
            'τ' => out.push_str("$\\tau$"),
            c if c.is_ascii() || ('\u{c0}'..='\u{ff}').contains(&c) => out.push(c),
            c => out.push_str(&format!("[U+{:04X}]", c as u32)),
        }
    }
    out
}
