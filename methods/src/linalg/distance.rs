//! Distances of dense codes as scores of pairs: the negative distance, so that closer is better.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use xmbench_datasets::Matrix;

use crate::{Codes, Error, PairScorer, Result};

/// What [`Distance::KullbackLeibler`] takes for a probability that is smaller.
const LEAST: f32 = 1e-10;

/// A distance between the code `u` of an image and the code `v` of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Distance {
    /// `sum |u - v|`.
    L1,
    /// `sqrt(sum (u - v)²)`.
    L2,
    /// `sum u log(u / v)` in nats, for codes that are distributions; probabilities below 1e-10 count as 1e-10.
    KullbackLeibler,
}

impl PairScorer for Distance {
    fn score(
        &self,
        images: &Codes,
        rows: Range<usize>,
        texts: &Codes,
        columns: Range<usize>,
        out: &mut [f32],
    ) -> Result<()> {
        let (Codes::Dense(images), Codes::Dense(texts)) = (images, texts) else {
            return Err(Error::Numeric("a distance compares dense codes; encode both sides with this matcher".into()));
        };
        if images.cols != texts.cols {
            return Err(Error::Numeric(format!(
                "distance: expected image and text codes of one width, found {} and {}",
                images.cols, texts.cols
            )));
        }
        let width = columns.len();
        if out.len() != rows.len() * width {
            return Err(Error::Numeric(format!(
                "expected room for {} times {width} scores, found {}",
                rows.len(),
                out.len()
            )));
        }
        if out.is_empty() {
            return Ok(());
        }
        let logs = match self {
            Self::KullbackLeibler => logarithms(texts, columns.clone()),
            _ => Vec::new(),
        };
        for (i, out) in rows.zip(out.chunks_exact_mut(width)) {
            let u = images.row(i);
            match self {
                Self::L1 => each(out, texts, columns.clone(), |v| u.iter().zip(v).map(|(u, v)| (u - v).abs()).sum()),
                Self::L2 => each(out, texts, columns.clone(), |v| {
                    u.iter().zip(v).map(|(u, v)| (u - v) * (u - v)).sum::<f32>().sqrt()
                }),
                Self::KullbackLeibler => {
                    let own: Vec<f32> = u.iter().map(|u| u.max(LEAST).ln()).collect();
                    for (logs, out) in logs.chunks_exact(u.len()).zip(out) {
                        *out = -u.iter().zip(&own).zip(logs).map(|((u, own), log)| u * (own - log)).sum::<f32>();
                    }
                }
            }
        }
        Ok(())
    }
}

fn each(out: &mut [f32], texts: &Matrix, columns: Range<usize>, distance: impl Fn(&[f32]) -> f32) {
    out.iter_mut().zip(columns).for_each(|(out, j)| *out = -distance(texts.row(j)));
}

/// Logarithms of the codes of a shard, so that each is taken once and not once a pair.
fn logarithms(texts: &Matrix, columns: Range<usize>) -> Vec<f32> {
    columns.flat_map(|j| texts.row(j)).map(|v| v.max(LEAST).ln()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(rows: &[[f32; 2]]) -> Codes {
        Codes::Dense(Matrix { rows: rows.len(), cols: 2, data: rows.concat() })
    }

    #[test]
    fn scores_are_negative_distances_of_the_shard() {
        let images = codes(&[[9.0, 9.0], [0.5, 0.5], [1.0, 0.0]]);
        let texts = codes(&[[0.25, 0.75], [0.0, 1.0]]);
        let scores = |distance: Distance| {
            let mut out = [0.0; 4];
            distance.score(&images, 1..3, &texts, 0..2, &mut out).unwrap();
            out
        };
        let ln = f32::ln;
        let expected = [
            (Distance::L1, [-0.5, -1.0, -1.5, -2.0]),
            (Distance::L2, [-0.125f32.sqrt(), -0.5f32.sqrt(), -1.125f32.sqrt(), -2f32.sqrt()]),
            (
                Distance::KullbackLeibler,
                [-0.5 * (ln(2.0) + ln(2.0 / 3.0)), -0.5 * (ln(0.5 / 1e-10) + ln(0.5)), -ln(4.0), -ln(1e10)],
            ),
        ];
        for (distance, expected) in expected {
            let found = scores(distance);
            assert!(
                found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5),
                "{distance:?}: {found:?}, {expected:?}"
            );
        }
    }

    #[test]
    fn codes_that_cannot_be_compared_are_errors() {
        let (images, narrow) = (codes(&[[0.0, 0.0]]), Codes::Dense(Matrix::zeros(1, 1)));
        let error = |texts: &Codes, room: usize| {
            Distance::L1.score(&images, 0..1, texts, 0..1, &mut vec![0.0; room]).unwrap_err().to_string()
        };
        assert!(error(&narrow, 1).contains("found 2 and 1"));
        assert!(error(&images, 3).contains("1 times 1 scores, found 3"));
    }
}
