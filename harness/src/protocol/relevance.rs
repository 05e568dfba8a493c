use xmbench_datasets::{Collection, Error, Labels};
use xmbench_methods::Result;

use super::Direction;

/// Which gallery items share a class with a query, as packed class sets.
pub struct Relevance {
    words: usize,
    queries: Vec<u64>,
    gallery: Vec<u64>,
}

impl Relevance {
    /// Of the query collection's items of one kind and the gallery collection's of the other.
    pub fn new(queries: &Collection, gallery: &Collection, direction: Direction) -> Result<Self> {
        let (query, other) = match direction {
            Direction::I2t => (labels(&queries.images.labels, "images")?, labels(&gallery.texts.labels, "texts")?),
            Direction::T2i => (labels(&queries.texts.labels, "texts")?, labels(&gallery.images.labels, "images")?),
        };
        let words = query.classes.max(other.classes).div_ceil(64).max(1);
        Ok(Self { words, queries: pack(query, words), gallery: pack(other, words) })
    }

    /// Number of queries.
    pub fn queries(&self) -> usize {
        self.queries.len() / self.words
    }

    /// Number of gallery items.
    pub fn gallery(&self) -> usize {
        self.gallery.len() / self.words
    }

    /// Whether each gallery item is relevant to the query.
    pub fn of(&self, query: usize) -> Vec<bool> {
        let own = &self.queries[query * self.words..(query + 1) * self.words];
        match own {
            [own] => self.gallery.iter().map(|set| own & set != 0).collect(),
            _ => {
                let shares = |set: &[u64]| set.iter().zip(own).any(|(a, b)| a & b != 0);
                self.gallery.chunks_exact(self.words).map(shares).collect()
            }
        }
    }
}

fn labels<'a>(labels: &'a Option<Labels>, kind: &str) -> Result<&'a Labels> {
    labels.as_ref().ok_or_else(|| {
        let next = "choose a dataset with labels or the pairs task";
        Error::option(format!("labels of the {kind}"), "classes, which the category task compares", "none", next).into()
    })
}

fn pack(labels: &Labels, words: usize) -> Vec<u64> {
    let mut out = vec![0; labels.of.len() * words];
    for (set, classes) in out.chunks_exact_mut(words).zip(&labels.of) {
        classes.iter().for_each(|&class| set[class as usize / 64] |= 1 << (class % 64));
    }
    out
}
