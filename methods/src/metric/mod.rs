//! The metric family.

mod embedding;

crate::family! {
    vse::Vse,
    contrastive::Contrastive,
    n_pair::NPair,
    info_nce::InfoNce,
    triplet_center::TripletCenter,
    structure_preserving::StructurePreserving,
    joint_embedding::JointEmbedding,
}

#[cfg(test)]
mod tests;
