//! The decoder: attention on regions, a recurrence, a softmax over the vocabulary.

use std::sync::Arc;

use candle_core::{D, Tensor};
use candle_nn::ops;
use serde::{Deserialize, Serialize};

use crate::{
    Result,
    nn::{
        Activation, Linear, Weights,
        cross::{Padded, soften},
        index, lstm_step,
    },
};

/// The gate on what is seen, equation (4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Selector {
    /// One number.
    Scalar,
    /// One for each value.
    Vector,
}

/// How words are told from states, equation (6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Output {
    /// From the state, the word before and what is seen, (6a).
    Deep,
    /// From the state alone, (6b).
    Linear,
}

/// Sizes and kinds of a decoder.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub context: usize,
    pub hidden: usize,
    pub word: usize,
    pub attention: usize,
    pub vocabulary: usize,
    pub activation: Activation,
    pub start: Activation,
    pub selector: Selector,
    pub output: Output,
}

/// The decoder; weights under `decoder`.
#[derive(Clone)]
pub(super) struct Decoder {
    pub sizes: Sizes,
    parts: Arc<Parts>,
}

struct Parts {
    /// `h_0` and `c_0` from the mean region.
    starts: [Linear; 2],
    /// `P a + b` and `W_d h` of (2).
    key: Linear,
    query: Tensor,
    /// `u` of (2), `[A, 1]`.
    score: Tensor,
    gate: Linear,
    /// `E`, `[V, m]`.
    words: Tensor,
    /// (5): word to gates, what is seen to gates, state to gates with the bias.
    word_gates: Tensor,
    seen_gates: Tensor,
    state_gates: Linear,
    /// `L_h` with its bias, and `L_z`.
    deep: Option<(Linear, Tensor)>,
    vocabulary: Linear,
}

/// Images as the decoder sees them: all for every text (`g = 1`), or one for each of `g` texts (`N = 1`).
pub(super) struct Scene {
    /// `P a + b`, `[g, N, k, A]`.
    pub keys: Tensor,
    /// What the weights sum, `[g, N, k, ..]`: regions, or products of them.
    pub values: Tensor,
    /// Which regions are real, `[g, N, 1, k]`; nothing if all.
    pub real: Option<Tensor>,
    /// First states, `[g, N, n]`.
    pub start: [Tensor; 2],
}

impl Scene {
    fn map(&self, f: impl Fn(&Tensor) -> candle_core::Result<Tensor>) -> Result<Self> {
        Ok(Self {
            keys: f(&self.keys)?,
            values: f(&self.values)?,
            real: self.real.as_ref().map(&f).transpose()?,
            start: [f(&self.start[0])?, f(&self.start[1])?],
        })
    }

    /// Those of the first `texts`.
    fn first(&self, texts: usize) -> Result<Self> {
        match self.keys.dim(0)? {
            1 => self.map(|x| Ok(x.clone())),
            _ => self.map(|x| x.narrow(0, 0, texts)?.contiguous()),
        }
    }
}

/// A step of some texts.
pub(super) struct Step {
    /// Attention weights, `[m, N, k]`.
    pub alpha: Tensor,
    /// The states behind it, `[m, N, n]`.
    pub states: [Tensor; 2],
    /// What is seen as (6a) takes it, `[m, N, word]`.
    seen: Option<Tensor>,
    /// The words before, `[m, 1, word]`.
    words: Tensor,
}

/// What became of some texts.
pub(super) struct Told {
    /// `log p(text | image)`, `[M, N]`.
    pub log_likelihood: Tensor,
    /// Attention weights summed over the steps, `[M, N, k]`.
    pub looked: Tensor,
}

/// What training does to states before they are told; nothing afterwards.
pub(super) type Drop<'a> = &'a mut dyn FnMut(Tensor) -> Result<Tensor>;

impl Decoder {
    pub fn new(weights: &mut Weights, sizes: Sizes) -> Result<Self> {
        let Sizes { context, hidden, word, attention, vocabulary, selector, output, .. } = sizes;
        let bound = |width: usize| 1.0 / (width as f64).sqrt();
        let gates = 4 * hidden;
        let query = weights.uniform("decoder.attention.state", &[hidden, attention], bound(hidden))?;
        let score = weights.uniform("decoder.attention.score", &[attention, 1], bound(attention))?;
        let words = weights.uniform("decoder.words", &[vocabulary, word], 0.1)?;
        let word_gates = weights.uniform("decoder.gates.word", &[word, gates], bound(hidden))?;
        let seen_gates = weights.uniform("decoder.gates.seen", &[context, gates], bound(hidden))?;
        let deep_seen = match output {
            Output::Deep => Some(weights.uniform("decoder.deep.seen", &[context, word], bound(context))?),
            Output::Linear => None,
        };
        let mut layer =
            |name: &str, input: usize, output: usize| Linear::new(weights, &format!("decoder.{name}"), input, output);
        let deep = match deep_seen {
            Some(seen) => Some((layer("deep.state", hidden, word)?, seen)),
            None => None,
        };
        let parts = Parts {
            starts: [layer("start.h", context, hidden)?, layer("start.c", context, hidden)?],
            key: layer("attention.region", context, attention)?,
            query,
            score,
            gate: layer("selector", hidden, if selector == Selector::Scalar { 1 } else { context })?,
            words,
            word_gates,
            seen_gates,
            state_gates: layer("gates.state", hidden, gates)?,
            vocabulary: layer("output", if deep.is_some() { word } else { hidden }, vocabulary)?,
            deep,
        };
        Ok(Self { sizes, parts: Arc::new(parts) })
    }

    /// What does not depend on a text: keys `[N, k, A]`, values `[N, k, ..]` and first states `[N, n]`.
    pub fn prepared(&self, images: &Padded) -> Result<[Tensor; 4]> {
        let (a, parts) = (images.vectors(), &self.parts);
        let mean = match images.real() {
            Some(real) => {
                let count = real.to_dtype(a.dtype())?.sum_keepdim(1)?.maximum(1.0)?;
                a.sum(1)?.broadcast_div(&count)?
            }
            None => a.mean(1)?,
        };
        let start = |layer: &Linear| self.sizes.start.apply(&layer.forward(&mean)?); // (1)
        let [h, c] = &parts.starts;
        let values = match self.sizes.selector {
            // One number comes before or behind a product alike: products are made once an image.
            Selector::Scalar => {
                let all: Vec<&Tensor> =
                    std::iter::once(&parts.seen_gates).chain(parts.deep.as_ref().map(|(_, seen)| seen)).collect();
                product(a, &Tensor::cat(&all, 1)?)?
            }
            Selector::Vector => a.clone(),
        };
        Ok([parts.key.forward(a)?, values, start(h)?, start(c)?])
    }

    /// Weights `[m, N, k]` of (2) and (3), and what is seen `[m, N, ..]`, from states `h [m, N, n]`.
    pub fn look(&self, scene: &Scene, h: &Tensor) -> Result<[Tensor; 2]> {
        let query = product(h, &self.parts.query)?.unsqueeze(2)?;
        let hidden = self.sizes.activation.apply(&scene.keys.broadcast_add(&query)?)?; // (2)
        let logits = product(&hidden, &self.parts.score)?.transpose(2, 3)?.contiguous()?;
        let alpha = soften(&logits, scene.real.as_ref())?; // (3)
        let (m, n, _, k) = alpha.dims4()?;
        let (g, _, _, width) = scene.values.dims4()?;
        // A text against every image, or each against its own.
        let seen = if g == 1 {
            let rows = alpha.squeeze(2)?.transpose(0, 1)?.contiguous()?;
            rows.matmul(&scene.values.squeeze(0)?)?.transpose(0, 1)?.contiguous()?
        } else {
            alpha.reshape((m, n, k))?.matmul(&scene.values.reshape((m, k, width))?)?
        };
        Ok([alpha.reshape((m, n, k))?, seen])
    }

    /// Equations (2) to (5) of the first texts with tokens `before`, whose states are `[m, N, n]`.
    pub fn step(&self, scene: &Scene, before: &[u32], [h, c]: [&Tensor; 2]) -> Result<Step> {
        let parts = &self.parts;
        let (m, n, width) = h.dims3()?;
        let [alpha, seen] = self.look(scene, h)?;
        let gate = ops::sigmoid(&parts.gate.forward(h)?)?;
        let seen = seen.broadcast_mul(&gate)?; // (4)
        let (gates, deep) = match (self.sizes.selector, &parts.deep) {
            (Selector::Scalar, None) => (seen, None),
            (Selector::Scalar, Some(_)) => {
                let word = self.sizes.word;
                (seen.narrow(2, 0, 4 * width)?, Some(seen.narrow(2, 4 * width, word)?))
            }
            (Selector::Vector, None) => (product(&seen, &parts.seen_gates)?, None),
            (Selector::Vector, Some((_, layer))) => (product(&seen, &parts.seen_gates)?, Some(product(&seen, layer)?)),
        };
        let before = index(before.iter().map(|&token| token as usize), h.device())?;
        let words = parts.words.index_select(&before, 0)?.unsqueeze(1)?;
        let gates = gates.broadcast_add(&product(&words, &parts.word_gates)?)?.reshape((m * n, 4 * width))?;
        let rows = |x: &Tensor| x.reshape((m * n, width));
        let (h, c) = (rows(h)?, rows(c)?);
        let [h, c] = lstm_step(&gates, &parts.state_gates.forward(&h)?, &h, &c)?; // (5)
        let states = [h.reshape((m, n, width))?, c.reshape((m, n, width))?];
        Ok(Step { alpha, states, seen: deep, words })
    }

    /// Equation (6), `[m, N, V]`.
    pub fn logits(&self, step: &Step, drop: Drop<'_>) -> Result<Tensor> {
        let h = drop(step.states[0].clone())?;
        let told = match (&self.parts.deep, &step.seen) {
            (Some((layer, _)), Some(seen)) => drop((layer.forward(&h)?.broadcast_add(&step.words)? + seen)?.tanh()?)?,
            _ => h,
        };
        self.parts.vocabulary.forward(&told)
    }

    /// How likely texts are, each token given those before it; a scene of `g = M` goes text by text.
    pub fn tell(&self, scene: &Scene, texts: &[&[u32]], drop: Drop<'_>) -> Result<Told> {
        let mut order: Vec<usize> = (0..texts.len()).collect();
        // Longest first: those that are not over yet stand in front.
        order.sort_by_key(|&text| std::cmp::Reverse(texts[text].len()));
        let device = scene.keys.device();
        let sorted = index(order.iter().copied(), device)?;
        let scene = match scene.keys.dim(0)? {
            1 => scene.map(|x| Ok(x.clone()))?,
            _ => scene.map(|x| x.index_select(&sorted, 0))?,
        };
        let (_, n, k, _) = scene.keys.dims4()?;
        let all = texts.len();
        let wide = |x: &Tensor| {
            let (g, n, width) = x.dims3()?;
            if g == all { Ok(x.clone()) } else { x.broadcast_as((all, n, width))?.contiguous() }
        };
        let mut states = [wide(&scene.start[0])?, wide(&scene.start[1])?];
        let mut log_likelihood = Tensor::zeros((all, n), scene.keys.dtype(), device)?;
        let mut looked = Tensor::zeros((all, n, k), scene.keys.dtype(), device)?;
        for t in 0..texts.iter().map(|text| text.len().saturating_sub(1)).max().unwrap_or(0) {
            let m = order.iter().take_while(|&&text| texts[text].len() > t + 1).count();
            let at = |t: usize| order[..m].iter().map(|&text| texts[text][t]).collect::<Vec<u32>>();
            let [h, c] = states.each_ref().map(|state| state.narrow(0, 0, m)?.contiguous());
            let step = self.step(&scene.first(m)?, &at(t), [&h?, &c?])?;
            let logits = self.logits(&step, drop)?;
            let targets = Tensor::from_vec(at(t + 1), (m, 1, 1), device)?.broadcast_as((m, n, 1))?.contiguous()?;
            let log = (logits.gather(&targets, 2)?.squeeze(2)? - logits.log_sum_exp(D::Minus1)?)?; // (7)
            log_likelihood = (log_likelihood + log.pad_with_zeros(0, 0, all - m)?)?;
            looked = (looked + step.alpha.pad_with_zeros(0, 0, all - m)?)?;
            states = step.states;
        }
        let mut back = vec![0; all];
        order.iter().enumerate().for_each(|(place, &text)| back[text] = place);
        let back = index(back, device)?;
        Ok(Told { log_likelihood: log_likelihood.index_select(&back, 0)?, looked: looked.index_select(&back, 0)? })
    }
}

/// `x W` along the last dimension.
fn product(x: &Tensor, matrix: &Tensor) -> Result<Tensor> {
    let (input, output) = matrix.dims2()?;
    let mut shape = x.dims().to_vec();
    let y = x.reshape((x.elem_count() / input.max(1), input))?.matmul(matrix)?;
    shape.pop();
    shape.push(output);
    Ok(y.reshape(shape)?)
}
