//! What a metric needs to know of one query's ranked gallery: how many items share a score and how many of them are relevant.
//!
//! Items of equal score come in every order with the same chance. A tie group of `t` items of which `r` are relevant, behind `N`
//! items of which `A` are relevant, adds to the sum of precisions at the hits, over its first `m` places, the expectation
//!
//! ```text
//! S(N, A, t, r, m) = sum_{j=1..m} (r / t) (A + 1 + (j - 1) (r - 1) / (t - 1)) / (N + j)            (1)
//! ```
//!
//! since a place holds a relevant item with chance `r / t`, and each of the `j - 1` places before it then with `(r - 1) / (t - 1)`.
//! Average precision over the whole gallery is the sum of (1) over the groups, divided by the number of relevant items; cut at
//! `k`, the group that crosses `k` counts with `m = k - N`.
//!
//! Divided by the hits within `k`, the denominator is random too. Given that `x` of the crossing group's relevant items fall on
//! its first `m` places, these places are a tie group of their own, so the expectation is exact as
//!
//! ```text
//! E = sum_x Hypergeometric(x; t, r, m) (S_before + S(N, A, m, x, m)) / (A + x)                      (2)
//! ```

use super::{Denominator, Ties};

/// Items of one score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// How many there are.
    pub items: usize,
    /// How many of them are relevant.
    pub relevant: usize,
}

/// A ranked gallery, best group first. Groups in a row without relevant items may be joined: no metric can tell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ranking {
    groups: Vec<Group>,
    items: usize,
    relevant: usize,
}

impl Ranking {
    /// A ranking by groups, best first; empty groups are dropped.
    pub fn new(groups: impl IntoIterator<Item = Group>) -> Self {
        let groups: Vec<Group> = groups.into_iter().filter(|group| group.items > 0).collect();
        let items = groups.iter().map(|group| group.items).sum();
        let relevant = groups.iter().map(|group| group.relevant).sum();
        Self { groups, items, relevant }
    }

    /// A ranking without ties, from the relevance of its items, best first.
    pub fn strict(relevance: impl IntoIterator<Item = bool>) -> Self {
        Self::new(relevance.into_iter().map(|relevant| Group { items: 1, relevant: usize::from(relevant) }))
    }

    /// A ranking of which nothing is known: everything ties. Its metrics are those of a random order.
    pub fn random(items: usize, relevant: usize) -> Self {
        Self::new([Group { items, relevant }])
    }

    /// The ranking by scores, higher is better; none may be NaN.
    pub fn of_scores(scores: &[f32], relevant: &[bool]) -> Self {
        let mut levels: Vec<f32> =
            scores.iter().zip(relevant).filter(|(_, relevant)| **relevant).map(|(s, _)| *s).collect();
        levels.sort_unstable_by(|a, b| b.partial_cmp(a).expect("scores were checked not to be NaN"));
        let own = levels.clone();
        levels.dedup();
        // Between and at the levels of relevant items: places 2i and 2i + 1.
        let mut groups = vec![Group { items: 0, relevant: 0 }; 2 * levels.len() + 1];
        for &score in scores {
            let i = levels.partition_point(|&level| level > score);
            groups[2 * i + usize::from(levels.get(i) == Some(&score))].items += 1;
        }
        let mut i = 0;
        for score in own {
            while levels[i] != score {
                i += 1;
            }
            groups[2 * i + 1].relevant += 1;
        }
        Self::new(groups)
    }

    /// The ranking with relevant items that it does not list: behind more others than anybody looks at.
    #[must_use]
    pub fn with_unlisted(mut self, relevant: usize) -> Self {
        const FAR: usize = 1 << 40;
        self.groups.extend([Group { items: FAR, relevant: 0 }, Group { items: relevant, relevant }]);
        Self::new(self.groups)
    }

    /// The ranking by distances of at most `bits`, lower is better: a histogram.
    pub fn of_distances(distances: &[u32], bits: usize, relevant: &[bool]) -> Self {
        let mut groups = vec![Group { items: 0, relevant: 0 }; bits + 1];
        for (&distance, &relevant) in distances.iter().zip(relevant) {
            let group = &mut groups[distance as usize];
            group.items += 1;
            group.relevant += usize::from(relevant);
        }
        Self::new(groups)
    }

    /// Number of ranked items.
    pub fn items(&self) -> usize {
        self.items
    }

    /// Number of relevant items.
    pub fn relevant(&self) -> usize {
        self.relevant
    }

    /// Whether the order of tied items can matter.
    pub fn tied(&self) -> bool {
        self.groups.iter().any(|group| group.relevant > 0 && group.relevant < group.items)
    }

    /// The ranking with relevant items first or last among their equals; as it is for [`Ties::Expected`].
    #[must_use]
    pub fn settled(&self, ties: Ties) -> Self {
        let split = |group: &Group| {
            let own = Group { items: group.relevant, relevant: group.relevant };
            let others = Group { items: group.items - group.relevant, relevant: 0 };
            if ties == Ties::Optimistic { [own, others] } else { [others, own] }
        };
        match ties {
            Ties::Expected => self.clone(),
            _ => Self::new(self.groups.iter().flat_map(split)),
        }
    }

    /// Groups with the number of items and of relevant items before each.
    fn stack(&self) -> impl Iterator<Item = (usize, usize, Group)> {
        self.groups.iter().scan((0, 0), |(items, relevant), &group| {
            let before = (*items, *relevant, group);
            *items += group.items;
            *relevant += group.relevant;
            Some(before)
        })
    }

    /// Items better than the best relevant one, items that tie with it, and relevant ones among these.
    pub fn first_relevant(&self) -> (usize, usize, usize) {
        self.stack()
            .find(|(_, _, group)| group.relevant > 0)
            .map_or((self.items, 0, 0), |(before, _, group)| (before, group.items, group.relevant))
    }

    /// Expected number of relevant items among the first `k`.
    pub fn hits_at(&self, k: usize) -> f64 {
        self.stack()
            .take_while(|(before, ..)| *before < k)
            .map(|(before, _, group)| group.relevant as f64 * (k - before).min(group.items) as f64 / group.items as f64)
            .sum()
    }

    /// Expected average precision over the whole gallery; 0 without relevant items.
    pub fn average_precision(&self) -> f64 {
        self.average_precision_at(self.items, Denominator::Relevant)
    }

    /// Expected average precision of the first R items, R being the number of relevant ones, over R: MAP@R of metric learning; 0
    /// without any.
    pub fn average_precision_at_r(&self) -> f64 {
        self.average_precision_at(self.relevant, Denominator::Relevant)
    }

    /// Expected average precision of the first `k`; 0 without relevant items.
    pub fn average_precision_at(&self, k: usize, denominator: Denominator) -> f64 {
        let (mut sum, mut hits) = (0.0, 0.0);
        for (n, a, group) in self.stack().take_while(|(before, ..)| *before < k) {
            let m = (k - n).min(group.items);
            if m < group.items && denominator == Denominator::Hits {
                return expected_over_hits(sum, n, a, group, m); // (2)
            }
            sum += precisions(n, a, group, m); // (1)
            hits += group.relevant as f64;
        }
        let divisor = match denominator {
            Denominator::Relevant => self.relevant as f64,
            Denominator::Hits => hits,
            Denominator::MinKRelevant => self.relevant.min(k) as f64,
        };
        if divisor == 0.0 { 0.0 } else { sum / divisor }
    }

    /// The lowest and the highest average precision of the first `k` over all orders of tied items. Only for
    /// [`Denominator::Hits`] these are not simply those of [`settled`](Self::settled): a late hit lowers the mean of precisions.
    pub fn average_precision_range(&self, k: usize, denominator: Denominator) -> [f64; 2] {
        let ends = [Ties::Pessimistic, Ties::Optimistic];
        let crossing = self.stack().find(|(before, _, group)| *before < k && before + group.items > k);
        let Some((n, a, group)) = crossing.filter(|_| denominator == Denominator::Hits) else {
            return ends.map(|ties| self.settled(ties).average_precision_at(k, denominator));
        };
        let before = ends.map(|ties| {
            let settled = self.settled(ties);
            settled.stack().take_while(|(at, ..)| *at < n).map(|(n, a, g)| precisions(n, a, g, g.items)).sum::<f64>()
        });
        let m = k - n;
        let fewest = m.saturating_sub(group.items - group.relevant);
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        // x hits on the first or on the last x of the m places, and 1 / position summed over the latter.
        let (mut first, mut last) = (0.0, 0.0);
        for x in 0..=group.relevant.min(m) {
            if x > 0 {
                first += (a + x) as f64 / (n + x) as f64;
                last += 1.0 / (n + m - x + 1) as f64;
            }
            if x >= fewest {
                // Behind n + m - x items with a hits, the precision at place p is 1 - (n + m - x - a) / p.
                let lowest = before[0] + x as f64 - (n + m - x - a) as f64 * last;
                let divisor = ((a + x) as f64).max(1.0);
                low = f64::min(low, lowest / divisor);
                high = f64::max(high, (before[1] + first) / divisor);
            }
        }
        [low, high]
    }

    /// Expected nDCG of the first `k` with binary gains; 0 without relevant items.
    pub fn ndcg_at(&self, k: usize) -> f64 {
        let ideal = discounted_gain([(self.relevant, self.relevant as f64)], k);
        let gain = discounted_gain(self.groups.iter().map(|group| (group.items, group.relevant as f64)), k);
        if ideal == 0.0 { 0.0 } else { gain / ideal }
    }

    /// Share of relevant items among the first R, R being the number of relevant items; 0 without any.
    pub fn r_precision(&self) -> f64 {
        self.hits_at(self.relevant) / (self.relevant as f64).max(1.0)
    }

    /// Mean over relevant items of the share of relevant ones among the items that score at least as well: scikit-learn's label
    /// ranking average precision, which is 1 when nothing or everything is relevant.
    pub fn label_ranking_precision(&self) -> f64 {
        if self.relevant == 0 || self.relevant == self.items {
            return 1.0;
        }
        let share = |(n, a, group): (usize, usize, Group)| {
            group.relevant as f64 * (a + group.relevant) as f64 / (n + group.items) as f64
        };
        self.stack().map(share).sum::<f64>() / self.relevant as f64
    }

    /// Precision at the least number of best-scored items, tied ones together, that reaches each level of recall; 0 without
    /// relevant items. Levels ascend from 0 to 1; level 0 asks for one relevant item.
    pub fn precision_at_recall(&self, levels: &[f64]) -> Vec<f64> {
        let mut out = Vec::with_capacity(levels.len());
        for (n, a, group) in self.stack().filter(|(_, _, group)| group.relevant > 0) {
            let (items, hits) = (n + group.items, a + group.relevant);
            // An ulp of `level * relevant` must not ask for one hit more.
            while out.len() < levels.len() && hits as f64 >= levels[out.len()] * self.relevant as f64 - 1e-9 {
                out.push(hits as f64 / items as f64);
            }
        }
        out.resize(levels.len(), 0.0);
        out
    }

    /// The interpolated precision: the best precision at any number of best-scored items, tied ones together, that reaches each
    /// level of recall.
    pub fn best_precision_from_recall(&self, levels: &[f64]) -> Vec<f64> {
        let reached: Vec<(usize, f64)> = self
            .stack()
            .filter(|(_, _, group)| group.relevant > 0)
            .map(|(n, a, group)| (a + group.relevant, (a + group.relevant) as f64 / (n + group.items) as f64))
            .collect();
        let mut out = vec![0.0; levels.len()];
        let (mut level, mut best) = (levels.len(), 0.0);
        for &(hits, precision) in reached.iter().rev() {
            while level > 0 && levels[level - 1] * self.relevant as f64 - 1e-9 > hits as f64 {
                level -= 1;
                out[level] = best;
            }
            best = f64::max(best, precision);
        }
        out[..level].fill(best);
        out
    }
}

/// Equation (1).
fn precisions(n: usize, a: usize, group: Group, m: usize) -> f64 {
    let (t, r) = (group.items as f64, group.relevant as f64);
    if group.relevant == 0 {
        return 0.0;
    }
    let slope = if group.items > 1 { (r - 1.0) / (t - 1.0) } else { 0.0 };
    let first = (a + 1) as f64;
    (0..m).map(|j| (first + j as f64 * slope) / (n + 1 + j) as f64).sum::<f64>() * (r / t)
}

/// Equation (2), over the `m` places that a group crossing the cut has within it.
fn expected_over_hits(before: f64, n: usize, a: usize, group: Group, m: usize) -> f64 {
    let (t, r) = (group.items, group.relevant);
    let (fewest, most) = (m.saturating_sub(t - r), r.min(m));
    // S(N, A, m, x, m) = (x / m) ((A + 1) h + (x - 1) / (m - 1) g)
    let h: f64 = (1..=m).map(|j| 1.0 / (n + j) as f64).sum();
    let g: f64 = (1..=m).map(|j| (j - 1) as f64 / (n + j) as f64).sum();
    let value = |x: usize| {
        if a + x == 0 {
            return 0.0;
        }
        let pairs = if x > 1 { (x - 1) as f64 / (m - 1) as f64 * g } else { 0.0 };
        (before + x as f64 / m as f64 * ((a + 1) as f64 * h + pairs)) / (a + x) as f64
    };
    // Weights relative to that of the mode, where nothing can underflow that matters.
    let mode = ((r + 1) * (m + 1) / (t + 2)).clamp(fewest, most);
    let up = |x: usize| ((r - x) * (m - x)) as f64 / ((x + 1) * (t + x + 1 - r - m)) as f64;
    let (mut weights, mut sum) = (1.0, value(mode));
    let mut weight = 1.0;
    for x in mode..most {
        weight *= up(x);
        weights += weight;
        sum += weight * value(x + 1);
    }
    weight = 1.0;
    for x in (fewest..mode).rev() {
        weight /= up(x);
        weights += weight;
        sum += weight * value(x);
    }
    sum / weights
}

/// Expected discounted cumulative gain of the first `k`: groups of `(items, gain of all of them)`, best first; every place of a
/// group is worth the group's mean, at rank `i` divided by `log2(i + 1)`.
pub fn discounted_gain(groups: impl IntoIterator<Item = (usize, f64)>, k: usize) -> f64 {
    let (mut rank, mut sum) = (0, 0.0);
    for (items, gain) in groups {
        let end = (rank + items).min(k);
        if gain != 0.0 {
            sum += gain / items as f64 * (rank..end).map(|i| ((i + 2) as f64).log2().recip()).sum::<f64>();
        }
        rank += items;
        if rank >= k {
            break;
        }
    }
    sum
}

/// Average precision over the first `min(k, R)` relevant items wherever they stand (`calc_map_k` of the hashing literature), from
/// the ascending ranks of all relevant items, counted from 1.
pub fn first_k_relevant(ranks: &[usize], k: usize) -> f64 {
    let first = &ranks[..k.min(ranks.len())];
    first.iter().zip(1..).map(|(&rank, j)| f64::from(j) / rank as f64).sum::<f64>() / first.len().max(1) as f64
}

/// Mean over hits of precision times the hit's weight, from `(rank, weight)` of the hits within the cut: DGCPN's weighted MAP.
pub fn weighted_precision(hits: &[(usize, f64)]) -> f64 {
    let sum: f64 = hits.iter().zip(1..).map(|(&(rank, weight), j)| f64::from(j) / rank as f64 * weight).sum();
    sum / hits.len().max(1) as f64
}

#[cfg(test)]
pub(super) mod tests;
