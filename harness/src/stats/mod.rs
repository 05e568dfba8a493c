//! Means, intervals and paired comparisons.
//!
//! Two kinds of uncertainty stand behind a number: other queries could have been asked, and other seeds could have been
//! drawn. [`bootstrap`] resamples both; [`Interval::of_mean`] knows the seeds alone and serves metrics that are not a
//! mean over queries. [`holm`] keeps many claims from being decided by chance.

pub mod agreement;
pub mod bootstrap;
pub mod budget;
pub mod holm;
mod median;
pub mod metric;
pub mod outcome;
pub mod paired;
pub mod time;

use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

/// A 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// Student's interval of the mean of a few independent values; `None` below two values.
    pub fn of_mean(values: &[f64]) -> Option<Self> {
        Self::of_splits(values, 0.0)
    }

    /// That of a few values over random splits of the same items: `overlap` is the number of tested items by that of the others in a
    /// split, and the variance of the mean is taken for `s^2 (1 / n + overlap)` (Nadeau and Bengio, "Inference for the Generalization
    /// Error", Machine Learning 52, 2003, their corrected resampled t), as what one split is tested on others are trained on.
    pub fn of_splits(values: &[f64], overlap: f64) -> Option<Self> {
        let (mean, deviation) = (mean(values)?, deviation(values)?);
        let half = student((values.len() - 1) as f64) * deviation * (1.0 / values.len() as f64 + overlap).sqrt();
        Some(Self { low: mean - half, high: mean + half })
    }

    /// The middle 95 % of replicates; `None` without any. A replicate that drew no query at all is NaN and is left out.
    pub fn of_replicates(replicates: &[f64]) -> Option<Self> {
        let finite: Vec<f64> = replicates.iter().copied().filter(|value| value.is_finite()).collect();
        let sorted = sorted(&finite);
        Some(Self { low: quantile(&sorted, 0.025)?, high: quantile(&sorted, 0.975)? })
    }

    /// Whether `value` lies inside, ends included.
    pub fn contains(&self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }
}

/// The mean; `None` of nothing.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The standard deviation with `n - 1` below the line; `None` below two values.
pub fn deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values)?;
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt())
}

/// The values in ascending order.
pub fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The `q` quantile of ascending values, linear between neighbours (Hyndman and Fan's type 7); `None` of nothing.
pub fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let at = q * last as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    Some(below + (above - below) * at.fract())
}

/// Degrees of freedom from which Student's t is taken for the normal distribution, which it is to four digits. The library searches for a
/// quantile of an infinite number without end.
const MANY: f64 = 1e4;

/// The 97.5 % point of the normal distribution.
const NORMAL: f64 = 1.959_963_984_540_054;

/// Student's t of so many degrees of freedom, which need not be whole; `None` where it is as good as normal.
fn distribution(freedom: f64) -> Option<StudentsT> {
    let t = || StudentsT::new(0.0, 1.0, freedom.max(1.0)).expect("a location, a scale and degrees of freedom above 0");
    (freedom < MANY).then(t)
}

/// The 97.5 % point of Student's t.
pub fn student(freedom: f64) -> f64 {
    distribution(freedom).map_or(NORMAL, |t| t.inverse_cdf(0.975))
}

/// The probability that Student's t lies as far from zero as `t`, on either side.
pub fn two_sided(t: f64, freedom: f64) -> f64 {
    let below = -t.abs();
    2.0 * distribution(freedom).map_or_else(|| Normal::standard().cdf(below), |t| t.cdf(below))
}

#[cfg(test)]
mod tests {
    use xmbench_datasets::random::Seed;

    use super::*;

    #[test]
    fn mean_and_deviation_of_a_textbook_sample() {
        let values = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
        assert_eq!(mean(&values), Some(5.0));
        assert!((deviation(&values).unwrap() - (32.0f64 / 7.0).sqrt()).abs() < 1e-12);
        assert_eq!(mean(&[]), None);
        assert_eq!(deviation(&[1.0]), None);
    }

    #[test]
    fn quantiles_are_those_of_numpy() {
        // numpy.quantile([1, 2, 3, 4], [0.025, 0.5, 0.95])
        let values = [1.0, 2.0, 3.0, 4.0];
        for (q, expected) in [(0.025, 1.075), (0.5, 2.5), (0.95, 3.85), (0.0, 1.0), (1.0, 4.0)] {
            assert!((quantile(&values, q).unwrap() - expected).abs() < 1e-12);
        }
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn splits_that_share_items_tell_less_than_independent_ones() {
        // Deviation 1, t(2) = 4.303, a quarter as many tested as trained on: 4.303 sqrt(1 / 3 + 1 / 4) = 3.286.
        let interval = Interval::of_splits(&[1.0, 2.0, 3.0], 0.25).unwrap();
        assert!((interval.high - 5.2861).abs() < 1e-3 && (interval.low + 1.2861).abs() < 1e-3, "{interval:?}");
        assert_eq!(Interval::of_splits(&[1.0], 0.25), None);
    }

    /// How often the interval holds the truth, over collections of 100 items of which each of five random splits tests 22.
    #[test]
    fn intervals_over_splits_hold_the_truth_as_often_as_they_say() {
        let held = |overlap: f64| {
            let holds = |collection: u64| {
                let mut stream = Seed(collection).stream(&["collection"]);
                let items: Vec<f64> = (0..100).map(|_| stream.normal()).collect();
                let mut split = |_| {
                    let mut order: Vec<usize> = (0..100).collect();
                    stream.shuffle(&mut order);
                    order[..22].iter().map(|&at| items[at]).sum::<f64>() / 22.0
                };
                let values: Vec<f64> = (0..5).map(&mut split).collect();
                Interval::of_splits(&values, overlap).unwrap().contains(0.0)
            };
            (0..2000).filter(|&collection| holds(collection)).count() as f64 / 2000.0
        };
        let [corrected, independent] = [22.0 / 78.0, 0.0].map(held);
        assert!((0.93..=0.97).contains(&corrected), "{corrected}");
        assert!(independent < 0.90, "as if splits shared nothing: {independent}");
    }

    #[test]
    fn the_interval_of_three_seeds_is_wide() {
        // Mean 2, deviation 1, t(2) = 4.303: 2 +- 4.303 / sqrt 3.
        let interval = Interval::of_mean(&[1.0, 2.0, 3.0]).unwrap();
        assert!((interval.high - 4.4843).abs() < 1e-3 && (interval.low + 0.4843).abs() < 1e-3);
        // scipy.stats.t.ppf(0.975, [2, 40, 100, 2.5, 5000, inf]), 2 * scipy.stats.t.cdf(-2, 5)
        for (freedom, wanted) in
            [(2.0, 4.302_653), (40.0, 2.021_075), (100.0, 1.983_972), (2.5, 3.574_655), (f64::INFINITY, 1.959_964)]
        {
            assert!((student(freedom) - wanted).abs() < 1e-4, "{freedom}: {}", student(freedom));
        }
        assert!(
            (two_sided(2.0, 5.0) - 0.101_939_5).abs() < 1e-6
                && (two_sided(-1.959_964, f64::INFINITY) - 0.05).abs() < 1e-6
        );
    }
}
