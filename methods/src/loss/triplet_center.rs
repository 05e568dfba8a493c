//! The triplet-center loss: each feature is nearer to the centre of its class than to any other, by a margin.
//!
//! ```text
//! D(f, c) = |f - c|² / 2                                                 (1)
//! l_i = [D(f_i, c_{y_i}) + m - min_{j != y_i} D(f_i, c_j)]+              (2)
//! ```
//!
//! He, Zhou, Zhou, Bai and Bai, "Triplet-Center Loss for Multi-View 3D Object Retrieval", CVPR 2018, who sum (2) over the batch.
//! The code for SHREC 2018 (xlliu7/Shrec2018_TripletCenterLoss.pytorch@36fa434) takes the plain distance in (1), looks for `j` among
//! the classes present in the batch only, and averages. At equal minima the paper's form counts the first; the released code's
//! shares the gradient among the features of the batch that belong to them, as its `min` over the batch does.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{distance::squared_distances, rows::by_row};
use crate::{Error, Result};

/// The smallest squared distance of the released code.
const LEAST: f64 = 1e-12;

/// Which distance to which centres.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CenterForm {
    /// Half the squared distance; the centres of all classes.
    Paper,
    /// The distance, `sqrt(max(|f - c|², 1e-12))`; the centres of the classes present in the batch.
    Released,
}

impl CenterForm {
    /// The distance from its square, and its derivative by the square.
    fn distance(self, squared: f64) -> (f64, f64) {
        match self {
            Self::Paper => (squared / 2.0, 0.5),
            Self::Released if squared < LEAST => (LEAST.sqrt(), 0.0),
            Self::Released => (squared.sqrt(), 0.5 / squared.sqrt()),
        }
    }

    /// How much each class counts where its centre is one of several nearest; 0 for a class whose centre is not looked at.
    fn weights(self, labels: &[u32], classes: usize) -> Result<Vec<f64>> {
        if let Some(label) = labels.iter().find(|&&label| label as usize >= classes) {
            return Err(Error::Numeric(format!(
                "triplet-center loss: expected a class below {classes}, found {label}"
            )));
        }
        let mut weights = vec![f64::from(u8::from(self == Self::Paper)); classes];
        if self == Self::Released {
            labels.iter().for_each(|&label| weights[label as usize] += 1.0);
        }
        if weights.iter().filter(|&&weight| weight > 0.0).count() < 2 {
            return Err(Error::Numeric(match self {
                Self::Paper => format!("triplet-center loss: expected centres of at least 2 classes, found {classes}"),
                Self::Released => {
                    "triplet-center loss: expected at least 2 classes in the batch, found 1; draw batches that mix \
                     classes, or use the paper's form"
                        .into()
                }
            }));
        }
        Ok(weights)
    }
}

/// Equation (2) for each of `features [n, d]` with `centers [classes, d]` and a class each: `[n]`.
///
/// # Errors
/// If the widths differ, there is not one label a feature, a label has no centre, or there is no centre of another class
/// ([`CenterForm::Released`]: if the batch has one class only).
pub fn triplet_center(
    features: &Tensor,
    centers: &Tensor,
    labels: &[u32],
    margin: f64,
    form: CenterForm,
) -> Result<Tensor> {
    let (squared, weights) = distances(features, centers, labels, form)?;
    by_row("triplet-center loss", &squared, |i, squared, slope| {
        let own = labels[i] as usize;
        let (positive, along) = form.distance(squared[own]);
        let negative = nearest(squared, own, &weights, form);
        let cost = positive + margin - negative;
        // Written so that NaN is not lost.
        if cost <= 0.0 {
            return 0.0;
        }
        slope[own] = along;
        let tied = |j: usize| j != own && weights[j] > 0.0 && form.distance(squared[j]).0 == negative;
        let tied: Vec<usize> = (0..squared.len()).filter(|&j| tied(j)).collect();
        let tied = if form == CenterForm::Paper { &tied[..tied.len().min(1)] } else { &tied };
        let total: f64 = tied.iter().map(|&j| weights[j]).sum();
        for &j in tied {
            slope[j] = -form.distance(squared[j]).1 * weights[j] / total;
        }
        cost
    })
}

/// The fraction of `features [n, d]` that are nearer to the centre of their own class than to any other centre that
/// [`triplet_center`] looks at.
///
/// # Errors
/// As [`triplet_center`].
pub fn own_center_nearest(features: &Tensor, centers: &Tensor, labels: &[u32], form: CenterForm) -> Result<f64> {
    let (squared, weights) = distances(features, centers, labels, form)?;
    let nearer = by_row("nearest centre", &squared.detach(), |i, squared, _| {
        let own = labels[i] as usize;
        f64::from(u8::from(form.distance(squared[own]).0 < nearest(squared, own, &weights, form)))
    })?;
    Ok(nearer.to_dtype(candle_core::DType::F64)?.mean_all()?.to_scalar()?)
}

fn distances(features: &Tensor, centers: &Tensor, labels: &[u32], form: CenterForm) -> Result<(Tensor, Vec<f64>)> {
    let squared = squared_distances(features, centers)?;
    let (n, classes) = squared.dims2()?;
    if n != labels.len() {
        return Err(Error::Numeric(format!("triplet-center loss: expected {n} labels, found {}", labels.len())));
    }
    Ok((squared, form.weights(labels, classes)?))
}

/// The distance of the nearest centre of another class; NaN if one of them is.
fn nearest(squared: &[f64], own: usize, weights: &[f64], form: CenterForm) -> f64 {
    let others = (0..squared.len()).filter(|&j| j != own && weights[j] > 0.0).map(|j| form.distance(squared[j]).0);
    others.fold(f64::INFINITY, |least, other| if other < least || other.is_nan() { other } else { least })
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::{
        super::support::{assert_gradients, gradients, normal, scalar, values},
        CenterForm::*,
        *,
    };

    fn tensor<const N: usize>(rows: &[[f64; 2]; N]) -> Tensor {
        Tensor::new(rows, &Device::Cpu).unwrap()
    }

    #[test]
    fn values_by_hand() {
        // Squared distances to the centres: 25, 0, 1; 0, 25, 20; the second has class 0, the first class 2.
        let features = tensor(&[[3.0, 4.0], [0.0, 0.0]]);
        let centers = tensor(&[[0.0, 0.0], [3.0, 4.0], [4.0, 4.0]]);
        let loss = |labels: [u32; 2], form| values(&triplet_center(&features, &centers, &labels, 6.0, form).unwrap());
        assert_eq!(loss([2, 0], Paper), [0.5 + 6.0 - 0.0, 0.0]);
        // Class 1 is absent: the other centre of the first is that of class 0.
        assert_eq!(loss([2, 0], Released), [1.0 + 6.0 - 5.0, 1e-6 + 6.0 - 32f64.sqrt()]);
        assert_eq!(loss([0, 1], Released), [5.0 + 6.0 - 1e-6, 5.0 + 6.0 - 1e-6]);
        let nearest = |labels: [u32; 2], form| own_center_nearest(&features, &centers, &labels, form).unwrap();
        assert_eq!([Paper, Released].map(|form| nearest([2, 0], form)), [0.5, 1.0]);
        assert_eq!([Paper, Released].map(|form| nearest([0, 1], form)), [0.0, 0.0]);
    }

    #[test]
    fn gradients_are_those_of_finite_differences_and_of_the_closed_form() {
        let (f, c, labels) = (normal("f", 6, 3), normal("c", 4, 3), [0, 3, 1, 1, 0, 3]);
        let weights = normal("w", 1, 6).squeeze(0).unwrap();
        for form in [Paper, Released] {
            for margin in [0.5, 5.0] {
                assert_gradients(&[f.clone(), c.clone()], |at| {
                    let rows = triplet_center(&at[0], &at[1], &labels, margin, form).unwrap();
                    (rows * &weights).unwrap().sum_all().unwrap()
                });
            }
        }
        // df_i = c_j - c_y with j the nearest other centre.
        let sum = |at: &[Tensor]| triplet_center(&at[0], &at[1], &labels, 100.0, Paper).unwrap().sum_all().unwrap();
        let df = &gradients(&[f.clone(), c.clone()], sum)[0];
        let (f, c) = (f.to_vec2::<f64>().unwrap(), c.to_vec2::<f64>().unwrap());
        let far = |i: usize, j: usize| f[i].iter().zip(&c[j]).map(|(f, c)| (f - c).powi(2)).sum::<f64>();
        for (i, &own) in labels.iter().enumerate() {
            let others = (0..4).filter(|&j| j != own as usize);
            let j = others.min_by(|&a, &b| far(i, a).total_cmp(&far(i, b))).unwrap();
            for k in 0..3 {
                assert!((df[i * 3 + k] - (c[j][k] - c[own as usize][k])).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn collapsed_centers_cost_the_margin_and_equal_minima_share_a_gradient_of_one() {
        let f = normal("f", 1, 2).broadcast_as((5, 2)).unwrap().contiguous().unwrap();
        let labels = [0, 1, 2, 2, 2];
        for form in [Paper, Released] {
            let rows =
                triplet_center(&f, &normal("c", 1, 2).broadcast_as((3, 2)).unwrap(), &labels, 0.7, form).unwrap();
            assert!(values(&rows).iter().all(|row| (row - 0.7).abs() < 1e-12));
        }
        // Feature 0 at distance 5 of both other centres; one feature of the batch has class 1, three have class 2.
        let at = [tensor(&[[0.0, 0.0]; 5]), tensor(&[[1.0, 0.0], [3.0, 4.0], [-3.0, 4.0]])];
        for (form, first, second) in [(Paper, 1.0, 0.0), (Released, 0.25 / 5.0, 0.75 / 5.0)] {
            let loss = |at: &[Tensor]| triplet_center(&at[0], &at[1], &labels, 20.0, form).unwrap().get(0).unwrap();
            let dc = &gradients(&at, loss)[1];
            let expected = [1.0, 0.0, -3.0 * first, -4.0 * first, 3.0 * second, -4.0 * second];
            assert!(dc.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{dc:?}");
        }
    }

    #[test]
    fn single_precision_and_nan() {
        let (f, c) = (normal("f", 6, 3), normal("c", 4, 3));
        let single = |x: &Tensor| x.to_dtype(DType::F32).unwrap();
        let labels = [0, 3, 1, 1, 0, 3];
        for form in [Paper, Released] {
            let exact = triplet_center(&f, &c, &labels, 1.0, form).unwrap().sum_all().unwrap();
            let rows = triplet_center(&single(&f), &single(&c), &labels, 1.0, form).unwrap();
            assert!((scalar(&rows.sum_all().unwrap()) - scalar(&exact)).abs() < 1e-5);
            let rows = triplet_center(&f, &(&c / 0.0).unwrap().sub(&(&c / 0.0).unwrap()).unwrap(), &labels, 1.0, form);
            assert!(values(&rows.unwrap()).iter().all(|row| row.is_nan()));
        }
    }

    #[test]
    fn a_batch_of_one_class_is_an_error_of_the_released_form_only() {
        let (f, c) = (normal("f", 2, 3), normal("c", 4, 3));
        let error = |labels: &[u32], centers: &Tensor, form| {
            triplet_center(&f, centers, labels, 1.0, form).unwrap_err().to_string()
        };
        assert!(triplet_center(&f, &c, &[1, 1], 1.0, Paper).is_ok());
        assert!(error(&[1, 1], &c, Released).contains("at least 2 classes in the batch, found 1"));
        assert!(error(&[0, 0], &c.narrow(0, 0, 1).unwrap(), Paper).contains("at least 2 classes, found 1"));
        assert!(error(&[0, 4], &c, Paper).contains("below 4, found 4"));
        assert!(error(&[0], &c, Paper).contains("expected 2 labels, found 1"));
        assert!(error(&[0, 1], &normal("c", 4, 2), Paper).contains("[2, 3] and [4, 2]"));
    }
}
