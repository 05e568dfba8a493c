//! The hashing family.

crate::family! { djsrh::Djsrh }
