//! What a row's training took: epochs, batch, pairs, seconds.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::{quantile, sorted};
use crate::record::{Trial, phase};

/// The training budget of a row, over its seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Budget {
    /// Fewest and most epochs that were run, over seeds; none for closed forms.
    pub epochs: Option<[usize; 2]>,
    /// Epochs that the parameters ask for.
    pub planned: Option<usize>,
    /// Pairs a step, of the largest one; none where the recording does not say.
    pub batch: Option<usize>,
    /// Training pairs.
    pub pairs: Option<usize>,
    /// Median wall-clock seconds of a fit.
    pub fit_seconds: Option<f64>,
    /// Whether the row is made of other rows, whose training this does not count.
    pub made_of_others: bool,
}

impl Budget {
    /// The budget of one row's trials.
    pub fn of(trials: &[&Trial]) -> Self {
        let run: Vec<usize> = trials.iter().filter_map(|trial| trial.history.last()).map(|epoch| epoch.epoch).collect();
        let epochs = run.iter().min().zip(run.iter().max()).map(|(least, most)| [*least, *most]);
        // A parameter that was selected is an array, which says nothing of the one that was taken.
        let param = |key: &str| trials.first().and_then(|trial| trial.params.get(key));
        let number = |key: &str| param(key).and_then(Value::as_u64).and_then(|value| usize::try_from(value).ok());
        let fits = || trials.iter().flat_map(|trial| &trial.timings).filter(|timing| timing.phase == phase::FIT);
        let seconds: Vec<f64> = fits().flat_map(|timing| timing.seconds.iter().copied()).collect();
        let pairs = fits().map(|timing| timing.items).next().filter(|pairs| *pairs > 0);
        let batch = trials.iter().flat_map(|trial| &trial.history).map(|epoch| epoch.pairs).max();
        Self {
            epochs,
            planned: number("epochs"),
            batch: batch.filter(|pairs| *pairs > 0),
            pairs,
            fit_seconds: quantile(&sorted(&seconds), 0.5),
            made_of_others: trials.first().is_some_and(|trial| trial.is_made_of_others()),
        }
    }

    /// Whether both rows may look at as many pairs: as many epochs were asked for, over as many pairs. The batch is a setting like others.
    pub fn equals(&self, other: &Self) -> bool {
        (self.planned, self.pairs) == (other.planned, other.pairs)
    }

    /// Whether anything was trained step by step.
    pub fn is_trained(&self) -> bool {
        self.epochs.is_some()
    }
}

/// `20 epochs of batches of 64 (1503 training pairs)`, `12 to 17 of 20 epochs ...`, `closed form (1503 training pairs)`.
impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.made_of_others {
            return f.write_str("fits nothing, made of other rows");
        }
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        match (self.epochs, self.planned) {
            (None, _) => f.write_str("closed form")?,
            (Some([least, most]), Some(planned)) if least == planned && most == planned => {
                write!(f, "{planned} epoch{}", plural(planned))?;
            }
            (Some([least, most]), planned) => {
                match least == most {
                    true => write!(f, "{most}")?,
                    false => write!(f, "{least} to {most}")?,
                }
                match planned {
                    Some(planned) => write!(f, " of {planned} epoch{}", plural(planned))?,
                    None => write!(f, " epoch{}", plural(most))?,
                }
            }
        }
        match self.batch {
            Some(batch) if self.pairs == Some(batch) => f.write_str(" of one step over all pairs")?,
            Some(batch) => write!(f, " of batches of {batch}")?,
            None => {}
        }
        self.pairs.map_or(Ok(()), |pairs| write!(f, " ({pairs} training pair{})", plural(pairs)))
    }
}

#[cfg(test)]
mod tests {
    use xmbench_methods::method::Epoch;

    use super::*;
    use crate::record::{ENSEMBLE, Timing, synthetic};

    /// A trial of `epochs` epochs of steps on `pairs` pairs.
    fn trial(params: Value, epochs: usize, pairs: usize, seconds: f64) -> Trial {
        let mut trial = synthetic::trial("e", 0, "m", "d", 0);
        trial.params = params;
        trial.timings = vec![Timing { phase: phase::FIT.into(), items: 1503, seconds: vec![seconds] }];
        let epoch = |epoch| Epoch { epoch, loss: 1.0, learning_rate: 0.1, validation: None, seconds: 1.0, pairs };
        trial.history = (1..=epochs).map(epoch).collect();
        trial
    }

    #[test]
    fn a_budget_says_what_was_run_and_not_what_was_asked_for() {
        let params = || serde_json::json!({ "epochs": 20, "batch": 64 });
        let said = |trials: &[Trial]| Budget::of(&trials.iter().collect::<Vec<_>>()).to_string();
        assert_eq!(said(&[trial(params(), 20, 64, 1.0)]), "20 epochs of batches of 64 (1503 training pairs)");
        let early = [trial(params(), 12, 64, 1.0), trial(params(), 17, 64, 3.0)];
        assert_eq!(said(&early), "12 to 17 of 20 epochs of batches of 64 (1503 training pairs)");
        assert_eq!(Budget::of(&early.iter().collect::<Vec<_>>()).fit_seconds, Some(2.0));
        let selected = serde_json::json!({ "epochs": [10, 20], "batch": [64, 100] });
        assert_eq!(said(&[trial(selected, 10, 100, 1.0)]), "10 epochs of batches of 100 (1503 training pairs)");
        let whole = "20 epochs of one step over all pairs (1503 training pairs)";
        assert_eq!(said(&[trial(params(), 20, 1503, 1.0)]), whole);
        assert_eq!(said(&[trial(serde_json::json!({}), 0, 0, 1.0)]), "closed form (1503 training pairs)");
    }

    #[test]
    fn budgets_are_equal_where_epochs_and_pairs_are() {
        let budget = |epochs: u64, batch: u64, run: usize| {
            Budget::of(&[&trial(serde_json::json!({ "epochs": epochs, "batch": batch }), run, batch as usize, 1.0)])
        };
        assert!(budget(20, 64, 20).equals(&budget(20, 32, 12)));
        assert!(!budget(20, 64, 20).equals(&budget(10, 64, 10)));
    }

    #[test]
    fn a_row_that_is_made_of_others_is_no_closed_form() {
        let mut mean = trial(serde_json::json!({ "of": ["a", "b"] }), 0, 0, 1.0);
        mean.timings.clear();
        mean.method = ENSEMBLE.into();
        assert_eq!(Budget::of(&[&mean]).to_string(), "fits nothing, made of other rows");
    }

    #[test]
    fn a_recording_that_does_not_say_how_large_a_step_was_is_not_guessed_at() {
        let old = trial(serde_json::json!({ "epochs": 20, "batch": 64 }), 20, 0, 1.0);
        assert_eq!(Budget::of(&[&old]).to_string(), "20 epochs (1503 training pairs)");
    }
}
