//! The correlation family.

crate::family! {}
