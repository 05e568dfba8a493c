use crate::Matrix;

/// Sparse rows, as of a bag of words: `[rows, cols]`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SparseRows {
    /// Number of columns.
    pub cols: usize,
    /// `(column, value)` of each row, ascending by column.
    pub rows: Vec<Vec<(u32, f32)>>,
}

impl SparseRows {
    /// The same values as a dense matrix.
    pub fn dense(&self) -> Matrix {
        let mut out = Matrix::zeros(self.rows.len(), self.cols);
        for (i, row) in self.rows.iter().enumerate() {
            for &(column, value) in row {
                out.row_mut(i)[column as usize] = value;
            }
        }
        out
    }

    /// The given rows, in that order.
    pub fn subset(&self, rows: &[usize]) -> Self {
        Self { cols: self.cols, rows: rows.iter().map(|&i| self.rows[i].clone()).collect() }
    }
}
