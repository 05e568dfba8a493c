//! Cross-view hashing in its unsupervised form (Kumar and Udupa, IJCAI 2011): canonical directions, and a bit for the sign on each.
//!
//! With centred, paired views `X [n, p]`, `Y [n, q]` and their products `Cxx = XᵀX + l I`, `Cyy` alike, `Cxy = XᵀY`:
//!
//! ```text
//! Cxy Cyy^-1 Cyx w = rho² Cxx w,   the c largest              (1)
//! Wy = Cyy^-1 Cyx Wx diag(1 / rho)                            (2)
//! b  = sign((x - mean_x) Wx),   texts with Wy                 (3)
//! ```
//!
//! Solved as canonical correlation analysis ([`crate::linalg::cca`]), whose directions are those of (1) and (2) in another length, which a sign
//! does not see. Bits stand in the order of falling correlation, so that a longer code begins with the shorter one and its new
//! bits tell less: accuracy falls with length.
//!
//! There are no more directions than the smaller rank of the views, and a longer code is an error (or cut, `longer`): published rows of
//! 16 to 128 bits on Wikipedia, whose ten topic proportions sum to 1, cannot come of these features as they are. A program in
//! use (BMC-SDNU/Cross-Modal-Hashing-Retrieval) multiplies by `Cyy` where (1) has its inverse; this does not.
//!
//! Departures: a bag of words goes through latent semantic analysis first, as for CCA; every caption of an image makes a pair.

use std::path::Path;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::linear::{Directions, Linear};
use crate::{Matcher, Method, Result, Run, Training, card::Card, params};

const NAME: &str = "cvh";

/// The method.
pub struct Cvh;

/// Its parameters.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Code length, ridge and inputs.
    #[serde(flatten)]
    pub directions: Directions,
}

impl Params {
    /// Completed and checked parameters.
    ///
    /// # Errors
    /// As [`params::parse`], or a value out of range.
    pub fn read(table: &toml::Table) -> Result<Self> {
        let read: Self = params::parse(NAME, table)?;
        read.directions.check(NAME)?;
        Ok(read)
    }
}

impl Method for Cvh {
    fn card(&self) -> &Card {
        crate::card!("cvh.toml")
    }

    fn resolve(&self, table: &toml::Table) -> Result<toml::Table> {
        Params::read(table).map(|params| params::to_table(&params))
    }

    fn fit(&self, training: &Training<'_>, table: &toml::Table, run: &mut Run<'_>) -> Result<Box<dyn Matcher>> {
        let (inputs, fitted) = Params::read(table)?.directions.fit(NAME, training, run)?; // (1), (2)
        Ok(Box::new(Linear { inputs, images: fitted.x, texts: fitted.y }))
    }

    fn load(&self, from: &Path, _device: &Device) -> Result<Box<dyn Matcher>> {
        Ok(Box::new(Linear::load(NAME, from)?))
    }

    fn remark(&self, table: &toml::Table) -> Option<String> {
        Params::read(table).ok()?.directions.remark()
    }
}

#[cfg(test)]
mod tests;
