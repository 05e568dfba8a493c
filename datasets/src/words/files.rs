//! Files of word vectors.
//!
//! - `.txt`, `.vec`: a word and its values a line, behind blanks, as GloVe and fastText write them; a first line of two whole numbers
//!   (words and values, as word2vec has it) is read over. A word may hold blanks: the values are the last ones.
//! - `.bin`: word2vec's: a line of two whole numbers, then for each word its bytes, a blank and its values as f32.
//! - `.npy`: a row a word; the words stand in a file of the same name that ends in `.txt`, a word a line.
//!
//! Of a word that stands there twice the first vector counts. Lines of other words than those asked for are not parsed.

use std::{
    collections::{BTreeMap, HashMap, btree_map::Entry},
    io::{BufRead, BufReader, Read},
    path::Path,
};

use super::WordVectors;
use crate::{Error, Result, files, npy::Npy, precomp::lines, text::SPECIAL};

/// Values a vector may have: a short file must not ask for a vocabulary of long ones.
const WIDEST: usize = 1 << 12;
/// Bytes of a line that may be one.
const LONGEST: u64 = 4 << 20;

/// Token numbers of the words that are asked for.
type Numbers<'a> = HashMap<&'a str, usize>;
/// Vectors by token number.
type Found = BTreeMap<usize, Vec<f32>>;

/// The vectors of `words`; `name` is what the user calls the file.
///
/// # Errors
/// A file that cannot be read or is of another form, a value that is not finite, or none of the words.
pub(super) fn read(path: &Path, name: &str, words: &[String]) -> Result<WordVectors> {
    let numbers = words.iter().enumerate().skip(SPECIAL.len());
    let numbers: Numbers<'_> = numbers.map(|(number, word)| (word.as_str(), number)).collect();
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let found = match ending {
        "txt" | "vec" => text(path, &numbers)?,
        "bin" => binary(path, &numbers)?,
        "npy" => table(path, &numbers)?,
        _ => {
            let next = "name a file that ends so, or `none`";
            return Err(Error::option(super::OPTION, "a file .txt, .vec, .bin or .npy", format!("`{name}`"), next));
        }
    };
    let Some(width) = found.values().next().map(Vec::len) else {
        let expected = format!("vectors of some of the {} words of the dataset", numbers.len());
        let next = "take vectors of the captions' language, with words in lower case";
        return Err(Error::content(path, "", expected, "none of them", next));
    };
    for (&token, vector) in &found {
        if let Some(value) = vector.iter().find(|value| !value.is_finite()) {
            let place = format!("word `{}`", words[token]);
            return Err(Error::content(path, place, "finite numbers", value.to_string(), "get the file again"));
        }
    }
    Ok(WordVectors::of(name, words, width, &found))
}

fn text(path: &Path, numbers: &Numbers<'_>) -> Result<Found> {
    let mut reader = BufReader::new(files::open(path)?.0);
    let (mut found, mut width, mut number, mut line) = (Found::new(), None, 0, Vec::new());
    loop {
        line.clear();
        let length = (&mut reader).take(LONGEST).read_until(b'\n', &mut line).map_err(Error::io(path))?;
        if length == 0 {
            return Ok(found);
        }
        number += 1;
        let wrong = |expected: String, found: String| {
            Err(Error::content(path, format!("line {number}"), expected, found, "get the file again"))
        };
        if length as u64 == LONGEST {
            return wrong("a word and its values".into(), format!("a line of more than {} MiB", LONGEST >> 20));
        }
        // A word in another encoding is none of those that are asked for.
        let Ok(line) = std::str::from_utf8(&line) else { continue };
        let line = line.trim_end();
        let fields: Vec<&str> = line.split([' ', '\t']).collect();
        if number == 1 && fields.len() == 2 && fields.iter().all(|field| field.parse::<u64>().is_ok()) {
            continue;
        }
        let width = match width {
            Some(width) => width,
            None if (2..=WIDEST + 1).contains(&fields.len()) => *width.insert(fields.len() - 1),
            None => return wrong(format!("a word and 1 to {WIDEST} values"), format!("{} fields", fields.len())),
        };
        if fields.len() <= width {
            return wrong(
                format!("a word and {width} values as in the lines before"),
                format!("{} fields", fields.len()),
            );
        }
        let (word, values) = fields.split_at(fields.len() - width);
        let Some(&token) = numbers.get(word.join(" ").as_str()) else { continue };
        if found.contains_key(&token) {
            continue;
        }
        let parsed: Option<Vec<f32>> = values.iter().map(|value| value.parse().ok()).collect();
        match parsed {
            Some(vector) => _ = found.insert(token, vector),
            None => return wrong(format!("{width} numbers behind `{}`", word.join(" ")), "something else".into()),
        }
    }
}

fn binary(path: &Path, numbers: &Numbers<'_>) -> Result<Found> {
    let (file, size) = files::open(path)?;
    let mut reader = BufReader::new(file);
    let wrong = |place: String, expected: &str, found: String| {
        Error::content(path, place, expected.to_owned(), found, "get the file again, or convert it to text")
    };
    let mut line = Vec::new();
    (&mut reader).take(64).read_until(b'\n', &mut line).map_err(Error::io(path))?;
    let head = String::from_utf8_lossy(&line).trim_end().to_owned();
    let counts: Vec<u64> = head.split(' ').filter_map(|field| field.parse().ok()).collect();
    let [count, width] = counts[..] else {
        return Err(wrong("line 1".into(), "the numbers of words and of values", format!("`{head}`")));
    };
    if width == 0 || width > WIDEST as u64 || count.checked_mul(4 * width).is_none_or(|bytes| bytes > size) {
        let found = format!("{count} words of {width} values in {size} bytes");
        return Err(wrong("line 1".into(), "numbers that the file's length bears out", found));
    }
    let (mut found, mut word, mut values) = (Found::new(), Vec::new(), vec![0; 4 * width as usize]);
    for row in 1..=count {
        word.clear();
        (&mut reader).take(LONGEST).read_until(b' ', &mut word).map_err(Error::io(path))?;
        if word.pop() != Some(b' ') {
            return Err(wrong(format!("word {row} of {count}"), "a word and a blank", "the end of the file".into()));
        }
        reader
            .read_exact(&mut values)
            .map_err(|_| wrong(format!("word {row} of {count}"), "its values", "the end of the file".into()))?;
        // Some writers end each vector with a line feed.
        let start = usize::from(word.first() == Some(&b'\n'));
        let Some(&token) = std::str::from_utf8(&word[start..]).ok().and_then(|word| numbers.get(word)) else {
            continue;
        };
        let floats = values.as_chunks::<4>().0;
        found.entry(token).or_insert_with(|| floats.iter().map(|&value| f32::from_le_bytes(value)).collect());
    }
    Ok(found)
}

fn table(path: &Path, numbers: &Numbers<'_>) -> Result<Found> {
    let npy = Npy::open(path)?;
    if npy.shape.len() != 2 || !(1..=WIDEST).contains(&npy.shape[1]) {
        let expected = format!("shape [words, values] with 1 to {WIDEST} values");
        return Err(Error::content(path, "header", expected, format!("{:?}", npy.shape), "save a row a word"));
    }
    let beside = path.with_extension("txt");
    let words = lines(&beside)?;
    if words.len() != npy.shape[0] {
        let expected = format!("a word a line for each of the {} rows of {}", npy.shape[0], path.display());
        let next = "write both from the same vocabulary";
        return Err(Error::content(&beside, "", expected, format!("{} lines", words.len()), next));
    }
    let mut found = Found::new();
    for (row, word) in words.iter().enumerate() {
        let Some(&token) = numbers.get(word.as_str()) else { continue };
        if let Entry::Vacant(place) = found.entry(token) {
            let mut vector = vec![0.0; npy.shape[1]];
            npy.read(row, &mut vector)?;
            place.insert(vector);
        }
    }
    Ok(found)
}
