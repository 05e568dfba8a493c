//! One table as a paper prints it: some rows, some columns, type of normal size, one note, and each row with its citation.

use anyhow::{Result, bail};

use super::{
    export, results,
    score::Scores,
    table::{Head, Mark, Note, Table},
};
use crate::{
    output::quoted,
    record::{
        Control, Recording,
        section::{self, Section},
    },
    run::nearest,
};

/// What is asked of it.
#[derive(Debug, Clone, Default)]
pub struct Wanted<'a> {
    /// Of this dataset; may be left out where the recording has one table.
    pub dataset: Option<&'a str>,
    /// Rows as tables name them; every learned one where there are none.
    pub rows: &'a [String],
    /// Metrics; those of the experiment where there are none.
    pub columns: &'a [String],
}

/// The table in LaTeX. Bold is what is best of the rows that are shown.
///
/// # Errors
/// If several tables are meant, a row or a metric is not there, or the table is wider than a page.
pub fn latex(recording: &Recording, wanted: &Wanted<'_>) -> Result<String> {
    let mut sections = section::sections(recording);
    sections.retain(|section| wanted.dataset.is_none_or(|dataset| section.dataset == dataset));
    if sections.len() != 1 {
        let known: Vec<String> = section::sections(recording)
            .iter()
            .map(|it| format!("{} on {}", it.experiment, quoted(it.dataset)))
            .collect();
        bail!(
            "expected one table, found {}: name it with --experiment and --dataset; there are {}",
            sections.len(),
            known.join(", ")
        );
    }
    let mut section = sections.remove(0);
    choose(&mut section, wanted)?;
    let mut table = results::table(&section, &mut Scores::new(&section), &recording.manifest);
    table.rows.retain(|row| !row.kind.below());
    for row in &mut table.rows {
        row.marks.retain(|mark| !matches!(mark, Mark::Number(_)));
    }
    table.notes = notes(&section, &table);
    export::paper(&table, |row| {
        let trials = section.rows.iter().find(|it| it.name == row.name)?;
        let card = xmbench_methods::registry::find(&trials.trials.first()?.method)?.card();
        (card.venue != "not published").then(|| card.name.clone())
    })
}

/// Leaves the rows and columns that are asked for, in the order in which they are.
fn choose(section: &mut Section<'_>, wanted: &Wanted<'_>) -> Result<()> {
    let names: Vec<String> = section.rows.iter().map(|row| row.name.clone()).collect();
    if let Some(unknown) = wanted.rows.iter().find(|row| !names.contains(row)) {
        let hint = nearest(unknown, names.iter().map(String::as_str));
        bail!("no row {} in {}{hint}; there are {}", quoted(unknown), section.stem, names.join(", "));
    }
    let known: Vec<String> =
        section.rows.iter().flat_map(|row| &row.trials).flat_map(|trial| trial.metrics.keys().cloned()).collect();
    if let Some(unknown) = wanted.columns.iter().find(|column| !known.contains(column)) {
        let hint = nearest(unknown, known.iter().map(String::as_str));
        bail!("no metric {} in {}{hint}", quoted(unknown), section.stem);
    }
    match wanted.rows.is_empty() {
        true => section.rows.retain(|row| row.control == Control::None),
        false => section.rows.retain(|row| wanted.rows.contains(&row.name)),
    }
    if !wanted.columns.is_empty() {
        section.note.columns = wanted.columns.to_vec();
    }
    Ok(())
}

/// All that a reader needs, in few words.
fn notes(section: &Section<'_>, table: &Table) -> Vec<Note> {
    let seeds = match section.seeds.as_slice() {
        [] => "each row's own".to_string(),
        [seed] => format!("one, {seed}"),
        seeds if section.is_over_splits() => {
            format!("means over {} ± standard deviation, each with a split of its own", seeds.len())
        }
        seeds => format!("means over {} ± standard deviation", seeds.len()),
    };
    let mut notes =
        vec![Note::word("Protocol", section.describe(section.protocol)), Note::word("Data", results::sizes(section))];
    notes.push(Note::word("Seeds", seeds));
    if table.rows.iter().any(|row| row.cells.iter().any(|cell| cell.bold)) {
        notes.push(Note { head: Head::Bold, text: "the best mean of the rows shown".into() });
    }
    let legend = [
        (Mark::Alike, "not told from it, by the 95 % interval of the paired difference"),
        (Mark::CutShort, "validation was best at the last epoch"),
        (Mark::Dagger, "selected on the test split"),
    ];
    notes.extend(legend.into_iter().filter(|(mark, _)| table.uses(*mark)).map(|(mark, text)| Note::mark(mark, text)));
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::synthetic;

    fn texts(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| word.to_string()).collect()
    }

    #[test]
    fn a_paper_gets_the_rows_and_columns_that_it_asks_for() {
        let recording = synthetic::recording();
        let (rows, columns) = (texts(&["CCA", "VSE++"]), texts(&["i2t R@1", "rsum"]));
        let wanted = Wanted { dataset: Some("f8k"), rows: &rows, columns: &columns };
        let text = latex(&recording, &wanted).unwrap();
        insta::assert_snapshot!(text);
        // The other row is of a method that has no card.
        assert_eq!(text.matches("\\cite{").count(), 1, "{text}");
    }

    #[test]
    fn what_is_not_there_is_named() {
        let recording = synthetic::recording();
        let said = |wanted: &Wanted<'_>| latex(&recording, wanted).unwrap_err().to_string();
        let several = said(&Wanted::default());
        assert!(
            several.starts_with("expected one table, found 2: name it with --experiment and --dataset"),
            "{several}"
        );
        let rows = texts(&["VSE"]);
        let row = said(&Wanted { dataset: Some("f8k"), rows: &rows, columns: &[] });
        assert!(row.starts_with("no row `VSE` in 01-recall-f8k"), "{row}");
        let columns = texts(&["i2t R@7"]);
        let metric = said(&Wanted { dataset: Some("f8k"), rows: &[], columns: &columns });
        assert!(metric.starts_with("no metric `i2t R@7` in 01-recall-f8k"), "{metric}");
    }
}
