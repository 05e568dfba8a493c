use serde::Serialize;

use super::Schedule;
use crate::{Result, nn::Weights, params::out_of_range};

/// A part of a step: a forward pass, a backward pass and an optimiser step of its own.
///
/// Phases whose epochs overlap alternate within a step, in order; phases of disjoint epochs follow each other. A weight has one
/// set of moments, whichever phases move it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Phase {
    /// What the optimiser moves; gradients of other weights are dropped, and clipping does not see them.
    pub weights: Moves,
    /// Factor of the learning rate.
    pub rate: f64,
    /// Epochs, counted from 0, in which the phase takes part.
    pub epochs: std::ops::Range<usize>,
}

impl Default for Phase {
    /// All weights at the learning rate, in every epoch.
    fn default() -> Self {
        Self { weights: Moves::All, rate: 1.0, epochs: 0..usize::MAX }
    }
}

/// A choice of weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Moves {
    /// Every weight.
    All,
    /// Weights whose name starts with one of these.
    Under(Vec<String>),
}

impl Moves {
    /// Whether the weight of this name is among them.
    pub fn hold(&self, weight: &str) -> bool {
        match self {
            Self::All => true,
            Self::Under(starts) => starts.iter().any(|start| weight.starts_with(start)),
        }
    }
}

/// Refuses phases that would leave an epoch without a step, or that move nothing.
pub(super) fn check(phases: &[Phase], schedule: &Schedule, weights: &Weights) -> Result<()> {
    let wrong = |key: &str, expected: &str, found: String| Err(out_of_range("training", key, expected, found));
    for (k, phase) in phases.iter().enumerate() {
        if !(phase.rate > 0.0 && phase.rate.is_finite()) {
            return wrong("rate", &format!("a number above 0 in phase {k}"), phase.rate.to_string());
        }
        let starts = match &phase.weights {
            Moves::All => continue,
            Moves::Under(starts) => starts,
        };
        let names = || weights.iter().map(|(name, _)| name);
        let idle = starts.iter().find(|start| !names().any(|name| name.starts_with(start.as_str())));
        if starts.is_empty() || idle.is_some() {
            let expected = format!("weights under {:?} in phase {k}", idle.unwrap_or(&String::new()));
            return wrong("weights", &expected, names().collect::<Vec<_>>().join(", "));
        }
    }
    match (0..schedule.epochs).find(|epoch| !phases.iter().any(|phase| phase.epochs.contains(epoch))) {
        Some(epoch) => {
            let expected = format!("a phase that takes part in each of the {} epochs", schedule.epochs);
            wrong("epochs", &expected, format!("none in epoch {}", epoch + 1))
        }
        None => Ok(()),
    }
}
