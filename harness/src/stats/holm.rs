//! Many tests at once: Holm's step-down procedure (S. Holm, Scandinavian Journal of Statistics 6, 1979), which keeps the probability of
//! even one wrong rejection at the level whatever the tests have to do with each other.

/// The p-values adjusted: test `i` is rejected at a level where its adjusted value is below it. In ascending order the `j`-th of `n` (from
/// 0) becomes `(n - j) p`, at most 1, and no less than the one before it.
pub fn adjusted(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let mut adjusted = vec![1.0; p.len()];
    let mut least: f64 = 0.0;
    for (rank, &at) in order.iter().enumerate() {
        least = least.max((p.len() - rank) as f64 * p[at]).min(1.0);
        adjusted[at] = least;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_p_adjust() {
        // R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") = 0.03 0.06 0.06 0.02.
        let found = adjusted(&[0.01, 0.04, 0.03, 0.005]);
        for (found, wanted) in found.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((found - wanted).abs() < 1e-12, "{found} {wanted}");
        }
        assert_eq!(adjusted(&[0.6, 0.7]), [1.0, 1.0]);
        assert_eq!(adjusted(&[0.02]), [0.02]);
        assert!(adjusted(&[]).is_empty());
    }
}
