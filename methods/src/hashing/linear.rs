//! What shallow hashing shares: an affine map a modality, signs, files, and the canonical directions of CVH and ITQ-CCA.
//!
//! ```text
//! o = (x - mean) W,   b = sign(o)                      (1)  bit 1 above zero
//! W = CCA(X, Y) with XᵀX + l I in place of XᵀX          (2)  see linalg::cca; texts alike
//! ```

use std::path::Path;

use faer::Mat;
use serde::{Deserialize, Serialize};
use xmbench_datasets::{Images, Texts};

use crate::{
    Bits, Codes, Matcher, Result, Run, Similarity, Training,
    linalg::{
        cca::{self, Components, Projection, Ridge},
        inputs::{Inputs, Views},
        store::Store,
        to_f32,
    },
    params::out_of_range,
};

/// A direction whose correlation is below this share of the first one's is none: rounding makes one out of columns that sum to 1.
const NONE: f64 = 1e-3;

const FILE: &str = "hash.safetensors";

/// A fitted map a modality.
pub(super) struct Linear {
    pub inputs: Inputs,
    pub images: Projection,
    pub texts: Projection,
}

impl Linear {
    /// Adds what [`Linear::read`] reads.
    pub fn write(&self, store: Store) -> Store {
        self.texts.save(self.images.save(self.inputs.save(store), "image"), "text")
    }

    /// Reads what [`Linear::write`] added.
    pub fn read(method: &str, store: &Store) -> Result<Self> {
        let (images, texts) = (Projection::load(store, "image")?, Projection::load(store, "text")?);
        Ok(Self { inputs: Inputs::load(method, store)?, images, texts })
    }

    /// Reads what [`Matcher::save`] wrote.
    pub fn load(method: &str, from: &Path) -> Result<Self> {
        Self::read(method, &open(from)?)
    }
}

/// The file of a matcher in a folder.
pub(super) fn open(from: &Path) -> Result<Store> {
    Store::load(&from.join(FILE))
}

/// Writes the file of a matcher into a folder.
pub(super) fn close(store: &Store, to: &Path) -> Result<()> {
    store.save(&to.join(FILE))
}

/// Bits of real codes, equation (1).
pub(super) fn signs(real: &Mat<f64>) -> Bits {
    Bits::from_signs(&to_f32(real.as_ref()))
}

impl Matcher for Linear {
    fn encode_images(&self, images: &Images) -> Result<Codes> {
        Ok(Codes::Binary(signs(&self.images.apply(&self.inputs.images(images)?)?))) // (1)
    }

    fn encode_texts(&self, texts: &Texts) -> Result<Codes> {
        Ok(Codes::Binary(signs(&self.texts.apply(&self.inputs.texts(texts)?)?))) // (1)
    }

    fn similarity(&self) -> Similarity<'_> {
        Similarity::Hamming
    }

    fn save(&self, to: &Path) -> Result<()> {
        close(&self.write(Store::default()), to)
    }
}

/// Parameters of equation (2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Directions {
    /// Code length.
    pub bits: usize,
    /// `l` of equation (2).
    pub ridge: f64,
    /// What `ridge` means.
    pub ridge_convention: Convention,
    /// What becomes of a code that is longer than there are directions.
    pub longer: Longer,
    /// Which vectors stand for images and texts.
    #[serde(flatten)]
    pub views: Views,
}

/// What a ridge means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Convention {
    /// Added to `XᵀX`, equation (2).
    Scatter,
    /// Added to the covariance in units of its mean variance.
    Relative,
}

/// What becomes of a code that is longer than there are directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Longer {
    /// An error.
    Error,
    /// As many bits as there are directions.
    Cut,
}

impl Default for Directions {
    fn default() -> Self {
        Self {
            bits: 64,
            ridge: 1e-4,
            ridge_convention: Convention::Scatter,
            longer: Longer::Error,
            views: Views::auto(1024),
        }
    }
}

impl Directions {
    /// Checks every value.
    pub fn check(&self, method: &str) -> Result<()> {
        if !(1..=4096).contains(&self.bits) {
            return Err(out_of_range(method, "bits", "1 to 4096", self.bits));
        }
        super::settings::not_negative(method, &[("ridge", self.ridge)])
    }

    /// Inputs and directions of equation (2), `bits` of them or, cut, as many as there are.
    pub fn fit(&self, method: &str, training: &Training<'_>, run: &Run<'_>) -> Result<(Inputs, cca::Cca)> {
        let inputs = Inputs::fit(method, training, self.views, run.seed)?;
        run.check_stop()?;
        let (x, y) = (inputs.images(&training.train.images)?, inputs.texts(&training.train.texts)?);
        let pairs = training.train.pairs.all();
        let ridge = match self.ridge_convention {
            Convention::Scatter => Ridge::Absolute(self.ridge / pairs.len().saturating_sub(1).max(1) as f64), // (2)
            Convention::Relative => Ridge::Relative(self.ridge),
        };
        let options = cca::Options { components: Components::AtMost(self.bits), ridge, ..cca::Options::default() };
        let mut fitted = cca::fit(&x, &y, pairs, &options)?;
        let least = NONE * fitted.singular_values.first().copied().unwrap_or(0.0);
        let directions = fitted.singular_values.iter().take_while(|&&value| value > least).count();
        if directions < self.bits {
            if self.longer == Longer::Error || directions == 0 {
                let expected = format!(
                    "at most {directions}, the directions that both views have in common (with `longer = \"cut\"` codes are cut to them)"
                );
                return Err(out_of_range(method, "bits", &expected, self.bits));
            }
            let cut = |view: Projection| Projection {
                weights: view.weights.subcols(0, directions).to_owned(),
                mean: view.mean,
            };
            fitted = cca::Cca {
                x: cut(fitted.x),
                y: cut(fitted.y),
                singular_values: fitted.singular_values[..directions].to_vec(),
                correlations: fitted.correlations[..directions].to_vec(),
            };
        }
        Ok((inputs, fitted))
    }

    /// What a table says beside a row.
    pub fn remark(&self) -> Option<String> {
        (self.longer == Longer::Cut).then(|| "bits at most: no more than directions".into())
    }
}
