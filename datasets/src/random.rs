//! The one source of random numbers: ChaCha8 streams keyed by a root seed and the labels of an axis.
//!
//! Two streams with different labels are independent; the same seed and labels give the same bits on every machine
//! and for any number of threads, because a stream is never shared between tasks: each derives its own by label.

use rand::{RngCore, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use sha2::{Digest, Sha256};

/// A root seed from which streams are derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Seed(pub u64);

impl Seed {
    /// The stream of this seed with the given labels, such as `["vse", "init", "fc.weight"]`.
    pub fn stream<S: AsRef<str>>(self, labels: &[S]) -> Stream {
        let mut hasher = Sha256::new();
        hasher.update(self.0.to_le_bytes());
        for label in labels {
            let label = label.as_ref().as_bytes();
            hasher.update((label.len() as u64).to_le_bytes());
            hasher.update(label);
        }
        Stream { rng: ChaCha8Rng::from_seed(hasher.finalize().into()) }
    }
}

/// A deterministic stream of random numbers.
#[derive(Debug, Clone)]
pub struct Stream {
    rng: ChaCha8Rng,
}

impl Stream {
    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// Uniform in `[0, 1)` with 53 random bits.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in `[low, high)`.
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Standard normal.
    pub fn normal(&mut self) -> f64 {
        StandardNormal.sample(&mut self.rng)
    }

    /// Uniform integer in `0..n`.
    ///
    /// # Panics
    /// If `n` is zero.
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0, "a stream cannot choose from nothing");
        // Widening multiplication: bias below 2^-64 * n.
        ((self.bits() as u128 * n as u128) >> 64) as usize
    }

    /// Shuffles in place.
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        values.shuffle(&mut self.rng);
    }

    /// A random permutation of `0..n`.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        self.shuffle(&mut order);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_separate_and_repeat() {
        let draw = |labels: &[&str]| Seed(7).stream(labels).bits();
        assert_eq!(draw(&["a", "b"]), draw(&["a", "b"]));
        assert_ne!(draw(&["a", "b"]), draw(&["ab"]));
        assert_ne!(draw(&["a", "b"]), draw(&["b", "a"]));
        assert_ne!(Seed(7).stream(&["a"]).bits(), Seed(8).stream(&["a"]).bits());
    }

    #[test]
    fn moments_are_those_of_the_distributions() {
        let mut stream = Seed(1).stream(&["moments"]);
        let n = 100_000;
        let uniform: f64 = (0..n).map(|_| stream.unit()).sum::<f64>() / n as f64;
        let normals: Vec<f64> = (0..n).map(|_| stream.normal()).collect();
        let mean = normals.iter().sum::<f64>() / n as f64;
        let variance = normals.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
        assert!((uniform - 0.5).abs() < 0.005);
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02);
    }
}
