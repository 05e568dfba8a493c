//! Dropout whose mask is drawn once and kept, for large tensors: a quarter of a draw a value, and one pass over the values.

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Shape, Tensor};
use xmbench_datasets::random::Stream;

use super::real::{Real, contiguous, dispatch, with, zipped};
use crate::Result;

/// A draw decides by that many of its bits.
const BITS: u32 = 16;

/// Which values stay, and what they are multiplied by so that the mean stays too.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    /// 1 for a value that stays, else 0.
    keep: Vec<u8>,
    scale: f64,
}

impl Kept {
    /// Drops each of `n` values with probability `share`, rounded to a multiple of `2^-16`. Four values come from one draw.
    pub fn draw(n: usize, share: f64, stream: &mut Stream) -> Self {
        let below = (share * f64::from(1u32 << BITS)).round();
        let threshold = below as u64;
        let mut keep = vec![0; n.next_multiple_of(4)];
        for four in keep.chunks_exact_mut(4) {
            let bits = stream.bits();
            for (keep, part) in four.iter_mut().zip(0..) {
                *keep = u8::from((bits >> (BITS * part)) & 0xffff >= threshold);
            }
        }
        keep.truncate(n);
        Self { keep, scale: 1.0 / (1.0 - below / f64::from(1u32 << BITS)) }
    }

    /// The factors of some values.
    pub fn range(&self, range: std::ops::Range<usize>) -> &[u8] {
        &self.keep[range]
    }

    /// What a value that stays is multiplied by.
    pub fn scale<T: Real>(&self) -> T {
        T::from_f64(self.scale)
    }

    /// The factor of each value, in a shape.
    pub fn factors(&self, like: &Tensor) -> Result<Tensor> {
        let factors: Vec<f32> = self.keep.iter().map(|&keep| f32::from(keep) * self.scale as f32).collect();
        Ok(Tensor::from_vec(factors, like.shape(), &Device::Cpu)?.to_dtype(like.dtype())?.to_device(like.device())?)
    }

    /// The values under the mask, which has as many.
    pub fn apply<T: Real>(&self, x: &[T]) -> Vec<T> {
        let scale = self.scale::<T>();
        // Not a product: a value that is dropped may be infinite.
        zipped(x, &self.keep, |x, keep| if keep == 0 { T::ZERO } else { x * scale })
    }
}

/// `x` with each value dropped with probability `share`, the others scaled by `1 / (1 - share)`; `x` itself without a stream.
///
/// # Errors
/// If a tensor operation fails.
pub(super) fn dropped(x: &Tensor, share: f64, training: Option<&mut Stream>) -> Result<Tensor> {
    match training {
        Some(stream) if share > 0.0 => {
            let kept = Kept::draw(x.elem_count(), share, stream);
            match x.device().is_cpu() {
                true => Ok(x.contiguous()?.apply_op1(Dropped(kept))?),
                false => Ok((x * kept.factors(x)?)?),
            }
        }
        _ => Ok(x.clone()),
    }
}

struct Dropped(Kept);

impl CustomOp1 for Dropped {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let y = match x {
            CpuStorage::F32(x) => CpuStorage::F32(self.0.apply(contiguous(x, layout)?)),
            CpuStorage::F64(x) => CpuStorage::F64(self.0.apply(contiguous(x, layout)?)),
            _ => candle_core::bail!("dropout: expected f32 or f64"),
        };
        Ok((y, layout.shape().clone()))
    }

    fn bwd(&self, _x: &Tensor, _y: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        dispatch!(grad.dtype(), T => {
            let dx = with::<T, _>(&grad, |grad| Ok(self.0.apply(grad)))?;
            Ok(Some(Tensor::from_vec(dx, grad.shape(), &Device::Cpu)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Var};
    use xmbench_datasets::random::Seed;

    use super::*;

    #[test]
    fn values_and_gradients_are_dropped_alike_and_the_mean_stays() {
        let x = Var::ones(40_001, DType::F64, &Device::Cpu).unwrap();
        let y = dropped(&x, 0.25, Some(&mut Seed(1).stream(&["drop"]))).unwrap();
        let values = y.to_vec1::<f64>().unwrap();
        let zeros = values.iter().filter(|&&value| value == 0.0).count() as f64 / 40_001.0;
        // The deviation of the share is sqrt(0.25 * 0.75 / 40,001) = 0.0022.
        assert!((zeros - 0.25).abs() < 0.009, "{zeros}");
        assert!(values.iter().all(|&value| value == 0.0 || value == 4.0 / 3.0));
        let grads = y.sum_all().unwrap().backward().unwrap();
        assert_eq!(grads.get(&x).unwrap().to_vec1::<f64>().unwrap(), values);
        // Neighbours, which come from one draw, do not hang together.
        let both = values.chunks_exact(4).filter(|four| four[0] == 0.0 && four[1] == 0.0).count() as f64 / 10_000.0;
        assert!((both - 0.0625).abs() < 0.01, "{both}");
        let same = dropped(&x, 0.25, None).unwrap();
        assert!(same.to_vec1::<f64>().unwrap().iter().all(|&value| value == 1.0));
    }
}
