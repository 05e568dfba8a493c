//! Losses over the softmax of a row of scores: N-pair, one-versus-one, InfoNCE and cross entropy.
//!
//! With `z_ij` the score of anchor `i` and positive `j` of a batch of pairs, whose own score stands on the diagonal:
//!
//! ```text
//! N-pair-mc    l_i = log(1 + sum_{j != i} exp(z_ij - z_ii))                  (1)
//! N-pair-ovo   l_i = sum_{j != i} log(1 + exp(z_ij - z_ii))                  (2)
//! InfoNCE      L = (mean of (1) over the rows + mean of (1) over the columns) / 2     (3)
//! given        l_i = log(1 + sum_{j in N_i} exp(n_ij - p_i))                          (4)
//! log-sum      l_i = log sum_{j in N_i} exp(n_ij)                                      (5)
//! ```
//!
//! (1) and (2) are Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", NIPS 2016. (3) is (1) in both
//! directions; its scores are cosines over a temperature. (4) is (1) where each row brings its positive `p_i` and says which of the
//! negatives `n_ij` count, such as those of a queue. With (5) for `n_i1` and no other, (4) is the same number: so the negatives that
//! several positives of a row have in common are summed once.

use candle_core::{D, Tensor};
use serde::{Deserialize, Serialize};

use super::{Relation, Relations, rows::by_row};
use crate::{Error, Result};

/// Whether an anchor meets all its negatives at once or one after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NPairForm {
    /// Equation (1).
    Mc,
    /// Equation (2).
    Ovo,
}

impl NPairForm {
    /// [`n_pair_rows`] or [`one_vs_one_rows`].
    ///
    /// # Errors
    /// As [`n_pair_rows`].
    pub fn rows(self, logits: &Tensor, relations: &Relations) -> Result<Tensor> {
        match self {
            Self::Mc => n_pair_rows(logits, relations),
            Self::Ovo => one_vs_one_rows(logits, relations),
        }
    }
}

/// Equation (1) of each row of `logits [b, b]`: `[b]`. Negatives count; other positives and what is ignored take no part.
///
/// # Errors
/// If the matrix is not square, of another shape than the relations, or has an entry on its diagonal that is no positive.
pub fn n_pair_rows(logits: &Tensor, relations: &Relations) -> Result<Tensor> {
    relations.fit_pairs("n-pair loss", logits)?;
    by_row("n-pair loss", logits, |i, z, slope| {
        let row = relations.row(i);
        log_one_plus(z, i, |j| row[j] == Relation::Negative, slope)
    })
}

/// Equation (2) of each row of `logits [b, b]`: `[b]`. Negatives count; other positives and what is ignored take no part.
///
/// # Errors
/// As [`n_pair_rows`].
pub fn one_vs_one_rows(logits: &Tensor, relations: &Relations) -> Result<Tensor> {
    relations.fit_pairs("one-versus-one loss", logits)?;
    by_row("one-versus-one loss", logits, |i, z, slope| {
        let mut sum = 0.0;
        for (j, _) in relations.row(i).iter().enumerate().filter(|&(_, &relation)| relation == Relation::Negative) {
            let gap = z[j] - z[i];
            // log(1 + e^gap) and its derivative from e^-|gap|, which cannot overflow.
            let e = (-gap.abs()).exp();
            let share = if gap > 0.0 { 1.0 } else { e } / (1.0 + e);
            sum += gap.max(0.0) + e.ln_1p();
            slope[j] += share;
            slope[i] -= share;
        }
        sum
    })
}

/// Equation (3) of `logits [b, b]`: the loss, the mean over the rows (each image chooses its text) and the mean over the
/// columns (each text its image), scalars.
///
/// # Errors
/// As [`n_pair_rows`].
pub fn info_nce(logits: &Tensor, relations: &Relations) -> Result<[Tensor; 3]> {
    let rows = n_pair_rows(logits, relations)?.mean_all()?;
    let columns = n_pair_rows(&logits.t()?, &relations.t())?.mean_all()?;
    Ok([((&rows + &columns)? / 2.0)?, rows, columns])
}

/// Equation (4) of each row of `logits [n, 1 + m]`, `[n]`: the first column is the positive, and negative `j` (column `j + 1`)
/// of row `i` takes part where `counts(i, j)`. A row without negatives has neither loss nor gradient.
///
/// # Errors
/// If there is no row or no column.
pub fn against(logits: &Tensor, counts: impl Fn(usize, usize) -> bool + Sync) -> Result<Tensor> {
    by_row("contrast with given negatives", logits, |i, z, slope| {
        log_one_plus(z, 0, |j| j > 0 && counts(i, j - 1), slope)
    })
}

/// Equation (5) of each row of `logits [n, m]`, `[n]`: column `j` of row `i` takes part where `counts(i, j)`. A row without any
/// is minus infinity, which [`against`] takes for no negatives; no gradient passes.
///
/// # Errors
/// If there is no row or no column.
pub fn log_sum(logits: &Tensor, counts: impl Fn(usize, usize) -> bool + Sync) -> Result<Tensor> {
    by_row("logarithm of a sum", logits, |i, z, slope| {
        let counted = || z.iter().enumerate().filter(|&(j, _)| counts(i, j));
        let most = counted().fold(f64::NEG_INFINITY, |most, (_, &z)| most.max(z));
        let mut sum = 0.0;
        for (j, z) in counted() {
            slope[j] = (z - most).exp();
            sum += slope[j];
        }
        if sum == 0.0 {
            return f64::NEG_INFINITY;
        }
        slope.iter_mut().for_each(|slope| *slope /= sum);
        most + sum.ln()
    })
}

/// What N-pair adds, times a weight, instead of normalising: `mean_i (|a_i|² + |p_i|²) / 2` of `anchors` and `positives [n, d]`,
/// a scalar.
///
/// # Errors
/// If the shapes differ or are no matrices.
pub fn norm_penalty(anchors: &Tensor, positives: &Tensor) -> Result<Tensor> {
    if anchors.rank() != 2 || anchors.dims() != positives.dims() {
        return Err(Error::Numeric(format!(
            "norm penalty: expected anchors and positives [n, d], found {:?} and {:?}",
            anchors.dims(),
            positives.dims()
        )));
    }
    let squares = (anchors.sqr()?.sum(D::Minus1)? + positives.sqr()?.sum(D::Minus1)?)?;
    Ok((squares.mean_all()? / 2.0)?)
}

/// The mean over the rows of the softmax cross entropy of class scores `logits [n, classes]` against the class of each row, a
/// scalar.
///
/// # Errors
/// If there is not one class a row, or a class that has no score.
pub fn cross_entropy(logits: &Tensor, classes: &[u32]) -> Result<Tensor> {
    let known = match *logits.dims() {
        [rows, known] if rows == classes.len() => known,
        ref other => {
            return Err(Error::Numeric(format!(
                "cross entropy: expected a row of scores for each of {} classes, found {other:?}",
                classes.len()
            )));
        }
    };
    if let Some(class) = classes.iter().find(|&&class| class as usize >= known) {
        return Err(Error::Numeric(format!("cross entropy: expected a class below {known}, found {class}")));
    }
    let rows = by_row("cross entropy", logits, |i, z, slope| {
        let class = classes[i] as usize;
        log_one_plus(z, class, |j| j != class, slope)
    })?;
    Ok(rows.mean_all()?)
}

/// `log(1 + sum_j exp(z_j - z_own))` over the `negative` entries, whose derivatives it adds to `slope`. NaN is not lost, and a
/// small sum keeps its digits.
fn log_one_plus(z: &[f64], own: usize, negative: impl Fn(usize) -> bool, slope: &mut [f64]) -> f64 {
    let gaps = || z.iter().enumerate().filter(|&(j, _)| negative(j)).map(|(j, z_j)| (j, z_j - z[own]));
    let most = gaps().fold(0.0, |most: f64, (_, gap)| most.max(gap));
    let exponentials: Vec<(usize, f64)> = gaps().map(|(j, gap)| (j, (gap - most).exp())).collect();
    let others: f64 = exponentials.iter().map(|(_, exponential)| exponential).sum();
    let one = (-most).exp();
    for (j, exponential) in exponentials {
        let share = exponential / (one + others);
        slope[j] += share;
        slope[own] -= share;
    }
    if most == 0.0 { others.ln_1p() } else { most + (one + others).ln() }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::{
        super::support::{assert_gradients, gradients, normal, scalar, values},
        Relation::*,
        *,
    };

    type Rows = fn(&Tensor, &Relations) -> Result<Tensor>;
    const BOTH: [Rows; 2] =
        [|z, relations| NPairForm::Mc.rows(z, relations), |z, relations| NPairForm::Ovo.rows(z, relations)];

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12 * (1.0 + b.abs())
    }

    /// Four pairs: 0 and 1 are positives of each other, (2, 0) and (0, 3) take no part.
    fn masked() -> Relations {
        Relations::new(4, 4, |i, j| match (i, j) {
            (0, 1) | (1, 0) => Positive,
            (2, 0) | (0, 3) => Ignored,
            _ if i == j => Positive,
            _ => Negative,
        })
    }

    #[test]
    fn rows_are_those_of_the_formulas() {
        let z = normal("z", 4, 4);
        let entries = z.to_vec2::<f64>().unwrap();
        for relations in [masked(), Relations::diagonal(4)] {
            let [mc, ovo] = BOTH.map(|rows| values(&rows(&z, &relations).unwrap()));
            for i in 0..4 {
                let (mut sum, mut product) = (1.0, 1.0);
                for j in (0..4).filter(|&j| relations.get(i, j) == Negative) {
                    let gap = (entries[i][j] - entries[i][i]).exp();
                    (sum, product) = (sum + gap, product * (1.0 + gap));
                }
                assert!(close(mc[i], sum.ln()) && close(ovo[i], product.ln()), "{i}: {mc:?} {ovo:?}");
            }
        }
    }

    #[test]
    fn equal_scores_cost_the_logarithm_of_the_batch() {
        for b in [1usize, 2, 7, 100] {
            let z = Tensor::full(0.3f32, (b, b), &Device::Cpu).unwrap();
            let pairs = Relations::diagonal(b);
            let [mc, ovo] = BOTH.map(|rows| scalar(&rows(&z, &pairs).unwrap().mean_all().unwrap()));
            assert!((mc - (b as f64).ln()).abs() < 1e-5 && (ovo / 2f64.ln() - (b - 1) as f64).abs() < 1e-4);
            let [loss, rows, columns] = info_nce(&z, &pairs).unwrap().map(|x| scalar(&x));
            assert!(loss == mc && rows == mc && columns == mc);
            assert!((scalar(&cross_entropy(&z, &vec![0; b]).unwrap()) - (b as f64).ln()).abs() < 1e-5);
        }
    }

    #[test]
    fn info_nce_is_n_pair_in_both_directions_and_cross_entropy_its_rows() {
        let z = normal("z", 4, 4);
        let [loss, rows, columns] = info_nce(&z, &masked()).unwrap().map(|x| scalar(&x));
        let mean = |z: &Tensor, relations: &Relations| scalar(&n_pair_rows(z, relations).unwrap().mean_all().unwrap());
        assert!(close(rows, mean(&z, &masked())));
        assert!(close(columns, mean(&z.t().unwrap().contiguous().unwrap(), &masked().t())));
        assert!(close(loss, (rows + columns) / 2.0));
        assert!(close(scalar(&cross_entropy(&z, &[0, 1, 2, 3]).unwrap()), mean(&z, &Relations::diagonal(4))));
        // Against the sum of all exponentials.
        let entries = z.to_vec2::<f64>().unwrap();
        let expected: f64 =
            entries.iter().zip([3, 1, 1, 0]).map(|(z, c)| z.iter().map(|z| z.exp()).sum::<f64>().ln() - z[c]).sum();
        assert!(close(scalar(&cross_entropy(&z, &[3, 1, 1, 0]).unwrap()), expected / 4.0));
    }

    #[test]
    fn a_given_positive_meets_the_negatives_that_count() {
        let (z, counts) = (normal("z", 3, 5), |i: usize, j: usize| i != 2 && (i + j).is_multiple_of(2));
        let entries = z.to_vec2::<f64>().unwrap();
        let found = values(&against(&z, counts).unwrap());
        for (i, row) in entries.iter().enumerate() {
            let sum: f64 = (0..4).filter(|&j| counts(i, j)).map(|j| row[j + 1].exp()).sum();
            assert!(close(found[i], (1.0 + sum / row[0].exp()).ln()), "{found:?}");
        }
        assert_eq!(found[2], 0.0);
        assert_gradients(&[z], |at| against(&at[0], counts).unwrap().sum_all().unwrap());
        // Every other column against the first is a cross entropy.
        let z = normal("z", 3, 5);
        let all = scalar(&against(&z, |_, _| true).unwrap().mean_all().unwrap());
        assert!(close(all, scalar(&cross_entropy(&z, &[0; 3]).unwrap())));
    }

    #[test]
    fn negatives_that_are_summed_once_give_the_same_loss() {
        let (z, counts) = (normal("z", 3, 5), |i: usize, j: usize| i != 2 && (i + j).is_multiple_of(2));
        let apart = |z: &Tensor| {
            let others = log_sum(&z.narrow(1, 1, 4).unwrap(), counts).unwrap().unsqueeze(1).unwrap();
            against(&Tensor::cat(&[&z.narrow(1, 0, 1).unwrap(), &others], 1).unwrap(), |_, _| true).unwrap()
        };
        let (found, expected) = (values(&apart(&z)), values(&against(&z, counts).unwrap()));
        assert!(found.iter().zip(&expected).all(|(a, b)| close(*a, *b)), "{found:?} {expected:?}");
        let by = |loss: &dyn Fn(&Tensor) -> Tensor| {
            gradients(std::slice::from_ref(&z), |at| loss(&at[0]).sum_all().unwrap())
        };
        let (found, expected) = (by(&apart), by(&|z| against(z, counts).unwrap()));
        assert!(found[0].iter().zip(&expected[0]).all(|(a, b)| close(*a, *b)), "{found:?} {expected:?}");
        // The third row has none, which is no number and has no gradient.
        let own = Tensor::new(&[[f64::NAN, 1.0], [1e4, 1e4 + 1.0]], &Device::Cpu).unwrap();
        let [nothing, large] = values(&log_sum(&own, |i, _| i == 1).unwrap())[..] else { panic!() };
        assert!(nothing == f64::NEG_INFINITY && close(large, 1e4 + (1.0 + 1f64.exp()).ln()), "{nothing} {large}");
        assert!(values(&log_sum(&own, |_, _| true).unwrap())[0].is_nan());
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let weights = normal("w", 1, 4).squeeze(0).unwrap();
        for relations in [masked(), Relations::diagonal(4)] {
            for rows in BOTH {
                assert_gradients(&[normal("z", 4, 4)], |at| {
                    (rows(&at[0], &relations).unwrap() * &weights).unwrap().sum_all().unwrap()
                });
            }
            for part in 0..3 {
                assert_gradients(&[normal("a", 4, 3), normal("p", 4, 3)], |at| {
                    let z = at[0].matmul(&at[1].t().unwrap()).unwrap();
                    info_nce(&z, &relations).unwrap()[part].clone()
                });
            }
        }
        assert_gradients(&[normal("z", 5, 3)], |at| cross_entropy(&at[0], &[2, 0, 1, 1, 0]).unwrap());
        assert_gradients(&[normal("a", 4, 3), normal("p", 4, 3)], |at| norm_penalty(&at[0], &at[1]).unwrap());
    }

    #[test]
    fn scores_far_apart_neither_overflow_nor_vanish() {
        let z = Tensor::new(&[[0f64, 1e4], [-50.0, 0.0]], &Device::Cpu).unwrap();
        for rows in BOTH {
            let found = values(&rows(&z, &Relations::diagonal(2)).unwrap());
            assert!(found[0] == 1e4 && (found[1] / (-50f64).exp() - 1.0).abs() < 1e-12, "{found:?}");
            let grad = gradients(std::slice::from_ref(&z), |at| {
                rows(&at[0], &Relations::diagonal(2)).unwrap().sum_all().unwrap()
            });
            assert!(grad[0][..2] == [-1.0, 1.0] && (grad[0][2] / (-50f64).exp() - 1.0).abs() < 1e-12, "{grad:?}");
        }
    }

    #[test]
    fn what_takes_no_part_does_not_leak_and_nan_that_does_is_not_hidden() {
        let at = |value: f64| {
            let mut z = normal("z", 4, 4).to_vec2::<f64>().unwrap();
            for (i, j) in [(0, 1), (1, 0), (2, 0), (0, 3)] {
                z[i][j] = value;
            }
            [Tensor::new(z, &Device::Cpu).unwrap()]
        };
        for rows in BOTH {
            let loss = |at: &[Tensor]| rows(&at[0], &masked()).unwrap().sum_all().unwrap();
            for value in [f64::NAN, f64::INFINITY, 1e300] {
                assert_eq!(scalar(&loss(&at(value))), scalar(&loss(&at(0.0))));
                assert_eq!(gradients(&at(value), loss), gradients(&at(0.0), loss));
            }
            assert!(values(&rows(&at(f64::NAN)[0], &Relations::diagonal(4)).unwrap())[0].is_nan());
        }
    }

    #[test]
    fn the_order_of_the_batch_does_not_count() {
        let order = [2usize, 0, 3, 1];
        let index = Tensor::new(order.map(|i| i as u32).as_slice(), &Device::Cpu).unwrap();
        let z = normal("z", 4, 4);
        let permuted = z.index_select(&index, 0).unwrap().index_select(&index, 1).unwrap();
        let relations = Relations::new(4, 4, |i, j| masked().get(order[i], order[j]));
        for (a, b) in info_nce(&z, &masked()).unwrap().iter().zip(info_nce(&permuted, &relations).unwrap()) {
            assert!(close(scalar(a), scalar(&b)));
        }
    }

    #[test]
    fn one_pair_has_neither_loss_nor_gradient() {
        let one = [Tensor::new(&[[5f32]], &Device::Cpu).unwrap()];
        for rows in BOTH {
            let loss = |at: &[Tensor]| rows(&at[0], &Relations::diagonal(1)).unwrap().sum_all().unwrap();
            assert_eq!((scalar(&loss(&one)), gradients(&one, loss)), (0.0, vec![vec![0.0]]));
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let zeros = |n: usize, m: usize| Tensor::zeros((n, m), DType::F32, &Device::Cpu).unwrap();
        let error = |z: &Tensor, relations: &Relations| n_pair_rows(z, relations).unwrap_err().to_string();
        assert!(error(&zeros(2, 3), &Relations::diagonal(2)).contains("shape [2, 2], found [2, 3]"));
        assert!(error(&zeros(2, 3), &Relations::new(2, 3, |_, _| Positive)).contains("found 2 and 3"));
        assert!(error(&zeros(2, 2), &Relations::new(2, 2, |_, _| Negative)).contains("found Negative at 0"));
        let error = |classes: &[u32]| cross_entropy(&zeros(2, 3), classes).unwrap_err().to_string();
        assert!(error(&[0, 3]).contains("below 3, found 3"));
        assert!(error(&[0]).contains("each of 1 classes, found [2, 3]"));
        assert!(norm_penalty(&zeros(2, 3), &zeros(3, 3)).is_err());
    }
}
