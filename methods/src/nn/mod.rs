//! Layers that several families share: weights, recurrent units, text and image encoders, pooling, normalisation.
//!
//! Sequences of different lengths are kept one after another without padding ([`Lengths`]): no step is spent on padding, and
//! nothing that stands there can leak into a result.

use crate::golden::Operation;

mod dense;
mod golden;
mod gpo;
mod gru;
mod inputs;
mod lengths;
mod linear;
mod moments;
mod norm;
pub(crate) mod real;
mod recurrence;
mod text;
mod weights;

pub use dense::{Activation, Dense};
pub use gpo::Gpo;
pub use gru::Gru;
pub use inputs::ScaledInputs;
pub use lengths::Lengths;
pub use linear::{ImageEncoder, Linear, Scaling};
pub use moments::Moments;
pub use norm::{l2n, unit};
pub use text::{TextEncoder, Tokens};
pub use weights::Weights;

/// The golden operations of this module.
pub fn operations() -> Vec<Operation> {
    golden::operations()
}
