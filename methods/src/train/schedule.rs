//! How long, with which optimiser and at which rates a model is trained.
//!
//! The learning rate of step `s` in epoch `e`, both counted from 0, is
//!
//! ```text
//! step    rate(e) = learning_rate decay^k,  k = floor(e / decay_every), or the number of `decay_at` up to e
//! cosine  rate(e) = learning_rate (1 + cos(pi e / epochs)) / 2
//! rate(e, s) = rate(e) min(1, (s + 1) / rate_warmup)
//! ```
//!
//! In PyTorch these are StepLR, MultiStepLR and CosineAnnealingLR with T_max = epochs, each stepped once an epoch, times LambdaLR of
//! `min(1, (s + 1) / n)` stepped once a step (LinearLR with start_factor 1 / n, end_factor 1 and total_iters n - 1).

use serde::{Deserialize, Serialize};

use crate::{Result, params::out_of_range};

/// How a model is trained; flattened into the parameters of every gradient method.
///
/// A parameter that the chosen optimiser or rate schedule has no use for must be off or at the value of [`Schedule::default`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Passes over the training pairs.
    pub epochs: usize,
    /// Pairs a step; an incomplete last batch is dropped unless it is the only one.
    pub batch: usize,
    /// `adam`, `adamw`, `sgd` or `nesterov`.
    pub optimiser: Optimiser,
    /// Learning rate of the first epoch.
    pub learning_rate: f64,
    /// The learning rate is multiplied by `decay` after every so many epochs; 0 never.
    pub decay_every: usize,
    /// See `decay_every` and `decay_at`.
    pub decay: f64,
    /// L2 penalty added to the gradient; of `adamw`, the share of the learning rate by which a weight shrinks.
    pub weight_decay: f64,
    /// The gradient's global L2 norm is cut to this; 0 does not cut.
    pub clip: f64,
    /// Stop after so many epochs without a better validation score; 0 never stops early.
    pub patience: usize,
    /// Validate every so many epochs and after the last; never if there are fewer epochs.
    pub validate_every: usize,
    /// Stop with an error after so many steps in a row with the loss of a collapsed model; 0 never stops, and a control on
    /// shuffled pairs does not either.
    pub collapse_steps: usize,
    /// Momentum of `sgd` and `nesterov`.
    pub momentum: f64,
    /// Decay of the mean of gradients, of `adam` and `adamw`.
    pub beta1: f64,
    /// Decay of the mean of squared gradients, of `adam` and `adamw`.
    pub beta2: f64,
    /// How the learning rate falls from epoch to epoch.
    pub rate_schedule: RateSchedule,
    /// Steps over which the learning rate rises to its height; 0 for none.
    pub rate_warmup: usize,
    /// Epochs after which the learning rate is multiplied by `decay`, ascending; if there are any, they take the place of
    /// `decay_every`.
    pub decay_at: Vec<usize>,
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
            momentum: 0.9,
            beta1: 0.9,
            beta2: 0.999,
            rate_schedule: RateSchedule::Step,
            rate_warmup: 0,
            decay_at: Vec::new(),
        }
    }
}

impl Schedule {
    /// Whether an epoch comes after which a judge is asked.
    pub fn validates(&self) -> bool {
        self.validate_every <= self.epochs
    }

    /// Checks every value.
    ///
    /// # Errors
    /// A value out of range, or one that would change nothing; `method` is named in the error.
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
        not_negative("clip", self.clip)?;
        if self.patience > 0 && !self.validates() {
            return Err(out_of_range(method, "patience", "0, as no epoch is validated", self.patience));
        }
        self.check_optimiser(method)?;
        self.check_rates(method)
    }

    fn check_optimiser(&self, method: &str) -> Result<()> {
        let default = Self::default();
        for (key, value, default, used) in [
            ("momentum", self.momentum, default.momentum, !self.optimiser.adaptive()),
            ("beta1", self.beta1, default.beta1, self.optimiser.adaptive()),
            ("beta2", self.beta2, default.beta2, self.optimiser.adaptive()),
        ] {
            if !(0.0..1.0).contains(&value) {
                return Err(out_of_range(method, key, "a number in [0, 1)", value));
            }
            if !used && value != default {
                let expected = format!("{default}, as `{}` has no use for it", self.optimiser.name());
                return Err(out_of_range(method, key, &expected, value));
            }
        }
        if self.optimiser == Optimiser::Nesterov && self.momentum == 0.0 {
            return Err(out_of_range(method, "momentum", "a number above 0, which `nesterov` needs", self.momentum));
        }
        Ok(())
    }

    fn check_rates(&self, method: &str) -> Result<()> {
        let default = Self::default();
        let ascending =
            self.decay_at.first().is_none_or(|&first| first > 0) && self.decay_at.is_sorted_by(|a, b| a < b);
        if !ascending {
            let found = format!("{:?}", self.decay_at);
            return Err(out_of_range(method, "decay_at", "ascending numbers of epochs from 1 up", found));
        }
        let cosine = self.rate_schedule == RateSchedule::Cosine;
        let instead = if cosine { "`rate_schedule = \"cosine\"`" } else { "`decay_at`" };
        if cosine && !self.decay_at.is_empty() {
            let found = format!("{:?}", self.decay_at);
            return Err(out_of_range(method, "decay_at", "no epochs beside `rate_schedule = \"cosine\"`", found));
        }
        if (cosine || !self.decay_at.is_empty()) && ![0, default.decay_every].contains(&self.decay_every) {
            return Err(out_of_range(method, "decay_every", &format!("0 beside {instead}"), self.decay_every));
        }
        if cosine && ![1.0, default.decay].contains(&self.decay) {
            return Err(out_of_range(method, "decay", &format!("1 beside {instead}"), self.decay));
        }
        Ok(())
    }

    /// The learning rate of an epoch, counted from 0, after the warm-up.
    pub fn rate(&self, epoch: usize) -> f64 {
        if self.rate_schedule == RateSchedule::Cosine {
            let turn = std::f64::consts::PI * epoch as f64 / self.epochs as f64;
            return self.learning_rate * (1.0 + turn.cos()) / 2.0;
        }
        let decays = match self.decay_at.as_slice() {
            [] => epoch.checked_div(self.decay_every).unwrap_or(0),
            at => at.iter().filter(|&&at| at <= epoch).count(),
        };
        self.learning_rate * self.decay.powi(i32::try_from(decays).unwrap_or(i32::MAX))
    }

    /// The learning rate of a step, counted from 0 over the whole training, which lies in `epoch`, counted from 0.
    pub fn rate_of_step(&self, epoch: usize, step: usize) -> f64 {
        let rate = self.rate(epoch);
        if step < self.rate_warmup { rate * ((step + 1) as f64 / self.rate_warmup as f64) } else { rate }
    }
}

/// Which optimiser, as PyTorch has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimiser {
    /// Adam, Kingma and Ba 2015, eps 1e-8; the L2 penalty goes through the moments.
    Adam,
    /// Adam whose weight decay goes past the moments, Loshchilov and Hutter 2019.
    AdamW,
    /// Stochastic gradient descent with heavy-ball momentum.
    Sgd,
    /// Stochastic gradient descent with Nesterov's momentum.
    Nesterov,
}

impl Optimiser {
    /// Whether steps are scaled by the mean of squared gradients.
    pub(super) fn adaptive(self) -> bool {
        matches!(self, Self::Adam | Self::AdamW)
    }

    /// The word in parameters.
    fn name(self) -> &'static str {
        match self {
            Self::Adam => "adam",
            Self::AdamW => "adamw",
            Self::Sgd => "sgd",
            Self::Nesterov => "nesterov",
        }
    }
}

/// How the learning rate falls from epoch to epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RateSchedule {
    /// By a factor after some epochs: `decay_every` or `decay_at`.
    Step,
    /// Along half a cosine, towards 0 at the end of the last epoch.
    Cosine,
}

#[cfg(test)]
mod tests;
