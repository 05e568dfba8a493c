//! The attention family.

pub mod cross;

crate::family! { scan::Scan }
