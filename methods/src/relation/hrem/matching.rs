//! How well the fragments of images and texts match, equations (5) to (7), for all pairs of a batch at once: one product of all words
//! with all regions, then passes over the block of each pair. No gradient goes through it.

use std::ops::Range;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use crate::{
    Error, Result,
    nn::{Lengths, real::with, unit},
};

/// Slope of (5) below 0.
const SLOPE: f32 = 0.1;
/// Least length that a vector is divided by.
const FLOOR: f32 = 1e-12;

/// The fragments of one side.
pub struct Side<'a> {
    /// `[total, d]`, one item after another.
    pub fragments: &'a Tensor,
    /// Rows of each item.
    pub lengths: &'a Lengths,
}

/// What one side asks of the other.
pub struct Asked {
    /// The `top` largest of (6), descending, `[n, n, top]`.
    pub top: Vec<f32>,
    /// Equation (7), `[n, n]`.
    pub mean: Vec<f32>,
}

impl Asked {
    /// What belongs to each row of so many columns.
    fn by_row(&mut self, columns: usize) -> impl IndexedParallelIterator<Item = (&mut [f32], &mut [f32])> {
        let each = self.top.len() / self.mean.len().max(1);
        self.top.par_chunks_mut((columns * each).max(1)).zip(self.mean.par_chunks_mut(columns.max(1)))
    }
}

/// All pairs.
pub struct Matching {
    /// Rows texts, columns images.
    pub t2i: Asked,
    /// Rows images, columns texts.
    pub i2t: Asked,
}

/// Equations (5) to (7). Of the rows of text `j`, `real[j]` are words; what stands behind them takes part in the norm of (6) and in the
/// largest values, but not in (7), nor do regions see it. An item with fewer than `top` rows is filled with values of 0, which is what a
/// zero vector has.
///
/// # Errors
/// If the shapes do not fit.
pub fn matching(regions: &Side<'_>, words: &Side<'_>, real: &[usize], top: usize) -> Result<Matching> {
    if real.len() != words.lengths.len()
        || real.iter().zip(words.lengths.as_slice()).any(|(&real, &rows)| real == 0 || real > rows)
    {
        return Err(Error::Numeric(format!(
            "fragment matching: expected 1 to {:?} words, found {real:?}",
            words.lengths.as_slice()
        )));
    }
    let (w, v) = (unit(&words.fragments.detach())?, unit(&regions.fragments.detach())?);
    let s = w.matmul(&v.t()?)?.to_device(&Device::Cpu)?;
    Ok(with(&s, |s| Ok(of_similarities(s, regions.lengths, words.lengths, real, top)))?)
}

/// Equations (5) to (7) from the similarities of all words with all regions.
fn of_similarities(s: &[f32], regions: &Lengths, words: &Lengths, real: &[usize], top: usize) -> Matching {
    let (images, texts, columns) = (regions.len(), words.len(), regions.total());
    let empty = || Asked { top: vec![0.0; texts * images * top], mean: vec![0.0; texts * images] };
    // Rows are texts in both until the second is turned.
    let (mut t2i, mut turned) = (empty(), empty());
    t2i.by_row(images).zip(turned.by_row(images)).enumerate().for_each_init(
        Block::default,
        |block, (text, ((t2i_top, t2i_mean), (i2t_top, i2t_mean)))| {
            let rows = words.range(text);
            let s = &s[rows.start * columns..rows.end * columns];
            for image in 0..images {
                block.match_up(s, columns, regions.range(image), real[text]);
                t2i_mean[image] = mean(&block.of_words[..real[text]]);
                i2t_mean[image] = mean(&block.of_regions);
                let to = image * top..(image + 1) * top;
                largest(&mut block.of_words, &mut t2i_top[to.clone()]);
                largest(&mut block.of_regions, &mut i2t_top[to]);
            }
        },
    );
    let mut i2t = Asked { top: Vec::with_capacity(turned.top.len()), mean: Vec::with_capacity(turned.mean.len()) };
    for image in 0..images {
        for at in (0..texts).map(|text| text * images + image) {
            i2t.top.extend(&turned.top[at * top..][..top]);
            i2t.mean.push(turned.mean[at]);
        }
    }
    Matching { t2i, i2t }
}

/// What one text and one image are to each other; its memory serves all pairs of a text.
#[derive(Default)]
struct Block {
    /// Equation (5), a row a word.
    leaky: Vec<f32>,
    /// Lengths of its columns, inverted.
    scales: Vec<f32>,
    /// Equation (6).
    of_words: Vec<f32>,
    of_regions: Vec<f32>,
}

impl Block {
    /// Of the rows of a text, the columns in `range` are the image's.
    fn match_up(&mut self, s: &[f32], columns: usize, range: Range<usize>, real: usize) {
        let Self { leaky, scales, of_words, of_regions } = self;
        let k = range.len();
        leaky.clear();
        for row in s.chunks_exact(columns) {
            leaky.extend(row[range.clone()].iter().map(|&s| if s > 0.0 { s } else { SLOPE * s })); // (5)
        }
        let rows = || leaky.chunks_exact(k);
        scales.clear();
        scales.resize(k, 0.0);
        for row in rows() {
            scales.iter_mut().zip(row).for_each(|(square, &s)| *square += s * s);
        }
        scales.iter_mut().for_each(|square| *square = 1.0 / square.sqrt().max(FLOOR));
        of_words.clear();
        of_regions.clear();
        of_regions.resize(k, f32::NEG_INFINITY);
        for (at, row) in rows().enumerate() {
            of_words.push(row.iter().zip(&*scales).map(|(&s, &scale)| s * scale).fold(f32::NEG_INFINITY, f32::max));
            if at < real {
                let scale = 1.0 / row.iter().map(|&s| s * s).sum::<f32>().sqrt().max(FLOOR);
                of_regions.iter_mut().zip(row).for_each(|(best, &s)| *best = best.max(s * scale));
            }
        }
    }
}

/// Equation (7).
fn mean(values: &[f32]) -> f32 {
    values.iter().sum::<f32>() / values.len() as f32
}

/// The largest values, descending, and 0 for those that are missing.
fn largest(values: &mut Vec<f32>, out: &mut [f32]) {
    values.resize(values.len().max(out.len()), 0.0);
    values.sort_unstable_by(|a, b| b.total_cmp(a));
    out.copy_from_slice(&values[..out.len()]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side<'a>(fragments: &'a Tensor, lengths: &'a Lengths) -> Side<'a> {
        Side { fragments, lengths }
    }

    /// Fragments whose products are these similarities: regions are the axes, and what is left of a word points elsewhere.
    fn planted(s: &[[f32; 2]]) -> (Tensor, Tensor) {
        let words: Vec<f32> = s.iter().flat_map(|&[a, b]| [a, b, (1.0 - a * a - b * b).sqrt()]).collect();
        let words = Tensor::from_vec(words, (s.len(), 3), &Device::Cpu).unwrap();
        (Tensor::new(&[[7f32, 0.0, 0.0], [0.0, 2.0, 0.0]], &Device::Cpu).unwrap(), words)
    }

    #[test]
    fn a_pair_by_hand() {
        // Behind the leaky unit: (.6, -.08), (.3, .4); columns have lengths sqrt .45 and sqrt .1664, rows sqrt .3664 and .5.
        let (regions, words) = planted(&[[0.6, -0.8 + 1e-7], [0.3, 0.4]]);
        let (one, two) = (Lengths::new([2]).unwrap(), Lengths::new([2]).unwrap());
        let found = matching(&side(&regions, &one), &side(&words, &two), &[2], 3).unwrap();
        let t2i = [0.6 / 0.45f32.sqrt(), 0.4 / 0.1664f32.sqrt()];
        let i2t = [0.6 / 0.3664f32.sqrt(), 0.8];
        let close = |a: &[f32], b: &[f32]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(close(&found.t2i.top, &[t2i[1], t2i[0], 0.0]) && close(&found.t2i.mean, &[(t2i[0] + t2i[1]) / 2.0]));
        assert!(close(&found.i2t.top, &[i2t[0], i2t[1], 0.0]) && close(&found.i2t.mean, &[(i2t[0] + i2t[1]) / 2.0]));
        // The second row no word: it is in the columns' lengths and among the largest values, and nowhere else.
        let found = matching(&side(&regions, &one), &side(&words, &two), &[1], 2).unwrap();
        assert!(close(&found.t2i.top, &[t2i[1], t2i[0]]) && close(&found.t2i.mean, &[t2i[0]]));
        let alone = [0.6 / 0.3664f32.sqrt(), -0.08 / 0.3664f32.sqrt()];
        assert!(close(&found.i2t.top, &alone) && close(&found.i2t.mean, &[(alone[0] + alone[1]) / 2.0]));
        assert!(matching(&side(&regions, &one), &side(&words, &two), &[3], 2).is_err());
    }

    #[test]
    fn company_changes_nothing_and_directions_are_each_other_turned() {
        let fill = |n: usize, shift: usize| {
            let values: Vec<f32> = (0..n * 5).map(|i| ((31 * i + 7 * shift) % 23) as f32 - 11.0).collect();
            Tensor::from_vec(values, (n, 5), &Device::Cpu).unwrap()
        };
        let (regions, words) = (fill(9, 1), fill(14, 2));
        let (each, texts) = (Lengths::new([4, 2, 3]).unwrap(), Lengths::new([1, 11, 2]).unwrap());
        let all = matching(&side(&regions, &each), &side(&words, &texts), &[1, 11, 2], 3).unwrap();
        for i in 0..3 {
            for j in 0..3 {
                let some = |t: &Tensor, lengths: &Lengths, at: usize| {
                    let range = lengths.range(at);
                    (t.narrow(0, range.start, range.len()).unwrap(), Lengths::new([range.len()]).unwrap())
                };
                let ((r, one), (w, two)) = (some(&regions, &each, i), some(&words, &texts, j));
                let alone = matching(&side(&r, &one), &side(&w, &two), &[texts.as_slice()[j]], 3).unwrap();
                let near = |a: f32, b: f32| (a - b).abs() < 1e-6;
                assert!(
                    near(alone.t2i.mean[0], all.t2i.mean[j * 3 + i])
                        && near(alone.i2t.mean[0], all.i2t.mean[i * 3 + j])
                );
                for p in 0..3 {
                    assert!(near(alone.t2i.top[p], all.t2i.top[(j * 3 + i) * 3 + p]));
                    assert!(near(alone.i2t.top[p], all.i2t.top[(i * 3 + j) * 3 + p]));
                }
            }
        }
    }
}
