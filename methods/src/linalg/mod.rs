//! Linear algebra that several families share: f64, but for the products of [`gemm`].
//!
//! Nothing here depends on the number of threads: decompositions run on one, products are cut into tiles of a fixed size.

pub mod cca;
#[cfg(test)]
mod checks;
mod cholesky;
mod decompose;
pub mod distance;
pub mod gemm;
pub mod inputs;
pub mod k_means;
pub mod kernel;
pub mod lbfgs;
pub mod logistic;
pub mod lsa;
mod product;
mod projection;
mod rows;
pub mod store;
pub mod views;

pub use cholesky::Cholesky;
pub use decompose::{Eigen, Svd, eigen, inverse_root, leading_svd, svd};
pub use product::{accumulate, each_column, multiply, scatter};
pub(crate) use product::{flip, largest};
pub use rows::{select, to_f32, to_f64};
