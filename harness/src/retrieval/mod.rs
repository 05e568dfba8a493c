//! Exact search: the best items of a gallery for a query, and rows of scores for the protocols.
//!
//! No matrix of all queries against the whole gallery is ever held: an [`Index`] keeps the best `k` of each query while it goes
//! through tiles of the gallery, and [`Scores`] hands out rows for a few queries at a time. Equal scores rank by lower gallery
//! position. Results do not depend on the number of threads.
//!
//! [`Compared`] says whose scores count: one matcher's, the mean of several, or two stages of either, of which the second
//! orders the best items of the first anew. An [`Index`] is of one matcher; [`Search`] is of all that a comparison names.

mod best;
mod compared;
mod dense;
mod direction;
mod hamming;
mod pairwise;
mod scores;
mod search;
mod stage;
mod staged;

use std::ops::Range;

use xmbench_datasets::{Images, Texts};
use xmbench_methods::{AttentionMap, Codes, Error, Matcher, Result, Similarity};

pub use best::best_of;
pub use compared::{Compared, Member, Second};
pub use direction::Direction;
pub use scores::{Rows, Scores, select};
pub use search::Search;

/// A gallery ready to be searched.
pub trait Index: Send + Sync {
    /// The best `k` gallery items of each of the given queries; all of them if the gallery is smaller.
    ///
    /// # Errors
    /// Codes of another kind or width than the gallery's, a query that is not finite, or a score that is not a number.
    fn search(&self, queries: &Codes, rows: Range<usize>, k: usize) -> Result<TopK>;

    /// Bytes that the index holds or reads while searching.
    fn bytes(&self) -> usize;

    /// Number of gallery items.
    fn len(&self) -> usize;

    /// Whether the gallery is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a matcher looked at to compare an image with a text, each given as the items, their codes and a position; nothing where it
/// compares whole vectors and has nothing to show.
///
/// # Errors
/// The matcher's own.
pub fn looked(
    matcher: &dyn Matcher,
    (images, image_codes, image): (&Images, &Codes, usize),
    (texts, text_codes, text): (&Texts, &Codes, usize),
) -> Result<Vec<AttentionMap>> {
    match matcher.similarity() {
        Similarity::Pairwise(scorer) => scorer.attention(image_codes, image, text_codes, text),
        // Trained on parts, though one vector is compared.
        _ => matcher.attention((images, image), (texts, text)),
    }
}

/// The best items of each query, best first; equal scores by lower gallery position.
#[derive(Debug, Clone, PartialEq)]
pub struct TopK {
    /// Items a query: what was asked for, or the gallery's size if that is smaller.
    pub k: usize,
    /// Gallery positions, `queries * k`.
    pub items: Vec<u32>,
    /// Their scores, `queries * k`; higher is better, negative distances for Hamming.
    pub scores: Vec<f32>,
}

/// Builds an index over a gallery: of texts for [`Direction::I2t`], of images for [`Direction::T2i`].
///
/// # Errors
/// If the codes are not of the kind that `similarity` compares, or not finite.
pub fn index<'a>(gallery: &'a Codes, similarity: Similarity<'a>, direction: Direction) -> Result<Box<dyn Index + 'a>> {
    Ok(match similarity {
        Similarity::Cosine => {
            Box::new(dense::Dense::new(dense::unit_rows(dense::matrix(gallery, "gallery")?, "gallery")?, true)?)
        }
        Similarity::Dot => {
            let matrix = dense::matrix(gallery, "gallery")?;
            Box::new(dense::Dense::new(std::borrow::Cow::Borrowed(matrix), false)?)
        }
        Similarity::Hamming => Box::new(hamming::Planes::new(hamming::bits(gallery, "gallery")?)),
        Similarity::Pairwise(scorer) => Box::new(pairwise::Pairwise { gallery, scorer, direction }),
    })
}

/// The error of codes that a similarity cannot compare.
fn mismatch(what: &str, expected: impl Into<String>, found: impl Into<String>) -> Error {
    let next = "compare codes that one matcher wrote, by its own similarity";
    xmbench_datasets::Error::option(format!("codes of the {what}"), expected, found, next).into()
}

/// The name of a kind of codes, for messages.
fn kind(codes: &Codes) -> &'static str {
    match codes {
        Codes::Dense(_) => "dense codes",
        Codes::Binary(_) => "binary codes",
        Codes::Fragments(_) => "fragments",
    }
}

/// The error of a score that is not a number.
fn not_a_number(query: usize, item: usize) -> Error {
    Error::Numeric(format!(
        "the score of query {query} and gallery item {item} is not a number; check the method's codes"
    ))
}

#[cfg(test)]
mod tests;
