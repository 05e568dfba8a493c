//! The hashing family.

pub mod networks;

crate::family! {
    djsrh::DJSRH,
}
