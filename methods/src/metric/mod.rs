//! The metric family.

crate::family! {
    vse::VSE,
    contrastive::CONTRASTIVE,
    n_pair::N_PAIR,
    info_nce::INFO_NCE,
    triplet_center::TRIPLET_CENTER,
    structure_preserving::STRUCTURE_PRESERVING,
    joint_embedding::JOINT_EMBEDDING,
}

#[cfg(test)]
mod tests;
