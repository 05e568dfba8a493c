//! Latent semantic analysis (Deerwester et al. 1990): sparse rows are projected onto the right singular vectors of the
//! training rows, `A = U S Vᵀ`, `row -> row * V_k`.
//!
//! `V` are the eigenvectors of the Gram matrix `AᵀA [columns, columns]`: exactly, where it is small; by randomised subspace
//! iteration (Halko, Martinsson, Tropp, SIAM Review 53(2), 2011) otherwise.

use faer::Mat;
use xmbench_datasets::{Matrix, SparseRows, random::Stream};

use super::{Eigen, eigen, flip, largest, multiply, scatter};
use crate::{Error, Result};

/// Up to so many columns, or thrice as many as are iterated, the Gram matrix is decomposed as a whole: that is then faster.
const EXACT: usize = 1024;
/// Directions that are iterated beyond those wanted.
const OVERSAMPLING: usize = 32;
/// Passes over the rows; word counts have slowly decaying spectra.
const ITERATIONS: usize = 10;
/// Eigenvalues of the Gram matrix below this share of the first are rounding.
const NOTHING: f64 = 1e-13;
/// Eigenvalues that differ by less than this share are one value: which of its vectors are found first, rounding decides.
const EQUAL: f64 = 1e-6;

/// A fitted projection.
#[derive(Debug, Clone, PartialEq)]
pub struct Lsa {
    /// `[columns, k]`, orthonormal columns; the entry of largest modulus of each is positive.
    pub basis: Mat<f64>,
    /// `k` singular values, descending.
    pub singular_values: Vec<f64>,
}

impl Lsa {
    /// The leading right singular vectors of `rows`: at most `components`, no more than the rows' rank, and none of a group of equal
    /// singular values that does not fit as a whole, as words of one text each make them (unless half the components were lost by
    /// that); `stream` starts the iteration.
    ///
    /// # Errors
    /// More components than columns or rows, or values that are not finite.
    pub fn fit(rows: &SparseRows, components: usize, stream: &mut Stream) -> Result<Self> {
        let most = rows.cols.min(rows.rows.len());
        if components == 0 || components > most {
            return Err(Error::Numeric(format!(
                "latent semantic analysis: expected 1 to {most} components ({} rows, {} columns), found {components}",
                rows.rows.len(),
                rows.cols
            )));
        }
        if rows.cols <= EXACT.max(3 * (components + OVERSAMPLING)) {
            let Eigen { values, vectors } = eigen(gram(rows).as_ref())?;
            return Ok(Self::leading(vectors, &values, kept(&values, components)));
        }
        let width = (components + OVERSAMPLING).min(rows.cols);
        let mut q = Mat::from_fn(rows.cols, width, |_, _| stream.normal());
        for _ in 0..ITERATIONS {
            q = orthonormal(&gram_times(rows, &q))?;
        }
        // Once more: the first time leaves what rounding did to nearly parallel columns.
        q = orthonormal(&q)?;
        // Rayleigh-Ritz: the best vectors inside the subspace.
        let Eigen { values, vectors } = eigen(multiply(q.transpose(), gram_times(rows, &q).as_ref()).as_ref())?;
        Ok(Self::leading(multiply(q.as_ref(), vectors.as_ref()), &values, kept(&values, components)))
    }

    /// Projects rows to `[rows, k]`; an empty row goes to zero.
    ///
    /// # Errors
    /// Rows of another width.
    pub fn project(&self, rows: &SparseRows) -> Result<Matrix> {
        if rows.cols != self.basis.nrows() {
            return Err(Error::Numeric(format!(
                "latent semantic analysis: expected rows over {} words as in training, found {}",
                self.basis.nrows(),
                rows.cols
            )));
        }
        let k = self.basis.ncols();
        let mut out = Matrix::zeros(rows.rows.len(), k);
        for (i, row) in rows.rows.iter().enumerate() {
            for (j, value) in out.row_mut(i).iter_mut().enumerate() {
                let sum: f64 = row.iter().map(|&(c, v)| f64::from(v) * self.basis[(c as usize, j)]).sum();
                *value = sum as f32;
            }
        }
        Ok(out)
    }

    fn leading(vectors: Mat<f64>, values: &[f64], components: usize) -> Self {
        let mut basis = vectors.subcols(0, components).to_owned();
        for j in 0..components {
            if largest(&basis, j) < 0.0 {
                flip(&mut basis, j);
            }
        }
        Self { basis, singular_values: values[..components].iter().map(|l| l.max(0.0).sqrt()).collect() }
    }
}

/// How many of the descending eigenvalues to keep; see [`Lsa::fit`].
fn kept(values: &[f64], components: usize) -> usize {
    let rank = values.iter().take_while(|l| **l > NOTHING * values[0]).count().max(1);
    if components >= rank {
        return rank;
    }
    let last = values[components - 1];
    if values[components] < last * (1.0 - EQUAL) {
        return components;
    }
    let group = values.partition_point(|l| *l > last * (1.0 + EQUAL));
    if 2 * group < components { components } else { group }
}

/// An orthonormal basis of the columns' span: `Y E diag(l)^(-1/2)` with the eigenvectors of `YᵀY`, which is one product where a
/// decomposition of the tall `Y` would be many.
fn orthonormal(y: &Mat<f64>) -> Result<Mat<f64>> {
    let mut gram = Mat::zeros(y.ncols(), y.ncols());
    scatter(gram.as_mut(), y.as_ref());
    let Eigen { values, vectors } = eigen(gram.as_ref())?;
    let rank = values.iter().take_while(|l| **l > NOTHING * values[0]).count();
    let scaled = Mat::from_fn(y.ncols(), rank, |i, j| vectors[(i, j)] / values[j].sqrt());
    Ok(multiply(y.as_ref(), scaled.as_ref()))
}

/// `AᵀA`.
fn gram(rows: &SparseRows) -> Mat<f64> {
    let mut out = Mat::zeros(rows.cols, rows.cols);
    for row in &rows.rows {
        for &(i, a) in row {
            row.iter().for_each(|&(j, b)| out[(i as usize, j as usize)] += f64::from(a) * f64::from(b));
        }
    }
    out
}

/// `AᵀA q`, row by row, without the Gram matrix.
fn gram_times(rows: &SparseRows, q: &Mat<f64>) -> Mat<f64> {
    let width = q.ncols();
    let from: Vec<f64> = (0..rows.cols).flat_map(|i| (0..width).map(move |j| q[(i, j)])).collect();
    let mut to = vec![0.0; from.len()];
    let mut image = vec![0.0; width];
    for row in &rows.rows {
        image.fill(0.0);
        for &(c, v) in row {
            let line = &from[c as usize * width..][..width];
            image.iter_mut().zip(line).for_each(|(sum, x)| *sum += f64::from(v) * x);
        }
        for &(c, v) in row {
            let line = &mut to[c as usize * width..][..width];
            line.iter_mut().zip(&image).for_each(|(sum, x)| *sum += f64::from(v) * x);
        }
    }
    Mat::from_fn(rows.cols, width, |i, j| to[i * width + j])
}

#[cfg(test)]
mod tests {
    use xmbench_datasets::random::Seed;

    use super::*;

    fn documents(n: usize, words: usize, topics: usize) -> SparseRows {
        let mut stream = Seed(3).stream(&["documents"]);
        let rows = (0..n).map(|i| {
            let mut row = std::collections::BTreeMap::new();
            for _ in 0..8 {
                let word =
                    (i % topics) * (words / topics) + stream.below(words / topics).min(stream.below(words / topics));
                *row.entry(word as u32).or_insert(0.0f32) += 1.0;
            }
            row.into_iter().collect()
        });
        SparseRows { cols: words, rows: rows.collect() }
    }

    #[test]
    fn two_topics_give_two_directions() {
        let rows = SparseRows { cols: 3, rows: vec![vec![(0, 3.0)], vec![(2, 2.0)], vec![(2, 2.0)]] };
        let lsa = Lsa::fit(&rows, 2, &mut Seed(0).stream(&["lsa"])).unwrap();
        assert!((lsa.singular_values[0] - 3.0).abs() < 1e-12 && (lsa.singular_values[1] - 8f64.sqrt()).abs() < 1e-12);
        let projected = lsa.project(&rows).unwrap();
        assert!((projected.row(0)[0] - 3.0).abs() < 1e-6 && projected.row(0)[1].abs() < 1e-6);
        assert!((projected.row(1)[1] - 2.0).abs() < 1e-6);
    }

    #[test]
    fn iteration_agrees_with_the_whole_decomposition() {
        let rows = documents(600, 1400, 20);
        let lsa = Lsa::fit(&rows, 12, &mut Seed(0).stream(&["lsa"])).unwrap();
        let exact = eigen(gram(&rows).as_ref()).unwrap();
        for k in 0..12 {
            let expected = exact.values[k].sqrt();
            assert!((lsa.singular_values[k] - expected).abs() < 1e-6 * expected, "component {k}");
        }
    }

    #[test]
    fn texts_that_repeat_each_other_have_as_many_components_as_they_span() {
        let half = documents(300, 1400, 20);
        let rows = SparseRows { cols: half.cols, rows: [half.rows.clone(), half.rows].concat() };
        let lsa = Lsa::fit(&rows, 400, &mut Seed(0).stream(&["lsa"])).unwrap();
        let exact = eigen(gram(&rows).as_ref()).unwrap();
        assert_eq!(lsa.basis.ncols(), lsa.singular_values.len());
        assert!((250..=300).contains(&lsa.basis.ncols()), "{}", lsa.basis.ncols());
        let expected = exact.values[100].sqrt();
        assert!((lsa.singular_values[100] - expected).abs() < 1e-6 * expected);
    }

    #[test]
    fn a_cut_through_equal_singular_values_does_not_depend_on_the_order_of_the_words() {
        // Fifty texts of one word that no other text has, beside some that share theirs.
        let mut rows = documents(100, 200, 20);
        rows.cols += 50;
        rows.rows.extend((0..50).map(|i| vec![(200 + i, 1.0)]));
        let turned = |rows: &SparseRows| SparseRows {
            cols: rows.cols,
            rows: rows
                .rows
                .iter()
                .map(|row| row.iter().rev().map(|&(c, v)| (rows.cols as u32 - 1 - c, v)).collect())
                .collect(),
        };
        let above = eigen(gram(&rows).as_ref()).unwrap().values.iter().filter(|l| **l > 1.0 + 1e-6).count();
        let inner = |rows: &SparseRows| {
            let lsa = Lsa::fit(rows, above + 20, &mut Seed(0).stream(&["lsa"])).unwrap();
            assert_eq!(lsa.basis.ncols(), above);
            let projected = lsa.project(rows).unwrap();
            let dot = |i: usize, j: usize| projected.row(i).iter().zip(projected.row(j)).map(|(a, b)| a * b).sum();
            (0..150).flat_map(|i| (0..150).map(move |j| (i, j))).map(|(i, j)| dot(i, j)).collect::<Vec<f32>>()
        };
        let differ = inner(&rows).iter().zip(inner(&turned(&rows))).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(differ < 1e-4, "{differ}");
    }

    #[test]
    fn a_group_that_is_most_of_what_there_is_is_cut() {
        let rows = SparseRows { cols: 40, rows: (0..40).map(|i| vec![(i, 1.0)]).collect() };
        assert_eq!(Lsa::fit(&rows, 10, &mut Seed(0).stream(&["lsa"])).unwrap().basis.ncols(), 10);
    }

    #[test]
    fn rows_of_a_lower_rank_have_no_further_components() {
        let rows = SparseRows { cols: 3, rows: vec![vec![(0, 1.0)], vec![(0, 2.0)], vec![(1, 1.0)]] };
        assert_eq!(Lsa::fit(&rows, 3, &mut Seed(0).stream(&["lsa"])).unwrap().basis.ncols(), 2);
    }

    #[test]
    fn too_many_components_name_what_there_is() {
        let error = Lsa::fit(&documents(5, 100, 2), 6, &mut Seed(0).stream(&["lsa"])).unwrap_err().to_string();
        assert!(error.contains("expected 1 to 5 components (5 rows, 100 columns), found 6"), "{error}");
    }
}
