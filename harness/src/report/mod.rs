//! Tables, plots and one HTML page from a recording. Nothing in a report is typed by hand, and rendering twice gives the
//! same bytes.

mod cost;
mod export;
mod results;
mod score;
mod section;
mod table;
mod words;

#[cfg(test)]
pub(crate) mod synthetic;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::record::Recording;
use score::Scores;

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// Every file, sorted.
    pub files: Vec<PathBuf>,
    /// Every table as Markdown, in the order of the page.
    pub tables: Vec<String>,
}

/// Writes tables, plots and `index.html` of a recording into the folder `out`, which is made if need be.
///
/// # Errors
/// If a file cannot be written or a plot cannot be drawn.
pub fn render(recording: &Recording, out: &Path) -> Result<Rendered> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make the folder {}", out.display()))?;
    let mut rendered = Rendered { files: Vec::new(), tables: Vec::new() };
    for section in &section::sections(recording) {
        let mut scores = Scores::new(section);
        let results = results::table(section, &mut scores, &recording.manifest);
        for table in std::iter::once(results).chain(cost::table(section, &recording.manifest)) {
            for (ending, text) in export::files(&table) {
                rendered.write(out, &format!("{}.{ending}", table.name), text.as_bytes())?;
            }
            rendered.tables.push(export::markdown(&table));
        }
    }
    rendered.files.sort();
    Ok(rendered)
}

impl Rendered {
    fn write(&mut self, folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
        let path = folder.join(name);
        std::fs::write(&path, bytes)
            .with_context(|| format!("cannot write {}; choose another folder with --out", path.display()))?;
        self.files.push(path);
        Ok(())
    }
}
