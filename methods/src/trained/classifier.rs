use candle_core::Tensor;

use super::{Body, Fitting};
use crate::{Error, Result, Training, loss::cross_entropy};

/// A linear classifier over vectors of the joint space; weights `NAME.weight [d, classes]` and `NAME.bias [classes]`.
pub struct Classifier {
    weight: Tensor,
    bias: Tensor,
}

impl Classifier {
    /// Over vectors of length `width`; `key` is the parameter that asks for it.
    ///
    /// # Errors
    /// A dataset with fewer than two classes, or weights that cannot be made.
    pub fn new<B: Body>(
        fitting: &mut Fitting<'_, B>,
        name: &str,
        width: usize,
        classes: usize,
        key: &str,
    ) -> Result<Self> {
        expect_classes(fitting, classes, key)?;
        let bound = 1.0 / (width as f64).sqrt();
        Ok(Self {
            weight: fitting.weights.uniform(&format!("{name}.weight"), &[width, classes], bound)?,
            bias: fitting.weights.zeros(&format!("{name}.bias"), &[classes])?,
        })
    }

    /// Mean cross entropy of `features [n, d]` with a class each.
    ///
    /// # Errors
    /// If there is not one class a row.
    pub fn loss(&self, features: &Tensor, classes: &[u32]) -> Result<Tensor> {
        cross_entropy(&features.matmul(&self.weight)?.broadcast_add(&self.bias)?, classes)
    }
}

/// Refuses a dataset with fewer than two classes.
pub(super) fn expect_classes<B: Body>(fitting: &Fitting<'_, B>, classes: usize, key: &str) -> Result<()> {
    if classes >= 2 {
        return Ok(());
    }
    let dataset = fitting.training.map_or("", |training: &Training<'_>| training.dataset);
    Err(Error::Numeric(format!(
        "{}: expected at least 2 classes for {key}, found {classes} in dataset `{dataset}`; choose a dataset with labels",
        fitting.method
    )))
}
