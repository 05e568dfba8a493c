//! Layers that several families share: weights, recurrent units, transformers, text and image encoders, pooling, normalisation.
//!
//! Sequences of different lengths are kept one after another without padding ([`Lengths`]): no step is spent on padding, and
//! nothing that stands there can leak into a result.

use crate::golden::Operation;

mod attend;
mod batch_norm;
mod blocks;
mod cell;
#[cfg(test)]
pub(crate) mod checks;
pub mod cross;
mod dense;
mod dropped;
mod embedding;
mod golden;
mod gpo;
mod gradients;
mod gru;
pub(crate) mod heads;
mod inputs;
mod joint;
mod k_max;
mod layers;
mod lengths;
mod linear;
mod lstm;
mod mlp;
mod moments;
mod norm;
mod panels;
pub(crate) mod real;
mod recurrence;
mod relating;
mod residual_norm;
mod rows;
mod standardise;
mod steps;
mod text;
mod transformer;
mod weights;

pub use batch_norm::{BatchNorm, dropout};
pub use blocks::in_blocks;
pub use dense::{Activation, Dense};
pub use embedding::{Embedding, WordSource};
pub use gpo::Gpo;
pub use gradients::backward;
pub use gru::Gru;
pub use inputs::ScaledInputs;
pub(crate) use joint::check_rows;
pub use joint::{Encoders, Finish, ImagePooling, Joint, Shape, States, TextModel, TextPooling};
pub use k_max::k_max;
pub use layers::Layers;
pub use lengths::Lengths;
pub(crate) use lengths::index;
pub use linear::{ImageEncoder, Init, Linear, Scaling};
pub use lstm::Lstm;
pub(crate) use lstm::step as lstm_step;
pub use mlp::{LayerNames, Mlp, MlpSettings};
pub use moments::Moments;
pub use norm::{l2n, unit};
pub use relating::{Relating, RelatingLayer};
pub use standardise::Standardise;
pub use text::{TextEncoder, TextLayer, TextSettings, Tokens};
pub use transformer::Transformer;
pub use weights::Weights;

/// The golden operations of this module.
pub fn operations() -> Vec<Operation> {
    golden::operations()
}
