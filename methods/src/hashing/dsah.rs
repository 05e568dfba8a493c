//! Deep semantic-alignment hashing (Yang, Wu, Zhang, Zhang, Li, Wang, ICMR 2020): first-order affinity, pairs drawn to the affinity's own maximum,
//! cosines that do not depend on which modality asks, and decoders from the code of one modality to the features of the other.
//!
//! For a batch of `m` pairs with affinity features `F_I [m, p]`, `F_T [m, q]`, rows of hat(.) of unit norm, cosine affinities `S_I`, `S_T` of
//! [`crate::loss`], and `C_IT = cos(H_I, H_T)` and so on, all `[m, m]`:
//!
//! ```text
//! S = K (alpha S_I + (1 - alpha) S_T)                                                             (1)
//! L = |C_II - S|² + |C_IT - S|² + |C_TT - S|² + |diag C_IT - K|²                                  (2)
//!   + symmetry |C_IT - C_ITᵀ|²                                                                    (3)
//!   + intra (|C_II - K S_I|² + |C_TT - K S_T|²)                                                   (4)
//!   + reconstruction (|D_T(b_T) - hat(F_I)|² + |D_I(b_I) - hat(F_T)|²),   b = sign(H)             (5)
//! ```
//!
//! where `|.|²` is a mean over all entries; `D_T`, `D_I` are linear.
//!
//! In the released code (idejie/DSAH) a sign stands in (5), whose gradient is zero: the decoders learn and the codes do not notice. That is
//! `decode = "sign"`. The default passes the gradient straight through the sign, which is what the term is there for; `relaxed`
//! decodes `H` itself. Other departures: those of DJSRH; the released code keeps the best epoch by the test queries.

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
    loss::{cosine_affinity, mixture, reconstruct},
    nn::{Linear, unit},
    params::out_of_range,
    train::{Optimiser, Schedule},
    trained::{Batch, Fitting, Loss, Shared, Trained},
};

const NAME: &str = "dsah";

/// The method.
pub static DSAH: Trained<Params> = Trained::new();

/// Its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Weight of the images in equation (1).
    pub alpha: f64,
    /// `K`, the scale of the affinity.
    pub scale: f64,
    /// Weight of equation (3).
    pub symmetry: f64,
    /// Weight of equation (4).
    pub intra: f64,
    /// Weight of equation (5); 0 leaves the decoders out.
    pub reconstruction: f64,
    /// What the decoders read.
    pub decode: Decode,
}

/// What decoders read of a relaxed code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decode {
    /// Its sign, and the gradient passes as if it were the code.
    Straight,
    /// The code.
    Relaxed,
    /// Its sign, without gradient.
    Sign,
}

impl Decode {
    fn of(self, code: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Relaxed => code.clone(),
            Self::Sign => code.sign()?.detach(),
            Self::Straight => (code + (code.sign()? - code)?.detach())?,
        })
    }
}

impl Default for Params {
    fn default() -> Self {
        Self { alpha: 0.9, scale: 1.5, symmetry: 2.0, intra: 0.1, reconstruction: 1.0, decode: Decode::Straight }
    }
}

/// `D_I` and `D_T` of equation (5).
pub struct Decoders {
    image: Linear,
    text: Linear,
}

impl Loss for Params {
    type Body = Networks;
    type Head = Option<Decoders>;

    fn card() -> &'static Card {
        crate::card!("dsah.toml")
    }

    fn shared() -> Shared<Networks> {
        let schedule = Schedule { optimiser: Optimiser::Nesterov, momentum: 0.7, ..settings::schedule(200, 0.005) };
        Shared { options: Options::default(), schedule, negatives: None }
    }

    fn check(&self, _: &Shared<Networks>) -> Result<()> {
        let Self { alpha, scale, symmetry, intra, reconstruction, decode } = *self;
        settings::shares(NAME, &[("alpha", alpha)])?;
        settings::not_negative(NAME, &[("scale", scale), ("symmetry", symmetry), ("intra", intra)])?;
        settings::not_negative(NAME, &[("reconstruction", reconstruction)])?;
        if reconstruction == 0.0 && decode != Decode::Straight {
            let expected = "the default where `reconstruction` is 0 and there are no decoders";
            return Err(out_of_range(NAME, "decode", expected, format!("{decode:?}").to_lowercase()));
        }
        Ok(())
    }

    fn head(&self, fitting: &mut Fitting<'_, Networks>) -> Result<Self::Head> {
        if self.reconstruction == 0.0 {
            return Ok(None);
        }
        let (bits, [images, texts]) = (fitting.body.bits(), fitting.body.widths());
        let image = Linear::new(fitting.weights, "decoder.image", bits, texts)?;
        Ok(Some(Decoders { image, text: Linear::new(fitting.weights, "decoder.text", bits, images)? }))
    }

    fn loss(&self, decoders: &Self::Head, batch: &Batch<'_, Networks>) -> Result<Tensor> {
        let features = batch.affinity_features()?;
        let affinities = self.affinities(&features)?;
        let codes = batch.relaxed()?;
        let loss = self.alignment(&Cosines::of(&codes[0], &codes[1])?, &affinities)?;
        Ok(match decoders {
            Some(decoders) => (loss + (decoders.loss(&codes, &features, self.decode)? * self.reconstruction)?)?, // (5)
            None => loss,
        })
    }
}

impl Params {
    /// `S` of equation (1), then `K S_I` and `K S_T`; without gradient.
    fn affinities(&self, [images, texts]: &[Tensor; 2]) -> Result<[Tensor; 3]> {
        let (images, texts) = (cosine_affinity(images)?, cosine_affinity(texts)?);
        let mixed = mixture(&[(&images, self.alpha), (&texts, 1.0 - self.alpha)])?;
        Ok([(mixed * self.scale)?, (images * self.scale)?, (texts * self.scale)?])
    }

    /// Equations (2) to (4).
    fn alignment(&self, codes: &Cosines, [mixed, images, texts]: &[Tensor; 3]) -> Result<Tensor> {
        let parts = codes.reconstruct(mixed)?;
        let pairs = (codes.paired()? - self.scale)?.sqr()?.mean_all()?;
        let first = (((parts.image_image + parts.image_text)? + parts.text_text)? + pairs)?; // (2)
        // Both sides of (3) have a gradient.
        let turned = (&codes.image_text - codes.image_text.t()?)?.sqr()?.mean_all()?; // (3)
        let own = (reconstruct(&codes.image_image, images)? + reconstruct(&codes.text_text, texts)?)?; // (4)
        Ok(((first + (turned * self.symmetry)?)? + (own * self.intra)?)?)
    }
}

impl Decoders {
    /// Equation (5) without its weight.
    fn loss(&self, codes: &[Tensor; 2], features: &[Tensor; 2], decode: Decode) -> Result<Tensor> {
        let images = reconstruct(&self.text.forward(&decode.of(&codes[1])?)?, &unit(&features[0])?)?;
        Ok((images + reconstruct(&self.image.forward(&decode.of(&codes[0])?)?, &unit(&features[1])?)?)?)
    }
}

#[cfg(test)]
mod tests;
