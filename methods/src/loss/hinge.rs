//! The bidirectional hinge on a matrix of scores whose diagonal holds the matching pairs, summed over the batch.
//!
//! With `c_ij = [margin + s_ij - s_ii]+` (the wrong texts of image i), `e_ij = [margin + s_ij - s_jj]+` (the wrong images of
//! text j) and zeros on both diagonals:
//!
//! ```text
//! sum of hinges   sum_ij c_ij + sum_ij e_ij                  (1)
//! max of hinges   sum_i max_j c_ij + sum_j max_i e_ij        (2)
//! ```
//!
//! Of equal maxima the first counts, and only there is a gradient; at exactly 0 there is none.

use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Shape, Tensor};

use crate::{
    Error, Result,
    nn::real::{Real, contiguous, dispatch, with},
};

/// The hinge loss of `scores [b, b]`, rows images and columns texts; equation (2) if `hardest`, else (1). A scalar.
///
/// # Errors
/// If the matrix is not square.
pub fn hinge(scores: &Tensor, margin: f64, hardest: bool) -> Result<Tensor> {
    hinge_except(scores, margin, hardest, &[])
}

/// [`hinge`] without some negatives: entry `i * b + j` of `except` is true where image `i` and text `j` belong together
/// although they are not a pair of the batch (two texts of one image). An empty slice excepts nothing.
///
/// # Errors
/// If the matrix is not square, or `except` is neither empty nor of its size.
pub fn hinge_except(scores: &Tensor, margin: f64, hardest: bool, except: &[bool]) -> Result<Tensor> {
    let size = match *scores.dims() {
        [rows, columns] if rows == columns => rows,
        ref other => {
            return Err(Error::Numeric(format!("hinge loss: expected a square score matrix, found {other:?}")));
        }
    };
    if !except.is_empty() && except.len() != size * size {
        return Err(Error::Numeric(format!("hinge loss: {} exceptions for a batch of {size}", except.len())));
    }
    // The matrix is small: on a device it is fetched and only the scalar goes back.
    let local = scores.to_device(&Device::Cpu)?.contiguous()?;
    let loss = local.apply_op1(Hinge { margin, hardest, except: except.into() })?;
    Ok(loss.to_device(scores.device())?)
}

struct Hinge {
    margin: f64,
    hardest: bool,
    except: Box<[bool]>,
}

impl Hinge {
    /// Calls `visit(value, i, j, d)` for each term above zero that counts: its value rises with `s_ij` and falls with `s_dd`.
    fn terms<T: Real>(&self, s: &[T], b: usize, mut visit: impl FnMut(T, usize, usize, usize)) {
        let margin = T::from_f64(self.margin);
        let texts_of = |i: usize, j: usize| (i, j);
        let images_of = |i: usize, j: usize| (j, i);
        for place in [texts_of as fn(usize, usize) -> (usize, usize), images_of] {
            for query in 0..b {
                let own = s[query * b + query];
                let mut hardest: Option<(T, usize)> = None;
                for other in (0..b).filter(|&other| other != query) {
                    let (i, j) = place(query, other);
                    if self.except.get(i * b + j).copied().unwrap_or(false) {
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
            assert!((value(&hinge(&collapsed, 0.2, false).unwrap()) / all - 1.0).abs() < 1e-6);
            assert!((value(&hinge(&collapsed, 0.2, true).unwrap()) / hardest - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn values_and_gradients_by_hand() {
        // c: row 0: .5 + .4 - 1 < 0, .5 + .8 - 1 = .3; row 1: .5 + .1 - .2 = .4, .5 + 0 - .2 = .3; row 2: 0, 0.
        // e: column 0: 0, 0; column 1: .5 + .4 - .2 = .7, .5 + .3 - .2 = .6; column 2: .5 + .8 - .9 = .4, 0.
        let s = scores(&[[1.0, 0.4, 0.8], [0.1, 0.2, 0.0], [0.2, 0.3, 0.9]]);
        let all = hinge(&s, 0.5, false).unwrap();
        assert!((value(&all) - (0.3 + 0.4 + 0.3 + 0.7 + 0.6 + 0.4)).abs() < 1e-12);
        let hardest = hinge(&s, 0.5, true).unwrap();
        assert!((value(&hardest) - (0.3 + 0.4 + 0.7 + 0.4)).abs() < 1e-12);
        let grad = hardest.backward().unwrap().get(&s).unwrap().to_vec2::<f64>().unwrap();
        assert_eq!(grad, [[-1.0, 1.0, 2.0], [1.0, -2.0, 0.0], [0.0, 0.0, -1.0]]);
        // Without (1, 0) and (0, 1): row 1 falls back to .3, column 1 to .6.
        let except = [false, true, false, true, false, false, false, false, false];
        let masked = hinge_except(&s, 0.5, true, &except).unwrap();
        assert!((value(&masked) - (0.3 + 0.3 + 0.6 + 0.4)).abs() < 1e-12);
    }

    #[test]
    fn of_equal_maxima_the_first_gets_the_gradient() {
        let s = scores(&[[0.0; 3]; 3]);
        let grad = hinge(&s, 1.0, true).unwrap().backward().unwrap().get(&s).unwrap().to_vec2::<f64>().unwrap();
        assert_eq!(grad, [[-2.0, 2.0, 1.0], [2.0, -2.0, 0.0], [1.0, 0.0, -2.0]]);
    }

    #[test]
    fn one_pair_has_no_negatives_and_nan_is_not_hidden() {
        let one = Tensor::new(&[[5.0f32]], &Device::Cpu).unwrap();
        assert_eq!(value(&hinge(&one, 0.2, true).unwrap()), 0.0);
        let s = scores(&[[1.0, f64::NAN, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]);
        assert!(value(&hinge(&s, 0.2, true).unwrap()).is_nan() && value(&hinge(&s, 0.2, false).unwrap()).is_nan());
        assert!(hinge(&Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap(), 0.2, true).is_err());
    }
}
