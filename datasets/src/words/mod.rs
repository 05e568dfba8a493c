//! Pretrained vectors of words: those inside the program, and a user's own.
//!
//! Option `word_vectors` of a dataset says which: `none`; `glove`, the vectors of 100 values that GloVe learnt from 6,000 million words of
//! Wikipedia and news, for the words of the built-in datasets' captions; or a file in the data folder (`files`). A word has the vector
//! of the same word, letter by letter; the special tokens have none.
//!
//! Vectors are a representation of a dataset's texts ([`Texts::word_vectors`](crate::Texts::word_vectors)), a row a token number. Those
//! of the dataset's vocabulary enter its checksum, the rest of a file does not.

mod files;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    path::Path,
    sync::Arc,
};

use half::f16;

use crate::{Dataset, Hasher, Matrix, OptionSpec, OptionValue, Result, options::Options, source::within};

/// Name of the option.
pub(crate) const OPTION: &str = "word_vectors";

/// The option of a dataset whose words are inside the program.
pub(crate) const BUILT_IN_VECTORS: OptionSpec = OptionSpec {
    name: OPTION,
    doc: "pretrained vectors of words: `glove` (100 values), `none`, or a file in the data folder (.txt, .vec, .bin, or .npy beside a .txt of words)",
    default: OptionValue::Text("glove"),
};

/// The option of a dataset that a user brings.
pub(crate) const VECTORS: OptionSpec = OptionSpec {
    name: OPTION,
    doc: "pretrained vectors of words: `none`, a file in the data folder (.txt, .vec, .bin, or .npy beside a .txt of words), or `glove` for the words of the built-in datasets",
    default: OptionValue::Text("none"),
};

/// What `scripts/clipart` took of GloVe: words, and their vectors as f16.
const WORDS: &str = include_str!("../../data/words/glove.txt");
const VALUES: &[u8] = include_bytes!("../../data/words/glove.bin");
const WIDTH: usize = 100;

/// Pretrained vectors of the words of a vocabulary, by token number.
#[derive(Clone, PartialEq)]
pub struct WordVectors {
    /// Where they are from, for messages.
    pub origin: String,
    /// A row a token, `[vocabulary, width]`; zeros where there is no vector.
    pub rows: Matrix,
    /// Whether a token has a vector.
    pub known: Vec<bool>,
}

impl WordVectors {
    /// The vectors of `words`, which are by token number.
    fn of(origin: &str, words: &[String], width: usize, found: &BTreeMap<usize, Vec<f32>>) -> Self {
        let mut rows = Matrix::zeros(words.len(), width);
        let mut known = vec![false; words.len()];
        for (&token, vector) in found {
            rows.row_mut(token).copy_from_slice(vector);
            known[token] = true;
        }
        Self { origin: origin.into(), rows, known }
    }

    /// Words that have a vector.
    pub fn count(&self) -> usize {
        self.known.iter().filter(|&&known| known).count()
    }
}

impl fmt::Debug for WordVectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WordVectors({}, {} of {} words, {})", self.origin, self.count(), self.known.len(), self.rows.cols)
    }
}

/// The dataset with the vectors that the options ask for.
///
/// # Errors
/// If a file is missing or not what it should be, or has none of the dataset's words.
pub(crate) fn attach(mut dataset: Dataset, options: &Options, root: Option<&Path>) -> Result<Dataset> {
    let vectors = match options.text(OPTION, &[])? {
        "none" => return Ok(dataset),
        "glove" => glove(&dataset.words),
        path => files::read(&within(OPTION, path, root, "put the vectors there")?, path, &dataset.words)?,
    };
    let mut hasher = Hasher::default();
    hasher.add("dataset", dataset.checksum.0.as_bytes());
    hasher.add("known", &vectors.known.iter().map(|&known| u8::from(known)).collect::<Vec<u8>>());
    hasher.add("word vectors", bytemuck::cast_slice(&vectors.rows.data));
    dataset.checksum = hasher.finish();
    let vectors = Arc::new(vectors);
    let splits = [Some(&mut dataset.train), dataset.val.as_mut(), Some(&mut dataset.test), dataset.database.as_mut()];
    for split in splits.into_iter().flatten() {
        split.texts.word_vectors = Some(vectors.clone());
    }
    Ok(dataset)
}

/// The vectors inside the program.
fn glove(words: &[String]) -> WordVectors {
    let rows: HashMap<&str, usize> = WORDS.lines().enumerate().map(|(row, word)| (word, row)).collect();
    let vector = |row: usize| {
        let bytes = &VALUES[2 * WIDTH * row..][..2 * WIDTH];
        bytes.as_chunks::<2>().0.iter().map(|&value| f16::from_le_bytes(value).to_f32()).collect()
    };
    let special = crate::text::SPECIAL.len();
    let found = words.iter().enumerate().skip(special);
    let found = found.filter_map(|(token, word)| Some((token, vector(*rows.get(word.as_str())?)))).collect();
    WordVectors::of("glove", words, WIDTH, &found)
}

#[cfg(test)]
mod tests;
