//! Embeddings, codes or scores that another program made.
//!
//! ```toml
//! [[methods]]
//! method = "given"
//! label = "Ours"
//! images = "ours/i.npy"             # a row an image of the test split, in its order
//! texts = "ours/t{seed}.npz#texts"  # a file a seed; an array of several
//! similarity = "cosine"             # or dot, l2, hamming
//!
//! [[methods]]
//! method = "given"
//! label = "Ours, pair by pair"
//! scores = "ours/s.npy"             # images x texts, mapped into memory
//! image_ids = "ours/images.txt"     # the id of row k in line k: any order, and more rows than are asked for
//! ```
//!
//! What lies at a path is read by [`xmbench_datasets::arrays`]. With `u` a row of the images' file and `v` one of the texts', the
//! score of a pair is
//!
//! ```text
//! cosine   u·v / (|u| |v|), 0 with a zero vector          (1)
//! dot      u·v                                           (2)
//! l2       -|u - v|                                      (3)
//! hamming  -(number of bits in which u and v differ)     (4)
//! scores   s[image, text]                                (5)
//! ```
//!
//! Codes of (4) are packed, eight bits a byte of type uint8, in either order of bits (`numpy.packbits`), or one bit a value: +1 and -1,
//! or 1 and 0. Scores of (5) are compared as pairs: an image and a text are coded as the numbers of their row and column, fragments of
//! width 1, exact up to 2^24.
//!
//! Which row is whose is said by ids, or by the order of the test split; `{split}` in a path stands for a file a split, each in that
//! split's order, for protocols that search another split than they score. Counts, ids, types, NaN and infinity are checked.
//!
//! There is nothing to fit: the training view is not looked at, and a control on shuffled pairs is refused. The times of "fit" and
//! "encode" are those of reading files, which a remark beside the row says. The digests of the files are part of a trial's identity
//! (`file = true` on the card); a saved matcher holds paths and digests, and is refused where a file has changed.

mod codes;
mod rows;

use std::{ops::Range, path::Path, sync::Arc};

use candle_core::Device;
use serde::{Deserialize, Serialize};
use xmbench_datasets::{
    Features, Images, Split, Texts,
    arrays::{self, Array},
};

pub(super) use self::codes::binary;
use self::rows::{Asked, Side};
use crate::{
    Codes, Error, Fragments, Matcher, Method, PairScorer, Result, Run, Similarity, Training, card::Card,
    codes::has_room, linalg::distance::Distance, params,
};

/// The method.
pub struct Given;

/// Its parameters; an empty path is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Params {
    /// Embeddings of images.
    pub images: String,
    /// Embeddings of texts.
    pub texts: String,
    /// Scores of pairs.
    pub scores: String,
    /// Ids of the images' rows.
    pub image_ids: String,
    /// Ids of the texts' rows, or columns.
    pub text_ids: String,
    /// How embeddings are compared.
    pub similarity: Compare,
    /// Bits of a packed code; 0 for all.
    pub code_bits: usize,
}

/// How embeddings are compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compare {
    /// Equation (1).
    #[default]
    Cosine,
    /// Equation (2).
    Dot,
    /// Equation (3).
    L2,
    /// Equation (4).
    Hamming,
}

impl Compare {
    /// The similarity of codes.
    pub(super) fn of_codes(self) -> Similarity<'static> {
        match self {
            Self::Cosine => Similarity::Cosine,              // (1)
            Self::Dot => Similarity::Dot,                    // (2)
            Self::L2 => Similarity::Pairwise(&Distance::L2), // (3)
            Self::Hamming => Similarity::Hamming,            // (4)
        }
    }
}

impl Params {
    /// Completed and checked parameters; an empty table gives the defaults, which name no file.
    ///
    /// # Errors
    /// As [`params::parse`], or files that do not go together.
    pub fn read(table: &toml::Table) -> Result<Self> {
        params::stated(NAME, table, Self::check)
    }

    fn check(&self) -> Result<()> {
        let wrong = |key: &str, expected: &str, found: &str| Err(params::out_of_range(NAME, key, expected, found));
        let named = |path: &String| !path.is_empty();
        match [&self.images, &self.texts, &self.scores].map(named) {
            [true, true, false] | [false, false, true] => {}
            [_, _, true] => return wrong("scores", "nothing beside `images` or `texts`", &self.scores),
            [true, false, false] => return wrong("texts", "a file beside `images`", "none"),
            [false, true, false] => return wrong("images", "a file beside `texts`", "none"),
            [false, false, false] => return wrong("images", "files of `images` and `texts`, or of `scores`", "none"),
        }
        if self.scores.contains(SPLIT) {
            return wrong(
                "scores",
                "one matrix of all that is asked for, with `image_ids` and `text_ids`",
                &self.scores,
            );
        }
        if self.code_bits != 0 && self.similarity != Compare::Hamming {
            return wrong("code_bits", "0 unless `similarity` is hamming", &self.code_bits.to_string());
        }
        Ok(())
    }

    /// With the seed in the place of `{seed}`.
    fn of_seed(&self, seed: u64) -> Self {
        let with = |path: &String| path.replace(SEED, &seed.to_string());
        Self {
            images: with(&self.images),
            texts: with(&self.texts),
            scores: with(&self.scores),
            image_ids: with(&self.image_ids),
            text_ids: with(&self.text_ids),
            ..self.clone()
        }
    }
}

const NAME: &str = "given";
const FILE: &str = "given.toml";

/// What stands in a path for the seed of a trial.
pub const SEED: &str = "{seed}";
/// What stands in a path for the split that is read.
pub const SPLIT: &str = "{split}";

impl Method for Given {
    fn card(&self) -> &Card {
        crate::card!("given.toml")
    }

    fn resolve(&self, table: &toml::Table) -> Result<toml::Table> {
        Params::read(table).map(|params| params::to_table(&params))
    }

    fn fit(&self, _training: &Training<'_>, table: &toml::Table, run: &mut Run<'_>) -> Result<Box<dyn Matcher>> {
        let params = Params::read(table)?;
        params.check()?;
        if run.control {
            let found = "`shuffled = true`, and files that were made of the true pairs; leave it out";
            return Err(params::out_of_range(NAME, "images", "a row without a control on shuffled pairs", found));
        }
        Ok(Box::new(Fitted::open(params.of_seed(run.seed.0))?))
    }

    fn load(&self, from: &Path, _device: &Device) -> Result<Box<dyn Matcher>> {
        let path = from.join(FILE);
        let bytes = xmbench_datasets::files::read(&path)?;
        let wrong = |expected: &str, found: String| Error::Format {
            file: path.display().to_string(),
            expected: expected.into(),
            found,
        };
        let saved: Saved = toml::from_slice(&bytes).map_err(|error| wrong("paths of files", error.to_string()))?;
        saved.params.check()?;
        let now = digests(&saved.params)?;
        match saved.sha256.iter().find(|it| !now.contains(it)) {
            None => Ok(Box::new(Fitted::open(saved.params)?)),
            Some((place, _)) => Err(wrong("files as they were when it was saved", format!("{place} changed"))),
        }
    }

    fn remark(&self, params: &toml::Table) -> Option<String> {
        let scores = params.get("scores").and_then(toml::Value::as_str).is_some_and(|path| !path.is_empty());
        Some(match scores {
            true => "scores of pairs were made elsewhere: times are those of reading them".into(),
            false => "embeddings were made elsewhere: times of fitting and encoding are those of reading them".into(),
        })
    }
}

/// What is kept of a matcher: where its files are, and what was in them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    sha256: Vec<(String, String)>,
    params: Params,
}

/// The digest of every file that parameters name, of every split that has one.
fn digests(params: &Params) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    let paths = [&params.images, &params.texts, &params.scores, &params.image_ids, &params.text_ids];
    for path in paths.into_iter().filter(|path| !path.is_empty()) {
        let several = path.contains(SPLIT);
        for split in [Split::Train, Split::Val, Split::Test, Split::Database] {
            let place = path.replace(SPLIT, &split.to_string());
            if if several { arrays::split(&place).0.exists() } else { split == Split::Test } {
                found.push((place.clone(), arrays::digest(&place)?.0));
            }
        }
    }
    Ok(found)
}

struct Fitted {
    params: Params,
    images: Side,
    texts: Side,
    scores: Option<Scores>,
}

impl Fitted {
    fn open(params: Params) -> Result<Self> {
        let images = Side { name: "image", ids_key: "image_ids", ids: params.image_ids.clone() };
        let texts = Side { name: "text", ids_key: "text_ids", ids: params.text_ids.clone() };
        let scores = match params.scores.as_str() {
            "" => None,
            place => Some(Scores(Arc::new(real(Array::open(place)?, "scores")?))),
        };
        let whole = [&params.images, &params.texts].iter().all(|place| !place.contains(SPLIT));
        if scores.is_none() && params.similarity != Compare::Hamming && whole {
            let [of_images, of_texts] = [Array::open(&params.images)?, Array::open(&params.texts)?];
            if of_images.cols() != of_texts.cols() {
                let expected = format!("{} columns, as in {}", of_images.cols(), of_images.path().display());
                let (found, next) = (of_texts.cols().to_string(), "embed images and texts into one space");
                return Err(xmbench_datasets::Error::content(of_texts.path(), "", expected, found, next).into());
            }
        }
        Ok(Self { params, images, texts, scores })
    }

    fn encode(&self, side: &Side, place: &str, asked: &Asked<'_>) -> Result<Codes> {
        if let Some(Scores(array)) = &self.scores {
            let image = side.name == "image";
            let (lines, axis) = if image { (array.rows(), "row") } else { (array.cols(), "column") };
            let rows = side.rows(asked, lines, axis, array.path(), &self.params.scores)?;
            return numbers(&rows);
        }
        let array = Array::open(&rows::of_split(place, asked.split))?;
        let rows = side.rows(asked, array.rows(), "row", array.path(), place)?;
        if self.params.similarity == Compare::Hamming {
            return Ok(Codes::Binary(binary(&array, &rows, self.params.code_bits)?));
        }
        let array = real(array, "embeddings")?;
        let table: &dyn Features = &array;
        Ok(Codes::Dense(table.gather(&rows)?))
    }
}

/// Refuses whole numbers where fractions are due.
pub(super) fn real(array: Array, what: &str) -> Result<Array> {
    if array.number().is_real() {
        return Ok(array);
    }
    let (found, next) =
        (array.number().name(), "write floating-point numbers, or say `similarity = \"hamming\"` of codes");
    let expected = format!("{what} of type float16, float32 or float64");
    Err(xmbench_datasets::Error::content(array.path(), "", expected, found, next).into())
}

/// Row or column numbers as codes.
fn numbers(rows: &[usize]) -> Result<Codes> {
    let wrong = || {
        let (most, largest) = (Fragments::LARGEST, rows.iter().max().unwrap_or(&0));
        Error::Numeric(format!("given: expected row and column numbers up to {most}, found {largest}"))
    };
    Fragments::numbers(rows.iter().copied()).map(Codes::Fragments).ok_or_else(wrong)
}

impl Matcher for Fitted {
    fn encode_images(&self, images: &Images) -> Result<Codes> {
        self.encode(&self.images, &self.params.images, &Asked { ids: &images.ids, split: images.split })
    }

    fn encode_texts(&self, texts: &Texts) -> Result<Codes> {
        self.encode(&self.texts, &self.params.texts, &Asked { ids: &texts.ids, split: texts.split })
    }

    fn similarity(&self) -> Similarity<'_> {
        match &self.scores {
            Some(scores) => Similarity::Pairwise(scores), // (5)
            None => self.params.similarity.of_codes(),
        }
    }

    fn save(&self, to: &Path) -> Result<()> {
        let saved = Saved { sha256: digests(&self.params)?, params: self.params.clone() };
        let path = to.join(FILE);
        let text = toml::to_string(&saved).expect("paths and digests are plain values");
        std::fs::write(&path, text).map_err(Error::io(path))
    }
}

/// Equation (5): looks scores up.
struct Scores(Arc<Array>);

impl PairScorer for Scores {
    fn score(
        &self,
        images: &Codes,
        rows: Range<usize>,
        texts: &Codes,
        columns: Range<usize>,
        out: &mut [f32],
    ) -> Result<()> {
        let Self(array) = self;
        let (rows, columns) = (places(images, rows, array.rows())?, places(texts, columns, array.cols())?);
        has_room(out, rows.len(), columns.len())?;
        let Some(&first) = columns.first() else { return Ok(()) };
        // In the dataset's order, which is the usual one, a row of the shard lies in one piece.
        let whole = columns.iter().zip(first..).all(|(&column, next)| column == next);
        for (row, out) in rows.into_iter().zip(out.chunks_exact_mut(columns.len())) {
            match whole {
                true => array.values(row, first, out)?,
                false => {
                    for (column, out) in columns.iter().zip(out) {
                        array.values(row, *column, std::slice::from_mut(out))?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Row or column numbers of some items, each below `end`.
fn places(codes: &Codes, items: Range<usize>, end: usize) -> Result<Vec<usize>> {
    let Codes::Fragments(Fragments { dim: 1, data, .. }) = codes else {
        return Err(Error::Numeric(
            "given: expected numbers of rows and columns; encode both sides with this matcher".into(),
        ));
    };
    let place = |&number: &f32| match number as usize {
        place if place < end => Ok(place),
        place => Err(Error::Numeric(format!("given: expected a row or column below {end}, found {place}"))),
    };
    data[items].iter().map(place).collect()
}

#[cfg(test)]
mod tests;
