//! What the entries of a batch's pair matrix mean.

use candle_core::Tensor;

use crate::{Error, Result};

/// What an entry of a batch's pair matrix means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// The two belong together.
    Positive,
    /// They do not.
    Negative,
    /// The entry takes no part: neither its value nor its gradient is looked at.
    Ignored,
}

/// The relations of all rows (images, anchors) to all columns (texts, positives) of a batch, row after row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relations {
    rows: usize,
    columns: usize,
    entries: Vec<Relation>,
}

impl Relations {
    /// The relation of each row `i` to each column `j`.
    pub fn new(rows: usize, columns: usize, mut relation: impl FnMut(usize, usize) -> Relation) -> Self {
        let entries = (0..rows * columns).map(|at| relation(at / columns, at % columns)).collect();
        Self { rows, columns, entries }
    }

    /// `b` pairs: positives on the diagonal, everything else negative.
    pub fn diagonal(b: usize) -> Self {
        Self::new(b, b, |i, j| if i == j { Relation::Positive } else { Relation::Negative })
    }

    /// Rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        [self.rows, self.columns]
    }

    /// The relation of row `i` to column `j`.
    ///
    /// # Panics
    /// If there is no such row or column.
    pub fn get(&self, i: usize, j: usize) -> Relation {
        self.row(i)[j]
    }

    /// The relations of row `i`.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, i: usize) -> &[Relation] {
        &self.entries[i * self.columns..(i + 1) * self.columns]
    }

    /// The relations of the columns to the rows.
    #[must_use]
    pub fn t(&self) -> Self {
        Self::new(self.columns, self.rows, |i, j| self.get(j, i))
    }

    /// Whether each entry takes no part, row after row: the exceptions of [`hinge_except`](super::hinge_except).
    pub fn ignored(&self) -> Vec<bool> {
        self.entries.iter().map(|&entry| entry == Relation::Ignored).collect()
    }

    /// How many entries have a relation.
    pub fn count(&self, relation: Relation) -> usize {
        self.entries.iter().filter(|&&entry| entry == relation).count()
    }

    /// Refuses a matrix of another shape.
    pub(super) fn fit(&self, loss: &str, matrix: &Tensor) -> Result<()> {
        if *matrix.dims() == self.shape() {
            return Ok(());
        }
        Err(Error::Numeric(format!(
            "{loss}: expected a matrix of the relations' shape {:?}, found {:?}",
            self.shape(),
            matrix.dims()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::{Relation::*, *};

    #[test]
    fn rows_become_columns() {
        let relations = Relations::new(2, 3, |i, j| [[Positive, Negative, Ignored], [Negative; 3]][i][j]);
        assert_eq!((relations.shape(), relations.t().shape()), ([2, 3], [3, 2]));
        assert_eq!(relations.row(0), [Positive, Negative, Ignored]);
        assert_eq!([0, 1, 2].map(|j| relations.t().get(j, 0)), [Positive, Negative, Ignored]);
        assert_eq!([Positive, Negative, Ignored].map(|kind| relations.count(kind)), [1, 4, 1]);
        assert_eq!(relations.ignored(), [false, false, true, false, false, false]);
        assert_eq!(relations.t().t(), relations);
        let two = Relations::diagonal(2);
        assert_eq!([two.row(0), two.row(1)], [[Positive, Negative], [Negative, Positive]]);
        assert_eq!(Relations::new(0, 0, |_, _| Positive).t().shape(), [0, 0]);
    }
}
