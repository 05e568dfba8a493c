use std::{fmt, sync::Arc};

use rayon::prelude::*;

use crate::Result;

/// Fewer values than these are not worth a thread.
const VALUES_A_TASK: usize = 1 << 14;

/// A dense row-major matrix of f32, `[rows, cols]`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Matrix {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// `rows * cols` values, row after row.
    pub data: Vec<f32>,
}

impl Matrix {
    /// A matrix of zeros.
    pub fn zeros(rows: usize, cols: usize) -> Self {
        Self { rows, cols, data: vec![0.0; rows * cols] }
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.cols..(i + 1) * self.cols]
    }

    /// Row `i`, to be written.
    pub fn row_mut(&mut self, i: usize) -> &mut [f32] {
        &mut self.data[i * self.cols..(i + 1) * self.cols]
    }
}

/// Vectors of items, `[items, fragments, width]`, read an item at a time so that a mapped file need not fit into memory.
/// A global representation has one fragment.
pub trait Features: Send + Sync + fmt::Debug {
    /// Number of items.
    fn items(&self) -> usize;
    /// Vectors an item; 1 for a global representation.
    fn fragments(&self) -> usize;
    /// Length of one vector.
    fn width(&self) -> usize;
    /// Writes the `fragments * width` values of one item into `out`.
    ///
    /// # Errors
    /// If the value cannot be read, or is NaN or infinite.
    fn read(&self, item: usize, out: &mut [f32]) -> Result<()>;
}

/// Shared feature table.
pub type FeatureTable = Arc<dyn Features>;

impl dyn Features {
    /// The items in the given order, `[items.len(), fragments * width]`.
    ///
    /// # Errors
    /// As [`Features::read`].
    pub fn gather(&self, items: &[usize]) -> Result<Matrix> {
        let mut out = Matrix::zeros(items.len(), self.fragments() * self.width());
        let width = out.cols.max(1);
        let read = |(row, &item): (&mut [f32], &usize)| self.read(item, row);
        let rows = out.data.par_chunks_mut(width).zip(items).with_min_len(VALUES_A_TASK.div_ceil(width));
        if rows.map(read).any(|read| read.is_err()) {
            // Of several errors the first item's is told, whichever thread was faster.
            out.data.chunks_mut(width).zip(items).try_for_each(read)?;
        }
        Ok(out)
    }

    /// All items, `[items, fragments * width]`.
    ///
    /// # Errors
    /// As [`Features::read`].
    pub fn all(&self) -> Result<Matrix> {
        self.gather(&(0..self.items()).collect::<Vec<_>>())
    }
}

/// In memory, one fragment an item.
impl Features for Matrix {
    fn items(&self) -> usize {
        self.rows
    }
    fn fragments(&self) -> usize {
        1
    }
    fn width(&self) -> usize {
        self.cols
    }
    fn read(&self, item: usize, out: &mut [f32]) -> Result<()> {
        out.copy_from_slice(self.row(item));
        Ok(())
    }
}

/// Some items of another table, in a given order; with `fragments`, a row is cut into that many vectors.
#[derive(Debug, Clone)]
pub struct Subset {
    inner: FeatureTable,
    items: Arc<[usize]>,
    fragments: usize,
}

impl Subset {
    /// The given items of `inner`.
    pub fn new(inner: FeatureTable, items: impl Into<Arc<[usize]>>) -> Self {
        let fragments = inner.fragments();
        Self { inner, items: items.into(), fragments }
    }

    /// Every row of `matrix` cut into `fragments` vectors of equal width.
    ///
    /// # Panics
    /// If the row length is not a multiple of `fragments`.
    pub fn fragments_of(matrix: Matrix, fragments: usize) -> Self {
        assert_eq!(matrix.cols % fragments, 0, "rows cannot be cut into {fragments} equal fragments");
        let items = (0..matrix.rows).collect::<Vec<_>>();
        Self { inner: Arc::new(matrix), items: items.into(), fragments }
    }
}

impl Features for Subset {
    fn items(&self) -> usize {
        self.items.len()
    }
    fn fragments(&self) -> usize {
        self.fragments
    }
    fn width(&self) -> usize {
        self.inner.fragments() * self.inner.width() / self.fragments
    }
    fn read(&self, item: usize, out: &mut [f32]) -> Result<()> {
        self.inner.read(self.items[item], out)
    }
}
