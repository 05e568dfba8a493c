//! What one query contributes to a metric, from its stored outcome.

use super::metric::{Kind, Metric};
use crate::protocol::{Protocol, Task, Ties};
use crate::record::Query;

/// The share of orders in which an own item is among the first `k`, in `[0, 1]`.
///
/// With `t` tied items, `m` of them own, and `p = k - better` places left for them, the chance that no own item takes
/// one of the places is `C(t-p, m) / C(t, m)`, because any `m` of the `t` places are equally likely to hold them.
pub fn hit(query: &Query, k: usize, ties: Ties) -> f64 {
    let (better, tied, own) = (query.better as usize, query.tied as usize, query.own as usize);
    let others = tied.saturating_sub(own);
    let sure = |holds: bool| if holds { 1.0 } else { 0.0 };
    match ties {
        _ if own == 0 => 0.0,
        Ties::Optimistic => sure(better < k),
        Ties::Pessimistic => sure(better + others < k),
        Ties::Expected => {
            let places = k.saturating_sub(better);
            if places > others {
                return 1.0;
            }
            let miss: f64 = (0..own).map(|i| (tied - places - i) as f64 / (tied - i) as f64).product();
            1.0 - miss
        }
    }
}

/// The mean over queries that a metric is made of: a list of (belongs, value) functions whose means add up.
pub(super) fn terms(metric: &Metric, protocol: &Protocol) -> Vec<Term> {
    let ties = protocol.ties;
    match (metric.kind, &protocol.task) {
        (Kind::Recall(k), _) if metric.direction.is_some() => vec![Term { metric: metric.clone(), k, ties }],
        (Kind::MeanAveragePrecision, Task::Category { .. }) if metric.direction.is_some() => {
            vec![Term { metric: metric.clone(), k: 0, ties }]
        }
        (Kind::RecallSum, Task::Pairs { cutoffs, .. }) => ["i2t", "t2i"]
            .iter()
            .flat_map(|direction| cutoffs.iter().map(move |k| (direction, *k)))
            .map(|(direction, k)| Term { metric: Metric::parse(&format!("{direction} R@{k}")), k, ties })
            .collect(),
        _ => Vec::new(),
    }
}

/// One mean over the queries of one direction.
pub(super) struct Term {
    metric: Metric,
    k: usize,
    ties: Ties,
}

impl Term {
    /// What the query adds; `None` if it does not count here.
    pub(super) fn value(&self, query: &Query) -> Option<f64> {
        if self.metric.direction != Some(query.direction) {
            return None;
        }
        match self.metric.kind {
            Kind::Recall(_) => Some(100.0 * hit(query, self.k, self.ties)),
            _ => Some(query.average_precision).filter(|value| value.is_finite()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Direction;

    fn query(better: u32, tied: u32, own: u32) -> Query {
        Query { direction: Direction::I2t, query: 0, cluster: 0, better, tied, own, average_precision: f64::NAN }
    }

    /// Every placement of `own` items among `tied` places, counted one by one.
    fn brute_force(better: usize, tied: usize, own: usize, k: usize) -> f64 {
        let (mut hits, mut all) = (0.0, 0.0);
        for mask in 0u32..1 << tied {
            if mask.count_ones() as usize == own {
                all += 1.0;
                if better + (mask.trailing_zeros() as usize) < k {
                    hits += 1.0;
                }
            }
        }
        hits / all
    }

    #[test]
    fn expected_hits_are_those_of_all_orders() {
        for better in 0..4 {
            for tied in 1..9 {
                for own in 1..=tied {
                    for k in 1..8 {
                        let closed = hit(&query(better, tied, own), k, Ties::Expected);
                        let counted = brute_force(better as usize, tied as usize, own as usize, k);
                        assert!((closed - counted).abs() < 1e-12, "better {better}, tied {tied}, own {own}, k {k}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_other_rules_are_the_ends() {
        let query = query(2, 5, 2);
        assert_eq!((hit(&query, 3, Ties::Optimistic), hit(&query, 2, Ties::Optimistic)), (1.0, 0.0));
        assert_eq!((hit(&query, 6, Ties::Pessimistic), hit(&query, 5, Ties::Pessimistic)), (1.0, 0.0));
    }
}
