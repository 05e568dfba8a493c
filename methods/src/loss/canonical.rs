//! Total correlation of two batches of vectors, the objective of deep CCA (Andrew, Arora, Bilmes, Livescu, ICML 2013), with its
//! gradient in closed form: nothing is differentiated through an eigensolver.
//!
//! For `H1 [m, o1]`, `H2 [m, o2]` whose rows are paired, and `C` the same with the column means taken off:
//!
//! ```text
//! S11 = C1ᵀ C1 / (m - 1) + r1 I,   S22 alike,   S12 = C1ᵀ C2 / (m - 1)                              (1)
//! T = S11^(-1/2) S12 S22^(-1/2) = U diag(s) Vᵀ                                                       (2)
//! corr = sum of f(s_i) over the k largest                                                           (3)
//! D12 = S11^(-1/2) U diag(f') Vᵀ S22^(-1/2),   D11 = -1/2 S11^(-1/2) U diag(f' s) Uᵀ S11^(-1/2)      (4)
//! dcorr/dH1 = (2 C1 D11 + C2 D12ᵀ) / (m - 1),   dcorr/dH2 = (2 C2 D22 + C1 D12) / (m - 1)           (5)
//! ```
//!
//! with `D22` from `V` as `D11` from `U`. The paper has `f(s) = s`, so that all `k` give the trace norm of `T`;
//! Michaelvll/DeepCCA@63186ba has `f(s) = sqrt(s^2 + 1e-3)`. Nothing in (4) divides by a difference, so repeated singular values do
//! no harm; where `s = 0` the trace norm has a corner, and such a direction gets no gradient. Eigenvalues of `S` that are not above
//! `epsilon` are dropped from the inverse root.

use candle_core::{CpuStorage, CustomOp2, DType, Device, Layout, Shape, Tensor};
use faer::{Mat, MatRef, Scale};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    linalg::{Svd, inverse_root, multiply, svd},
};

/// What is computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CanonicalCorrelation {
    /// How many singular values count, `k`; `None` counts all.
    pub top: Option<usize>,
    /// `r1` and `r2` of equation (1).
    pub ridge: [f64; 2],
    /// Eigenvalues of the covariances must be above this.
    pub epsilon: f64,
    /// Which `f` of equation (3).
    pub objective: Objective,
}

/// What is summed, equation (3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Objective {
    /// `s`.
    Paper,
    /// `sqrt(s^2 + 1e-3)`, as Michaelvll/DeepCCA@63186ba has it for its top k.
    Released,
}

/// What Michaelvll/DeepCCA adds under the root.
const RELEASED: f64 = 1e-3;

impl Objective {
    /// `f(s)`.
    fn value(self, s: f64) -> f64 {
        match self {
            Self::Paper => s,
            Self::Released => (s * s + RELEASED).sqrt(),
        }
    }

    /// `f'(s)`; 0 in the corner of the trace norm.
    fn slope(self, s: f64, largest: f64) -> f64 {
        match self {
            Self::Paper => f64::from(u8::from(s > 1e-12 * largest)),
            Self::Released => s / (s * s + RELEASED).sqrt(),
        }
    }
}

/// A solution of equations (1) to (3), and what (4) and (5) need.
pub struct Correlated {
    /// `corr` of equation (3).
    pub value: f64,
    /// All singular values of `T`, descending.
    pub singular_values: Vec<f64>,
    /// `T`, `[o1, o2]`.
    pub whitened: Mat<f64>,
    views: [View; 2],
    u: Mat<f64>,
    v: Mat<f64>,
    slopes: Vec<f64>,
}

/// A centred view and the inverse root of its covariance.
struct View {
    centred: Mat<f64>,
    root: Mat<f64>,
}

impl CanonicalCorrelation {
    /// Solves for `first [m, o1]` and `second [m, o2]`.
    ///
    /// # Errors
    /// Numbers of rows that differ or are below 2, entries that are not finite, outputs without variance, or fewer singular
    /// values than are to be summed.
    pub fn solve(&self, first: MatRef<'_, f64>, second: MatRef<'_, f64>) -> Result<Correlated> {
        let m = first.nrows();
        if m < 2 || second.nrows() != m {
            return Err(Error::Numeric(format!(
                "total correlation: expected two views of the same 2 rows or more, found {m} and {}",
                second.nrows()
            )));
        }
        let available = first.ncols().min(second.ncols());
        let top = self.top.unwrap_or(available);
        if top == 0 || top > available {
            return Err(Error::Numeric(format!(
                "total correlation: expected 1 to {available} singular values to sum, found {top}"
            )));
        }
        let views = [
            View::new("first", first, self.ridge[0], self.epsilon)?,
            View::new("second", second, self.ridge[1], self.epsilon)?,
        ];
        let [one, two] = &views;
        let cross = multiply(one.centred.transpose(), two.centred.as_ref()) * Scale(1.0 / (m as f64 - 1.0)); // (1)
        let whitened = multiply(multiply(one.root.as_ref(), cross.as_ref()).as_ref(), two.root.as_ref());
        let Svd { u, s, v } = svd(whitened.as_ref())?; // (2)
        let value = s[..top].iter().map(|&s| self.objective.value(s)).sum(); // (3)
        let slopes = s[..top].iter().map(|&value| self.objective.slope(value, s[0])).collect();
        Ok(Correlated { value, singular_values: s, whitened, views, u, v, slopes })
    }
}

impl View {
    fn new(name: &str, rows: MatRef<'_, f64>, ridge: f64, epsilon: f64) -> Result<Self> {
        let (m, o) = (rows.nrows(), rows.ncols());
        let mut centred = rows.to_owned();
        for j in 0..o {
            let mean = rows.col(j).iter().sum::<f64>() / m as f64;
            if !mean.is_finite() {
                return Err(Error::Numeric(format!(
                    "total correlation: expected finite outputs, found a mean of {mean} in column {j} of the {name} view; \
                     try a lower learning rate, or look for huge values among the features"
                )));
            }
            centred.col_mut(j).iter_mut().for_each(|value| *value -= mean);
        }
        let mut covariance = multiply(centred.transpose(), centred.as_ref()) * Scale(1.0 / (m as f64 - 1.0));
        (0..o).for_each(|j| covariance[(j, j)] += ridge); // (1)
        let root = inverse_root(covariance.as_ref(), epsilon)?.ok_or_else(|| {
            Error::Numeric(format!(
                "total correlation: expected outputs that vary, found a constant {name} view; the network has collapsed, or \
                 its features are constant"
            ))
        })?;
        Ok(Self { root, centred })
    }
}

impl Correlated {
    /// The gradients of the value, equations (4) and (5), `[m, o1]` and `[m, o2]`.
    pub fn gradients(&self) -> [Mat<f64>; 2] {
        let [one, two] = &self.views;
        let factor = 1.0 / (one.centred.nrows() as f64 - 1.0);
        let count = self.slopes.len();
        let weigh = |vectors: &Mat<f64>, weight: &dyn Fn(usize) -> f64| {
            Mat::from_fn(vectors.nrows(), count, |i, j| vectors[(i, j)] * weight(j))
        };
        let outer = |left: &Mat<f64>, right: &Mat<f64>| multiply(left.as_ref(), right.subcols(0, count).transpose());
        let between = |a: &View, inner: Mat<f64>, b: &View| {
            multiply(multiply(a.root.as_ref(), inner.as_ref()).as_ref(), b.root.as_ref())
        };
        let own = |k: usize| -self.slopes[k] * self.singular_values[k]; // twice the factor -1/2
        let d12 = between(one, outer(&weigh(&self.u, &|k| self.slopes[k]), &self.v), two); // (4)
        let d11 = between(one, outer(&weigh(&self.u, &own), &self.u), one);
        let d22 = between(two, outer(&weigh(&self.v, &own), &self.v), two);
        let sum = |a: &View, d: &Mat<f64>, b: &View, cross: MatRef<'_, f64>| {
            (multiply(a.centred.as_ref(), d.as_ref()) + multiply(b.centred.as_ref(), cross)) * Scale(factor)
        };
        [sum(one, &d11, two, d12.transpose()), sum(two, &d22, one, d12.as_ref())] // (5)
    }
}

/// The total correlation of `first [m, o1]` and `second [m, o2]`, f32 or f64 on any device: a scalar of their type, to be
/// maximised. Computed in f64 on the CPU.
///
/// # Errors
/// As [`CanonicalCorrelation::solve`].
pub fn canonical_correlation(settings: &CanonicalCorrelation, first: &Tensor, second: &Tensor) -> Result<Tensor> {
    let wide = |t: &Tensor| t.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.contiguous();
    let (one, two) = (wide(first)?, wide(second)?);
    let solved = settings.solve(matrix(&one)?.as_ref(), matrix(&two)?.as_ref())?;
    let value = one.apply_op2(&two, Solved(solved))?;
    Ok(value.to_dtype(first.dtype())?.to_device(first.device())?)
}

/// A tensor `[m, o]` of f64 as a matrix.
pub(super) fn matrix(tensor: &Tensor) -> Result<Mat<f64>> {
    let (rows, cols) = tensor.dims2()?;
    let values = tensor.flatten_all()?.to_vec1::<f64>()?;
    Ok(Mat::from_fn(rows, cols, |i, j| values[i * cols + j]))
}

/// The objective at two given tensors.
struct Solved(Correlated);

impl CustomOp2 for Solved {
    fn name(&self) -> &'static str {
        "canonical correlation"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F64(vec![self.0.value]), Shape::from(())))
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let scale = grad.to_scalar::<f64>()?;
        let [first, second] = self.0.gradients().map(|gradient| {
            let (rows, cols) = (gradient.nrows(), gradient.ncols());
            let values =
                (0..rows).flat_map(|i| (0..cols).map(move |j| (i, j))).map(|at| scale * gradient[at]).collect();
            Tensor::from_vec(values, (rows, cols), &Device::Cpu)
        });
        Ok((Some(first?), Some(second?)))
    }
}

#[cfg(test)]
mod tests;
