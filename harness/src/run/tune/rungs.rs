//! Successive halving: many settings for a few epochs, a third of them for three times as many, and so on.
//!
//! ```text
//! K = 1 + floor(log3(N)) rungs, of which rung k = 0 .. K - 1 has
//!     settings  N for k = 0, then max(2, ceil(N / 3^k))
//!     epochs    ceil(E / 3^(K - 1 - k)), for a row of E epochs
//! ```
//!
//! (Jamieson and Talwalkar 2016, with their eta = 3.) The setting that the row has before takes one of the places of every rung, so
//! that it is judged after all epochs, too.

use crate::record::Rung;

/// Of so many settings one goes on.
const ETA: usize = 3;

/// The rungs of a search among so many settings, from the shortest.
pub fn rungs(trials: usize) -> Vec<Rung> {
    let count = 1 + (trials.max(1)).ilog(ETA) as usize;
    let rung = |k: usize| {
        let settings = trials.div_ceil(ETA.pow(k as u32));
        // Beside the present setting there is another one to the end.
        Rung { settings: settings.max(trials.min(2)), epochs_over: ETA.pow((count - 1 - k) as u32) }
    };
    (0..count).map(rung).collect()
}

impl Rung {
    /// Epochs of this rung, of a row that is trained for so many.
    pub fn epochs(self, whole: usize) -> usize {
        whole.div_ceil(self.epochs_over)
    }
}

/// The settings that go on to `places` places: the first one, and the best of the others in the order of their numbers. Of equal scores
/// the earlier goes on; a setting without a score does not.
pub fn survivors(scores: &[(usize, Option<f64>)], places: usize) -> Vec<usize> {
    let mut others: Vec<(usize, f64)> = scores.iter().filter_map(|&(at, score)| Some((at, score?))).collect();
    others.retain(|(at, _)| *at != 0);
    others.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    others.truncate(places.saturating_sub(1));
    let mut kept: Vec<usize> = std::iter::once(0).chain(others.into_iter().map(|(at, _)| at)).collect();
    kept.sort_unstable();
    kept
}

/// The best setting; the first among equals, so that the present one is left only for a better one.
pub fn best(scores: &[(usize, Option<f64>)]) -> Option<(usize, f64)> {
    let scored = scores.iter().filter_map(|&(at, score)| Some((at, score?)));
    scored.reduce(|best, next| if next.1 > best.1 { next } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(trials: usize) -> Vec<(usize, usize)> {
        rungs(trials).iter().map(|rung| (rung.settings, rung.epochs_over)).collect()
    }

    #[test]
    fn a_third_of_the_settings_goes_on_for_three_times_the_epochs() {
        assert_eq!(of(1), [(1, 1)]);
        assert_eq!(of(2), [(2, 1)]);
        assert_eq!(of(3), [(3, 3), (2, 1)]);
        assert_eq!(of(6), [(6, 3), (2, 1)]);
        assert_eq!(of(9), [(9, 9), (3, 3), (2, 1)]);
        assert_eq!(of(27), [(27, 27), (9, 9), (3, 3), (2, 1)]);
        let epochs = |whole: usize| rungs(9).iter().map(|rung| rung.epochs(whole)).collect::<Vec<_>>();
        assert_eq!((epochs(30), epochs(8), epochs(1)), (vec![4, 10, 30], vec![1, 3, 8], vec![1, 1, 1]));
    }

    #[test]
    fn the_present_setting_goes_on_whatever_its_score() {
        let scores = [(0, Some(1.0)), (1, Some(5.0)), (2, None), (3, Some(7.0)), (4, Some(5.0))];
        assert_eq!(survivors(&scores, 2), [0, 3]);
        assert_eq!(survivors(&scores, 3), [0, 1, 3]);
        assert_eq!(survivors(&scores, 9), [0, 1, 3, 4]);
        assert_eq!(survivors(&[(0, None), (1, None)], 2), [0]);
        assert_eq!(best(&scores), Some((3, 7.0)));
        assert_eq!(best(&[(0, Some(2.0)), (1, Some(2.0))]), Some((0, 2.0)));
        assert_eq!(best(&[(0, None)]), None);
    }
}
