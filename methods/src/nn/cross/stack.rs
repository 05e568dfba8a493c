//! Items with different numbers of vectors, lying one after another.

use std::ops::Range;

use crate::{Error, Fragments, Result};

/// A view of items, each with one or more vectors of equal length.
#[derive(Clone, Copy)]
pub struct Stack<'a, T> {
    /// Length of a vector.
    pub dim: usize,
    /// Item `i` owns vectors `offsets[i]..offsets[i + 1]`, counted from `offsets[0]`.
    pub offsets: &'a [usize],
    /// The vectors of these items.
    pub data: &'a [T],
}

impl<'a> Stack<'a, f32> {
    /// Some items of a matcher's codes.
    ///
    /// # Errors
    /// If the range reaches past the last item, or an item of it has no vector.
    pub fn of(codes: &'a Fragments, items: Range<usize>) -> Result<Self> {
        if items.end > codes.len() || items.start > items.end {
            return Err(Error::Numeric(format!("expected items within 0..{}, found {items:?}", codes.len())));
        }
        let offsets = &codes.offsets[items.start..=items.end];
        if let Some(empty) = offsets.windows(2).position(|pair| pair[0] == pair[1]) {
            return Err(Error::Numeric(format!(
                "item {} has no vectors to attend to; drop it or give it at least one",
                items.start + empty
            )));
        }
        let data = &codes.data[offsets[0] * codes.dim..offsets[offsets.len() - 1] * codes.dim];
        Ok(Self { dim: codes.dim, offsets, data })
    }
}

impl<'a, T> Stack<'a, T> {
    /// Number of items.
    pub fn items(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Number of vectors of all items.
    pub fn vectors(&self) -> usize {
        self.offsets[self.items()] - self.offsets[0]
    }

    /// Some of the items.
    pub fn slice(&self, items: Range<usize>) -> Self {
        let offsets = &self.offsets[items.start..=items.end];
        let at = |vector: usize| (vector - self.offsets[0]) * self.dim;
        Self { dim: self.dim, offsets, data: &self.data[at(offsets[0])..at(offsets[offsets.len() - 1])] }
    }

    /// Which vectors item `i` owns, counted from the first of this view.
    pub fn span(&self, i: usize) -> Range<usize> {
        self.offsets[i] - self.offsets[0]..self.offsets[i + 1] - self.offsets[0]
    }

    /// The vectors of item `i`.
    pub fn item(&self, i: usize) -> &'a [T] {
        let span = self.span(i);
        &self.data[span.start * self.dim..span.end * self.dim]
    }

    /// Consecutive runs of items with at most `limit` vectors each (but at least one item).
    pub fn blocks(&self, limit: usize) -> Vec<Range<usize>> {
        let mut blocks = Vec::new();
        let mut start = 0;
        for item in 0..self.items() {
            if item > start && self.offsets[item + 1] - self.offsets[start] > limit {
                blocks.push(start..item);
                start = item;
            }
        }
        if start < self.items() {
            blocks.push(start..self.items());
        }
        blocks
    }
}
