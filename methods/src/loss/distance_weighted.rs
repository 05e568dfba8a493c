//! Negatives drawn with a probability against the density of their distance.
//!
//! The distance of two random unit vectors of `n` dimensions has the density
//!
//! ```text
//! q(d) ~ d^(n-2) (1 - d² / 4)^((n-3)/2)                                          (1)
//! w(d) = 1 / q(max(d, nearest))  where d < cutoff,  else 0                       (2)
//! ```
//!
//! Wu, Manmatha, Smola and Krähenbühl, "Sampling Matters in Deep Embedding Learning", ICCV 2017, equation 4. Drawn uniformly,
//! nearly all negatives are `sqrt(2)` apart; drawn by (2), all distances below `cutoff` come alike often. Below `nearest` the
//! weights no longer rise, so that a few very near negatives are not all that is drawn. A negative at `cutoff` or beyond is never
//! drawn, although its hinge may be above zero: where the positive is as far away, the margin is not kept.

use xmbench_datasets::random::Stream;

/// The range of distances that are told apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DistanceWeighted {
    /// Distance below which all negatives weigh alike, above 0.
    pub nearest: f64,
    /// Distance from which on a negative is never drawn, at most 2.
    pub cutoff: f64,
}

impl Default for DistanceWeighted {
    /// The paper's.
    fn default() -> Self {
        Self { nearest: 0.5, cutoff: 1.4 }
    }
}

/// The distance of unit vectors at a cosine.
fn distance(cosine: f64) -> f64 {
    (2.0 - 2.0 * cosine).max(0.0).sqrt()
}

impl DistanceWeighted {
    /// Whether a negative at this cosine can be drawn.
    pub fn reaches(&self, cosine: f64) -> bool {
        // Opposite vectors have no density, and with it no weight.
        distance(cosine) < self.cutoff.min(2.0)
    }

    /// The logarithm of `1 / q` of equation (2) at a cosine of vectors of `width` dimensions, whether or not it is within the cutoff.
    pub fn log_weight(&self, cosine: f64, width: usize) -> f64 {
        let (n, d) = (width as f64, distance(cosine).max(self.nearest));
        -((n - 2.0) * d.ln() + (n - 3.0) / 2.0 * (1.0 - d * d / 4.0).ln())
    }

    /// Equation (2) for the cosines of one query with its negatives, relative to the largest: from 0 to 1, and 0 everywhere where
    /// all are beyond the cutoff.
    pub fn weights(&self, cosines: &[f64], width: usize) -> Vec<f64> {
        let log = |&cosine: &f64| if self.reaches(cosine) { self.log_weight(cosine, width) } else { f64::NEG_INFINITY };
        let logs: Vec<f64> = cosines.iter().map(log).collect();
        let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if most == f64::NEG_INFINITY {
            return vec![0.0; logs.len()];
        }
        logs.iter().map(|log| (log - most).exp()).collect()
    }

    /// Draws one of the negatives at these cosines with a probability proportional to its weight; `None`, and nothing is taken
    /// from the stream, where all are beyond the cutoff.
    pub fn draw(&self, cosines: &[f64], width: usize, stream: &mut Stream) -> Option<usize> {
        let weights = self.weights(cosines, width);
        let last = weights.iter().rposition(|weight| *weight > 0.0)?;
        let mut left = stream.unit() * weights.iter().sum::<f64>();
        let drawn = weights.iter().position(|weight| {
            left -= weight;
            left < 0.0
        });
        // Rounding may leave something after the last weight.
        drawn.or(Some(last))
    }
}

#[cfg(test)]
mod tests {
    use xmbench_datasets::random::Seed;

    use super::*;

    /// The cosine of unit vectors at a distance.
    fn cosine(distance: f64) -> f64 {
        1.0 - distance * distance / 2.0
    }

    #[test]
    fn weights_turn_the_density_around() {
        let paper = DistanceWeighted::default();
        // In 3 dimensions the density is proportional to the distance: 0.5 is twice as likely as 1, and 1.4 is out of reach.
        let weights = paper.weights(&[0.875, 0.5, cosine(1.4 + 1e-9), 0.99], 3);
        assert!((weights[0] / weights[1] - 2.0).abs() < 1e-12 && weights[2] == 0.0, "{weights:?}");
        // Nearer than 0.5 counts as 0.5.
        assert_eq!(weights[3], weights[0]);
        // In 5 dimensions it is d³ (1 - d²/4): 1 to 1.5 is 0.75 to 1.4765625.
        let far = DistanceWeighted { cutoff: 1.7, ..paper };
        let weights = far.weights(&[cosine(1.0), cosine(1.5), cosine(1.8)], 5);
        assert!((weights[1] / weights[0] - 0.75 / 1.476_562_5).abs() < 1e-12 && weights[2] == 0.0, "{weights:?}");
        // Whatever the cutoff, opposite vectors are never drawn.
        let all = DistanceWeighted { cutoff: 3.0, ..paper };
        assert_eq!(all.weights(&[-1.0, 0.0], 512), [0.0, 1.0]);
        assert_eq!(paper.weights(&[-1.0, 0.0], 512), [0.0, 0.0]);
    }

    #[test]
    fn draws_follow_the_weights() {
        let sampling = DistanceWeighted::default();
        let mut stream = Seed(3).stream(&["draw"]);
        let mut counts = [0; 3];
        for _ in 0..30_000 {
            // Distances 0.5, 1 and sqrt 2 (out of reach): 2 to 1 to 0.
            counts[sampling.draw(&[0.875, 0.5, 0.0], 3, &mut stream).unwrap()] += 1;
        }
        assert!((f64::from(counts[0]) / f64::from(counts[1]) - 2.0).abs() < 0.1 && counts[2] == 0, "{counts:?}");
        // Where nothing can be drawn, the stream stays where it was.
        let (mut untouched, mut asked) = (Seed(5).stream(&["draw"]), Seed(5).stream(&["draw"]));
        assert_eq!(sampling.draw(&[0.0, -1.0], 512, &mut asked), None);
        assert_eq!(sampling.draw(&[], 512, &mut asked), None);
        assert_eq!(asked.unit(), untouched.unit());
    }

    #[test]
    fn all_distances_below_the_cutoff_come_alike_often() {
        // Random directions of 8 dimensions, where distances from 0.5 to 1.4 do occur; each third of that range as often.
        let sampling = DistanceWeighted::default();
        let mut stream = Seed(7).stream(&["sphere"]);
        let (mut counts, mut total) = ([0f64; 3], 0f64);
        for _ in 0..2_000 {
            let cosines: Vec<f64> = (0..200)
                .map(|_| {
                    let x: Vec<f64> = (0..8).map(|_| stream.normal()).collect();
                    x[0] / x.iter().map(|x| x * x).sum::<f64>().sqrt()
                })
                .collect();
            let drawn = sampling.draw(&cosines, 8, &mut stream).unwrap();
            let d = (2.0 - 2.0 * cosines[drawn]).sqrt();
            if d >= 0.8 {
                counts[((d - 0.8) / 0.2) as usize] += 1.0;
                total += 1.0;
            }
        }
        assert!(counts.iter().all(|count| (count / total - 1.0 / 3.0).abs() < 0.04), "{counts:?}");
    }
}
