//! The metric family.

crate::family! { vse::Vse }
