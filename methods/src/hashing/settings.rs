//! Defaults and ranges that most methods of this family have.

use crate::{
    Result,
    params::out_of_range,
    train::{Optimiser, Schedule},
};

/// The schedule of DJSRH and of most that followed: SGD with momentum 0.9 and weight decay 5e-4 on batches of 32 at one rate.
pub(super) fn schedule(epochs: usize, learning_rate: f64) -> Schedule {
    Schedule {
        epochs,
        batch: 32,
        optimiser: Optimiser::Sgd,
        learning_rate,
        decay_every: 0,
        decay: 1.0,
        weight_decay: 5e-4,
        clip: 0.0,
        validate_every: 5,
        ..Schedule::default()
    }
}

/// Refuses numbers below 0 and such that are none.
pub(super) fn not_negative(method: &str, values: &[(&str, f64)]) -> Result<()> {
    match values.iter().find(|(_, value)| !(*value >= 0.0 && value.is_finite())) {
        Some((key, value)) => Err(out_of_range(method, key, "a number of at least 0", value)),
        None => Ok(()),
    }
}

/// Refuses what is no share of something.
pub(super) fn shares(method: &str, values: &[(&str, f64)]) -> Result<()> {
    match values.iter().find(|(_, value)| !(0.0..=1.0).contains(value)) {
        Some((key, value)) => Err(out_of_range(method, key, "a number in [0, 1]", value)),
        None => Ok(()),
    }
}
