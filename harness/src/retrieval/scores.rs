use std::{borrow::Cow, ops::Range};

use rayon::prelude::*;
use xmbench_datasets::Matrix;
use xmbench_methods::{
    Bits, Codes, Fragments, PairScorer, Result, Similarity,
    linalg::gemm::{Mat, MatMut, gemm},
};

use super::{Direction, dense, hamming, not_a_number, pairwise};

/// Scores that a block of rows holds at most (16 MiB), unless one row is longer.
const BLOCK: usize = 1 << 22;
/// Pair scores that are kept for the second direction at most (512 MiB); beyond, pairs are scored once a direction.
const KEPT: usize = 1 << 27;

/// Scores of images against texts, a few rows at a time, from either side.
pub struct Scores<'a> {
    images: usize,
    texts: usize,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Dense(Cow<'a, Matrix>, Cow<'a, Matrix>),
    Binary(&'a Bits, &'a Bits),
    Pairs { images: &'a Codes, texts: &'a Codes, scorer: &'a dyn PairScorer, kept: Option<Vec<f32>> },
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
    /// Scores of these images and texts.
    ///
    /// # Errors
    /// Codes that `similarity` does not compare, of different width, or not finite; with a pair scorer, the scorer's own.
    pub fn new(images: &'a Codes, texts: &'a Codes, similarity: Similarity<'a>) -> Result<Self> {
        let kind = match similarity {
            Similarity::Cosine => Kind::Dense(
                dense::unit_rows(dense::matrix(images, "images")?, "images")?,
                dense::unit_rows(dense::matrix(texts, "texts")?, "texts")?,
            ),
            Similarity::Dot => {
                let (images, texts) = (dense::matrix(images, "images")?, dense::matrix(texts, "texts")?);
                dense::finite(images, "images")?;
                dense::finite(texts, "texts")?;
                Kind::Dense(Cow::Borrowed(images), Cow::Borrowed(texts))
            }
            Similarity::Hamming => Kind::Binary(hamming::bits(images, "images")?, hamming::bits(texts, "texts")?),
            Similarity::Pairwise(scorer) => Kind::Pairs { images, texts, scorer, kept: None },
        };
        if let Kind::Dense(images, texts) = &kind {
            dense::same_width(images, texts)?;
        }
        Ok(Self { images: images.len(), texts: texts.len(), kind })
    }

    /// Scores every pair once, if it is a function of pairs and the scores take no more than 512 MiB: for those who will ask from
    /// both sides.
    ///
    /// # Errors
    /// The scorer's own.
    pub fn keep(mut self) -> Result<Self> {
        if let Kind::Pairs { images, texts, scorer, kept } = &mut self.kind
            && self.images.saturating_mul(self.texts) <= KEPT
        {
            let mut all = vec![0.0; self.images * self.texts];
            pairwise::fill(*scorer, Direction::I2t, images, 0..self.images, texts, &mut all)?;
            *kept = Some(all);
        }
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
    /// # Errors
    /// What `visit` returns, a scorer's own, or a score that is not a number.
    pub fn each(&self, direction: Direction, mut visit: impl FnMut(Range<usize>, &Rows) -> Result<()>) -> Result<()> {
        let (queries, gallery) = self.sizes(direction);
        // Fixed by the sizes alone, so that the bits of a score are.
        let block = (BLOCK / gallery.max(1)).clamp(1, 512);
        let planes = match (&self.kind, direction) {
            (Kind::Binary(_, texts), Direction::I2t) => Some(hamming::Planes::new(texts)),
            (Kind::Binary(images, _), Direction::T2i) => Some(hamming::Planes::new(images)),
            _ => None,
        };
        for start in (0..queries).step_by(block) {
            let range = start..(start + block).min(queries);
            let rows = self.rows(direction, range.clone(), planes.as_ref())?;
            visit(range, &rows)?;
        }
        Ok(())
    }

    fn rows(&self, direction: Direction, range: Range<usize>, planes: Option<&hamming::Planes>) -> Result<Rows> {
        let (_, gallery) = self.sizes(direction);
        let mut values = vec![0.0f32; range.len() * gallery];
        match &self.kind {
            Kind::Dense(images, texts) => {
                let (a, b) = if direction == Direction::I2t { (images, texts) } else { (texts, images) };
                let part = &a.data[range.start * a.cols..range.end * a.cols];
                gemm(
                    1.0,
                    Mat::new(part, range.len(), a.cols),
                    Mat::new(&b.data, b.rows, b.cols).t(),
                    0.0,
                    MatMut::new(&mut values, range.len(), gallery),
                );
            }
            Kind::Binary(images, texts) => {
                let queries = if direction == Direction::I2t { images } else { texts };
                let planes = planes.expect("planes are built for binary codes");
                planes.accept(queries)?;
                let mut values = vec![0u32; range.len() * gallery];
                values.par_chunks_mut(gallery.max(1)).enumerate().for_each(|(i, out)| {
                    planes.distances(queries.item(range.start + i), 0..gallery, out);
                });
                return Ok(Rows::Distances { bits: queries.bits, values });
            }
            Kind::Pairs { kept: Some(all), .. } if direction == Direction::I2t => {
                values.copy_from_slice(&all[range.start * gallery..range.end * gallery]);
            }
            Kind::Pairs { kept: Some(all), .. } => {
                for (i, row) in values.chunks_exact_mut(gallery.max(1)).enumerate() {
                    row.iter_mut().enumerate().for_each(|(j, out)| *out = all[j * self.texts + range.start + i]);
                }
            }
            Kind::Pairs { images, texts, scorer, kept: None } => {
                let (queries, items) = if direction == Direction::I2t { (images, texts) } else { (texts, images) };
                pairwise::fill(*scorer, direction, queries, range.clone(), items, &mut values)?;
            }
        }
        match values.iter().position(|score| score.is_nan()) {
            Some(at) => Err(not_a_number(range.start + at / gallery, at % gallery)),
            None => Ok(Rows::Real(values)),
        }
    }
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
