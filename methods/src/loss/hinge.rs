//! The bidirectional hinge on a matrix of scores whose diagonal holds the matching pairs, summed over the batch.
//!
//! With `c_ij = [margin + s_ij - s_ii]+` (the wrong texts of image i) and `e_ij = [margin + s_ij - s_jj]+` (the wrong images of
//! text j) over the negatives `(i, j)`:
//!
//! ```text
//! sum of hinges   sum_ij c_ij + sum_ij e_ij                  (1)
//! max of hinges   sum_i max_j c_ij + sum_j max_i e_ij        (2)
//! ```
//!
//! The diagonal, other positives and what is ignored take no part: two texts of one image are no negatives of each other.
//! Of equal maxima the first counts, and only there is a gradient; at exactly 0 there is none.

use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Shape, Tensor};

use super::{Relation, Relations};
use crate::{
    Result,
    nn::real::{Real, contiguous, dispatch, with},
};

/// The hinge loss of `scores [b, b]`, rows images and columns texts; equation (2) if `hardest`, else (1). A scalar.
///
/// # Errors
/// If the matrix is not square, of another shape than the relations, or has an entry on its diagonal that is no positive.
pub fn hinge(scores: &Tensor, margin: f64, hardest: bool, relations: &Relations) -> Result<Tensor> {
    relations.fit_pairs("hinge loss", scores)?;
    // The matrix is small: on a device it is fetched and only the scalar goes back.
    let local = scores.to_device(&Device::Cpu)?.contiguous()?;
    let loss = local.apply_op1(Hinge { margin, hardest, relations: relations.clone() })?;
    Ok(loss.to_device(scores.device())?)
}

struct Hinge {
    margin: f64,
    hardest: bool,
    relations: Relations,
}

impl Hinge {
    /// Calls `visit(value, i, j, d)` for each term above zero that counts: its value rises with `s_ij` and falls with `s_dd`.
    fn terms<T: Real>(&self, s: &[T], b: usize, mut visit: impl FnMut(T, usize, usize, usize)) {
        self.terms_of(s, b, |image, text| (image, text), &mut visit);
        self.terms_of(s, b, |text, image| (image, text), &mut visit);
    }

    /// One direction of [`Hinge::terms`]; `place` is the entry of a query and what it is compared with.
    fn terms_of<T: Real>(
        &self,
        s: &[T],
        b: usize,
        place: impl Fn(usize, usize) -> (usize, usize),
        visit: &mut impl FnMut(T, usize, usize, usize),
    ) {
        let (margin, relations) = (T::from_f64(self.margin), self.relations.entries());
        for query in 0..b {
            let own = s[query * b + query];
            let mut hardest: Option<(T, usize)> = None;
            for other in 0..b {
                let (i, j) = place(query, other);
                if relations[i * b + j] != Relation::Negative {
                    continue;
                }
                let cost = margin + s[i * b + j] - own;
                // Written so that NaN is not lost: it must reach the loss.
                if cost <= T::ZERO {
                    continue;
                }
                if !self.hardest {
                    visit(cost, i, j, query);
                } else if hardest.is_none_or(|(most, _)| cost > most || cost.to_f64().is_nan()) {
                    hardest = Some((cost, other));
                }
            }
            if let Some((cost, other)) = hardest {
                let (i, j) = place(query, other);
                visit(cost, i, j, query);
            }
        }
    }

    fn forward<T: Real>(&self, s: &[T], b: usize) -> T {
        let mut sum = 0.0;
        self.terms(s, b, |cost, _, _, _| sum += cost.to_f64());
        T::from_f64(sum)
    }
}

impl CustomOp1 for Hinge {
    fn name(&self) -> &'static str {
        "hinge"
    }

    fn cpu_fwd(&self, scores: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let b = layout.dims()[0];
        let loss = match scores {
            CpuStorage::F32(s) => CpuStorage::F32(vec![self.forward(contiguous(s, layout)?, b)]),
            CpuStorage::F64(s) => CpuStorage::F64(vec![self.forward(contiguous(s, layout)?, b)]),
            _ => candle_core::bail!("hinge loss: expected f32 or f64"),
        };
        Ok((loss, Shape::from(())))
    }

    fn bwd(&self, scores: &Tensor, _loss: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let (b, scores) = (scores.dim(0)?, scores.contiguous()?);
        let g = grad.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        dispatch!(scores.dtype(), T => {
            let mut ds = vec![0f64; b * b];
            with::<T, _>(&scores, |s| {
                self.terms(s, b, |_, i, j, d| {
                    ds[i * b + j] += g;
                    ds[d * b + d] -= g;
                });
                Ok(())
            })?;
            let ds: Vec<T> = ds.into_iter().map(<T as candle_core::WithDType>::from_f64).collect();
            Ok(Some(Tensor::from_vec(ds, (b, b), &Device::Cpu)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;

    fn scores(values: &[[f64; 3]; 3]) -> Var {
        Var::new(values, &Device::Cpu).unwrap()
    }

    fn value(loss: &Tensor) -> f64 {
        loss.to_dtype(DType::F64).unwrap().to_scalar().unwrap()
    }

    #[test]
    fn a_collapsed_model_has_the_loss_of_the_closed_form() {
        // All scores equal: every hinge is the margin.
        for b in [2usize, 7, 128] {
            let collapsed = Tensor::full(0.3f32, (b, b), &Device::Cpu).unwrap();
            let (all, hardest) = (2.0 * (b * (b - 1)) as f64 * 0.2, 2.0 * b as f64 * 0.2);
            let pairs = Relations::diagonal(b);
            assert!((value(&hinge(&collapsed, 0.2, false, &pairs).unwrap()) / all - 1.0).abs() < 1e-6);
            assert!((value(&hinge(&collapsed, 0.2, true, &pairs).unwrap()) / hardest - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn values_and_gradients_by_hand() {
        // c: row 0: .5 + .4 - 1 < 0, .5 + .8 - 1 = .3; row 1: .5 + .1 - .2 = .4, .5 + 0 - .2 = .3; row 2: 0, 0.
        // e: column 0: 0, 0; column 1: .5 + .4 - .2 = .7, .5 + .3 - .2 = .6; column 2: .5 + .8 - .9 = .4, 0.
        let s = scores(&[[1.0, 0.4, 0.8], [0.1, 0.2, 0.0], [0.2, 0.3, 0.9]]);
        let all = hinge(&s, 0.5, false, &Relations::diagonal(3)).unwrap();
        assert!((value(&all) - (0.3 + 0.4 + 0.3 + 0.7 + 0.6 + 0.4)).abs() < 1e-12);
        let hardest = hinge(&s, 0.5, true, &Relations::diagonal(3)).unwrap();
        assert!((value(&hardest) - (0.3 + 0.4 + 0.7 + 0.4)).abs() < 1e-12);
        let grad = hardest.backward().unwrap().get(&s).unwrap().to_vec2::<f64>().unwrap();
        assert_eq!(grad, [[-1.0, 1.0, 2.0], [1.0, -2.0, 0.0], [0.0, 0.0, -1.0]]);
        // Without (1, 0) and (0, 1): row 1 falls back to .3, column 1 to .6.
        for kind in [Relation::Ignored, Relation::Positive] {
            let relations = Relations::new(3, 3, |i, j| match (i, j) {
                (1, 0) | (0, 1) => kind,
                _ if i == j => Relation::Positive,
                _ => Relation::Negative,
            });
            let masked = hinge(&s, 0.5, true, &relations).unwrap();
            assert!((value(&masked) - (0.3 + 0.3 + 0.6 + 0.4)).abs() < 1e-12);
        }
    }

    #[test]
    fn of_equal_maxima_the_first_gets_the_gradient() {
        let s = scores(&[[0.0; 3]; 3]);
        let grad = hinge(&s, 1.0, true, &Relations::diagonal(3))
            .unwrap()
            .backward()
            .unwrap()
            .get(&s)
            .unwrap()
            .to_vec2::<f64>()
            .unwrap();
        assert_eq!(grad, [[-2.0, 2.0, 1.0], [2.0, -2.0, 0.0], [1.0, 0.0, -2.0]]);
    }

    #[test]
    fn one_pair_has_no_negatives_and_nan_is_not_hidden() {
        let one = Tensor::new(&[[5.0f32]], &Device::Cpu).unwrap();
        assert_eq!(value(&hinge(&one, 0.2, true, &Relations::diagonal(1)).unwrap()), 0.0);
        let s = scores(&[[1.0, f64::NAN, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]);
        for hardest in [true, false] {
            assert!(value(&hinge(&s, 0.2, hardest, &Relations::diagonal(3)).unwrap()).is_nan());
            // Where it takes no part, it is not looked at.
            let relations = Relations::new(3, 3, |i, j| match (i, j) {
                (0, 1) => Relation::Ignored,
                _ if i == j => Relation::Positive,
                _ => Relation::Negative,
            });
            assert_eq!(value(&hinge(&s, 0.2, hardest, &relations).unwrap()), 0.0);
        }
    }

    #[test]
    fn what_is_no_batch_of_pairs_is_an_error() {
        let zeros = Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
        let error = |relations: &Relations| hinge(&zeros, 0.2, true, relations).unwrap_err().to_string();
        assert!(
            error(&Relations::diagonal(2)).contains("hinge loss: expected a matrix of the relations' shape [2, 2]")
        );
        assert!(error(&Relations::new(2, 3, |_, _| Relation::Positive)).contains("found 2 and 3"));
        let zeros = Tensor::zeros((2, 2), DType::F32, &Device::Cpu).unwrap();
        let none = Relations::new(2, 2, |i, _| if i == 0 { Relation::Positive } else { Relation::Ignored });
        let error = hinge(&zeros, 0.2, true, &none).unwrap_err().to_string();
        assert!(error.contains("expected positives on the diagonal, found Ignored at 1"), "{error}");
    }
}
