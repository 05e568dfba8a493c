/// The classes of every item; an item may have several, or none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Labels {
    /// Number of classes.
    pub classes: usize,
    /// Sorted class numbers of each item.
    pub of: Vec<Vec<u32>>,
}

impl Labels {
    /// Whether two label sets share a class: the relevance of category retrieval.
    pub fn share(a: &[u32], b: &[u32]) -> bool {
        let (mut i, mut j) = (0, 0);
        while i < a.len() && j < b.len() {
            match a[i].cmp(&b[j]) {
                std::cmp::Ordering::Less => i += 1,
                std::cmp::Ordering::Greater => j += 1,
                std::cmp::Ordering::Equal => return true,
            }
        }
        false
    }

    /// The labels of the given items, in that order.
    pub fn subset(&self, items: &[usize]) -> Self {
        Self { classes: self.classes, of: items.iter().map(|&i| self.of[i].clone()).collect() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sharing_is_having_a_common_member(a: BTreeSet<u8>, b: BTreeSet<u8>) {
            let list = |set: &BTreeSet<u8>| set.iter().map(|&class| u32::from(class)).collect::<Vec<_>>();
            prop_assert_eq!(Labels::share(&list(&a), &list(&b)), !a.is_disjoint(&b));
        }

        #[test]
        fn a_subset_holds_the_labels_of_its_items(of in prop::collection::vec(prop::collection::vec(0u32..5, 0..3), 1..20)) {
            let labels = Labels { classes: 5, of: of.clone() };
            let items: Vec<usize> = (0..of.len()).rev().step_by(2).collect();
            let subset = labels.subset(&items);
            prop_assert_eq!(subset.classes, 5);
            prop_assert!(items.iter().zip(&subset.of).all(|(&item, found)| *found == of[item]));
        }
    }
}
