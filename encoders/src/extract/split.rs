//! Which pictures are trained on, selected on and tested on.
//!
//! Near duplicates of one another (a chain of pictures whose vectors have a cosine of at least `near`) come into one split: else a test picture is
//! found because its twin was trained on. Groups are shuffled by the seed; each goes to the test split while it has room for all of it, then to the
//! validation split, and to the training split otherwise.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xmbench_datasets::{Error, FeatureTable, Matrix, Result, captions::Captioned, near_duplicates, random::Seed};

/// How splits are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Drawn {
    /// Root seed.
    pub seed: u64,
    /// Share of the pictures that settings are selected on.
    pub val: f64,
    /// Share that is tested on.
    pub test: f64,
    /// The cosine from which on two pictures are near duplicates.
    pub near: f32,
}

impl Default for Drawn {
    fn default() -> Self {
        Self { seed: 1, val: 0.1, test: 0.1, near: 0.95 }
    }
}

/// Where splits come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "lowercase")]
pub enum Splitting {
    /// Captions or lists say so.
    Given,
    /// Drawn from a seed.
    Drawn(Drawn),
}

impl Splitting {
    /// Of pictures, some of which may have a split; `drawn` is what was asked for, and goes before what captions say.
    pub(super) fn of(items: &mut [Captioned], drawn: Option<Drawn>) -> Result<Self> {
        if let Some(drawn) = drawn {
            let share = |name: &str, share: f64| match (0.0..1.0).contains(&share) {
                true => Ok(()),
                false => Err(Error::option(name, "a share from 0 to below 1", share.to_string(), "0.1 is a tenth")),
            };
            share("val", drawn.val)?;
            share("test", drawn.test)?;
            if drawn.test == 0.0 || drawn.val + drawn.test >= 1.0 {
                let found = format!("{} and {}", drawn.val, drawn.test);
                let expected =
                    "shares for validation and testing that leave some pictures to train on, and some to test on";
                return Err(Error::option("val, test", expected, found, "0.1 and 0.1 are usual"));
            }
            if !(0.0..=1.0).contains(&drawn.near) {
                return Err(Error::option("near", "a cosine from 0 to 1", drawn.near.to_string(), "0.95 is usual"));
            }
            items.iter_mut().for_each(|item| item.split = None);
            return Ok(Self::Drawn(drawn));
        }
        Ok(match items.iter().any(|item| item.split.is_some()) {
            true => Self::Given,
            false => Self::Drawn(Drawn::default()),
        })
    }
}

/// The split of each of the pictures with these vectors, and how many groups they are.
pub(super) fn draw(vectors: Matrix, drawn: Drawn) -> Result<(Vec<&'static str>, usize)> {
    let n = vectors.rows;
    let first = near_duplicates(&(Arc::new(vectors) as FeatureTable), drawn.near)?;
    let mut members = vec![Vec::new(); n];
    first.iter().enumerate().for_each(|(item, &first)| members[first].push(item));
    let mut groups: Vec<Vec<usize>> = members.into_iter().filter(|group| !group.is_empty()).collect();
    Seed(drawn.seed).stream(&["extract", "split"]).shuffle(&mut groups);
    let mut room =
        [("test", drawn.test), ("dev", drawn.val)].map(|(name, share)| (name, (share * n as f64).round() as usize));
    let mut splits = vec!["train"; n];
    for group in &groups {
        if let Some((name, left)) = room.iter_mut().find(|(_, left)| *left >= group.len()) {
            *left -= group.len();
            group.iter().for_each(|&item| splits[item] = *name);
        }
    }
    Ok((splits, groups.len()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Forty pictures of which each has a twin at an angle whose cosine is 0.99, and every fourth a third one.
    fn pictures() -> (Matrix, Vec<usize>) {
        let mut stream = Seed(3).stream(&["twins"]);
        let (mut data, mut group) = (Vec::new(), Vec::new());
        for one in 0..40 {
            let first: Vec<f32> = (0..30).map(|_| stream.normal() as f32).collect();
            for twin in 0..2 + usize::from(one % 4 == 0) {
                let size = if twin == 0 { 0.0 } else { 0.08 };
                data.extend(first.iter().map(|x| x + size * stream.normal() as f32));
                group.push(one);
            }
        }
        (Matrix { rows: group.len(), cols: 30, data }, group)
    }

    #[test]
    fn near_duplicates_stay_together_and_shares_are_kept() {
        let (vectors, group) = pictures();
        let drawn = Drawn { seed: 5, val: 0.2, test: 0.3, near: 0.95 };
        let (splits, groups) = draw(vectors.clone(), drawn).unwrap();
        assert_eq!(groups, 40);
        let pairs: BTreeSet<(usize, &str)> = group.iter().copied().zip(splits.iter().copied()).collect();
        assert_eq!(pairs.len(), 40, "no group is in two splits");
        let count = |name: &str| splits.iter().filter(|split| **split == name).count();
        // 90 pictures: 27 and 18, of which groups of two and three fill all but one.
        assert!((26..=27).contains(&count("test")) && (17..=18).contains(&count("dev")), "{}", count("test"));
        assert_eq!(draw(vectors.clone(), drawn).unwrap().0, splits);
        assert_ne!(draw(vectors, Drawn { seed: 6, ..drawn }).unwrap().0, splits);
    }
}
