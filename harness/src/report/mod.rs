//! Tables, plots and one HTML page from a recording. Nothing in a report is typed by hand, and rendering twice gives the
//! same bytes.

mod claims;
mod cost;
pub(crate) mod export;
mod page;
pub(crate) mod plot;
pub(crate) mod results;
pub(crate) mod score;
pub(crate) mod single;
pub(crate) mod table;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{
    claims::Stated,
    record::{Recording, files, section},
};
use page::Part;
use plot::Palette;
pub(crate) use plot::attention::{self, Figure};
use score::Scores;

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The page.
    pub page: PathBuf,
    /// Every file, the page included, sorted.
    pub files: Vec<PathBuf>,
    /// Every table as Markdown, in the order of the page.
    pub tables: Vec<String>,
}

/// Writes tables, plots and `index.html` of a recording into the folder `out`, which is made if need be. `stated` are the claims
/// that are put to it.
///
/// # Errors
/// If a file cannot be written or a plot cannot be drawn.
pub fn render(recording: &Recording, stated: &[Stated<'_>], out: &Path) -> Result<Rendered> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make the folder {}", out.display()))?;
    let mut rendered = Rendered { page: PathBuf::new(), files: Vec::new(), tables: Vec::new() };
    let palette = Palette::of(recording);
    let sections = section::sections(recording);
    let tested = crate::claims::test(stated, recording, None);
    let mut parts = Vec::new();
    for section in &sections {
        let mut scores = Scores::new(section);
        let mut tables = vec![results::table(section, &mut scores, &recording.manifest)];
        tables.extend(cost::table(section, &recording.manifest));
        for table in &tables {
            for (ending, text) in export::files(table) {
                rendered.write(out, &table.name.file(ending), text.as_bytes())?;
            }
            rendered.tables.push(export::markdown(table));
        }
        let claims = claims::table(section, &tested, &recording.manifest);
        if let Some(table) = &claims {
            for (ending, text) in
                export::files(table).into_iter().filter(|(ending, _)| claims::ENDINGS.contains(ending))
            {
                rendered.write(out, &table.name.file(ending), text.as_bytes())?;
            }
            rendered.tables.push(export::markdown(table));
        }
        let pictures = plot::pictures(section, &mut scores, &palette)?;
        for picture in &pictures {
            rendered.write(out, &picture.stem.file("svg"), picture.svg.as_bytes())?;
            rendered.write(out, &picture.stem.file("png"), &picture.png)?;
        }
        parts.push(Part { section, tables, claims, pictures });
    }
    // Last, so that a page is there only if all it links to is.
    rendered.page = rendered.write(out, "index.html", page::page(recording, &parts).as_bytes())?;
    rendered.files.sort();
    Ok(rendered)
}

impl Rendered {
    /// Writes a file, which is there only if it is whole.
    fn write(&mut self, folder: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = folder.join(name);
        files::replace_with_unsynced(&path, bytes)
            .with_context(|| format!("cannot write {}; choose another folder with --out", path.display()))?;
        self.files.push(path.clone());
        Ok(path)
    }
}
