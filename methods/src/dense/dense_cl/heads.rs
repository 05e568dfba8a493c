use candle_core::Tensor;

use super::queue::LANES;
use crate::{
    Result,
    nn::{Init, Mlp, MlpSettings, Weights},
};

/// What the names of the slow heads' weights begin with.
pub(super) const MOMENTUM: &str = "slow.";

/// Widths of a head: input, hidden layer, output.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub width: usize,
    pub hidden: usize,
    pub out: usize,
}

/// Heads of the four kinds of key, each a hidden layer with ReLU and a linear one, or none at all.
pub(super) struct Heads([Option<Mlp>; LANES]);

impl Heads {
    /// Weights `PREFIXhead.NAME.*`; initial values are PyTorch's.
    pub fn new(
        weights: &mut Weights,
        prefix: &str,
        names: [&str; LANES],
        none: [bool; LANES],
        sizes: Sizes,
    ) -> Result<Self> {
        let Sizes { width, hidden, out } = sizes;
        let settings = MlpSettings { init: Init::Pytorch, ..MlpSettings::default() };
        let mut head = |lane: usize| match none[lane] {
            true => Ok(None),
            false => {
                Mlp::new(weights, &format!("{prefix}head.{}", names[lane]), &[width, hidden, out], settings).map(Some)
            }
        };
        Ok(Self([head(0)?, head(1)?, head(2)?, head(3)?]))
    }

    /// Rows through the head of a kind; as they are where there is none.
    pub fn forward(&self, lane: usize, x: &Tensor) -> Result<Tensor> {
        match &self.0[lane] {
            Some(head) => head.forward(&x.contiguous()?, None),
            None => Ok(x.clone()),
        }
    }

    /// Width of what comes out, of rows of a width.
    pub fn width(&self, lane: usize, input: usize) -> usize {
        self.0[lane].as_ref().map_or(input, Mlp::width)
    }
}

/// Moves the slow heads: `slow <- m slow + (1 - m) head`.
pub(super) fn follow(weights: &Weights, m: f64) -> Result<()> {
    for (name, slow) in weights.iter() {
        let Some(fast) = name.strip_prefix(MOMENTUM).and_then(|name| weights.var(name)) else { continue };
        slow.set(&((slow.as_detached_tensor() * m)? + (fast.as_detached_tensor() * (1.0 - m))?)?)?;
    }
    Ok(())
}
