//! How images and texts are aligned: every method behind one trait, one folder a family, one source file and one card a method.
//!
//! The contract is in [`method`]; [`registry`] lists what there is. Families share layers ([`nn`]), linear algebra ([`linalg`])
//! and losses ([`loss`]), and never import each other.

pub mod card;
pub mod codes;
mod error;
pub mod golden;
pub mod linalg;
pub mod loss;
pub mod method;
pub mod nn;
pub mod params;
pub mod registry;
pub mod train;
pub mod trained;

pub mod attention;
pub mod correlation;
pub mod dense;
pub mod external;
pub mod hashing;
pub mod metric;
pub mod relation;

pub use codes::{AttentionMap, Bits, Codes, Fragments, PairScorer, Similarity};
pub use error::{Error, Result};
pub use method::{Matcher, Method, Run, Training};
