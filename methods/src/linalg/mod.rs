//! Linear algebra that several families share: f64, but for the products of [`gemm`].
//!
//! Nothing here depends on the number of threads: decompositions run on one, products are cut into tiles of a fixed size.

pub mod cca;
mod decompose;
pub mod gemm;
pub mod kernel;
pub mod lsa;
mod product;
pub mod store;
pub mod views;

pub use decompose::{Eigen, Svd, eigen, leading_svd, svd};
pub use product::{accumulate, each_column, multiply, scatter};
pub(crate) use product::{flip, largest};
