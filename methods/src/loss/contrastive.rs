//! The contrastive loss: positives are pulled together, negatives are pushed apart up to a margin.
//!
//! With `d = sqrt(|x - y|² + epsilon)` the Euclidean distance of a pair (`epsilon` is 0 in the paper, 1e-9 in widespread code):
//!
//! ```text
//! Hadsell   l = |x - y|² / 2       of a positive,   l = [m_neg - d]+² / 2    of a negative       (1)
//! Linear    l = [d - m_pos]+       of a positive,   l = [m_neg - d]+         of a negative       (2)
//! ```
//!
//! (1) is Hadsell, Chopra and LeCun, "Dimensionality Reduction by Learning an Invariant Mapping", CVPR 2006, whose label is 0
//! for a positive. (2) is what pytorch-metric-learning (2.9.0) calls the contrastive loss. At distance 0 the gradient is 0, since
//! the direction is not defined.

use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{Relation, Relations, rows::by_row};
use crate::{Error, Result};

/// How the distance of a pair becomes a loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PairLoss {
    /// Equation (1): half squares.
    Hadsell,
    /// Equation (2): plain hinges.
    Linear,
}

/// The distances at which a loss begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Margins {
    /// Distance up to which a positive costs nothing; 0 with [`PairLoss::Hadsell`], which has none.
    pub positive: f64,
    /// Distance from which a negative costs nothing.
    pub negative: f64,
}

/// How the losses of the positives, and those of the negatives, become one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reduction {
    /// Their sum.
    Sum,
    /// Their mean.
    Mean,
    /// The mean of those above 0.
    Nonzero,
}

impl PairLoss {
    /// The loss of a pair at a squared distance, and its derivative by the squared distance.
    fn pair(self, squared: f64, positive: bool, margins: Margins, epsilon: f64) -> (f64, f64) {
        match (self, positive) {
            (Self::Hadsell, _) => hadsell(squared, positive, margins.negative, epsilon),
            (Self::Linear, true) => linear(squared + epsilon, margins.positive, 1.0),
            (Self::Linear, false) => linear(squared + epsilon, margins.negative, -1.0),
        }
    }
}

/// Equation (1) with `epsilon` beside the square under the root.
fn hadsell(squared: f64, positive: bool, margin: f64, epsilon: f64) -> (f64, f64) {
    if positive {
        return (squared / 2.0, 0.5);
    }
    let (short, slope) = linear(squared + epsilon, margin, -1.0);
    (short * short / 2.0, short * slope)
}

/// `[sign (d - m)]+` and its derivative by `d²`. Written so that NaN is not lost.
fn linear(squared: f64, margin: f64, sign: f64) -> (f64, f64) {
    let distance = squared.sqrt();
    let cost = sign * (distance - margin);
    if cost <= 0.0 {
        return (0.0, 0.0);
    }
    (cost, if distance == 0.0 { 0.0 } else { sign / (2.0 * distance) })
}

/// The contrastive loss of a batch from its `squared [n, m]` distances: the reduced losses of the positives plus the reduced
/// losses of the negatives, a scalar. The two are reduced apart, so that the many negatives do not swamp the positives; a part
/// without pairs is 0. `epsilon` is added to the square under every root.
///
/// # Errors
/// If the relations are of another shape, or a margin of positives is asked of [`PairLoss::Hadsell`].
pub fn contrastive(
    squared: &Tensor,
    relations: &Relations,
    form: PairLoss,
    margins: Margins,
    epsilon: f64,
    reduction: Reduction,
) -> Result<Tensor> {
    relations.fit("contrastive loss", squared)?;
    if form == PairLoss::Hadsell && margins.positive != 0.0 {
        return Err(Error::Numeric(format!(
            "contrastive loss: expected a positive margin of 0 with the form of Hadsell, which has none, found {}; set it to 0 or take the linear form",
            margins.positive
        )));
    }
    let part = |kind: Relation| -> Result<Tensor> {
        let nonzero = AtomicUsize::new(0);
        let rows = by_row("contrastive loss", squared, |i, squared, slope| {
            let mut sum = 0.0;
            for (j, _) in relations.row(i).iter().enumerate().filter(|&(_, &relation)| relation == kind) {
                let (cost, along) = form.pair(squared[j], kind == Relation::Positive, margins, epsilon);
                slope[j] = along;
                sum += cost;
                nonzero.fetch_add(usize::from(cost > 0.0), Ordering::Relaxed);
            }
            sum
        })?;
        let count = match reduction {
            Reduction::Sum => 1,
            Reduction::Mean => relations.count(kind),
            Reduction::Nonzero => nonzero.into_inner(),
        };
        Ok((rows.sum_all()? / count.max(1) as f64)?)
    };
    Ok((part(Relation::Positive)? + part(Relation::Negative)?)?)
}

/// Equation (1) of each of `n` pairs with `squared [n]` distances: `[n]`. `epsilon` is added to the square under the root: 0 in
/// the paper, 1e-9 in adambielski/siamese-triplet@0c719f9.
///
/// # Errors
/// If there is not one label a pair.
pub fn contrastive_pairs(squared: &Tensor, positive: &[bool], margin: f64, epsilon: f64) -> Result<Tensor> {
    if *squared.dims() != [positive.len()] {
        return Err(Error::Numeric(format!(
            "contrastive loss: expected one distance for each of {} labels, found {:?}",
            positive.len(),
            squared.dims()
        )));
    }
    by_row("contrastive loss", &squared.unsqueeze(1)?, |i, squared, slope| {
        let (cost, along) = hadsell(squared[0], positive[i], margin, epsilon);
        slope[0] = along;
        cost
    })
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::{
        super::{
            squared_distances,
            support::{assert_gradients, gradients, normal, scalar, values},
        },
        Relation::*,
        *,
    };

    const HADSELL: (PairLoss, Margins) = (PairLoss::Hadsell, Margins { positive: 0.0, negative: 2.5 });
    const LINEAR: (PairLoss, Margins) = (PairLoss::Linear, Margins { positive: 0.5, negative: 3.5 });
    const REDUCTIONS: [Reduction; 3] = [Reduction::Sum, Reduction::Mean, Reduction::Nonzero];

    /// The loss as in the paper, without an epsilon.
    fn plain(
        squared: &Tensor,
        relations: &Relations,
        (form, margins): (PairLoss, Margins),
        reduction: Reduction,
    ) -> Result<Tensor> {
        contrastive(squared, relations, form, margins, 0.0, reduction)
    }

    fn matrix<const N: usize>(rows: &[[f64; 3]; N]) -> Tensor {
        Tensor::new(rows, &Device::Cpu).unwrap()
    }

    /// Positives on the diagonal, one entry that takes no part.
    fn relations() -> Relations {
        Relations::new(2, 3, |i, j| [[Positive, Negative, Ignored], [Negative, Positive, Negative]][i][j])
    }

    #[test]
    fn values_by_hand() {
        // Distances: positives 2 and 0, negatives 1, 3 and 2.
        let squared = matrix(&[[4.0, 1.0, 0.0], [9.0, 0.0, 4.0]]);
        let found = |form, reduction| scalar(&plain(&squared, &relations(), form, reduction).unwrap());
        // Half squares: positives 2 and 0; margin 2.5: negatives 1.5²/2, 0, .5²/2.
        for (reduction, expected) in REDUCTIONS.into_iter().zip([2.0 + 1.25, 1.0 + 1.25 / 3.0, 2.0 + 1.25 / 2.0]) {
            assert!((found(HADSELL, reduction) - expected).abs() < 1e-12, "{reduction:?}");
        }
        // Hinges: positives 1.5 and 0, negatives 2.5, .5 and 1.5.
        for (reduction, expected) in REDUCTIONS.into_iter().zip([1.5 + 4.5, 0.75 + 1.5, 1.5 + 1.5]) {
            assert!((found(LINEAR, reduction) - expected).abs() < 1e-12, "{reduction:?}");
        }
        // In f32 as well.
        let single = plain(&squared.to_dtype(DType::F32).unwrap(), &relations(), LINEAR, Reduction::Sum).unwrap();
        assert_eq!((single.dtype(), scalar(&single)), (DType::F32, 6.0));
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let (x, y) = (normal("x", 2, 4), normal("y", 3, 4));
        for form in [HADSELL, LINEAR] {
            for reduction in REDUCTIONS {
                for epsilon in [0.0, 0.1] {
                    assert_gradients(&[x.clone(), y.clone()], |at| {
                        let squared = squared_distances(&at[0], &at[1]).unwrap();
                        contrastive(&squared, &relations(), form.0, form.1, epsilon, reduction).unwrap()
                    });
                }
            }
        }
        let positive = [true, false, true, false, false];
        let weights = normal("w", 1, 5).squeeze(0).unwrap();
        for epsilon in [0.0, 0.1] {
            assert_gradients(&[normal("x", 5, 3), normal("y", 5, 3)], |at| {
                let squared = (&at[0] - &at[1]).unwrap().sqr().unwrap().sum(1).unwrap();
                let pairs = contrastive_pairs(&squared, &positive, 3.0, epsilon).unwrap();
                (pairs * &weights).unwrap().sum_all().unwrap()
            });
        }
    }

    #[test]
    fn a_collapsed_batch_costs_its_margin_and_has_no_direction() {
        let at = [normal("x", 1, 4).broadcast_as((4, 4)).unwrap().contiguous().unwrap()];
        let pairs = Relations::diagonal(4);
        for (form, expected) in [(HADSELL, 2.5 * 2.5 / 2.0), (LINEAR, 3.5)] {
            let loss = |at: &[Tensor]| {
                plain(&squared_distances(&at[0], &at[0]).unwrap(), &pairs, form, Reduction::Mean).unwrap()
            };
            assert!((scalar(&loss(&at)) - expected).abs() < 1e-12);
            assert_eq!(gradients(&at, loss)[0], [0.0; 16]);
        }
    }

    #[test]
    fn what_takes_no_part_does_not_leak() {
        for form in [HADSELL, LINEAR] {
            for reduction in REDUCTIONS {
                let loss = |at: &[Tensor]| plain(&at[0], &relations(), form, reduction).unwrap();
                let at = |ignored: f64| [matrix(&[[4.0, 1.0, ignored], [9.0, 0.0, 4.0]])];
                for ignored in [f64::NAN, f64::INFINITY, -1e300] {
                    assert_eq!(scalar(&loss(&at(ignored))), scalar(&loss(&at(0.0))));
                    assert_eq!(gradients(&at(ignored), loss), gradients(&at(0.0), loss));
                }
                assert!(scalar(&loss(&[matrix(&[[4.0, f64::NAN, 0.0], [9.0, 0.0, 4.0]])])).is_nan());
            }
        }
    }

    #[test]
    fn the_order_of_the_batch_does_not_count() {
        let labels = [0, 1, 0, 2, 1, 0];
        let loss = |order: [usize; 6]| {
            let x = normal("x", 6, 3)
                .index_select(&Tensor::new(order.map(|i| i as u32).as_slice(), &Device::Cpu).unwrap(), 0);
            let relations = Relations::new(6, 6, |i, j| match labels[order[i]] == labels[order[j]] {
                _ if i == j => Ignored,
                true => Positive,
                false => Negative,
            });
            let x = x.unwrap();
            let squared = squared_distances(&x, &x).unwrap();
            scalar(&plain(&squared, &relations, LINEAR, Reduction::Nonzero).unwrap())
        };
        assert!((loss([0, 1, 2, 3, 4, 5]) - loss([3, 5, 1, 0, 4, 2])).abs() < 1e-12);
    }

    #[test]
    fn one_pair_has_no_negative_part() {
        let one = Tensor::new(&[[4f32]], &Device::Cpu).unwrap();
        for (form, expected) in [(HADSELL, 2.0), (LINEAR, 1.5)] {
            for reduction in REDUCTIONS {
                assert_eq!(scalar(&plain(&one, &Relations::diagonal(1), form, reduction).unwrap()), expected);
            }
        }
        let nothing = Relations::new(1, 1, |_, _| Ignored);
        assert_eq!(scalar(&plain(&one, &nothing, LINEAR, Reduction::Nonzero).unwrap()), 0.0);
    }

    #[test]
    fn pairs_are_labelled_one_by_one() {
        let squared = Tensor::new(&[4f64, 4.0, 0.0, 16.0], &Device::Cpu).unwrap();
        let found = contrastive_pairs(&squared, &[true, false, false, false], 3.0, 0.0).unwrap();
        assert_eq!(values(&found), [2.0, 0.5, 4.5, 0.0]);
        let found = contrastive_pairs(&squared, &[true, false, false, false], 3.0, 1.0).unwrap();
        assert_eq!(values(&found), [2.0, (3.0 - 5f64.sqrt()).powi(2) / 2.0, 2.0, 0.0]);
        let error = contrastive_pairs(&squared, &[true], 3.0, 0.0).unwrap_err().to_string();
        assert!(error.contains("each of 1 labels, found [4]"), "{error}");
        let error = plain(&matrix(&[[0.0; 3]]), &relations(), HADSELL, Reduction::Sum).unwrap_err().to_string();
        assert!(error.contains("shape [2, 3], found [1, 3]"), "{error}");
        let mixed = (PairLoss::Hadsell, LINEAR.1);
        let error = plain(&matrix(&[[0.0; 3]; 2]), &relations(), mixed, Reduction::Sum).unwrap_err().to_string();
        assert!(error.contains("positive margin of 0") && error.contains("found 0.5"), "{error}");
    }

    #[test]
    fn epsilon_stands_under_every_root() {
        // Squared distances 15 and 8 become 4 and 3; a square that is not a root stays.
        let squared = Tensor::new(&[[15f64, 8.0], [8.0, 15.0]], &Device::Cpu).unwrap();
        let found = |(form, margins)| {
            scalar(&contrastive(&squared, &Relations::diagonal(2), form, margins, 1.0, Reduction::Mean).unwrap())
        };
        let margins = Margins { positive: 0.0, negative: 5.0 };
        assert_eq!(found((PairLoss::Hadsell, margins)), 7.5 + 2.0);
        assert_eq!(found((PairLoss::Linear, margins)), 4.0 + 2.0);
    }

    #[test]
    fn the_words_of_a_table_are_those_of_the_papers() {
        let words = |value: serde_json::Value| value.as_str().unwrap().to_owned();
        let form = [PairLoss::Hadsell, PairLoss::Linear].map(|form| words(serde_json::to_value(form).unwrap()));
        assert_eq!(form, ["hadsell", "linear"]);
        let reductions = REDUCTIONS.map(|reduction| words(serde_json::to_value(reduction).unwrap()));
        assert_eq!(reductions, ["sum", "mean", "nonzero"]);
    }
}
