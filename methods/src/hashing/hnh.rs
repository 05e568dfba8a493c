//! High-order nonlocal hashing (Zhang, Luo, Huang, Xu, Song, World Wide Web 24, 2021): an affinity of items whose neighbours are the same, and
//! a common code between both modalities that has a closed form.
//!
//! For a batch of `m` pairs with cosines of features `A_I`, `A_T [m, m]`, and codes `B_I`, `B_T [m, c]` with rows of unit length:
//!
//! ```text
//! S_k = k (A_k (.) A_kᵀ A_k / n) - 1,   S = gamma S_I + (1 - gamma) S_T                           (1)  (.) entry by entry
//! U   = (I + r S) (B_I + B_T) (2 I + r B_Iᵀ B_I + r B_Tᵀ B_T)^-1,   r = beta / alpha              (2)
//! L   = alpha (|U - B_I|² + |U - B_T|²) + beta (|S - U B_Iᵀ|² + |S - U B_Tᵀ|²)
//!     + lambda |S - B_I B_Tᵀ|²                                                                    (3)
//! ```
//!
//! where `|.|²` is a mean over all entries. (2) is the minimum over `U` of (3) with sums for means, given both codes: the alternating form, `U`
//! without gradient, then a step of the networks.
//!
//! No released code is known; an unofficial program (youonly-once/HNH) was looked at. It has `n` = 1 in (1), so that entries reach the
//! size of the batch where a cosine ends at 1: that is `order = "sum"`; the default divides by `m`, as DJSRH does. It normalises codes
//! along the batch, bit by bit; here each item's code has unit length, which makes `B_I B_Tᵀ` cosines. It takes gradients through
//! (2). Other departures: those of DJSRH, and one hidden layer of 4096 for two of 8192 and 4096.

use candle_core::{DType, Device, Tensor};
use faer::Mat;
use serde::{Deserialize, Serialize};

use super::{
    networks::{Networks, Options},
    settings,
};
use crate::{
    Result,
    card::Card,
    linalg::{Cholesky, multiply},
    loss::{cosines, mixture, reconstruct},
    nn::unit,
    params::out_of_range,
    trained::{Batch, Fitting, Loss, Shared, Trained},
};

const NAME: &str = "hnh";

/// The method.
pub static HNH: Trained<Params> = Trained::new();

/// Its parameters; the defaults are those for MIRFlickr.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Weight of the images in equation (1).
    pub gamma: f64,
    /// `k` of equation (1).
    pub scale: f64,
    /// `n` of equation (1).
    pub order: Order,
    /// Weight of the common code in equation (3).
    pub alpha: f64,
    /// Weight of the common code's affinity in equation (3).
    pub beta: f64,
    /// Weight across modalities in equation (3).
    pub lambda: f64,
}

/// What the second-order product of equation (1) is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// The batch.
    Mean,
    /// Nothing.
    Sum,
}

impl Default for Params {
    fn default() -> Self {
        Self { gamma: 0.9, scale: 2.0, order: Order::Mean, alpha: 40.0, beta: 1.0, lambda: 1.0 }
    }
}

impl Loss for Params {
    type Body = Networks;
    type Head = ();

    fn card() -> &'static Card {
        crate::card!("hnh.toml")
    }

    fn shared() -> Shared<Networks> {
        let options = Options { annealed: false, ..Options::default() };
        Shared { options, schedule: settings::schedule(500, 0.01), negatives: None }
    }

    fn check(&self, _: &Shared<Networks>) -> Result<()> {
        let Self { gamma, scale, alpha, beta, lambda, .. } = *self;
        settings::shares(NAME, &[("gamma", gamma)])?;
        settings::not_negative(NAME, &[("scale", scale), ("beta", beta), ("lambda", lambda)])?;
        if !(alpha > 0.0 && alpha.is_finite()) {
            return Err(out_of_range(NAME, "alpha", "a number above 0, which equation (2) divides by", alpha));
        }
        Ok(())
    }

    fn head(&self, _: &mut Fitting<'_, Networks>) -> Result<()> {
        Ok(())
    }

    fn loss(&self, (): &(), batch: &Batch<'_, Networks>) -> Result<Tensor> {
        let target = self.affinity(&batch.affinity_features()?)?;
        let [images, texts] = batch.relaxed()?;
        let codes = [unit(&images)?, unit(&texts)?];
        let common = common(&codes, &target, self.beta / self.alpha)?;
        self.total(&codes, &common, &target)
    }
}

impl Params {
    /// Equation (1), without gradient.
    fn affinity(&self, [images, texts]: &[Tensor; 2]) -> Result<Tensor> {
        let of = |features: &Tensor| -> Result<Tensor> {
            let cosines = cosines(&features.detach(), &features.detach())?;
            let over = if self.order == Order::Mean { cosines.dim(0)? as f64 } else { 1.0 };
            Ok((&cosines * cosines.t()?.matmul(&cosines)?)?.affine(self.scale / over, -1.0)?)
        };
        mixture(&[(&of(images)?, self.gamma), (&of(texts)?, 1.0 - self.gamma)])
    }

    /// Equation (3).
    fn total(&self, [images, texts]: &[Tensor; 2], common: &Tensor, target: &Tensor) -> Result<Tensor> {
        let near = ((common - images)?.sqr()?.mean_all()? + (common - texts)?.sqr()?.mean_all()?)?;
        let alike =
            (reconstruct(&common.matmul(&images.t()?)?, target)? + reconstruct(&common.matmul(&texts.t()?)?, target)?)?;
        let across = reconstruct(&images.matmul(&texts.t()?)?, target)?;
        Ok((((near * self.alpha)? + (alike * self.beta)?)? + (across * self.lambda)?)?)
    }
}

/// Equation (2) for codes `[m, c]` and `r`: `[m, c]`, without gradient.
fn common([images, texts]: &[Tensor; 2], affinity: &Tensor, r: f64) -> Result<Tensor> {
    let (dtype, device) = (images.dtype(), images.device());
    let (images, texts, affinity) = (matrix(images)?, matrix(texts)?, matrix(affinity)?);
    let (m, c) = (images.nrows(), images.ncols());
    let products = multiply(images.transpose(), images.as_ref()) + multiply(texts.transpose(), texts.as_ref());
    let mut system = products * faer::Scale(r);
    (0..c).for_each(|i| system[(i, i)] += 2.0);
    let mut weighed = affinity * faer::Scale(r);
    (0..m).for_each(|i| weighed[(i, i)] += 1.0);
    // Transposed, since a system is solved column by column.
    let mut solved = multiply((images.clone() + &texts).transpose(), weighed.transpose());
    Cholesky::new(system.as_ref())?.solve(solved.as_mut());
    let values: Vec<f64> = (0..m).flat_map(|i| (0..c).map(move |j| (j, i))).map(|at| solved[at]).collect();
    Ok(Tensor::from_vec(values, (m, c), &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
}

/// The values of a tensor in f64.
fn matrix(x: &Tensor) -> Result<Mat<f64>> {
    let rows = x.detach().to_dtype(DType::F64)?.to_vec2::<f64>()?;
    Ok(Mat::from_fn(rows.len(), rows.first().map_or(0, Vec::len), |i, j| rows[i][j]))
}

#[cfg(test)]
mod tests;
