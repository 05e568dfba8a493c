//! Exhaustive search with a function of the pair, shard by shard.

use std::ops::Range;

use xmbench_methods::{Codes, PairScorer, Result};

use super::{Direction, Index, TopK, best::Best, best::real_score, dense::offer, not_a_number};

/// Items of either kind a shard.
const SHARD: usize = 128;

/// A gallery that is compared pair by pair. The scorer is called for one shard at a time and may use every thread.
pub struct Pairwise<'a> {
    pub gallery: &'a Codes,
    pub scorer: &'a dyn PairScorer,
    pub direction: Direction,
}

impl Index for Pairwise<'_> {
    fn search(&self, queries: &Codes, rows: Range<usize>, k: usize) -> Result<TopK> {
        let k = k.min(self.len());
        let mut out = TopK { k, items: Vec::with_capacity(k * rows.len()), scores: Vec::with_capacity(k * rows.len()) };
        let mut shard = Vec::new();
        for from in rows.clone().step_by(SHARD) {
            let block = from..(from + SHARD).min(rows.end);
            let mut best: Vec<Best> = block.clone().map(|_| Best::new(k)).collect();
            for start in (0..self.len()).step_by(SHARD) {
                let items = start..(start + SHARD).min(self.len());
                score(self.scorer, self.direction, queries, block.clone(), self.gallery, items.clone(), &mut shard)?;
                for (i, (scores, best)) in shard.chunks_exact(items.len()).zip(&mut best).enumerate() {
                    offer(scores, start, best).map_err(|item| not_a_number(block.start + i, item))?;
                }
            }
            for key in best.into_iter().flat_map(Best::sorted) {
                out.items.push(key as u32);
                out.scores.push(real_score(key));
            }
        }
        Ok(out)
    }

    fn bytes(&self) -> usize {
        (self.gallery.bytes_per_item() * self.gallery.len() as f64) as usize
    }

    fn len(&self) -> usize {
        self.gallery.len()
    }
}

/// Scores of queries against gallery items, a row a query, whichever of them are the images.
fn score(
    scorer: &dyn PairScorer,
    direction: Direction,
    queries: &Codes,
    rows: Range<usize>,
    gallery: &Codes,
    items: Range<usize>,
    out: &mut Vec<f32>,
) -> Result<()> {
    let (n, m) = (rows.len(), items.len());
    out.clear();
    out.resize(n * m, 0.0);
    if direction == Direction::I2t {
        return scorer.score(queries, rows, gallery, items, out);
    }
    let mut turned = vec![0.0; n * m];
    scorer.score(gallery, items, queries, rows, &mut turned)?;
    for i in 0..n {
        for j in 0..m {
            out[i * m + j] = turned[j * n + i];
        }
    }
    Ok(())
}

/// The scores of images against texts, `[rows, columns]`, shard by shard into rows that start `stride` values apart.
pub fn fill(
    scorer: &dyn PairScorer,
    direction: Direction,
    queries: &Codes,
    rows: Range<usize>,
    gallery: &Codes,
    out: &mut [f32],
) -> Result<()> {
    let stride = gallery.len();
    let mut shard = Vec::new();
    for from in rows.clone().step_by(SHARD) {
        let block = from..(from + SHARD).min(rows.end);
        for start in (0..stride).step_by(SHARD) {
            let items = start..(start + SHARD).min(stride);
            score(scorer, direction, queries, block.clone(), gallery, items.clone(), &mut shard)?;
            for (i, scores) in shard.chunks_exact(items.len()).enumerate() {
                let at = (block.start - rows.start + i) * stride;
                out[at + items.start..at + items.end].copy_from_slice(scores);
            }
        }
    }
    Ok(())
}
