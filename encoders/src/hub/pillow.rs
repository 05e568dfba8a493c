//! Resampling of 8-bit pictures as Pillow does it, to the same bytes.
//!
//! Output `i` of `n` stands at `c = (i + 1/2) s` of the input with `s = N / n`; an input pixel `j` weighs `f((j + 1/2 - c) / max(s, 1))`, divided by the
//! sum of the weights, for `j` from `floor(c - r + 1/2)` to below `floor(c + r + 1/2)`, `r = R max(s, 1)`, with the filter `f` of reach `R`. Weights are
//! rounded to multiples of `2^-22`; rows are filtered first and rounded to bytes, then columns (Pillow 12.0.0, `src/libImaging/Resample.c`; 13.0.0 takes columns
//! first where it finds that cheaper, so that some bytes differ). Nearest
//! neighbours are pixels `floor((i + 1/2) s)` (`Geometry.c`).
//!
//! Departure: only what is inside a window of the output is computed, and a row of the input is gone when the next one comes, so that a picture of one
//! row and many columns takes no more memory than another. All sums are of whole numbers: their order changes nothing.

use std::{f64::consts::PI, ops::Range};

use xmbench_datasets::Picture;

/// A filter, numbered as in Pillow and in `preprocessor_config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// The nearest pixel: 0.
    Nearest,
    /// Three lobes of a sinc: 1.
    Lanczos,
    /// A triangle: 2.
    Bilinear,
    /// Cubic with a = -1/2: 3.
    Bicubic,
    /// The mean of what a pixel covers: 4.
    Box,
    /// A Hamming-windowed sinc of one lobe: 5.
    Hamming,
}

impl Filter {
    /// Every filter at its number.
    pub const ALL: [Self; 6] = [Self::Nearest, Self::Lanczos, Self::Bilinear, Self::Bicubic, Self::Box, Self::Hamming];

    /// Its name, as Pillow has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::Lanczos => "lanczos",
            Self::Bilinear => "bilinear",
            Self::Bicubic => "bicubic",
            Self::Box => "box",
            Self::Hamming => "hamming",
        }
    }

    fn reach(self) -> f64 {
        match self {
            Self::Nearest | Self::Box => 0.5,
            Self::Bilinear | Self::Hamming => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) };
        let a = x.abs();
        match self {
            Self::Nearest | Self::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            Self::Bilinear => (1.0 - a).max(0.0),
            Self::Hamming if a == 0.0 => 1.0,
            Self::Hamming if a >= 1.0 => 0.0,
            Self::Hamming => sinc(a) * (0.54 + 0.46 * (a * PI).cos()),
            Self::Bicubic if a < 1.0 => (1.5 * a - 2.5) * a * a + 1.0,
            Self::Bicubic if a < 2.0 => (((a - 5.0) * a + 8.0) * a - 4.0) * -0.5,
            Self::Bicubic => 0.0,
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Lanczos => 0.0,
        }
    }
}

/// Bits behind the point of a weight.
const BITS: u32 = 22;

/// Half a unit of what is rounded.
const HALF: i64 = 1 << (BITS - 1);

/// The inputs of an output and their weights.
struct Taps {
    first: usize,
    weights: Vec<i64>,
}

/// For the outputs of a window of `n`, the taps into an axis of `length` pixels.
fn taps(filter: Filter, length: usize, n: usize, window: Range<usize>) -> Vec<Taps> {
    let scale = length as f64 / n as f64;
    if filter == Filter::Nearest {
        let at = |i: usize| (((i as f64 + 0.5) * scale) as usize).min(length - 1);
        return window.map(|i| Taps { first: at(i), weights: vec![1 << BITS] }).collect();
    }
    let stretch = scale.max(1.0);
    let reach = filter.reach() * stretch;
    window
        .map(|i| {
            let centre = (i as f64 + 0.5) * scale;
            // A cast cuts towards zero, and what is below zero becomes zero.
            let first = (centre - reach + 0.5) as usize;
            let end = ((centre + reach + 0.5) as usize).min(length);
            let weights: Vec<f64> =
                (first..end).map(|j| filter.weight((j as f64 - centre + 0.5) * (1.0 / stretch))).collect();
            let sum: f64 = weights.iter().sum();
            let rounded = |weight: &f64| {
                let weight = if sum == 0.0 { *weight } else { weight / sum };
                let scaled = weight * f64::from(1u32 << BITS);
                (if scaled < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i64
            };
            Taps { first, weights: weights.iter().map(rounded).collect() }
        })
        .collect()
}

fn byte(sum: i64) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

/// The window `columns` x `rows` of a picture resized to `width` x `height`, `[rows, columns, 3]`.
pub fn resize(
    picture: &Picture,
    filter: Filter,
    [width, height]: [usize; 2],
    columns: Range<usize>,
    rows: Range<usize>,
) -> Vec<u8> {
    let across = taps(filter, picture.width, width, columns);
    let down = taps(filter, picture.height, height, rows);
    let line = across.len() * 3;
    let mut sums = vec![HALF; down.len() * line];
    let mut narrow = vec![0u8; line];
    let (mut open, mut next) = (0, 0);
    let begin = down.iter().map(|taps| taps.first).min().unwrap_or(0);
    let end = down.iter().map(|taps| taps.first + taps.weights.len()).max().unwrap_or(0);
    for y in begin..end {
        // Outputs begin in the order of their numbers: those behind `next` begin later, those before `open` have ended.
        while next < down.len() && down[next].first <= y {
            next += 1;
        }
        while open < next && down[open].first + down[open].weights.len() <= y {
            open += 1;
        }
        if open == next {
            continue;
        }
        let from = &picture.rgb[y * picture.width * 3..][..picture.width * 3];
        for (taps, out) in across.iter().zip(narrow.chunks_exact_mut(3)) {
            let mut sum = [HALF; 3];
            for (weight, pixel) in taps.weights.iter().zip(from[taps.first * 3..].chunks_exact(3)) {
                (0..3).for_each(|channel| sum[channel] += weight * i64::from(pixel[channel]));
            }
            (0..3).for_each(|channel| out[channel] = byte(sum[channel]));
        }
        for (taps, sums) in down.iter().zip(sums.chunks_exact_mut(line)).take(next).skip(open) {
            let Some(&weight) = taps.weights.get(y - taps.first) else { continue };
            sums.iter_mut().zip(&narrow).for_each(|(sum, &value)| *sum += weight * i64::from(value));
        }
    }
    sums.into_iter().map(byte).collect()
}
