use proptest::prelude::*;

use super::*;
use crate::protocol::{Standing, Ties, median_rank};

/// Every order of a ranking's tied items, as relevance lists: every placement of the relevant ones within each group, all equally
/// likely within a group.
fn orders(groups: &[Group]) -> Vec<Vec<bool>> {
    let mut out = vec![Vec::new()];
    for group in groups {
        let placements: Vec<Vec<bool>> = (0u32..1 << group.items)
            .filter(|mask| mask.count_ones() as usize == group.relevant)
            .map(|mask| (0..group.items).map(|i| mask >> i & 1 == 1).collect())
            .collect();
        out = out.iter().flat_map(|head| placements.iter().map(move |tail| [&head[..], tail].concat())).collect();
    }
    out
}

/// Average precision of one order by its definition.
fn precision_sum(order: &[bool], k: usize) -> (f64, usize) {
    let (mut hits, mut sum) = (0, 0.0);
    for (i, _) in order.iter().take(k).enumerate().filter(|(_, hit)| **hit) {
        hits += 1;
        sum += hits as f64 / (i + 1) as f64;
    }
    (sum, hits)
}

fn divided(order: &[bool], k: usize, denominator: Denominator) -> f64 {
    let (sum, hits) = precision_sum(order, k);
    let relevant = order.iter().filter(|hit| **hit).count();
    let divisor = match denominator {
        Denominator::Relevant => relevant,
        Denominator::Hits => hits,
        Denominator::MinKRelevant => k.min(relevant),
    };
    if divisor == 0 { 0.0 } else { sum / divisor as f64 }
}

fn gain(order: &[bool], k: usize) -> f64 {
    let dcg = |order: &[bool]| -> f64 {
        order.iter().take(k).enumerate().filter(|(_, hit)| **hit).map(|(i, _)| 1.0 / ((i + 2) as f64).log2()).sum()
    };
    let mut ideal = order.to_vec();
    ideal.sort_by(|a, b| b.cmp(a));
    if dcg(&ideal) == 0.0 { 0.0 } else { dcg(order) / dcg(&ideal) }
}

pub fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-11
}

fn small_groups() -> impl Strategy<Value = Vec<Group>> {
    let group = (1usize..6).prop_flat_map(|items| (0..=items).prop_map(move |relevant| Group { items, relevant }));
    prop::collection::vec(group, 1..4)
}

const DENOMINATORS: [Denominator; 3] = [Denominator::Relevant, Denominator::Hits, Denominator::MinKRelevant];

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn closed_forms_are_means_over_all_orders(groups in small_groups(), k in 1usize..17) {
        let (ranking, orders) = (Ranking::new(groups.clone()), orders(&groups));
        let mean = |value: &dyn Fn(&[bool]) -> f64| orders.iter().map(|o| value(o)).sum::<f64>() / orders.len() as f64;
        for denominator in DENOMINATORS {
            let expected = mean(&|order| divided(order, k, denominator));
            let found = ranking.average_precision_at(k, denominator);
            prop_assert!(close(found, expected), "MAP@{k} over {denominator:?}: {found} for {expected}");
            let all: Vec<f64> = orders.iter().map(|order| divided(order, k, denominator)).collect();
            let range = [all.iter().copied().fold(f64::INFINITY, f64::min), all.iter().copied().fold(0.0, f64::max)];
            let found = ranking.average_precision_range(k, denominator);
            prop_assert!(close(found[0], range[0]) && close(found[1], range[1]), "{denominator:?}: {found:?} for {range:?}");
        }
        prop_assert!(close(ranking.average_precision(), mean(&|order| divided(order, 99, Denominator::Relevant))));
        prop_assert!(close(ranking.ndcg_at(k), mean(&|order| gain(order, k))));
        let hits = |order: &[bool]| order.iter().take(k).filter(|hit| **hit).count() as f64;
        prop_assert!(close(ranking.hits_at(k), mean(&hits)));
        for ties in [Ties::Pessimistic, Ties::Optimistic] {
            let settled = ranking.settled(ties);
            prop_assert!(!settled.tied());
            let ends = orders.iter().map(|order| divided(order, 99, Denominator::Relevant));
            let end = if ties == Ties::Optimistic { ends.fold(0.0, f64::max) } else { ends.fold(f64::INFINITY, f64::min) };
            prop_assert!(close(settled.average_precision(), end));
        }
    }

    #[test]
    fn standings_are_means_over_all_orders(better in 0usize..5, tied in 1usize..9, own in 1usize..9, k in 1usize..15) {
        let own = own.min(tied);
        let standing = Standing { better, tied, own };
        let first = |order: &Vec<bool>| better + order.iter().position(|hit| *hit).unwrap();
        let ranks: Vec<usize> = orders(&[Group { items: tied, relevant: own }]).iter().map(first).collect();
        let mean = |value: &dyn Fn(usize) -> f64| ranks.iter().map(|&r| value(r)).sum::<f64>() / ranks.len() as f64;
        prop_assert!(close(standing.hit(k, Ties::Expected), mean(&|rank| f64::from(u8::from(rank < k)))));
        prop_assert!(close(standing.rank(Ties::Expected), mean(&|rank| rank as f64)));
        prop_assert!(close(standing.rank(Ties::Optimistic), *ranks.iter().min().unwrap() as f64));
        prop_assert!(close(standing.rank(Ties::Pessimistic), *ranks.iter().max().unwrap() as f64));
        for (ties, rank) in [(Ties::Optimistic, ranks.iter().min()), (Ties::Pessimistic, ranks.iter().max())] {
            prop_assert_eq!(standing.hit(k, ties), f64::from(u8::from(*rank.unwrap() < k)));
        }
    }

    #[test]
    fn the_median_without_ties_is_numpys(ranks in prop::collection::vec(0usize..30, 1..12)) {
        let standings: Vec<Standing> = ranks.iter().map(|&better| Standing { better, tied: 1, own: 1 }).collect();
        let mut sorted = ranks;
        sorted.sort_unstable();
        let middle = (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) as f64 / 2.0;
        for ties in [Ties::Expected, Ties::Optimistic, Ties::Pessimistic] {
            prop_assert_eq!(median_rank(&standings, ties), middle.floor() + 1.0);
        }
    }

    #[test]
    fn rankings_group_scores(items in prop::collection::vec((0u32..5, any::<bool>()), 1..40)) {
        let (distances, relevant): (Vec<u32>, Vec<bool>) = items.iter().copied().unzip();
        let scores: Vec<f32> = distances.iter().map(|&d| 0.0 - d as f32).collect();
        let groups = (0..5).map(|d| {
            let of: Vec<bool> = items.iter().filter(|(distance, _)| *distance == d).map(|(_, hit)| *hit).collect();
            Group { items: of.len(), relevant: of.iter().filter(|hit| **hit).count() }
        });
        let expected = Ranking::new(groups);
        prop_assert_eq!(&Ranking::of_distances(&distances, 4, &relevant), &expected);
        // Groups without relevant items may be joined: no metric can tell.
        let found = Ranking::of_scores(&scores, &relevant);
        prop_assert_eq!((found.items(), found.relevant()), (expected.items(), expected.relevant()));
        prop_assert_eq!(found.first_relevant(), expected.first_relevant());
        prop_assert_eq!(found.label_ranking_precision(), expected.label_ranking_precision());
        for k in [1, 2, 3, 7, 50] {
            for denominator in DENOMINATORS {
                prop_assert!(close(found.average_precision_at(k, denominator), expected.average_precision_at(k, denominator)));
            }
            prop_assert!(close(found.ndcg_at(k), expected.ndcg_at(k)));
        }
        let levels = [0.0, 0.1, 0.25, 0.5, 0.75, 1.0];
        prop_assert_eq!(found.precision_at_recall(&levels), expected.precision_at_recall(&levels));
        prop_assert_eq!(found.best_precision_from_recall(&levels), expected.best_precision_from_recall(&levels));
    }
}

#[test]
fn large_tie_groups_neither_overflow_nor_underflow() {
    // Everything relevant: any order is perfect.
    let all = Ranking::random(200_000, 200_000);
    assert!(close(all.average_precision_at(5000, Denominator::Hits), 1.0));
    // Half: the precision at a hit counts the hit itself, so the mean is above one half, by little over 5,000 places.
    let half = Ranking::random(200_000, 100_000);
    let value = half.average_precision_at(5000, Denominator::Hits);
    assert!((0.5..0.51).contains(&value), "{value}");
    // The expected precision at every place is the base rate.
    assert!(close(half.hits_at(5000) / 5000.0, 0.5));
    // One relevant item among n: AP is 1 / rank, so its expectation is the harmonic number over n.
    let harmonic: f64 = (1..=1000).map(|i| 1.0 / f64::from(i)).sum();
    assert!(close(Ranking::random(1000, 1).average_precision(), harmonic / 1000.0));
}

#[test]
fn curves_follow_the_definition() {
    // Relevant at ranks 1, 3 and 6.
    let ranking = Ranking::strict([true, false, true, false, false, true]);
    let levels = [0.0, 0.3, 0.4, 0.7, 1.0];
    assert_eq!(ranking.precision_at_recall(&levels), [1.0, 1.0, 2.0 / 3.0, 0.5, 0.5]);
    // Precision rises again behind a poor start: interpolation looks ahead.
    let rising = Ranking::strict([false, true, true, true]);
    assert_eq!(rising.precision_at_recall(&[0.0, 0.5, 1.0]), [0.5, 2.0 / 3.0, 0.75]);
    assert_eq!(rising.best_precision_from_recall(&[0.0, 0.5, 1.0]), [0.75; 3]);
    // A group is reached as a whole.
    let tied = Ranking::new([Group { items: 4, relevant: 2 }, Group { items: 4, relevant: 2 }]);
    assert_eq!(tied.precision_at_recall(&[0.0, 0.5, 1.0]), [0.5; 3]);
    assert_eq!(Ranking::random(5, 0).precision_at_recall(&[0.0, 1.0]), [0.0; 2]);
}
