//! The correlation family.

crate::family! {
    cca::Cca,
    dcca::Dcca,
    kcca::Kcca,
    scm::Scm,
}
