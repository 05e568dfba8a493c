//! The training loop that every gradient method shares.
//!
//! Each epoch walks batches of pairs ([`Sampler`]) drawn from (seed, `shuffle`, epoch). A step on a batch is one [`Phase`] or
//! several, each a loss and a move of the weights that it is given. The end of an epoch is validated, written down and, if the run
//! keeps checkpoints, saved so that an interrupted training goes on to the same bits.

pub mod apart;
mod checkpoint;
mod collapse;
pub mod heap;
pub mod memory;
mod optimiser;
mod phase;
mod sampler;
mod schedule;

use std::{collections::BTreeMap, time::Instant};

use candle_core::{DType, Tensor};
use xmbench_datasets::random::{Seed, Stream};

use self::{checkpoint::Checkpoint, collapse::Collapse, optimiser::State};
pub use self::{
    phase::{Moves, Phase},
    sampler::Sampler,
    schedule::{Optimiser, RateSchedule, Schedule},
};
use crate::{
    Error, Matcher, Result, Run, Training,
    method::Epoch,
    nn::{Weights, backward},
};

/// Where in the training a step stands.
pub struct Step {
    /// Counted from 0.
    pub epoch: usize,
    /// Counted from 0 over the whole training; the phases of a step share it.
    pub step: usize,
    /// Position among [`Model::phases`].
    pub phase: usize,
    /// Random numbers of this phase of this step (dropout, negatives).
    pub stream: Stream,
}

impl Step {
    fn new(seed: Seed, epoch: usize, step: usize, phase: usize) -> Self {
        let number = step.to_string();
        let stream = match phase {
            0 => seed.stream(&["step", &number]),
            _ => seed.stream(&["step", &number, "phase", &phase.to_string()]),
        };
        Self { epoch, step, phase, stream }
    }
}

/// A model that gradients train.
pub trait Model {
    /// Everything that is trained, and what else is part of the model's state (running moments, momentum encoders, queues): a
    /// weight that takes no part in the loss stays as the model sets it. What is not among them is lost between two runs.
    fn weights(&self) -> &Weights;

    /// What a step consists of, in order; asked once, before training.
    fn phases(&self) -> Vec<Phase> {
        vec![Phase::default()]
    }

    /// How the batches of an epoch, counted from 0, are drawn.
    ///
    /// # Errors
    /// What the model reports.
    fn sampler(&self, _training: &Training<'_>, _epoch: usize) -> Result<Sampler> {
        Ok(Sampler::Shuffled)
    }

    /// The loss of a batch of `(image, text)` pairs of the training split in one phase of a step, a scalar.
    ///
    /// # Errors
    /// If features cannot be read or a tensor operation fails.
    fn loss(&self, training: &Training<'_>, batch: &[(u32, u32)], step: &mut Step) -> Result<Tensor>;

    /// Called when the optimiser has moved the weights of a phase: sets what gradients do not (a clamped weight, a momentum
    /// encoder, a queue), in place of variables among the weights. The stream stands where the loss left it.
    ///
    /// # Errors
    /// What the model reports.
    fn after(&self, _step: &Step) -> Result<()> {
        Ok(())
    }

    /// Factor of the learning rate for a weight.
    fn rate(&self, _weight: &str) -> f64 {
        1.0
    }

    /// The loss of the first phase on `batch` pairs in an epoch, counted from 0, if every item had the same vector and the model
    /// could not get away from there; `None` where there is no such trap.
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

/// How far a training has come, beside its weights and its history.
struct Progress {
    optimiser: State,
    /// Steps taken.
    steps: usize,
    collapse: Collapse,
    best: Option<Best>,
}

/// Trains `model` and leaves it at the weights of the best validation score (of the last epoch without a judge, or where none
/// is due). An interrupted training with checkpoints goes on after its last whole epoch.
///
/// # Errors
/// A schedule out of range, an epoch without a phase, no pairs, a loss or gradient that is not finite, a stop from outside, a
/// checkpoint of another training, or what the model reports.
pub fn train(
    model: &mut (dyn Model + Send),
    training: &Training<'_>,
    schedule: &Schedule,
    run: &mut Run<'_>,
) -> Result<()> {
    schedule.check("training")?;
    memory::keep();
    apart::deep(|| train_here(model, training, schedule, run))
}

fn train_here(model: &mut dyn Model, training: &Training<'_>, schedule: &Schedule, run: &mut Run<'_>) -> Result<()> {
    let pairs = training.train.pairs.all();
    if pairs.is_empty() {
        return Err(Error::Numeric(format!(
            "dataset `{}` has no training pairs; a method that trains on pairs needs at least one",
            training.dataset
        )));
    }
    let phases = model.phases();
    phase::check(&phases, schedule, model.weights())?;
    let mut progress = Progress {
        optimiser: State::new(schedule.optimiser, model.weights())?,
        steps: 0,
        collapse: Collapse::new(if run.control { 0 } else { schedule.collapse_steps }),
        best: None,
    };
    let checkpoint = Checkpoint::new(run, schedule, &phases, training, model.weights());
    let mut done = match &checkpoint {
        Some(checkpoint) => checkpoint.read(model.weights(), &mut progress, &mut run.history)?,
        None => 0,
    };
    while done < schedule.epochs && !out_of_patience(schedule, progress.best.as_ref(), done) {
        let epoch = one_epoch(model, training, schedule, &phases, run, &mut progress, done)?;
        done += 1;
        let due = done % schedule.validate_every == 0 || (done == schedule.epochs && schedule.validates());
        let validation = match run.judge {
            Some(judge) if due => Some(validate(judge, model, done, &mut progress.best)?),
            _ => None,
        };
        let epoch = Epoch { validation, ..epoch };
        run.observer.epoch(&epoch);
        run.history.push(epoch);
        if let Some(checkpoint) = &checkpoint {
            checkpoint.write(model.weights(), &progress, &run.history)?;
        }
    }
    match progress.best {
        Some(best) => model.weights().restore(&best.weights),
        None => Ok(()),
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
    phases: &[Phase],
    run: &mut Run<'_>,
    progress: &mut Progress,
    epoch: usize,
) -> Result<Epoch> {
    let pairs = training.train.pairs.all();
    let (start, mut sum, mut rate) = (Instant::now(), 0.0, 0.0);
    let mut stream = run.seed.stream(&["shuffle", &epoch.to_string()]);
    let batches = model.sampler(training, epoch)?.batches(pairs.len(), schedule.batch, &mut stream)?;
    let steps = batches.len();
    // Later epochs may have another number of steps, which nobody knows yet.
    let total = progress.steps + (schedule.epochs - epoch) * steps;
    for (i, batch) in batches.iter().enumerate() {
        run.check_stop()?;
        let number = progress.steps;
        rate = schedule.rate_of_step(epoch, number);
        let batch: Vec<(u32, u32)> = batch.iter().map(|&p| pairs[p]).collect();
        let mut losses = 0.0;
        for (k, phase) in phases.iter().enumerate().filter(|(_, phase)| phase.epochs.contains(&epoch)) {
            let mut step = Step::new(run.seed, epoch, number, k);
            let loss = model.loss(training, &batch, &mut step)?;
            let value = loss.to_dtype(DType::F64)?.to_scalar::<f64>()?;
            let bad = |what: &str, value: f64| {
                let phase = if phases.len() > 1 { format!(", phase {k}") } else { String::new() };
                Error::Numeric(format!(
                    "the {what} is {value} in epoch {}, step {} of {steps}{phase}; try a lower `learning_rate` than {rate}, \
                     a smaller `clip`, or look for huge values among the features",
                    epoch + 1,
                    i + 1
                ))
            };
            if !value.is_finite() {
                return Err(bad("loss", value));
            }
            if k == 0 {
                progress.collapse.watch(value, model.collapsed(batch.len(), epoch), epoch)?;
            }
            let rate_of = |weight: &str| rate * phase.rate * model.rate(weight);
            let grads = backward(&loss)?;
            let norm = progress.optimiser.step(model.weights(), &phase.weights, &grads, schedule, &rate_of)?;
            if !norm.is_finite() {
                return Err(bad("norm of the gradient", norm));
            }
            model.after(&step)?;
            losses += value;
        }
        progress.steps += 1;
        sum += losses;
        run.observer.step(number + 1, total, losses);
    }
    Ok(Epoch {
        epoch: epoch + 1,
        loss: sum / steps as f64,
        learning_rate: rate,
        validation: None,
        seconds: start.elapsed().as_secs_f64(),
        pairs: batches.iter().map(Vec::len).max().unwrap_or(0),
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
mod pytorch;
#[cfg(test)]
mod tests;
