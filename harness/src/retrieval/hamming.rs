//! Exact search by Hamming distance: popcounts of packed codes, block of the gallery by block.

use std::ops::Range;

use rayon::prelude::*;
use xmbench_methods::{Bits, Codes, Result};

use super::{
    Index, TopK,
    best::{Best, distance_key},
    kind, mismatch,
};

/// Gallery codes a block: distances of a block stay in the first-level cache, codes of up to 512 bits in the second.
const BLOCK: usize = 4096;
/// Distances that are looked over at once.
const STRIDE: usize = 64;
/// Tasks that a search is cut into at least.
const TASKS: usize = 16;

/// A gallery of binary codes, word by word: word `w` of item `i` is `words[w * len + i]`, so that neighbours in memory are words of
/// neighbouring items and one instruction counts several of them.
pub struct Planes {
    bits: usize,
    len: usize,
    words: Vec<u64>,
}

impl Planes {
    pub fn new(gallery: &Bits) -> Self {
        let (len, per_item) = (gallery.len(), gallery.words_per_item());
        let words = (0..per_item).flat_map(|w| (0..len).map(move |i| gallery.words[i * per_item + w])).collect();
        Self { bits: gallery.bits, len, words }
    }

    /// Refuses queries of another length.
    pub fn accept(&self, queries: &Bits) -> Result<()> {
        same_length(queries.bits, self.bits)
    }

    /// Writes the distances of the query to the gallery codes in `range`.
    pub fn distances(&self, query: &[u64], range: Range<usize>, out: &mut [u32]) {
        for (w, &word) in query.iter().enumerate() {
            count(word, &self.words[w * self.len + range.start..w * self.len + range.end], w == 0, out);
        }
    }

    fn scan(&self, queries: &Bits, rows: Range<usize>, range: Range<usize>, k: usize) -> Vec<Best> {
        let mut best: Vec<Best> = rows.clone().map(|_| Best::new(k)).collect();
        let mut distances = vec![0u32; BLOCK];
        for start in range.clone().step_by(BLOCK) {
            let end = (start + BLOCK).min(range.end);
            for (query, best) in rows.clone().zip(&mut best) {
                let distances = &mut distances[..end - start];
                self.distances(queries.item(query), start..end, distances);
                offer(distances, start, best);
            }
        }
        best
    }
}

impl Index for Planes {
    fn search(&self, queries: &Codes, rows: Range<usize>, k: usize) -> Result<TopK> {
        let queries = bits(queries, "queries")?;
        self.accept(queries)?;
        let k = k.min(self.len);
        let per_task = rows.len().div_ceil(TASKS).max(1);
        let parts = TASKS.div_ceil(rows.len().max(1)).min(self.len.div_ceil(BLOCK)).max(1);
        let part = self.len.div_ceil(parts).next_multiple_of(BLOCK);
        let found: Vec<Vec<u64>> = (0..rows.len().div_ceil(per_task))
            .into_par_iter()
            .flat_map_iter(|task| {
                let from = rows.start + task * per_task;
                let queries_of = from..(from + per_task).min(rows.end);
                let parts: Vec<Vec<Best>> = (0..parts)
                    .into_par_iter()
                    .map(|p| {
                        let end = ((p + 1) * part).min(self.len);
                        self.scan(queries, queries_of.clone(), (p * part).min(end)..end, k)
                    })
                    .collect();
                let merged = parts.into_iter().reduce(|mut best, other| {
                    best.iter_mut().zip(other).for_each(|(best, other)| best.absorb(other));
                    best
                });
                merged.expect("at least one part").into_iter().map(Best::sorted)
            })
            .collect();
        let keys = found.iter().flatten();
        Ok(TopK {
            k,
            items: keys.clone().map(|&key| key as u32).collect(),
            scores: keys.map(|&key| 0.0 - (key >> 32) as f32).collect(),
        })
    }

    fn bytes(&self) -> usize {
        self.words.len() * 8
    }

    fn len(&self) -> usize {
        self.len
    }
}

/// Offers distances, the first of which belongs to gallery item `start`.
fn offer(distances: &[u32], start: usize, best: &mut Best) {
    for (c, chunk) in distances.chunks(STRIDE).enumerate() {
        let limit = (best.limit() >> 32) as u32;
        if chunk.iter().fold(true, |all, &distance| all & (distance > limit)) {
            continue;
        }
        for (i, &distance) in chunk.iter().enumerate() {
            best.push(distance_key(distance, (start + c * STRIDE + i) as u32));
        }
    }
}

/// Popcounts of `word ^ codes`, written to `out` or added to it.
fn count(word: u64, codes: &[u64], first: bool, out: &mut [u32]) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vpopcntdq") {
            // SAFETY: the processor has the instructions.
            return unsafe { count_avx512(word, codes, first, out) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt") {
            // SAFETY: the processor has the instructions.
            return unsafe { count_avx2(word, codes, first, out) };
        }
    }
    count_plain(word, codes, first, out);
}

/// The same loop, compiled for processors that count eight words at once.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512vpopcntdq,popcnt")]
fn count_avx512(word: u64, codes: &[u64], first: bool, out: &mut [u32]) {
    count_plain(word, codes, first, out);
}

/// The same loop, compiled for AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,popcnt")]
fn count_avx2(word: u64, codes: &[u64], first: bool, out: &mut [u32]) {
    count_plain(word, codes, first, out);
}

#[inline(always)]
fn count_plain(word: u64, codes: &[u64], first: bool, out: &mut [u32]) {
    if first {
        out.iter_mut().zip(codes).for_each(|(out, &code)| *out = (word ^ code).count_ones());
    } else {
        out.iter_mut().zip(codes).for_each(|(out, &code)| *out += (word ^ code).count_ones());
    }
}

/// Refuses codes of different length.
pub fn same_length(queries: usize, gallery: usize) -> Result<()> {
    if queries == gallery {
        return Ok(());
    }
    Err(mismatch("queries", format!("{gallery} bits, as in the gallery"), format!("{queries} bits")))
}

/// Binary codes, or the error that they are not.
pub fn bits<'a>(codes: &'a Codes, what: &str) -> Result<&'a Bits> {
    match codes {
        Codes::Binary(bits) => Ok(bits),
        other => Err(mismatch(what, "binary codes", kind(other))),
    }
}
