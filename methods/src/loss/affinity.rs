//! The affinities that unsupervised hashing builds from features alone, and the loss of codes that reconstruct them.
//!
//! With features `F [m, p]` and rows of `hat(.)` of unit length; a zero row has cosine 0 with all:
//!
//! ```text
//! S_F = 2 hat(F) hat(F)ᵀ - 1                     cosine affinity          (1)
//! S~  = w_1 S_1 + w_2 S_2 + ..                   mixture of modalities    (2)
//! S   = (1 - eta) S~ + eta / n S~ S~ᵀ            second order             (3)
//! L   = mean over all entries of (C - S)²        reconstruction           (4)
//! X   = (P + Pᵀ) / 2,  P = hat(S_1) hat(S_2)ᵀ    joint order, normalised  (5)
//! X   = (P + Pᵀ) / 2,  P = S_1 S_2ᵀ / m          joint order, scaled      (6)
//! ```
//!
//! `C` are cosines of codes. (1) to (3) are Su, Zhong and Zhang, "Deep Joint-Semantics Reconstructing Hashing", ICCV 2019, where
//! `n` is the batch and the weights of (2) are `beta` and `1 - beta`; later methods weigh and combine the same matrices otherwise.
//! (5) is Liu et al., "Joint-modal Distribution-based Similarity Hashing", SIGIR 2020: items are alike whose likenesses in one modality
//! are those of the other item in the other. An affinity is a target: it has no gradient, whatever its features have.

mod identity;
#[cfg(test)]
pub(crate) mod known;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

pub use self::identity::correlation_identity;
use crate::{Error, Result, nn::unit};

/// The cosines of all rows of `a [n, d]` with all rows of `b [m, d]`, `[n, m]`, with gradient.
///
/// # Errors
/// If either is not a matrix, or the widths differ.
pub fn cosines(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    match (a.dims(), b.dims()) {
        ([_, d], [_, width]) if d == width => Ok(unit(a)?.matmul(&unit(b)?.t()?)?),
        (a, b) => Err(Error::Numeric(format!("cosines: expected [n, d] and [m, d], found {a:?} and {b:?}"))),
    }
}

/// Equation (1) for `features [m, p]`: `[m, m]`, from -1 to 1.
///
/// # Errors
/// If the features are not a matrix.
pub fn cosine_affinity(features: &Tensor) -> Result<Tensor> {
    if features.rank() != 2 {
        return Err(Error::Numeric(format!("cosine affinity: expected [m, p], found {:?}", features.dims())));
    }
    let rows = unit(&features.detach())?;
    Ok(rows.matmul(&rows.t()?)?.affine(2.0, -1.0)?)
}

/// Equation (2): the sum of matrices of one shape, each times its weight.
///
/// # Errors
/// If there is none, or the shapes differ.
pub fn mixture(parts: &[(&Tensor, f64)]) -> Result<Tensor> {
    let [(first, weight), rest @ ..] = parts else {
        return Err(Error::Numeric("mixture of affinities: expected at least one, found none".into()));
    };
    rest.iter().try_fold((first.detach() * *weight)?, |sum, (part, weight)| {
        same("mixture of affinities", &sum, part)?;
        Ok((sum + (part.detach() * *weight)?)?)
    })
}

/// Equation (3) for an affinity `[m, m]`: items are alike that are alike to the same items. `share` is `eta`, `count` is `n`.
///
/// # Errors
/// If the affinity is not square.
pub fn second_order(affinity: &Tensor, share: f64, count: usize) -> Result<Tensor> {
    if !matches!(*affinity.dims(), [rows, columns] if rows == columns) {
        let found = affinity.dims();
        return Err(Error::Numeric(format!("second-order affinity: expected a square matrix, found {found:?}")));
    }
    let affinity = affinity.detach();
    let second = affinity.matmul(&affinity.t()?)?;
    Ok(((affinity * (1.0 - share))? + (second * (share / count as f64))?)?)
}

/// How the product of two affinities is kept near the range of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Product {
    /// Rows of unit length, equation (5).
    Normalised,
    /// Divided by the number of rows, equation (6).
    Scaled,
}

/// Equation (5) or (6) for two affinities `[m, m]`: symmetric, and the same if they change places.
///
/// # Errors
/// If the shapes differ or are no matrices.
pub fn joint_order(first: &Tensor, second: &Tensor, product: Product) -> Result<Tensor> {
    same("joint order", first, second)?;
    let (first, second) = (first.detach(), second.detach());
    let product = match product {
        Product::Normalised => unit(&first)?.matmul(&unit(&second)?.t()?)?, // (5)
        Product::Scaled => (first.matmul(&second.t()?)? / first.dim(0)? as f64)?, // (6)
    };
    Ok(((&product + product.t()?)? / 2.0)?)
}

/// Equation (4) for the cosines of codes and an affinity of the same shape, a scalar.
///
/// # Errors
/// If the shapes differ.
pub fn reconstruct(cosines: &Tensor, affinity: &Tensor) -> Result<Tensor> {
    same("reconstruction", cosines, affinity)?;
    Ok((cosines - affinity)?.sqr()?.mean_all()?)
}

fn same(what: &str, a: &Tensor, b: &Tensor) -> Result<()> {
    if a.dims() == b.dims() {
        return Ok(());
    }
    Err(Error::Numeric(format!("{what}: expected matrices of one shape, found {:?} and {:?}", a.dims(), b.dims())))
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};

    use super::{
        super::support::{assert_gradients, normal, scalar, values},
        *,
    };

    fn matrix<const N: usize>(rows: &[[f64; 2]; N]) -> Tensor {
        Tensor::new(rows, &Device::Cpu).unwrap()
    }

    fn assert_close(found: &Tensor, expected: &[f64]) {
        let found = values(found);
        assert_eq!(found.len(), expected.len());
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?} {expected:?}");
    }

    #[test]
    fn affinities_by_hand() {
        // Cosines 0.6 and 0.8 with the axes; a zero row has cosine 0 with all, itself included.
        let features = matrix(&[[2.0, 0.0], [3.0, 4.0], [0.0, 0.0]]);
        let first = cosine_affinity(&features).unwrap();
        assert_close(&first, &[1.0, 0.2, -1.0, 0.2, 1.0, -1.0, -1.0, -1.0, -1.0]);
        let second = cosine_affinity(&matrix(&[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])).unwrap();
        assert_close(&second, &[1.0, -1.0, -3.0, -1.0, 1.0, -1.0, -3.0, -1.0, 1.0]);
        let mixed = mixture(&[(&first, 0.75), (&second, 0.25)]).unwrap();
        assert_close(&mixed, &[1.0, -0.1, -1.5, -0.1, 1.0, -1.0, -1.5, -1.0, -0.5]);
        assert_close(&cosines(&features, &matrix(&[[0.0, 5.0]])).unwrap(), &[0.0, 0.8, 0.0]);
        // S Sᵀ of [[1, -0.1], [-0.1, 1]] is [[1.01, -0.2], [-0.2, 1.01]].
        let order = second_order(&matrix(&[[1.0, -0.1], [-0.1, 1.0]]), 0.4, 2).unwrap();
        assert_close(&order, &[0.6 + 0.202, -0.06 - 0.04, -0.06 - 0.04, 0.6 + 0.202]);
        let loss = reconstruct(&matrix(&[[1.0, 0.5], [0.0, 1.0]]), &matrix(&[[1.0, -0.5], [2.0, 0.0]])).unwrap();
        assert_eq!(scalar(&loss), (1.0 + 4.0 + 1.0) / 4.0);
    }

    #[test]
    fn an_independent_reference_gives_the_same_matrices() {
        let known = known::Known::read();
        let [images, texts] = known.features().map(|features| cosine_affinity(&features).unwrap());
        assert_close(&images, &known.values("S_I"));
        assert_close(&texts, &known.values("S_T"));
        let mixed = mixture(&[(&images, 0.9), (&texts, 1.0 - 0.9)]).unwrap();
        let target = (second_order(&mixed, 0.4, 4).unwrap() * 1.5).unwrap();
        assert_close(&target, &known.values("djsrh_mirflickr_beta0.9_eta0.4_mu1.5"));
        let cross = joint_order(&images, &texts, Product::Normalised).unwrap();
        let joint = mixture(&[(&images, 0.5), (&texts, 0.1), (&cross, 0.4)]).unwrap();
        assert_close(&joint, &known.values("jdsh_mirflickr_unweighted"));
    }

    #[test]
    fn joint_order_by_hand() {
        let first = matrix(&[[3.0, 4.0], [0.0, 2.0]]);
        let second = matrix(&[[1.0, 0.0], [0.0, 5.0]]);
        // Unit rows (0.6, 0.8), (0, 1) against the axes.
        assert_close(&joint_order(&first, &second, Product::Normalised).unwrap(), &[0.6, 0.4, 0.4, 1.0]);
        // [[3, 20], [0, 10]] / 2, made symmetric; the same the other way around.
        for (a, b) in [(&first, &second), (&second, &first)] {
            assert_close(&joint_order(a, b, Product::Scaled).unwrap(), &[1.5, 5.0, 5.0, 5.0]);
        }
        assert!(joint_order(&first, &matrix(&[[1.0, 0.0]]), Product::Scaled).is_err());
    }

    #[test]
    fn codes_have_a_gradient_and_targets_have_none() {
        let target = normal("target", 3, 4);
        assert_gradients(&[normal("a", 3, 5), normal("b", 4, 5)], |at| {
            reconstruct(&cosines(&at[0], &at[1]).unwrap(), &target).unwrap()
        });
        let features = Var::from_tensor(&normal("f", 3, 5)).unwrap();
        let affinity = cosine_affinity(&features).unwrap();
        let target = second_order(&mixture(&[(&affinity, 0.5)]).unwrap(), 0.4, 3).unwrap();
        assert!(target.sum_all().unwrap().backward().unwrap().get(&features).is_none());
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let zeros = |n: usize, m: usize| Tensor::zeros((n, m), DType::F32, &Device::Cpu).unwrap();
        let text = |result: Result<Tensor>| result.unwrap_err().to_string();
        assert!(text(cosines(&zeros(2, 3), &zeros(2, 4))).contains("found [2, 3] and [2, 4]"));
        assert!(text(cosine_affinity(&zeros(2, 3).unsqueeze(0).unwrap())).contains("found [1, 2, 3]"));
        assert!(text(mixture(&[])).contains("found none"));
        assert!(text(mixture(&[(&zeros(2, 2), 1.0), (&zeros(3, 3), 1.0)])).contains("[2, 2] and [3, 3]"));
        assert!(text(second_order(&zeros(2, 3), 0.4, 2)).contains("square matrix, found [2, 3]"));
        assert!(text(reconstruct(&zeros(2, 3), &zeros(3, 2))).contains("[2, 3] and [3, 2]"));
    }
}
