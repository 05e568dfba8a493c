//! Layers of recurrent units in one direction or both.

use std::marker::PhantomData;

use candle_core::Tensor;

use super::{Weights, cell::Cell, lengths::Lengths, recurrence::states};
use crate::Result;

/// One or more layers of recurrent units of one kind, in one direction or both: [`Gru`](super::Gru) and [`Lstm`](super::Lstm).
pub struct Layers<C> {
    layers: Vec<Vec<Direction>>,
    hidden: usize,
    cell: PhantomData<C>,
}

struct Direction {
    /// `w_ih`, `w_hh`, `b_ih`, `b_hh`.
    weights: [Tensor; 4],
    reverse: bool,
}

#[allow(private_bounds, reason = "the kinds of units are those of this crate")]
impl<C: Cell> Layers<C> {
    /// Layers over vectors of length `input`, each direction with states of length `hidden`. A layer after the first reads
    /// both directions of the one below, one behind the other.
    ///
    /// # Errors
    /// If a weight cannot be made.
    pub fn new(
        weights: &mut Weights,
        name: &str,
        input: usize,
        hidden: usize,
        layers: usize,
        bidirectional: bool,
    ) -> Result<Self> {
        let ways: &[bool] = if bidirectional { &[false, true] } else { &[false] };
        let (bound, gates) = (1.0 / (hidden as f64).sqrt(), C::GATES * hidden);
        let layers = (0..layers)
            .map(|layer| {
                let input = if layer == 0 { input } else { ways.len() * hidden };
                let direction = |&reverse: &bool| {
                    let at = if reverse { format!("{name}.{layer}.reverse") } else { format!("{name}.{layer}") };
                    let weights = [
                        weights.uniform(&format!("{at}.w_ih"), &[input, gates], bound)?,
                        weights.uniform(&format!("{at}.w_hh"), &[hidden, gates], bound)?,
                        weights.uniform(&format!("{at}.b_ih"), &[gates], bound)?,
                        weights.uniform(&format!("{at}.b_hh"), &[gates], bound)?,
                    ];
                    Ok(Direction { weights, reverse })
                };
                ways.iter().map(direction).collect()
            })
            .collect::<Result<_>>()?;
        Ok(Self { layers, hidden, cell: PhantomData })
    }

    /// Length of a state.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// The states of the last layer after every row of packed sequences `x [total, in]`: `[total, h]` of the way forth and,
    /// if there is one, of the way back, which starts at the last row of each sequence.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn directions(&self, x: &Tensor, lengths: &Lengths) -> Result<Vec<Tensor>> {
        let mut outputs: Vec<Tensor> = Vec::new();
        for layer in &self.layers {
            let input = match outputs.as_slice() {
                [] => x.clone(),
                [one] => one.clone(),
                both => Tensor::cat(both, 1)?,
            };
            outputs = layer
                .iter()
                .map(|way| states::<C>(&input, &way.weights, lengths, way.reverse))
                .collect::<Result<_>>()?;
        }
        Ok(outputs)
    }

    /// The mean of both directions after every row, `[total, h]`; with one direction, that.
    ///
    /// # Errors
    /// As [`Layers::directions`].
    pub fn average(&self, x: &Tensor, lengths: &Lengths) -> Result<Tensor> {
        match self.directions(x, lengths)?.as_slice() {
            [one] => Ok(one.clone()),
            both => Ok(((&both[0] + &both[1])? * 0.5)?),
        }
    }

    /// Both directions one behind the other for padded sequences: `[b, t, in]` to `[b, t, directions * h]`, zero behind the
    /// end of a sequence.
    ///
    /// # Errors
    /// As [`Layers::directions`].
    pub fn forward(&self, x: &Tensor, lengths: &Lengths) -> Result<Tensor> {
        let outputs = self.directions(&lengths.unpad(x)?, lengths)?;
        lengths.pad(&Tensor::cat(&outputs, 1)?, x.dim(1)?)
    }
}
