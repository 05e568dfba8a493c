//! Exact kernel canonical correlation analysis (Akaho 2001; Hardoon, Szedmak, Shawe-Taylor 2004) over Gram matrices.
//!
//! For centred Gram matrices `K = H K H` of the paired items and a penalty `a K² + b K`:
//!
//! ```text
//! max αᵀ Kx Ky β   subject to   αᵀ (a Kx² + b Kx) α = βᵀ (a Ky² + b Ky) β = 1       (1)
//! K = U diag(s) Uᵀ,   t = a s² + b s                                               (2)
//! T = diag(sx / sqrt tx) Uxᵀ Uy diag(sy / sqrt ty) = L diag(rho) Rᵀ                (3)
//! α = Ux diag(1 / sqrt tx) L,   β = Uy diag(1 / sqrt ty) R                         (4)
//! ```
//!
//! The symmetric form (3) has no inverse and no complex eigenvalue, whatever the rank of `K`. An item of several pairs is given once
//! and counts as often: its row and column of `K` are weighted by the root of that number.
//!
//! cca-zoo's penalty is another: the uncentred `K` is taken for a data matrix, `B = (1 - c) cov(K) + c K + shift I`.

use faer::{Mat, MatRef};

use crate::{
    Error, Result,
    linalg::{
        Eigen, Svd, cca::Components, each_column, eigen, flip, largest, leading_svd, multiply, projection::weighted,
        scatter, store::Store,
    },
};

/// What keeps the coefficients small.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Penalty {
    /// `αᵀ (a K² + b K) α = 1` over the centred `K`.
    Symmetric {
        /// `a`.
        square: f64,
        /// `b`.
        linear: f64,
        /// Directions of `K` with an eigenvalue of at most this times the number of pairs are dropped.
        threshold: f64,
    },
    /// `αᵀ ((1 - c) cov(K) + c K + shift I) α = 1` over the uncentred `K`; the shift is `eps`, and what makes the smallest eigenvalue
    /// of both views' matrices non-negative.
    Covariance {
        /// `c`, in `[0, 1]`.
        mix: f64,
        /// `eps`.
        shift: f64,
    },
}

impl Penalty {
    /// `K² + kappa K` (Hardoon et al.).
    pub fn kappa(kappa: f64) -> Self {
        Self::Symmetric { square: 1.0, linear: kappa, threshold: 0.0 }
    }
}

/// A solution: `d` pairs of directions in order of descending singular value.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelCca {
    /// Of the first view.
    pub x: Dual,
    /// Of the second view.
    pub y: Dual,
    /// Singular values of (3).
    pub singular_values: Vec<f64>,
    /// Pearson correlations of the paired projections.
    pub correlations: Vec<f64>,
}

impl KernelCca {
    /// Both maps, components weighed by the singular values to the given power.
    #[must_use]
    pub fn weighted(self, power: f64) -> [Dual; 2] {
        [self.x, self.y].map(|view| view.weighted(&self.singular_values, power))
    }
}

/// An affine map of kernel values with the training items: `k * weights - offset`. Centring with the means of training is in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Dual {
    /// `[n, d]`.
    pub weights: Mat<f64>,
    /// `d` means of the training pairs.
    pub offset: Vec<f64>,
}

impl Dual {
    /// Projects rows of kernel values with the training items, `[m, n]`, to `[m, d]`.
    ///
    /// # Panics
    /// If there is not one column a training item.
    pub fn apply(&self, gram: MatRef<'_, f64>) -> Mat<f64> {
        let mut out = multiply(gram, self.weights.as_ref());
        each_column(out.as_mut(), |k, column| column.iter_mut().for_each(|value| *value -= self.offset[k]));
        out
    }

    /// The same map, each component times its correlation to the given power.
    #[must_use]
    pub fn weighted(self, rho: &[f64], power: f64) -> Self {
        let offset = self.offset.iter().zip(rho).map(|(mean, rho)| mean * rho.powf(power)).collect();
        Self { weights: weighted(&self.weights, rho, power), offset }
    }

    /// Adds the map under a name.
    #[must_use]
    pub fn save(&self, store: Store, name: &str) -> Store {
        store
            .with_matrix(&format!("{name}.weights"), self.weights.as_ref())
            .with_vector(&format!("{name}.offset"), &self.offset)
    }

    /// Reads what [`Dual::save`] added, for `items` training items.
    ///
    /// # Errors
    /// If it is not there or of other shapes.
    pub fn load(store: &Store, name: &str, items: usize) -> Result<Self> {
        let (weights, offset) = (store.matrix(&format!("{name}.weights"))?, store.vector(&format!("{name}.offset"))?);
        if (weights.nrows(), weights.ncols()) != (items, offset.len()) {
            return Err(Error::Numeric(format!(
                "saved map `{name}`: expected weights [{items}, {}], found [{}, {}]",
                offset.len(),
                weights.nrows(),
                weights.ncols()
            )));
        }
        Ok(Self { weights, offset })
    }
}

/// Solves (1) for Gram matrices of items; every item is in at least one of `pairs`.
///
/// # Errors
/// Fewer than two pairs, an item without a pair, a Gram matrix that is constant or not finite, or more components than there are.
pub fn fit(
    kx: &Mat<f64>,
    ky: &Mat<f64>,
    pairs: &[(u32, u32)],
    penalty: Penalty,
    components: Components,
) -> Result<KernelCca> {
    let wrong = |expected: &str, found: String| {
        Err(Error::Numeric(format!("kernel canonical correlation: expected {expected}, found {found}")))
    };
    if pairs.len() < 2 {
        return wrong("at least 2 pairs", pairs.len().to_string());
    }
    let (mut x, mut y) = (View::new(kx), View::new(ky));
    for &(i, j) in pairs {
        x.count[i as usize] += 1.0;
        y.count[j as usize] += 1.0;
    }
    if x.count.iter().chain(&y.count).any(|&count| count == 0.0) {
        return wrong("a pair for every item", "an item without one".into());
    }
    let n = pairs.len() as f64;
    let (wx, wy) = match penalty {
        Penalty::Symmetric { square, linear, threshold } => {
            let whiten = |view: &View<'_>| view.symmetric(n, square, linear, threshold);
            rayon::join(|| whiten(&x), || whiten(&y))
        }
        Penalty::Covariance { mix, shift } => {
            let spectrum = |view: &View<'_>| view.covariance(n, mix);
            let (a, b) = rayon::join(|| spectrum(&x), || spectrum(&y));
            let (a, b) = (a?, b?);
            let smallest = [&a, &b].map(|(eigen, _)| eigen.values.last().copied().unwrap_or(0.0));
            let shift = shift - smallest[0].min(smallest[1]).min(0.0);
            (Ok(x.shifted(a, shift, n)), Ok(y.shifted(b, shift, n)))
        }
    };
    let (wx, wy) = (wx?, wy?);
    let available = wx.coefficients.ncols().min(wy.coefficients.ncols());
    let d = match components {
        _ if available == 0 => return wrong("kernels that vary over the items", "a constant one".into()),
        Components::AtMost(most) => most.min(available),
        Components::Exactly(wanted) if wanted <= available => wanted,
        Components::Exactly(wanted) => {
            return wrong(
                &format!("at most {available} components"),
                format!("{wanted}; ask for {available} or fewer"),
            );
        }
    };
    let t = multiply(wx.coordinates.transpose(), partners(&wy.coordinates, pairs, kx.nrows()).as_ref());
    let Svd { u, s, v } = leading_svd(t.as_ref(), d)?; // (3)
    let [mut alpha, mut beta] = [(&wx, &u), (&wy, &v)].map(|(w, u)| multiply(w.coefficients.as_ref(), u.subcols(0, d))); // (4)
    for k in (0..d).filter(|&k| largest(&alpha, k) < 0.0).collect::<Vec<_>>() {
        flip(&mut alpha, k);
        flip(&mut beta, k);
    }
    let (x, y) = (x.dual(alpha, penalty, n), y.dual(beta, penalty, n));
    let correlations = pearson(&x.apply(kx.as_ref()), &y.apply(ky.as_ref()), pairs);
    Ok(KernelCca { x, y, singular_values: s[..d].to_vec(), correlations })
}

/// `H K H` with the items counted as often as `count` says, each row and column times its root.
pub fn centred(k: &Mat<f64>, count: &[f64]) -> Mat<f64> {
    let n: f64 = count.iter().sum();
    let means = means(k, count, n);
    let grand = means.iter().zip(count).map(|(mean, count)| mean * count).sum::<f64>() / n;
    let mut out = k.clone();
    each_column(out.as_mut(), |j, column| {
        for (i, value) in column.iter_mut().enumerate() {
            *value = (*value - means[i] - means[j] + grand) * (count[i] * count[j]).sqrt();
        }
    });
    out
}

/// The mean kernel of each item with the pairs' items.
fn means(k: &Mat<f64>, count: &[f64], n: f64) -> Vec<f64> {
    (0..k.ncols()).map(|j| k.col_as_slice(j).iter().zip(count).map(|(k, count)| k * count).sum::<f64>() / n).collect()
}

struct View<'a> {
    k: &'a Mat<f64>,
    count: Vec<f64>,
}

/// Directions that the penalty makes alike.
struct Whitened {
    /// `[n, rank]`; columns combine items.
    coefficients: Mat<f64>,
    /// Coordinates of every item along them, centred, so that `T` is a sum over the pairs; `[n, rank]`.
    coordinates: Mat<f64>,
}

impl<'a> View<'a> {
    fn new(k: &'a Mat<f64>) -> Self {
        Self { k, count: vec![0.0; k.nrows()] }
    }

    /// Equation (2).
    fn symmetric(&self, n: f64, square: f64, linear: f64, threshold: f64) -> Result<Whitened> {
        let Eigen { values, vectors } = eigen(centred(self.k, &self.count).as_ref())?;
        // Without a linear part directions of no extent would be blown up; with one they are harmless.
        let tolerance = if linear > 0.0 { 1e-14 } else { 1e-10 };
        let least = (threshold * n).max(tolerance * values[0].max(0.0));
        let rank = values.iter().take_while(|s| **s > least).count();
        let penalised: Vec<f64> = values[..rank].iter().map(|s| (square * s * s + linear * s).sqrt()).collect();
        let scaled = |scale: &(dyn Fn(usize, usize) -> f64 + Sync)| {
            let mut out = vectors.subcols(0, rank).to_owned();
            each_column(out.as_mut(), |j, column| {
                column.iter_mut().enumerate().for_each(|(i, value)| *value *= scale(i, j));
            });
            out
        };
        let roots: Vec<f64> = self.count.iter().map(|count| count.sqrt()).collect();
        Ok(Whitened {
            coefficients: scaled(&|i, j| roots[i] / penalised[j]),
            coordinates: scaled(&|i, j| values[j] / penalised[j] / roots[i]),
        })
    }

    /// Spectrum of `(1 - c) cov(K) + c K` without the shift, and the centred columns of `K`.
    fn covariance(&self, n: f64, mix: f64) -> Result<(Eigen, Mat<f64>)> {
        let means = means(self.k, &self.count, n);
        let mut rows = self.k.clone();
        each_column(rows.as_mut(), |j, column| column.iter_mut().for_each(|value| *value -= means[j]));
        let mut weighted = rows.clone();
        each_column(weighted.as_mut(), |_, column| {
            column.iter_mut().zip(&self.count).for_each(|(value, count)| *value *= count.sqrt());
        });
        let mut b = Mat::zeros(self.k.nrows(), self.k.nrows());
        scatter(b.as_mut(), weighted.as_ref());
        each_column(b.as_mut(), |j, column| {
            for (value, k) in column.iter_mut().zip(self.k.col_as_slice(j)) {
                *value = (1.0 - mix) * *value / (n - 1.0) + mix * k;
            }
        });
        Ok((eigen(b.as_ref())?, rows))
    }

    fn shifted(&self, (Eigen { values, vectors }, rows): (Eigen, Mat<f64>), shift: f64, n: f64) -> Whitened {
        let rank = values.iter().take_while(|b| **b + shift > 1e-14 * (values[0] + shift)).count();
        let mut basis = vectors.subcols(0, rank).to_owned();
        each_column(basis.as_mut(), |j, column| column.iter_mut().for_each(|v| *v /= (values[j] + shift).sqrt()));
        let coordinates = multiply(rows.as_ref(), basis.as_ref()) * faer::Scale(1.0 / (n - 1.0).sqrt());
        Whitened { coefficients: basis, coordinates }
    }

    /// Coefficients as a map that centres with the means of training.
    fn dual(&self, mut weights: Mat<f64>, penalty: Penalty, n: f64) -> Dual {
        if matches!(penalty, Penalty::Symmetric { .. }) {
            each_column(weights.as_mut(), |_, column| {
                let sum: f64 = column.iter().sum();
                column.iter_mut().zip(&self.count).for_each(|(value, count)| *value -= sum * count / n);
            });
        }
        let means = means(self.k, &self.count, n);
        let offset = (0..weights.ncols())
            .map(|k| weights.col_as_slice(k).iter().zip(&means).map(|(weight, mean)| weight * mean).sum())
            .collect();
        Dual { weights, offset }
    }
}

/// For every item of the first view the sum of its partners' rows.
fn partners(rows: &Mat<f64>, pairs: &[(u32, u32)], items: usize) -> Mat<f64> {
    let mut out = Mat::zeros(items, rows.ncols());
    each_column(out.as_mut(), |k, column| {
        let values = rows.col_as_slice(k);
        pairs.iter().for_each(|&(i, j)| column[i as usize] += values[j as usize]);
    });
    out
}

/// Correlation of the paired rows, column by column; 0 where one does not vary.
fn pearson(x: &Mat<f64>, y: &Mat<f64>, pairs: &[(u32, u32)]) -> Vec<f64> {
    let of = |k: usize| {
        let (u, v) = (x.col_as_slice(k), y.col_as_slice(k));
        let sum =
            |f: &dyn Fn(f64, f64) -> f64| pairs.iter().map(|&(i, j)| f(u[i as usize], v[j as usize])).sum::<f64>();
        let n = pairs.len() as f64;
        let (mu, mv) = (sum(&|u, _| u) / n, sum(&|_, v| v) / n);
        let squares = sum(&|u, _| (u - mu).powi(2)) * sum(&|_, v| (v - mv).powi(2));
        if squares > 0.0 { (sum(&|u, v| (u - mu) * (v - mv)) / squares.sqrt()).clamp(-1.0, 1.0) } else { 0.0 }
    };
    (0..x.ncols()).map(of).collect()
}
