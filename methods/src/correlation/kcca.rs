//! Kernel canonical correlation analysis (Akaho 2001; Hardoon, Szedmak, Shawe-Taylor 2004; Zheng, Zhou, Zou, Zhao 2006).
//!
//! Image vectors `x` and text vectors `y` go through kernels, and the feature spaces of these to where the pairs correlate most:
//!
//! ```text
//! max αᵀ Kx Ky β   subject to   αᵀ (Kx² + κ Kx) α = βᵀ (Ky² + κ Ky) β = 1        (1)  exact: see linalg::kernel::cca
//! u = (k(x, train) α - mean) * rho^a,   v likewise,   s(x, y) = u v / (|u| |v|)     (2)
//! φ(x) φ(x') ~ k(x, x'),   Wx, Wy, rho = CCA(φ(X), φ(Y))                            (3)  rff and icd: see linalg::cca
//! ```
//!
//! (1) is CCA in the feature space with `κ / (N - 1)` added to the covariance, so that one ridge serves all three ways. The exact way
//! holds Gram matrices of all training items; (3) replaces them by random Fourier features or by an incomplete Cholesky
//! decomposition, whose pivots are the partial Gram-Schmidt of Hardoon et al. A linear kernel needs no approximation: under (3)
//! the vectors are their own features.
//!
//! Departures: the bandwidth of a Gaussian kernel is a factor of the median distance of the training vectors (the papers set it by
//! hand); the ridge is per pair, because κ means something else for every number of pairs; every caption of an image makes a pair.

use std::path::Path;

use candle_core::Device;
use serde::{Deserialize, Serialize};
use xmbench_datasets::{Images, Matrix, Texts};

use crate::{
    Codes, Error, Matcher, Method, Result, Run, Similarity, Training,
    card::Card,
    golden::Operation,
    linalg::{
        cca::{self, Components, Options, Ridge},
        inputs::{Inputs, Views},
        kernel::{
            Kernel,
            cca::{self as exact, Penalty},
            median_distance,
        },
        store::Store,
    },
    params,
};

mod golden;
mod view;

use view::{Features, View};

/// The method.
pub struct Kcca;

/// Its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Dimensions of the common space; 0 is 128, or all if there are fewer.
    pub components: usize,
    /// How the kernels are worked with.
    pub approximation: Approximation,
    /// Number of random Fourier features, or the most pivots of incomplete Cholesky.
    pub features: usize,
    /// Share of the trace that incomplete Cholesky may miss.
    pub tolerance: f64,
    /// Most items of one kind that the exact way takes.
    pub exact_limit: usize,
    /// Kernel of the images.
    pub image_kernel: KernelName,
    /// Kernel of the texts.
    pub text_kernel: KernelName,
    /// Bandwidth of Gaussian kernels, in median distances of each view.
    pub bandwidth: f64,
    /// Power of a polynomial kernel.
    pub degree: u32,
    /// What a polynomial kernel adds before the power.
    pub offset: f64,
    /// Regularisation of both views.
    pub ridge: f64,
    /// What `ridge` means.
    pub ridge_convention: Convention,
    /// Directions of an exact kernel with an eigenvalue of at most this share of the number of pairs are dropped.
    pub threshold: f64,
    /// Power `a` of the canonical correlations in equation (2).
    pub power: f64,
    /// Which vectors stand for images and texts.
    #[serde(flatten)]
    pub views: Views,
}

/// How the kernels are worked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Approximation {
    /// Gram matrices of all training items, equation (1).
    Exact,
    /// Incomplete Cholesky decomposition, equation (3).
    Icd,
    /// Random Fourier features, equation (3).
    Rff,
}

/// A kernel; see [`Kernel`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KernelName {
    /// Gaussian.
    Rbf,
    /// The dot product.
    Linear,
    /// `(x x' / width + offset)^degree`.
    Polynomial,
}

/// What a ridge means; for `N` pairs and centred Gram matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Convention {
    /// Added to the covariance of the features: `K² + r (N - 1) K`.
    Absolute,
    /// Hardoon et al.: `K² + r K`.
    Kappa,
    /// mvlearn: `(1 - r) K² + r K`.
    Mixed,
    /// cca-zoo: `(1 - r) cov(K) + r K + 0.001 I` over uncentred Gram matrices; exact alone.
    CcaZoo,
}

/// cca-zoo's `eps`.
const SHIFT: f64 = 1e-3;

impl Default for Params {
    fn default() -> Self {
        Self {
            components: 0,
            approximation: Approximation::Exact,
            features: 1500,
            tolerance: 1e-3,
            exact_limit: 6000,
            image_kernel: KernelName::Rbf,
            text_kernel: KernelName::Rbf,
            bandwidth: 1.0,
            degree: 2,
            offset: 1.0,
            ridge: 0.01,
            ridge_convention: Convention::Absolute,
            threshold: 0.0,
            power: 1.0,
            views: Views::auto(0),
        }
    }
}

impl Params {
    /// Completed and checked parameters.
    ///
    /// # Errors
    /// As [`params::parse`], or a value out of range.
    pub fn read(table: &toml::Table) -> Result<Self> {
        let read: Self = params::parse("kcca", table)?;
        let check = |holds: bool, key: &str, expected: &str, found: String| {
            if holds { Ok(()) } else { Err(params::out_of_range("kcca", key, expected, found)) }
        };
        let at_least_0 = |value: f64| value >= 0.0 && value.is_finite();
        let above_0 = |value: f64| value > 0.0 && value.is_finite();
        let exact = read.approximation == Approximation::Exact;
        let Self { ridge, ridge_convention, threshold, .. } = read;
        let at_most_1 = matches!(ridge_convention, Convention::Mixed | Convention::CcaZoo);
        check(at_least_0(ridge), "ridge", "a number of at least 0", ridge.to_string())?;
        check(!at_most_1 || ridge <= 1.0, "ridge", "a mix in [0, 1]", ridge.to_string())?;
        let needed = !exact || ridge > 0.0 || ridge_convention == Convention::CcaZoo;
        check(needed, "ridge", "a number above 0: without one every exact correlation is 1", ridge.to_string())?;
        check(
            exact || ridge_convention != Convention::CcaZoo,
            "ridge_convention",
            "absolute, kappa or mixed, unless approximation is exact",
            "cca-zoo".into(),
        )?;
        let unused = !exact || ridge_convention == Convention::CcaZoo;
        let expected = "0, unless approximation is exact and the kernels are centred";
        check(!unused || threshold == 0.0, "threshold", expected, threshold.to_string())?;
        for (key, value) in
            [("threshold", threshold), ("tolerance", read.tolerance), ("offset", read.offset), ("power", read.power)]
        {
            check(at_least_0(value), key, "a number of at least 0", value.to_string())?;
        }
        check(above_0(read.bandwidth), "bandwidth", "a number above 0", read.bandwidth.to_string())?;
        check(read.features > 0, "features", "at least 1", read.features.to_string())?;
        check((1..=10).contains(&read.degree), "degree", "1 to 10", read.degree.to_string())?;
        for (key, kernel) in [("image_kernel", read.image_kernel), ("text_kernel", read.text_kernel)] {
            let drawn = read.approximation != Approximation::Rff || kernel != KernelName::Polynomial;
            let expected =
                "rbf or linear, because random Fourier features are those of rbf; or set approximation to icd";
            check(drawn, key, expected, "polynomial".into())?;
        }
        Ok(read)
    }

    /// Of `n` pairs.
    fn penalty(&self, n: usize) -> Penalty {
        let symmetric = |square, linear| Penalty::Symmetric { square, linear, threshold: self.threshold };
        match self.ridge_convention {
            Convention::Absolute => symmetric(1.0, self.ridge * (n as f64 - 1.0)),
            Convention::Kappa => symmetric(1.0, self.ridge),
            Convention::Mixed => symmetric(1.0 - self.ridge, self.ridge),
            Convention::CcaZoo => Penalty::Covariance { mix: self.ridge, shift: SHIFT },
        }
    }

    /// The same for the covariance of features, `K = (n - 1) S` up to rotation.
    fn options(&self, n: usize) -> Options {
        let one = 1.0 / (n as f64 - 1.0);
        let ridge = match self.ridge_convention {
            Convention::Kappa => Ridge::Absolute(self.ridge * one),
            Convention::Mixed => Ridge::Mix { keep: 1.0 - self.ridge, add: self.ridge * one },
            _ => Ridge::Absolute(self.ridge),
        };
        Options { components: Components::or_128(self.components), ridge, ..Options::default() }
    }

    fn kernel(&self, name: KernelName, rows: &Matrix, label: &str, run: &Run<'_>) -> Result<Kernel> {
        Ok(match name {
            KernelName::Linear => Kernel::Linear,
            KernelName::Rbf => {
                let median = median_distance(rows, &mut run.seed.stream(&["kcca", "median", label]))?;
                Kernel::rbf(self.bandwidth * median)
            }
            KernelName::Polynomial => {
                Kernel::Polynomial { gamma: 1.0 / rows.cols as f64, offset: self.offset, degree: self.degree }
            }
        })
    }
}

impl Method for Kcca {
    fn card(&self) -> &Card {
        crate::card!("kcca.toml")
    }

    fn resolve(&self, table: &toml::Table) -> Result<toml::Table> {
        Params::read(table).map(|params| params::to_table(&params))
    }

    fn fit(&self, training: &Training<'_>, table: &toml::Table, run: &mut Run<'_>) -> Result<Box<dyn Matcher>> {
        let params = Params::read(table)?;
        let (images, texts) = (&training.train.images, &training.train.texts);
        let inputs = Inputs::fit("kcca", training, params.views, run.seed)?;
        let pairs = training.train.pairs.all();
        if pairs.len() < 2 {
            return Err(Error::Numeric(format!(
                "kernel canonical correlation: expected at least 2 pairs, found {}",
                pairs.len()
            )));
        }
        if params.approximation == Approximation::Exact {
            small_enough(images.len().max(texts.len()), params.exact_limit)?;
        }
        let (x, x_of) = paired(&inputs.images(images)?, pairs.iter().map(|pair| pair.0))?;
        let (y, y_of) = paired(&inputs.texts(texts)?, pairs.iter().map(|pair| pair.1))?;
        let pairs: Vec<(u32, u32)> = pairs.iter().map(|&(i, j)| (x_of[i as usize], y_of[j as usize])).collect();
        let kx = params.kernel(params.image_kernel, &x, "image", run)?;
        let ky = params.kernel(params.text_kernel, &y, "text", run)?;
        run.check_stop()?;
        let (x, y) = match params.approximation {
            Approximation::Exact => {
                let grams = (kx.gram(&x, &x)?, ky.gram(&y, &y)?);
                let penalty = params.penalty(pairs.len());
                let fitted = exact::fit(&grams.0, &grams.1, &pairs, penalty, Components::or_128(params.components))?; // (1)
                let [alpha, beta] = fitted.weighted(params.power);
                (View::Exact(kx, x, alpha), View::Exact(ky, y, beta))
            }
            _ => {
                let features = |kernel, rows: &Matrix, label| Features::fit(kernel, rows, &params, label, run);
                let (fx, fy) = (features(kx, &x, "image")?, features(ky, &y, "text")?);
                run.check_stop()?;
                let (x, y) = (fx.apply(x)?, fy.apply(y)?);
                run.check_stop()?;
                let fitted = cca::fit(&x, &y, &pairs, &params.options(pairs.len()))?; // (3)
                let [wx, wy] = fitted.weighted(params.power);
                (View::Finite(fx, wx), View::Finite(fy, wy))
            }
        };
        Ok(Box::new(Fitted { inputs, x, y }))
    }

    fn load(&self, from: &Path, _device: &Device) -> Result<Box<dyn Matcher>> {
        let store = Store::load(&from.join(FILE))?;
        Ok(Box::new(Fitted {
            inputs: Inputs::load("kcca", &store)?,
            x: View::load(&store, "x")?,
            y: View::load(&store, "y")?,
        }))
    }

    fn operations(&self) -> Vec<Operation> {
        vec![Operation { name: "cca.kernel", run: golden::kernel, ignored: &[] }]
    }
}

/// Refuses Gram matrices that nobody wants to wait for.
fn small_enough(items: usize, limit: usize) -> Result<()> {
    if items <= limit {
        return Ok(());
    }
    // Gram matrix, centred copy, eigenvectors and their workspace, of two views.
    let memory = 64.0 * (items as f64).powi(2) / f64::from(1 << 30);
    let found = format!("{items} (about {memory:.0} GiB)");
    Err(Error::Parameter {
        method: "kcca".into(),
        key: "approximation".into(),
        expected: format!("at most {limit} training items of a kind for exact Gram matrices"),
        found,
        hint: "; set approximation to rff (random Fourier features) or icd (incomplete Cholesky), or raise exact_limit"
            .into(),
    })
}

/// The rows that are in a pair, and where each is among them; finite ones alone.
fn paired(rows: &Matrix, used: impl Iterator<Item = u32>) -> Result<(Matrix, Vec<u32>)> {
    let mut place = vec![u32::MAX; rows.rows];
    used.for_each(|row| place[row as usize] = 0);
    let mut out = Matrix { rows: 0, cols: rows.cols, data: Vec::new() };
    for (row, place) in place.iter_mut().enumerate().filter(|(_, place)| **place == 0) {
        if let Some(column) = rows.row(row).iter().position(|value| !value.is_finite()) {
            let value = rows.row(row)[column];
            return Err(Error::Numeric(format!(
                "kernel canonical correlation: expected finite features, found {value} in row {row}, column {column}"
            )));
        }
        *place = out.rows as u32;
        out.data.extend_from_slice(rows.row(row));
        out.rows += 1;
    }
    Ok((out, place))
}

const FILE: &str = "kcca.safetensors";

struct Fitted {
    inputs: Inputs,
    x: View,
    y: View,
}

impl Matcher for Fitted {
    fn encode_images(&self, images: &Images) -> Result<Codes> {
        self.x.codes(&self.inputs.images(images)?).map(Codes::Dense)
    }

    fn encode_texts(&self, texts: &Texts) -> Result<Codes> {
        self.y.codes(&self.inputs.texts(texts)?).map(Codes::Dense)
    }

    fn similarity(&self) -> Similarity<'_> {
        Similarity::Cosine // (2)
    }

    fn save(&self, to: &Path) -> Result<()> {
        let store = self.inputs.save(Store::default());
        self.y.save(self.x.save(store, "x"), "y").save(&to.join(FILE))
    }
}

#[cfg(test)]
mod tests;
