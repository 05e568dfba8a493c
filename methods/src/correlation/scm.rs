//! Correlation matching, semantic matching and semantic correlation matching (Rasiwasia et al., ACM MM 2010; Costa Pereira et
//! al., TPAMI 36(3), 2014).
//!
//! An image vector `x [p]` and a text vector `y [q]` go to a space in which both can be compared:
//!
//! ```text
//! CM    u = (x - mean_x) Wx                     v = (y - mean_y) Wy                 k canonical components, see linalg::cca
//! SM    pi_c  = P(c | x)                        tau_c = P(c | y)                    logistic regressions, see linalg::logistic
//! SCM   pi_c  = P(c | (x - mean_x) Wx)          tau_c = P(c | (y - mean_y) Wy)      SM on top of CM
//!
//! cosine           piᵀ tau / (|pi| |tau|)                                           NC in the paper
//! centred cosine   the same of pi - mean(pi), tau - mean(tau)                       NC_c in the journal version
//! l1, l2, kl       -|pi - tau|_1,  -|pi - tau|_2,  -sum_c pi_c log(pi_c / tau_c)
//! ```
//!
//! The two regressions are independent: each sees the items and labels of its modality, once an item, and nothing of the pairs;
//! an item of several classes counts in equal parts for each, an item of none is left out. Departures: the divergence is that of
//! the image's posterior from the text's whichever is the query, because a matcher compares a pair and knows no query; `C` may be
//! chosen for each modality by cross-validation on the training items (`c_grid`), by the mean logarithm of the held-out posterior,
//! with the canonical components fitted on all pairs. The paper's solver was LIBLINEAR, which is one-vs-rest: `scheme` offers it.

use std::path::Path;

use candle_core::Device;
use faer::Mat;
use serde::{Deserialize, Serialize};
use xmbench_datasets::{Images, Labels, Matrix, Texts, random::Stream};

use super::cca::Convention;
use crate::{
    Codes, Error, Matcher, Method, Result, Run, Similarity, Training,
    card::Card,
    linalg::{
        cca::{self, Components, Options, Projection},
        distance::Distance,
        inputs::{Inputs, Views, dense},
        logistic::{self, Logistic, Scheme},
        store::Store,
        to_f64,
    },
    params,
};

/// The method.
pub struct Scm;

/// Its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Which of the three.
    pub mode: Mode,
    /// How two codes are compared.
    pub similarity: Measure,
    /// Canonical components `k`, for CM and SCM; 0 is 128, or all if the views have fewer.
    pub components: usize,
    /// Regularisation of both views in CCA.
    pub ridge: f64,
    /// What `ridge` means.
    pub ridge_convention: Convention,
    /// Inverse strength `C` of the penalty on the weights of the regressions.
    pub c: f64,
    /// Values among which cross-validation chooses `C`; none takes `c`.
    pub c_grid: Vec<f64>,
    /// Parts that cross-validation cuts the training items into.
    pub folds: usize,
    /// How more than two classes are told apart.
    pub scheme: Scheme,
    /// Which vectors stand for images and texts.
    #[serde(flatten)]
    pub views: Views,
    /// Divide columns of the features by their standard deviation.
    pub standardise: bool,
}

/// What the codes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Posteriors of the features.
    Sm,
    /// Posteriors of the canonical components.
    Scm,
    /// Canonical components.
    Cm,
}

/// How two codes are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// Normalised correlation, NC.
    Cosine,
    /// Normalised correlation of codes minus their own mean, NC_c.
    CentredCosine,
    /// City-block distance.
    L1,
    /// Euclidean distance.
    L2,
    /// Divergence of the image's posterior from the text's.
    Kl,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            mode: Mode::Scm,
            similarity: Measure::Cosine,
            components: 7,
            ridge: 0.0,
            ridge_convention: Convention::Relative,
            c: 30.0,
            c_grid: Vec::new(),
            folds: 5,
            scheme: Scheme::Multinomial,
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
        let read: Self = params::parse("scm", table)?;
        let wrong = |key: &str, expected: &str, found: String| Err(params::out_of_range("scm", key, expected, found));
        read.ridge_convention.check("scm", read.ridge)?;
        let positive = |c: f64| c > 0.0 && c.is_finite();
        if !positive(read.c) {
            return wrong("c", "a number above 0", read.c.to_string());
        }
        if let Some(c) = read.c_grid.iter().find(|&&c| !positive(c)) {
            return wrong("c_grid", "numbers above 0", c.to_string());
        }
        if read.folds < 2 {
            return wrong("folds", "at least 2", read.folds.to_string());
        }
        if read.similarity == Measure::Kl && read.mode == Mode::Cm {
            let expected = "cosine, centred-cosine, l1 or l2 for mode cm, whose codes are no distributions";
            return wrong("similarity", expected, "kl".into());
        }
        Ok(read)
    }

    fn options(&self) -> Options {
        let (components, ridge) = (Components::or_128(self.components), self.ridge_convention.of(self.ridge));
        Options { components, ridge, standardise: self.standardise, ..Options::default() }
    }
}

impl Method for Scm {
    fn card(&self) -> &Card {
        crate::card!("scm.toml")
    }

    fn resolve(&self, table: &toml::Table) -> Result<toml::Table> {
        Params::read(table).map(|params| params::to_table(&params))
    }

    fn fit(&self, training: &Training<'_>, table: &toml::Table, run: &mut Run<'_>) -> Result<Box<dyn Matcher>> {
        let params = Params::read(table)?;
        let (images, texts) = (&training.train.images, &training.train.texts);
        let inputs = Inputs::fit("scm", training, params.views, run.seed)?;
        run.check_stop()?;
        let (x, y) = (inputs.images(images)?, inputs.texts(texts)?);
        let [to_x, to_y] = match params.mode {
            Mode::Sm => [None, None],
            Mode::Cm | Mode::Scm => {
                let fitted = cca::fit(&x, &y, training.train.pairs.all(), &params.options())?;
                [Some(fitted.x), Some(fitted.y)]
            }
        };
        let side =
            |name: &str, rows: &Matrix, projection: Option<Projection>, labels: &Option<Labels>| -> Result<Side> {
                if params.mode == Mode::Cm {
                    return Ok(Side { projection, classes: None });
                }
                run.check_stop()?;
                let labels = labels.as_ref().ok_or_else(|| training.missing("scm", &format!("{name}.labels")))?;
                let mut features = project(projection.as_ref(), rows)?;
                let scales = if params.standardise && projection.is_none() { scale(&mut features) } else { Vec::new() };
                let mut stream = run.seed.stream(&["scm", "folds", name]);
                let mut classes =
                    regress(&features, labels, &params, &mut stream).map_err(|error| of_side(name, error))?;
                for (j, scale) in scales.into_iter().enumerate() {
                    classes.weights.row_mut(j).iter_mut().for_each(|weight| *weight *= scale);
                }
                Ok(Side { projection, classes: Some(classes) })
            };
        let image = side("images", &x, to_x, &images.labels)?;
        let text = side("texts", &y, to_y, &texts.labels)?;
        Ok(Box::new(Fitted { inputs, image, text, measure: params.similarity }))
    }

    fn load(&self, from: &Path, _device: &Device) -> Result<Box<dyn Matcher>> {
        let store = Store::load(&from.join(FILE))?;
        Ok(Box::new(Fitted {
            inputs: Inputs::load("scm", &store)?,
            image: Side::load(&store, "image")?,
            text: Side::load(&store, "text")?,
            measure: store.word("measure")?,
        }))
    }
}

/// An error of a regression says of which modality it is.
fn of_side(side: &str, error: Error) -> Error {
    match error {
        Error::Numeric(text) => Error::Numeric(format!("{side}: {text}")),
        other => other,
    }
}

/// The canonical components of rows, or the rows themselves.
fn project(projection: Option<&Projection>, rows: &Matrix) -> Result<Mat<f64>> {
    match projection {
        Some(projection) => projection.apply(rows),
        None => Ok(to_f64(rows)),
    }
}

/// Divides columns by their standard deviation and returns the factors; a constant column stays as it is. A shift would change
/// nothing, because the bias takes it up.
fn scale(features: &mut Mat<f64>) -> Vec<f64> {
    let n = features.nrows().max(1) as f64;
    let mut factors = Vec::with_capacity(features.ncols());
    for j in 0..features.ncols() {
        let mean = features.col(j).iter().sum::<f64>() / n;
        let variance = features.col(j).iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n;
        // Rounding leaves a constant column a variance of this size.
        let factor = if variance > 1e-24 * mean * mean { 1.0 / variance.sqrt() } else { 1.0 };
        features.col_mut(j).iter_mut().for_each(|value| *value *= factor);
        factors.push(factor);
    }
    factors
}

/// The regression with `C` as given, or with the value of the grid whose held-out posterior is best; the smaller of equals.
fn regress(features: &Mat<f64>, labels: &Labels, params: &Params, stream: &mut Stream) -> Result<Logistic> {
    let fit = |c: f64, classes: &[Vec<u32>]| {
        logistic::fit(features.as_ref(), classes, labels.classes, &logistic::Options { c, scheme: params.scheme })
    };
    let mut grid = params.c_grid.clone();
    grid.sort_by(f64::total_cmp);
    let [first, _, ..] = grid[..] else { return fit(grid.first().copied().unwrap_or(params.c), &labels.of) };
    let folds = folds(&labels.of, params.folds, stream);
    let mut best = (f64::INFINITY, first);
    for c in grid {
        let mut loss = 0.0;
        for held in &folds {
            let mut kept = labels.of.clone();
            held.iter().for_each(|&i| kept[i].clear());
            let rows = Mat::from_fn(held.len(), features.ncols(), |i, j| features[(held[i], j)]);
            let own = labels.subset(held).of;
            loss += logistic::log_loss(&fit(c, &kept)?.posterior(rows.as_ref())?, &own) * held.len() as f64;
        }
        if loss < best.0 {
            best = (loss, c);
        }
    }
    fit(best.1, &labels.of)
}

/// Labelled items in parts of nearly equal size that hold nearly equal numbers of each class.
fn folds(classes: &[Vec<u32>], count: usize, stream: &mut Stream) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = stream.permutation(classes.len());
    order.retain(|&i| !classes[i].is_empty());
    order.sort_by_key(|&i| classes[i][0]);
    (0..count)
        .map(|fold| order.iter().skip(fold).step_by(count).copied().collect::<Vec<_>>())
        .filter(|fold| !fold.is_empty())
        .collect()
}

const FILE: &str = "scm.safetensors";

struct Fitted {
    inputs: Inputs,
    image: Side,
    text: Side,
    measure: Measure,
}

/// What is learned of a modality.
struct Side {
    /// Absent in SM.
    projection: Option<Projection>,
    /// Absent in CM.
    classes: Option<Logistic>,
}

impl Side {
    fn codes(&self, rows: &Matrix, measure: Measure) -> Result<Codes> {
        let mut codes = project(self.projection.as_ref(), rows)?;
        if let Some(classes) = &self.classes {
            codes = classes.posterior(codes.as_ref())?;
        }
        if measure == Measure::CentredCosine {
            for i in 0..codes.nrows() {
                let mean = codes.row(i).iter().sum::<f64>() / codes.ncols().max(1) as f64;
                codes.row_mut(i).iter_mut().for_each(|value| *value -= mean);
            }
        }
        Ok(dense(&codes))
    }

    fn save(&self, store: Store, side: &str) -> Store {
        let store = match &self.projection {
            Some(projection) => projection.save(store, side),
            None => store,
        };
        match &self.classes {
            Some(Logistic { weights, bias, scheme }) => store
                .with_matrix(&format!("{side}.classes.weights"), weights.as_ref())
                .with_vector(&format!("{side}.classes.bias"), bias)
                .with_word("scheme", scheme),
            None => store,
        }
    }

    fn load(store: &Store, side: &str) -> Result<Self> {
        let has = |name: &str| store.has(&format!("{side}.{name}"));
        let projection = if has("weights") { Some(Projection::load(store, side)?) } else { None };
        let classes = if has("classes.weights") || projection.is_none() {
            let name = format!("{side}.classes.weights");
            let (weights, bias) = (store.matrix(&name)?, store.vector(&format!("{side}.classes.bias"))?);
            store.expect(&name, "columns", bias.len(), weights.ncols())?;
            if let Some(projection) = &projection {
                store.expect(&name, "rows", projection.weights.ncols(), weights.nrows())?;
            }
            Some(Logistic { weights, bias, scheme: store.word("scheme")? })
        } else {
            None
        };
        Ok(Self { projection, classes })
    }
}

impl Matcher for Fitted {
    fn encode_images(&self, images: &Images) -> Result<Codes> {
        self.image.codes(&self.inputs.images(images)?, self.measure)
    }

    fn encode_texts(&self, texts: &Texts) -> Result<Codes> {
        self.text.codes(&self.inputs.texts(texts)?, self.measure)
    }

    fn similarity(&self) -> Similarity<'_> {
        match self.measure {
            Measure::Cosine | Measure::CentredCosine => Similarity::Cosine,
            Measure::L1 => Similarity::Pairwise(&Distance::L1),
            Measure::L2 => Similarity::Pairwise(&Distance::L2),
            Measure::Kl => Similarity::Pairwise(&Distance::KullbackLeibler),
        }
    }

    fn save(&self, to: &Path) -> Result<()> {
        let store = self.inputs.save(Store::default()).with_word("measure", &self.measure);
        self.text.save(self.image.save(store, "image"), "text").save(&to.join(FILE))
    }
}

#[cfg(test)]
mod tests;
