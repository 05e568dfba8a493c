//! Collective matrix factorisation hashing (Ding, Guo, Zhou, CVPR 2014): one factor for both modalities, and linear maps that reach it from each.
//!
//! With centred features `X_1 [n, p]`, `X_2 [n, q]` of `n` pairs, a row each, and a common factor `Y [n, c]`:
//!
//! ```text
//! f   = sum_t a_t |X_t - Y U_t|² + mu sum_t |Y - X_t W_t|² + g (|Y|² + sum_t |U_t|² + |W_t|²)         (1)
//! U_t = (YᵀY + g / a_t I)^-1 Yᵀ X_t                                                                   (2)
//! W_t = (X_tᵀ X_t + g / mu I)^-1 X_tᵀ Y                                                               (3)
//! Y   = (sum_t a_t X_t U_tᵀ + mu X_t W_t) (sum_t a_t U_t U_tᵀ + (2 mu + g) I)^-1                      (4)
//! b   = sign((x - mean_t) W_t)                              codes of one modality                     (5)
//! b   = sign(y - mean of Y)                                 unified codes of training items           (6)
//! ```
//!
//! `a_1 = weight`, `a_2 = 1 - weight`. (2) to (4) each minimise (1) over one factor; `Y` begins as normal numbers, and (3) stands
//! once more at the end, so that the maps fit the factor that is left.
//!
//! **Which codes a database has** decides half of what this method scores. The paper gives training items, which are its database, codes
//! of *both* their modalities (6): then a text query meets image codes that know the text. `codes = "unified"` does so for items
//! of the training split, by identifier and features; whatever else is encoded has (5). `codes = "modality"`, the default, is (5) for all:
//! what a new image gets, and what every other method here is asked for. Rows with unified codes say so.
//!
//! Departures: the default of `codes`; a circulated program weighs `mu` by `a_t` in (4), which is (1) with half of `mu`, and has `g` for
//! `g / a_t` in (2); 25 rounds are its, too. A bag of words goes through latent semantic analysis first. Every caption makes a pair, and
//! (6) of an item with several pairs is the sign of their mean.

use std::path::Path;

use candle_core::Device;
use faer::{Mat, MatRef};
use serde::{Deserialize, Serialize};
use xmbench_datasets::{Matrix, random::Stream};

use self::unified::{Collective, Unified};
use super::linear::{self, Linear};
use crate::{
    Error, Matcher, Method, Result, Run, Training,
    card::Card,
    linalg::{
        Cholesky,
        cca::Projection,
        inputs::{Inputs, Views},
        multiply, scatter,
    },
    params::{self, out_of_range},
};

mod unified;

const NAME: &str = "cmfh";

/// The method.
pub struct Cmfh;

/// Its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Code length.
    pub bits: usize,
    /// `a_1`, the weight of the images in equation (1).
    pub weight: f64,
    /// `mu` of equation (1).
    pub mu: f64,
    /// `g` of equation (1).
    pub gamma: f64,
    /// Rounds of equations (2) to (4).
    pub iterations: usize,
    /// Codes of training items.
    pub codes: Coding,
    /// Which vectors stand for images and texts.
    #[serde(flatten)]
    pub views: Views,
}

/// Which codes training items have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Coding {
    /// Equation (5), as all items.
    Modality,
    /// Equation (6).
    Unified,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            bits: 64,
            weight: 0.5,
            mu: 100.0,
            gamma: 0.01,
            iterations: 25,
            codes: Coding::Modality,
            views: Views::auto(1024),
        }
    }
}

impl Params {
    /// Completed and checked parameters.
    ///
    /// # Errors
    /// As [`params::parse`], or a value out of range.
    pub fn read(table: &toml::Table) -> Result<Self> {
        let read: Self = params::parse(NAME, table)?;
        if !(1..=4096).contains(&read.bits) {
            return Err(out_of_range(NAME, "bits", "1 to 4096", read.bits));
        }
        if !(read.weight > 0.0 && read.weight < 1.0) {
            return Err(out_of_range(NAME, "weight", "a number between 0 and 1", read.weight));
        }
        // Without them the systems of (2) to (4) may have no solution.
        for (key, value) in [("mu", read.mu), ("gamma", read.gamma)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(out_of_range(NAME, key, "a number above 0", value));
            }
        }
        if !(1..=10_000).contains(&read.iterations) {
            return Err(out_of_range(NAME, "iterations", "1 to 10000", read.iterations));
        }
        Ok(read)
    }
}

impl Method for Cmfh {
    fn card(&self) -> &Card {
        crate::card!("cmfh.toml")
    }

    fn resolve(&self, table: &toml::Table) -> Result<toml::Table> {
        Params::read(table).map(|params| params::to_table(&params))
    }

    fn fit(&self, training: &Training<'_>, table: &toml::Table, run: &mut Run<'_>) -> Result<Box<dyn Matcher>> {
        let params = Params::read(table)?;
        let inputs = Inputs::fit(NAME, training, params.views, run.seed)?;
        let (images, texts) = (&training.train.images, &training.train.texts);
        let (x, y) = (inputs.images(images)?, inputs.texts(texts)?);
        let pairs = training.train.pairs.all();
        let views = [View::new(&x, pairs.iter().map(|pair| pair.0))?, View::new(&y, pairs.iter().map(|pair| pair.1))?];
        let mut factors =
            Factors::start(&params, [&views[0].rows, &views[1].rows], &mut run.seed.stream(&[NAME, "factor"]))?;
        for _ in 0..params.iterations {
            run.check_stop()?;
            factors.round()?;
        }
        factors.maps()?;
        let Factors { common, maps: [wx, wy], .. } = factors;
        let [mean_x, mean_y] = views.map(|view| view.mean);
        let linear = Linear {
            inputs,
            images: Projection { mean: mean_x, weights: wx },
            texts: Projection { mean: mean_y, weights: wy },
        };
        let unified = (params.codes == Coding::Unified).then(|| {
            let factor = centred(&common);
            [
                Unified::of(&images.ids, &x, pairs.iter().map(|pair| pair.0), &factor), // (6)
                Unified::of(&texts.ids, &y, pairs.iter().map(|pair| pair.1), &factor),
            ]
        });
        Ok(match unified {
            Some(unified) => Box::new(Collective { linear, unified }),
            None => Box::new(linear),
        })
    }

    fn load(&self, from: &Path, _device: &Device) -> Result<Box<dyn Matcher>> {
        let store = linear::open(from)?;
        let linear = Linear::read(NAME, &store)?;
        Ok(match Unified::read(&store)? {
            Some(unified) => Box::new(Collective { linear, unified }),
            None => Box::new(linear),
        })
    }

    fn remark(&self, table: &toml::Table) -> Option<String> {
        let unified = Params::read(table).ok()?.codes == Coding::Unified;
        unified.then(|| "training items have codes of both their modalities".into())
    }
}

/// Centred features, a row a pair.
struct View {
    mean: Vec<f64>,
    rows: Mat<f64>,
}

impl View {
    fn new(items: &Matrix, paired: impl ExactSizeIterator<Item = u32> + Clone) -> Result<Self> {
        let n = paired.len();
        if n < 2 {
            return Err(Error::Numeric(format!("{NAME}: expected at least 2 training pairs, found {n}")));
        }
        let order: Vec<usize> = paired.map(|item| item as usize).collect();
        let mut mean = vec![0.0; items.cols];
        for &item in &order {
            for (j, (mean, &value)) in mean.iter_mut().zip(items.row(item)).enumerate() {
                if !value.is_finite() {
                    return Err(Error::Numeric(format!(
                        "{NAME}: expected finite features, found {value} in item {item}, column {j}; check the features"
                    )));
                }
                *mean += f64::from(value) / n as f64;
            }
        }
        let rows = Mat::from_fn(n, items.cols, |i, j| f64::from(items.row(order[i])[j]) - mean[j]);
        Ok(Self { mean, rows })
    }
}

/// Columns without their means.
fn centred(matrix: &Mat<f64>) -> Mat<f64> {
    let n = matrix.nrows() as f64;
    let means: Vec<f64> = (0..matrix.ncols()).map(|j| matrix.col(j).iter().sum::<f64>() / n).collect();
    Mat::from_fn(matrix.nrows(), matrix.ncols(), |i, j| matrix[(i, j)] - means[j])
}

/// The factors of equation (1) as they stand.
struct Factors<'a> {
    views: [&'a Mat<f64>; 2],
    weights: [f64; 2],
    mu: f64,
    gamma: f64,
    /// `X_tᵀ X_t + g / mu I`, factored once.
    ridges: [Cholesky; 2],
    /// `Y [n, c]`.
    common: Mat<f64>,
    /// `U_t [c, p]`.
    bases: [Mat<f64>; 2],
    /// `W_t [p, c]`.
    maps: [Mat<f64>; 2],
}

impl<'a> Factors<'a> {
    /// `Y` of normal numbers.
    fn start(params: &Params, views: [&'a Mat<f64>; 2], stream: &mut Stream) -> Result<Self> {
        let Params { bits, weight, mu, gamma, .. } = *params;
        let n = views[0].nrows();
        // Row by row, so that a longer code does not change what comes first.
        let mut common = Mat::zeros(n, bits);
        for i in 0..n {
            (0..bits).for_each(|j| common[(i, j)] = stream.normal());
        }
        let ridge = |view: &Mat<f64>| with_diagonal(gram(view.as_ref()), gamma / mu);
        Ok(Self {
            ridges: [ridge(views[0])?, ridge(views[1])?],
            bases: views.map(|view| Mat::zeros(bits, view.ncols())),
            maps: views.map(|view| Mat::zeros(view.ncols(), bits)),
            views,
            weights: [weight, 1.0 - weight],
            mu,
            gamma,
            common,
        })
    }

    /// Equations (2) to (4).
    fn round(&mut self) -> Result<()> {
        self.bases()?;
        self.maps()?;
        self.factor()
    }

    /// Equation (2).
    fn bases(&mut self) -> Result<()> {
        for t in 0..2 {
            let mut basis = multiply(self.common.transpose(), self.views[t].as_ref());
            with_diagonal(gram(self.common.as_ref()), self.gamma / self.weights[t])?.solve(basis.as_mut());
            self.bases[t] = basis;
        }
        Ok(())
    }

    /// Equation (3).
    fn maps(&mut self) -> Result<()> {
        for t in 0..2 {
            let mut map = multiply(self.views[t].transpose(), self.common.as_ref());
            self.ridges[t].solve(map.as_mut());
            self.maps[t] = map;
        }
        Ok(())
    }

    /// Equation (4), transposed: the system is symmetric.
    fn factor(&mut self) -> Result<()> {
        let bits = self.common.ncols();
        let mut right = Mat::<f64>::zeros(bits, self.common.nrows());
        let mut system = Mat::<f64>::zeros(bits, bits);
        for t in 0..2 {
            let (view, basis) = (self.views[t], &self.bases[t]);
            right += multiply(basis.as_ref(), view.transpose()) * faer::Scale(self.weights[t]);
            right += multiply(self.maps[t].transpose(), view.transpose()) * faer::Scale(self.mu);
            system += gram(basis.transpose()) * faer::Scale(self.weights[t]);
        }
        with_diagonal(system, 2.0 * self.mu + self.gamma)?.solve(right.as_mut());
        self.common = right.transpose().to_owned();
        Ok(())
    }

    /// Equation (1).
    #[cfg(test)]
    fn objective(&self) -> f64 {
        let mut sum = self.gamma * self.common.squared_norm_l2();
        for t in 0..2 {
            let (view, basis, map) = (self.views[t], &self.bases[t], &self.maps[t]);
            sum += self.weights[t] * (view - &self.common * basis).squared_norm_l2();
            sum += self.mu * (&self.common - view * map).squared_norm_l2();
            sum += self.gamma * (basis.squared_norm_l2() + map.squared_norm_l2());
        }
        sum
    }
}

/// `AᵀA`, of which the lower triangle counts.
fn gram(a: MatRef<'_, f64>) -> Mat<f64> {
    let mut out = Mat::zeros(a.ncols(), a.ncols());
    scatter(out.as_mut(), a);
    out
}

/// The factor of a symmetric matrix with `add` on its diagonal.
fn with_diagonal(mut matrix: Mat<f64>, add: f64) -> Result<Cholesky> {
    (0..matrix.nrows()).for_each(|i| matrix[(i, i)] += add);
    Cholesky::new(matrix.as_ref())
}

#[cfg(test)]
mod tests;
