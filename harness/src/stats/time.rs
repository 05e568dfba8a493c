//! What rows take: samples of the clock, and how much less of it one row takes than another.

use xmbench_datasets::random::Seed;

use super::{Interval, metric::Metric, quantile, sorted};
use crate::record::{Trial, phase};

/// Median milliseconds of one query that is asked alone, a metric of claims.
pub const QUERY: &str = "query ms";
/// Median milliseconds of a training step, a metric of claims.
pub const STEP: &str = "step ms";

/// Resamples behind an interval.
const DRAWS: usize = 1000;

/// The samples of such a metric over trials, ascending; none of any other.
pub fn samples(metric: &Metric, trials: &[&Trial]) -> Vec<f64> {
    match metric.name.as_str() {
        QUERY => queries(trials),
        STEP => steps(trials),
        _ => Vec::new(),
    }
}

/// Milliseconds of one query that is asked alone, ascending.
pub fn queries(trials: &[&Trial]) -> Vec<f64> {
    of_phase(trials, phase::QUERY_SINGLE, |seconds, items| 1e3 * seconds / items.max(1) as f64)
}

/// All samples of a phase, each turned into what is shown, ascending.
pub fn of_phase(trials: &[&Trial], phase: &str, value: impl Fn(f64, usize) -> f64) -> Vec<f64> {
    let timings = trials.iter().flat_map(|trial| &trial.timings).filter(|timing| timing.phase == phase);
    let all = timings.flat_map(|timing| timing.seconds.iter().map(|seconds| value(*seconds, timing.items)));
    sorted(&all.filter(|value| value.is_finite()).collect::<Vec<_>>())
}

/// Milliseconds of a step of every epoch, validation apart, ascending.
pub fn steps(trials: &[&Trial]) -> Vec<f64> {
    let all = trials.iter().flat_map(|trial| {
        let fit = trial.timings.iter().find(|timing| timing.phase == phase::FIT);
        let pairs = fit.map_or(0, |timing| timing.items) as f64;
        trial.history.iter().map(move |epoch| 1e3 * epoch.seconds * epoch.pairs as f64 / pairs)
    });
    sorted(&all.filter(|value| value.is_finite() && *value > 0.0).collect::<Vec<_>>())
}

/// How many percent of its time a row spares beside another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Saving {
    /// Median of the row, milliseconds.
    pub a: f64,
    /// Median of the other.
    pub b: f64,
    /// `100 (1 - a / b)`.
    pub percent: f64,
    /// 95 % interval: both rows' samples drawn again, each with replacement. Rounds are not told apart in it.
    pub interval: Option<Interval>,
}

/// What `a` spares beside `b`, samples in ascending order; `None` without samples of both.
pub fn saving(a: &[f64], b: &[f64]) -> Option<Saving> {
    let percent = |a: f64, b: f64| 100.0 * (1.0 - a / b);
    let (median_a, median_b) = (quantile(a, 0.5)?, quantile(b, 0.5)?);
    let mut stream = Seed(0).stream(&["bootstrap", "time"]);
    let mut draw = |from: &[f64]| {
        let drawn: Vec<f64> = (0..from.len()).map(|_| from[stream.below(from.len())]).collect();
        quantile(&sorted(&drawn), 0.5)
    };
    let replicates: Vec<f64> = (0..DRAWS).filter_map(|_| Some(percent(draw(a)?, draw(b)?))).collect();
    // One sample has no spread to draw from.
    let interval = Interval::of_replicates(&replicates).filter(|_| a.len() > 1 && b.len() > 1);
    Some(Saving { a: median_a, b: median_b, percent: percent(median_a, median_b), interval })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Timing, synthetic};

    #[test]
    fn half_the_time_spares_half() {
        let of = |scale: f64| sorted(&(0..99).map(|i| scale * (100.0 + f64::from(i) / 10.0)).collect::<Vec<_>>());
        let found = saving(&of(0.5), &of(1.0)).unwrap();
        assert!((found.percent - 50.0).abs() < 1e-9 && (found.b - 104.9).abs() < 1e-9, "{found:?}");
        // Medians of 99 samples over a tenth of their size move by a percent or so.
        let interval = found.interval.unwrap();
        assert!(interval.contains(50.0) && interval.low > 47.0 && interval.high < 53.0, "{interval:?}");
        assert_eq!(saving(&[1.0], &[2.0]).unwrap().interval, None);
        assert_eq!(saving(&[], &[2.0]), None);
    }

    #[test]
    fn a_step_is_an_epoch_over_its_steps() {
        let mut trial = synthetic::trial("e", 0, "m", "d", 0);
        trial.timings = vec![
            Timing { phase: phase::FIT.into(), items: 2000, seconds: vec![70.0] },
            Timing { phase: phase::QUERY_SINGLE.into(), items: 1, seconds: vec![0.003, 0.001] },
        ];
        let epoch = |epoch, seconds| xmbench_methods::method::Epoch {
            epoch,
            loss: 1.0,
            learning_rate: 0.1,
            validation: None,
            seconds,
            pairs: 100,
        };
        trial.history = vec![epoch(1, 4.0), epoch(2, 2.0)];
        assert_eq!(samples(&Metric::parse(STEP), &[&trial]), [100.0, 200.0]);
        assert_eq!(samples(&Metric::parse(QUERY), &[&trial]), [1.0, 3.0]);
        assert!(samples(&Metric::parse("rsum"), &[&trial]).is_empty());
    }
}
