//! Joint-modal distribution-based similarity hashing (Liu, Qian, Guan, Zhan, Ying, SIGIR 2020): the affinity has a term across
//! modalities, and what is far above or below its usual value counts for more.
//!
//! For a batch of `m` pairs, with `S_I`, `S_T [m, m]` the cosine affinities of [`crate::loss`], rows of hat(.) of unit norm:
//!
//! ```text
//! P   = hat(S_I) hat(S_T)ᵀ,   S0 = alpha S_I + beta S_T + lambda (P + Pᵀ) / 2                    (1)
//! lo  = loc_l - a scale_l,    hi = loc_r + b scale_r                                             (2)
//! s < lo: s (1 + L1 exp(-(s - MIN))),   then   s > hi: s (1 + L2 exp(s - MAX)),   S = mu s       (3)
//! L   = intra |cos(H_I, H_I) - S|² + intra |cos(H_T, H_T) - S|²
//!     + |cos(H_I, H_T) - S|² + |cos(H_T, H_I) - S|² - mean_i cos(h_I_i, h_T_i)                   (4)
//! ```
//!
//! where `|.|²` is the mean over all `m²` entries. The constants of (2) and (3) describe how `S0` is distributed off its diagonal: a
//! Gaussian to the left of the mode, a Laplacian to the right. Released are those of AlexNet features; they say nothing of others, so
//! that `weighting = "fitted"` takes them from the training set ([`weighting`]). Order of (3) and the diagonal, which it covers,
//! are those of KaiserLew/JDSH@caa8224.
//!
//! Departures: those of DJSRH (features given, one learning rate, `normalise`); the constants; the released code builds `S` from
//! features under dropout, which its frozen network keeps by accident, and keeps the best epoch by the test queries.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use self::weighting::{Weighting, WeightingSource};
use super::{
    cosines::Cosines,
    golden::{Inputs, values},
    networks::{Networks, Options},
    settings,
};
use crate::{
    Result,
    card::Card,
    golden::{Answer, Case, Operation},
    loss::{Product, cosine_affinity, joint_order, mixture},
    trained::{Batch, Fitting, Loss, Shared, Trained},
};

pub mod weighting;

const NAME: &str = "jdsh";

/// The method.
pub static JDSH: Trained<Params> = Trained::new();

/// Its parameters; the defaults are those for MIRFlickr.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Weight of the images in equation (1).
    pub alpha: f64,
    /// Weight of the texts in equation (1).
    pub beta: f64,
    /// Weight of the term across modalities in equation (1).
    pub lambda: f64,
    /// Scale of the affinity in equation (3).
    pub mu: f64,
    /// Where the constants of equations (2) and (3) are from.
    pub weighting: WeightingSource,
    /// Factor `a` of equation (2).
    pub left: f64,
    /// Factor `b` of equation (2).
    pub right: f64,
    /// `L1` of equation (3).
    pub l1: f64,
    /// `L2` of equation (3).
    pub l2: f64,
    /// Weight within a modality in equation (4).
    pub intra: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            alpha: 0.5,
            beta: 0.1,
            lambda: 0.4,
            mu: 1.4,
            weighting: WeightingSource::Fitted,
            left: 2.0,
            right: 4.0,
            l1: 0.1,
            l2: 0.2,
            intra: 0.1,
        }
    }
}

impl Loss for Params {
    type Body = Networks;
    /// The constants of (2) and (3), if any.
    type Head = Option<Weighting>;

    fn card() -> &'static Card {
        crate::card!("jdsh.toml")
    }

    fn shared() -> Shared<Networks> {
        Shared { options: Options::default(), schedule: settings::schedule(300, 0.01), negatives: None }
    }

    fn check(&self, _: &Shared<Networks>) -> Result<()> {
        let Self { alpha, beta, lambda, mu, left, right, l1, l2, intra, .. } = *self;
        settings::not_negative(NAME, &[("alpha", alpha), ("beta", beta), ("lambda", lambda), ("mu", mu)])?;
        settings::not_negative(NAME, &[("left", left), ("right", right), ("l1", l1), ("l2", l2), ("intra", intra)])
    }

    fn head(&self, fitting: &mut Fitting<'_, Networks>) -> Result<Self::Head> {
        let fitted = match (self.weighting, fitting.training) {
            (WeightingSource::Fitted, Some(training)) => {
                Some(Weighting::fit(fitting.body, training, fitting.shared.schedule.batch, |images, texts| {
                    self.joint(images, texts)
                })?)
            }
            _ => None,
        };
        self.weighting.resolve(fitted, fitting.weights)
    }

    fn loss(&self, weighting: &Self::Head, batch: &Batch<'_, Networks>) -> Result<Tensor> {
        let [images, texts] = batch.affinity_features()?;
        let target = self.affinity(&images, &texts, weighting.as_ref())?;
        let [images, texts] = batch.relaxed()?;
        loss(&Cosines::of(&images, &texts)?, &target, self.intra)
    }

    fn operations() -> Vec<Operation> {
        vec![Operation { name: "hash.jdsh", run: golden, ignored: &[] }]
    }
}

impl Params {
    /// Equation (1).
    fn joint(&self, images: &Tensor, texts: &Tensor) -> Result<Tensor> {
        let (images, texts) = (cosine_affinity(images)?, cosine_affinity(texts)?);
        let across = joint_order(&images, &texts, Product::Normalised)?;
        mixture(&[(&images, self.alpha), (&texts, self.beta), (&across, self.lambda)]) // (1)
    }

    /// `S` of equation (3), without gradient.
    fn affinity(&self, images: &Tensor, texts: &Tensor, weighting: Option<&Weighting>) -> Result<Tensor> {
        let joint = self.joint(images, texts)?;
        let weighed = match weighting {
            Some(weighting) => weighting.apply(&joint, [self.left, self.right], [self.l1, self.l2])?,
            None => joint,
        };
        Ok((weighed * self.mu)?)
    }
}

/// Equation (4).
fn loss(codes: &Cosines, target: &Tensor, intra: f64) -> Result<Tensor> {
    let parts = codes.reconstruct(target)?;
    // Texts with images against S is images with texts against its transpose.
    let other = crate::loss::reconstruct(&codes.image_text, &target.t()?)?;
    let within = ((parts.image_image + parts.text_text)? * intra)?;
    Ok((((within + parts.image_text)? + other)? - codes.paired()?.mean_all()?)?)
}

/// Golden operation `hash.jdsh`.
fn golden(case: &Case) -> Result<Answer> {
    case.only(&[
        "ALPHA",
        "BETA",
        "INTRA",
        "L1",
        "L2",
        "LOC_LEFT",
        "LOC_RIGHT",
        "MAX",
        "MIN",
        "SCALE_LEFT",
        "SCALE_RIGHT",
        "alpha",
        "beta",
        "lamb",
        "mu",
    ])?;
    let inputs = Inputs::read(case)?;
    let params = Params {
        alpha: case.config("alpha")?,
        beta: case.config("beta")?,
        lambda: case.config("lamb")?,
        mu: case.config("mu")?,
        left: case.config("ALPHA")?,
        right: case.config("BETA")?,
        l1: case.config("L1")?,
        l2: case.config("L2")?,
        intra: case.config("INTRA")?,
        ..Params::default()
    };
    let weighting = Weighting {
        loc_left: case.config("LOC_LEFT")?,
        scale_left: case.config("SCALE_LEFT")?,
        loc_right: case.config("LOC_RIGHT")?,
        scale_right: case.config("SCALE_RIGHT")?,
        min: case.config("MIN")?,
        max: case.config("MAX")?,
    };
    let [images, texts] = &inputs.features;
    let target = params.affinity(images, texts, Some(&weighting))?;
    let loss = loss(&Cosines::of(&inputs.codes[0], &inputs.codes[1])?, &target, params.intra)?;
    let [low, high] = weighting.thresholds([params.left, params.right]);
    let answer = Answer::default()
        .with("out.similarity", values(&target)?)
        .with("out.left_threshold", [low])
        .with("out.right_threshold", [high])
        .with("out.loss", values(&loss)?);
    inputs.with_gradients(answer, &loss)
}

#[cfg(test)]
mod tests;
