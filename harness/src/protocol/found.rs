//! What stands first for a query, and where its own items stand: what a person looks at.

use xmbench_methods::{Error, Result};

use super::{Direction, Standing, Ties};
use crate::retrieval;

/// A gallery item that a query found. Of each query those with the best scores, best first, equal scores by lower position; and
/// behind them, in the pairs task, its own items that are not among these, in the same order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// Which kind of item asked.
    pub direction: Direction,
    /// Position of the query in its split.
    pub query: u32,
    /// Position of the item in the split that is searched.
    pub item: u32,
    /// Its score, higher is better; a negative distance of binary codes, and a place where a second stage orders a shortlist.
    pub score: f32,
    /// The rank of the item under the protocol's tie rule, from 1: expected over all orders of tied items, it may be a half.
    pub rank: f64,
    /// Whether the item belongs to the query, or shares a class with it.
    pub own: bool,
}

/// How much is kept of each query.
#[derive(Debug, Clone, Copy)]
pub struct Keep {
    /// Items with the best scores.
    pub best: usize,
    /// How equal scores count.
    pub ties: Ties,
}

impl Keep {
    /// Of one query, from its scores of the whole gallery. `own` says which items are its own, `listed` are those of them that
    /// are kept wherever they stand. Positions are those of the gallery as it was scored.
    ///
    /// # Errors
    /// A score that is not a number.
    pub fn of(
        self,
        (direction, query): (Direction, usize),
        scores: &[f32],
        own: impl Fn(usize) -> bool,
        listed: &[u32],
    ) -> Result<Vec<Found>> {
        let best = retrieval::best_of(scores, self.best).map_err(|item| {
            Error::Numeric(format!("the score of query {query} and gallery item {item} is not a number"))
        })?;
        let score = |item: u32| scores[item as usize];
        let tied = |item: u32| scores.iter().filter(|&&other| other == score(item)).count();
        let found = |item: u32, better: usize, tied: usize| {
            let standing = Standing { better, tied, own: 1 };
            let own = own(item as usize);
            Found {
                direction,
                query: query as u32,
                item,
                score: score(item),
                rank: standing.rank(self.ties) + 1.0,
                own,
            }
        };
        let mut out = Vec::with_capacity(best.len() + listed.len());
        let mut at = 0;
        while at < best.len() {
            let group = best[at..].iter().take_while(|&&item| score(item) == score(best[at])).count();
            // Only the last group may go on beyond the list.
            let all = if at + group == best.len() { tied(best[at]) } else { group };
            out.extend(best[at..at + group].iter().map(|&item| found(item, at, all)));
            at += group;
        }
        let mut others: Vec<u32> = listed.iter().copied().filter(|item| !best.contains(item)).collect();
        others.sort_by(|&a, &b| (score(b) + 0.0).total_cmp(&(score(a) + 0.0)).then(a.cmp(&b)));
        for item in others {
            let better = scores.iter().filter(|&&other| other > score(item)).count();
            out.push(found(item, better, tied(item)));
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_those_of_a_brute_force_over_all_orders() {
        let scores = [0.5, 2.0, 0.5, 1.0, 0.5, -1.0, 2.0, 0.0];
        let own = [5, 4];
        for (ties, wanted) in [
            // Two at 2.0, one at 1.0, three at 0.5: places 1-2, 3, 4-6.
            (Ties::Expected, [1.5, 1.5, 3.0, 5.0]),
            (Ties::Optimistic, [1.0, 1.0, 3.0, 4.0]),
            (Ties::Pessimistic, [2.0, 2.0, 3.0, 6.0]),
        ] {
            let keep = Keep { best: 4, ties };
            let found = keep.of((Direction::T2i, 9), &scores, |item| own.contains(&(item as u32)), &own).unwrap();
            let items: Vec<u32> = found.iter().map(|it| it.item).collect();
            assert_eq!(items, [1, 6, 3, 0, 4, 5]);
            let ranks: Vec<f64> = found[..4].iter().map(|it| it.rank).collect();
            assert_eq!(ranks, wanted);
            // Items 0, 2 and 4 tie: one rank. Item 5 is last of eight.
            assert_eq!((found[4].rank, found[5].rank), (wanted[3], 8.0));
            assert_eq!(found.iter().map(|it| it.own).collect::<Vec<_>>(), [false, false, false, false, true, true]);
        }
        let keep = Keep { best: 2, ties: Ties::Expected };
        assert!(keep.of((Direction::I2t, 0), &[0.0, f32::NAN], |_| false, &[]).is_err());
        // A gallery smaller than the list.
        assert_eq!(Keep { best: 20, ..keep }.of((Direction::I2t, 0), &[0.0], |_| true, &[0]).unwrap().len(), 1);
    }
}
