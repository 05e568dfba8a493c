//! Where canonical correlation analysis of any kind sends its vectors.
//!
//! ```text
//! u = (x - mean) W                              (1)
//! W rho^a: column k of W times rho_k^a          (2)  directions that correlate more count more
//! ```

use std::ops::Range;

use faer::Mat;
use xmbench_datasets::Matrix;

use super::{accumulate, each_column, store::Store};
use crate::{Error, Result};

/// Rows that are projected at once.
const BLOCK: usize = 1024;

/// An affine map `(row - mean) * weights`.
#[derive(Debug, Clone, PartialEq)]
pub struct Projection {
    /// `p` column means over the pairs.
    pub mean: Vec<f64>,
    /// `[p, d]`; `wᵀ R w = 1` for each column (of the standardised view, if it was standardised).
    pub weights: Mat<f64>,
}

impl Projection {
    /// Projects `rows [n, p]` to `[n, d]`, equation (1).
    ///
    /// # Errors
    /// Rows of another width.
    pub fn apply(&self, rows: &Matrix) -> Result<Mat<f64>> {
        if rows.cols != self.mean.len() {
            return Err(Error::Numeric(format!(
                "projection: expected vectors of {} values as in training, found {}",
                self.mean.len(),
                rows.cols
            )));
        }
        let mut out = Mat::zeros(rows.rows, self.weights.ncols());
        for start in (0..rows.rows).step_by(BLOCK) {
            let len = BLOCK.min(rows.rows - start);
            let block = centred(rows, start..start + len, &self.mean, None);
            accumulate(out.as_mut().subrows_mut(start, len), block.transpose(), self.weights.as_ref());
        }
        Ok(out)
    }

    /// The same directions, each times its correlation to the given power, equation (2).
    #[must_use]
    pub fn weighted(self, rho: &[f64], power: f64) -> Self {
        Self { weights: weighted(&self.weights, rho, power), ..self }
    }

    /// Adds mean and weights under a name.
    #[must_use]
    pub fn save(&self, store: Store, name: &str) -> Store {
        store
            .with_vector(&format!("{name}.mean"), &self.mean)
            .with_matrix(&format!("{name}.weights"), self.weights.as_ref())
    }

    /// Reads what [`Projection::save`] added.
    ///
    /// # Errors
    /// If it is not there, or mean and weights do not belong together.
    pub fn load(store: &Store, name: &str) -> Result<Self> {
        let key = format!("{name}.weights");
        let (mean, weights) = (store.vector(&format!("{name}.mean"))?, store.matrix(&key)?);
        store.expect(&key, "rows", mean.len(), weights.nrows())?;
        Ok(Self { mean, weights })
    }
}

/// Columns times `rho^power`, equation (2).
pub(super) fn weighted(weights: &Mat<f64>, rho: &[f64], power: f64) -> Mat<f64> {
    Mat::from_fn(weights.nrows(), weights.ncols(), |i, j| weights[(i, j)] * rho[j].powf(power))
}

/// Some rows as columns, `[rows.cols, range.len()]`, centred and perhaps scaled.
pub(super) fn centred(rows: &Matrix, range: Range<usize>, mean: &[f64], scale: Option<&[f64]>) -> Mat<f64> {
    let mut out = Mat::zeros(rows.cols, range.len());
    each_column(out.as_mut(), |i, column| add_centred(column, rows.row(range.start + i), mean, scale));
    out
}

/// `out += (row - mean) / scale`.
pub(super) fn add_centred(out: &mut [f64], row: &[f32], mean: &[f64], scale: Option<&[f64]>) {
    let values = row.iter().zip(mean).map(|(&value, mean)| f64::from(value) - mean);
    match scale {
        None => out.iter_mut().zip(values).for_each(|(out, value)| *out += value),
        Some(scale) => out.iter_mut().zip(values).zip(scale).for_each(|((out, value), scale)| *out += value / scale),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_centred_turned_and_weighed() {
        let projection =
            Projection { mean: vec![1.0, 2.0], weights: Mat::from_fn(2, 2, |i, j| [[1.0, 0.0], [1.0, 2.0]][i][j]) };
        let rows = Matrix { rows: 2, cols: 2, data: vec![1.0, 2.0, 4.0, 3.0] };
        let plain = projection.apply(&rows).unwrap();
        // (3, 1) goes to (3 + 1, 2).
        assert_eq!([plain[(0, 0)], plain[(0, 1)], plain[(1, 0)], plain[(1, 1)]], [0.0, 0.0, 4.0, 2.0]);
        let weighed = projection.clone().weighted(&[0.5, 0.25], 2.0).apply(&rows).unwrap();
        assert_eq!([weighed[(1, 0)], weighed[(1, 1)]], [1.0, 0.125]);
        let error = projection.apply(&Matrix::zeros(1, 3)).unwrap_err().to_string();
        assert!(error.contains("expected vectors of 2 values as in training, found 3"), "{error}");
    }

    #[test]
    fn what_is_saved_comes_back_and_must_fit() {
        let projection = Projection { mean: vec![0.1, 0.2], weights: Mat::from_fn(2, 3, |i, j| (i + j) as f64 / 3.0) };
        let store = projection.save(Store::default(), "x");
        assert_eq!(Projection::load(&store, "x").unwrap(), projection);
        let error = Projection::load(&store.with_vector("x.mean", &[0.0]), "x").unwrap_err().to_string();
        assert!(error.contains("`x.weights` with 1 rows"), "{error}");
    }
}
