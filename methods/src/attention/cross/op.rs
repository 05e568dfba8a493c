//! Scores of a batch as one operation with a gradient.

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Shape, Storage, Tensor, WithDType};

use super::{Contexts, CrossAttention, Direction, Real, Stack, composed_scores, gradients, scores};

/// Scores of every image of a batch against every text, `[images, texts]`.
///
/// `images` is `[images, regions, d]`, `words` is `[texts, longest, d]` of which the first `lengths[j]` are text `j`'s; what
/// lies behind them is never read and gets no gradient. Both are f32 or f64. On the CPU this is one operation that keeps
/// nothing but its inputs; elsewhere it is composed of tensor operations ([`composed_scores`]).
///
/// # Errors
/// Shapes that do not fit each other or the lengths.
pub fn batch_scores(
    settings: &CrossAttention,
    images: &Tensor,
    words: &Tensor,
    lengths: &[usize],
) -> candle_core::Result<Tensor> {
    check(images, words, lengths)?;
    if images.device().is_cpu() {
        let op = Scores { settings: *settings, lengths: lengths.to_vec() };
        images.contiguous()?.apply_op2(&words.contiguous()?, op)
    } else {
        composed_scores(settings, images, words, lengths)
    }
}

/// The errors of [`batch_scores`].
pub(super) fn check(images: &Tensor, words: &Tensor, lengths: &[usize]) -> candle_core::Result<()> {
    let ((_, regions, d), (texts, longest, e)) = (images.dims3()?, words.dims3()?);
    if d != e || regions == 0 {
        candle_core::bail!(
            "cross attention: expected regions and words of one width, found [_, {regions}, {d}] and [_, _, {e}]"
        );
    }
    if images.dtype() != words.dtype() {
        candle_core::bail!("cross attention: expected one type, found {:?} and {:?}", images.dtype(), words.dtype());
    }
    if lengths.len() != texts {
        candle_core::bail!("cross attention: expected one length for each of {texts} texts, found {}", lengths.len());
    }
    match lengths.iter().position(|&n| n == 0 || n > longest) {
        Some(j) => {
            candle_core::bail!("cross attention: expected text {j} to have 1 to {longest} words, found {}", lengths[j])
        }
        None => Ok(()),
    }
}

struct Scores {
    settings: CrossAttention,
    lengths: Vec<usize>,
}

/// Images and words without padding.
struct Batch<T> {
    dim: usize,
    regions: Vec<usize>,
    images: Vec<T>,
    offsets: Vec<usize>,
    words: Vec<T>,
}

impl<T: Real> Batch<T> {
    fn contexts_and_queries(&self, direction: Direction) -> (Stack<'_, T>, Stack<'_, T>) {
        let images = Stack { dim: self.dim, offsets: &self.regions, data: &self.images };
        let words = Stack { dim: self.dim, offsets: &self.offsets, data: &self.words };
        match direction {
            Direction::T2i => (images, words),
            Direction::I2t => (words, images),
        }
    }
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
    fn batch<T: Real>(&self, images: &[T], of: &Layout, words: &[T], shape: &Layout) -> candle_core::Result<Batch<T>> {
        let ((items, regions, dim), (_, longest, _)) = (of.shape().dims3()?, shape.shape().dims3()?);
        let mut offsets = vec![0];
        let mut packed = Vec::with_capacity(self.lengths.iter().sum::<usize>() * dim);
        for (text, &n) in words.chunks_exact(longest * dim).zip(&self.lengths) {
            packed.extend_from_slice(&text[..n * dim]);
            offsets.push(packed.len() / dim);
        }
        let regions = (0..=items).map(|i| i * regions).collect();
        Ok(Batch { dim, regions, images: images.to_vec(), offsets, words: packed })
    }

    fn forward<T: Real>(
        &self,
        images: &CpuStorage,
        of: &Layout,
        words: &CpuStorage,
        shape: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let batch = self.batch::<T>(values(images, of)?, of, values(words, shape)?, shape)?;
        let (contexts, queries) = batch.contexts_and_queries(self.settings.direction);
        let found = scores(&self.settings, Contexts::Gram, contexts, queries);
        let (rows, cols) = (batch.regions.len() - 1, self.lengths.len());
        let found = match self.settings.direction {
            Direction::T2i => found,
            Direction::I2t => transposed(&found, cols, rows),
        };
        Ok((T::to_cpu_storage_owned(found), Shape::from((rows, cols))))
    }

    fn backward<T: Real>(
        &self,
        images: &Tensor,
        words: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Tensor, Tensor)> {
        let grad = grad.flatten_all()?.to_vec1::<T>()?;
        let batch = {
            let ((stored, of), (other, shape)) = (images.storage_and_layout(), words.storage_and_layout());
            let (Storage::Cpu(stored), Storage::Cpu(other)) = (&*stored, &*other) else {
                candle_core::bail!("cross attention: expected tensors on the CPU");
            };
            self.batch::<T>(values(stored, of)?, of, values(other, shape)?, shape)?
        };
        let (contexts, queries) = batch.contexts_and_queries(self.settings.direction);
        let (images_grad, packed_grad) = match self.settings.direction {
            Direction::T2i => gradients(&self.settings, contexts, queries, &grad),
            Direction::I2t => {
                let grad = transposed(&grad, batch.regions.len() - 1, self.lengths.len());
                let (words, images) = gradients(&self.settings, contexts, queries, &grad);
                (images, words)
            }
        };
        let (texts, longest, dim) = words.dims3()?;
        let mut words_grad = vec![T::ZERO; texts * longest * dim];
        for (j, span) in batch.offsets.windows(2).enumerate() {
            let own = &packed_grad[span[0] * dim..span[1] * dim];
            words_grad[j * longest * dim..][..own.len()].copy_from_slice(own);
        }
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
