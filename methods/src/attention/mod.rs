//! The attention family.

crate::family! { scan::Scan }
