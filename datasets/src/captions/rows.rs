//! A caption a line: tables with a header, and the token files of Flickr.

use std::path::Path;

use super::{Collector, Row};
use crate::{Error, Result};

const IMAGE: [&str; 7] = ["image", "image_name", "file_name", "filename", "file", "image_path", "path"];
const CAPTION: [&str; 6] = ["caption", "captions", "comment", "text", "sentence", "raw"];
const LABEL: [&str; 6] = ["label", "labels", "class", "classes", "category", "categories"];
const SPLIT: [&str; 3] = ["split", "set", "partition"];

/// The column of one of these names.
fn column<S: AsRef<str>>(header: &[S], names: &[&str]) -> Option<usize> {
    names.iter().find_map(|name| header.iter().position(|found| found.as_ref().trim().eq_ignore_ascii_case(name)))
}

/// What separates the columns of a header: the one of the usual characters that stands in it most often.
pub(super) fn delimiter(text: &str) -> u8 {
    let header = text.lines().next().unwrap_or_default();
    let count = |c: u8| header.bytes().filter(|&byte| byte == c).count();
    // A comma where several stand there as often: `max_by_key` takes the last.
    [b'\t', b';', b'|', b','].into_iter().max_by_key(|&c| count(c)).expect("there are four")
}

/// Whether the first line names an image and a caption.
pub(super) fn has_header(text: &str) -> bool {
    let separator = char::from(delimiter(text));
    let header: Vec<&str> = text.lines().next().unwrap_or_default().split(separator).collect();
    column(&header, &IMAGE).is_some() && column(&header, &CAPTION).is_some()
}

/// A table with a header.
pub(super) fn table(path: &Path, text: &str, delimiter: u8, into: &mut Collector) -> Result<&'static str> {
    let broken = |error: &csv::Error| {
        let place = error.position().map_or(String::new(), |position| format!("line {}", position.line()));
        let (expected, found) = match error.kind() {
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                (format!("{expected_len} columns, as in the header"), len.to_string())
            }
            other => ("a row of a table".into(), format!("{other:?}")),
        };
        let next = "quote a caption that holds the separator, as \"one, two\"";
        Error::content(path, place, expected, found, next)
    };
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).trim(csv::Trim::All).from_reader(text.as_bytes());
    let header: Vec<String> = reader.headers().map_err(|error| broken(&error))?.iter().map(str::to_owned).collect();
    let (Some(image), Some(caption)) = (column(&header, &IMAGE), column(&header, &CAPTION)) else {
        let expected = "a header with a column `image` and a column `caption`";
        let next = "name the columns in the first line";
        return Err(Error::content(path, "line 1", expected, format!("{header:?}"), next));
    };
    let (label, split) = (column(&header, &LABEL), column(&header, &SPLIT));
    for record in reader.records() {
        let record = record.map_err(|error| broken(&error))?;
        let place = record.position().map_or(String::new(), |position| format!("line {}", position.line()));
        let row = Row { path, place: &place };
        let field = |column: usize| record.get(column).unwrap_or_default();
        into.caption(row, field(image), field(caption))?;
        for label in label.iter().flat_map(|&label| field(label).split([';', '|'])) {
            into.label(row, field(image), label)?;
        }
        if let Some(said) = split.map(field).filter(|said| !said.is_empty()) {
            into.split(row, field(image), said)?;
        }
    }
    Ok("a table with a header")
}

/// `NAME#NUMBER`, a tab, the caption.
fn token_row(line: &str) -> Option<(&str, &str)> {
    let (name, caption) = line.split_once('\t')?;
    let (image, number) = name.rsplit_once('#')?;
    number.trim().parse::<u32>().is_ok().then_some((image, caption))
}

/// Whether the first line that is not empty is one of a token file.
pub(super) fn is_token(text: &str) -> bool {
    text.lines().find(|line| !line.trim().is_empty()).and_then(token_row).is_some()
}

/// A token file of Flickr8k or Flickr30k.
pub(super) fn token(path: &Path, text: &str, into: &mut Collector) -> Result<&'static str> {
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let place = format!("line {}", number + 1);
        let row = Row { path, place: &place };
        let Some((image, caption)) = token_row(line) else {
            let found: String = line.chars().take(60).collect();
            return Err(row.error("NAME#NUMBER, a tab and a caption", format!("`{found}`")));
        };
        into.caption(row, image, caption)?;
    }
    Ok("a token file of Flickr")
}
