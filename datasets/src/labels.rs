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
