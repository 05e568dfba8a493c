/// The best `k` of the items pushed so far, by score, then by lower position.
///
/// An item is one key that sorts as (score descending, position ascending), so that the kept set does not depend on the order of
/// pushes. Keys gather in a buffer of twice `k`; a full buffer is cut at its `k`-th by selection: constant work an item.
pub struct Best {
    k: usize,
    keys: Vec<u64>,
    /// Keys from here on are worse than `k` that are already in.
    limit: u64,
}

impl Best {
    pub fn new(k: usize) -> Self {
        Self { k, keys: Vec::with_capacity(2 * k.max(8)), limit: u64::MAX }
    }

    /// A key that can still enter lies below this.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    pub fn push(&mut self, key: u64) {
        if key >= self.limit || self.k == 0 {
            return;
        }
        self.keys.push(key);
        if self.keys.len() == self.keys.capacity().min(2 * self.k.max(8)) {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if self.keys.len() >= self.k && self.k > 0 {
            let (_, &mut kth, _) = self.keys.select_nth_unstable(self.k - 1);
            self.keys.truncate(self.k);
            // Keys are distinct, so an equal one cannot come.
            self.limit = kth;
        }
    }

    /// Takes over what another one kept.
    pub fn absorb(&mut self, other: Self) {
        for key in other.keys {
            self.push(key);
        }
    }

    /// The kept keys, best first.
    pub fn sorted(mut self) -> Vec<u64> {
        self.cut();
        self.keys.sort_unstable();
        self.keys
    }
}

/// The key of a real score; `-0` and `0` are one score. Not for NaN.
pub fn real_key(score: f32, item: u32) -> u64 {
    let bits = (score + 0.0).to_bits();
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 0x8000_0000 };
    u64::from(!ascending) << 32 | u64::from(item)
}

/// The score of a [`real_key`].
pub fn real_score(key: u64) -> f32 {
    let ascending = !((key >> 32) as u32);
    f32::from_bits(if ascending >> 31 == 1 { ascending & 0x7fff_ffff } else { !ascending })
}

/// The key of a distance.
pub fn distance_key(distance: u32, item: u32) -> u64 {
    u64::from(distance) << 32 | u64::from(item)
}

/// Positions of the best `k` scores, best first, equal ones by lower position; all of them if there are fewer.
///
/// # Errors
/// The position of a score that is not a number.
pub fn best_of(scores: &[f32], k: usize) -> Result<Vec<u32>, usize> {
    let mut best = Best::new(k.min(scores.len()));
    super::dense::offer(scores, 0, &mut best)?;
    Ok(best.sorted().into_iter().map(|key| key as u32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_scores_do() {
        let scores = [f32::INFINITY, 3.5, 1e-40, 0.0, -1e-40, -2.0, f32::NEG_INFINITY];
        for pair in scores.windows(2) {
            assert!(real_key(pair[0], 9) < real_key(pair[1], 0));
        }
        for score in scores {
            assert_eq!(real_score(real_key(score, 7)), score);
        }
        assert_eq!(real_key(-0.0, 1), real_key(0.0, 1));
        assert!(real_key(1.0, 1) < real_key(1.0, 2));
    }
}
