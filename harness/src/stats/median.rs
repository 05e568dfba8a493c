//! The median rank of queries that are drawn with weights: what [`crate::protocol::median_rank`] is where each is drawn once.

use crate::protocol::{Direction, Query, Ties};

/// Ranks that queries may take, of all queries together, beyond which there are too many to go through for each draw.
const MANY: usize = 1 << 22;

/// A rank, counted from 0, that a query of an image may take, and its chance.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Step {
    rank: u32,
    image: u32,
    chance: f64,
}

/// Every rank that the queries of one direction may take, ascending.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ranks(Vec<Step>);

impl Ranks {
    /// Of the queries of a direction; `place` is the position of an image. `None` where ties leave too many ranks open.
    pub(super) fn of(
        queries: &[Query],
        direction: Direction,
        ties: Ties,
        place: impl Fn(u32) -> Option<usize>,
    ) -> Option<Self> {
        let mut steps = Vec::new();
        for query in queries.iter().filter(|query| query.direction == direction) {
            let image = place(query.cluster)? as u32;
            let mut below = 0.0;
            for rank in query.better.. {
                let upto = query.hit(rank as usize + 1, ties);
                if upto > below {
                    steps.push(Step { rank, image, chance: upto - below });
                }
                below = upto;
                // Optimistic and pessimistic ends have one rank each; nothing to find has none.
                if upto >= 1.0 || query.own == 0 || rank >= query.better + query.tied {
                    break;
                }
            }
            if steps.len() > MANY {
                return None;
            }
        }
        // Sorted by rank alone, queries stay in their order: the sum has the same bits wherever it is made.
        steps.sort_by_key(|step| step.rank);
        Some(Self(steps))
    }

    /// The median, counted from 1 and rounded down, where the queries of image `i` weigh `weight(i)` each and all together `total`.
    pub(super) fn median(&self, weight: impl Fn(usize) -> f64, total: f64) -> f64 {
        let half = total / 2.0;
        let slack = 1e-9 * (half + 1.0);
        let (mut sum, mut lower) = (0.0, None);
        for (at, step) in self.0.iter().enumerate() {
            sum += step.chance * weight(step.image as usize);
            if self.0.get(at + 1).is_some_and(|next| next.rank == step.rank) {
                continue;
            }
            if lower.is_none() && sum >= half - slack {
                lower = Some(step.rank);
            }
            if sum > half + slack {
                return f64::from((lower.unwrap_or(step.rank) + step.rank) / 2 + 1);
            }
        }
        f64::NAN
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::{Standing, median_rank};

    proptest! {
        #[test]
        fn drawn_once_each_it_is_the_median(
            standings in prop::collection::vec((0u32..40, 0u32..12, 1u32..4), 1..60),
            drawn in prop::collection::vec(0usize..4, 60),
        ) {
            let query = |(at, &(better, others, own)): (usize, &(u32, u32, u32))| Query {
                direction: Direction::T2i, query: at as u32, cluster: at as u32, better, tied: others + own, own,
                average_precision: f64::NAN,
            };
            let queries: Vec<Query> = standings.iter().enumerate().map(query).collect();
            for ties in [Ties::Expected, Ties::Optimistic, Ties::Pessimistic] {
                let ranks = Ranks::of(&queries, Direction::T2i, ties, |image| Some(image as usize)).unwrap();
                // As often as drawn stands for as many queries.
                let repeated: Vec<Standing> = queries.iter().zip(&drawn).flat_map(|(it, &times)| {
                    let standing = Standing { better: it.better as usize, tied: it.tied as usize, own: it.own as usize };
                    std::iter::repeat_n(standing, times)
                }).collect();
                if repeated.is_empty() {
                    continue;
                }
                let found = ranks.median(|image| drawn[image] as f64, repeated.len() as f64);
                prop_assert_eq!(found, median_rank(&repeated, ties));
            }
        }
    }
}
