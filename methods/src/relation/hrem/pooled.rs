//! The fragments of an item to one vector, equations (3) and (4).

use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use xmbench_datasets::random::Stream;

use crate::{
    Result,
    nn::{Gpo, Lengths, Relating, RelatingLayer, Weights, k_max, l2n},
};

/// How equation (3) begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The mean of the largest values of each channel.
    Kmax,
    /// Generalised pooling.
    Gpo,
}

/// Vectors of some items with the fragments that they were made of.
pub struct Encoded {
    /// Fragments `z`, one item after another, `[total, d]`.
    pub fragments: Tensor,
    /// How many each item has.
    pub lengths: Lengths,
    /// Equation (3), `[items, d]`.
    pub pooled: Tensor,
    /// Equation (4).
    pub unit: Tensor,
}

/// How equation (3) is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    pub pooling: Pooling,
    /// `k`.
    pub k: usize,
    /// `alpha`.
    pub share: f64,
    pub layer: Relating,
}

/// Equations (3) and (4). Weights of a [`RelatingLayer`] under `NAME.relating`, and of a [`Gpo`] under `NAME.pool`.
pub struct Pool {
    gpo: Option<Gpo>,
    layer: RelatingLayer,
    shape: Shape,
}

impl Pool {
    pub fn new(weights: &mut Weights, name: &str, shape: Shape) -> Result<Self> {
        let gpo = match shape.pooling {
            Pooling::Kmax => None,
            Pooling::Gpo => Some(Gpo::new(weights, &format!("{name}.pool"), 32, 32)?),
        };
        Ok(Self { gpo, layer: RelatingLayer::new(weights, &format!("{name}.relating"), shape.layer)?, shape })
    }

    /// The vectors of items with these fragments; with a stream the layer is in training.
    pub fn forward(&self, fragments: Tensor, lengths: Lengths, training: Option<&mut Stream>) -> Result<Encoded> {
        let base = self.base(&fragments, &lengths)?;
        let related = self.related(&fragments, &lengths, training)?;
        let pooled = ((base * self.shape.share)? + (related * (1.0 - self.shape.share))?)?; // (3)
        Ok(Encoded { unit: l2n(&pooled)?, pooled, fragments, lengths }) // (4)
    }

    /// The first part of (3).
    pub fn base(&self, fragments: &Tensor, lengths: &Lengths) -> Result<Tensor> {
        match &self.gpo {
            Some(gpo) => Ok(gpo.forward(fragments, lengths)?.0),
            None => k_max(fragments, lengths, self.shape.k),
        }
    }

    fn related(&self, fragments: &Tensor, lengths: &Lengths, training: Option<&mut Stream>) -> Result<Tensor> {
        lengths.mean(&self.layer.forward(fragments, lengths, None, training)?)
    }
}
