use std::collections::BTreeMap;

use super::{Direction, Evaluation, IN_SHORTLIST, Query, Ties};

/// A metric's expected, lowest and highest value over all orders of tied items; "lowest" is the worse end, also of a rank.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Bounds {
    pub expected: f64,
    pub pessimistic: f64,
    pub optimistic: f64,
}

impl Bounds {
    /// A value that ties do not move.
    pub fn sure(value: f64) -> Self {
        Self { expected: value, pessimistic: value, optimistic: value }
    }

    /// The value under each tie rule.
    pub fn each(value: impl Fn(Ties) -> f64) -> Self {
        Self {
            expected: value(Ties::Expected),
            pessimistic: value(Ties::Pessimistic),
            optimistic: value(Ties::Optimistic),
        }
    }

    /// The value under a tie rule.
    pub fn under(self, ties: Ties) -> f64 {
        match ties {
            Ties::Expected => self.expected,
            Ties::Pessimistic => self.pessimistic,
            Ties::Optimistic => self.optimistic,
        }
    }

    /// Adds another one's `share`.
    pub fn add(&mut self, other: Self, share: f64) {
        self.expected += share * other.expected;
        self.pessimistic += share * other.pessimistic;
        self.optimistic += share * other.optimistic;
    }
}

/// Metrics by name on their way into an [`Evaluation`].
#[derive(Debug, Default)]
pub struct Tally {
    metrics: BTreeMap<String, Bounds>,
    curves: BTreeMap<String, Vec<[f64; 2]>>,
    values: BTreeMap<String, Vec<f64>>,
}

impl Tally {
    /// Keeps what each query of a direction contributes to a metric.
    pub fn keep(&mut self, direction: Direction, metric: &str, values: Vec<f64>) {
        self.values.insert(format!("{direction} {metric}"), values);
    }

    /// Adds a share of a metric, of a direction unless it is over both.
    pub fn add(&mut self, direction: Option<Direction>, metric: &str, value: Bounds, share: f64) {
        let name = direction.map_or_else(|| metric.to_string(), |direction| format!("{direction} {metric}"));
        self.metrics.entry(name).or_default().add(value, share);
    }

    /// Adds a share of the percentage of queries with a relevant item among the `shortlist` first, from the number of items above
    /// the best relevant one of each. Whatever stands in a shortlist stands above all that does not, so that ties cannot tell.
    pub fn held(
        &mut self,
        direction: Direction,
        better: impl ExactSizeIterator<Item = usize>,
        shortlist: usize,
        share: f64,
    ) {
        let queries = better.len().max(1);
        let held = better.filter(|&better| better < shortlist).count();
        self.add(Some(direction), IN_SHORTLIST, Bounds::sure(100.0 * held as f64 / queries as f64), share);
    }

    /// Adds a share of a curve's ordinates; curves of one name have the same abscissae, or the shorter one's.
    pub fn curve(&mut self, direction: Direction, name: &str, points: Vec<[f64; 2]>, share: f64) {
        let name = format!("{direction} {name}");
        match self.curves.get_mut(&name) {
            None => {
                let scaled = points.into_iter().map(|[x, y]| [x, share * y]).collect();
                self.curves.insert(name, scaled);
            }
            Some(known) => {
                known.truncate(points.len());
                known.iter_mut().zip(points).for_each(|(known, [_, y])| known[1] += share * y);
            }
        }
    }

    /// The evaluation under a tie rule.
    pub fn finish(self, ties: Ties, queries: Vec<Query>) -> Evaluation {
        let metrics = self.metrics.iter().map(|(name, bounds)| (name.clone(), bounds.under(ties))).collect();
        let moved = self.metrics.into_iter().filter(|(_, bounds)| bounds.pessimistic != bounds.optimistic);
        let envelope = moved.map(|(name, bounds)| (name, [bounds.pessimistic, bounds.optimistic])).collect();
        Evaluation { metrics, envelope, curves: self.curves, queries, values: self.values, found: Vec::new() }
    }
}

/// Numbers of items at which curves are drawn: 1 to 9 times each power of ten, up to `last`.
pub fn depths(last: usize) -> Vec<usize> {
    (0..).flat_map(|power| (1..10).map(move |digit| digit * 10usize.pow(power))).take_while(|&n| n <= last).collect()
}
