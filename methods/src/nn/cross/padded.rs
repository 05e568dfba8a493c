//! Items of a batch, padded to one number of vectors.

use std::ops::Range;

use candle_core::{D, Tensor};

use super::tensors::{floored_root, keep};
use crate::{Error, Result, nn::Lengths};

/// The items of one side of a batch with their vectors, `[items, most, d]`, and which of these are real.
#[derive(Debug, Clone)]
pub struct Padded {
    vectors: Tensor,
    /// `[items, most]`, 1 where there is a vector; nothing where all are real.
    real: Option<Tensor>,
}

impl Padded {
    /// Items of equally many vectors, `[items, vectors, d]`: all are real.
    ///
    /// # Errors
    /// If the tensor is of another rank, or an item has no vector.
    pub fn full(vectors: &Tensor) -> Result<Self> {
        match *vectors.dims() {
            [_, most, d] if most > 0 && d > 0 => Ok(Self { vectors: vectors.clone(), real: None }),
            ref other => Err(Error::Numeric(format!(
                "cross attention: expected [items, vectors, d] with vectors in every item, found {other:?}"
            ))),
        }
    }

    /// Items of some lengths in `[items, steps, d]`. What stands behind an item's end becomes zero, whatever it was: neither it
    /// nor its gradient reaches a result, even if it is not a number.
    ///
    /// # Errors
    /// If there is another number of items, or the longest does not fit.
    pub fn new(vectors: &Tensor, lengths: &Lengths) -> Result<Self> {
        let (items, steps, _) = vectors.dims3()?;
        if items != lengths.len() || steps < lengths.longest() {
            return Err(Error::Numeric(format!(
                "cross attention: {} items of up to {} vectors do not fit a tensor of shape {:?}",
                lengths.len(),
                lengths.longest(),
                vectors.dims()
            )));
        }
        let real = lengths.mask(steps, vectors.device())?;
        let vectors = keep(Some(&real.unsqueeze(2)?), vectors, 0.0)?;
        Ok(Self { vectors, real: Some(real) })
    }

    /// Items that lie one after another without padding, `[total, d]`.
    ///
    /// # Errors
    /// If there is another number of vectors.
    pub fn packed(vectors: &Tensor, lengths: &Lengths) -> Result<Self> {
        let most = lengths.longest();
        Ok(Self { vectors: lengths.pad(vectors, most)?, real: Some(lengths.mask(most, vectors.device())?) })
    }

    /// The vectors, `[items, most, d]`; zero where there is none.
    pub fn vectors(&self) -> &Tensor {
        &self.vectors
    }

    /// Which vectors there are to be seen where the items are contexts, `[items, 1, 1, most]`; nothing if all.
    ///
    /// # Errors
    /// If the tensor cannot be made.
    pub fn seen(&self) -> Result<Option<Tensor>> {
        self.real.as_ref().map(|real| Ok(real.unsqueeze(1)?.unsqueeze(1)?)).transpose()
    }

    /// Which vectors ask where the items are queries, `[1, items, most]`; nothing if all.
    ///
    /// # Errors
    /// If the tensor cannot be made.
    pub fn asked(&self) -> Result<Option<Tensor>> {
        self.real.as_ref().map(|real| Ok(real.unsqueeze(0)?)).transpose()
    }

    /// Other vectors in the places of these, `[items, most, e]`, such as a layer makes of them; zero where there is none.
    ///
    /// # Errors
    /// If there are not as many.
    pub fn with(&self, vectors: &Tensor) -> Result<Self> {
        let (items, most, _) = self.vectors.dims3()?;
        match *vectors.dims() {
            [n, m, _] if (n, m) == (items, most) => {
                let real = self.real.as_ref().map(|real| real.unsqueeze(2)).transpose()?;
                Ok(Self { vectors: keep(real.as_ref(), vectors, 0.0)?, real: self.real.clone() })
            }
            ref other => Err(Error::Numeric(format!(
                "cross attention: expected vectors [{items}, {most}, d] in place of others, found {other:?}"
            ))),
        }
    }

    /// Which vectors are real, `[items, most]`; nothing if all.
    pub fn real(&self) -> Option<&Tensor> {
        self.real.as_ref()
    }

    /// The first vector of every item, `[items, d]`, and the items without it.
    ///
    /// # Errors
    /// If no item has a second vector.
    pub fn parted(&self) -> Result<(Tensor, Self)> {
        let (items, most, d) = self.vectors.dims3()?;
        if most < 2 {
            return Err(Error::Numeric(format!(
                "cross attention: expected a vector of the whole item and at least one behind it, found {most} an item"
            )));
        }
        let first = self.vectors.narrow(1, 0, 1)?.reshape((items, d))?;
        let rest = |tensor: &Tensor| tensor.narrow(1, 1, most - 1)?.contiguous();
        Ok((first, Self { vectors: rest(&self.vectors)?, real: self.real.as_ref().map(rest).transpose()? }))
    }

    /// Some of the items, in their order.
    ///
    /// # Errors
    /// If there are not so many.
    pub fn narrow(&self, items: Range<usize>) -> Result<Self> {
        let part = |tensor: &Tensor| tensor.narrow(0, items.start, items.len())?.contiguous();
        Ok(Self { vectors: part(&self.vectors)?, real: self.real.as_ref().map(part).transpose()? })
    }

    /// The items at some positions, in their order.
    ///
    /// # Errors
    /// If there is no such position.
    pub fn select(&self, items: &Tensor) -> Result<Self> {
        let part = |tensor: &Tensor| tensor.index_select(items, 0);
        Ok(Self { vectors: part(&self.vectors)?, real: self.real.as_ref().map(part).transpose()? })
    }

    /// The length of every vector, `[items, most]`.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn norms(&self) -> Result<Tensor> {
        norms(&self.vectors)
    }

    /// The Gram matrix of every item, `[items, most, most]`.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn grams(&self) -> Result<Tensor> {
        Ok(self.vectors.matmul(&self.vectors.t()?)?)
    }
}

/// The length of every vector along the last dimension, which goes: those of [`Padded::norms`], or of queries that differ from
/// pair to pair.
///
/// # Errors
/// If a tensor operation fails.
pub fn norms(vectors: &Tensor) -> Result<Tensor> {
    floored_root(&vectors.sqr()?.sum(D::Minus1)?)
}
