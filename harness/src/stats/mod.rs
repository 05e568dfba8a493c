//! Means, intervals and paired comparisons.
//!
//! Two kinds of uncertainty stand behind a number: other queries could have been asked, and other seeds could have been
//! drawn. [`bootstrap`] resamples both; [`Interval::of_mean`] knows the seeds alone and serves metrics that are not a
//! mean over queries.

pub mod agreement;
pub mod bootstrap;
pub mod budget;
pub mod metric;
pub mod outcome;
pub mod paired;
pub mod time;

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
        let (mean, deviation) = (mean(values)?, deviation(values)?);
        let half = student(values.len() - 1) * deviation / (values.len() as f64).sqrt();
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

/// The 97.5 % point of Student's t.
fn student(degrees: usize) -> f64 {
    const TABLE: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
        2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
    ];
    // Beyond the table, z + (z^3 + z) / 4n is right to three digits.
    TABLE.get(degrees - 1).copied().unwrap_or(1.95996 + 2.37227 / degrees as f64)
}

#[cfg(test)]
mod tests {
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
    fn the_interval_of_three_seeds_is_wide() {
        // Mean 2, deviation 1, t(2) = 4.303: 2 +- 4.303 / sqrt 3.
        let interval = Interval::of_mean(&[1.0, 2.0, 3.0]).unwrap();
        assert!((interval.high - 4.4843).abs() < 1e-3 && (interval.low + 0.4843).abs() < 1e-3);
        // scipy.stats.t.ppf(0.975, [40, 100])
        assert!((student(40) - 2.0211).abs() < 2e-3 && (student(100) - 1.98397).abs() < 1e-3);
    }
}
