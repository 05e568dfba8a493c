//! The hashing family.

mod net;

crate::family! { djsrh::Djsrh }
