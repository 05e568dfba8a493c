//! Losses that several families share.

use crate::golden::Operation;

mod affinity;
mod canonical;
mod contrastive;
mod distance;
mod distance_weighted;
mod golden;
mod hinge;
pub mod matching;
mod nt_xent;
mod order;
mod relation;
mod rows;
mod sampled;
mod sinkhorn;
mod softmax;
mod structure;
#[cfg(test)]
pub(crate) mod support;
mod triplet_center;

#[cfg(test)]
pub(crate) use affinity::known;
pub use affinity::{
    Product, correlation_identity, cosine_affinity, cosines, joint_order, mixture, reconstruct, second_order,
};
pub use canonical::{CanonicalCorrelation, Correlated, Objective, canonical_correlation};
pub use contrastive::{Margins, PairLoss, Reduction, contrastive, contrastive_pairs};
pub use distance::squared_distances;
pub use distance_weighted::DistanceWeighted;
pub use hinge::hinge;
pub use nt_xent::{Contrast, nt_xent};
pub use order::{order_score, order_scores};
pub use relation::{Relation, Relations};
pub use sampled::sampled_hinge;
pub use sinkhorn::sinkhorn;
pub use softmax::{NPairForm, against, cross_entropy, info_nce, log_sum, n_pair_rows, norm_penalty, one_vs_one_rows};
pub use structure::{Structure, StructureTerms, structure_preserving};
pub use triplet_center::{CenterForm, own_center_nearest, triplet_center};

/// The golden operations of this module.
pub fn operations() -> Vec<Operation> {
    golden::operations()
}
