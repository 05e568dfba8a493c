//! The contrastive loss: positives are pulled together, negatives are pushed apart up to a margin.
//!
//! With `d` the Euclidean distance of a pair:
//!
//! ```text
//! Hadsell   l = d² / 2             of a positive,   l = [m - d]+² / 2    of a negative       (1)
//! Linear    l = [d - m_pos]+       of a positive,   l = [m_neg - d]+     of a negative       (2)
//! ```
//!
//! (1) is Hadsell, Chopra and LeCun, "Dimensionality Reduction by Learning an Invariant Mapping", CVPR 2006, whose label is 0
//! for a positive. (2) is what pytorch-metric-learning calls the contrastive loss. At distance 0 the gradient is 0, since the
//! direction is not defined.

use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::Tensor;

use super::{Relation, Relations, rows::by_row};
use crate::{Error, Result};

/// How a distance becomes a loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Form {
    /// Equation (1): half squares.
    Hadsell {
        /// Distance from which a negative costs nothing.
        margin: f64,
    },
    /// Equation (2): plain hinges.
    Linear {
        /// Distance up to which a positive costs nothing.
        positive: f64,
        /// Distance from which a negative costs nothing.
        negative: f64,
    },
}

/// How the losses of the positives, and those of the negatives, become one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// Their sum.
    Sum,
    /// Their mean.
    Mean,
    /// The mean of those above 0.
    MeanNonzero,
}

impl Form {
    /// The loss of a pair at a squared distance, and its derivative by the squared distance.
    fn pair(self, squared: f64, positive: bool) -> (f64, f64) {
        match (self, positive) {
            (Self::Hadsell { margin }, _) => hadsell(squared, positive, margin, 0.0),
            (Self::Linear { positive, .. }, true) => linear(squared, positive, 1.0),
            (Self::Linear { negative, .. }, false) => linear(squared, negative, -1.0),
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
/// without pairs is 0.
///
/// # Errors
/// If the relations are of another shape.
pub fn contrastive(squared: &Tensor, relations: &Relations, form: Form, reduction: Reduction) -> Result<Tensor> {
    relations.fit("contrastive loss", squared)?;
    let part = |kind: Relation| -> Result<Tensor> {
        let nonzero = AtomicUsize::new(0);
        let rows = by_row("contrastive loss", squared, |i, squared, slope| {
            let mut sum = 0.0;
            for (j, _) in relations.row(i).iter().enumerate().filter(|&(_, &relation)| relation == kind) {
                let (cost, along) = form.pair(squared[j], kind == Relation::Positive);
                slope[j] = along;
                sum += cost;
                nonzero.fetch_add(usize::from(cost > 0.0), Ordering::Relaxed);
            }
            sum
        })?;
        let count = match reduction {
            Reduction::Sum => 1,
            Reduction::Mean => relations.count(kind),
            Reduction::MeanNonzero => nonzero.into_inner(),
        };
        Ok((rows.sum_all()? / count.max(1) as f64)?)
    };
    Ok((part(Relation::Positive)? + part(Relation::Negative)?)?)
}

/// Equation (1) of each of `n` pairs with `squared [n]` distances: `[n]`. `epsilon` is added to the square under the root: 0 in
/// the paper, 1e-9 in the widespread siamese code.
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

    const HADSELL: Form = Form::Hadsell { margin: 2.5 };
    const LINEAR: Form = Form::Linear { positive: 0.5, negative: 3.5 };
    const REDUCTIONS: [Reduction; 3] = [Reduction::Sum, Reduction::Mean, Reduction::MeanNonzero];

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
        let found = |form, reduction| scalar(&contrastive(&squared, &relations(), form, reduction).unwrap());
        // Half squares: positives 2 and 0; margin 2.5: negatives 1.5²/2, 0, .5²/2.
        for (reduction, expected) in REDUCTIONS.into_iter().zip([2.0 + 1.25, 1.0 + 1.25 / 3.0, 2.0 + 1.25 / 2.0]) {
            assert!((found(HADSELL, reduction) - expected).abs() < 1e-12, "{reduction:?}");
        }
        // Hinges: positives 1.5 and 0, negatives 2.5, .5 and 1.5.
        for (reduction, expected) in REDUCTIONS.into_iter().zip([1.5 + 4.5, 0.75 + 1.5, 1.5 + 1.5]) {
            assert!((found(LINEAR, reduction) - expected).abs() < 1e-12, "{reduction:?}");
        }
        // In f32 as well.
        let single = contrastive(&squared.to_dtype(DType::F32).unwrap(), &relations(), LINEAR, Reduction::Sum).unwrap();
        assert_eq!((single.dtype(), scalar(&single)), (DType::F32, 6.0));
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let (x, y) = (normal("x", 2, 4), normal("y", 3, 4));
        for form in [HADSELL, LINEAR] {
            for reduction in REDUCTIONS {
                assert_gradients(&[x.clone(), y.clone()], |at| {
                    contrastive(&squared_distances(&at[0], &at[1]).unwrap(), &relations(), form, reduction).unwrap()
                });
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
                contrastive(&squared_distances(&at[0], &at[0]).unwrap(), &pairs, form, Reduction::Mean).unwrap()
            };
            assert!((scalar(&loss(&at)) - expected).abs() < 1e-12);
            assert_eq!(gradients(&at, loss)[0], [0.0; 16]);
        }
    }

    #[test]
    fn what_takes_no_part_does_not_leak() {
        for form in [HADSELL, LINEAR] {
            for reduction in REDUCTIONS {
                let loss = |at: &[Tensor]| contrastive(&at[0], &relations(), form, reduction).unwrap();
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
            scalar(
                &contrastive(&squared_distances(&x, &x).unwrap(), &relations, LINEAR, Reduction::MeanNonzero).unwrap(),
            )
        };
        assert!((loss([0, 1, 2, 3, 4, 5]) - loss([3, 5, 1, 0, 4, 2])).abs() < 1e-12);
    }

    #[test]
    fn one_pair_has_no_negative_part() {
        let one = Tensor::new(&[[4f32]], &Device::Cpu).unwrap();
        for (form, expected) in [(HADSELL, 2.0), (LINEAR, 1.5)] {
            for reduction in REDUCTIONS {
                assert_eq!(scalar(&contrastive(&one, &Relations::diagonal(1), form, reduction).unwrap()), expected);
            }
        }
        let nothing = Relations::new(1, 1, |_, _| Ignored);
        assert_eq!(scalar(&contrastive(&one, &nothing, LINEAR, Reduction::MeanNonzero).unwrap()), 0.0);
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
        let error = contrastive(&matrix(&[[0.0; 3]]), &relations(), HADSELL, Reduction::Sum).unwrap_err().to_string();
        assert!(error.contains("shape [2, 3], found [1, 3]"), "{error}");
    }
}
