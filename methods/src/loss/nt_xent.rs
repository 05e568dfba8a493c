//! The contrast of two views of the same items among all of a batch: NT-Xent (Chen et al., SimCLR, ICML 2020) as DUCH has it.
//!
//! For rows `x_1 .. x_n` and `y_1 .. y_n` of unit length, `z` their stack of `2n` rows and `z_i'` the other view of `z_i`:
//!
//! ```text
//! L = sum over i of -log(exp(z_i . z_i' / T) / (N_i + eps))                       (1)
//! N_i = max(sum over all j of exp(z_i . z_j / T) - e, eps)                  orig   (2)
//! N_i = sum over the rows j of the other view of exp(z_i . z_j / T)        cross  (3)
//! ```
//!
//! As released (comrados/duch@b908ed4): a sum, not a mean, and (2) takes the constant `e` off to be rid of `j = i`, whose term is
//! `exp(1 / T)`: the two agree at T = 1 alone.

use candle_core::{D, Tensor};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, nn::unit};

/// Which rows stand against the positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Contrast {
    /// Those of both views, equation (2).
    Orig,
    /// Those of the other view, equation (3).
    Cross,
}

/// Equation (1) for `x` and `y [n, d]`, whose rows are scaled to unit length first: a scalar. `eps` keeps the logarithm finite.
///
/// # Errors
/// If the shapes differ or are no matrices.
pub fn nt_xent(x: &Tensor, y: &Tensor, temperature: f64, eps: f64, contrast: Contrast) -> Result<Tensor> {
    if x.rank() != 2 || x.dims() != y.dims() {
        let (x, y) = (x.dims(), y.dims());
        return Err(Error::Numeric(format!("NT-Xent: expected two matrices of one shape, found {x:?} and {y:?}")));
    }
    let (x, y) = (unit(x)?, unit(y)?);
    let positive = ((&x * &y)?.sum(D::Minus1)? / temperature)?;
    let against = match contrast {
        Contrast::Orig => {
            let z = Tensor::cat(&[&x, &y], 0)?;
            let sums = (z.matmul(&z.t()?)? / temperature)?.exp()?.sum(D::Minus1)?;
            (sums - std::f64::consts::E)?.maximum(eps)? // (2)
        }
        Contrast::Cross => {
            let similar = (x.matmul(&y.t()?)? / temperature)?.exp()?;
            Tensor::cat(&[similar.sum(1)?, similar.sum(0)?], 0)? // (3)
        }
    };
    Ok(((against + eps)?.log()?.sum_all()? - (positive.sum_all()? * 2.0)?)?) // (1)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::{
        super::support::{assert_gradients, normal, scalar},
        *,
    };

    #[test]
    fn orthogonal_pairs_by_hand() {
        // Two pairs on two axes: every row meets itself and its partner at cosine 1 and two rows at 0.
        let axes = Tensor::new(&[[1f64, 0.0], [0.0, 1.0]], &Device::Cpu).unwrap();
        let loss = |t: f64, contrast| scalar(&nt_xent(&axes, &axes, t, 0.0, contrast).unwrap());
        let (e, t) = (std::f64::consts::E, 0.5);
        let orig = 4.0 * ((2.0 * (1.0f64 / t).exp() + 2.0 - e).ln() - 1.0 / t);
        assert!((loss(t, Contrast::Orig) - orig).abs() < 1e-12);
        let cross = 4.0 * (((1.0f64 / t).exp() + 1.0).ln() - 1.0 / t);
        assert!((loss(t, Contrast::Cross) - cross).abs() < 1e-12);
        // At temperature 1 the row itself is gone: one positive and two others.
        assert!((loss(1.0, Contrast::Orig) - 4.0 * ((e + 2.0).ln() - 1.0)).abs() < 1e-12);
    }

    #[test]
    fn equal_rows_cost_the_logarithm_of_their_number() {
        let rows = Tensor::ones((5, 3), DType::F64, &Device::Cpu).unwrap();
        let loss = |contrast| scalar(&nt_xent(&rows, &rows, 1.0, 0.0, contrast).unwrap());
        assert!((loss(Contrast::Cross) - 10.0 * 5f64.ln()).abs() < 1e-12);
        assert!((loss(Contrast::Orig) - 10.0 * 9f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        for contrast in [Contrast::Orig, Contrast::Cross] {
            assert_gradients(&[normal("x", 4, 3), normal("y", 4, 3)], |at| {
                nt_xent(&at[0], &at[1], 0.5, 1e-6, contrast).unwrap()
            });
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let zeros = |n: usize, m: usize| Tensor::zeros((n, m), DType::F32, &Device::Cpu).unwrap();
        let error = nt_xent(&zeros(2, 3), &zeros(3, 3), 0.5, 1e-6, Contrast::Orig).unwrap_err().to_string();
        assert!(error.contains("[2, 3] and [3, 3]"), "{error}");
    }
}
