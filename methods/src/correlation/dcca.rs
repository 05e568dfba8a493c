//! Deep canonical correlation analysis (Andrew, Arora, Bilmes, Livescu, ICML 2013): two networks whose outputs correlate as much
//! as they can, compared after a linear CCA of these outputs.
//!
//! For networks `f1`, `f2` with `o` outputs, and a batch of `m > o` pairs with `H1 = f1(X)`, `H2 = f2(Y)`, `[m, o]`:
//!
//! ```text
//! L = -corr(H1, H2) = -sum of the k largest singular values of S11^(-1/2) S12 S22^(-1/2)      (1)  see loss::canonical
//! Wx, Wy, rho = CCA(f1(X), f2(Y)) over all training pairs, after training                     (2)  see linalg::cca
//! u = (f1(x) - mean) Wx * rho^a,   v = (f2(y) - mean) Wy * rho^a                              (3)
//! s(x, y) = u v / (|u| |v|)                                                                   (4)
//! ```
//!
//! Hidden layers have the paper's cubic sigmoid, tanh or ReLU. Three ways to train: (1) over batches (Wang et al. 2015, and the public
//! Michaelvll/DeepCCA@63186ba and VahidooX/DeepCCA); (1) over all pairs by L-BFGS, as in the paper; or nonlinear orthogonal
//! iterations (NOI; Wang, Arora, Livescu, Srebro, Allerton 2015), which take small batches because covariances are carried over.
//! With `lambda > 0` and decoders `g1`, `g2` of mirrored widths the objective is that of DCCAE (Wang, Arora, Livescu, Bilmes, ICML
//! 2015):
//!
//! ```text
//! L + lambda / m (|X - g1(f1(X))|^2 + |Y - g2(f2(Y))|^2)                                      (5)
//! ```
//!
//! with sums of squares over all entries. NOI has another `L`. With `C1`, `C2` for `H1`, `H2` minus their means over the batch, and
//! at the step `t = 0, 1, ..` the covariance `S11` of (6) for the first view, `S22` alike for the second:
//!
//! ```text
//! S11 <- C1ᵀ C1 / (m - 1)  at t = 0,   rho S11 + (1 - rho) C1ᵀ C1 / (m - 1)  after it         (6)
//! V1 = C1 (S11 + r1 I)^(-1/2),   V2 = C2 (S22 + r2 I)^(-1/2)                                  (7)
//! L = 1/m (|C1 - V2|^2 + |C2 - V1|^2),  V1 and V2 constant                                    (8)
//! ```
//!
//! `S` of the step itself whitens; without `r`, directions of variance 1e-9 or less are left out of (7).
//!
//! Departures: no layer-wise pretraining, random weights are Xavier's; network inputs are centred and divided by one number; a
//! bag of words goes through latent semantic analysis, as for CCA; the best validation epoch is kept where there is one.

mod full_batch;
mod networks;

use std::{collections::BTreeMap, path::Path};

use candle_core::{Device, Tensor};
use faer::Mat;
use serde::{Deserialize, Serialize};
use xmbench_datasets::{Images, Matrix, Texts, random::Seed};

use self::networks::{Networks, network};
use crate::{
    Codes, Error, Matcher, Method, Result, Run, Similarity, Training,
    card::Card,
    linalg::{
        cca::{self, Components, Options, Projection, Ridge},
        inputs::{Views, dense},
        store::Store,
    },
    loss::Objective,
    nn::{Activation, Mlp, ScaledInputs, Weights},
    params,
    train::{Model, Optimiser, Schedule, train},
};

const NAME: &str = "dcca";
const WEIGHTS: &str = "weights.safetensors";
const PROJECTION: &str = "projection.safetensors";
/// Names of the projections of both views in that file.
const PROJECTIONS: [&str; 2] = ["image.projection", "text.projection"];

/// Eigenvalues of the covariances of outputs must be above this, as in Michaelvll/DeepCCA@63186ba.
const EPSILON: f64 = 1e-9;

/// The method.
pub struct Dcca;

/// Its parameters; widths and batch are those of the follow-up papers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Outputs of either network, `o`.
    pub components: usize,
    /// Hidden widths of the image network, from input to output; none makes it linear.
    pub image_widths: Vec<usize>,
    /// Hidden widths of the text network.
    pub text_widths: Vec<usize>,
    /// Nonlinearity of the hidden layers.
    pub activation: Activation,
    /// How (1) is optimised.
    pub solver: Solver,
    /// What is summed in (1).
    pub objective: Objective,
    /// How many singular values are summed, `k`; 0 is all.
    pub top: usize,
    /// Added to the covariance of image outputs, `r1`; in (7) as in (1).
    pub image_ridge: f64,
    /// Added to the covariance of text outputs, `r2`.
    pub text_ridge: f64,
    /// What (6) keeps of the covariances at every step.
    pub rho: f64,
    /// Weight of the reconstruction in (5).
    pub lambda: f64,
    /// Added to the covariances in (2).
    pub final_ridge: f64,
    /// Power `a` of the canonical correlations in (3).
    pub power: f64,
    /// Which vectors stand for images and texts.
    #[serde(flatten)]
    pub views: Views,
    /// Centre and scale the networks' inputs.
    pub normalise: bool,
    /// How the networks are trained; L-BFGS takes `epochs` steps and of the rest only `weight_decay`, `patience` and
    /// `validate_every`.
    #[serde(flatten)]
    pub schedule: Schedule,
}

/// How the objective is optimised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Solver {
    /// Equation (1) over batches.
    Batches,
    /// Equation (1) over all pairs, by L-BFGS.
    Lbfgs,
    /// Equations (6) to (8) over batches.
    Noi,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            components: 50,
            image_widths: vec![1024, 1024],
            text_widths: vec![1024, 1024],
            activation: Activation::Cubic,
            solver: Solver::Batches,
            objective: Objective::Paper,
            top: 0,
            image_ridge: 1e-4,
            text_ridge: 1e-4,
            rho: 0.9,
            lambda: 0.0,
            final_ridge: 1e-4,
            power: 0.0,
            views: Views::auto(1024),
            normalise: true,
            schedule: Schedule {
                epochs: 50,
                batch: 1000,
                optimiser: Optimiser::Adam,
                learning_rate: 1e-3,
                decay_every: 0,
                decay: 1.0,
                weight_decay: 1e-5,
                clip: 0.0,
                patience: 0,
                validate_every: 1,
                ..Schedule::default()
            },
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
        read.schedule.check(NAME)?;
        let wrong = |key: &str, expected: &str, found: &dyn std::fmt::Display| {
            Err(params::out_of_range(NAME, key, expected, found))
        };
        if read.components == 0 || read.components > 4096 {
            return wrong("components", "1 to 4096", &read.components);
        }
        if read.top > read.components {
            return wrong("top", "at most `components`, or 0 for all", &read.top);
        }
        for (key, widths) in [("image_widths", &read.image_widths), ("text_widths", &read.text_widths)] {
            if let Some(width) = widths.iter().find(|&&width| width == 0 || width > 1 << 16) {
                return wrong(key, "hidden widths of 1 to 65536", width);
            }
        }
        for (key, value) in [
            ("image_ridge", read.image_ridge),
            ("text_ridge", read.text_ridge),
            ("final_ridge", read.final_ridge),
            ("lambda", read.lambda),
            ("power", read.power),
        ] {
            if !(value >= 0.0 && value.is_finite()) {
                return wrong(key, "a number of at least 0", &value);
            }
        }
        if !(0.0..1.0).contains(&read.rho) {
            return wrong("rho", "a number in [0, 1)", &read.rho);
        }
        Ok(read)
    }

    /// What the networks see, and the training vectors of images and texts.
    fn inputs(&self, training: &Training<'_>, seed: Seed) -> Result<(ScaledInputs, [Matrix; 2])> {
        ScaledInputs::fit(NAME, training, self.views, self.normalise, seed)
    }

    /// Widths of both networks from their inputs to their outputs.
    fn widths(&self, inputs: [usize; 2]) -> [Vec<usize>; 2] {
        let all = |input: usize, hidden: &[usize]| {
            std::iter::once(input).chain(hidden.iter().copied()).chain([self.components]).collect()
        };
        [all(inputs[0], &self.image_widths), all(inputs[1], &self.text_widths)]
    }

    /// Refuses so few pairs at once that any outputs correlate perfectly.
    fn check_pairs(&self, training: &Training<'_>) -> Result<()> {
        let (pairs, components) = (training.train.pairs.all().len(), self.components);
        let batch = self.schedule.batch.min(pairs);
        let (key, expected, found) = if pairs <= components {
            (
                "components",
                format!("fewer than the {pairs} training pairs of dataset `{}`", training.dataset),
                components,
            )
        } else if self.solver == Solver::Batches && batch <= components {
            ("batch", format!("more than `components` = {components} pairs"), batch)
        } else if self.solver == Solver::Noi && batch < 2 {
            ("batch", "at least 2 pairs".into(), batch)
        } else {
            return Ok(());
        };
        Err(Error::Parameter {
            method: NAME.into(),
            key: key.into(),
            expected,
            found: found.to_string(),
            hint: "; m pairs of m or more outputs correlate perfectly, whatever the networks do".into(),
        })
    }
}

impl Method for Dcca {
    fn card(&self) -> &Card {
        crate::card!("dcca.toml")
    }

    fn resolve(&self, table: &toml::Table) -> Result<toml::Table> {
        Params::read(table).map(|params| params::to_table(&params))
    }

    fn fit(&self, training: &Training<'_>, table: &toml::Table, run: &mut Run<'_>) -> Result<Box<dyn Matcher>> {
        let params = Params::read(table)?;
        let inputs = params.inputs(training, run.seed)?;
        params.check_pairs(training)?;
        run.check_stop()?;
        let (solver, schedule) = (params.solver, params.schedule.clone());
        let mut model = Networks::new(params, training, Weights::new(run.seed, &run.device), inputs)?;
        match solver {
            Solver::Lbfgs => full_batch::train(&model, training, run)?,
            Solver::Batches | Solver::Noi => train(&mut model, training, &schedule, run)?,
        }
        model.matcher()
    }

    fn load(&self, from: &Path, device: &Device) -> Result<Box<dyn Matcher>> {
        let store = Store::load(&from.join(PROJECTION))?;
        let wrong = |expected: String, found: String| Error::Format {
            file: from.join(PROJECTION).display().to_string(),
            expected,
            found,
        };
        let shape = store.text("shape")?;
        let shape: Shape = serde_json::from_str(shape)
            .map_err(|error| wrong("the shape of two networks".into(), error.to_string()))?;
        let inputs = ScaledInputs::load(NAME, &store)?;
        let projection = |name: &str, outputs: usize| -> Result<Projection> {
            let projection = Projection::load(&store, name)?;
            store.expect(&format!("{name}.weights"), "rows", outputs, projection.weights.nrows())?;
            Ok(projection)
        };
        for (widths, input) in shape.widths.iter().zip(inputs.widths()) {
            if widths.len() < 2 || widths.contains(&0) || widths[0] != input {
                return Err(wrong(format!("two or more widths above 0, the first {input}"), format!("{widths:?}")));
            }
        }
        let outputs = shape.widths.each_ref().map(|widths| widths[widths.len() - 1]);
        let projections = [projection(PROJECTIONS[0], outputs[0])?, projection(PROJECTIONS[1], outputs[1])?];
        let weights = Weights::open(&from.join(WEIGHTS), device)?;
        Ok(Box::new(Fitted { projections, ..Fitted::new(inputs, shape, weights)? }))
    }
}

/// How the networks are made again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shape {
    widths: [Vec<usize>; 2],
    activation: Activation,
}

/// The trained networks and the projections of their outputs.
struct Fitted {
    inputs: ScaledInputs,
    shape: Shape,
    weights: Weights,
    nets: [Mlp; 2],
    projections: [Projection; 2],
}

impl Fitted {
    /// Networks of a snapshot, with projections yet to come.
    fn of(params: &Params, inputs: &ScaledInputs, values: BTreeMap<String, Tensor>, device: &Device) -> Result<Self> {
        let shape = Shape { widths: params.widths(inputs.widths()), activation: params.activation };
        Self::new(inputs.clone(), shape, Weights::frozen(values, "the model in training", device))
    }

    fn new(inputs: ScaledInputs, shape: Shape, mut weights: Weights) -> Result<Self> {
        let mut net = |name: &str, widths: &[usize]| network(&mut weights, name, widths, shape.activation);
        let nets = [net("image", &shape.widths[0])?, net("text", &shape.widths[1])?];
        let none = || Projection { mean: Vec::new(), weights: Mat::zeros(0, 0) };
        Ok(Self { inputs, shape, weights, nets, projections: [none(), none()] })
    }

    /// Fits the projections to outputs of the training items, equation (2), and weighs them, equation (3).
    fn projected(self, params: &Params, images: &Matrix, texts: &Matrix, pairs: &[(u32, u32)]) -> Result<Self> {
        let options = Options {
            components: Components::AtMost(params.components),
            ridge: Ridge::Absolute(params.final_ridge),
            ..Options::default()
        };
        let fitted = cca::fit(images, texts, pairs, &options)?; // (2)
        Ok(Self { projections: fitted.weighted(params.power), ..self }) // (3)
    }

    /// Equation (3).
    fn codes(&self, view: usize, rows: &Matrix) -> Result<Codes> {
        let outputs = self.nets[view].outputs(rows, self.weights.device())?;
        Ok(dense(&self.projections[view].apply(&outputs)?))
    }
}

impl Matcher for Fitted {
    fn encode_images(&self, images: &Images) -> Result<Codes> {
        self.codes(0, &self.inputs.images(images)?)
    }

    fn encode_texts(&self, texts: &Texts) -> Result<Codes> {
        self.codes(1, &self.inputs.texts(texts)?)
    }

    fn similarity(&self) -> Similarity<'_> {
        Similarity::Cosine // (4)
    }

    fn save(&self, to: &Path) -> Result<()> {
        let mut store = self.inputs.save(Store::default())?;
        for (name, projection) in PROJECTIONS.into_iter().zip(&self.projections) {
            store = projection.save(store, name);
        }
        let shape = serde_json::to_string(&self.shape).expect("numbers and a word");
        store.with_text("shape", shape).save(&to.join(PROJECTION))?;
        self.weights.save(&to.join(WEIGHTS))
    }
}

#[cfg(test)]
mod tests;
