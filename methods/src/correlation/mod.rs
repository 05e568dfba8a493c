//! The correlation family.

crate::family! {
    cca::Cca,
    scm::Scm,
}
