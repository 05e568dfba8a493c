//! The training loop that every gradient method shares.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use xmbench_datasets::random::Stream;

use crate::{Matcher, Result, Run, Training, nn::Weights};

/// How a model is trained; flattened into the parameters of every gradient method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Passes over the training pairs.
    pub epochs: usize,
    /// Pairs a step; an incomplete last batch is dropped.
    pub batch: usize,
    /// `adam` or `sgd` (momentum 0.9).
    pub optimiser: Optimiser,
    /// Learning rate of the first epoch.
    pub learning_rate: f64,
    /// The learning rate is multiplied by `decay` after every so many epochs; 0 never.
    pub decay_every: usize,
    /// See `decay_every`.
    pub decay: f64,
    /// L2 penalty added to the gradient.
    pub weight_decay: f64,
    /// The gradient's global L2 norm is cut to this; 0 does not cut.
    pub clip: f64,
    /// Stop after so many epochs without a better validation score; 0 never stops early.
    pub patience: usize,
    /// Validate every so many epochs.
    pub validate_every: usize,
}

/// Which optimiser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimiser {
    /// Adam, Kingma and Ba 2015, beta 0.9 and 0.999, eps 1e-8.
    Adam,
    /// Stochastic gradient descent, momentum 0.9 as PyTorch has it.
    Sgd,
}

/// Where in the training a step stands.
pub struct Step {
    /// Counted from 0.
    pub epoch: usize,
    /// Counted from 0 over the whole training.
    pub step: usize,
    /// Random numbers of this step (dropout, negatives).
    pub stream: Stream,
}

/// A model that gradients train.
pub trait Model {
    /// Everything that is trained.
    fn weights(&self) -> &Weights;

    /// The loss of a batch of `(image, text)` pairs of the training split, a scalar.
    ///
    /// # Errors
    /// If features cannot be read or a tensor operation fails.
    fn loss(&self, training: &Training<'_>, batch: &[(u32, u32)], step: &mut Step) -> Result<Tensor>;

    /// The model as it stands, to encode with; later steps do not change it.
    ///
    /// # Errors
    /// If a tensor cannot be copied.
    fn matcher(&self) -> Result<Box<dyn Matcher>>;
}

/// Trains `model` and leaves it at the weights of the best validation score (of the last epoch without one).
///
/// # Errors
/// A loss that is not finite, a stop from outside, or what the model reports.
pub fn train(
    _model: &mut (dyn Model + Send),
    _training: &Training<'_>,
    _schedule: &Schedule,
    _run: &mut Run<'_>,
) -> Result<()> {
    unimplemented!()
}
