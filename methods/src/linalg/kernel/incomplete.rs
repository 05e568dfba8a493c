//! Incomplete Cholesky decomposition of a Gram matrix with greedy pivots (Bach, Jordan, JMLR 3, 2002; the partial Gram-Schmidt
//! orthogonalisation of Hardoon et al. 2004).
//!
//! ```text
//! r = diag K;   repeat:  j = argmax r,   l = (K_.j - L L_j.ᵀ) / sqrt(r_j),   r -= l²,   append l to L
//! phi(a) = R^-1 k(pivots, a),   R = the rows of L at the pivots, lower triangular
//! ```
//!
//! `L Lᵀ` misses `sum r` of the trace of `K`. Only the chosen columns of `K` are ever computed.

use faer::{Mat, Par, linalg::triangular_solve::solve_lower_triangular_in_place};
use rayon::prelude::*;
use xmbench_datasets::Matrix;

use super::{BLOCK, Kernel, columns, narrow, squares};
use crate::{
    Error, Result,
    linalg::{select, store::Store, to_f32},
};

/// What counts as nothing of the trace: rounding errors of the residual.
const NOTHING: f64 = 1e-12;

/// A decomposition, as a map of vectors to features.
#[derive(Debug, Clone, PartialEq)]
pub struct Incomplete {
    kernel: Kernel,
    /// `[m, p]`.
    pivots: Matrix,
    /// `R` `[m, m]`.
    factor: Mat<f64>,
}

impl Incomplete {
    /// Chooses at most `most` pivots among `rows`, and stops when at most `tolerance` of the trace is missed.
    ///
    /// # Errors
    /// Rows without any extent under the kernel, or that are not finite.
    pub fn fit(kernel: Kernel, rows: &Matrix, tolerance: f64, most: usize) -> Result<Self> {
        let n = rows.rows;
        let most = most.min(n);
        let mut residual = kernel.diagonal(rows);
        let squares = squares(rows);
        let trace: f64 = residual.iter().sum();
        if !(trace > 0.0 && trace.is_finite()) {
            return Err(Error::Numeric(format!(
                "incomplete Cholesky: expected vectors whose kernel has a positive finite trace, found {trace}; check the features"
            )));
        }
        // Row `i` of `L`; the columns come one by one.
        let mut factor = vec![0.0; n * most];
        let mut chosen: Vec<usize> = Vec::new();
        while chosen.len() < most && residual.iter().sum::<f64>() > tolerance.max(NOTHING) * trace {
            let (pivot, &largest) =
                residual.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).expect("rows are there");
            if largest <= NOTHING * trace / n as f64 {
                break;
            }
            let (step, root) = (chosen.len(), largest.sqrt());
            let own = factor[pivot * most..pivot * most + step].to_vec();
            let row = rows.row(pivot);
            factor.par_chunks_mut(most).zip(&mut residual).enumerate().for_each(|(i, (l, residual))| {
                let other = rows.row(i);
                let dot = sum(row.len(), |j| f64::from(other[j]) * f64::from(row[j]));
                let k = kernel.value(dot, (squares[i], squares[pivot]));
                l[step] = (k - sum(step, |j| l[j] * own[j])) / root;
                *residual = (*residual - l[step] * l[step]).max(0.0);
            });
            residual[pivot] = 0.0;
            chosen.push(pivot);
        }
        let m = chosen.len();
        // What stands above the diagonal is rounding error: a pivot has no residual left.
        let factor = Mat::from_fn(m, m, |i, j| if i < j { 0.0 } else { factor[chosen[i] * most + j] });
        Ok(Self { kernel, pivots: select(rows, &chosen), factor })
    }

    /// Number of features.
    pub fn rank(&self) -> usize {
        self.pivots.rows
    }

    /// The features of rows, `[rows, m]`.
    ///
    /// # Errors
    /// Rows of another width.
    pub fn apply(&self, rows: &Matrix) -> Result<Matrix> {
        let mut out = Matrix::zeros(rows.rows, self.rank());
        for start in (0..rows.rows).step_by(BLOCK) {
            let len = BLOCK.min(rows.rows - start);
            let data = rows.data[start * rows.cols..(start + len) * rows.cols].to_vec();
            let mut block = self.kernel.gram(&self.pivots, &Matrix { rows: len, cols: rows.cols, data })?;
            block.as_mut().par_col_chunks_mut(64).for_each(|piece| {
                solve_lower_triangular_in_place(self.factor.as_ref(), piece, Par::Seq);
            });
            narrow(&block, &mut out, start);
        }
        Ok(out)
    }

    /// Adds the map under a name.
    #[must_use]
    pub fn save(&self, store: Store, name: &str) -> Store {
        let store = self.kernel.save(store, &format!("{name}.kernel"));
        store
            .with_matrix(&format!("{name}.pivots"), columns(&self.pivots, 0, self.rank()).as_ref())
            .with_matrix(&format!("{name}.factor"), self.factor.as_ref())
    }

    /// Reads what [`Incomplete::save`] added.
    ///
    /// # Errors
    /// If it is not there, or pivots and factor do not belong together.
    pub fn load(store: &Store, name: &str) -> Result<Self> {
        let kernel = Kernel::load(store, &format!("{name}.kernel"))?;
        let (points, factor) = (store.matrix(&format!("{name}.pivots"))?, store.matrix(&format!("{name}.factor"))?);
        let m = points.ncols();
        if (factor.nrows(), factor.ncols()) != (m, m) {
            return Err(Error::Numeric(format!(
                "saved features `{name}`: expected a factor [{m}, {m}], found [{}, {}]",
                factor.nrows(),
                factor.ncols()
            )));
        }
        Ok(Self { kernel, pivots: to_f32(points.transpose()), factor })
    }
}

/// The sum of `term(0..n)` in eight running sums: an order of its own, and one that vectorises.
fn sum(n: usize, term: impl Fn(usize) -> f64) -> f64 {
    let mut lanes = [0.0; 8];
    let whole = n / 8 * 8;
    for start in (0..whole).step_by(8) {
        (0..8).for_each(|lane| lanes[lane] += term(start + lane));
    }
    lanes.iter().sum::<f64>() + (whole..n).map(term).sum::<f64>()
}
