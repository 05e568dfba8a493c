//! IMRAM: cross attention in several steps, between which what asks remembers what it saw.
//!
//! With the regions `v_j` and words `u_i` of SCAN, words asking regions (`text`; `image` has the roles exchanged and weights of its
//! own), `q_i^1 = u_i` and
//!
//! ```text
//! a_i^k = attention of q_i^k over the v_j, equations (1) to (4) of [`cross`](crate::nn::cross)                        (1)
//! s^k   = mean over i of u_i · a_i^k / max(|u_i| |a_i^k|, 1e-8)                                                       (2)
//! g     = sigmoid(Wg [q_i^k ; a_i^k] + bg),   m = tanh(Wm [q_i^k ; a_i^k] + bm)                                       (3)
//! q_i^(k+1) = g q_i^k + (1 - g) m,   l2n of it with `memory_norm`                                                     (4)
//! S(image, text) = sum over k = 1..K of s^k;   `full` adds both branches                                              (5)
//! ```
//! trained by equation (4) of [`scan`](super::scan). Chen, Ding, Liu, Lin, Liu and Han, CVPR 2020; `HuiChen24/IMRAM@acada5c`, whose
//! scripts pass `--no_IMRAM_norm` and whose relevance (2) is taken with the fragment as it began.
//!
//! Attended vectors are never built: `W [q ; a] = Wq q + Wa a` and `Wa a_i = sum_j w_ij (Wa v_j)`, with `Wa v_j` made once a region
//! and `Wq u_i` once a word. Of the `2 n d²` products a pair that the released code spends in (3), twice a step, those of step 2 go
//! to the items, and only steps 3 to K pay for `Wq q_i^k`. The update after step K, which nobody reads, is left out
//! unless `extra_update` asks for the released amount of work.
//!
//! Departures: other texts of the same image are no negatives (`negatives = "paper"` for the released rule).

use candle_core::{DType, Tensor, Var};
use serde::{Deserialize, Serialize};

use self::gate::gated;
use crate::{
    AttentionMap, Result, Similarity,
    card::Card,
    golden::{Answer, Case, Operation},
    nn::{
        Finish, Init, Lengths, Linear, Scaling, Weights,
        cross::{
            Aggregation, Attention, Block, Direction, Interaction, InteractionScorer, Norm, Padded, Pairing, Relevance,
            Side, attended_plus, golden::values, interact, norms, relevance_from_grams, similarities,
        },
        l2n,
    },
    params::out_of_range,
    trained::{Attended, Batch, Fitting, Loss, Ranking, Shared, Trained},
};

mod gate;

/// The method.
pub static IMRAM: Trained<Params> = Trained::new();

/// Which branches score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Words ask regions.
    Text,
    /// Regions ask words.
    Image,
    /// The sum of both.
    Full,
}

impl Mode {
    /// Who asks.
    fn directions(self) -> &'static [Direction] {
        match self {
            Self::Text => &[Direction::T2i],
            Self::Image => &[Direction::I2t],
            Self::Full => &[Direction::T2i, Direction::I2t],
        }
    }
}

/// Parameters; the defaults are the paper's final model with the temperature of the released script.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Which branches score.
    pub mode: Mode,
    /// K of equation (5).
    pub steps: usize,
    /// Normalisation of similarities along the queries.
    pub raw_feature_norm: Norm,
    /// Inverse temperature of the attention.
    pub lambda_softmax: f64,
    /// Whether memories are scaled to unit length, equation (4).
    pub memory_norm: bool,
    /// Whether the memory is updated once more after the last step.
    pub extra_update: bool,
    /// The hinge.
    #[serde(flatten)]
    pub ranking: Ranking,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            mode: Mode::Full,
            steps: 3,
            raw_feature_norm: Norm::ClippedL2norm,
            lambda_softmax: 9.0,
            memory_norm: false,
            extra_update: false,
            ranking: Ranking::default(),
        }
    }
}

/// The most steps: each builds on the vectors of the one before, and no paper has more than three.
const MOST_STEPS: usize = 16;

impl Loss for Params {
    type Body = Attended;
    type Head = InteractionScorer<Recurrent>;

    fn card() -> &'static Card {
        crate::card!("imram.toml")
    }

    fn check(&self, shared: &Shared<Attended>) -> Result<()> {
        if !(self.lambda_softmax > 0.0 && self.lambda_softmax.is_finite()) {
            return Err(out_of_range("imram", "lambda_softmax", "a number above 0", self.lambda_softmax));
        }
        if !(1..=MOST_STEPS).contains(&self.steps) {
            return Err(out_of_range("imram", "steps", &format!("1 to {MOST_STEPS}"), self.steps));
        }
        shared.has_negatives("imram")?;
        self.ranking.check("imram")
    }

    fn ends(&self) -> Finish {
        Finish::both(Scaling::L2n)
    }

    fn head(&self, fitting: &mut Fitting<'_, Attended>) -> Result<InteractionScorer<Recurrent>> {
        let (d, device) = (fitting.shared.options.embedding, fitting.device());
        let updates = self.steps > 1 || self.extra_update;
        let branches = self.mode.directions().iter().map(|&direction| {
            let memory = updates.then(|| Memory::new(fitting.weights, direction, d)).transpose()?;
            Ok(Branch { direction, memory })
        });
        let interaction = Recurrent {
            attention: Attention { norm: self.raw_feature_norm, lambda_softmax: self.lambda_softmax },
            steps: self.steps,
            memory_norm: self.memory_norm,
            extra_update: self.extra_update,
            branches: branches.collect::<Result<_>>()?,
        };
        Ok(InteractionScorer { interaction, device })
    }

    fn loss(&self, head: &InteractionScorer<Recurrent>, batch: &Batch<'_, Attended>) -> Result<Tensor> {
        let (regions, words) = (batch.regions()?, batch.words()?);
        let scores = interact(&head.interaction, &regions.ends, &words.ends, &words.lengths)?; // (1) to (5)
        self.ranking.loss(&scores, &batch.relations()?, batch.epoch)
    }

    fn collapsed(&self, batch: usize, epoch: usize) -> Option<f64> {
        self.ranking.collapsed(batch, epoch)
    }

    fn similarity<'a>(&'a self, head: &'a InteractionScorer<Recurrent>) -> Similarity<'a> {
        Similarity::Pairwise(head)
    }

    fn operations() -> Vec<Operation> {
        vec![Operation { name: "attn.imram", run: golden, ignored: &[] }]
    }
}

/// Cross attention in steps.
#[derive(Debug, Clone)]
pub struct Recurrent {
    attention: Attention,
    steps: usize,
    memory_norm: bool,
    extra_update: bool,
    branches: Vec<Branch>,
}

/// One direction; a memory where there is more than one step.
#[derive(Debug, Clone)]
struct Branch {
    direction: Direction,
    memory: Option<Memory>,
}

/// The layers of equation (3), `[2 d, d]` with their biases `[d]`.
#[derive(Debug, Clone)]
struct Memory {
    gate: [Tensor; 2],
    update: [Tensor; 2],
}

/// A layer applied to each vector of `[items, most, d]`: the half of its matrix that starts at row `from`.
fn half(layer: &[Tensor; 2], from: usize, items: &Tensor) -> Result<Tensor> {
    let (n, most, d) = items.dims3()?;
    let weight = layer[0].narrow(0, from, d)?;
    Ok(items.reshape((n * most, d))?.matmul(&weight)?.reshape((n, most, weight.dim(1)?))?)
}

impl Memory {
    fn new(weights: &mut Weights, direction: Direction, d: usize) -> Result<Self> {
        let side = match direction {
            Direction::T2i => "t2i",
            Direction::I2t => "i2t",
        };
        let mut layer = |name: &str| Init::Pytorch.layer(weights, &format!("{name}_{side}"), 2 * d, d);
        Ok(Self { gate: layer("gate")?, update: layer("linear")? })
    }

    /// `Wa v` of both layers for the vectors that answer.
    fn answering(&self, items: &Padded) -> Result<Vec<Tensor>> {
        let (v, d) = (items.vectors(), items.vectors().dim(2)?);
        let layer = |layer: &[Tensor; 2]| -> Result<Tensor> { Ok(items.with(&half(layer, d, v)?)?.vectors().clone()) };
        Ok(vec![layer(&self.gate)?, layer(&self.update)?])
    }

    /// `Wq q + b` of both layers for the vectors that ask.
    fn asking(&self, items: &Tensor) -> Result<Vec<Tensor>> {
        let layer = |[weight, bias]: &[Tensor; 2]| {
            let half = weight.narrow(0, 0, bias.dim(0)?)?;
            Linear::from_parts(half, bias.clone()).forward(items)
        };
        Ok(vec![layer(&self.gate)?, layer(&self.update)?])
    }
}

impl Branch {
    /// Gram matrices, and the halves of the memory's layers, of the items that answer or ask.
    fn made(&self, items: &Padded, answers: bool) -> Result<Vec<Tensor>> {
        let memory = match &self.memory {
            Some(memory) if answers => memory.answering(items)?,
            Some(memory) => memory.asking(items.vectors())?,
            None => Vec::new(),
        };
        Ok(if answers { [vec![items.grams()?], memory].concat() } else { memory })
    }

    /// Tensors that [`Branch::made`] gives for one side.
    fn count(&self, answers: bool) -> usize {
        usize::from(answers) + if self.memory.is_some() { 2 } else { 0 }
    }
}

impl Recurrent {
    fn made(&self, items: &Padded, images: bool) -> Result<Vec<Tensor>> {
        let each =
            self.branches.iter().map(|branch| branch.made(items, images == (branch.direction == Direction::T2i)));
        Ok(each.collect::<Result<Vec<_>>>()?.concat())
    }

    /// Of the branch at a position, the weights of every step, `[N, M, q, c]`, with equation (2) of it, as [`Interaction::scores`]
    /// shapes it.
    fn steps(&self, at: usize, images: &Side, texts: &Side, pairing: Pairing) -> Result<Vec<[Tensor; 2]>> {
        let branch = &self.branches[at];
        let block = Block::new(branch.direction, images, texts, pairing)?;
        let own = |side: &'_ Side, answers: bool| -> Vec<Tensor> {
            let images = answers == (branch.direction == Direction::T2i);
            let before =
                self.branches[..at].iter().map(|other| other.count(images == (other.direction == Direction::T2i)));
            let start: usize = before.sum();
            side.made[start..start + branch.count(answers)].to_vec()
        };
        let (answering, asking) = (own(block.contexts, true), own(block.asking, false));
        let (contexts, asked, seen) = (&block.contexts.items, block.asked.as_ref(), block.seen.as_ref());
        let mean = Relevance { aggregation: Aggregation::Mean, lambda_lse: 1.0 };
        let lengths = norms(&block.queries)?;
        let began = similarities(contexts, &block.queries)?;
        let mut now = (block.queries.clone(), began.clone());
        let mut scores = Vec::with_capacity(self.steps);
        for step in 1..=self.steps {
            let weights = self.attention.weights(&now.1, asked, seen)?; // (1)
            let relevance = relevance_from_grams(&began, &weights, &answering[0], &lengths)?;
            scores.push([weights.clone(), block.scores(&mean.aggregate(&relevance, asked)?)?]); // (2)
            let Some(memory) = &branch.memory else { continue };
            if step == self.steps && !self.extra_update {
                break;
            }
            let of_queries = match step {
                1 => asking.iter().map(|made| block.aligned(made)).collect::<Result<Vec<_>>>()?,
                _ => {
                    let (n, m, q, d) = now.0.dims4()?;
                    let made = memory.asking(&now.0.reshape((n * m, q, d))?)?;
                    made.iter().map(|made| Ok(made.reshape((n, m, q, d))?)).collect::<Result<Vec<_>>>()?
                }
            };
            let of_layer = |at: usize| attended_plus(&weights, &answering[1 + at], &of_queries[at]);
            let next = gated(&of_layer(0)?, &of_layer(1)?, &now.0)?; // (3), (4)
            let next = if self.memory_norm { l2n(&next)? } else { next };
            now = (next.clone(), similarities(contexts, &next)?);
        }
        Ok(scores)
    }
}

impl Interaction for Recurrent {
    fn images(&self, images: &Padded) -> Result<Vec<Tensor>> {
        self.made(images, true)
    }

    fn texts(&self, texts: &Padded) -> Result<Vec<Tensor>> {
        self.made(texts, false)
    }

    fn scores(&self, images: &Side, texts: &Side, pairing: Pairing) -> Result<Tensor> {
        let mut all = Vec::new();
        for at in 0..self.branches.len() {
            all.extend(self.steps(at, images, texts, pairing)?.into_iter().map(|[_, scores]| scores));
        }
        let mut total = all[0].clone();
        for step in &all[1..] {
            total = (total + step)?;
        }
        Ok(total) // (5)
    }

    fn attention(&self, image: &Side, text: &Side) -> Result<Vec<AttentionMap>> {
        let mut maps = Vec::new();
        for (at, branch) in self.branches.iter().enumerate() {
            for (step, [weights, _]) in self.steps(at, image, text, Pairing::Every)?.iter().enumerate() {
                maps.push(AttentionMap::of(format!("step {}", step + 1), branch.direction, weights)?);
            }
        }
        Ok(maps)
    }

    fn weights(&self) -> Vec<Tensor> {
        let memories = self.branches.iter().filter_map(|branch| branch.memory.as_ref());
        memories.flat_map(|memory| memory.gate.iter().chain(&memory.update)).cloned().collect()
    }
}

/// Scores of every step and branch, and gradients of their sum; in f64, for the norm over a single word that is hardly similar has a
/// gradient of which f32 keeps no digit.
fn golden(case: &Case) -> Result<Answer> {
    case.only(&["iteration_step", "lambda_softmax", "model_mode", "no_IMRAM_norm", "raw_feature_norm"])?;
    let mode = match case.config::<String>("model_mode")?.as_str() {
        "text_IMRAM" => Mode::Text,
        "image_IMRAM" => Mode::Image,
        "full_IMRAM" => Mode::Full,
        _ => return Err(case.unsupported("model_mode", "text_IMRAM, image_IMRAM or full_IMRAM")),
    };
    let var = |name: &str| -> Result<Var> { Ok(Var::from_tensor(&case.get(name)?.tensor(DType::F64)?)?) };
    let mut params = Vec::new();
    for side in ["t2i", "i2t"] {
        for layer in ["gate", "linear"] {
            for part in ["weight", "bias"] {
                // A file has a layer's matrix as [out, in].
                let name = format!("{layer}_{side}.{part}");
                let tensor = case.get(&format!("param.{name}"))?.tensor(DType::F64)?;
                let tensor = if tensor.rank() == 2 { tensor.t()?.contiguous()? } else { tensor };
                params.push((name, Var::from_tensor(&tensor)?));
            }
        }
    }
    let layer = |at: usize| [0, 1].map(|part| params[at + part].1.as_tensor().clone());
    let branch = |direction: Direction| {
        let at = if direction == Direction::T2i { 0 } else { 4 };
        Branch { direction, memory: Some(Memory { gate: layer(at), update: layer(at + 2) }) }
    };
    let recurrent = |directions: &[Direction]| -> Result<Recurrent> {
        Ok(Recurrent {
            attention: Attention {
                norm: case.config("raw_feature_norm")?,
                lambda_softmax: case.config("lambda_softmax")?,
            },
            steps: case.config("iteration_step")?,
            memory_norm: !case.config::<bool>("no_IMRAM_norm")?,
            extra_update: false,
            branches: directions.iter().map(|&direction| branch(direction)).collect(),
        })
    };
    let (images, captions) = (var("in.images")?, var("in.captions")?);
    let lengths = Lengths::new(case.get("in.cap_lens")?.indices())?;
    let mut answer = Answer::default();
    for (name, direction) in [("out.steps_t2i", Direction::T2i), ("out.steps_i2t", Direction::I2t)] {
        let one = recurrent(&[direction])?;
        let (images, texts) = (Padded::full(&images)?, Padded::new(&captions, &lengths)?);
        let (images, texts) = (Side::images(&one, images)?, Side::texts(&one, texts)?);
        let steps = one.steps(0, &images, &texts, Pairing::Every)?.into_iter().map(|[_, scores]| scores);
        answer = answer.with(name, values(&Tensor::stack(&steps.collect::<Vec<_>>(), 0)?)?);
    }
    let scores = interact(&recurrent(mode.directions())?, &images, &lengths.unpad(&captions)?, &lengths)?;
    answer = answer.with("out.scores", values(&scores)?);
    if case.has("in.cotangent") {
        let cotangent = case.get("in.cotangent")?.tensor(DType::F64)?;
        let grads = (scores * cotangent)?.sum_all()?.backward()?;
        let params = params.iter().map(|(name, var)| (format!("grad.param_{name}"), var));
        let inputs = [("grad.images".to_string(), &images), ("grad.captions".to_string(), &captions)];
        for (name, var) in inputs.into_iter().chain(params) {
            let grad = grads.get(var).map_or_else(|| var.zeros_like(), |grad| Ok(grad.clone()))?;
            let grad = if grad.rank() == 2 { grad.t()? } else { grad };
            answer = answer.with(&name, values(&grad)?);
        }
    }
    Ok(answer)
}

#[cfg(test)]
mod tests;
