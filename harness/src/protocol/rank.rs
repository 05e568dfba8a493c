//! The rank of the best-scored relevant item under a tie rule, from how many items are better, how many tie with it, and how many
//! of these are relevant.
//!
//! Among `t` tied items of which `p` are relevant, every set of `p` places is as likely as another. So no relevant item takes one
//! of the first `m` places with chance `C(t - p, m) / C(t, m)`, and the first takes place `(t + 1) / (p + 1)` on average.

use super::Ties;

/// Relevant items that tie, beyond which a product over them is too long.
const MANY: usize = 1 << 16;

/// Where the best-scored relevant item stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Items that score strictly better.
    pub better: usize,
    /// Items that score the same, it included.
    pub tied: usize,
    /// Relevant items among `tied`.
    pub own: usize,
}

impl Standing {
    /// Of the relevant items `own` among `scores`; `above(a, b)` says that score `a` is better than `b`.
    ///
    /// # Panics
    /// If `own` is empty.
    pub fn of<T: Copy + PartialEq>(scores: &[T], own: &[u32], above: impl Fn(T, T) -> bool) -> Self {
        let best = own.iter().map(|&i| scores[i as usize]).reduce(|a, b| if above(b, a) { b } else { a });
        let best = best.expect("queries without relevant items were refused");
        Self {
            better: scores.iter().filter(|&&score| above(score, best)).count(),
            tied: scores.iter().filter(|&&score| score == best).count(),
            own: own.iter().filter(|&&i| scores[i as usize] == best).count(),
        }
    }

    /// The chance that a relevant item is among the first `k`.
    pub fn hit(self, k: usize, ties: Ties) -> f64 {
        let others = self.tied - self.own;
        let places = match ties {
            _ if self.own == 0 => return 0.0,
            Ties::Optimistic => return f64::from(u8::from(self.better < k)),
            Ties::Pessimistic => return f64::from(u8::from(self.better + others < k)),
            Ties::Expected => k.saturating_sub(self.better),
        };
        if places > others {
            return 1.0;
        }
        // C(t - p, m) / C(t, m) = C(t - m, p) / C(t, p): the shorter product, where the one over relevant items is very long.
        let (steps, taken) =
            if self.own > MANY { (self.own.min(places), self.own.max(places)) } else { (self.own, places) };
        let mut missed = 1.0;
        for i in 0..steps {
            missed *= (self.tied - taken - i) as f64 / (self.tied - i) as f64;
            // It stays there.
            if missed == 0.0 {
                break;
            }
        }
        1.0 - missed
    }

    /// The expected number of items before it.
    pub fn rank(self, ties: Ties) -> f64 {
        let (better, others) = (self.better as f64, (self.tied - self.own) as f64);
        better
            + match ties {
                Ties::Optimistic => 0.0,
                Ties::Pessimistic => others,
                Ties::Expected => others / (self.own + 1) as f64,
            }
    }

    /// The rank that can be the largest.
    fn last(self) -> usize {
        self.better + self.tied - self.own
    }
}

/// Mean rank, counted from 1.
pub fn mean(standings: &[Standing], ties: Ties) -> f64 {
    standings.iter().map(|standing| standing.rank(ties)).sum::<f64>() / standings.len() as f64 + 1.0
}

/// Median rank, counted from 1 and rounded down as the field does: `floor(median) + 1`.
///
/// Under [`Ties::Expected`] it is the median of all ranks that the queries may take, each with its chance: what the median of a
/// random order comes to for many queries.
pub fn median(standings: &[Standing], ties: Ties) -> f64 {
    let half = standings.len() as f64 / 2.0;
    let below = |k: usize| standings.iter().map(|standing| standing.hit(k, ties)).sum::<f64>();
    let least = |reached: &dyn Fn(f64) -> bool| {
        let (mut low, mut high) = (0, standings.iter().map(|standing| standing.last()).max().unwrap_or(0));
        while low < high {
            let middle = (low + high) / 2;
            // The chance that the rank, counted from 0, is at most `middle`.
            if reached(below(middle + 1)) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low
    };
    // Chances are sums of rounded quotients: half is half up to an ulp of the sum.
    let slack = 1e-9 * (half + 1.0);
    let (lower, upper) = (least(&|sum| sum >= half - slack), least(&|sum| sum > half + slack));
    ((lower + upper) / 2 + 1) as f64
}
