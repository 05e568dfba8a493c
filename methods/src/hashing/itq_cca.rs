//! Iterative quantisation of canonical directions (Gong and Lazebnik, CVPR 2011): the common space of CCA is turned until its
//! axes lose least by taking signs.
//!
//! With `V [n, c]` the projections of all training images and texts, column `k` times its canonical correlation to the power `a`:
//!
//! ```text
//! V = [(X - mean_x) Wx; (Y - mean_y) Wy] diag(rho^a)       (1)  see linalg::cca
//! min |B - V R|²   over   B in {-1, 1}, RᵀR = I            (2)
//! B = sign(V R)                                            (3)
//! Bᵀ V = S O Zᵀ,   R = Z Sᵀ                                (4)  O diagonal
//! b = sign((x - mean_x) Wx diag(rho^a) R), texts alike     (5)
//! ```
//!
//! (3) and (4) alternate from a random rotation; neither raises (2). The paper's views are an image and its labels or tags, and it codes
//! images alone, on whose projections `R` is learnt; here both modalities are coded, so that both are in (1). `a` = 1 is the
//! paper's. Codes longer than there are directions are an error or cut, as of [`super::cvh`]; the other departures are its, too.

use std::path::Path;

use candle_core::Device;
use faer::Mat;
use serde::{Deserialize, Serialize};
use xmbench_datasets::random::Stream;

use super::{
    linear::{Directions, Linear},
    settings,
};
use crate::{
    Matcher, Method, Result, Run, Training,
    card::Card,
    linalg::{Svd, cca::Projection, multiply, svd},
    params::{self, out_of_range},
};

const NAME: &str = "itq_cca";

/// The method.
pub struct ItqCca;

/// Its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Code length, ridge and inputs.
    #[serde(flatten)]
    pub directions: Directions,
    /// Power `a` of the canonical correlations in equation (1).
    pub power: f64,
    /// Rounds of equations (3) and (4); 0 leaves the random rotation.
    pub iterations: usize,
}

impl Default for Params {
    fn default() -> Self {
        Self { directions: Directions::default(), power: 1.0, iterations: 50 }
    }
}

impl Params {
    /// Completed and checked parameters.
    ///
    /// # Errors
    /// As [`params::parse`], or a value out of range.
    pub fn read(table: &toml::Table) -> Result<Self> {
        let read: Self = params::parse(NAME, table)?;
        read.directions.check(NAME)?;
        settings::not_negative(NAME, &[("power", read.power)])?;
        if read.iterations > 10_000 {
            return Err(out_of_range(NAME, "iterations", "at most 10000", read.iterations));
        }
        Ok(read)
    }
}

impl Method for ItqCca {
    fn card(&self) -> &Card {
        crate::card!("itq_cca.toml")
    }

    fn resolve(&self, table: &toml::Table) -> Result<toml::Table> {
        Params::read(table).map(|params| params::to_table(&params))
    }

    fn fit(&self, training: &Training<'_>, table: &toml::Table, run: &mut Run<'_>) -> Result<Box<dyn Matcher>> {
        let params = Params::read(table)?;
        let (inputs, fitted) = params.directions.fit(NAME, training, run)?;
        let [images, texts] = fitted.weighted(params.power);
        let stacked = stack(
            &images.apply(&inputs.images(&training.train.images)?)?,
            &texts.apply(&inputs.texts(&training.train.texts)?)?,
        ); // (1)
        run.check_stop()?;
        let start = rotation(stacked.ncols(), &mut run.seed.stream(&[NAME, "rotation"]))?;
        let Quantised { rotation, .. } = quantise(&stacked, start, params.iterations)?;
        let turned =
            |view: Projection| Projection { weights: multiply(view.weights.as_ref(), rotation.as_ref()), ..view };
        Ok(Box::new(Linear { inputs, images: turned(images), texts: turned(texts) })) // (5)
    }

    fn load(&self, from: &Path, _device: &Device) -> Result<Box<dyn Matcher>> {
        Ok(Box::new(Linear::load(NAME, from)?))
    }

    fn remark(&self, table: &toml::Table) -> Option<String> {
        Params::read(table).ok()?.directions.remark()
    }
}

fn stack(above: &Mat<f64>, below: &Mat<f64>) -> Mat<f64> {
    Mat::from_fn(above.nrows() + below.nrows(), above.ncols(), |i, j| match i.checked_sub(above.nrows()) {
        None => above[(i, j)],
        Some(i) => below[(i, j)],
    })
}

/// A random orthogonal matrix `[c, c]`.
fn rotation(c: usize, stream: &mut Stream) -> Result<Mat<f64>> {
    let normal = Mat::from_fn(c, c, |_, _| stream.normal());
    let Svd { u, v, .. } = svd(normal.as_ref())?;
    Ok(multiply(u.as_ref(), v.transpose()))
}

/// A rotation, and what it loses before each round and at the end, equation (2).
struct Quantised {
    rotation: Mat<f64>,
    #[cfg_attr(not(test), expect(dead_code, reason = "tests read it"))]
    losses: Vec<f64>,
}

/// Rounds of equations (3) and (4) from a rotation `[c, c]` for `rows [n, c]`.
fn quantise(rows: &Mat<f64>, start: Mat<f64>, iterations: usize) -> Result<Quantised> {
    let mut rotation = start;
    let mut losses = Vec::with_capacity(iterations + 1);
    for round in 0..=iterations {
        let turned = multiply(rows.as_ref(), rotation.as_ref());
        let sign = |i, j| if turned[(i, j)] > 0.0 { 1.0 } else { -1.0 };
        let signs = Mat::from_fn(turned.nrows(), turned.ncols(), sign); // (3)
        losses.push((&signs - &turned).squared_norm_l2());
        if round < iterations {
            let Svd { u, v, .. } = svd(multiply(signs.transpose(), rows.as_ref()).as_ref())?;
            rotation = multiply(v.as_ref(), u.transpose()); // (4)
        }
    }
    Ok(Quantised { rotation, losses })
}

#[cfg(test)]
mod tests;
