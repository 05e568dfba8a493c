//! The attention family.

crate::family! {}
