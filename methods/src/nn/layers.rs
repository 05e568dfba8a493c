//! What [`Gru`](super::Gru) and [`Lstm`](super::Lstm) share: layers of recurrent units in one direction or both.

use std::marker::PhantomData;

use candle_core::Tensor;

use super::{
    Weights,
    lengths::Lengths,
    recurrence::{Cell, states},
};
use crate::Result;

/// Layers of units of one kind, each with its directions.
pub(super) struct Layers<C> {
    layers: Vec<Vec<Direction>>,
    pub(super) hidden: usize,
    cell: PhantomData<C>,
}

struct Direction {
    /// `w_ih`, `w_hh`, `b_ih`, `b_hh`.
    weights: [Tensor; 4],
    reverse: bool,
}

impl<C: Cell> Layers<C> {
    pub(super) fn new(
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

    /// The states of the last layer, one tensor a direction.
    pub(super) fn directions(&self, x: &Tensor, lengths: &Lengths) -> Result<Vec<Tensor>> {
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

    /// Padded in, padded out, directions one behind the other.
    pub(super) fn forward(&self, x: &Tensor, lengths: &Lengths) -> Result<Tensor> {
        let outputs = self.directions(&lengths.unpad(x)?, lengths)?;
        lengths.pad(&Tensor::cat(&outputs, 1)?, x.dim(1)?)
    }
}
