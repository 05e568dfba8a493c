//! A query against its positive and given negatives:
//!
//! ```text
//! l_r = -log( exp(q_r . p_r / tau) / (exp(q_r . p_r / tau) + sum_{j in N_r} exp(q_r . n_j / tau)) )        (1)
//! ```

use candle_core::Tensor;

use crate::{Result, loss::against};

/// The mean of (1) over queries and positives `[m, d]`; negatives `[n, d]` are common, and `counts(r, j)` says which are in `N_r`.
///
/// # Errors
/// If the shapes do not fit.
pub(super) fn common(
    [q, p, negatives]: [&Tensor; 3],
    temperature: f64,
    counts: impl Fn(usize, usize) -> bool + Sync,
) -> Result<Tensor> {
    let logits = Tensor::cat(&[(q * p)?.sum_keepdim(1)?, q.matmul(&negatives.t()?)?], 1)?;
    Ok(against(&(logits / temperature)?, counts)?.mean_all()?)
}

/// The mean of (1) of queries and positives `[m, d]` whose negatives are summed: `others` is the logarithm of each sum, `[m, 1]`.
///
/// # Errors
/// If the shapes do not fit.
pub(super) fn summed([q, p, others]: [&Tensor; 3], temperature: f64) -> Result<Tensor> {
    let own = ((q * p)?.sum_keepdim(1)? / temperature)?;
    Ok(against(&Tensor::cat(&[&own, others], 1)?, |_, _| true)?.mean_all()?)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::loss::log_sum;

    #[test]
    fn both_forms_are_the_formula_and_pass_gradients() {
        let q = Var::new(&[[1f64, 0.0], [0.0, 1.0]], &Device::Cpu).unwrap();
        let p = Var::new(&[[0.6f64, 0.8], [0.0, 1.0]], &Device::Cpu).unwrap();
        let n = Var::new(&[[0.8f64, 0.6], [1.0, 0.0]], &Device::Cpu).unwrap();
        let value = |x: &Tensor| x.to_scalar::<f64>().unwrap();
        // Gaps of the first query: 0.2 and 0.4; the second has the first negative only, 0.6 - 1.
        let loss = common([&q, &p, &n], 0.5, |r, j| r == 0 || j == 0).unwrap();
        let expected = ((1.0 + 0.4f64.exp() + 0.8f64.exp()).ln() + (1.0 + (-0.8f64).exp()).ln()) / 2.0;
        assert!((value(&loss) - expected).abs() < 1e-12);
        let logits = (q.matmul(&n.t().unwrap()).unwrap() / 0.5).unwrap();
        let others = log_sum(&logits, |r, j| r == 0 || j == 0).unwrap().unsqueeze(1).unwrap();
        let other = summed([&q, &p, &others], 0.5).unwrap();
        assert!((value(&other) - expected).abs() < 1e-12);
        for loss in [loss, other] {
            let grads = loss.backward().unwrap();
            assert!([&q, &p, &n].iter().all(|var| grads.get(var).is_some()));
        }
    }
}
