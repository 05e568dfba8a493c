//! Kernels and their Gram matrices; below, what makes canonical correlation analysis with them: the [exact solution](cca) and two
//! finite feature maps, [incomplete Cholesky](incomplete) and [random Fourier features](fourier).
//!
//! ```text
//! linear       k(a, b) = a b
//! rbf          k(a, b) = exp(-gamma |a - b|²),   gamma = 1 / (2 sigma²)
//! polynomial   k(a, b) = (gamma a b + offset)^degree
//! ```

pub mod cca;
pub mod fourier;
pub mod incomplete;
#[cfg(test)]
mod tests;

use faer::Mat;
use xmbench_datasets::{Matrix, random::Stream};

use super::{accumulate, each_column, select, store::Store};
use crate::{Error, Result};

/// Rows a block of a Gram matrix.
const BLOCK: usize = 1024;

/// Rows that the median distance is taken over.
const SAMPLE: usize = 1000;

/// A kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kernel {
    /// The dot product.
    Linear,
    /// Gaussian.
    Rbf {
        /// `1 / (2 sigma²)`, above 0.
        gamma: f64,
    },
    /// A power of a shifted dot product.
    Polynomial {
        /// Factor of the dot product.
        gamma: f64,
        /// What is added to it; at least 0, or the kernel is not one.
        offset: f64,
        /// The power, at least 1.
        degree: u32,
    },
}

impl Kernel {
    /// The Gaussian kernel of bandwidth `sigma`.
    pub fn rbf(sigma: f64) -> Self {
        Self::Rbf { gamma: 0.5 / (sigma * sigma) }
    }

    /// The kernel of vectors with this dot product and these squared norms.
    fn value(self, dot: f64, squares: (f64, f64)) -> f64 {
        match self {
            Self::Linear => dot,
            Self::Rbf { gamma } => (-gamma * (squares.0 + squares.1 - 2.0 * dot).max(0.0)).exp(),
            Self::Polynomial { gamma, offset, degree } => (gamma * dot + offset).powi(degree as i32),
        }
    }

    /// The kernel of a row with itself.
    pub fn diagonal(self, rows: &Matrix) -> Vec<f64> {
        squares(rows).into_iter().map(|square| self.value(square, (square, square))).collect()
    }

    /// The kernel of every row of `a` with every row of `b`, `[a.rows, b.rows]`.
    ///
    /// # Errors
    /// Rows of different widths.
    pub fn gram(self, a: &Matrix, b: &Matrix) -> Result<Mat<f64>> {
        if a.cols != b.cols {
            return Err(Error::Numeric(format!(
                "kernel: expected vectors of {} values as in training, found {}",
                b.cols, a.cols
            )));
        }
        let mut gram = Mat::zeros(a.rows, b.rows);
        for top in (0..a.rows).step_by(BLOCK) {
            let left = columns(a, top, BLOCK.min(a.rows - top));
            for start in (0..b.rows).step_by(BLOCK) {
                let right = columns(b, start, BLOCK.min(b.rows - start));
                let tile = gram.as_mut().submatrix_mut(top, start, left.ncols(), right.ncols());
                accumulate(tile, left.transpose(), right.as_ref());
            }
        }
        if self != Self::Linear {
            let (left, right) = (squares(a), squares(b));
            each_column(gram.as_mut(), |j, column| {
                for (value, &left) in column.iter_mut().zip(&left) {
                    *value = self.value(*value, (left, right[j]));
                }
            });
        }
        Ok(gram)
    }

    /// Adds the kernel under a name.
    #[must_use]
    pub fn save(self, store: Store, name: &str) -> Store {
        let (word, numbers) = match self {
            Self::Linear => ("linear", vec![]),
            Self::Rbf { gamma } => ("rbf", vec![gamma]),
            Self::Polynomial { gamma, offset, degree } => ("polynomial", vec![gamma, offset, f64::from(degree)]),
        };
        store.with_text(name, word).with_vector(name, &numbers)
    }

    /// Reads what [`Kernel::save`] added.
    ///
    /// # Errors
    /// If it is not there or of another form.
    pub fn load(store: &Store, name: &str) -> Result<Self> {
        match (store.text(name)?, &store.vector(name)?[..]) {
            ("linear", []) => Ok(Self::Linear),
            ("rbf", &[gamma]) => Ok(Self::Rbf { gamma }),
            ("polynomial", &[gamma, offset, degree]) => Ok(Self::Polynomial { gamma, offset, degree: degree as u32 }),
            (word, numbers) => Err(Error::Numeric(format!(
                "saved kernel `{name}`: expected linear, rbf or polynomial with its numbers, found {word} with {numbers:?}"
            ))),
        }
    }
}

/// The median distance between rows, over at most 1000 of them that `stream` chooses; equal rows are left out.
///
/// # Errors
/// Rows that are all the same, or not finite.
pub fn median_distance(rows: &Matrix, stream: &mut Stream) -> Result<f64> {
    let mut chosen = stream.permutation(rows.rows);
    chosen.truncate(SAMPLE);
    let sample = select(rows, &chosen);
    let wrong = |found: &str| {
        Err(Error::Numeric(format!("median distance: expected vectors that differ, found {found}; check the features")))
    };
    if sample.data.iter().any(|value| !value.is_finite()) {
        return wrong("NaN or infinity");
    }
    let (dots, squares) = (Kernel::Linear.gram(&sample, &sample)?, squares(&sample));
    let pairs = (0..sample.rows).flat_map(|j| (0..j).map(move |i| (i, j)));
    let mut distances: Vec<f64> = pairs.map(|(i, j)| (squares[i] + squares[j] - 2.0 * dots[(i, j)]).max(0.0)).collect();
    // What rounding leaves of the distance of equal rows is no distance.
    let scale = squares.iter().copied().fold(0.0, f64::max);
    distances.retain(|square| *square > 1e-12 * scale);
    if distances.is_empty() {
        return wrong("the same vector for every item");
    }
    let middle = distances.len() / 2;
    Ok(distances.select_nth_unstable_by(middle, f64::total_cmp).1.sqrt())
}

/// Squared norms of rows.
fn squares(rows: &Matrix) -> Vec<f64> {
    (0..rows.rows).map(|i| rows.row(i).iter().map(|&value| f64::from(value).powi(2)).sum()).collect()
}

/// `len` rows from `start` on, as columns `[rows.cols, len]`.
fn columns(rows: &Matrix, start: usize, len: usize) -> Mat<f64> {
    let mut out = Mat::zeros(rows.cols, len);
    each_column(out.as_mut(), |i, column| {
        column.iter_mut().zip(rows.row(start + i)).for_each(|(out, &value)| *out = f64::from(value));
    });
    out
}

/// Columns of f64 as rows of f32, from row `start` of `out` on.
fn narrow(from: &Mat<f64>, out: &mut Matrix, start: usize) {
    for i in 0..from.ncols() {
        out.row_mut(start + i).iter_mut().zip(from.col_as_slice(i)).for_each(|(out, &value)| *out = value as f32);
    }
}
