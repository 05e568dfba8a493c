//! Stacked attention networks as a matcher: one vector asks the fragments of the other side in a few layers.
//!
//! Of question answering only the attention is taken over. With `q` the asking item's vector (the mean of its own, l2n), `v_j` the
//! fragments that answer (l2n), `u^0 = q` and for the layers `l = 1..L`
//!
//! ```text
//! h_j   = tanh(Wv v_j + Wq u^(l-1) + b)                 `paper`                                              (1)
//! p^l   = softmax over j of w · h_j + c                                                                      (2)
//! h_j   = tanh(Wv v_j + a) + tanh(Wq u^(l-1) + b),  p^l = softmax over j of tanh(w · h_j + c)   `theano`     (3)
//! u^l   = u^(l-1) + sum_j p_j^l v_j                                                                          (4)
//! x     = sum over l and j of p_j^l v_j                                                                      (5)
//! S     = cosine of q and x,   or   sigmoid of a network on [q x ; |q - x|]                                  (6)
//! ```
//! trained by equation (4) of [`scan`](super::scan). Yang, He, Gao, Deng and Smola, CVPR 2016. (1) is the paper's; (3) is what
//! `zcyang/imageqa-san@14a8841` computes: its logits lie between -1 and 1, so that no weight exceeds another e² times.
//!
//! Departures: a matcher has no answers to classify. `u^L` holds `q` itself and would be like it for every image, so (6) compares `q`
//! with what was seen alone (5). Encoders, loss and schedule are those of SCAN here; the paper's are an LSTM or a CNN, answers by
//! softmax, and SGD. `direction = "i2t"` lets the image ask the words, which the paper does not have.
//!
//! `Wv v_j` and `Wq v_j` are made once a fragment and `Wq q` once a question, for `Wq u^l = Wq q + sum of p_j Wq v_j`; (6) comes from
//! Gram matrices.

use candle_core::{D, DType, Tensor, Var};
use serde::{Deserialize, Serialize};
use xmbench_datasets::{Images, Texts};

use self::logits::hidden_logits;
use crate::{
    AttentionMap, Codes, Error, Fragments, Result, Similarity,
    card::Card,
    golden::{Answer, Case, Operation},
    nn::{
        Finish, Init, Lengths, Scaling, Weights,
        cross::{
            Block, Direction, Interaction, InteractionScorer, Padded, Pairing, Side, attended, golden::values,
            interact, norms, relevance_from_grams, similarities, soften,
        },
        l2n,
    },
    params::out_of_range,
    trained::{Attended, Batch, Body, Fitting, Loss, Ranking, Shared, Trained},
};

mod logits;

/// The method.
pub static SAN: Trained<Params> = Trained::new();

/// Who computes the weights how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// Equations (1) and (2).
    Paper,
    /// Equation (3).
    Theano,
}

/// How what was seen is compared with the question, equation (6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Comparison {
    /// By the cosine.
    Cosine,
    /// By a network of one hidden layer.
    Mlp,
}

/// Parameters; the defaults are the paper's two layers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Which side asks.
    pub direction: Direction,
    /// L of equation (4).
    pub attention_layers: usize,
    /// Length of `h_j`, and of the hidden layer of (6).
    pub attention_width: usize,
    /// Equations (1) and (2), or (3).
    pub form: Form,
    /// Equation (6).
    pub comparison: Comparison,
    /// The hinge.
    #[serde(flatten)]
    pub ranking: Ranking,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            direction: Direction::T2i,
            attention_layers: 2,
            attention_width: 512,
            form: Form::Paper,
            comparison: Comparison::Cosine,
            ranking: Ranking::default(),
        }
    }
}

impl Loss for Params {
    type Body = Attended;
    type Head = InteractionScorer<Stacked>;

    fn card() -> &'static Card {
        crate::card!("san.toml")
    }

    fn check(&self, shared: &Shared<Attended>) -> Result<()> {
        for (key, value, most) in
            [("attention_layers", self.attention_layers, 8), ("attention_width", self.attention_width, 1 << 14)]
        {
            if !(1..=most).contains(&value) {
                return Err(out_of_range("san", key, &format!("1 to {most}"), value));
            }
        }
        shared.has_negatives("san")?;
        self.ranking.check("san")
    }

    /// The mean of a question is taken before scaling.
    fn ends(&self) -> Finish {
        Finish::both(Scaling::None)
    }

    fn head(&self, fitting: &mut Fitting<'_, Attended>) -> Result<InteractionScorer<Stacked>> {
        let (d, device) = (fitting.shared.options.embedding, fitting.device());
        let (weights, width) = (&mut *fitting.weights, self.attention_width);
        let layers = (1..=self.attention_layers).map(|l| Layer::new(weights, l, d, width, self.form));
        let layers = layers.collect::<Result<_>>()?;
        let compared = match self.comparison {
            Comparison::Cosine => None,
            Comparison::Mlp => Some([
                Init::Xavier.layer(weights, "compared.hidden", 2 * d, width)?,
                Init::Xavier.layer(weights, "compared.out", width, 1)?,
            ]),
        };
        let interaction = Stacked { direction: self.direction, form: self.form, layers, compared };
        Ok(InteractionScorer { interaction, device })
    }

    fn loss(&self, head: &InteractionScorer<Stacked>, batch: &Batch<'_, Attended>) -> Result<Tensor> {
        let (regions, words) = (&batch.regions()?.raw, batch.words()?);
        let scores = match self.direction {
            Direction::T2i => {
                let questions = l2n(&words.lengths.mean(&words.raw)?)?;
                let each = Lengths::new(vec![1; words.lengths.len()])?;
                interact(&head.interaction, &l2n(regions)?, &questions, &each)?
            }
            Direction::I2t => {
                let questions = l2n(&regions.mean(1)?)?.unsqueeze(1)?;
                interact(&head.interaction, &questions, &l2n(&words.raw)?, &words.lengths)?
            }
        };
        self.ranking.loss(&scores, &batch.relations()?, batch.epoch)
    }

    fn collapsed(&self, batch: usize, epoch: usize) -> Option<f64> {
        self.ranking.collapsed(batch, epoch)
    }

    fn encode_images(&self, _: &InteractionScorer<Stacked>, body: &Attended, images: &Images) -> Result<Codes> {
        coded(body.encode_images(images)?, self.direction == Direction::I2t)
    }

    fn encode_texts(&self, _: &InteractionScorer<Stacked>, body: &Attended, texts: &Texts) -> Result<Codes> {
        coded(body.encode_texts(texts)?, self.direction == Direction::T2i)
    }

    fn similarity<'a>(&'a self, head: &'a InteractionScorer<Stacked>) -> Similarity<'a> {
        Similarity::Pairwise(head)
    }

    fn operations() -> Vec<Operation> {
        vec![Operation { name: "attn.san", run: golden, ignored: &[] }]
    }
}

/// Fragments scaled, or their mean as the one vector of the side that asks.
fn coded(raw: Codes, asks: bool) -> Result<Codes> {
    let Codes::Fragments(raw) = raw else {
        return Err(Error::Numeric("san: expected fragments of its encoders".into()));
    };
    let mut out = Fragments { dim: raw.dim, offsets: vec![0], data: Vec::new() };
    for item in 0..raw.len() {
        let vectors = raw.item(item);
        if asks {
            let mut mean = vec![0f32; raw.dim];
            for vector in vectors.chunks_exact(raw.dim) {
                mean.iter_mut().zip(vector).for_each(|(mean, x)| *mean += x);
            }
            let count = raw.count(item).max(1) as f32;
            mean.iter_mut().for_each(|mean| *mean /= count);
            out.data.extend(scaled(&mean));
        } else {
            vectors.chunks_exact(raw.dim).for_each(|vector| out.data.extend(scaled(vector)));
        }
        out.offsets.push(out.data.len() / raw.dim);
    }
    Ok(Codes::Fragments(out))
}

/// [`l2n`] of one vector.
fn scaled(vector: &[f32]) -> impl Iterator<Item = f32> {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt() + 1e-8;
    vector.iter().map(move |x| x / length)
}

/// The layers of attention and what compares.
#[derive(Debug, Clone)]
pub struct Stacked {
    direction: Direction,
    form: Form,
    layers: Vec<Layer>,
    compared: Option<[[Tensor; 2]; 2]>,
}

/// Weights of one layer of attention: `[in, out]` each.
#[derive(Debug, Clone)]
struct Layer {
    /// `Wv`, and `a` in the form of (3).
    seen: Tensor,
    seen_bias: Option<Tensor>,
    /// `Wq` and `b`.
    asked: [Tensor; 2],
    /// `w [width, 1]` and `c [1]`.
    logit: [Tensor; 2],
}

/// `x [n, m, in]` through a matrix and, if there is one, a bias.
fn through(x: &Tensor, matrix: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (n, m, input) = x.dims3()?;
    let y = x.reshape((n * m, input))?.matmul(matrix)?;
    let y = bias.map_or(Ok(y.clone()), |bias| y.broadcast_add(bias))?;
    Ok(y.reshape((n, m, matrix.dim(1)?))?)
}

impl Layer {
    fn new(weights: &mut Weights, l: usize, d: usize, width: usize, form: Form) -> Result<Self> {
        let mut layer = |name: &str, input, output| Init::Xavier.layer(weights, &format!("{name}{l}"), input, output);
        let asked = layer("asked", d, width)?;
        let logit = layer("logit", width, 1)?;
        let bound = (6.0 / (d + width) as f64).sqrt();
        let seen = weights.uniform(&format!("seen{l}.weight"), &[d, width], bound)?;
        let seen_bias = match form {
            Form::Paper => None,
            Form::Theano => Some(weights.zeros(&format!("seen{l}.bias"), &[width])?),
        };
        Ok(Self { seen, seen_bias, asked, logit })
    }

    /// Logits `[N, M, 1, c]` of `seen [N, c, width]` for `asked [M, 1, width]` or `[N, M, 1, width]`.
    fn logits(&self, form: Form, seen: &Tensor, asked: &Tensor) -> Result<Tensor> {
        match form {
            Form::Paper => {
                Ok(hidden_logits(seen, &asked.squeeze(D::Minus2)?, &self.logit[0])?.broadcast_add(&self.logit[1])?)
            }
            Form::Theano => {
                // A layer over a sum: of the parts, each once an item.
                let part = |of: &Tensor| -> Result<Tensor> {
                    Ok(of.tanh()?.broadcast_matmul(&self.logit[0])?.squeeze(D::Minus1)?)
                };
                let (seen, asked) = (part(seen)?.unsqueeze(1)?.unsqueeze(1)?, part(asked)?.unsqueeze(D::Minus1)?);
                Ok(seen.broadcast_add(&asked)?.broadcast_add(&self.logit[1])?.tanh()?)
            }
        }
    }
}

impl Stacked {
    /// Gram matrices, `Wv v` of every layer, and `Wq v` of every layer but the first.
    fn answering(&self, items: &Padded) -> Result<Vec<Tensor>> {
        let v = items.vectors();
        let mut made = vec![items.grams()?];
        for layer in &self.layers {
            made.push(through(v, &layer.seen, layer.seen_bias.as_ref())?);
        }
        for layer in &self.layers[1..] {
            made.push(through(v, &layer.asked[0], None)?);
        }
        Ok(made)
    }

    /// `Wq q + b` of every layer.
    fn asking(&self, items: &Padded) -> Result<Vec<Tensor>> {
        self.layers.iter().map(|layer| through(items.vectors(), &layer.asked[0], Some(&layer.asked[1]))).collect()
    }

    /// The weights of every layer, `[N, M, 1, c]`.
    fn attention(&self, block: &Block<'_>) -> Result<Vec<Tensor>> {
        let (made, seen) = (&block.contexts.made, block.seen.as_ref());
        let mut weights: Vec<Tensor> = Vec::with_capacity(self.layers.len());
        for (l, layer) in self.layers.iter().enumerate() {
            let mut asked = block.aligned(&block.asking.made[l])?;
            if l > 0 {
                let so_far = sum(&weights)?;
                let remembered = block.contexts.items.with(&made[self.layers.len() + l])?;
                asked = attended(&so_far, &remembered)?.broadcast_add(&asked)?;
            }
            weights.push(soften(&layer.logits(self.form, &made[1 + l], &asked)?, seen)?);
        }
        Ok(weights)
    }
}

fn sum(tensors: &[Tensor]) -> Result<Tensor> {
    let mut total = tensors[0].clone();
    for tensor in &tensors[1..] {
        total = (total + tensor)?;
    }
    Ok(total)
}

impl Interaction for Stacked {
    fn images(&self, images: &Padded) -> Result<Vec<Tensor>> {
        if self.direction == Direction::T2i { self.answering(images) } else { self.asking(images) }
    }

    fn texts(&self, texts: &Padded) -> Result<Vec<Tensor>> {
        if self.direction == Direction::T2i { self.asking(texts) } else { self.answering(texts) }
    }

    fn scores(&self, images: &Side, texts: &Side, pairing: Pairing) -> Result<Tensor> {
        let block = Block::new(self.direction, images, texts, pairing)?;
        let weights = sum(&self.attention(&block)?)?;
        let contexts = &block.contexts.items;
        let found = match &self.compared {
            None => {
                let s = similarities(contexts, &block.queries)?;
                relevance_from_grams(&s, &weights, &block.contexts.made[0], &norms(&block.queries)?)?
            }
            Some([hidden, out]) => {
                let x = attended(&weights, contexts)?;
                let inner = x.broadcast_mul(&block.queries)?;
                let apart = x.broadcast_sub(&block.queries)?.abs()?;
                let (n, m, _, d) = x.dims4()?;
                let both = Tensor::cat(&[inner, apart], D::Minus1)?.reshape((n, m, 2 * d))?;
                let hidden = through(&both, &hidden[0], Some(&hidden[1]))?.relu()?;
                candle_nn::ops::sigmoid(&through(&hidden, &out[0], Some(&out[1]))?)?
            }
        };
        block.scores(&found.squeeze(2)?)
    }

    fn attention(&self, image: &Side, text: &Side) -> Result<Vec<AttentionMap>> {
        let weights = self.attention(&Block::new(self.direction, image, text, Pairing::Every)?)?;
        let layer = |(l, weights)| AttentionMap::of(format!("layer {}", l + 1), self.direction, weights);
        weights.iter().enumerate().map(layer).collect()
    }

    fn weights(&self) -> Vec<Tensor> {
        let layers = self.layers.iter().flat_map(|layer| {
            std::iter::once(&layer.seen).chain(&layer.seen_bias).chain(&layer.asked).chain(&layer.logit)
        });
        layers.chain(self.compared.iter().flatten().flatten()).cloned().collect()
    }
}

/// The weights of both layers, `u^2` and what the answers' layer makes of it, one image a question.
fn golden(case: &Case) -> Result<Answer> {
    case.only(&["layers", "variant"])?;
    let paper = match case.config::<String>("variant")?.as_str() {
        "paper" => true,
        "theano" => false,
        _ => return Err(case.unsupported("variant", "paper or theano")),
    };
    let param = |name: &str| -> Result<Tensor> { case.get(&format!("param.{name}"))?.tensor(DType::F64) };
    // The paper's form has matrices as [out, in].
    let matrix = |name: &str| -> Result<Tensor> { Ok(param(name)?.t()?.contiguous()?) };
    let layer = |l: usize| -> Result<Layer> {
        Ok(match paper {
            true => Layer {
                seen: matrix(&format!("fc{l}2.weight"))?,
                seen_bias: None,
                asked: [matrix(&format!("fc{l}1.weight"))?, param(&format!("fc{l}1.bias"))?],
                logit: [matrix(&format!("fc{l}3.weight"))?, param(&format!("fc{l}3.bias"))?],
            },
            false => {
                let of = |part: &str| -> Result<[Tensor; 2]> {
                    Ok([param(&format!("{part}_att_mlp_{l}_w"))?, param(&format!("{part}_att_mlp_{l}_b"))?])
                };
                let [seen, bias] = of("image")?;
                Layer { seen, seen_bias: Some(bias), asked: of("sent")?, logit: of("combined")? }
            }
        })
    };
    let count: usize = case.config("layers")?;
    if !(1..=2).contains(&count) {
        return Err(case.unsupported("layers", "1 or 2"));
    }
    let stacked = Stacked {
        direction: Direction::T2i,
        form: if paper { Form::Paper } else { Form::Theano },
        layers: (1..=count).map(layer).collect::<Result<_>>()?,
        compared: None,
    };
    let image = Var::from_tensor(&case.get("in.image")?.tensor(DType::F64)?)?;
    let question = Var::from_tensor(&case.get("in.question")?.tensor(DType::F64)?)?;
    let images = Side::images(&stacked, Padded::full(&image)?)?;
    let texts = Side::texts(&stacked, Padded::full(&question.unsqueeze(1)?)?)?;
    let block = Block::new(Direction::T2i, &images, &texts, Pairing::Matching)?;
    let weights = stacked.attention(&block)?;
    let mut answer = Answer::default();
    for (l, weights) in weights.iter().enumerate() {
        answer = answer.with(&format!("out.p{}", l + 1), values(weights)?);
    }
    let seen = attended(&sum(&weights)?, &images.items)?.squeeze(1)?.squeeze(1)?;
    let last = (question.as_tensor() + seen)?;
    answer = answer.with(&format!("out.u{count}"), values(&last)?);
    let scored = match case.has("param.fc.weight") {
        true => last.matmul(&matrix("fc.weight")?)?.broadcast_add(&param("fc.bias")?)?,
        false => last,
    };
    if case.has("out.score") {
        answer = answer.with("out.score", values(&scored)?);
    }
    if case.has("in.cotangent") {
        let grads = (scored * case.get("in.cotangent")?.tensor(DType::F64)?)?.sum_all()?.backward()?;
        for (name, var) in [("grad.image", &image), ("grad.question", &question)] {
            let grad = grads.get(var).map_or_else(|| var.zeros_like(), |grad| Ok(grad.clone()))?;
            answer = answer.with(name, values(&grad)?);
        }
    }
    Ok(answer)
}

#[cfg(test)]
mod tests;
