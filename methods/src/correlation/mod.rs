//! The correlation family.

#[cfg(test)]
mod checks;

crate::family! {
    cca::Cca,
    dcca::Dcca,
    kcca::Kcca,
    scm::Scm,
}
