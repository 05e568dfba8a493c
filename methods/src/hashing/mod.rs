//! The hashing family.

mod cosines;
mod golden;
pub mod networks;
mod settings;

crate::family! {
    djsrh::DJSRH,
    jdsh::JDSH,
    cfrh::CFRH,
}
