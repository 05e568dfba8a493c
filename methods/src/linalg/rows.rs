//! Items stand in rows: of f32 where they are kept, of f64 where they are computed with.

use faer::{Mat, MatRef};
use xmbench_datasets::Matrix;

/// Some rows in the given order, `[items.len(), cols]`.
///
/// # Panics
/// If there is no such row.
pub fn select(rows: &Matrix, items: &[usize]) -> Matrix {
    let data = items.iter().flat_map(|&item| rows.row(item)).copied().collect();
    Matrix { rows: items.len(), cols: rows.cols, data }
}

/// The same values in f64.
pub fn to_f64(rows: &Matrix) -> Mat<f64> {
    Mat::from_fn(rows.rows, rows.cols, |i, j| f64::from(rows.row(i)[j]))
}

/// The same values rounded to f32.
pub fn to_f32(matrix: MatRef<'_, f64>) -> Matrix {
    let mut out = Matrix::zeros(matrix.nrows(), matrix.ncols());
    for i in 0..out.rows {
        out.row_mut(i).iter_mut().enumerate().for_each(|(j, value)| *value = matrix[(i, j)] as f32);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_chosen_and_keep_their_places_in_either_precision() {
        let rows = Matrix { rows: 3, cols: 2, data: vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0] };
        assert_eq!(select(&rows, &[2, 0, 2]).data, [4.0, 5.0, 0.0, 1.0, 4.0, 5.0]);
        let wide = to_f64(&rows);
        assert_eq!((wide.nrows(), wide.ncols(), wide[(1, 0)]), (3, 2, 2.0));
        assert_eq!(to_f32(wide.as_ref()), rows);
        assert_eq!(to_f32(wide.transpose()).data, [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]);
        // The nearest f32 to 0.1 is 13421773 / 2^27.
        assert_eq!(to_f32(Mat::from_fn(1, 1, |_, _| 0.1).as_ref()).data, [13_421_773.0 / 134_217_728.0]);
    }
}
