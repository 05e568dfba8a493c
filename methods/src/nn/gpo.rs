//! Generalised pooling (VSE-infinity, Chen et al. 2021; woodfrog/vse_infty@29df9d6): vectors of an item are sorted channel by
//! channel, and the place in the order, not the vector, decides the weight.
//!
//! ```text
//! PE(p, 2i) = sin(p 10000^(-2i/d)),  PE(p, 2i + 1) = cos(p 10000^(-2i/d)),  p = 0, 1, ..      (1)
//! s = BiGRU(PE[..len]) w, directions averaged;  a = softmax(s / 0.1) over the len places       (2)
//! pooled_c = sum_p a_p sorted_descending(x_:c)_p                                               (3)
//! ```
//!
//! The places of two items of one length have the same weights, so (1) and (2) are computed once a length.

use candle_core::{D, Tensor};

use super::{
    Gru, Weights,
    lengths::{Lengths, index},
};
use crate::Result;

/// Softmax temperature of equation (2), the paper's.
const TEMPERATURE: f64 = 0.1;

/// A pooling whose weights are learnt.
pub struct Gpo {
    gru: Gru,
    linear: Tensor,
    position: usize,
    temperature: f64,
}

impl Gpo {
    /// Position codes of length `position`, a recurrent layer with states of length `hidden` (32 and 32 in the paper).
    ///
    /// # Errors
    /// If a weight cannot be made.
    pub fn new(weights: &mut Weights, name: &str, position: usize, hidden: usize) -> Result<Self> {
        let gru = Gru::new(weights, &format!("{name}.gru"), position, hidden, 1, true)?;
        let linear = weights.uniform(&format!("{name}.linear"), &[hidden, 1], 1.0 / (hidden as f64).sqrt())?;
        Ok(Self { gru, linear, position, temperature: TEMPERATURE })
    }

    /// With another temperature in (2).
    #[must_use]
    pub(super) fn at(self, temperature: f64) -> Self {
        Self { temperature, ..self }
    }

    /// The weight of each place, `[items, steps]`, zero behind the end of an item.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn weights(&self, lengths: &Lengths, steps: usize) -> Result<Tensor> {
        let device = self.linear.device();
        let mut distinct = lengths.as_slice().to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        let which = lengths.as_slice().iter().map(|n| distinct.binary_search(n).expect("each length is listed"));
        let which = index(which, device)?;
        let distinct = Lengths::new(distinct)?;
        let codes: Vec<f64> = distinct.as_slice().iter().flat_map(|&n| (0..n).flat_map(|p| self.code(p))).collect(); // (1)
        let codes = Tensor::from_vec(codes, (distinct.total(), self.position), &candle_core::Device::Cpu)?
            .to_dtype(self.linear.dtype())?
            .to_device(device)?;
        let scores = self.gru.average(&codes, &distinct)?.matmul(&self.linear)?; // (2)
        let scores = (distinct.pad(&scores, steps)?.squeeze(D::Minus1)? / self.temperature)?;
        let inside = distinct.mask(steps, device)?;
        let outside = Tensor::full(-1e10f32, scores.shape(), device)?.to_dtype(scores.dtype())?;
        let places = candle_nn::ops::softmax(&inside.where_cond(&scores, &outside)?, D::Minus1)?;
        Ok(places.index_select(&which, 0)?)
    }

    /// Position code of place `p`.
    fn code(&self, p: usize) -> impl Iterator<Item = f64> + use<> {
        let d = self.position;
        (0..d).map(move |j| {
            let angle = p as f64 * 10_000f64.powf(-((j - j % 2) as f64) / d as f64);
            if j % 2 == 0 { angle.sin() } else { angle.cos() }
        })
    }

    /// `[total, d]` to `[items, d]`, and the weights of the places.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn forward(&self, packed: &Tensor, lengths: &Lengths) -> Result<(Tensor, Tensor)> {
        let steps = lengths.longest();
        let weights = self.weights(lengths, steps)?;
        let channels = lengths.pad(packed, steps)?.transpose(1, 2)?.contiguous()?;
        let inside =
            lengths.mask(steps, packed.device())?.unsqueeze(1)?.broadcast_as(channels.shape())?.contiguous()?;
        let last = Tensor::full(-1e30f32, channels.shape(), packed.device())?.to_dtype(packed.dtype())?;
        let (sorted, _) = inside.where_cond(&channels, &last)?.sort_last_dim(false)?;
        let sorted = inside.where_cond(&sorted, &sorted.zeros_like()?)?;
        let pooled = sorted.broadcast_mul(&weights.unsqueeze(1)?)?.sum(D::Minus1)?; // (3)
        Ok((pooled, weights))
    }
}
