//! CLIP-based fusion-modal reconstructing hashing (Li, Li, Ge, Ma, IJMIR 2023): an autoencoder a modality, whose codes in the middle
//! reconstruct an affinity fused of both modalities and of their product, within and across modalities.
//!
//! For a batch of `m` pairs with what the networks read, `F_I [m, p]`, `F_T [m, q]`, and the cosine affinities `S_I`, `S_T [m, m]` of
//! [`crate::loss`]:
//!
//! ```text
//! H_I = tanh(a_e E_I(F_I)),   F_I' = D_I(H_I),   texts alike                                      (1)
//! S   = mu (beta S_I + gamma S_T + eta (S_I x S_T))                                               (2)
//! L   = intra (|cos(H_I, H_I) - S|² + |cos(H_T, H_T) - S|²)                                       (3)
//!     + cross (|cos(H_I, H_T) - S|² + |cos(H_T, H_I) - S|²)                                       (4)
//!     + reconstruction (|F_I' - F_I|² + |F_T' - F_T|²)                                            (5)
//! ```
//!
//! where `|.|²` is a mean over all entries and `x` one of two products ([`Product`]): `normalised`, rows of both of unit length, as
//! JDSH has it, or `scaled`, over `m`; both are made symmetric.
//!
//! Released (AwakerLee/CFRH) are datasets, metrics and a script; trainer, networks and settings are not there. From its figure and script are (1) to
//! (5) without their weights, the names of these, and that `eta` was swept over 2, 3 and 4. Open, and chosen here:
//!
//! - weights: `beta`, `gamma`, `eta` and `mu` are those of JDSH, whose product this is, `intra` and `cross` too; `reconstruction` is 1;
//! - the product: `normalised`; an `eta` above 1 fits `scaled` better, whose entries are smaller;
//! - networks: the image encoder's hidden width 1024 is that of CCAH of the same group, the text encoder's 4096 that of JDSH, decoders are linear as those of
//!   DSAH (`decoder_hidden`);
//! - (5) reads the relaxed code, since a sign passes no gradient, and is taken on the networks' standardised inputs: 1 means that
//!   nothing of the variance is explained, whatever the features' scale;
//! - training: that of JDSH. The best validation epoch is kept.
//!
//! Features are given: CLIP is one choice of them and no part of the method here.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    cosines::Cosines,
    networks::{Networks, Options},
    settings,
};
use crate::{
    Result,
    card::Card,
    loss::{Product, cosine_affinity, joint_order, mixture, reconstruct},
    nn::{Init, Mlp, MlpSettings, Weights},
    params::out_of_range,
    trained::{Batch, Fitting, Loss, Shared, Trained},
};

const NAME: &str = "cfrh";

/// The method.
pub static CFRH: Trained<Params> = Trained::new();

/// Its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Weight of the images in equation (2).
    pub beta: f64,
    /// Weight of the texts in equation (2).
    pub gamma: f64,
    /// Weight of the product in equation (2).
    pub eta: f64,
    /// Which product.
    pub product: Product,
    /// Scale of the affinity in equation (2).
    pub mu: f64,
    /// Weight of equation (3).
    pub intra: f64,
    /// Weight of equation (4).
    pub cross: f64,
    /// Weight of equation (5); 0 leaves the decoders out.
    pub reconstruction: f64,
    /// Hidden width of the decoders; 0 is linear.
    pub decoder_hidden: usize,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            beta: 0.5,
            gamma: 0.1,
            eta: 0.4,
            product: Product::Normalised,
            mu: 1.4,
            intra: 0.1,
            cross: 1.0,
            reconstruction: 1.0,
            decoder_hidden: 0,
        }
    }
}

/// `D_I` and `D_T` of equation (1).
pub struct Decoders([Mlp; 2]);

impl Decoders {
    /// From codes of `bits` values to vectors of such widths.
    fn new(weights: &mut Weights, bits: usize, hidden: usize, widths: [usize; 2]) -> Result<Self> {
        let settings = MlpSettings { init: Init::Pytorch, ..MlpSettings::default() };
        let mut decoder = |name: &str, width| {
            let widths: Vec<usize> = [bits, hidden, width].into_iter().filter(|&width| width > 0).collect();
            Mlp::new(weights, name, &widths, settings)
        };
        Ok(Self([decoder("decoder.image", widths[0])?, decoder("decoder.text", widths[1])?]))
    }

    /// Equation (5) without its weight.
    fn loss(&self, codes: &[Tensor; 2], inputs: &[Tensor; 2]) -> Result<Tensor> {
        let [images, texts] = &self.0;
        let images = reconstruct(&images.forward(&codes[0], None)?, &inputs[0])?;
        Ok((images + reconstruct(&texts.forward(&codes[1], None)?, &inputs[1])?)?)
    }
}

impl Loss for Params {
    type Body = Networks;
    type Head = Option<Decoders>;

    fn card() -> &'static Card {
        crate::card!("cfrh.toml")
    }

    fn shared() -> Shared<Networks> {
        let options = Options { image_hidden: 1024, ..Options::default() };
        Shared { options, schedule: settings::schedule(300, 0.01), negatives: None }
    }

    fn check(&self, _: &Shared<Networks>) -> Result<()> {
        let Self { beta, gamma, eta, mu, intra, cross, reconstruction, decoder_hidden, .. } = *self;
        settings::not_negative(NAME, &[("beta", beta), ("gamma", gamma), ("eta", eta), ("mu", mu)])?;
        settings::not_negative(NAME, &[("intra", intra), ("cross", cross), ("reconstruction", reconstruction)])?;
        if reconstruction == 0.0 && decoder_hidden > 0 {
            let expected = "0 where `reconstruction` is 0 and there are no decoders";
            return Err(out_of_range(NAME, "decoder_hidden", expected, decoder_hidden));
        }
        Ok(())
    }

    fn head(&self, fitting: &mut Fitting<'_, Networks>) -> Result<Self::Head> {
        let (bits, widths) = (fitting.body.bits(), fitting.body.widths());
        let decoders = || Decoders::new(fitting.weights, bits, self.decoder_hidden, widths);
        (self.reconstruction > 0.0).then(decoders).transpose()
    }

    fn loss(&self, decoders: &Self::Head, batch: &Batch<'_, Networks>) -> Result<Tensor> {
        let [images, texts] = batch.affinity_features()?;
        let target = self.affinity(&images, &texts)?;
        let codes = batch.relaxed()?;
        let loss = self.affinity_loss(&Cosines::of(&codes[0], &codes[1])?, &target)?;
        Ok(match decoders {
            Some(decoders) => (loss + (decoders.loss(&codes, &batch.inputs()?)? * self.reconstruction)?)?, // (5)
            None => loss,
        })
    }
}

impl Params {
    /// Equation (2), without gradient.
    fn affinity(&self, images: &Tensor, texts: &Tensor) -> Result<Tensor> {
        let (images, texts) = (cosine_affinity(images)?, cosine_affinity(texts)?);
        let product = joint_order(&images, &texts, self.product)?;
        let fused = mixture(&[(&images, self.beta), (&texts, self.gamma), (&product, self.eta)])?;
        Ok((fused * self.mu)?)
    }

    /// Equations (3) and (4).
    fn affinity_loss(&self, codes: &Cosines, target: &Tensor) -> Result<Tensor> {
        let parts = codes.reconstruct(target)?;
        let within = ((parts.image_image + parts.text_text)? * self.intra)?; // (3)
        let other = reconstruct(&codes.image_text.t()?, target)?;
        Ok((within + ((parts.image_text + other)? * self.cross)?)?) // (4)
    }
}

#[cfg(test)]
mod tests;
