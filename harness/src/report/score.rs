//! The score of every row under one metric: mean, spread, interval, and whether it can be told from the best.

use std::collections::BTreeMap;

use super::table::Raw;
use crate::record::{Control, section::Section};
use crate::stats::{
    self, Interval,
    bootstrap::{Draws, Replicates, Sample},
    metric::Metric,
};

/// A row's score.
#[derive(Debug, Clone)]
pub struct Score {
    /// One value a seed.
    pub values: Vec<f64>,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation.
    pub deviation: Option<f64>,
    /// 95 % interval of the mean: over queries and seeds where queries were kept, over splits where each seed has one, else over seeds.
    pub interval: Option<Interval>,
    /// Where it stands among the rows that it competes with.
    pub standing: Standing,
    /// Pessimistic and optimistic value where ties move them apart by more than half a point.
    pub ties: Option<[f64; 2]>,
    sample: Option<(Sample, Replicates)>,
    overlap: f64,
}

impl Score {
    /// The numbers behind a cell.
    pub fn raw(&self) -> Raw {
        Raw {
            mean: Some(self.mean),
            deviation: self.deviation,
            count: Some(self.values.len()),
            interval: self.interval,
        }
    }
}

/// Where a score stands among those that it competes with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Standing {
    /// Some row is better, or there is no contest.
    #[default]
    None,
    /// It cannot be told from the best.
    Alike,
    /// The best mean, or equal to it.
    Best,
}

/// Scores of one section, each made once.
#[derive(Debug)]
pub struct Scores<'a> {
    section: &'a Section<'a>,
    draws: BTreeMap<(usize, usize), Draws>,
    done: BTreeMap<String, Vec<Option<Score>>>,
    /// Metrics whose stored queries do not give the stored value, with the first row where that is so.
    pub inconsistent: BTreeMap<String, String>,
}

impl<'a> Scores<'a> {
    /// No scores yet.
    pub fn new(section: &'a Section<'a>) -> Self {
        Self { section, draws: BTreeMap::new(), done: BTreeMap::new(), inconsistent: BTreeMap::new() }
    }

    /// One score a row; `None` where the row has no value.
    pub fn of(&mut self, metric: &Metric) -> &[Option<Score>] {
        if !self.done.contains_key(&metric.name) {
            let mut scores: Vec<_> = (0..self.section.rows.len()).map(|row| self.score(row, metric)).collect();
            self.mark_best(&mut scores, metric);
            self.done.insert(metric.name.clone(), scores);
        }
        &self.done[&metric.name]
    }

    fn score(&mut self, row: usize, metric: &Metric) -> Option<Score> {
        let row = &self.section.rows[row];
        // One seed without the value, and the mean would be over other seeds than its neighbours'.
        let values: Option<Vec<f64>> =
            row.trials.iter().map(|trial| trial.metrics.get(&metric.name).copied()).collect();
        let values = values.filter(|values| values.iter().all(|value| value.is_finite()))?;
        let mean = stats::mean(&values)?;
        let sample = Sample::of(metric, &row.trials).filter(|sample| {
            let agrees = (sample.value() - mean).abs() <= 1e-6 * mean.abs().max(1.0);
            if !agrees {
                self.inconsistent.entry(metric.name.clone()).or_insert_with(|| row.name.clone());
            }
            agrees
        });
        let sample = sample.map(|sample| {
            let draws = self.draws.entry(sample.shape()).or_insert_with(|| sample.draws());
            let replicates = sample.replicates(draws);
            (sample, replicates)
        });
        let interval = match &sample {
            Some((_, replicates)) => replicates.interval(),
            None => Interval::of_splits(&values, self.section.overlap()),
        };
        let end = |i: usize| {
            let ends: Option<Vec<f64>> =
                row.trials.iter().map(|trial| trial.envelope.get(&metric.name).map(|ends| ends[i])).collect();
            ends.and_then(|ends| stats::mean(&ends))
        };
        let ties = end(0).zip(end(1)).filter(|(low, high)| (high - low).abs() > metric.half_a_point());
        let deviation = stats::deviation(&values);
        Some(Score {
            values,
            mean,
            deviation,
            interval,
            standing: Standing::None,
            ties: ties.map(|(a, b)| [a, b]),
            sample,
            overlap: self.section.overlap(),
        })
    }

    /// Codes of one length compete with each other; how much a shortlist holds, or where a threshold lies, is no merit. Controls do not
    /// compete, and a row that was selected on the test split does so among its like alone.
    fn mark_best(&self, scores: &mut [Option<Score>], metric: &Metric) {
        if !metric.is_contested() {
            return;
        }
        let rows = &self.section.rows;
        let mut leagues: BTreeMap<Option<u64>, Vec<usize>> = BTreeMap::new();
        for (at, row) in rows.iter().enumerate() {
            if row.control == Control::None && scores[at].is_some() {
                leagues.entry(row.length()).or_default().push(at);
            }
        }
        let sign = if metric.less_is_better() { -1.0 } else { 1.0 };
        for mut league in leagues.into_values() {
            if league.iter().any(|row| !rows[*row].dagger) {
                league.retain(|row| !rows[*row].dagger);
            }
            let mean = |row: &usize| scores[*row].as_ref().map_or(f64::NAN, |score| sign * score.mean);
            let best = league.iter().copied().max_by(|a, b| mean(a).total_cmp(&mean(b)));
            let Some(top) = best.and_then(|best| scores[best].clone()).filter(|_| league.len() > 1) else { continue };
            for row in league {
                if let Some(score) = &mut scores[row] {
                    score.standing = if score.mean == top.mean {
                        Standing::Best
                    } else if indistinguishable(&top, score) {
                        Standing::Alike
                    } else {
                        Standing::None
                    };
                }
            }
        }
    }
}

/// Whether the 95 % interval of the paired difference holds zero.
pub fn indistinguishable(a: &Score, b: &Score) -> bool {
    if let (Some((one, drawn)), Some((other, also))) = (&a.sample, &b.sample)
        && one.pairs_with(other)
    {
        let interval = drawn.minus(also).interval();
        return interval.is_some_and(|interval| interval.contains(0.0));
    }
    let differences: Vec<f64> = a.values.iter().zip(&b.values).map(|(a, b)| a - b).collect();
    match Interval::of_splits(&differences, a.overlap).filter(|_| a.values.len() == b.values.len()) {
        Some(interval) => interval.contains(0.0),
        None => a.mean == b.mean,
    }
}
