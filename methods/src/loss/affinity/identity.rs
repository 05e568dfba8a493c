//! The affinity of correlation-identity reconstruction hashing (Zhu et al., "Work Together", TKDE 2022).
//!
//! ```text
//! S_1 = a_1 C_I + (1 - a_1) C_T, the K smallest entries of each row set to 0     (1)
//! S_2 = (R + Rᵀ) / 2,  R = 2 sigmoid(S_1) - 1 + I                                 (2)
//! S   = a_2 S_1 + (1 - a_2) S_2                                                   (3)
//! ```
//!
//! `C` are cosines of features. Of equal entries the first count as the smaller.

use candle_core::{DType, Device, Tensor};

use super::{cosines, mixture};
use crate::{Error, Result};

/// Equation (3) for `images [m, p]` and `texts [m, q]`, with `share = [a_1, a_2]` and `dropped` = K: `[m, m]`, without gradient.
///
/// # Errors
/// If the features are no matrices of as many rows, or K is more than those.
pub fn correlation_identity(images: &Tensor, texts: &Tensor, share: [f64; 2], dropped: usize) -> Result<Tensor> {
    let (images, texts) = (images.detach(), texts.detach());
    let (c_i, c_t) = (cosines(&images, &images)?, cosines(&texts, &texts)?);
    let mixed = mixture(&[(&c_i, share[0]), (&c_t, 1.0 - share[0])])?;
    let m = mixed.dim(0)?;
    if dropped > m {
        return Err(Error::Numeric(format!(
            "correlation-identity affinity: expected at most {m} dropped, found {dropped}"
        )));
    }
    let mut rows = mixed.to_dtype(DType::F64)?.to_vec2::<f64>()?;
    for row in &mut rows {
        let mut order: Vec<usize> = (0..m).collect();
        order.sort_by(|&a, &b| row[a].total_cmp(&row[b]));
        order[..dropped].iter().for_each(|&j| row[j] = 0.0); // (1)
    }
    let first = Tensor::new(rows, &Device::Cpu)?.to_dtype(mixed.dtype())?.to_device(mixed.device())?;
    // 2 sigmoid(s) - 1 is tanh(s / 2).
    let second = ((&first / 2.0)?.tanh()? + Tensor::eye(m, mixed.dtype(), mixed.device())?)?;
    let second = ((&second + second.t()?)? / 2.0)?; // (2)
    mixture(&[(&first, share[1]), (&second, 1.0 - share[1])]) // (3)
}

#[cfg(test)]
mod tests {
    use super::{super::known, *};

    #[test]
    fn an_independent_reference_gives_the_same_matrix() {
        let known = known::Known::read();
        let [images, texts] = known.features();
        let found = correlation_identity(&images, &texts, [0.6, 0.6], 1).unwrap();
        known::assert_known(&known, "cirh_a1_0.6_a2_0.6_drop1", &found);
    }

    #[test]
    fn all_entries_dropped_leave_the_identity() {
        let ones = Tensor::ones((2, 3), DType::F64, &Device::Cpu).unwrap();
        let found = correlation_identity(&ones, &ones, [0.5, 0.4], 2).unwrap();
        assert_eq!(found.to_vec2::<f64>().unwrap(), [[0.6, 0.0], [0.0, 0.6]]);
        assert!(correlation_identity(&ones, &ones, [0.5, 0.4], 3).unwrap_err().to_string().contains("at most 2"));
    }
}
