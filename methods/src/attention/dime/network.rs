//! Three layers of cells between one side's vectors and the other side, and the score behind them.

use std::sync::Arc;

use candle_core::Tensor;

use super::{
    cells::{Context, Layer, Locals, Sizes, scores},
    columns::{largest, mean},
    router::{Paths, mix},
};
use crate::{
    Result,
    nn::{
        BatchNorm, Weights,
        cross::{Attention, Block, Direction, Interaction, Padded, Pairing, Side},
    },
};

/// Outputs of a layer that another one follows, one for each of its cells.
const OUTPUTS: usize = 4;

/// Refines the vectors of the side that asks (regions of `i2t`, words of `t2i`) layer by layer and compares them with the global vector
/// of the other side, which stands before that side's own vectors.
#[derive(Clone)]
pub(super) struct Dime {
    pub direction: Direction,
    parts: Arc<Parts>,
}

struct Parts {
    layers: [Layer; 3],
    norm: BatchNorm,
}

/// What of a block of pairs has been refined.
pub(super) struct Refined {
    /// Shares of cells in outputs: `[1 or N, M, 4, 4]`, `[N, M, 4, 4]`, and the gates `[N, M, 1, 4]`.
    pub paths: [Tensor; 3],
    /// The vectors that asked, `[N, M, q, d]`.
    pub locals: Locals,
    /// The global vectors of the other side, `[N, d]`.
    pub global: Tensor,
}

/// What the first layer makes of the side that asks alone.
struct First {
    /// The part of each output that both cells without the other side give, `[n, M, 4, q, d]`.
    shared: Tensor,
    /// See [`super::cells::Guidance::mapped`], `[n, M, q, d]`.
    mapped: Tensor,
    /// Shares of the other two cells, `[n, M, 4, 2]`.
    shares: Tensor,
    /// All shares, `[n, M, 4, 4]`.
    paths: Tensor,
}

impl First {
    fn tensors(self) -> Vec<Tensor> {
        vec![self.shared, self.mapped, self.shares, self.paths]
    }

    /// As a block aligns it, with `n` in front.
    fn of(block: &Block<'_>) -> Result<Self> {
        let made = |at: usize| {
            let aligned = block.aligned(&block.asking.made[at])?;
            match block.queries.rank() {
                3 => Ok::<_, crate::Error>(aligned.unsqueeze(0)?),
                _ => Ok(aligned),
            }
        };
        Ok(Self { shared: made(0)?, mapped: made(1)?, shares: made(2)?, paths: made(3)? })
    }
}

impl Dime {
    /// Weights under `dime`.
    pub fn new(weights: &mut Weights, direction: Direction, sizes: Sizes, attention: Attention) -> Result<Self> {
        let mut layer =
            |at: usize, outputs: usize| Layer::new(weights, &format!("dime.{at}"), sizes, outputs, attention);
        let layers = [layer(0, OUTPUTS)?, layer(1, OUTPUTS)?, layer(2, 1)?];
        let norm = BatchNorm::new(weights, "dime.norm", sizes.width)?;
        Ok(Self { direction, parts: Arc::new(Parts { layers, norm }) })
    }

    /// The layers.
    pub fn layers(&self) -> &[Layer; 3] {
        &self.parts.layers
    }

    /// What is made once an item that asks.
    fn asking(&self, items: &Padded) -> Result<Vec<Tensor>> {
        let layer = &self.layers()[0];
        let real = items.real().map(|real| real.unsqueeze(0)).transpose()?;
        let locals = Locals { vectors: items.vectors().unsqueeze(0)?, real };
        let paths = Paths::split(&layer.gates(&[locals.clone(), locals.clone(), locals.clone(), locals.clone()])?)?;
        let (kept, reasoned) = (locals.vectors.relu()?, layer.reasoning.forward(&locals)?);
        let first = First {
            shared: mix(&paths.of(&[0, 2])?, &[&kept, &reasoned])?,
            mapped: layer.guidance.mapped(&locals.vectors)?,
            shares: paths.of(&[1, 3])?,
            paths: paths.shares,
        };
        Ok(first.tensors().iter().map(|tensor| tensor.squeeze(0)).collect::<candle_core::Result<_>>()?)
    }

    /// What is made once an item that answers: equation (5)'s layers over its vectors, three times two.
    fn answering(&self, items: &Padded) -> Result<Vec<Tensor>> {
        let (_, contexts) = items.parted()?;
        let prepared = self.layers().iter().map(|layer| layer.refinement.prepared(contexts.vectors()));
        Ok(prepared.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    /// Equations (2) to (7) for the pairs of a block.
    pub fn refine(&self, images: &Side, texts: &Side, pairing: Pairing) -> Result<Refined> {
        let answering = |side: &Side| -> Result<(Tensor, Side)> {
            let (global, items) = side.items.parted()?;
            Ok((global, Side { items, made: side.made.clone() }))
        };
        let ((global, contexts), asking) = match self.direction {
            Direction::T2i => (answering(images)?, texts),
            Direction::I2t => (answering(texts)?, images),
        };
        let block = match self.direction {
            Direction::T2i => Block::new(self.direction, &contexts, asking, pairing)?,
            Direction::I2t => Block::new(self.direction, asking, &contexts, pairing)?,
        };
        let vectors = if block.queries.rank() == 3 { block.queries.unsqueeze(0)? } else { block.queries.clone() };
        let locals = Locals { vectors, real: block.asked.clone() };
        let context = Context { items: &contexts.items, seen: block.seen.as_ref(), global: &global };
        let prepared = |layer: usize| [&contexts.made[2 * layer], &contexts.made[2 * layer + 1]];
        let first = First::of(&block)?;
        let layer = &self.layers()[0];
        let guided = layer.guidance.forward(&locals, &first.mapped, &global)?;
        let refined = layer.refinement.forward(&locals, &context, prepared(0))?;
        let outputs = mix(&first.shares, &[&guided, &refined])?.broadcast_add(&first.shared)?; // (6)
        let inputs = split(&outputs, &locals)?;
        let (cells, gates) = self.layers()[1].forward(&inputs, &context, prepared(1))?;
        let second = Paths::split(&gates)?;
        let outputs = mix(&second.of(&[0, 1, 2, 3])?, &cells.each_ref())?; // (6)
        let inputs = split(&outputs, &locals)?;
        let (cells, gates) = self.layers()[2].forward(&inputs, &context, prepared(2))?;
        let third = Paths::joined(&gates)?;
        let open = mix(&third.shares, &cells.each_ref())?;
        let closed = mix(&third.closed, &inputs.each_ref().map(|input| &input.vectors))?;
        let total = (&third.shares + &third.closed)?.sum_keepdim(3)?.unsqueeze(4)?;
        let vectors = (open + closed)?.broadcast_div(&total)?.squeeze(2)?; // (7)
        Ok(Refined { paths: [first.paths, second.shares, third.shares], locals: locals.with(vectors), global })
    }

    /// Equation (8), `[N, M]`; in training by the moments of the block's pairs, which then move the running ones.
    pub fn compare(&self, refined: &Refined, training: bool) -> Result<Tensor> {
        let x = &refined.locals.vectors;
        let (n, m, q, d) = x.dims4()?;
        let real = refined.locals.real.as_ref().map(|real| real.broadcast_as((n, m, q))?.flatten_all()).transpose()?;
        let y = self.parts.norm.of_real(&x.reshape((n * m * q, d))?, real.as_ref(), training)?;
        let locals = refined.locals.with(y.reshape((n, m, q, d))?);
        scores(&(mean(&locals)? + largest(&locals)?)?, &refined.global)
    }

    /// Scores `[N, M]` as images with texts, `[images, texts]`.
    pub fn turned(&self, scores: &Tensor) -> Result<Tensor> {
        Ok(if self.direction == Direction::I2t { scores.t()?.contiguous()? } else { scores.clone() })
    }
}

/// The outputs of a layer, `[N, M, 4, q, d]`, one by one.
fn split(outputs: &Tensor, locals: &Locals) -> Result<[Locals; OUTPUTS]> {
    let output = |at: usize| Ok::<_, crate::Error>(locals.with(outputs.narrow(2, at, 1)?.squeeze(2)?.contiguous()?));
    Ok([output(0)?, output(1)?, output(2)?, output(3)?])
}

impl Interaction for Dime {
    fn images(&self, images: &Padded) -> Result<Vec<Tensor>> {
        match self.direction {
            Direction::T2i => self.answering(images),
            Direction::I2t => self.asking(images),
        }
    }

    fn texts(&self, texts: &Padded) -> Result<Vec<Tensor>> {
        match self.direction {
            Direction::T2i => self.asking(texts),
            Direction::I2t => self.answering(texts),
        }
    }

    /// By the running moments; training scores all pairs of a batch at once, since its moments tie them together.
    fn scores(&self, images: &Side, texts: &Side, pairing: Pairing) -> Result<Tensor> {
        let scores = self.compare(&self.refine(images, texts, pairing)?, false)?;
        match pairing {
            Pairing::Every => self.turned(&scores),
            Pairing::Matching => Ok(scores.squeeze(1)?),
        }
    }
}
