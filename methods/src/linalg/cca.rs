//! Exact regularised canonical correlation analysis (Hotelling 1936; ridge: Vinod 1976).
//!
//! For centred views `X [n, p]`, `Y [n, q]` whose rows are paired, and `S = XᵀX / (n - 1)`:
//!
//! ```text
//! max tr(Wxᵀ Sxy Wy)   subject to   Wxᵀ Rx Wx = Wyᵀ Ry Wy = I                    (1)
//! R = S + r I   or   (1 - c) S + c I   or   S + r (tr S / p) I                    (2)
//! S = E diag(l) Eᵀ,   K = E diag(1 / sqrt(a l + b)),   R = a S + b I              (3)
//! T = Kxᵀ Sxy Ky = U diag(s) Vᵀ,   Wx = Kx U,   Wy = Ky V                         (4)
//! ```
//!
//! The primal form of (3) decomposes `S`, `[p, p]`; the dual form the thin SVD of `X / sqrt(n - 1)`, so that nothing of size
//! `p * p` is made when there are fewer rows than columns. Each view takes its own. Rows are given once an item with the list of
//! pairs beside them: an item of five pairs counts five times and is stored once.

use std::ops::Range;

use faer::{Mat, MatRef};
use serde::{Deserialize, Serialize};
use xmbench_datasets::Matrix;

pub use super::projection::Projection;
use super::{
    Eigen, Svd, accumulate, each_column, eigen, flip, largest, leading_svd, multiply,
    projection::{add_centred, centred},
    scatter, svd,
};
use crate::{Error, Result};

/// Rows a block of a covariance; a fixed number, so that sums do not depend on the machine.
const BLOCK: usize = 1024;

/// What is added to the covariances before they are inverted, equation (2).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ridge {
    /// `S + r I`.
    Absolute(f64),
    /// `(1 - c) S + c I`, `c` in `[0, 1]`.
    Shrinkage(f64),
    /// `S + r (tr S / p) I`: `r` means the same whatever the features' scale.
    Relative(f64),
    /// `keep * S + add * I`: any other convention, such as shrinkage of the scatter `(n - 1) S`.
    Mix {
        /// Factor of the covariance, above 0 or with `add` above 0.
        keep: f64,
        /// Factor of the identity.
        add: f64,
    },
}

/// How the whitening of a view is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// Dual where a view has more columns than rows.
    Auto,
    /// Eigendecomposition of the covariance.
    Primal,
    /// Thin SVD of the rows.
    Dual,
}

/// How to solve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// How many components.
    pub components: Components,
    /// Regularisation.
    pub ridge: Ridge,
    /// How the whitening is computed; no influence on the result.
    pub form: Form,
    /// Divide every column by its standard deviation first; a constant column stays as it is.
    pub standardise: bool,
}

/// How many components to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Components {
    /// So many, or an error if the views have fewer.
    Exactly(usize),
    /// So many, or all if the views have fewer.
    AtMost(usize),
}

impl Components {
    /// The parameter `components` of a method: 0 is 128, or all if the views have fewer.
    pub fn or_128(components: usize) -> Self {
        match components {
            0 => Self::AtMost(128),
            components => Self::Exactly(components),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        let components = Components::AtMost(usize::MAX);
        Self { components, ridge: Ridge::Absolute(0.0), form: Form::Auto, standardise: false }
    }
}

/// A solution: `d` pairs of directions in order of descending singular value.
#[derive(Debug, Clone, PartialEq)]
pub struct Cca {
    /// Of the first view.
    pub x: Projection,
    /// Of the second view.
    pub y: Projection,
    /// Singular values of the whitened cross-covariance, equation (4); the canonical correlations if there is no ridge.
    pub singular_values: Vec<f64>,
    /// Pearson correlations of the paired projections.
    pub correlations: Vec<f64>,
}

impl Cca {
    /// Both maps, directions weighed by the singular values to the given power.
    #[must_use]
    pub fn weighted(self, power: f64) -> [Projection; 2] {
        [self.x, self.y].map(|view| view.weighted(&self.singular_values, power))
    }
}

/// Solves (1) over the pairs `(row of x, row of y)`; rows that no pair names are ignored.
///
/// # Errors
/// Fewer than two pairs, a pair out of range, features that are not finite, a constant view, a ridge out of range, or more
/// components than the views have.
///
/// # Examples
/// With one column a view, the canonical correlation is Pearson's, here 8 / 10, and a projection is the standardised column.
///
/// ```
/// use xmbench_datasets::Matrix;
/// use xmbench_methods::linalg::cca::{self, Options};
///
/// let column = |data: [f32; 5]| Matrix { rows: 5, cols: 1, data: data.to_vec() };
/// let (x, y) = (column([1.0, 2.0, 3.0, 4.0, 5.0]), column([2.0, 1.0, 4.0, 3.0, 5.0]));
/// let pairs: Vec<(u32, u32)> = (0..5).map(|i| (i, i)).collect();
/// let fitted = cca::fit(&x, &y, &pairs, &Options::default())?;
/// assert!((fitted.correlations[0] - 0.8).abs() < 1e-9);
/// // The mean is 3 and the variance 2.5.
/// assert!((fitted.x.apply(&x)?[(4, 0)] - 2.0 / 2.5f64.sqrt()).abs() < 1e-9);
/// # Ok::<(), xmbench_methods::Error>(())
/// ```
pub fn fit(x: &Matrix, y: &Matrix, pairs: &[(u32, u32)], options: &Options) -> Result<Cca> {
    check(x, y, pairs, options.ridge)?;
    let mut partners = vec![Vec::new(); x.rows];
    for &(i, j) in pairs {
        partners[i as usize].push(j as usize);
    }
    let x = View::new("first", x, pairs.iter().map(|pair| pair.0 as usize), options.standardise);
    let y = View::new("second", y, pairs.iter().map(|pair| pair.1 as usize), options.standardise);
    let (kx, ky) = rayon::join(|| x.whitener(options), || y.whitener(options));
    let (kx, ky) = (kx?, ky?);
    let available = kx.share.len().min(ky.share.len());
    let components = match options.components {
        Components::AtMost(most) => most.min(available),
        Components::Exactly(wanted) if wanted <= available => wanted,
        Components::Exactly(wanted) => {
            return Err(Error::Numeric(format!(
                "canonical correlation: expected at most {available} components (ranks of the views: {} and {}), found \
                 {wanted}; ask for {available} or fewer",
                kx.share.len(),
                ky.share.len()
            )));
        }
    };
    let primal = x.is_primal(options.form) && y.is_primal(options.form);
    let t = cross(&x, &y, &partners, &kx.basis, &ky.basis, primal);
    let Svd { u, s, v } = leading_svd(t.as_ref(), components)?;
    let (u, v) = (u.subcols(0, components), v.subcols(0, components));
    let singular_values = s[..components].to_vec();
    // wᵀ S w of each column: what the ridge leaves of unit variance.
    let spread = |share: &[f64], u: MatRef<'_, f64>, k: usize| -> f64 {
        share.iter().enumerate().map(|(i, share)| share * u[(i, k)] * u[(i, k)]).sum()
    };
    let correlations = (0..components)
        .map(|k| singular_values[k] / (spread(&kx.share, u, k) * spread(&ky.share, v, k)).sqrt())
        .map(|rho: f64| if rho.is_finite() { rho.min(1.0) } else { 0.0 })
        .collect();
    let (mut wx, mut wy) = (x.unscaled(multiply(kx.basis.as_ref(), u)), y.unscaled(multiply(ky.basis.as_ref(), v)));
    for k in (0..components).filter(|&k| largest(&wx, k) < 0.0).collect::<Vec<_>>() {
        flip(&mut wx, k);
        flip(&mut wy, k);
    }
    Ok(Cca {
        x: Projection { mean: x.mean, weights: wx },
        y: Projection { mean: y.mean, weights: wy },
        singular_values,
        correlations,
    })
}

fn check(x: &Matrix, y: &Matrix, pairs: &[(u32, u32)], ridge: Ridge) -> Result<()> {
    let wrong = |expected: &str, found: String| {
        Err(Error::Numeric(format!("canonical correlation: expected {expected}, found {found}")))
    };
    if pairs.len() < 2 {
        return wrong("at least 2 pairs", format!("{}; give it more training pairs", pairs.len()));
    }
    match ridge {
        Ridge::Absolute(r) | Ridge::Relative(r) if !(r >= 0.0 && r.is_finite()) => {
            return wrong("a ridge of at least 0", r.to_string());
        }
        Ridge::Shrinkage(c) if !(0.0..=1.0).contains(&c) => {
            return wrong("a shrinkage in [0, 1]", c.to_string());
        }
        Ridge::Mix { keep, add } if !(keep >= 0.0 && add >= 0.0 && (keep + add) > 0.0 && (keep + add).is_finite()) => {
            return wrong("a mix of two factors of at least 0", format!("{keep} and {add}"));
        }
        _ => {}
    }
    if let Some(pair) = pairs.iter().find(|pair| pair.0 as usize >= x.rows || pair.1 as usize >= y.rows) {
        return wrong(&format!("pairs within {} and {} rows", x.rows, y.rows), format!("{pair:?}"));
    }
    for (name, view) in [("first", x), ("second", y)] {
        if let Some(at) = view.data.iter().position(|value| !value.is_finite()) {
            let (row, column) = (at / view.cols, at % view.cols);
            return wrong(
                "finite features",
                format!("{} in the {name} view, row {row}, column {column}", view.data[at]),
            );
        }
    }
    Ok(())
}

/// A view with its moments over the pairs.
struct View<'a> {
    name: &'static str,
    rows: &'a Matrix,
    /// How many pairs a row has.
    count: Vec<f64>,
    mean: Vec<f64>,
    /// Standard deviations, if columns are to be divided by them.
    scale: Option<Vec<f64>>,
    pairs: f64,
}

/// `basis = K` of equation (3) `[p, rank]`, and the share `l / (a l + b)` of the variance of each of its columns.
struct Whitener {
    basis: Mat<f64>,
    share: Vec<f64>,
}

impl<'a> View<'a> {
    fn new(name: &'static str, rows: &'a Matrix, paired: impl Iterator<Item = usize>, standardise: bool) -> Self {
        let mut count = vec![0.0; rows.rows];
        paired.for_each(|row| count[row] += 1.0);
        let pairs: f64 = count.iter().sum();
        let mean: Vec<f64> = sums(rows, &count, |_, value| value).iter().map(|sum| sum / pairs).collect();
        let scale = standardise.then(|| {
            let squares = sums(rows, &count, |j, value| (value - mean[j]).powi(2));
            squares.iter().map(|sum| (sum / (pairs - 1.0)).sqrt()).map(|s| if s > 0.0 { s } else { 1.0 }).collect()
        });
        Self { name, rows, count, mean, scale, pairs }
    }

    /// Centred rows as columns, `[p, range.len()]`.
    fn centred(&self, range: Range<usize>) -> Mat<f64> {
        centred(self.rows, range, &self.mean, self.scale.as_deref())
    }

    /// Centred rows as columns, each times the root of its number of pairs: their scatter is that of the pairs.
    fn weighted(&self, range: Range<usize>) -> Mat<f64> {
        let mut block = self.centred(range.clone());
        if self.count[range.clone()].iter().any(|&count| count != 1.0) {
            each_column(block.as_mut(), |i, row| {
                let root = self.count[range.start + i].sqrt();
                row.iter_mut().for_each(|value| *value *= root);
            });
        }
        block
    }

    /// Whether the covariance is decomposed, and not the rows.
    fn is_primal(&self, form: Form) -> bool {
        match form {
            Form::Auto => self.rows.cols <= self.rows.rows,
            Form::Primal => true,
            Form::Dual => false,
        }
    }

    /// Eigenvalues `l` and eigenvectors `E` of the covariance, equation (3).
    fn spectrum(&self, form: Form) -> Result<Eigen> {
        let (n, p) = (self.rows.rows, self.rows.cols);
        if !self.is_primal(form) {
            let Svd { s, v, .. } = svd(self.weighted(0..n).transpose())?;
            let values = s.iter().map(|s| s * s / (self.pairs - 1.0)).collect();
            return Ok(Eigen { values, vectors: v });
        }
        let mut covariance = Mat::zeros(p, p);
        for range in blocks(n) {
            scatter(covariance.as_mut(), self.weighted(range).transpose());
        }
        for j in 0..p {
            (j..p).for_each(|i| covariance[(i, j)] /= self.pairs - 1.0);
        }
        eigen(covariance.as_ref())
    }

    fn whitener(&self, options: &Options) -> Result<Whitener> {
        let Eigen { values, vectors } = self.spectrum(options.form)?;
        let (a, b) = match options.ridge {
            Ridge::Absolute(r) => (1.0, r),
            Ridge::Shrinkage(c) => (1.0 - c, c),
            Ridge::Mix { keep, add } => (keep, add),
            Ridge::Relative(r) => (1.0, r * values.iter().map(|l| l.max(0.0)).sum::<f64>() / self.rows.cols as f64),
        };
        // Directions without variance carry no correlation (rows that sum to 1 have one). Without a ridge those that are nearly
        // so would be blown up; with one they are harmless, and all but rounding errors stay.
        let largest = values.first().copied().unwrap_or(0.0);
        let tolerance = if b > 1e-10 * largest { 1e-14 } else { 1e-10 };
        let rank = values.iter().take_while(|l| **l > tolerance * largest).count();
        if rank == 0 {
            return Err(Error::Numeric(format!(
                "canonical correlation: expected features that vary, found a constant {} view",
                self.name
            )));
        }
        let regularised: Vec<f64> = values[..rank].iter().map(|l| a * l + b).collect();
        let share = values.iter().zip(&regularised).map(|(l, r)| l / r).collect();
        let basis = Mat::from_fn(vectors.nrows(), rank, |i, j| vectors[(i, j)] / regularised[j].sqrt());
        Ok(Whitener { basis, share })
    }

    /// Weights that act on centred features as they come, from weights of the standardised ones.
    fn unscaled(&self, weights: Mat<f64>) -> Mat<f64> {
        match &self.scale {
            None => weights,
            Some(scale) => Mat::from_fn(weights.nrows(), weights.ncols(), |i, j| weights[(i, j)] / scale[i]),
        }
    }
}

/// `T` of equation (4): block by block of the first view's rows, each beside the sum of its partners. `Sxy` is made first where
/// the covariances were, too; otherwise the rows are projected, so that nothing of size `p * q` is made.
fn cross(x: &View<'_>, y: &View<'_>, partners: &[Vec<usize>], kx: &Mat<f64>, ky: &Mat<f64>, primal: bool) -> Mat<f64> {
    let (rows, cols) = if primal { (x.rows.cols, y.rows.cols) } else { (kx.ncols(), ky.ncols()) };
    let mut t = Mat::zeros(rows, cols);
    for range in blocks(x.rows.rows) {
        let left = x.centred(range.clone());
        let mut right = Mat::zeros(y.rows.cols, range.len());
        each_column(right.as_mut(), |i, sum| {
            for &row in &partners[range.start + i] {
                add_centred(sum, y.rows.row(row), &y.mean, y.scale.as_deref());
            }
        });
        if primal {
            accumulate(t.as_mut(), left.as_ref(), right.transpose());
        } else {
            let (left, right) = (multiply(left.transpose(), kx.as_ref()), multiply(right.transpose(), ky.as_ref()));
            accumulate(t.as_mut(), left.transpose(), right.as_ref());
        }
    }
    if primal {
        t = multiply(multiply(kx.transpose(), t.as_ref()).as_ref(), ky.as_ref());
    }
    t * faer::Scale(1.0 / (x.pairs - 1.0))
}

/// Sums over the pairs of `value(column, entry)`, a column each.
fn sums(rows: &Matrix, count: &[f64], value: impl Fn(usize, f64) -> f64) -> Vec<f64> {
    let mut sums = vec![0.0; rows.cols];
    for (i, &weight) in count.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        for (j, (sum, &entry)) in sums.iter_mut().zip(rows.row(i)).enumerate() {
            *sum += weight * value(j, f64::from(entry));
        }
    }
    sums
}

fn blocks(n: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n).step_by(BLOCK).map(move |start| start..n.min(start + BLOCK))
}

#[cfg(test)]
mod tests;
