//! The metric family.

crate::family! {}
