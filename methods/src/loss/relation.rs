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
///
/// Three pairs, of which the first two are of one image: its other text is no negative.
///
/// ```
/// use xmbench_methods::loss::{Relation, Relations};
///
/// let image = [7, 7, 9];
/// let relations = Relations::new(3, 3, |i, j| match () {
///     () if i == j => Relation::Positive,
///     () if image[i] == image[j] => Relation::Ignored,
///     () => Relation::Negative,
/// });
/// assert_eq!(relations.row(0), [Relation::Positive, Relation::Ignored, Relation::Negative]);
/// assert_eq!(relations.count(Relation::Negative), 4);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relations {
    rows: usize,
    columns: usize,
    entries: Vec<Relation>,
}

impl Relations {
    /// The relation of each row `i` to each column `j`.
    pub fn new(rows: usize, columns: usize, mut relation: impl FnMut(usize, usize) -> Relation) -> Self {
        let mut entries = Vec::with_capacity(rows * columns);
        for i in 0..rows {
            entries.extend((0..columns).map(|j| relation(i, j)));
        }
        Self { rows, columns, entries }
    }

    /// `b` pairs: positives on the diagonal, everything else negative.
    pub fn diagonal(b: usize) -> Self {
        let mut entries = vec![Relation::Negative; b * b];
        entries.iter_mut().step_by(b + 1).for_each(|entry| *entry = Relation::Positive);
        Self { rows: b, columns: b, entries }
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

    /// All relations, row after row.
    pub(super) fn entries(&self) -> &[Relation] {
        &self.entries
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

    /// Refuses a matrix of another shape, and relations that are no batch of pairs: pair `i` stands at `(i, i)`.
    pub(super) fn fit_pairs(&self, loss: &str, matrix: &Tensor) -> Result<()> {
        self.fit(loss, matrix)?;
        let [rows, columns] = self.shape();
        if rows != columns {
            return Err(Error::Numeric(format!(
                "{loss}: expected as many rows as columns, found {rows} and {columns}"
            )));
        }
        match (0..rows).find(|&i| self.get(i, i) != Relation::Positive) {
            Some(i) => Err(Error::Numeric(format!(
                "{loss}: expected positives on the diagonal, found {:?} at {i}",
                self.get(i, i)
            ))),
            None => Ok(()),
        }
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
        assert_eq!(relations.t().t(), relations);
        let two = Relations::diagonal(2);
        assert_eq!([two.row(0), two.row(1)], [[Positive, Negative], [Negative, Positive]]);
        assert_eq!(Relations::new(0, 0, |_, _| Positive).t().shape(), [0, 0]);
    }
}
