use xmbench_methods::{Codes, Result, Similarity};

use super::mismatch;

/// How the scores of images and texts are made of the codes of one matcher or of several.
///
/// Codes come as lists, one a matcher, so that a matcher that takes part twice is encoded once.
#[derive(Clone)]
pub struct Compared<'a> {
    /// A score is the mean of these members' scores; at least one.
    pub first: Vec<Member<'a>>,
    /// What orders the best of the first stage anew.
    pub second: Option<Second<'a>>,
}

/// A matcher's part in a score.
#[derive(Clone, Copy)]
pub struct Member<'a> {
    /// The place of its codes in the lists.
    pub codes: usize,
    /// How it compares them.
    pub similarity: Similarity<'a>,
}

/// A second stage. The `shortlist` best items of a query by the first stage (equal ones by lower gallery position) are ordered by
/// the second's scores, and all others stay behind them in the order of the first. The second scores no other pair.
#[derive(Clone)]
pub struct Second<'a> {
    /// A score is the mean of these members' scores; at least one.
    pub members: Vec<Member<'a>>,
    /// Items a query that it scores.
    pub shortlist: usize,
}

impl<'a> From<Similarity<'a>> for Compared<'a> {
    /// One matcher alone.
    fn from(similarity: Similarity<'a>) -> Self {
        Self { first: vec![Member { codes: 0, similarity }], second: None }
    }
}

impl Compared<'_> {
    /// Items a query that a second stage orders anew, where there is one.
    pub fn shortlist(&self) -> Option<usize> {
        self.second.as_ref().map(|second| second.shortlist)
    }
}

impl Member<'_> {
    /// Its codes among the lists.
    pub(super) fn of<'c>(&self, lists: &'c [Codes], what: &str) -> Result<&'c Codes> {
        let found =
            || mismatch(what, format!("a list of codes for matcher {}", self.codes + 1), lists.len().to_string());
        lists.get(self.codes).ok_or_else(found)
    }
}

#[cfg(test)]
mod tests;
