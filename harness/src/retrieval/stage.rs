//! The scores of one stage: of one matcher, or the mean of several.

use std::{borrow::Cow, ops::Range};

use rayon::prelude::*;
use xmbench_datasets::Matrix;
use xmbench_methods::{
    Bits, Codes, PairScorer, Result, Similarity,
    linalg::gemm::{Mat, MatMut, gemm},
};

use super::{
    Direction, Member, TopK,
    best::{Best, real_score},
    dense, hamming, mismatch, not_a_number, pairwise,
    scores::{Rows, block, select},
};

/// Pair scores that are kept for the second direction at most (512 MiB); beyond, pairs are scored once a direction.
const KEPT: usize = 1 << 27;

/// Scores of images against texts by one matcher or several.
pub struct Stage<'a>(Vec<Kind<'a>>);

enum Kind<'a> {
    Dense(Cow<'a, Matrix>, Cow<'a, Matrix>),
    Binary(&'a Bits, &'a Bits),
    Pairs { images: &'a Codes, texts: &'a Codes, scorer: &'a dyn PairScorer, kept: Option<Vec<f32>> },
}

impl<'a> Stage<'a> {
    pub fn new(members: &[Member<'a>], images: &'a [Codes], texts: &'a [Codes]) -> Result<Self> {
        if members.is_empty() {
            let next = "name who scores";
            return Err(xmbench_datasets::Error::option("matchers of a stage", "at least one", "none", next).into());
        }
        let kind = |member: &Member<'a>| {
            Kind::new(member.of(images, "images")?, member.of(texts, "texts")?, member.similarity)
        };
        let kinds: Vec<Kind<'a>> = members.iter().map(kind).collect::<Result<_>>()?;
        let sizes = |kind: &Kind<'_>| (kind.len(Direction::T2i), kind.len(Direction::I2t));
        match kinds.iter().map(sizes).find(|other| *other != sizes(&kinds[0])) {
            None => Ok(Self(kinds)),
            Some((images, texts)) => {
                let (all_images, all_texts) = sizes(&kinds[0]);
                let expected = format!("{all_images} images and {all_texts} texts, as of the first matcher");
                Err(mismatch("other matchers", expected, format!("{images} and {texts}")))
            }
        }
    }

    /// Scores every pair once where that is a function of pairs, as long as the scores are not too many.
    pub fn keep(&mut self) -> Result<()> {
        for kind in &mut self.0 {
            if let Kind::Pairs { images, texts, scorer, kept } = kind
                && images.len().saturating_mul(texts.len()) <= KEPT
            {
                let mut all = vec![0.0; images.len() * texts.len()];
                pairwise::fill(*scorer, Direction::I2t, images, 0..images.len(), texts, &mut all)?;
                *kept = Some(all);
            }
        }
        Ok(())
    }

    /// Number of gallery items.
    pub fn gallery(&self, direction: Direction) -> usize {
        self.0[0].len(direction)
    }

    /// What binary members need to scan the gallery.
    pub fn planes(&self, direction: Direction) -> Vec<Option<hamming::Planes>> {
        let planes = |kind: &Kind<'_>| match (kind, direction) {
            (Kind::Binary(_, texts), Direction::I2t) => Some(hamming::Planes::new(texts)),
            (Kind::Binary(images, _), Direction::T2i) => Some(hamming::Planes::new(images)),
            _ => None,
        };
        self.0.iter().map(planes).collect()
    }

    /// Scores of the queries in `range` against the whole gallery.
    pub fn rows(&self, direction: Direction, range: Range<usize>, planes: &[Option<hamming::Planes>]) -> Result<Rows> {
        if let ([kind], [planes]) = (self.0.as_slice(), planes) {
            return kind.rows(direction, range, planes.as_ref());
        }
        let gallery = self.gallery(direction);
        let mut sums = vec![0.0f64; range.len() * gallery];
        for (kind, planes) in self.0.iter().zip(planes) {
            let rows = kind.rows(direction, range.clone(), planes.as_ref())?;
            sums.par_chunks_mut(gallery.max(1)).enumerate().for_each(|(i, sums)| {
                sums.iter_mut().zip(rows.scores(i, gallery).iter()).for_each(|(sum, &score)| *sum += f64::from(score));
            });
        }
        let means: Vec<f32> = sums.into_par_iter().map(|sum| self.mean(sum)).collect();
        numbers(means, range.start, gallery)
    }

    /// Scores of a query against the listed gallery items alone.
    pub fn listed(&self, direction: Direction, query: usize, items: &[u32]) -> Result<Vec<f32>> {
        let scores = match self.0.as_slice() {
            [kind] => kind.listed(direction, query, items)?,
            kinds => {
                let mut sums = vec![0.0f64; items.len()];
                for kind in kinds {
                    let scores = kind.listed(direction, query, items)?;
                    sums.iter_mut().zip(scores).for_each(|(sum, score)| *sum += f64::from(score));
                }
                sums.into_iter().map(|sum| self.mean(sum)).collect()
            }
        };
        match scores.iter().position(|score| score.is_nan()) {
            Some(at) => Err(not_a_number(query, items[at] as usize)),
            None => Ok(scores),
        }
    }

    /// The best `k` items of each query in `range`, by scores of the whole gallery.
    pub fn best(
        &self,
        direction: Direction,
        range: Range<usize>,
        k: usize,
        planes: &[Option<hamming::Planes>],
    ) -> Result<TopK> {
        let gallery = self.gallery(direction);
        let k = k.min(gallery);
        let mut out = TopK { k, items: Vec::new(), scores: Vec::new() };
        for start in range.clone().step_by(block(gallery)) {
            let part = start..(start + block(gallery)).min(range.end);
            let rows = self.rows(direction, part.clone(), planes)?;
            let best: Vec<Vec<u64>> = part
                .clone()
                .into_par_iter()
                .map(|query| {
                    let mut best = Best::new(k);
                    dense::offer(&rows.scores(query - part.start, gallery), 0, &mut best)
                        .map_err(|item| not_a_number(query, item))?;
                    Ok(best.sorted())
                })
                .collect::<Result<_>>()?;
            for key in best.into_iter().flatten() {
                out.items.push(key as u32);
                out.scores.push(real_score(key));
            }
        }
        Ok(out)
    }

    /// Sums are in f64, so that the mean of equal scores is that score.
    fn mean(&self, sum: f64) -> f32 {
        (sum / self.0.len() as f64) as f32
    }
}

impl<'a> Kind<'a> {
    fn new(images: &'a Codes, texts: &'a Codes, similarity: Similarity<'a>) -> Result<Self> {
        let kind = match similarity {
            Similarity::Cosine => Self::Dense(
                dense::unit_rows(dense::matrix(images, "images")?, "images")?,
                dense::unit_rows(dense::matrix(texts, "texts")?, "texts")?,
            ),
            Similarity::Dot => {
                let (images, texts) = (dense::matrix(images, "images")?, dense::matrix(texts, "texts")?);
                dense::finite(images, "images")?;
                dense::finite(texts, "texts")?;
                Self::Dense(Cow::Borrowed(images), Cow::Borrowed(texts))
            }
            Similarity::Hamming => Self::Binary(hamming::bits(images, "images")?, hamming::bits(texts, "texts")?),
            Similarity::Pairwise(scorer) => Self::Pairs { images, texts, scorer, kept: None },
        };
        if let Self::Dense(images, texts) = &kind {
            dense::same_width(images, texts)?;
        }
        Ok(kind)
    }

    /// Number of gallery items.
    fn len(&self, direction: Direction) -> usize {
        let (images, texts) = match self {
            Self::Dense(images, texts) => (images.rows, texts.rows),
            Self::Binary(images, texts) => (images.len(), texts.len()),
            Self::Pairs { images, texts, .. } => (images.len(), texts.len()),
        };
        if direction == Direction::I2t { texts } else { images }
    }

    fn rows(&self, direction: Direction, range: Range<usize>, planes: Option<&hamming::Planes>) -> Result<Rows> {
        let gallery = self.len(direction);
        let mut values = vec![0.0f32; range.len() * gallery];
        match self {
            Self::Dense(images, texts) => {
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
            Self::Binary(images, texts) => {
                let queries = if direction == Direction::I2t { images } else { texts };
                let planes = planes.expect("planes are built for binary codes");
                planes.accept(queries)?;
                let mut values = vec![0u32; range.len() * gallery];
                values.par_chunks_mut(gallery.max(1)).enumerate().for_each(|(i, out)| {
                    planes.distances(queries.item(range.start + i), 0..gallery, out);
                });
                return Ok(Rows::Distances { bits: queries.bits, values });
            }
            Self::Pairs { kept: Some(all), .. } if direction == Direction::I2t => {
                values.copy_from_slice(&all[range.start * gallery..range.end * gallery]);
            }
            Self::Pairs { kept: Some(all), texts, .. } => {
                for (i, row) in values.chunks_exact_mut(gallery.max(1)).enumerate() {
                    row.iter_mut().enumerate().for_each(|(j, out)| *out = all[j * texts.len() + range.start + i]);
                }
            }
            Self::Pairs { images, texts, scorer, kept: None } => {
                let (queries, items) = if direction == Direction::I2t { (images, texts) } else { (texts, images) };
                pairwise::fill(*scorer, direction, queries, range.clone(), items, &mut values)?;
            }
        }
        numbers(values, range.start, gallery)
    }

    fn listed(&self, direction: Direction, query: usize, items: &[u32]) -> Result<Vec<f32>> {
        match self {
            Self::Dense(images, texts) => {
                let (a, b) = if direction == Direction::I2t { (images, texts) } else { (texts, images) };
                let gathered: Vec<f32> = items.iter().flat_map(|&item| b.row(item as usize)).copied().collect();
                let mut out = vec![0.0; items.len()];
                dense::dots(a.row(query), &gathered, &mut out);
                Ok(out)
            }
            Self::Binary(images, texts) => {
                let (a, b) = if direction == Direction::I2t { (images, texts) } else { (texts, images) };
                hamming::same_length(a.bits, b.bits)?;
                let own = a.item(query);
                let distance = |item: &u32| -> u32 {
                    own.iter().zip(b.item(*item as usize)).map(|(a, b)| (a ^ b).count_ones()).sum()
                };
                Ok(items.iter().map(|item| 0.0 - distance(item) as f32).collect())
            }
            Self::Pairs { images, texts, scorer, .. } => {
                let places: Vec<usize> = items.iter().map(|&item| item as usize).collect();
                let mut out = vec![0.0; items.len()];
                match direction {
                    Direction::I2t => {
                        scorer.score(images, query..query + 1, &select(texts, &places), 0..places.len(), &mut out)?;
                    }
                    Direction::T2i => {
                        scorer.score(&select(images, &places), 0..places.len(), texts, query..query + 1, &mut out)?;
                    }
                }
                Ok(out)
            }
        }
    }
}

/// Rows of scores, none of which is NaN.
fn numbers(values: Vec<f32>, first: usize, gallery: usize) -> Result<Rows> {
    match values.iter().position(|score| score.is_nan()) {
        Some(at) => Err(not_a_number(first + at / gallery, at % gallery)),
        None => Ok(Rows::Real(values)),
    }
}
