//! The four cells.

use candle_core::{D, Tensor};

use super::{
    modulate::{guide, modulate},
    router::Router,
};
use crate::{
    Result,
    nn::{
        Activation, Linear, Weights,
        cross::{Attention, Norm, Padded, attended, similarities},
        heads,
    },
};

/// The vectors that are refined.
#[derive(Clone)]
pub(super) struct Locals {
    /// `[n, M, q, d]`, `n` being the number of items on the other side, or 1 where they do not depend on it.
    pub vectors: Tensor,
    /// Which are real, `[n or 1, M, q]`; nothing if all.
    pub real: Option<Tensor>,
}

impl Locals {
    /// Others in the places of these.
    pub fn with(&self, vectors: Tensor) -> Self {
        Self { vectors, real: self.real.clone() }
    }

    /// The mask beside the vectors, `[n or 1, M, q, 1]`.
    pub fn mask(&self) -> Result<Option<Tensor>> {
        self.real.as_ref().map(|real| Ok(real.unsqueeze(3)?)).transpose()
    }
}

/// Equation (3): the other side's global vector says which local ones count.
pub(super) struct Guidance(Linear);

impl Guidance {
    /// The part that does not depend on the other side, `[.., d]`.
    pub fn mapped(&self, vectors: &Tensor) -> Result<Tensor> {
        self.0.forward(vectors)
    }

    /// The vectors, guided by `global [N, d]`: `[N, M, q, d]`.
    pub fn forward(&self, locals: &Locals, mapped: &Tensor, global: &Tensor) -> Result<Tensor> {
        guide(&locals.vectors, mapped, global, locals.real.as_ref())
    }
}

/// Equation (4): attention within an item.
pub(super) struct Reasoning {
    parts: [Linear; 3],
    wide: Linear,
    narrow: Linear,
    heads: usize,
}

impl Reasoning {
    /// `[n, M, q, d]` to the same.
    pub fn forward(&self, locals: &Locals) -> Result<Tensor> {
        let x = &locals.vectors;
        let (n, m, q, d) = x.dims4()?;
        let part = |layer: &Linear| -> Result<Tensor> { Ok(layer.forward(x)?.reshape((n * m, q, d))?) };
        let [query, key, value] = &self.parts;
        let real = match &locals.real {
            Some(real) => Some(real.broadcast_as((n, m, q))?.reshape((n * m, q))?),
            None => None,
        };
        let seen = heads::attend([&part(query)?, &part(key)?, &part(value)?], self.heads, real.as_ref())?;
        let y = (x + seen.reshape(x.shape())?)?;
        Ok((&y + self.narrow.forward(&self.wide.activated(&y, Activation::Relu)?)?)?)
    }
}

/// Equation (5): what a vector sees of the other side scales and shifts it.
pub(super) struct Refinement {
    scale: Linear,
    shift: Linear,
    inner: Linear,
    outer: Linear,
    attention: Attention,
}

/// The other side as the cells of a layer see it.
pub(super) struct Context<'a> {
    /// Its vectors, `[N, c, d]`.
    pub items: &'a Padded,
    /// Which are real, `[N, 1, 1, c]`; nothing if all.
    pub seen: Option<&'a Tensor>,
    /// Its global vectors, `[N, d]`.
    pub global: &'a Tensor,
}

impl Refinement {
    /// Both layers over context vectors, `[N, c, d]`: since attention weights sum to 1, a layer over what is seen is what is seen of the
    /// layer's outputs.
    pub fn prepared(&self, contexts: &Tensor) -> Result<[Tensor; 2]> {
        let layer = |layer: &Linear| layer.forward(contexts);
        Ok([layer(&self.scale)?, layer(&self.shift)?])
    }

    /// The vectors, refined: `[N, M, q, d]`.
    pub fn forward(&self, locals: &Locals, context: &Context<'_>, [scale, shift]: [&Tensor; 2]) -> Result<Tensor> {
        let x = &locals.vectors;
        let queries = if x.dim(0)? == 1 { x.squeeze(0)? } else { x.clone() };
        let weights = self.weights(&similarities(context.items, &queries)?, locals, context.seen)?;
        let see = |of: &Tensor| attended(&weights, &Padded::full(of)?);
        let y = self.inner.activated(&modulate(x, &see(scale)?, &see(shift)?)?, Activation::Relu)?;
        Ok(self.outer.forward(&y)?.broadcast_add(x)?)
    }

    /// Attention weights `[N, M, q, c]`, as [`Attention::weights`] but for the released code's other floor below a norm.
    fn weights(&self, s: &Tensor, locals: &Locals, seen: Option<&Tensor>) -> Result<Tensor> {
        match self.attention.norm {
            Norm::ClippedL2norm => self.attention.floored_weights(s, locals.real.as_ref(), seen),
            _ => self.attention.weights(s, locals.real.as_ref(), seen),
        }
    }
}

/// Sizes of a layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// Length of the vectors, d.
    pub width: usize,
    /// Heads of the attention within an item.
    pub heads: usize,
    /// Width between its two layers.
    pub reasoning: usize,
    /// Width of a router's hidden layer.
    pub router: usize,
}

/// Four cells and their routers.
pub(super) struct Layer {
    /// In the order of the cells.
    pub routers: [Router; 4],
    /// Equation (3).
    pub guidance: Guidance,
    /// Equation (4).
    pub reasoning: Reasoning,
    /// Equation (5).
    pub refinement: Refinement,
}

impl Layer {
    /// Weights under `NAME.identity`, `NAME.guidance`, `NAME.reasoning` and `NAME.refinement`, each with a `.router`.
    pub fn new(weights: &mut Weights, name: &str, sizes: Sizes, outputs: usize, attention: Attention) -> Result<Self> {
        let d = sizes.width;
        let mut layer =
            |part: &str, input: usize, output: usize| Linear::new(weights, &format!("{name}.{part}"), input, output);
        let guidance = Guidance(layer("guidance.map", d, d)?);
        let reasoning = Reasoning {
            parts: [layer("reasoning.query", d, d)?, layer("reasoning.key", d, d)?, layer("reasoning.value", d, d)?],
            wide: layer("reasoning.wide", d, sizes.reasoning)?,
            narrow: layer("reasoning.narrow", sizes.reasoning, d)?,
            heads: sizes.heads,
        };
        let refinement = Refinement {
            scale: layer("refinement.scale", d, d)?,
            shift: layer("refinement.shift", d, d)?,
            inner: layer("refinement.inner", d, d)?,
            outer: layer("refinement.outer", d, d)?,
            attention,
        };
        let mut router =
            |cell: &str| Router::new(weights, &format!("{name}.{cell}.router"), [d, sizes.router, outputs]);
        let routers = [router("identity")?, router("guidance")?, router("reasoning")?, router("refinement")?];
        Ok(Self { routers, guidance, reasoning, refinement })
    }

    /// All four cells, each on its own input, `[N, M, q, d]` each, and their gates.
    pub fn forward(
        &self,
        inputs: &[Locals; 4],
        context: &Context<'_>,
        prepared: [&Tensor; 2],
    ) -> Result<([Tensor; 4], [Tensor; 4])> {
        let [kept, guided, reasoned, refined] = inputs;
        let cells = [
            kept.vectors.relu()?,
            self.guidance.forward(guided, &self.guidance.mapped(&guided.vectors)?, context.global)?,
            self.reasoning.forward(reasoned)?,
            self.refinement.forward(refined, context, prepared)?,
        ];
        Ok((cells, self.gates(inputs)?))
    }

    /// The gates of the cells on their inputs, `[n, M, outputs]` each.
    pub fn gates(&self, inputs: &[Locals; 4]) -> Result<[Tensor; 4]> {
        let [a, b, c, d] = &self.routers;
        Ok([a.gates(&inputs[0])?, b.gates(&inputs[1])?, c.gates(&inputs[2])?, d.gates(&inputs[3])?])
    }
}

/// Vectors of length 1 along the last dimension; see [`crate::nn::unit`].
pub(super) fn scores(vectors: &Tensor, global: &Tensor) -> Result<Tensor> {
    Ok(crate::nn::unit(vectors)?.broadcast_mul(&global.unsqueeze(1)?)?.sum(D::Minus1)?)
}
