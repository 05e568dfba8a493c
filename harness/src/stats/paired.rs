//! Two rows under one metric, query by query and seed by seed.

use std::collections::BTreeMap;

use super::{
    Interval,
    bootstrap::{Draws, Replicates, Sample, are_splits},
    mean,
    metric::Metric,
};
use crate::record::Trial;

/// Draws by number of images and of seeds, each made once.
pub type Cache = BTreeMap<(usize, usize), Draws>;

/// The difference between two rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Paired {
    /// Mean of the first row over its trials.
    pub a: f64,
    /// Mean of the second.
    pub b: f64,
    /// 95 % interval of `a - b`; none where neither queries nor several seeds tell one.
    pub interval: Option<Interval>,
    /// Degrees of freedom of the spread that the interval rests on.
    pub freedom: f64,
    /// What the interval rests on.
    pub basis: Basis,
}

/// What an interval rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// The paired bootstrap over images, with seeds as a second level.
    Images,
    /// The bootstrap over samples of the clock.
    Clock,
    /// Student's interval of the seeds' differences: the metric is no mean over queries, or queries were not kept.
    Seeds,
    /// That of the differences on splits of one dataset, widened for what they share: see [`Interval::of_splits`].
    Splits,
}

impl Paired {
    /// Sets two rows side by side, trial by trial: `a[i]` and `b[i]` have one seed. `overlap` is that of the splits, where seeds have their
    /// own. `None` where a trial lacks the metric.
    pub fn of(metric: &Metric, [a, b]: [&[&Trial]; 2], overlap: f64, draws: &mut Cache) -> Option<Self> {
        let values = |trials: &[&Trial]| -> Option<Vec<f64>> {
            trials.iter().map(|trial| trial.metrics.get(&metric.name).copied()).collect()
        };
        let (values_a, values_b) = (values(a)?, values(b)?);
        let (mean_a, mean_b) = (mean(&values_a)?, mean(&values_b)?);
        if let Some(drawn) = bootstrap(metric, (a, mean_a), (b, mean_b), draws)
            && let Some(interval) = drawn.interval()
        {
            let (interval, freedom) = (Some(interval), drawn.freedom());
            return Some(Self { a: mean_a, b: mean_b, interval, freedom, basis: Basis::Images });
        }
        let differences: Vec<f64> = values_a.iter().zip(&values_b).map(|(a, b)| a - b).collect();
        let interval = Interval::of_splits(&differences, overlap).filter(|_| a.len() == b.len());
        let freedom = differences.len().saturating_sub(1) as f64;
        let basis = if are_splits(a) { Basis::Splits } else { Basis::Seeds };
        Some(Self { a: mean_a, b: mean_b, interval, freedom, basis })
    }
}

/// Replicates of the difference, where the metric is a mean over queries that both rows were asked.
fn bootstrap(
    metric: &Metric,
    (a, mean_a): (&[&Trial], f64),
    (b, mean_b): (&[&Trial], f64),
    draws: &mut Cache,
) -> Option<Replicates> {
    // Queries that do not give the stored value belong to something else.
    let sample = |trials: &[&Trial], mean: f64| {
        Sample::of(metric, trials).filter(|sample| (sample.value() - mean).abs() <= 1e-6 * mean.abs().max(1.0))
    };
    let (a, b) = (sample(a, mean_a)?, sample(b, mean_b)?);
    if !a.pairs_with(&b) {
        return None;
    }
    let draws = draws.entry(a.shape()).or_insert_with(|| a.draws());
    Some(a.replicates(draws).minus(&b.replicates(draws)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::synthetic;

    #[test]
    fn without_queries_the_seeds_tell_the_interval() {
        // Differences 1, 2 and 3: mean 2, deviation 1, t(2) = 4.303, so 2 +- 4.303 / sqrt 3 = 2 +- 2.484.
        let trials = |values: [f64; 3]| {
            let one = |(seed, value)| {
                let mut trial = synthetic::trial("e", 0, "m", "d", seed);
                trial.metrics.insert("total correlation".into(), value);
                trial
            };
            (0..).zip(values).map(one).collect::<Vec<Trial>>()
        };
        let (a, b) = (trials([5.0, 7.0, 9.0]), trials([4.0, 5.0, 6.0]));
        let all = |trials: &'static [Trial]| trials.iter().collect::<Vec<_>>();
        let (a, b) = (all(a.leak()), all(b.leak()));
        let metric = Metric::parse("total correlation");
        let paired = Paired::of(&metric, [&a, &b], 0.0, &mut Cache::new()).unwrap();
        let interval = paired.interval.unwrap();
        assert_eq!((paired.a, paired.b, paired.basis), (7.0, 5.0, Basis::Seeds));
        assert!((interval.low + 0.484).abs() < 1e-3 && (interval.high - 4.484).abs() < 1e-3, "{interval:?}");
        let single = Paired::of(&metric, [&a[..1], &b[..1]], 0.0, &mut Cache::new()).unwrap();
        assert_eq!(single.interval, None);
        assert!(Paired::of(&Metric::parse("rsum"), [&a, &b], 0.0, &mut Cache::new()).is_none());
    }
}
