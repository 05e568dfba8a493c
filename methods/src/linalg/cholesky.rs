use faer::{
    Mat, MatMut, MatRef, Par,
    dyn_stack::{MemBuffer, MemStack},
    linalg::cholesky::llt::{factor, solve},
};

use crate::{Error, Result};

/// Cholesky factor `L` of a symmetric positive definite matrix `L Lᵀ`.
#[derive(Debug, Clone)]
pub struct Cholesky(Mat<f64>);

impl Cholesky {
    /// Factors a symmetric matrix, of which only the lower triangle is read.
    ///
    /// # Errors
    /// A matrix that is not positive definite or not finite.
    pub fn new(matrix: MatRef<'_, f64>) -> Result<Self> {
        let n = matrix.nrows();
        let mut lower = matrix.to_owned();
        let scratch = factor::cholesky_in_place_scratch::<f64>(n, Par::Seq, Default::default());
        factor::cholesky_in_place(
            lower.as_mut(),
            Default::default(),
            Par::Seq,
            MemStack::new(&mut MemBuffer::new(scratch)),
            Default::default(),
        )
        .map_err(|error| {
            Error::Numeric(format!("expected a positive definite {n}x{n} matrix, found one that is not ({error:?})"))
        })?;
        Ok(Self(lower))
    }

    /// Solves `L Lᵀ x = b` for every column of `b [n, k]`, in place.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn solve(&self, b: MatMut<'_, f64>) {
        solve::solve_in_place(self.0.as_ref(), b, Par::Seq, MemStack::new(&mut MemBuffer::new(Default::default())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solves_a_known_system_and_refuses_an_indefinite_one() {
        let matrix = Mat::from_fn(2, 2, |i, j| [[4.0, 2.0], [2.0, 3.0]][i][j]);
        let mut b = Mat::from_fn(2, 1, |i, _| [8.0, 8.0][i]);
        Cholesky::new(matrix.as_ref()).unwrap().solve(b.as_mut());
        assert!((b[(0, 0)] - 1.0).abs() < 1e-15 && (b[(1, 0)] - 2.0).abs() < 1e-15);
        let indefinite = Mat::from_fn(2, 2, |i, j| [[1.0, 2.0], [2.0, 1.0]][i][j]);
        assert!(Cholesky::new(indefinite.as_ref()).unwrap_err().to_string().contains("positive definite 2x2"));
    }
}
