//! Linear algebra that several families share, in f64.

pub mod gemm;
