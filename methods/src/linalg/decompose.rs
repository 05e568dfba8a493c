use faer::{
    Mat, MatRef, Par,
    diag::Diag,
    dyn_stack::{MemBuffer, MemStack},
    linalg::{
        evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch},
        svd::{ComputeSvdVectors, svd_scratch},
    },
};

use super::{each_column, multiply, scatter};
use crate::{Error, Result};

/// Eigenvalues of a symmetric matrix, largest first, and its eigenvectors as columns in the same order.
#[derive(Debug, Clone)]
pub struct Eigen {
    /// `n` values, descending.
    pub values: Vec<f64>,
    /// `[n, n]`.
    pub vectors: Mat<f64>,
}

/// Thin singular value decomposition `u * diag(s) * vᵀ`.
#[derive(Debug, Clone)]
pub struct Svd {
    /// Left singular vectors `[m, min(m, n)]`.
    pub u: Mat<f64>,
    /// `min(m, n)` values, descending.
    pub s: Vec<f64>,
    /// Right singular vectors `[n, min(m, n)]`.
    pub v: Mat<f64>,
}

/// Eigendecomposition of a symmetric matrix, of which only the lower triangle is read.
///
/// # Errors
/// Entries that are not finite, or no convergence.
pub fn eigen(matrix: MatRef<'_, f64>) -> Result<Eigen> {
    let n = matrix.nrows();
    finite("eigendecomposition", matrix)?;
    let (mut values, mut vectors) = (Diag::<f64>::zeros(n), Mat::zeros(n, n));
    // The entry points with an explicit `Par`: the convenient ones follow a global that depends on the machine.
    let scratch = self_adjoint_evd_scratch::<f64>(n, ComputeEigenvectors::Yes, Par::Seq, Default::default());
    self_adjoint_evd(
        matrix,
        values.as_mut(),
        Some(vectors.as_mut()),
        Par::Seq,
        MemStack::new(&mut MemBuffer::new(scratch)),
        Default::default(),
    )
    .map_err(|error| {
        Error::Numeric(format!("the eigendecomposition of a {n}x{n} matrix did not converge: {error:?}"))
    })?;
    let values = (0..n).rev().map(|j| values.column_vector()[j]).collect();
    Ok(Eigen { values, vectors: Mat::from_fn(n, n, |i, j| vectors[(i, n - 1 - j)]) })
}

/// Thin singular value decomposition.
///
/// # Errors
/// Entries that are not finite, or no convergence.
pub fn svd(matrix: MatRef<'_, f64>) -> Result<Svd> {
    let (m, n) = (matrix.nrows(), matrix.ncols());
    finite("singular value decomposition", matrix)?;
    let k = m.min(n);
    let (mut s, mut u, mut v) = (Diag::<f64>::zeros(k), Mat::zeros(m, k), Mat::zeros(n, k));
    let thin = ComputeSvdVectors::Thin;
    let scratch = svd_scratch::<f64>(m, n, thin, thin, Par::Seq, Default::default());
    faer::linalg::svd::svd(
        matrix,
        s.as_mut(),
        Some(u.as_mut()),
        Some(v.as_mut()),
        Par::Seq,
        MemStack::new(&mut MemBuffer::new(scratch)),
        Default::default(),
    )
    .map_err(|error| {
        Error::Numeric(format!("the singular value decomposition of a {m}x{n} matrix did not converge: {error:?}"))
    })?;
    Ok(Svd { u, s: (0..k).map(|j| s.column_vector()[j]).collect(), v })
}

/// `A^(-1/2)` of a symmetric matrix, of which only the lower triangle is read: eigenvalues that are not above `epsilon` are
/// dropped; `None` if none is left.
///
/// # Errors
/// As [`eigen`].
pub fn inverse_root(matrix: MatRef<'_, f64>, epsilon: f64) -> Result<Option<Mat<f64>>> {
    let Eigen { values, vectors } = eigen(matrix)?;
    let rank = values.iter().take_while(|value| **value > epsilon).count();
    let scaled = Mat::from_fn(vectors.nrows(), rank, |i, j| vectors[(i, j)] / values[j].powf(0.25));
    Ok((rank > 0).then(|| super::multiply(scaled.as_ref(), scaled.transpose())))
}

/// At least the `leading` largest singular values with their vectors.
///
/// Where few of many are wanted they come from the eigenvectors of the smaller of `A Aᵀ` and `AᵀA`, which takes a third of the time. Squares
/// lose half of the digits of small values: should the last one wanted be small beside the first, `A` itself is decomposed.
///
/// # Errors
/// As [`svd`].
pub fn leading_svd(matrix: MatRef<'_, f64>, leading: usize) -> Result<Svd> {
    let (m, n) = (matrix.nrows(), matrix.ncols());
    let k = m.min(n);
    if k < LARGE || leading == 0 || 4 * leading > k {
        return svd(matrix);
    }
    if m > n {
        let Svd { u, s, v } = leading_svd(matrix.transpose(), leading)?;
        return Ok(Svd { u: v, s, v: u });
    }
    finite("singular value decomposition", matrix)?;
    let mut squared = Mat::zeros(m, m);
    scatter(squared.as_mut(), matrix.transpose());
    let Eigen { values, vectors } = eigen(squared.as_ref())?;
    let s: Vec<f64> = values[..leading].iter().map(|value| value.max(0.0).sqrt()).collect();
    if !(s[leading - 1] > SMALL * s[0]) {
        return svd(matrix);
    }
    let u = vectors.subcols(0, leading).to_owned();
    let mut v = multiply(matrix.transpose(), u.as_ref());
    each_column(v.as_mut(), |j, column| column.iter_mut().for_each(|value| *value /= s[j]));
    Ok(Svd { u, s, v })
}

/// From so many rows and columns on the detour of [`leading_svd`] pays.
const LARGE: usize = 200;

/// Singular values below this share of the largest are not taken from squares.
const SMALL: f64 = 0.01;

fn finite(what: &str, matrix: MatRef<'_, f64>) -> Result<()> {
    for j in 0..matrix.ncols() {
        for i in 0..matrix.nrows() {
            if !matrix[(i, j)].is_finite() {
                return Err(Error::Numeric(format!(
                    "{what}: expected finite entries, found {} at row {i}, column {j}; check the features",
                    matrix[(i, j)]
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eigenvalues_of_a_known_matrix() {
        let matrix = Mat::from_fn(2, 2, |i, j| [[2.0, 1.0], [1.0, 2.0]][i][j]);
        let Eigen { values, vectors } = eigen(matrix.as_ref()).unwrap();
        assert!((values[0] - 3.0).abs() < 1e-14 && (values[1] - 1.0).abs() < 1e-14);
        assert!((vectors[(0, 0)] - vectors[(1, 0)]).abs() < 1e-14);
    }

    #[test]
    fn the_inverse_root_squares_to_the_inverse() {
        let matrix = Mat::from_fn(2, 2, |i, j| [[2.0, 1.0], [1.0, 2.0]][i][j]);
        let root = inverse_root(matrix.as_ref(), 0.0).unwrap().unwrap();
        let one = &root * &root * &matrix;
        assert!((0..2).all(|i| (0..2).all(|j| (one[(i, j)] - f64::from(u8::from(i == j))).abs() < 1e-14)));
        // Without the eigenvalue 1 only the direction (1, 1) of eigenvalue 3 is left.
        let root = inverse_root(matrix.as_ref(), 1.5).unwrap().unwrap();
        assert!((0..2).all(|i| (0..2).all(|j| (root[(i, j)] - 0.5 / 3f64.sqrt()).abs() < 1e-14)));
        assert_eq!(inverse_root(matrix.as_ref(), 3.5).unwrap(), None);
    }

    #[test]
    fn singular_values_rebuild_tall_and_wide() {
        for (m, n) in [(6, 3), (3, 6)] {
            let matrix = Mat::from_fn(m, n, |i, j| ((1 + i) * (2 + 3 * j)) as f64 + ((i * j) as f64).cos());
            let Svd { u, s, v } = svd(matrix.as_ref()).unwrap();
            assert!(s.is_sorted_by(|a, b| a >= b));
            for i in 0..m {
                for j in 0..n {
                    let rebuilt: f64 = (0..s.len()).map(|k| u[(i, k)] * s[k] * v[(j, k)]).sum();
                    assert!((rebuilt - matrix[(i, j)]).abs() < 1e-12);
                }
            }
        }
    }

    #[test]
    fn the_leading_part_is_that_of_the_whole() {
        let mut stream = xmbench_datasets::random::Seed(8).stream(&["svd"]);
        for (m, n) in [(210, 260), (260, 210)] {
            // A slowly decaying spectrum.
            let mut matrix = Mat::zeros(m, n);
            for j in 0..n {
                (0..m).for_each(|i| matrix[(i, j)] = stream.normal() / (1.0 + j as f64 / 20.0));
            }
            let (some, whole) = (leading_svd(matrix.as_ref(), 7).unwrap(), svd(matrix.as_ref()).unwrap());
            assert_eq!((some.u.ncols(), some.v.ncols(), some.s.len()), (7, 7, 7));
            for k in 0..7 {
                assert!((some.s[k] - whole.s[k]).abs() < 1e-12 * whole.s[0]);
                let sign = if some.u[(0, k)] * whole.u[(0, k)] < 0.0 { -1.0 } else { 1.0 };
                (0..m).for_each(|i| assert!((some.u[(i, k)] - sign * whole.u[(i, k)]).abs() < 1e-10));
                (0..n).for_each(|j| assert!((some.v[(j, k)] - sign * whole.v[(j, k)]).abs() < 1e-10));
            }
        }
        // Rank one: the second value is nothing beside the first, and squares would not see how little.
        let flat = Mat::from_fn(220, 220, |i, j| (i + 1) as f64 * (j + 2) as f64 * 1e-3);
        let found = leading_svd(flat.as_ref(), 2).unwrap();
        assert_eq!(found.s.len(), 220);
        assert!(found.s[1] < 1e-12 * found.s[0]);
    }

    #[test]
    fn nan_is_an_error() {
        let matrix = Mat::from_fn(2, 2, |i, _| if i == 1 { f64::NAN } else { 1.0 });
        assert!(eigen(matrix.as_ref()).unwrap_err().to_string().contains("row 1, column 0"));
        assert!(svd(matrix.as_ref()).is_err());
    }
}
