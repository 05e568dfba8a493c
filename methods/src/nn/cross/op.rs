//! Scores of a batch as one operation with a gradient.

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Shape, Storage, Tensor, WithDType};

use super::{Contexts, CrossAttention, Direction, Real, Stack, composed_scores, gradients, scores};
use crate::{Error, Result, nn::Lengths};

/// Scores of every image of a batch against every text, `[images, texts]`.
///
/// `images` is `[images, regions, d]`; `words` is `[total, d]`, the words of all texts one after another without padding
/// ([`Lengths::unpad`] drops padding, whatever stands there). Both are f32 or f64. On the CPU this is one operation that
/// keeps nothing but its inputs; elsewhere it is composed of tensor operations ([`composed_scores`]).
///
/// # Errors
/// Shapes that do not fit each other or the lengths.
pub fn batch_scores(settings: &CrossAttention, images: &Tensor, words: &Tensor, lengths: &Lengths) -> Result<Tensor> {
    check(images, words, lengths)?;
    if !images.device().is_cpu() {
        return composed_scores(settings, images, words, lengths);
    }
    let offsets = std::iter::once(0).chain((0..lengths.len()).map(|j| lengths.range(j).end)).collect();
    Ok(images.contiguous()?.apply_op2(&words.contiguous()?, Scores { settings: *settings, offsets })?)
}

/// The errors of [`batch_scores`].
pub(super) fn check(images: &Tensor, words: &Tensor, lengths: &Lengths) -> Result<()> {
    let ((_, regions, d), (total, e)) = (images.dims3()?, words.dims2()?);
    if d != e || regions == 0 || d == 0 {
        return Err(Error::Numeric(format!(
            "cross attention: expected regions and words of one width, found {:?} and {:?}",
            images.dims(),
            words.dims()
        )));
    }
    if images.dtype() != words.dtype() {
        let (images, words) = (images.dtype(), words.dtype());
        return Err(Error::Numeric(format!("cross attention: expected one type, found {images:?} and {words:?}")));
    }
    if total != lengths.total() {
        return Err(Error::Numeric(format!(
            "cross attention: {} texts have {} words together, found {total}",
            lengths.len(),
            lengths.total()
        )));
    }
    Ok(())
}

struct Scores {
    settings: CrossAttention,
    offsets: Vec<usize>,
}

fn values<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&T::cpu_storage_as_slice(storage)?[start..end]),
        None => candle_core::bail!("cross attention: expected contiguous tensors"),
    }
}

fn transposed<T: Copy>(values: &[T], rows: usize, cols: usize) -> Vec<T> {
    (0..cols).flat_map(|j| (0..rows).map(move |i| values[i * cols + j])).collect()
}

impl Scores {
    fn forward<T: Real>(
        &self,
        images: &CpuStorage,
        of: &Layout,
        words: &CpuStorage,
        shape: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (rows, regions, dim) = of.shape().dims3()?;
        let offsets: Vec<usize> = (0..=rows).map(|i| i * regions).collect();
        let images = Stack { dim, offsets: &offsets, data: values::<T>(images, of)? };
        let words = Stack { dim, offsets: &self.offsets, data: values::<T>(words, shape)? };
        let found = match self.settings.direction {
            Direction::T2i => scores(&self.settings, Contexts::Gram, images, words),
            Direction::I2t => {
                transposed(&scores(&self.settings, Contexts::Gram, words, images), words.items(), images.items())
            }
        };
        Ok((T::to_cpu_storage_owned(found), Shape::from((rows, words.items()))))
    }

    fn backward<T: Real>(
        &self,
        images: &Tensor,
        words: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Tensor, Tensor)> {
        let grad = grad.flatten_all()?.to_vec1::<T>()?;
        let (rows, regions, dim) = images.dims3()?;
        let offsets: Vec<usize> = (0..=rows).map(|i| i * regions).collect();
        let (images_grad, words_grad) = {
            let ((stored, of), (other, shape)) = (images.storage_and_layout(), words.storage_and_layout());
            let (Storage::Cpu(stored), Storage::Cpu(other)) = (&*stored, &*other) else {
                candle_core::bail!("cross attention: expected tensors on the CPU");
            };
            let images = Stack { dim, offsets: &offsets, data: values::<T>(stored, of)? };
            let words = Stack { dim, offsets: &self.offsets, data: values::<T>(other, shape)? };
            match self.settings.direction {
                Direction::T2i => gradients(&self.settings, images, words, &grad),
                Direction::I2t => {
                    let grad = transposed(&grad, images.items(), words.items());
                    let (words, images) = gradients(&self.settings, words, images, &grad);
                    (images, words)
                }
            }
        };
        let device = images.device();
        Ok((
            Tensor::from_vec(images_grad, images.shape(), device)?,
            Tensor::from_vec(words_grad, words.shape(), device)?,
        ))
    }
}

impl CustomOp2 for Scores {
    fn name(&self) -> &'static str {
        "stacked-cross-attention"
    }

    fn cpu_fwd(
        &self,
        images: &CpuStorage,
        of: &Layout,
        words: &CpuStorage,
        shape: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        match images {
            CpuStorage::F32(_) => self.forward::<f32>(images, of, words, shape),
            CpuStorage::F64(_) => self.forward::<f64>(images, of, words, shape),
            _ => candle_core::bail!("cross attention: expected f32 or f64"),
        }
    }

    fn bwd(
        &self,
        images: &Tensor,
        words: &Tensor,
        _scores: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let (images, words) = match images.dtype() {
            DType::F64 => self.backward::<f64>(images, words, grad)?,
            _ => self.backward::<f32>(images, words, grad)?,
        };
        Ok((Some(images), Some(words)))
    }
}
