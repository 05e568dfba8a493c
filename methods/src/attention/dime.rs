//! DIME: the regions (or words) of an item are refined by four kinds of cells in three layers, routed anew for every pair, and compared
//! with one vector of the other item.
//!
//! With `X` the vectors that are refined (regions of `i2t`, words of `t2i`), `U` those of the other side and `g` its global vector:
//!
//! ```text
//! p = relu(tanh(W_2 relu(W_1 mean X + b_1) + b_2))              the router of each cell, 4 paths a cell           (1)
//! identity    E_0 = relu(X)                                                                                         (2)
//! guidance    E_1 = (1 + y) X,  y = unit over the vectors of (W X + b) g                                             (3)
//! reasoning   E_2 = H + W_4 relu(W_3 H),  H = X + self-attention of several heads                                    (4)
//! refinement  E_3 = X + W_6 relu(W_5 (X tanh(W_s c) + W_t c)),  c = cross attention of X to U                        (5)
//! Y_o = sum_c p_co E_c / (sum_c p_co + 1e-8) + [sum_c p_co < 1e-4] E_0      layers 0 and 1, o = 0 .. 3               (6)
//! Z   = sum_c (p_c E_c + m_c Y_c) / sum_c (p_c + m_c),  m_c = [p_c < 2.5e-5]     layer 2, one path a cell            (7)
//! s   = g . unit(mean Z' + max Z'),  Z' the batch normalisation of Z over the vectors of all pairs                   (8)
//! L   = hinge + path_weight / B |P P^T - B B^T|^2                                                                      (9)
//! ```
//! Every product has a bias. Cell `c` of layers 1 and 2 reads output `c` of the layer below. A row of `P` is `unit` of a layer over
//! all 36 shares and gates of an item, averaged over the batch's items of the other side; a row of `B` stands for its caption, without
//! gradient. Cross attention is that of [`cross`](crate::nn::cross). Qu, Liu, Wu, Gao and Nie, SIGIR 2021; code LgQu/DIME@5a711c4.
//!
//! Two models, `i2t` and `t2i`; the paper's best rows average the scores of both. Of layer 0, (2), (4), the map of (3) and all routers
//! are computed once an item, and `W_s c`, `W_t c` as attended `W_s U`, `W_t U`, in every layer.
//!
//! Departures. There is no BERT: words are read by the shared text encoder; a sentence is `unit(mean x + W max x + b)` of its words'
//! vectors (released: the same over convolutions on frozen BERT), and a row of `B` the unit mean of them (released: of frozen states).
//! An image's global vector is the unit mean of its regions behind batch normalisation, as released. Words behind a text's end are
//! neither refined nor attended nor counted. In the released code a text has 32 positions: a longer one is cut, and the padding of a shorter
//! one, an output of BERT, takes part in sentences, in rows of `B` and, as words of `t2i`, in everything; `positions = 32` does that with a
//! learnt vector as padding. The released code trains 32 further random captions (or
//! images) a step as negatives of one direction, to make up for small batches; here a larger `batch` does. Two texts of one image are no
//! negatives unless `negatives = "paper"`.
//!
//! (8) ties all pairs of a batch together, so a step keeps all of them: about `170 batch^2 q d` values for `q` vectors an item, 6 GB in the
//! paper's setting, and 8 GB on the way back. An encoded gallery is scored by the running moments, about 62 million products a pair.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use xmbench_datasets::{Images, Texts};

use self::{
    cells::{Locals, Sizes},
    columns::largest,
    network::Dime,
    padding::Padding,
};
use crate::{
    Codes, Fragments, Result, Similarity,
    card::Card,
    golden::Operation,
    nn::{
        BatchNorm, Finish, Lengths, Linear, Scaling, Weights,
        cross::{Attention, Direction, InteractionScorer, Norm, Padded, Pairing, Side},
        unit,
    },
    params::out_of_range,
    train::Schedule,
    trained::{Attended, Batch, Encoding, Fitting, FragmentEncoders, Loss, Ranking, Shared, Trained},
};

mod cells;
mod columns;
mod golden;
mod modulate;
mod network;
mod padding;
mod router;

const NAME: &str = "dime";

/// The method.
pub static DIME: Trained<Params> = Trained::new();

/// Parameters; the defaults are the released code's, of the direction that is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Which side is refined: regions of `i2t`, words of `t2i`.
    pub direction: Direction,
    /// Normalisation of similarities along the queries, in (5).
    pub raw_feature_norm: Norm,
    /// Inverse temperature of the attention in (5).
    pub lambda_softmax: f64,
    /// Heads of (4).
    pub heads: usize,
    /// Width between the two layers of (4).
    pub reasoning_width: usize,
    /// Width of the hidden layer of (1).
    pub router_width: usize,
    /// Weight of the second term of (9); 0 leaves it out.
    pub path_weight: f64,
    /// Length of the rows of `P` in (9).
    pub path_width: usize,
    /// Positions of a text, padding included, which then takes part; 0 for its words alone.
    pub positions: usize,
    /// The hinge of (9).
    #[serde(flatten)]
    pub ranking: Ranking,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            direction: Direction::I2t,
            raw_feature_norm: Norm::ClippedL2norm,
            lambda_softmax: 4.0,
            heads: 16,
            reasoning_width: 512,
            router_width: 512,
            path_weight: 0.5,
            path_width: 128,
            positions: 0,
            ranking: Ranking::default(),
        }
    }
}

impl Loss for Params {
    type Body = Attended;
    type Head = Head;

    fn card() -> &'static Card {
        crate::card!("dime.toml")
    }

    fn shared() -> Shared<Attended> {
        let options = FragmentEncoders { embedding: 256, ..FragmentEncoders::default() };
        Shared { options, schedule: Schedule { batch: 32, ..Schedule::default() }, ..Shared::default() }
    }

    fn imply(written: &mut toml::Table) {
        if written.get("direction").and_then(toml::Value::as_str) == Some("t2i") {
            written.entry("lambda_softmax").or_insert(toml::Value::Float(9.0));
        }
    }

    fn check(&self, shared: &Shared<Attended>) -> Result<()> {
        if !(self.lambda_softmax > 0.0 && self.lambda_softmax.is_finite()) {
            return Err(out_of_range(NAME, "lambda_softmax", "a number above 0", self.lambda_softmax));
        }
        if !(self.path_weight >= 0.0 && self.path_weight.is_finite()) {
            return Err(out_of_range(NAME, "path_weight", "a number from 0 up", self.path_weight));
        }
        if self.path_weight == 0.0 && self.path_width != Self::default().path_width {
            return Err(out_of_range(NAME, "path_width", "the default where `path_weight` is 0", self.path_width));
        }
        for (key, value) in [
            ("reasoning_width", self.reasoning_width),
            ("router_width", self.router_width),
            ("path_width", self.path_width),
        ] {
            if value == 0 || value > 1 << 16 {
                return Err(out_of_range(NAME, key, "1 to 65536", value));
            }
        }
        if self.positions > 1 << 12 {
            return Err(out_of_range(NAME, "positions", "0 to 4096", self.positions));
        }
        let width = shared.options.embedding;
        if self.heads == 0 || !width.is_multiple_of(self.heads) {
            let expected = format!("a number that divides `embedding`, {width}");
            return Err(out_of_range(NAME, "heads", &expected, self.heads));
        }
        shared.has_negatives(NAME)?;
        self.ranking.check(NAME)
    }

    fn ends(&self) -> Finish {
        Finish::both(Scaling::Unit)
    }

    fn head(&self, fitting: &mut Fitting<'_, Attended>) -> Result<Head> {
        let (width, device, weights) = (fitting.shared.options.embedding, fitting.device(), &mut *fitting.weights);
        let sizes = Sizes { width, heads: self.heads, reasoning: self.reasoning_width, router: self.router_width };
        let attention = Attention { norm: self.raw_feature_norm, lambda_softmax: self.lambda_softmax };
        let interaction = Dime::new(weights, self.direction, sizes, attention)?;
        let global = match self.direction {
            Direction::T2i => Global::Image(BatchNorm::new(weights, "image.norm", width)?),
            Direction::I2t => Global::Sentence(Linear::new(weights, "sentence", width, width)?),
        };
        let regulariser = match self.path_weight > 0.0 {
            true => Some(Regulariser::new(weights, self.path_width)?),
            false => None,
        };
        let padding = match self.positions {
            0 => None,
            positions => Some(Padding::new(weights, width, positions)?),
        };
        Ok(Head { scorer: InteractionScorer { interaction, device }, global, regulariser, padding })
    }

    fn loss(&self, head: &Head, batch: &Batch<'_, Attended>) -> Result<Tensor> {
        let (regions, joint) = (batch.regions()?, batch.body().joint());
        let (words, padding) = (batch.words()?, head.padding.as_ref());
        let whole = padding::fill(padding, &words.raw, &words.lengths)?;
        let (images, texts) = match &head.global {
            Global::Image(norm) => {
                let texts = Padded::packed(&joint.finish_texts(&whole.0)?, &whole.1)?;
                (Padded::full(&with_image(norm, &regions.raw, &regions.ends, true)?)?, texts)
            }
            Global::Sentence(layer) => {
                let sentences = sentences(layer, &whole.0, &whole.1)?.unsqueeze(1)?;
                let (words, lengths) = padding::cut(padding, &words.ends, &words.lengths)?;
                let words = lengths.pad(&words, lengths.longest())?;
                let lengths = Lengths::new(lengths.as_slice().iter().map(|length| length + 1))?;
                (Padded::full(&regions.ends)?, Padded::new(&Tensor::cat(&[&sentences, &words], 1)?, &lengths)?)
            }
        };
        let dime = &head.scorer.interaction;
        let (images, texts) = (Side::images(dime, images)?, Side::texts(dime, texts)?);
        let refined = dime.refine(&images, &texts, Pairing::Every)?; // (1) to (7)
        let scores = dime.turned(&dime.compare(&refined, true)?)?; // (8)
        let loss = self.ranking.loss(&scores, &batch.relations()?, batch.epoch)?;
        let Some(regulariser) = &head.regulariser else { return Ok(loss) };
        let captions = unit(&whole.1.mean(&whole.0.detach())?)?.detach();
        Ok((loss + (regulariser.loss(&refined.paths, &captions)? * self.path_weight)?)?) // (9)
    }

    fn collapsed(&self, batch: usize, epoch: usize) -> Option<f64> {
        // Where all items are alike, so are their paths and captions: the second term of (9) is 0.
        self.ranking.collapsed(batch, epoch)
    }

    fn encode_images(&self, head: &Head, body: &Attended, images: &Images) -> Result<Codes> {
        let (Global::Image(norm), Some(table)) = (&head.global, &images.fragments) else {
            return crate::trained::Body::encode_images(body, images);
        };
        let (joint, each) = (body.joint(), table.fragments() + 1);
        let mut codes = Fragments { dim: joint.width(), offsets: vec![0], data: Vec::new() };
        for items in (0..images.len()).collect::<Vec<_>>().chunks(BLOCK) {
            let raw = joint.regions(images, items, None)?;
            let vectors = with_image(norm, &raw, &joint.finish_images(&raw)?, false)?;
            codes.data.extend(vectors.flatten_all()?.to_vec1::<f32>()?);
        }
        codes.offsets.extend((1..=images.len()).map(|image| image * each));
        Ok(Codes::Fragments(codes))
    }

    fn encode_texts(&self, head: &Head, body: &Attended, texts: &Texts) -> Result<Codes> {
        let (joint, padding) = (body.joint(), head.padding.as_ref());
        let width = joint.width();
        let mut codes = Fragments { dim: width, offsets: vec![0], data: Vec::new() };
        for items in (0..texts.ids.len()).collect::<Vec<_>>().chunks(BLOCK) {
            let read = joint.states(texts, items)?;
            let (raw, lengths) = (joint.words(&read)?, &read.tokens.lengths);
            let whole = padding::fill(padding, &raw, lengths)?;
            let (sentences, (words, lengths)) = match &head.global {
                Global::Image(_) => (None, whole),
                Global::Sentence(layer) => {
                    let sentences = sentences(layer, &whole.0, &whole.1)?.to_vec2::<f32>()?;
                    (Some(sentences), padding::cut(padding, &raw, lengths)?)
                }
            };
            let words = joint.finish_texts(&words)?.flatten_all()?.to_vec1::<f32>()?;
            for text in 0..lengths.len() {
                codes.data.extend(sentences.iter().flat_map(|sentences| &sentences[text]));
                let range = lengths.range(text);
                codes.data.extend(&words[range.start * width..range.end * width]);
                codes.offsets.push(codes.data.len() / width);
            }
        }
        Ok(Codes::Fragments(codes))
    }

    fn similarity<'a>(&'a self, head: &'a Head) -> Similarity<'a> {
        Similarity::Pairwise(&head.scorer)
    }

    fn operations() -> Vec<Operation> {
        vec![Operation { name: "attn.dime", run: golden::run, ignored: &[] }]
    }
}

/// Items that are encoded at once.
const BLOCK: usize = 256;

/// What is learnt beside the encoders.
pub struct Head {
    scorer: InteractionScorer<Dime>,
    global: Global,
    regulariser: Option<Regulariser>,
    padding: Option<Padding>,
}

/// The global vector of the side that is not refined.
enum Global {
    /// Of an image, by normalisation over the batch.
    Image(BatchNorm),
    /// Of a text, by a layer over the largest values of its words.
    Sentence(Linear),
}

/// Images with their global vector in front, `[images, 1 + regions, d]`.
fn with_image(norm: &BatchNorm, raw: &Tensor, ends: &Tensor, training: bool) -> Result<Tensor> {
    let global = unit(&norm.forward(&raw.mean(1)?, training)?)?;
    Ok(Tensor::cat(&[&global.unsqueeze(1)?, ends], 1)?)
}

/// The global vectors of texts, `[texts, d]`, from their words' raw vectors.
fn sentences(layer: &Linear, raw: &Tensor, lengths: &Lengths) -> Result<Tensor> {
    let steps = lengths.longest();
    let real = Some(lengths.mask(steps, raw.device())?.unsqueeze(0)?);
    let most = largest(&Locals { vectors: lengths.pad(raw, steps)?.unsqueeze(0)?, real })?.squeeze(0)?;
    unit(&(lengths.mean(raw)? + layer.forward(&most)?)?)
}

/// The second term of (9).
struct Regulariser(Linear);

impl Regulariser {
    /// Weights `paths.weight [36, width]` and `paths.bias`.
    fn new(weights: &mut Weights, width: usize) -> Result<Self> {
        Ok(Self(Linear::new(weights, "paths", 36, width)?))
    }

    /// `P P^T`, `[M, M]`, of shares and gates `[1 or N, M, outputs, cells]`.
    fn similarities(&self, paths: &[Tensor; 3]) -> Result<Tensor> {
        let flat = paths.iter().map(|paths| paths.mean(0)?.flatten_from(1));
        let rows = unit(&self.0.forward(&Tensor::cat(&flat.collect::<candle_core::Result<Vec<_>>>()?, 1)?)?)?;
        Ok(rows.matmul(&rows.t()?)?)
    }

    /// Without its weight, for `captions [M, d]` of length 1.
    fn loss(&self, paths: &[Tensor; 3], captions: &Tensor) -> Result<Tensor> {
        let apart = (self.similarities(paths)? - captions.matmul(&captions.t()?)?)?;
        Ok((apart.sqr()?.sum_all()? / captions.dim(0)? as f64)?)
    }
}

#[cfg(test)]
mod tests;
