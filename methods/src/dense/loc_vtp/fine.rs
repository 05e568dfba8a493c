//! Clips and words of a pair set against each other.

use candle_core::Tensor;

use super::{ClipMatch, projection::Offsets};
use crate::{
    Error, Result,
    dense::{
        nce,
        parts::{owners, select},
    },
    loss::matching,
    nn::{Lengths, unit},
};

/// Vectors of one side, item after item.
#[derive(Clone, Copy)]
pub(super) struct Side<'a> {
    /// `[total, e]`.
    pub rows: &'a Tensor,
    pub lengths: &'a Lengths,
}

/// Matches of the queries of one side, places within the item of the other, the best first.
pub(super) type Picked = Vec<Vec<usize>>;

/// Equation (4) of clips and of words.
pub(super) fn pick([clips, words]: [Side<'_>; 2], k: usize, rule: ClipMatch) -> Result<[Picked; 2]> {
    let products = matching::within(clips.rows, clips.lengths, words.rows, words.lengths)?;
    let of_clips = products.iter().map(|row| matching::largest(row, k)).collect();
    let seen = match rule {
        ClipMatch::Own => products,
        ClipMatch::Released => products.into_iter().map(softmax).collect(),
    };
    let of_words = matching::turned(&seen, clips.lengths, words.lengths);
    Ok([of_clips, of_words.iter().map(|row| matching::largest(row, k)).collect()])
}

fn softmax(mut row: Vec<f64>) -> Vec<f64> {
    let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    row.iter_mut().for_each(|x| *x = (*x - most).exp());
    let sum: f64 = row.iter().sum();
    row.iter_mut().for_each(|x| *x /= sum);
    row
}

/// Queries of one side against keys of the other.
pub(super) struct Fine<'a> {
    pub q: Side<'a>,
    pub k: Side<'a>,
    /// t of (5).
    pub temperature: f64,
    /// Rows of `k` that are the negatives of each query, query after query; of other items where absent.
    pub drawn: Option<&'a [usize]>,
    /// Whether the second item is a negative of the first, of `q` and `k`.
    pub others: &'a (dyn Fn(usize, usize) -> bool + Sync),
}

impl Fine<'_> {
    /// One way of equation (6).
    pub fn matched(&self, picked: &Picked) -> Result<Tensor> {
        let items = owners(self.q.lengths);
        let pairs = picked.iter().enumerate().flat_map(|(r, places)| places.iter().map(move |&place| (r, place)));
        let (queries, positives): (Vec<usize>, Vec<usize>) =
            pairs.map(|(r, place)| (r, self.k.lengths.range(items[r]).start + place)).unzip();
        self.nce(&queries, &unit(&select(self.k.rows, &positives)?)?)
    }

    /// One way of equation (8), with the shifted places `s` of the queries. `slot` is the place whose offsets all queries of an
    /// item have, if not their own.
    ///
    /// # Errors
    /// If there is no such place.
    pub fn warped(&self, picked: &Picked, s: &[usize], offsets: &Offsets, slot: Option<usize>) -> Result<Tensor> {
        let items = owners(self.q.lengths);
        let queries: Vec<usize> = (0..items.len()).collect();
        let of = |r: usize| match slot {
            None => Ok(r),
            Some(slot) if slot < self.q.lengths.as_slice()[items[r]] => Ok(self.q.lengths.range(items[r]).start + slot),
            Some(slot) => Err(Error::Numeric(format!(
                "loc_vtp: `warp = \"released\"` takes the offset of word {slot} of each text, and text {} of the batch has {}; set \
                 `warp = \"own\"`",
                items[r],
                self.q.lengths.as_slice()[items[r]]
            ))),
        };
        let d =
            queries.iter().map(|&r| of(r).map(|at| s[at] as i64 - picked[at][0] as i64)).collect::<Result<Vec<_>>>()?;
        let shifted: Vec<usize> = queries.iter().map(|&r| self.k.lengths.range(items[r]).start + s[r]).collect();
        let u = (select(self.k.rows, &shifted)? + offsets.forward(&d, self.k.rows)?)?; // (7)
        self.nce(&queries, &unit(&u)?)
    }

    /// Equation (5) of some rows of `q`, and a positive for each.
    fn nce(&self, queries: &[usize], positives: &Tensor) -> Result<Tensor> {
        let (q, items, of) = (unit(&select(self.q.rows, queries)?)?, owners(self.q.lengths), owners(self.k.lengths));
        match self.drawn {
            None => {
                let keys = unit(self.k.rows)?;
                let counts = |r: usize, j: usize| (self.others)(items[queries[r]], of[j]);
                nce::common([&q, positives, &keys], self.temperature, counts)
            }
            Some(drawn) => {
                let each = drawn.len() / items.len().max(1);
                let rows: Vec<usize> =
                    queries.iter().flat_map(|&r| &drawn[r * each..(r + 1) * each]).copied().collect();
                let negatives = unit(&select(self.k.rows, &rows)?)?;
                let negatives = negatives.reshape((queries.len(), each, negatives.dim(1)?))?;
                nce::own([&q, positives, &negatives], self.temperature)
            }
        }
    }
}
