use candle_core::{Device, Tensor};

use crate::{Error, Result};

/// The lengths of sequences that are kept one after another without padding, `[total, d]`: the rows of sequence `b` are
/// `range(b)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lengths {
    lengths: Vec<usize>,
    starts: Vec<usize>,
}

impl Lengths {
    /// The given lengths.
    ///
    /// # Errors
    /// If a sequence is empty: it has no last state and no mean.
    pub fn new(lengths: impl IntoIterator<Item = usize>) -> Result<Self> {
        let lengths: Vec<usize> = lengths.into_iter().collect();
        if let Some(b) = lengths.iter().position(|&length| length == 0) {
            return Err(Error::Numeric(format!(
                "sequence {b} of {} is empty, expected at least one element; drop empty captions from the dataset",
                lengths.len()
            )));
        }
        let starts = std::iter::once(0)
            .chain(lengths.iter().scan(0, |end, &length| {
                *end += length;
                Some(*end)
            }))
            .collect();
        Ok(Self { lengths, starts })
    }

    /// Number of sequences.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Length of each sequence.
    pub fn as_slice(&self) -> &[usize] {
        &self.lengths
    }

    /// Rows of all sequences together.
    pub fn total(&self) -> usize {
        self.starts[self.lengths.len()]
    }

    /// Length of the longest sequence; 0 without any.
    pub fn longest(&self) -> usize {
        self.lengths.iter().copied().max().unwrap_or(0)
    }

    /// The rows of a sequence.
    pub fn range(&self, sequence: usize) -> std::ops::Range<usize> {
        self.starts[sequence]..self.starts[sequence + 1]
    }

    /// `[total, d]` to `[len, steps, d]`, zero behind the end of a sequence.
    ///
    /// # Errors
    /// If `packed` has another number of rows.
    ///
    /// # Panics
    /// If `steps` is below the longest length.
    pub fn pad(&self, packed: &Tensor, steps: usize) -> Result<Tensor> {
        assert!(steps >= self.longest(), "{steps} steps cannot hold a sequence of {}", self.longest());
        let (total, d) = packed.dims2()?;
        self.check(total)?;
        let zero = Tensor::zeros((1, d), packed.dtype(), packed.device())?;
        let rows = (0..self.len()).flat_map(|b| {
            let range = self.range(b);
            (0..steps).map(move |t| if t < range.len() { range.start + t } else { total })
        });
        let rows = index(rows, packed.device())?;
        Ok(Tensor::cat(&[packed, &zero], 0)?.index_select(&rows, 0)?.reshape((self.len(), steps, d))?)
    }

    /// `[len, steps, d]` to `[total, d]`; what stands behind the end of a sequence is dropped.
    ///
    /// # Errors
    /// If `padded` has another number of sequences, or fewer steps than the longest.
    pub fn unpad(&self, padded: &Tensor) -> Result<Tensor> {
        let (sequences, steps, d) = padded.dims3()?;
        if sequences != self.len() || steps < self.longest() {
            return Err(Error::Numeric(format!(
                "{} sequences of up to {} steps do not fit a tensor of shape {:?}",
                self.len(),
                self.longest(),
                padded.dims()
            )));
        }
        let rows = (0..self.len()).flat_map(|b| (0..self.lengths[b]).map(move |t| b * steps + t));
        let rows = index(rows, padded.device())?;
        Ok(padded.reshape((sequences * steps, d))?.index_select(&rows, 0)?)
    }

    /// At most the first `most` rows of each sequence, and their lengths.
    ///
    /// # Errors
    /// If `packed` has another number of rows, or `most` is 0.
    pub fn cut(&self, packed: &Tensor, most: usize) -> Result<(Tensor, Self)> {
        self.check(packed.dim(0)?)?;
        if self.longest() <= most {
            return Ok((packed.clone(), self.clone()));
        }
        let rows = (0..self.len()).flat_map(|b| self.range(b).take(most));
        let packed = packed.index_select(&index(rows, packed.device())?, 0)?;
        Ok((packed, Self::new(self.lengths.iter().map(|&length| length.min(most)))?))
    }

    /// The last row of each sequence, `[len, d]`.
    ///
    /// # Errors
    /// If `packed` has another number of rows.
    pub fn last(&self, packed: &Tensor) -> Result<Tensor> {
        self.check(packed.dim(0)?)?;
        Ok(packed.index_select(&index(self.starts[1..].iter().map(|end| end - 1), packed.device())?, 0)?)
    }

    /// The mean over the rows of each sequence, `[len, d]`.
    ///
    /// # Errors
    /// If `packed` has another number of rows.
    pub fn mean(&self, packed: &Tensor) -> Result<Tensor> {
        let (total, _) = packed.dims2()?;
        self.check(total)?;
        // A product with the averaging matrix takes less time than padding and a reduction.
        let mut averaging = vec![0f64; self.len() * total];
        for (b, &length) in self.lengths.iter().enumerate() {
            averaging[b * total..(b + 1) * total][self.range(b)].fill(1.0 / length as f64);
        }
        let averaging = Tensor::from_vec(averaging, (self.len(), total), &Device::Cpu)?
            .to_dtype(packed.dtype())?
            .to_device(packed.device())?;
        Ok(averaging.matmul(packed)?)
    }

    /// 1 where a step is inside its sequence, else 0, `[len, steps]`.
    ///
    /// # Errors
    /// If the tensor cannot be made.
    pub fn mask(&self, steps: usize, device: &Device) -> Result<Tensor> {
        let inside = |length: usize| (0..steps).map(move |t| u8::from(t < length));
        let mask: Vec<u8> = self.lengths.iter().flat_map(|&length| inside(length)).collect();
        Ok(Tensor::from_vec(mask, (self.len(), steps), device)?)
    }

    fn check(&self, rows: usize) -> Result<()> {
        if rows == self.total() {
            return Ok(());
        }
        Err(Error::Numeric(format!("{} sequences of {} rows together, found {rows} rows", self.len(), self.total())))
    }
}

/// Row numbers as a tensor to select with.
pub(crate) fn index(rows: impl IntoIterator<Item = usize>, device: &Device) -> Result<Tensor> {
    let rows: Vec<u32> = rows.into_iter().map(|row| row as u32).collect();
    let n = rows.len();
    Ok(Tensor::from_vec(rows, n, device)?)
}
