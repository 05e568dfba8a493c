//! The search that a comparison needs: an index for one matcher, a scan for the mean of several, and a second stage on top.

use std::ops::Range;

use rayon::prelude::*;
use xmbench_methods::{Codes, Result};

use super::{Compared, Direction, Index, TopK, hamming::Planes, index, stage::Stage, staged};

/// Queries and a gallery, ready to be searched: texts ask for images or images for texts.
pub struct Search<'a> {
    direction: Direction,
    first: First<'a>,
    second: Option<(Stage<'a>, usize)>,
}

enum First<'a> {
    Index(Box<dyn Index + 'a>, &'a Codes),
    /// The mean of several matchers has no index: every pair is scored.
    Scan(Stage<'a>, Vec<Option<Planes>>),
}

impl<'a> Search<'a> {
    /// A search by queries in a gallery, both given as one list of codes a matcher.
    ///
    /// # Errors
    /// As [`index()`] and [`Scores::new`](super::Scores::new).
    pub fn new(
        queries: &'a [Codes],
        gallery: &'a [Codes],
        compared: &Compared<'a>,
        direction: Direction,
    ) -> Result<Self> {
        let (images, texts) = if direction == Direction::I2t { (queries, gallery) } else { (gallery, queries) };
        let first = match compared.first.as_slice() {
            [only] => {
                let index = index(only.of(gallery, "gallery")?, only.similarity, direction)?;
                First::Index(index, only.of(queries, "queries")?)
            }
            members => {
                let stage = Stage::new(members, images, texts)?;
                let planes = stage.planes(direction);
                First::Scan(stage, planes)
            }
        };
        let second = match &compared.second {
            None => None,
            Some(second) => {
                staged::accept(second.shortlist, gallery.iter().map(Codes::len).max().unwrap_or(0))?;
                Some((Stage::new(&second.members, images, texts)?, second.shortlist))
            }
        };
        Ok(Self { direction, first, second })
    }

    /// The best `k` items of each of the given queries, by all stages.
    ///
    /// # Errors
    /// A query that is not finite, a scorer's own, or a score that is not a number.
    pub fn best(&self, rows: Range<usize>, k: usize) -> Result<TopK> {
        match &self.second {
            None => self.first(rows, k),
            Some((_, shortlist)) => self.reorder(rows.clone(), &self.first(rows, k.max(*shortlist))?, k),
        }
    }

    /// The best `k` items by the first stage alone.
    ///
    /// # Errors
    /// As [`best`](Self::best).
    pub fn first(&self, rows: Range<usize>, k: usize) -> Result<TopK> {
        match &self.first {
            First::Index(index, queries) => index.search(queries, rows, k),
            First::Scan(stage, planes) => stage.best(self.direction, rows, k, planes),
        }
    }

    /// The best `k` of what the first stage found for these queries, after the second; the first's where there is no second.
    ///
    /// # Errors
    /// As [`best`](Self::best).
    pub fn reorder(&self, rows: Range<usize>, found: &TopK, k: usize) -> Result<TopK> {
        let k = k.min(found.k);
        let ordered: Vec<Vec<(u32, f32)>> = rows
            .clone()
            .into_par_iter()
            .map(|query| {
                let at = (query - rows.start) * found.k;
                let (items, scores) = (&found.items[at..at + found.k], &found.scores[at..at + found.k]);
                self.reordered(query, items, scores, k)
            })
            .collect::<Result<_>>()?;
        let pairs = || ordered.iter().flatten();
        Ok(TopK { k, items: pairs().map(|pair| pair.0).collect(), scores: pairs().map(|pair| pair.1).collect() })
    }

    fn reordered(&self, query: usize, items: &[u32], first: &[f32], k: usize) -> Result<Vec<(u32, f32)>> {
        let pairs = |scores: &[f32]| items.iter().copied().zip(scores.iter().copied()).collect::<Vec<_>>();
        let Some((stage, shortlist)) = &self.second else {
            return Ok(pairs(&first[..k]));
        };
        let mut listed: Vec<u32> = (0..items.len().min(*shortlist) as u32).collect();
        listed.sort_unstable_by_key(|&place| items[place as usize]);
        let wanted: Vec<u32> = listed.iter().map(|&place| items[place as usize]).collect();
        let second = stage.listed(self.direction, query, &wanted)?;
        let mut pairs = pairs(&staged::places(first, &listed, &second));
        pairs.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        pairs.truncate(k);
        Ok(pairs)
    }

    /// The number of gallery items that a second stage orders anew, where there is one.
    pub fn shortlist(&self) -> Option<usize> {
        self.second.as_ref().map(|(_, shortlist)| *shortlist)
    }
}

impl TopK {
    /// What was found for one of the queries.
    pub fn row(&self, query: usize) -> Self {
        let range = query * self.k..(query + 1) * self.k;
        Self { k: self.k, items: self.items[range.clone()].to_vec(), scores: self.scores[range].to_vec() }
    }
}
