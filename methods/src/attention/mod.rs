//! The attention family.

crate::family! { scan::SCAN }
