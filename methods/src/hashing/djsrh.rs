//! Deep joint-semantics reconstructing hashing (Su, Zhong, Zhang, ICCV 2019): two networks learn binary codes whose cosines
//! reconstruct an affinity that is built from the features alone, without labels.
//!
//! For a batch of `m` pairs with features `F_I [m, p]`, `F_T [m, q]`, rows of hat(.) of unit norm:
//!
//! ```text
//! S_I = 2 hat(F_I) hat(F_I)ᵀ - 1,   S_T alike                                       (1)
//! S~  = beta S_I + (1 - beta) S_T                                                   (2)
//! S   = mu ((1 - eta) S~ + eta / m S~ S~ᵀ)                                          (3)
//! L   = lambda_1 |cos(H_I, H_I) - S|² + |cos(H_I, H_T) - S|² + lambda_2 |cos(H_T, H_T) - S|²   (4)
//! ```
//!
//! where `|.|²` is the mean over all `m²` entries, and `H_I`, `H_T` are the relaxed codes of [`super::networks`]. The image network
//! is linear on given features (the paper fine-tunes the AlexNet below it), the text network has one hidden layer.
//!
//! Departures: one learning rate for both networks. With `normalise`, network inputs (not the affinity's) are centred and divided
//! by one number: fc7 activations have entries near 1, but given features come in any scale, and a histogram that sums to 1 moves
//! a unit less than its random bias does. With `affinity_centre`, features are centred before (1): raw pixels have cosines near 1
//! throughout. The best validation epoch is kept where there is one; the paper keeps the last.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    cosines::{Cosines, Reconstructions},
    golden::{Inputs, values},
    networks::{Networks, Options},
    settings,
};
use crate::{
    Result,
    card::Card,
    golden::{Answer, Case, Operation},
    loss::{cosine_affinity, mixture, second_order},
    trained::{Batch, Fitting, Loss, Shared, Trained},
};

/// The method.
pub static DJSRH: Trained<Params> = Trained::new();

/// Its parameters; the defaults are those for Wikipedia.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Weight of the images in equation (2).
    pub beta: f64,
    /// Weight of the second-order affinity in equation (3).
    pub eta: f64,
    /// Scale of the affinity in equation (3).
    pub mu: f64,
    /// Weight of the image-image loss in equation (4).
    pub lambda1: f64,
    /// Weight of the text-text loss in equation (4).
    pub lambda2: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self { beta: 0.3, eta: 0.4, mu: 1.5, lambda1: 0.3, lambda2: 0.3 }
    }
}

impl Loss for Params {
    type Body = Networks;
    type Head = ();

    fn card() -> &'static Card {
        crate::card!("djsrh.toml")
    }

    fn shared() -> Shared<Networks> {
        Shared { options: Options::default(), schedule: settings::schedule(200, 0.01), negatives: None }
    }

    fn check(&self, _: &Shared<Networks>) -> Result<()> {
        settings::shares("djsrh", &[("beta", self.beta), ("eta", self.eta)])?;
        settings::not_negative("djsrh", &[("mu", self.mu), ("lambda1", self.lambda1), ("lambda2", self.lambda2)])
    }

    fn head(&self, _: &mut Fitting<'_, Networks>) -> Result<()> {
        Ok(())
    }

    fn loss(&self, (): &(), batch: &Batch<'_, Networks>) -> Result<Tensor> {
        let [images, texts] = batch.affinity_features()?;
        let (_, target) = affinity(&images, &texts, self.beta, self.eta, self.mu, images.dim(0)?)?;
        let [images, texts] = batch.relaxed()?;
        Cosines::of(&images, &texts)?.reconstruct(&target)?.total(self.lambda1, self.lambda2)
    }

    fn operations() -> Vec<Operation> {
        vec![Operation { name: "hash.djsrh", run: golden, ignored: &[] }]
    }
}

/// `S~` and `S` of equations (1) to (3); without gradient.
fn affinity(images: &Tensor, texts: &Tensor, beta: f64, eta: f64, mu: f64, batch: usize) -> Result<(Tensor, Tensor)> {
    let (images, texts) = (cosine_affinity(images)?, cosine_affinity(texts)?); // (1)
    let mixed = mixture(&[(&images, beta), (&texts, 1.0 - beta)])?; // (2)
    let target = (second_order(&mixed, eta, batch)? * mu)?; // (3)
    Ok((mixed, target))
}

impl Reconstructions {
    /// Equation (4).
    fn total(&self, lambda1: f64, lambda2: f64) -> Result<Tensor> {
        Ok((((&self.image_image * lambda1)? + &self.image_text)? + (&self.text_text * lambda2)?)?)
    }
}

/// Golden operation `hash.djsrh`.
fn golden(case: &Case) -> Result<Answer> {
    case.only(&["BATCH_SIZE", "BETA", "ETA", "LAMBDA1", "LAMBDA2", "MU"])?;
    let inputs = Inputs::read(case)?;
    let [images, texts] = &inputs.features;
    let (beta, eta, mu) = (case.config("BETA")?, case.config("ETA")?, case.config("MU")?);
    let (mixed, target) = affinity(images, texts, beta, eta, mu, case.config("BATCH_SIZE")?)?;
    let parts = Cosines::of(&inputs.codes[0], &inputs.codes[1])?.reconstruct(&target)?;
    let total = parts.total(case.config("LAMBDA1")?, case.config("LAMBDA2")?)?;
    let answer = Answer::default()
        .with("out.affinity", values(&target)?)
        .with("out.affinity_tilde", values(&mixed)?)
        .with("out.loss", values(&total)?)
        .with("out.loss_ii", values(&parts.image_image)?)
        .with("out.loss_it", values(&parts.image_text)?)
        .with("out.loss_tt", values(&parts.text_text)?);
    inputs.with_gradients(answer, &total)
}

#[cfg(test)]
mod tests;
