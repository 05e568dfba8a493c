//! The correlation family.

crate::family! {
    cca::Cca,
    kcca::Kcca,
    scm::Scm,
}
