//! Tables, plots and one HTML page from a recording. Nothing in a report is typed by hand, and rendering twice gives the
//! same bytes, but for the order in which a PDF holds its objects.

mod claims;
mod cost;
pub(crate) mod explore;
pub(crate) mod export;
mod overall;
mod page;
pub(crate) mod paper;
pub(crate) mod plot;
pub(crate) mod reported;
pub(crate) mod results;
mod rows;
pub(crate) mod score;
pub(crate) mod single;
pub(crate) mod table;
mod tuned;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{
    claims::Stated,
    record::{Recording, files, section},
};
use overall::Overall;
use page::Part;
use plot::Palette;
pub(crate) use plot::attention::{self, Figure};
use reported::Reported;
use score::Scores;

/// The page to explore single queries.
pub(crate) const EXPLORE: &str = "explore.html";

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rendered {
    /// The page.
    pub page: PathBuf,
    /// Every file, the page included, sorted.
    pub files: Vec<PathBuf>,
    /// One table an experiment and dataset for a terminal, with what its claims came to.
    pub tables: Vec<String>,
    /// What all claims came to; empty where none was put to the test.
    pub claims: String,
}

/// Writes tables, plots and `index.html` of a recording into the folder `out`, which is made if need be. `stated` are the claims
/// that are put to it.
///
/// # Errors
/// If a file cannot be written or a plot cannot be drawn.
pub fn render(recording: &Recording, stated: &[Stated<'_>], out: &Path) -> Result<Rendered> {
    render_with(recording, &Beside { stated, ..Beside::default() }, out)
}

/// What a report is made of beside the recording's numbers.
#[derive(Default)]
pub(crate) struct Beside<'a> {
    /// Claims that are put to it.
    pub stated: &'a [Stated<'a>],
    /// Where the recording lies, for the page to explore single queries.
    pub source: Option<explore::Source<'a>>,
    /// Rows that others report.
    pub reported: &'a [Reported],
}

/// As [`render`], with what there is beside the numbers.
///
/// # Errors
/// As [`render`], if what the recording's folder has is damaged, or if no table has a place for what others report.
pub(crate) fn render_with(recording: &Recording, beside: &Beside<'_>, out: &Path) -> Result<Rendered> {
    let sections = section::sections(recording);
    if let Some(misplaced) = reported::misplaced(&sections, beside.reported) {
        bail!("{misplaced}");
    }
    std::fs::create_dir_all(out).with_context(|| format!("cannot make the folder {}", out.display()))?;
    let mut rendered = Rendered::default();
    let palette = Palette::of(recording);
    let tested = crate::claims::test(beside.stated, recording, None);
    let mut parts = Vec::new();
    let mut overall = Overall::default();
    for section in &sections {
        let mut scores = Scores::new(section);
        let mut tables = vec![results::table(section, &mut scores, &recording.manifest)];
        reported::add(&mut tables[0], section, beside.reported);
        tables.extend(cost::table(section, &recording.manifest));
        for table in &tables {
            rendered.write_numbers(out, table)?;
        }
        rendered.tables.push(export::terminal(&tables[0]));
        overall.add(section, &mut scores);
        let claims = claims::tables(section, &tested, &recording.manifest);
        for table in &claims {
            rendered.write_words(out, table)?;
        }
        let tuned = tuned::table(section, &recording.manifest);
        if let Some(table) = &tuned {
            rendered.write_words(out, table)?;
        }
        let pictures = plot::pictures(section, &mut scores, &palette)?;
        for picture in &pictures {
            for (name, bytes) in picture.files() {
                rendered.write(out, &name, bytes)?;
            }
        }
        parts.push(Part { section, tables, tuned, claims, pictures });
    }
    let judged = crate::claims::judge(&tested);
    rendered.claims = crate::claims::counts(&judged);
    let overview = claims::overview(judged, &tested, &recording.manifest);
    if let Some(table) = &overview {
        rendered.write_words(out, table)?;
    }
    let overall = overall.table(&recording.manifest);
    if let Some(table) = &overall {
        rendered.write_numbers(out, table)?;
    }
    rendered.write(out, "methods.bib", bibliography(recording).as_bytes())?;
    let explored = beside.source.map(|source| explore::page(recording, source)).transpose()?.flatten();
    if let Some(page) = &explored {
        rendered.write(out, EXPLORE, page.as_bytes())?;
    }
    // Last, so that a page is there only if all it links to is.
    let whole = page::Whole { overall: overall.as_ref(), claims: overview.as_ref(), explored: explored.is_some() };
    let page = page::page(recording, &parts, &whole);
    rendered.page = rendered.write(out, "index.html", page.as_bytes())?;
    rendered.files.sort();
    Ok(rendered)
}

/// The papers of the methods that a recording fits, as BibTeX.
pub fn bibliography(recording: &Recording) -> String {
    let methods = page::fitted(recording).into_keys().filter_map(xmbench_methods::registry::find);
    export::bibtex::bibliography(methods.map(|method| method.card()))
}

impl Rendered {
    /// Writes a table of numbers, in every format.
    fn write_numbers(&mut self, folder: &Path, table: &table::Table) -> Result<()> {
        for (ending, text) in export::files(table) {
            self.write(folder, &table.name.file(ending), text.as_bytes())?;
        }
        Ok(())
    }

    /// Writes a table of words, in the formats that are for those.
    fn write_words(&mut self, folder: &Path, table: &table::Table) -> Result<()> {
        for (ending, text) in export::files(table).into_iter().filter(|(ending, _)| claims::ENDINGS.contains(ending)) {
            self.write(folder, &table.name.file(ending), text.as_bytes())?;
        }
        Ok(())
    }

    /// Writes a file, which is there only if it is whole.
    fn write(&mut self, folder: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = folder.join(name);
        files::replace_with_unsynced(&path, bytes)
            .with_context(|| format!("cannot write {}; choose another folder with --out", path.display()))?;
        self.files.push(path.clone());
        Ok(path)
    }
}
