use std::{borrow::Cow, ops::Range};

use rayon::prelude::*;
use xmbench_datasets::Matrix;
use xmbench_methods::{Bits, Codes, Fragments, Result};

use super::{Compared, Direction, stage::Stage, staged};

/// Scores that a block of rows holds at most (16 MiB), unless one row is longer.
const BLOCK: usize = 1 << 22;

/// Scores of images against texts, a few rows at a time, from either side.
pub struct Scores<'a> {
    images: usize,
    texts: usize,
    first: Stage<'a>,
    second: Option<(Stage<'a>, usize)>,
}

/// Scores of some queries against the whole gallery.
#[derive(Debug)]
pub enum Rows {
    /// Higher is better, `queries * gallery`.
    Real(Vec<f32>),
    /// Hamming distances, lower is better, `queries * gallery`; none is above `bits`.
    Distances {
        /// Length of the codes.
        bits: usize,
        /// The distances.
        values: Vec<u32>,
    },
}

impl<'a> Scores<'a> {
    /// Scores of these images and texts, given as one list of codes a matcher.
    ///
    /// # Errors
    /// Codes that their similarity does not compare, of different width or number, or not finite; a gallery that is too large for
    /// two stages.
    pub fn new(images: &'a [Codes], texts: &'a [Codes], compared: &Compared<'a>) -> Result<Self> {
        let first = Stage::new(&compared.first, images, texts)?;
        let (images_count, texts_count) = (first.gallery(Direction::T2i), first.gallery(Direction::I2t));
        let second = match &compared.second {
            None => None,
            Some(second) => {
                staged::accept(second.shortlist, images_count.max(texts_count))?;
                Some((Stage::new(&second.members, images, texts)?, second.shortlist))
            }
        };
        Ok(Self { images: images_count, texts: texts_count, first, second })
    }

    /// Scores every pair once, if it is a function of pairs and the scores take no more than 512 MiB: for those who will ask from
    /// both sides. A second stage scores its shortlists alone, and keeps nothing.
    ///
    /// # Errors
    /// The scorer's own.
    pub fn keep(mut self) -> Result<Self> {
        self.first.keep()?;
        Ok(self)
    }

    /// Number of queries and of gallery items.
    pub fn sizes(&self, direction: Direction) -> (usize, usize) {
        match direction {
            Direction::I2t => (self.images, self.texts),
            Direction::T2i => (self.texts, self.images),
        }
    }

    /// Goes through all queries, block by block: `visit` gets the queries' positions and their rows.
    ///
    /// With two stages the scores are places: 1 and above for the shortlist, 0 and below for all others, and equal where the
    /// stage that orders them gives equal scores.
    ///
    /// # Errors
    /// What `visit` returns, a scorer's own, or a score that is not a number.
    pub fn each(&self, direction: Direction, mut visit: impl FnMut(Range<usize>, &Rows) -> Result<()>) -> Result<()> {
        let (queries, gallery) = self.sizes(direction);
        let planes = self.first.planes(direction);
        for start in (0..queries).step_by(block(gallery)) {
            let range = start..(start + block(gallery)).min(queries);
            let mut rows = self.first.rows(direction, range.clone(), &planes)?;
            if let Some((second, shortlist)) = &self.second {
                let places: Vec<Result<Vec<f32>>> = range
                    .clone()
                    .into_par_iter()
                    .map(|query| {
                        let row = rows.scores(query - range.start, gallery);
                        staged::row(&row, *shortlist, query, |items| second.listed(direction, query, items))
                    })
                    .collect();
                // Of several errors the first query's, whichever thread was faster.
                rows = Rows::Real(places.into_iter().collect::<Result<Vec<_>>>()?.concat());
            }
            visit(range, &rows)?;
        }
        Ok(())
    }
}

/// Rows a block: fixed by the size of the gallery alone, so that the bits of a score are.
pub fn block(gallery: usize) -> usize {
    (BLOCK / gallery.max(1)).clamp(1, 512)
}

impl Rows {
    /// The scores of one query; higher is better.
    pub fn scores(&self, i: usize, gallery: usize) -> Cow<'_, [f32]> {
        let range = i * gallery..(i + 1) * gallery;
        match self {
            Self::Real(values) => Cow::Borrowed(&values[range]),
            // Distances are far below 2^24: exact.
            Self::Distances { values, .. } => values[range].iter().map(|&d| 0.0 - d as f32).collect(),
        }
    }
}

/// The codes of the given items, in that order.
pub fn select(codes: &Codes, items: &[usize]) -> Codes {
    match codes {
        Codes::Dense(matrix) => Codes::Dense(Matrix {
            rows: items.len(),
            cols: matrix.cols,
            data: items.iter().flat_map(|&i| matrix.row(i)).copied().collect(),
        }),
        Codes::Binary(bits) => {
            Codes::Binary(Bits { bits: bits.bits, words: items.iter().flat_map(|&i| bits.item(i)).copied().collect() })
        }
        Codes::Fragments(fragments) => {
            let mut out = Fragments { dim: fragments.dim, offsets: vec![0], data: Vec::new() };
            for &i in items {
                out.data.extend_from_slice(fragments.item(i));
                out.offsets.push(out.data.len() / fragments.dim.max(1));
            }
            Codes::Fragments(out)
        }
    }
}
