//! Assignments of vectors to prototypes that use every prototype equally (Cuturi, NIPS 2013; as SwAV, Caron et al., NeurIPS
//! 2020, and SelfAlign have it).
//!
//! With scores `z_ik` of `n` vectors and `K` prototypes:
//!
//! ```text
//! Q = exp(z / epsilon) / sum_ik exp(z_ik / epsilon)                                                    (1)
//! each iteration:  Q_ik <- Q_ik / (K sum_i Q_ik),  then  Q_ik <- Q_ik / (n sum_k Q_ik)                 (2)
//! at the end:      Q <- n Q, whose rows sum to 1                                                       (3)
//! ```
//!
//! The largest score is taken off in (1), which changes nothing but that no exponential overflows. A prototype whose every
//! exponential is too small for a number is left without vectors, instead of dividing by zero.

use candle_core::{DType, Device, Tensor};

use crate::{Error, Result};

/// Equation (3), `[n, K]`, of scores `[n, K]`; no gradient passes.
///
/// # Errors
/// Scores that are no matrix or not finite, or an epsilon that is not above 0.
pub fn sinkhorn(scores: &Tensor, epsilon: f64, iterations: usize) -> Result<Tensor> {
    let (n, prototypes) = match *scores.dims() {
        [n, prototypes] if n * prototypes > 0 => (n, prototypes),
        ref other => {
            return Err(Error::Numeric(format!("sinkhorn: expected a matrix that is not empty, found {other:?}")));
        }
    };
    if epsilon.is_nan() || epsilon <= 0.0 {
        return Err(Error::Numeric(format!("sinkhorn: expected an epsilon above 0, found {epsilon}")));
    }
    let values = scores.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    if let Some(value) = values.iter().find(|value| !value.is_finite()) {
        return Err(Error::Numeric(format!("sinkhorn: expected finite scores, found {value}")));
    }
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut q: Vec<f64> = values.into_iter().map(|z| ((z - most) / epsilon).exp()).collect(); // (1)
    let total: f64 = q.iter().sum();
    q.iter_mut().for_each(|q| *q /= total);
    for _ in 0..iterations {
        let mut columns = vec![0.0; prototypes];
        for row in q.chunks_exact(prototypes) {
            columns.iter_mut().zip(row).for_each(|(sum, q)| *sum += q);
        }
        let share = |sum: f64| if sum > 0.0 { 1.0 / (prototypes as f64 * sum) } else { 0.0 };
        let shares: Vec<f64> = columns.into_iter().map(share).collect();
        for row in q.chunks_exact_mut(prototypes) {
            row.iter_mut().zip(&shares).for_each(|(q, share)| *q *= share); // (2)
            let sum: f64 = row.iter().sum();
            if sum > 0.0 {
                row.iter_mut().for_each(|q| *q /= n as f64 * sum);
            }
        }
    }
    q.iter_mut().for_each(|q| *q *= n as f64); // (3)
    Ok(Tensor::from_vec(q, (n, prototypes), &Device::Cpu)?.to_dtype(scores.dtype())?.to_device(scores.device())?)
}

#[cfg(test)]
mod tests {
    use super::{super::support::normal, *};

    fn sums(q: &Tensor) -> [Vec<f64>; 2] {
        [1, 0].map(|axis| q.sum(axis).unwrap().to_vec1().unwrap())
    }

    #[test]
    fn rows_sum_to_one_and_prototypes_share_alike() {
        // Also with more prototypes than vectors.
        for (n, prototypes) in [(12, 4), (3, 9), (1, 5)] {
            let [rows, columns] = sums(&sinkhorn(&normal("z", n, prototypes), 0.3, 300).unwrap());
            assert!(rows.iter().all(|sum| (sum - 1.0).abs() < 1e-12), "{rows:?}");
            let share = n as f64 / prototypes as f64;
            assert!(columns.iter().all(|sum| (sum - share).abs() < 1e-3 * share), "{columns:?}, {share}");
        }
    }

    #[test]
    fn equal_scores_are_assigned_alike_and_a_large_epsilon_makes_them_equal() {
        let q = sinkhorn(&Tensor::full(7f64, (3, 4), &Device::Cpu).unwrap(), 0.05, 2).unwrap();
        assert!(q.flatten_all().unwrap().to_vec1::<f64>().unwrap().iter().all(|q| (q - 0.25).abs() < 1e-15));
        let q = sinkhorn(&normal("z", 3, 4), 1e6, 1).unwrap();
        assert!(q.flatten_all().unwrap().to_vec1::<f64>().unwrap().iter().all(|q| (q - 0.25).abs() < 1e-5));
    }

    #[test]
    fn two_vectors_and_two_prototypes_are_known() {
        // A matrix [[a, b], [b, a]] keeps its form: rows are a / (a + b) and b / (a + b).
        let z = Tensor::new(&[[0.2f64, 0.1], [0.1, 0.2]], &Device::Cpu).unwrap();
        let q = sinkhorn(&z, 0.05, 3).unwrap().to_vec2::<f64>().unwrap();
        let expected = 1.0 / (1.0 + (-2f64).exp());
        assert!((q[0][0] - expected).abs() < 1e-12 && (q[1][0] - (1.0 - expected)).abs() < 1e-12, "{q:?}");
    }

    #[test]
    fn huge_scores_stay_numbers_and_what_is_none_is_refused() {
        let z = Tensor::new(&[[1e4f64, 0.0], [0.0, -1e4]], &Device::Cpu).unwrap();
        let q = sinkhorn(&z, 0.05, 2).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert!(q.iter().all(|q| q.is_finite()), "{q:?}");
        let error = |z: &Tensor, epsilon| sinkhorn(z, epsilon, 2).unwrap_err().to_string();
        assert!(error(&z, 0.0).contains("above 0, found 0"));
        assert!(error(&Tensor::new(&[[f64::NAN]], &Device::Cpu).unwrap(), 1.0).contains("found NaN"));
        assert!(error(&Tensor::zeros((0, 2), DType::F64, &Device::Cpu).unwrap(), 1.0).contains("[0, 2]"));
    }
}
