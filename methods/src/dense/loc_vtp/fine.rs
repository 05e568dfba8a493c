//! Clips and words of a pair set against each other.

use candle_core::Tensor;

use super::{ClipMatch, projection::Offsets};
use crate::{
    Error, Result,
    dense::{
        nce,
        parts::{owners, select},
    },
    loss::{Relation, Relations, log_sum, matching},
    nn::{Lengths, unit},
};

/// Vectors of one side, item after item.
pub(super) struct Side<'a> {
    /// `[total, e]`.
    pub rows: &'a Tensor,
    /// The same of unit length.
    pub units: Tensor,
    pub lengths: &'a Lengths,
}

impl<'a> Side<'a> {
    pub fn new(rows: &'a Tensor, lengths: &'a Lengths) -> Result<Self> {
        Ok(Self { rows, units: unit(rows)?, lengths })
    }
}

/// Matches of the queries of one side, places within the item of the other, the best first.
pub(super) type Picked = Vec<Vec<usize>>;

/// Equation (4) of clips and of words.
pub(super) fn pick([clips, words]: &[Side<'_>; 2], k: usize, rule: ClipMatch) -> Result<[Picked; 2]> {
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

/// N of equation (5) of the queries `q` among the keys `k`.
pub(super) enum Negatives<'a> {
    /// The keys of an item's negatives, with all cosines `[q, k]`.
    Others(&'a Tensor, &'a Relations),
    /// Rows of `k`, as many of each query, query after query.
    Drawn(&'a [usize]),
}

/// Queries of one side against keys of the other.
pub(super) struct Fine<'a> {
    q: &'a Side<'a>,
    k: &'a Side<'a>,
    temperature: f64,
    /// The logarithm of the sum over N of (5) of each query, `[q, 1]`: one for all its positives.
    others: Tensor,
}

impl<'a> Fine<'a> {
    /// With t and N of (5).
    pub fn new([q, k]: [&'a Side<'a>; 2], temperature: f64, negatives: &Negatives<'_>) -> Result<Self> {
        let others = match *negatives {
            Negatives::Others(cosines, relations) => {
                let (items, of) = (owners(q.lengths), owners(k.lengths));
                log_sum(&(cosines / temperature)?, |r, j| relations.row(items[r])[of[j]] == Relation::Negative)?
            }
            Negatives::Drawn(rows) => {
                let (queries, width) = q.units.dims2()?;
                let negatives = select(&k.units, rows)?.reshape((queries, rows.len() / queries.max(1), width))?;
                let cosines = negatives.broadcast_mul(&q.units.unsqueeze(1)?)?.sum(2)?;
                log_sum(&(cosines / temperature)?, |_, _| true)?
            }
        };
        Ok(Self { q, k, temperature, others: others.unsqueeze(1)? })
    }

    /// One way of equation (6).
    pub fn matched(&self, picked: &Picked) -> Result<Tensor> {
        let items = owners(self.q.lengths);
        let pairs = picked.iter().enumerate().flat_map(|(r, places)| places.iter().map(move |&place| (r, place)));
        let (queries, positives): (Vec<usize>, Vec<usize>) =
            pairs.map(|(r, place)| (r, self.k.lengths.range(items[r]).start + place)).unzip();
        self.nce(&queries, &select(&self.k.units, &positives)?)
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
        let (q, others) = (select(&self.q.units, queries)?, select(&self.others, queries)?);
        nce::summed([&q, positives, &others], self.temperature)
    }
}
