//! What one query contributes to a metric, from its stored outcome.

use super::metric::{Kind, Metric};
use crate::{
    protocol::{Direction, Protocol, Query, Task, Ties},
    record::Trial,
};

/// The means over queries that add up to a metric; nothing for a metric that is no such sum.
pub(super) fn terms(metric: &Metric, protocol: &Protocol) -> Vec<Term> {
    let term = |direction, kind, share| {
        // What a query contributes was kept under the metric's name.
        let kept = (kind == Kind::Fraction).then(|| format!("{direction} {}", metric.short()));
        Term { direction, kind, kept, share, ties: protocol.ties }
    };
    let both = [Direction::I2t, Direction::T2i];
    match (metric.kind, metric.direction, &protocol.task) {
        (Kind::Recall(_), Some(direction), _) => vec![term(direction, metric.kind, 100.0)],
        (Kind::MeanAveragePrecision | Kind::Fraction, Some(direction), Task::Category { .. }) => {
            vec![term(direction, metric.kind, 1.0)]
        }
        (Kind::MeanAveragePrecision | Kind::Fraction, None, Task::Category { .. }) => {
            both.map(|direction| term(direction, metric.kind, 0.5)).into()
        }
        (Kind::Rank, Some(direction), Task::Pairs { .. }) if metric.short() == "MeanR" => {
            vec![term(direction, metric.kind, 1.0)]
        }
        (Kind::RecallSum, _, Task::Pairs { cutoffs, .. }) => both
            .iter()
            .flat_map(|direction| cutoffs.iter().map(|k| term(*direction, Kind::Recall(*k), 100.0)))
            .collect(),
        _ => Vec::new(),
    }
}

/// The direction whose median rank the metric is.
pub(super) fn median(metric: &Metric) -> Option<Direction> {
    metric.direction.filter(|_| metric.short() == "MedR")
}

/// One mean over the queries of one direction.
pub(super) struct Term {
    direction: Direction,
    kind: Kind,
    kept: Option<String>,
    share: f64,
    ties: Ties,
}

impl Term {
    /// The image and the value of every query of a trial that counts here; `None` where a query's value was not kept.
    pub(super) fn values(&self, trial: &Trial) -> Option<Vec<(u32, f64)>> {
        let Some(kept) = &self.kept else {
            return Some(trial.queries.iter().filter_map(|query| Some((query.cluster, self.value(query)?))).collect());
        };
        let asked = trial.queries.iter().filter(|query| query.direction == self.direction);
        let values = trial.values.get(kept).filter(|values| values.len() == asked.clone().count())?;
        let finite = values.iter().all(|value| value.is_finite());
        finite.then(|| asked.zip(values).map(|(query, value)| (query.cluster, self.share * value)).collect())
    }

    /// What the query adds; `None` if it does not count here.
    fn value(&self, query: &Query) -> Option<f64> {
        let value = match self.kind {
            _ if query.direction != self.direction => return None,
            Kind::Recall(k) => query.hit(k, self.ties),
            Kind::Rank => query.standing().rank(self.ties) + 1.0,
            _ => query.average_precision,
        };
        Some(self.share * value).filter(|value| value.is_finite())
    }
}
