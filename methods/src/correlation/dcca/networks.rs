//! The two networks, their decoders, and the losses of a batch of pairs.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use faer::{Mat, Scale};
use xmbench_datasets::Matrix;

use super::{EPSILON, Fitted, NAME, Params, Solver};
use crate::{
    Error, Matcher, Result, Training,
    linalg::{inverse_root, multiply, select},
    loss::{CanonicalCorrelation, canonical_correlation},
    nn::{Activation, Mlp, MlpSettings, ScaledInputs, Weights},
    train::{Model, Step},
};

/// A network: a nonlinearity after every layer but the last, weights `NAME.0.weight` and so on.
///
/// # Errors
/// If a weight cannot be made.
pub(super) fn network(weights: &mut Weights, name: &str, widths: &[usize], activation: Activation) -> Result<Mlp> {
    Mlp::new(weights, name, widths, MlpSettings { activation, ..MlpSettings::default() })
}

/// The model in training.
pub(super) struct Networks {
    pub params: Params,
    pub weights: Weights,
    pub pairs: Vec<(u32, u32)>,
    inputs: Arc<ScaledInputs>,
    /// Scaled training vectors of images and of texts.
    rows: [Matrix; 2],
    nets: [Mlp; 2],
    decoders: Option<[Mlp; 2]>,
    /// Running covariances of the outputs, equation (6).
    running: Option<[Var; 2]>,
}

impl Networks {
    /// Networks with random weights for the training split.
    ///
    /// # Errors
    /// If a weight cannot be made.
    pub fn new(
        params: Params,
        training: &Training<'_>,
        mut weights: Weights,
        inputs: (ScaledInputs, [Matrix; 2]),
    ) -> Result<Self> {
        let (inputs, rows) = inputs;
        let pairs = training.train.pairs.all().to_vec();
        let [image, text] = params.widths(inputs.widths());
        let mut net = |name: &str, widths: &[usize]| network(&mut weights, name, widths, params.activation);
        let nets = [net("image", &image)?, net("text", &text)?];
        let mirrored = |widths: &[usize]| -> Vec<usize> { widths.iter().rev().copied().collect() };
        let decoders = match params.lambda > 0.0 {
            true => Some([net("image.decoder", &mirrored(&image))?, net("text.decoder", &mirrored(&text))?]),
            false => None,
        };
        let mut covariance = |view: &str| -> Result<Var> {
            let zeros = Tensor::zeros((params.components, params.components), DType::F32, &weights.device().clone())?;
            weights.state(&format!("{view}.covariance"), zeros)
        };
        let running = match params.solver == Solver::Noi {
            true => Some([covariance("image")?, covariance("text")?]),
            false => None,
        };
        Ok(Self { params, weights, pairs, inputs: Arc::new(inputs), rows, nets, decoders, running })
    }

    /// The objective over the outputs, equation (1).
    pub fn objective(&self) -> CanonicalCorrelation {
        let Params { top, image_ridge, text_ridge, objective, .. } = self.params;
        let top = if top == 0 { None } else { Some(top) };
        CanonicalCorrelation { top, ridge: [image_ridge, text_ridge], epsilon: EPSILON, objective }
    }

    /// Scaled vectors of a batch, images and texts.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn gather(&self, batch: &[(u32, u32)]) -> Result<[Tensor; 2]> {
        let view = |rows: &Matrix, items: Vec<usize>| -> Result<Tensor> {
            let rows = select(rows, &items);
            Ok(Tensor::from_vec(rows.data, (rows.rows, rows.cols), self.weights.device())?)
        };
        let (images, texts) = batch.iter().map(|pair| (pair.0 as usize, pair.1 as usize)).unzip();
        Ok([view(&self.rows[0], images)?, view(&self.rows[1], texts)?])
    }

    /// Outputs of both networks.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn forward(&self, inputs: &[Tensor; 2]) -> Result<[Tensor; 2]> {
        Ok([self.nets[0].forward(&inputs[0], None)?, self.nets[1].forward(&inputs[1], None)?])
    }

    /// Squared error of the reconstructed inputs, both views, summed over the batch; `None` without decoders.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn reconstruction(&self, inputs: &[Tensor; 2], outputs: &[Tensor; 2]) -> Result<Option<Tensor>> {
        let Some(decoders) = &self.decoders else { return Ok(None) };
        let error = |k: usize| -> Result<Tensor> {
            Ok((decoders[k].forward(&outputs[k], None)? - &inputs[k])?.sqr()?.sum_all()?)
        };
        Ok(Some((error(0)? + error(1)?)?))
    }

    /// Equations (6) to (8): regression of each view on the whitened other one.
    fn alternating(&self, outputs: &[Tensor; 2], running: &[Var; 2], first: bool) -> Result<Tensor> {
        let m = outputs[0].dim(0)?;
        let centred = [0, 1].map(|k| outputs[k].broadcast_sub(&outputs[k].mean_keepdim(0)?));
        let [one, two] = centred;
        let (one, two) = (one?, two?);
        let ridge = [self.params.image_ridge, self.params.text_ridge];
        let mut whitened = Vec::new();
        for (k, view) in [&one, &two].into_iter().enumerate() {
            let rows = wide(&view.detach())?;
            let batch = multiply(rows.transpose(), rows.as_ref()) * Scale(1.0 / (m as f64 - 1.0));
            if !batch.norm_l2().is_finite() {
                return Err(Error::Numeric(format!(
                    "{NAME}: the outputs of a network are not finite; try a lower `learning_rate`"
                )));
            }
            // At first there is nothing to keep.
            let rho = if first { 0.0 } else { self.params.rho };
            let covariance = wide(&running[k])? * Scale(rho) + batch * Scale(1.0 - rho); // (6)
            running[k].set(&tensor(&covariance, view.device())?)?;
            let mut regularised = covariance; // (7)
            (0..regularised.nrows()).for_each(|j| regularised[(j, j)] += ridge[k]);
            let root = inverse_root(regularised.as_ref(), EPSILON)?.ok_or_else(|| {
                Error::Numeric(format!("{NAME}: the outputs of a network became constant; raise the ridges"))
            })?;
            whitened.push(tensor(&multiply(rows.as_ref(), root.as_ref()), view.device())?);
        }
        let regress = |view: &Tensor, target: &Tensor| -> Result<Tensor> { Ok((view - target)?.sqr()?.sum_all()?) };
        Ok(((regress(&one, &whitened[1])? + regress(&two, &whitened[0])?)? / m as f64)?) // (8)
    }
}

impl Model for Networks {
    fn weights(&self) -> &Weights {
        &self.weights
    }

    fn loss(&self, _: &Training<'_>, batch: &[(u32, u32)], step: &mut Step) -> Result<Tensor> {
        let inputs = self.gather(batch)?;
        let outputs = self.forward(&inputs)?;
        let loss = match &self.running {
            Some(running) => self.alternating(&outputs, running, step.step == 0)?,
            None => canonical_correlation(&self.objective(), &outputs[0], &outputs[1])?.neg()?,
        };
        match self.reconstruction(&inputs, &outputs)? {
            Some(error) => Ok((loss + (error * (self.params.lambda / batch.len() as f64))?)?), // (5)
            None => Ok(loss),
        }
    }

    fn matcher(&self) -> Result<Box<dyn Matcher>> {
        let outputs = |k: usize| self.nets[k].outputs(&self.rows[k], self.weights.device());
        let fitted = Fitted::of(&self.params, &self.inputs, self.weights.snapshot()?, self.weights.device())?;
        Ok(Box::new(fitted.projected(&self.params, &outputs(0)?, &outputs(1)?, &self.pairs)?))
    }
}

/// A tensor `[m, n]` as an f64 matrix.
fn wide(tensor: &Tensor) -> Result<Mat<f64>> {
    let (rows, cols) = tensor.dims2()?;
    let values = tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    Ok(Mat::from_fn(rows, cols, |i, j| values[i * cols + j]))
}

/// An f64 matrix as a tensor of f32.
fn tensor(matrix: &Mat<f64>, device: &Device) -> Result<Tensor> {
    let (rows, cols) = (matrix.nrows(), matrix.ncols());
    let values = (0..rows).flat_map(|i| (0..cols).map(move |j| matrix[(i, j)] as f32)).collect();
    Ok(Tensor::from_vec(values, (rows, cols), device)?)
}
