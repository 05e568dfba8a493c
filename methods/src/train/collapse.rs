use crate::{Error, Result};

/// Watches for a model that gives every item the same vector: there the gradients of a hinge on the hardest negatives cancel.
pub(super) struct Collapse {
    /// Steps in a row that are too many; 0 for never.
    most: usize,
    /// Steps in a row so far.
    pub(super) steps: usize,
}

impl Collapse {
    /// How near the loss must be to that of a collapsed model.
    const SHARE: f64 = 0.01;

    pub(super) fn new(most: usize) -> Self {
        Self { most, steps: 0 }
    }

    /// Takes note of a step's loss, and of what it would be after a collapse.
    pub(super) fn watch(&mut self, loss: f64, collapsed: Option<f64>, epoch: usize) -> Result<()> {
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
