//! Runs and judgements in the form of TREC, which `trec_eval` and most tools of the field read.
//!
//! ```text
//! run    QUERY Q0 ITEM RANK SCORE TAG     one line an item that a query found; higher scores are better
//! qrels  QUERY 0  ITEM RELEVANCE          one line a judgement; above 0 is relevant
//! ```
//!
//! As in `trec_eval`, the score decides and the rank is not read.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use crate::{Error, Result, files};

/// What queries found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// What the run calls itself.
    pub tag: String,
    /// Items with their scores, in the order of the file, by query.
    pub queries: BTreeMap<String, Vec<(String, f32)>>,
}

/// Relevant items by query; of a query without any, an empty set.
pub type Judged = BTreeMap<String, BTreeSet<String>>;

/// Reads a run.
///
/// # Errors
/// If it cannot be read, or a line is not one of a run: the line is named.
pub fn run(path: &Path) -> Result<Found> {
    parse_run(path, &files::read(&files::named(path)?)?)
}

/// As [`run`], of bytes; `path` is for messages.
///
/// # Errors
/// As [`run`].
pub fn parse_run(path: &Path, bytes: &[u8]) -> Result<Found> {
    let mut found = Found::default();
    let mut seen: BTreeSet<(String, String)> = BTreeSet::new();
    for line in lines(path, bytes, "QUERY Q0 ITEM RANK SCORE TAG", RUN)? {
        let [query, _, item, _, score, tag] = line.words[..] else { continue };
        let value = score.parse::<f32>().ok().filter(|score| score.is_finite());
        let value = value.ok_or_else(|| line.wrong("a score that is a finite number", score))?;
        if !seen.insert((query.into(), item.into())) {
            return Err(line.wrong("an item once a query", &format!("{item} again for {query}")));
        }
        if found.tag.is_empty() {
            found.tag = tag.into();
        }
        found.queries.entry(query.into()).or_default().push((item.into(), value));
    }
    Ok(found)
}

/// Reads judgements.
///
/// # Errors
/// As [`run`].
pub fn qrels(path: &Path) -> Result<Judged> {
    parse_qrels(path, &files::read(&files::named(path)?)?)
}

/// As [`qrels`], of bytes; `path` is for messages.
///
/// # Errors
/// As [`run`].
pub fn parse_qrels(path: &Path, bytes: &[u8]) -> Result<Judged> {
    let mut judged = Judged::new();
    let mut seen: BTreeSet<(String, String)> = BTreeSet::new();
    for line in lines(path, bytes, "QUERY 0 ITEM RELEVANCE", QRELS)? {
        let [query, _, item, relevance] = line.words[..] else { continue };
        let relevant =
            relevance.parse::<i64>().map_err(|_| line.wrong("a relevance that is a whole number", relevance))? > 0;
        if !seen.insert((query.into(), item.into())) {
            return Err(line.wrong("one judgement of an item", &format!("{item} again for {query}")));
        }
        let items = judged.entry(query.into()).or_default();
        if relevant {
            items.insert(item.into());
        }
    }
    Ok(judged)
}

/// Words of a line of either file.
const RUN: usize = 6;
const QRELS: usize = 4;

struct Line<'a> {
    path: &'a Path,
    number: usize,
    words: Vec<&'a str>,
}

impl Line<'_> {
    fn wrong(&self, expected: &str, found: &str) -> Error {
        let next = "correct the line, or write the file again";
        Error::content(self.path, format!("line {}", self.number), expected, format!("`{found}`"), next)
    }
}

/// The lines with their words; empty ones are passed over.
fn lines<'a>(path: &'a Path, bytes: &'a [u8], form: &str, words: usize) -> Result<Vec<Line<'a>>> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let next = "write the file as UTF-8";
        Error::content(path, format!("byte {}", error.valid_up_to()), "UTF-8", "other bytes", next)
    })?;
    let mut out = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let line = Line { path, number: at + 1, words: line.split_whitespace().collect() };
        if line.words.len() != words {
            let found = format!("{} words", line.words.len());
            return Err(line.wrong(&format!("{words} words, {form}"), &found));
        }
        out.push(line);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<T: std::fmt::Debug>(read: fn(&Path, &[u8]) -> Result<T>, text: &[u8]) -> String {
        read(Path::new("file"), text).unwrap_err().to_string()
    }

    #[test]
    fn lines_are_what_queries_found() {
        let text = b"q2 Q0 a 1 0.5 ours\n\nq1\tQ0\tb\t7\t-1e-3\tours\nq2 Q0 c 2 0.5 ours\n";
        let found = parse_run(Path::new("file"), text).unwrap();
        assert_eq!(found.tag, "ours");
        assert_eq!(found.queries["q2"], [("a".to_string(), 0.5), ("c".to_string(), 0.5)]);
        assert_eq!(found.queries["q1"], [("b".to_string(), -1e-3)]);
        let judged = parse_qrels(Path::new("file"), b"q1 0 a 1\nq1 0 b 0\nq2 0 a -1\nq1 0 c 2\n").unwrap();
        assert_eq!(judged["q1"], BTreeSet::from(["a".to_string(), "c".to_string()]));
        assert!(judged["q2"].is_empty());
    }

    #[test]
    fn a_wrong_line_is_named() {
        assert_eq!(
            refused(parse_run, b"q Q0 a 1 0.5 t\nq Q0 b 2 t\n"),
            "file, line 2: expected 6 words, QUERY Q0 ITEM RANK SCORE TAG, found `5 words`; correct the line, or write the file again"
        );
        assert!(
            refused(parse_run, b"q Q0 a 1 nan t")
                .contains("line 1: expected a score that is a finite number, found `nan`")
        );
        assert!(refused(parse_run, b"q Q0 a 1 1 t\nq Q0 a 2 0 t").contains("line 2: expected an item once a query"));
        assert!(refused(parse_qrels, b"q 0 a yes").contains("a relevance that is a whole number, found `yes`"));
        assert!(refused(parse_qrels, b"q 0 a 1\nq 0 a 1").contains("one judgement of an item"));
        assert!(refused(parse_qrels, b"q 0 \xff 1").contains("byte 4: expected UTF-8"));
    }
}
