//! Which pairs make a batch.

use std::collections::BTreeMap;

use xmbench_datasets::random::Stream;

use crate::{Error, Result, params::out_of_range};

/// How an epoch's batches are drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sampler {
    /// The pairs in random order, cut into batches; an incomplete last batch is dropped unless it is the only one.
    Shuffled,
    /// Batches of some pairs of each of some groups, such as classes, images or clusters.
    ///
    /// A batch holds `batch / each` different groups (all of them, where there are fewer) and `each` different pairs of a group,
    /// one after another; no pair comes twice in an epoch. A group is cut at random into portions of `each` pairs. These make as
    /// many batches as they can, a group being drawn in proportion to the portions that it has left.
    ///
    /// Then groups with fewer pairs left than `each` give what they have left: first those that never had more, then the
    /// remainders of others, which only complete a batch. What does not make a batch of that many groups waits for another epoch.
    Groups {
        /// The group of each training pair.
        of: Vec<u32>,
        /// Pairs of a group in a batch.
        each: usize,
    },
}

/// What a group gives to a batch, in the order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Portion {
    Full,
    /// All that a group smaller than a portion has.
    Small,
    Remainder,
}

/// Pairs of a group that are left.
struct Group {
    pairs: Vec<usize>,
    small: bool,
}

impl Group {
    /// Full portions that are left.
    fn full(&self, each: usize) -> usize {
        self.pairs.len() / each
    }

    /// What comes next, if anything is left.
    fn next(&self, each: usize) -> Option<Portion> {
        match self.pairs.len() {
            0 => None,
            left if left >= each => Some(Portion::Full),
            _ if self.small => Some(Portion::Small),
            _ => Some(Portion::Remainder),
        }
    }

    fn take(&mut self, each: usize) -> impl Iterator<Item = usize> {
        self.pairs.drain(..each.min(self.pairs.len()))
    }
}

impl Sampler {
    /// The batches of an epoch, as positions among the `pairs` training pairs.
    ///
    /// # Errors
    /// Groups of another number of pairs, no pairs of a group, or a batch that is smaller than they are.
    pub(super) fn batches(&self, pairs: usize, batch: usize, stream: &mut Stream) -> Result<Vec<Vec<usize>>> {
        let order = stream.permutation(pairs);
        let (of, each) = match self {
            Self::Shuffled => return Ok(order.chunks_exact(batch.min(pairs)).map(<[usize]>::to_vec).collect()),
            Self::Groups { of, each } => (of, *each),
        };
        if of.len() != pairs {
            return Err(Error::Numeric(format!(
                "the sampler has groups for {} pairs; expected one for each of the {pairs} training pairs",
                of.len()
            )));
        }
        if each == 0 {
            return Err(out_of_range("training", "each", "at least 1 pair of a group in a batch", each));
        }
        if batch < each {
            let expected = format!("at least the {each} pairs of a group that the sampler puts into a batch");
            return Err(out_of_range("training", "batch", &expected, batch));
        }
        let mut groups: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        order.into_iter().for_each(|pair| groups.entry(of[pair]).or_default().push(pair));
        let groups = groups.into_values().map(|pairs| Group { small: pairs.len() < each, pairs }).collect();
        Ok(grouped(groups, batch / each, each, stream))
    }
}

/// Batches of `wanted` groups, or of all of them.
fn grouped(mut groups: Vec<Group>, wanted: usize, each: usize, stream: &mut Stream) -> Vec<Vec<usize>> {
    let wanted = wanted.min(groups.len());
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for left in (1..=most(&groups, wanted, each)).rev() {
        // A group with a portion for each batch to come has to be in every one, or there would be fewer. Of the others, the
        // smallest of exponential times at rates of their portions are a draw in proportion to these without replacement.
        let mut times: Vec<(f64, usize)> = Vec::new();
        for (at, group) in groups.iter().enumerate() {
            let full = group.full(each);
            if full > 0 {
                let unit = stream.unit();
                times.push((if full >= left { unit - 1.0 } else { -(1.0 - unit).ln() / full as f64 }, at));
            }
        }
        times.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        batches.push(times[..wanted].iter().flat_map(|&(_, at)| groups[at].take(each).collect::<Vec<_>>()).collect());
    }
    loop {
        let mut next: Vec<(Portion, u64, usize)> = Vec::new();
        for (at, group) in groups.iter().enumerate() {
            next.extend(group.next(each).map(|portion| (portion, stream.bits(), at)));
        }
        next.sort_unstable();
        if next.len() < wanted || next[0].0 == Portion::Remainder {
            break;
        }
        batches.push(next[..wanted].iter().flat_map(|&(_, _, at)| groups[at].take(each).collect::<Vec<_>>()).collect());
    }
    stream.shuffle(&mut batches);
    batches
}

/// The largest number `b` of batches that full portions of `wanted` different groups can make: `sum min(full, b) >= wanted b`.
fn most(groups: &[Group], wanted: usize, each: usize) -> usize {
    let mut most = groups.iter().map(|group| group.full(each)).sum::<usize>() / wanted;
    // No step goes below the largest such number: the sum grows with `b`.
    loop {
        let can = groups.iter().map(|group| group.full(each).min(most)).sum::<usize>() / wanted;
        if can >= most {
            return most;
        }
        most = can;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use xmbench_datasets::random::Seed;

    use super::*;

    fn stream(epoch: usize) -> Stream {
        Seed(3).stream(&["shuffle", &epoch.to_string()])
    }

    /// Group `g` has `sizes[g]` pairs; groups take turns.
    fn of(sizes: &[usize]) -> Vec<u32> {
        let turns = 0..*sizes.iter().max().unwrap();
        turns.flat_map(|turn| (0..sizes.len()).filter(move |&g| turn < sizes[g]).map(|g| g as u32)).collect()
    }

    /// The groups of each batch with their pairs, after a check that no pair comes twice and that a group's pairs are together.
    fn drawn(sizes: &[usize], each: usize, batch: usize, epoch: usize) -> Vec<BTreeMap<u32, Vec<usize>>> {
        let of = of(sizes);
        let sampler = Sampler::Groups { of: of.clone(), each };
        let batches = sampler.batches(of.len(), batch, &mut stream(epoch)).unwrap();
        assert_eq!(batches, sampler.batches(of.len(), batch, &mut stream(epoch)).unwrap());
        let all: Vec<usize> = batches.iter().flatten().copied().collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        let groups = |batch: &Vec<usize>| {
            let mut groups: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
            batch.iter().for_each(|&pair| groups.entry(of[pair]).or_default().push(pair));
            assert_eq!(batch.chunk_by(|&a, &b| of[a] == of[b]).count(), groups.len());
            groups
        };
        batches.iter().map(groups).collect()
    }

    #[test]
    fn planted_groups_fill_every_batch_and_leave_no_pair() {
        // 10 groups of 12 pairs, 3 of each of 5: 8 batches take all 120 pairs.
        let first = drawn(&[12; 10], 3, 15, 0);
        assert_eq!(first.len(), 8);
        assert!(first.iter().all(|batch| batch.len() == 5 && batch.values().all(|pairs| pairs.len() == 3)));
        assert_ne!(first, drawn(&[12; 10], 3, 15, 1));
        // 17 pairs a batch hold no sixth group.
        assert!(drawn(&[12; 10], 3, 17, 0).iter().all(|batch| batch.len() == 5));
    }

    #[test]
    fn unequal_groups_make_as_many_batches_as_they_can() {
        // Portions of 2: 6, 3, 2, 1; two different groups a batch: 6 batches, and the largest group is in every one.
        for epoch in 0..20 {
            let batches = drawn(&[12, 6, 4, 2], 2, 4, epoch);
            assert_eq!(batches.len(), 6);
            assert!(batches.iter().all(|batch| batch.contains_key(&0) && batch.values().all(|pairs| pairs.len() == 2)));
        }
        // 10 and 2: the second group is used up after 2 batches.
        assert_eq!(drawn(&[20, 4], 2, 4, 0).len(), 2);
    }

    #[test]
    fn one_group_is_cut_into_portions() {
        let batches = drawn(&[11], 4, 12, 0);
        // 4 and 4; the remainder of 3 completes nothing.
        assert_eq!(batches.iter().map(|batch| batch[&0].len()).collect::<Vec<_>>(), [4, 4]);
        assert_eq!(drawn(&[3], 4, 12, 0)[0][&0].len(), 3);
    }

    #[test]
    fn small_groups_give_what_they_have_and_remainders_only_complete() {
        // 7 single pairs, 3 groups a batch: two batches, one pair waits.
        let batches = drawn(&[1; 7], 2, 6, 0);
        assert_eq!(batches.iter().map(BTreeMap::len).collect::<Vec<_>>(), [3, 3]);
        // Remainders of 5 = 2 + 2 + 1 make no batch of their own: 4 groups, 2 a batch, 8 full portions.
        let batches = drawn(&[5; 4], 2, 4, 0);
        assert_eq!(batches.len(), 4);
        assert!(batches.iter().all(|batch| batch.values().all(|pairs| pairs.len() == 2)));
        // Full portions 3 and 1, remainder 1: one batch of both, one that a remainder completes, one portion without a partner.
        let mut sizes: Vec<Vec<usize>> =
            drawn(&[6, 3], 2, 4, 0).iter().map(|b| b.values().map(Vec::len).collect()).collect();
        sizes.sort();
        assert_eq!(sizes, [[2, 1], [2, 2]]);
    }

    #[test]
    fn what_cannot_be_drawn_is_named() {
        let error = |of: Vec<u32>, each: usize, batch: usize| {
            Sampler::Groups { of, each }.batches(4, batch, &mut stream(0)).unwrap_err().to_string()
        };
        let small = error(vec![0; 4], 3, 2);
        assert!(
            small.contains("`batch`: expected at least the 3 pairs of a group") && small.contains("found 2"),
            "{small}"
        );
        assert!(error(vec![0; 3], 1, 2).contains("groups for 3 pairs; expected one for each of the 4"));
        assert!(error(vec![0; 4], 0, 2).contains("`each`: expected at least 1"));
    }

    #[test]
    fn shuffled_pairs_are_cut_as_they_come() {
        let order = stream(0).permutation(20);
        let batches = |batch| Sampler::Shuffled.batches(20, batch, &mut stream(0)).unwrap();
        assert_eq!(batches(6), [&order[..6], &order[6..12], &order[12..18]]);
        assert_eq!(batches(500), [order]);
    }
}
