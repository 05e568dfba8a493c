//! The training loop that every gradient method shares.
//!
//! Each epoch walks the pairs in an order drawn from (seed, `shuffle`, epoch); its end is validated, written down and, if the
//! run keeps checkpoints, saved so that an interrupted training goes on to the same bits.

mod checkpoint;
pub mod memory;
mod optimiser;

use std::{collections::BTreeMap, time::Instant};

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};
use xmbench_datasets::random::Stream;

use self::{checkpoint::Checkpoint, optimiser::State};
use crate::{Error, Matcher, Result, Run, Training, method::Epoch, nn::Weights, params::out_of_range};

/// Stack of the training thread: candle walks the graph of a loss by recursion.
const STACK: usize = 256 << 20;

/// How a model is trained; flattened into the parameters of every gradient method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Passes over the training pairs.
    pub epochs: usize,
    /// Pairs a step; an incomplete last batch is dropped unless it is the only one.
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
    /// Stop with an error after so many steps in a row with the loss of a collapsed model; 0 never stops, and a control on
    /// shuffled pairs does not either.
    pub collapse_steps: usize,
}

impl Default for Schedule {
    /// That of VSE++: Adam at 2e-4 for 30 epochs of batches of 128, a tenth of the rate after 15, gradients cut to norm 2.
    fn default() -> Self {
        Self {
            epochs: 30,
            batch: 128,
            optimiser: Optimiser::Adam,
            learning_rate: 2e-4,
            decay_every: 15,
            decay: 0.1,
            weight_decay: 0.0,
            clip: 2.0,
            patience: 0,
            validate_every: 1,
            collapse_steps: 200,
        }
    }
}

impl Schedule {
    /// Checks every value.
    ///
    /// # Errors
    /// A value out of range; `method` is named in the error.
    pub fn check(&self, method: &str) -> Result<()> {
        let positive = |key: &str, value: f64| {
            if value > 0.0 && value.is_finite() {
                Ok(())
            } else {
                Err(out_of_range(method, key, "a number above 0", value))
            }
        };
        let not_negative = |key: &str, value: f64| {
            if value >= 0.0 && value.is_finite() {
                Ok(())
            } else {
                Err(out_of_range(method, key, "a number from 0 up", value))
            }
        };
        for (key, value) in [("epochs", self.epochs), ("batch", self.batch), ("validate_every", self.validate_every)] {
            if value == 0 {
                return Err(out_of_range(method, key, "at least 1", value));
            }
        }
        positive("learning_rate", self.learning_rate)?;
        positive("decay", self.decay)?;
        not_negative("weight_decay", self.weight_decay)?;
        not_negative("clip", self.clip)
    }

    /// The learning rate of an epoch, counted from 0.
    pub fn rate(&self, epoch: usize) -> f64 {
        let decays = epoch.checked_div(self.decay_every).unwrap_or(0);
        self.learning_rate * self.decay.powi(i32::try_from(decays).unwrap_or(i32::MAX))
    }
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
    /// Everything that is trained, and what else is part of the model's state: a weight that takes no part in the loss
    /// stays as the model sets it.
    fn weights(&self) -> &Weights;

    /// The loss of a batch of `(image, text)` pairs of the training split, a scalar.
    ///
    /// # Errors
    /// If features cannot be read or a tensor operation fails.
    fn loss(&self, training: &Training<'_>, batch: &[(u32, u32)], step: &mut Step) -> Result<Tensor>;

    /// Factor of the learning rate for a weight.
    fn rate(&self, _weight: &str) -> f64 {
        1.0
    }

    /// The loss of `batch` pairs in an epoch, counted from 0, if every item had the same vector and the model could not get away
    /// from there; `None` where there is no such trap.
    fn collapsed(&self, _batch: usize, _epoch: usize) -> Option<f64> {
        None
    }

    /// The model as it stands, to encode with; later steps do not change it.
    ///
    /// # Errors
    /// If a tensor cannot be copied.
    fn matcher(&self) -> Result<Box<dyn Matcher>>;
}

/// The best validation score so far, and the weights that had it.
struct Best {
    score: f64,
    epoch: usize,
    weights: BTreeMap<String, Tensor>,
}

/// Trains `model` and leaves it at the weights of the best validation score (of the last epoch without a judge). An
/// interrupted training with checkpoints goes on after its last whole epoch.
///
/// # Errors
/// A schedule out of range, no pairs, a loss or gradient that is not finite, a stop from outside, a checkpoint of another
/// training, or what the model reports.
pub fn train(
    model: &mut (dyn Model + Send),
    training: &Training<'_>,
    schedule: &Schedule,
    run: &mut Run<'_>,
) -> Result<()> {
    schedule.check("training")?;
    memory::keep();
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("training".into())
            .stack_size(STACK)
            .spawn_scoped(scope, || train_here(model, training, schedule, run))
            .map_err(Error::io("the training thread"))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn train_here(model: &mut dyn Model, training: &Training<'_>, schedule: &Schedule, run: &mut Run<'_>) -> Result<()> {
    let pairs = training.train.pairs.all();
    if pairs.is_empty() {
        return Err(Error::Numeric(format!(
            "dataset `{}` has no training pairs; a method that trains on pairs needs at least one",
            training.dataset
        )));
    }
    let mut state = State::new(schedule.optimiser, model.weights())?;
    let mut best: Option<Best> = None;
    let mut collapse = Collapse::new(if run.control { 0 } else { schedule.collapse_steps });
    let checkpoint = Checkpoint::new(run, schedule, training, model.weights());
    let mut done = match &checkpoint {
        Some(checkpoint) => checkpoint.read(model.weights(), &mut state, &mut best, &mut run.history)?,
        None => 0,
    };
    while done < schedule.epochs && !out_of_patience(schedule, best.as_ref(), done) {
        let epoch = one_epoch(model, training, schedule, run, &mut state, &mut collapse, done)?;
        done += 1;
        let due = done % schedule.validate_every == 0 || done == schedule.epochs;
        let validation = match run.judge {
            Some(judge) if due => Some(validate(judge, model, done, &mut best)?),
            _ => None,
        };
        let epoch = Epoch { validation, ..epoch };
        run.observer.epoch(&epoch);
        run.history.push(epoch);
        if let Some(checkpoint) = &checkpoint {
            checkpoint.write(model.weights(), &state, best.as_ref(), &run.history)?;
        }
    }
    match best {
        Some(best) => model.weights().restore(&best.weights),
        None => Ok(()),
    }
}

/// Watches for a model that gives every item the same vector: there the gradients of a hinge on the hardest negatives cancel.
struct Collapse {
    /// Steps in a row that are too many; 0 for never.
    most: usize,
    steps: usize,
}

impl Collapse {
    /// How near the loss must be to that of a collapsed model.
    const SHARE: f64 = 0.01;

    fn new(most: usize) -> Self {
        Self { most, steps: 0 }
    }

    /// Takes note of a step's loss, and of what it would be after a collapse.
    fn watch(&mut self, loss: f64, collapsed: Option<f64>, epoch: usize) -> Result<()> {
        let near = collapsed.is_some_and(|collapsed| (loss - collapsed).abs() <= Self::SHARE * collapsed);
        self.steps = if near { self.steps + 1 } else { 0 };
        if self.most == 0 || self.steps < self.most {
            return Ok(());
        }
        Err(Error::Numeric(format!(
            "the model has collapsed: for {} steps, up to epoch {}, the loss has stayed within 1 % of {:.4}, its value when every \
             item has the same vector; set `warmup` to a few epochs of all negatives, lower `learning_rate`, raise `batch`, or set \
             `collapse_steps = 0` to go on",
            self.steps,
            epoch + 1,
            collapsed.unwrap_or_default()
        )))
    }
}

/// Whether the best score is too long ago.
fn out_of_patience(schedule: &Schedule, best: Option<&Best>, done: usize) -> bool {
    schedule.patience > 0 && best.is_some_and(|best| done - best.epoch >= schedule.patience)
}

/// Every batch of an epoch, counted from 0.
fn one_epoch(
    model: &dyn Model,
    training: &Training<'_>,
    schedule: &Schedule,
    run: &mut Run<'_>,
    state: &mut State,
    collapse: &mut Collapse,
    epoch: usize,
) -> Result<Epoch> {
    let pairs = training.train.pairs.all();
    let batch = schedule.batch.min(pairs.len());
    let order = run.seed.stream(&["shuffle", &epoch.to_string()]).permutation(pairs.len());
    let (rate, start, mut sum) = (schedule.rate(epoch), Instant::now(), 0.0);
    let batches = order.chunks_exact(batch);
    let steps = batches.len();
    let total = schedule.epochs * steps;
    for (i, batch) in batches.enumerate() {
        run.check_stop()?;
        let number = epoch * steps + i;
        let batch: Vec<(u32, u32)> = batch.iter().map(|&p| pairs[p]).collect();
        let mut step = Step { epoch, step: number, stream: run.seed.stream(&["step", &number.to_string()]) };
        let loss = model.loss(training, &batch, &mut step)?;
        let value = loss.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        let bad = |what: &str, value: f64| {
            Error::Numeric(format!(
                "the {what} is {value} in epoch {}, step {} of {steps}; try a lower `learning_rate` than {rate}, \
                 a smaller `clip`, or look for huge values among the features",
                epoch + 1,
                i + 1
            ))
        };
        if !value.is_finite() {
            return Err(bad("loss", value));
        }
        collapse.watch(value, model.collapsed(batch.len(), epoch), epoch)?;
        let rate_of = |weight: &str| rate * model.rate(weight);
        let norm = state.step(model.weights(), &loss.backward()?, schedule, &rate_of)?;
        if !norm.is_finite() {
            return Err(bad("norm of the gradient", norm));
        }
        sum += value;
        run.observer.step(number + 1, total, value);
    }
    Ok(Epoch {
        epoch: epoch + 1,
        loss: sum / steps as f64,
        learning_rate: rate,
        validation: None,
        seconds: start.elapsed().as_secs_f64(),
        pairs: batch,
    })
}

/// Judges the model as it stands and remembers it if it is the best so far.
fn validate(judge: &crate::method::Judge<'_>, model: &dyn Model, epoch: usize, best: &mut Option<Best>) -> Result<f64> {
    let score = judge(&*model.matcher()?)?;
    if score.is_nan() {
        return Err(Error::Numeric(format!(
            "the validation score is not a number after epoch {epoch}; try a lower `learning_rate`"
        )));
    }
    if best.as_ref().is_none_or(|best| score > best.score) {
        *best = Some(Best { score, epoch, weights: model.weights().snapshot()? });
    }
    Ok(score)
}

#[cfg(test)]
mod tests;
