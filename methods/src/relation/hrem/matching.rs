//! How well the fragments of images and texts match, equations (5) to (7), for all pairs of a batch at once: one product of all words
//! with all regions, then passes over the block of each pair. No gradient goes through it.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use crate::{
    Error, Result,
    nn::{Lengths, unit},
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

/// All pairs.
pub struct Matching {
    /// Rows texts, columns images.
    pub t2i: Asked,
    /// Rows images, columns texts.
    pub i2t: Asked,
}

/// What a text and an image ask of each other.
struct Pair {
    t2i: (Vec<f32>, f32),
    i2t: (Vec<f32>, f32),
}

/// Equations (5) to (7). Of the rows of text `j`, `real[j]` are words; what stands behind them takes part in the norm of (6) and in the
/// largest values, but not in (7), nor do regions see it. An item with fewer than `top` rows is filled with values of 0, which is what a
/// zero vector has.
///
/// # Errors
/// If the shapes do not fit.
pub fn matching(regions: &Side<'_>, words: &Side<'_>, real: &[usize], top: usize) -> Result<Matching> {
    let (images, texts) = (regions.lengths.len(), words.lengths.len());
    if real.len() != texts || real.iter().zip(words.lengths.as_slice()).any(|(&real, &rows)| real == 0 || real > rows) {
        return Err(Error::Numeric(format!(
            "fragment matching: expected 1 to {:?} words, found {real:?}",
            words.lengths.as_slice()
        )));
    }
    let (w, v) = (unit(&words.fragments.detach())?, unit(&regions.fragments.detach())?);
    let s = w.matmul(&v.t()?)?.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
    let columns = regions.lengths.total();
    let pair = |text: usize, image: usize| {
        let (rows, range) = (words.lengths.range(text), regions.lengths.range(image));
        block(&s[rows.start * columns..rows.end * columns], columns, range, real[text], top)
    };
    let pairs: Vec<Vec<Pair>> =
        (0..texts).into_par_iter().map(|text| (0..images).map(|image| pair(text, image)).collect()).collect();
    let empty = || Asked { top: Vec::with_capacity(images * texts * top), mean: Vec::with_capacity(images * texts) };
    let (mut t2i, mut i2t) = (empty(), empty());
    for text in &pairs {
        for pair in text {
            t2i.top.extend(&pair.t2i.0);
            t2i.mean.push(pair.t2i.1);
        }
    }
    for image in 0..images {
        for text in &pairs {
            i2t.top.extend(&text[image].i2t.0);
            i2t.mean.push(text[image].i2t.1);
        }
    }
    Ok(Matching { t2i, i2t })
}

/// One pair: the rows of a text, of which those in `range` are the image's.
fn block(s: &[f32], columns: usize, range: std::ops::Range<usize>, real: usize, top: usize) -> Pair {
    let rows: Vec<Vec<f32>> = s
        .chunks_exact(columns)
        .map(|row| row[range.clone()].iter().map(|&s| if s > 0.0 { s } else { SLOPE * s }).collect()) // (5)
        .collect();
    let k = range.len();
    let mut squares = vec![0f32; k];
    for row in &rows {
        squares.iter_mut().zip(row).for_each(|(square, &s)| *square += s * s);
    }
    let of_words: Vec<f32> = squares.iter().map(|square| 1.0 / square.sqrt().max(FLOOR)).collect();
    let mut best = vec![f32::NEG_INFINITY; k];
    let mut words = Vec::with_capacity(rows.len().max(top));
    for (at, row) in rows.iter().enumerate() {
        words.push(row.iter().zip(&of_words).map(|(&s, &scale)| s * scale).fold(f32::NEG_INFINITY, f32::max)); // (6), words
        if at < real {
            let scale = 1.0 / row.iter().map(|&s| s * s).sum::<f32>().sqrt().max(FLOOR);
            best.iter_mut().zip(row).for_each(|(best, &s)| *best = best.max(s * scale)); // (6), regions
        }
    }
    let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len() as f32; // (7)
    let means = (mean(&words[..real]), mean(&best));
    let largest = |mut values: Vec<f32>| {
        values.resize(values.len().max(top), 0.0);
        values.sort_unstable_by(|a, b| b.total_cmp(a));
        values.truncate(top);
        values
    };
    Pair { t2i: (largest(words), means.0), i2t: (largest(best), means.1) }
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
