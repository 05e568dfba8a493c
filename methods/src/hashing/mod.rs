//! The hashing family.

crate::family! {}
