//! NAAF: a word that nothing in the image answers counts against the pair, and what answers it counts for it, twice.
//!
//! With words `u_i` (`i = 1..n`) and regions `v_j` of unit length, `s_ij = u_i · v_j`, and a threshold `t`:
//! ```text
//! m_i   = max_j s_ij - t
//! neg_i = m_i [g_i < 0]      g_i = m_i in training, at test sum_l softmax_l(5 u_i · u_l) m_l                   (1)
//! w_ij  = e_ij / (sum_j e_ij + 1e-8),   e_ij = exp(lambda (s_ij - t)) [s_ij > t],   a_i = sum_j w_ij v_j       (2)
//! pos_i = u_i · a_i / max(|a_i|, 1e-8)                                                                         (3)
//! rel_i = sum_j b_ij s_ij,   b_ij = softmax_j(lambda l2n_i(LeakyReLU_0.1(s_ij)))                               (4)
//! S(image, text) = 1/n sum_i (neg_i + pos_i + rel_i)                                                           (5)
//! L = sum_b [margin + max_c S_bc - S_bb]+ + [margin + max_c S_cb - S_bb]+                                      (6)
//! ```
//! where `l2n_i` divides by the L2 norm over the words of the text + 1e-8. Zhang, Mao, Wang and Zhang, CVPR 2022. The threshold is
//! found while a batch is scored, one text after another: see [`mining`]. A matcher scores with `t = m+ - 3 d+`, the safe one.
//!
//! All of this is what CrossmodalGroup/NAAF@cafcd6f does, which differs from the paper's text in its norms. So it is for two things
//! in it that look unintended: thresholds begin at 0 in every batch, so that the texts before the first `threshold_samples` words,
//! the longest ones, train with `t = 0`; and the matcher has the threshold that the last batch left, which is 0 after a batch with
//! too few words. With `reset = false` thresholds go on from batch to batch instead.
//!
//! Departures: word vectors begin at random, as the released code has them with `precomp_enc_text_type = "basic"`; its default are
//! those of GloVe, which are not here. A text of one word scores by (5), where the released code adds up other images' (3). An
//! incomplete last batch takes no part in the training, so that it cannot leave its threshold. Of equal scores the first counts. `e_ij`
//! is taken relative to the largest, so that it cannot overflow. Other texts of the same image are no negatives in (6) unless
//! `negatives = "paper"`. The scores come from Gram matrices.

pub mod mining;

use std::sync::{Mutex, PoisonError};

use candle_core::{D, DType, Tensor, Var};
use serde::{Deserialize, Serialize};

use self::mining::{Boundaries, Mining};
use crate::{
    AttentionMap, Result, Similarity,
    card::Card,
    golden::{Answer, Case, Operation},
    nn::{
        Finish, Lengths, Scaling, Weights,
        cross::{
            Aggregation, Attention, Block, Direction, Interaction, InteractionScorer, Norm, Padded, Pairing, Relevance,
            Side, golden::values, interact, project, similarities, soften, soften_positive, threshold::largest,
        },
    },
    params::out_of_range,
    train::{Schedule, Step},
    trained::{Attended, Batch, Fitting, Loss, Ranking, Shared, Trained},
};

const NAME: &str = "naaf";
/// Inverse temperature of equation (1).
const WITHIN: f64 = 5.0;
/// Added in (2), and the least length in (3).
const EPS: f64 = 1e-8;
const MEAN: Relevance = Relevance { aggregation: Aggregation::Mean, lambda_lse: 1.0 };

/// The method.
pub static NAAF: Trained<Params> = Trained::new();

/// Parameters; the defaults are those of the released code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Inverse temperature of (2) and (4).
    pub lambda_softmax: f64,
    /// How the threshold of training is found.
    #[serde(flatten)]
    pub mining: Mining,
    /// Equation (6).
    #[serde(flatten)]
    pub ranking: Ranking,
}

impl Default for Params {
    fn default() -> Self {
        Self { lambda_softmax: 20.0, mining: Mining::default(), ranking: Ranking::default() }
    }
}

impl Loss for Params {
    type Body = Attended;
    type Head = Head;

    fn card() -> &'static Card {
        crate::card!("naaf.toml")
    }

    fn shared() -> Shared<Attended> {
        let schedule = Schedule { learning_rate: 5e-4, epochs: 20, decay_every: 10, ..Schedule::default() };
        Shared { schedule, ..Shared::default() }
    }

    fn check(&self, shared: &Shared<Attended>) -> Result<()> {
        if !(self.lambda_softmax > 0.0 && self.lambda_softmax.is_finite()) {
            return Err(out_of_range(NAME, "lambda_softmax", "a number above 0", self.lambda_softmax));
        }
        shared.has_negatives(NAME)?;
        self.mining.check(NAME)?;
        self.ranking.check(NAME)
    }

    fn ends(&self) -> Finish {
        Finish::both(Scaling::L2n)
    }

    fn head(&self, fitting: &mut Fitting<'_, Attended>) -> Result<Head> {
        let device = fitting.device();
        let boundaries = fitting.weights.state("boundaries", Tensor::zeros(2, DType::F32, &device)?)?;
        let threshold = Threshold::Of(Boundaries::read(&boundaries)?.safe);
        let interaction = NegativeAware { lambda_softmax: self.lambda_softmax, threshold };
        Ok(Head { scorer: InteractionScorer { interaction, device }, boundaries, left: Mutex::default() })
    }

    fn loss(&self, head: &Head, batch: &Batch<'_, Attended>) -> Result<Tensor> {
        let (regions, words) = (batch.regions()?, batch.words()?);
        let interaction = NegativeAware { threshold: Threshold::OfWords, ..head.scorer.interaction };
        let start = Boundaries::read(&head.boundaries)?;
        let (images, texts) = (regions.ends.detach(), words.ends.detach());
        // Texts come by length, as the released loader hands them out.
        let lengths = words.lengths.as_slice();
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_by_key(|&text| std::cmp::Reverse(lengths[text]));
        let mined = self.mining.run(&interaction, &images, &texts, &words.lengths, &order, start)?;
        let texts = with_thresholds(&words.ends, &words.lengths, &mined.of_texts)?;
        let scores = interact(&interaction, &regions.ends, &texts, &words.lengths)?; // (5)
        *head.left.lock().unwrap_or_else(PoisonError::into_inner) = Some(mined.end);
        self.ranking.loss(&scores, &batch.relations()?, batch.epoch) // (6)
    }

    fn after(&self, head: &Head, _: &Weights, _: &Step) -> Result<()> {
        match head.left.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(left) => left.write(&head.boundaries),
            None => Ok(()),
        }
    }

    fn collapsed(&self, batch: usize, epoch: usize) -> Option<f64> {
        self.ranking.collapsed(batch, epoch)
    }

    fn similarity<'a>(&'a self, head: &'a Head) -> Similarity<'a> {
        Similarity::Pairwise(&head.scorer)
    }

    fn operations() -> Vec<Operation> {
        vec![Operation { name: "attn.naaf", run: golden, ignored: &[] }]
    }
}

/// What is kept beside the encoders.
pub struct Head {
    /// With the safe threshold of the weights that it was made from.
    scorer: InteractionScorer<NegativeAware>,
    /// The threshold of training and the safe one, `[2]`.
    boundaries: Var,
    /// What the step before the next one leaves.
    left: Mutex<Option<Boundaries>>,
}

/// The threshold of a score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Threshold {
    /// One for all pairs, as at test: what a word lacks, its neighbours may have.
    Of(f64),
    /// Of each word, as in training: the last value of its vector.
    OfWords,
}

/// The scores of equation (5).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NegativeAware {
    /// Inverse temperature of (2) and (4).
    pub lambda_softmax: f64,
    /// Threshold, and with it the form of (1).
    pub threshold: Threshold,
}

impl Interaction for NegativeAware {
    fn images(&self, images: &Padded) -> Result<Vec<Tensor>> {
        Ok(vec![images.grams()?])
    }

    fn texts(&self, texts: &Padded) -> Result<Vec<Tensor>> {
        match self.threshold {
            Threshold::OfWords => Ok(Vec::new()),
            Threshold::Of(_) => {
                let seen = texts.real().map(|real| real.unsqueeze(1)).transpose()?;
                let within = (texts.grams()? * WITHIN)?.unsqueeze(0)?;
                let seen = seen.map(|seen| seen.unsqueeze(0)).transpose()?;
                Ok(vec![soften(&within, seen.as_ref())?.squeeze(0)?.detach()])
            }
        }
    }

    fn scores(&self, images: &Side, texts: &Side, pairing: Pairing) -> Result<Tensor> {
        let block = Block::new(Direction::T2i, images, texts, pairing)?;
        let [negative, positive, relevant] = self.evidence(&block)?;
        let each = ((negative + positive)? + relevant)?;
        block.scores(&MEAN.aggregate(&each, block.asked.as_ref())?) // (5)
    }

    fn attention(&self, image: &Side, text: &Side) -> Result<Vec<AttentionMap>> {
        let looked = self.look(&Block::new(Direction::T2i, image, text, Pairing::Every)?)?;
        Ok(vec![
            AttentionMap::of("above the threshold", Direction::T2i, &looked.exceeding)?,
            AttentionMap::of("relevance", Direction::T2i, &looked.relevant)?,
        ])
    }
}

/// What the words of some texts see of some images, `[images, texts, words, regions]`.
struct Looked {
    /// Similarities, and what they exceed the threshold by.
    s: Tensor,
    h: Tensor,
    /// Equation (2).
    exceeding: Tensor,
    /// Weights of equation (4).
    relevant: Tensor,
}

impl NegativeAware {
    fn look(&self, block: &Block<'_>) -> Result<Looked> {
        let (asked, seen) = (block.asked.as_ref(), block.seen.as_ref());
        let (s, h) = match self.threshold {
            Threshold::Of(threshold) => {
                let s = similarities(&block.contexts.items, &block.queries)?;
                let h = (&s - threshold)?;
                (s, h)
            }
            Threshold::OfWords => {
                let width = block.queries.dim(D::Minus1)? - 1;
                let s = similarities(&block.contexts.items, &block.queries.narrow(D::Minus1, 0, width)?)?;
                let h = s.broadcast_sub(&block.queries.narrow(D::Minus1, width, 1)?.detach())?;
                (s, h)
            }
        };
        let attention = Attention { norm: Norm::ClippedL2norm, lambda_softmax: self.lambda_softmax };
        let relevant = attention.weights(&s, asked, seen)?;
        Ok(Looked { exceeding: soften_positive(&(&h * self.lambda_softmax)?, seen)?, s, h, relevant }) // (2)
    }

    /// `neg`, `pos` and `rel` of every word, `[images, texts, words]`.
    fn evidence(&self, block: &Block<'_>) -> Result<[Tensor; 3]> {
        let Looked { s, h, exceeding, relevant } = self.look(block)?;
        let most = largest(&h, block.seen.as_ref())?;
        let gate = match block.asking.made.first() {
            Some(within) => block.aligned(within)?.broadcast_mul(&most.detach().unsqueeze(2)?)?.sum(D::Minus1)?,
            None => most.detach(),
        };
        let negative = (&most * gate.lt(0.0)?.to_dtype(most.dtype())?)?; // (1)
        let [inner, square] = project(&s, &exceeding, &block.contexts.made[0])?;
        let positive = (inner / square.maximum(EPS * EPS)?.sqrt()?)?; // (3)
        Ok([negative, positive, (relevant * s)?.sum(D::Minus1)?]) // (4)
    }
}

/// The words of some texts, `[total, d]`, with the threshold of their text as one more value, `[total, d + 1]`.
fn with_thresholds(words: &Tensor, lengths: &Lengths, of_texts: &[f64]) -> Result<Tensor> {
    let each = lengths.as_slice().iter().zip(of_texts);
    let column: Vec<f64> = each.flat_map(|(&length, &threshold)| std::iter::repeat_n(threshold, length)).collect();
    let column = Tensor::from_vec(column, (lengths.total(), 1), words.device())?.to_dtype(words.dtype())?;
    Ok(Tensor::cat(&[words, &column], 1)?)
}

/// `attn.naaf`, in the precision of the file's outputs: similarities that equal a threshold fall to either side of it.
fn golden(case: &Case) -> Result<Answer> {
    case.only(&["alpha", "lambda_softmax", "mode", "thres", "thres_safe"])?;
    let images = Var::from_tensor(&case.get("in.images")?.tensor(DType::F64)?)?;
    let captions = Var::from_tensor(&case.get("in.captions")?.tensor(DType::F64)?)?;
    let lengths = Lengths::new(case.get("in.cap_lens")?.indices())?;
    let words = lengths.unpad(&captions)?;
    let start = Boundaries { training: case.config("thres")?, safe: case.config("thres_safe")? };
    let lambda_softmax = case.config("lambda_softmax")?;
    let mut answer = Answer::default();
    let (interaction, words) = match case.config::<String>("mode")?.as_str() {
        "test" => (NegativeAware { lambda_softmax, threshold: Threshold::Of(start.safe) }, words),
        "train" => {
            let interaction = NegativeAware { lambda_softmax, threshold: Threshold::OfWords };
            let mining = Mining { alpha: case.config("alpha")?, ..Mining::default() };
            let order: Vec<usize> = (0..lengths.len()).collect();
            let mined = mining.run(&interaction, &images.detach(), &words.detach(), &lengths, &order, start)?;
            answer = answer.with("out.thres", [mined.end.training]).with("out.thres_safe", [mined.end.safe]);
            if let Some([matching, other]) = mined.samples {
                for (sign, normal) in [("pos", matching), ("neg", other)] {
                    answer = answer.with(&format!("out.mean_{sign}"), [normal.mean]);
                    answer = answer.with(&format!("out.stnd_{sign}"), [normal.deviation()]);
                }
            }
            (interaction, with_thresholds(&words, &lengths, &mined.of_texts)?)
        }
        _ => return Err(case.unsupported("mode", "train or test")),
    };
    let scores = interact(&interaction, &images, &words, &lengths)?;
    answer = answer.with("out.scores", values(&scores)?);
    if case.has("out.scores_upstream_quirk") {
        answer = answer.with("out.scores_upstream_quirk", squeezed(&interaction, &images, &words, &lengths, &scores)?);
    }
    if case.has("in.cotangent") {
        let grads = (&scores * case.get("in.cotangent")?.tensor(DType::F64)?)?.sum_all()?.backward()?;
        for (name, var) in [("grad.images", &images), ("grad.captions", &captions)] {
            let grad = grads.get(var.as_tensor()).map_or_else(|| var.zeros_like(), |grad| Ok(grad.clone()))?;
            answer = answer.with(name, values(&grad)?);
        }
    }
    Ok(answer)
}

/// The scores as the released code has them: for a text of one word (3) loses a dimension, and its mean over all images is added to
/// the rest of each.
fn squeezed(
    interaction: &NegativeAware,
    images: &Tensor,
    words: &Tensor,
    lengths: &Lengths,
    scores: &Tensor,
) -> Result<Vec<f64>> {
    let mut scores = scores.to_dtype(DType::F64)?.to_vec2::<f64>()?;
    let images = Side::images(interaction, Padded::full(&images.detach())?)?;
    for (text, _) in lengths.as_slice().iter().enumerate().filter(|&(_, &length)| length == 1) {
        let word = words.detach().narrow(0, lengths.range(text).start, 1)?.unsqueeze(0)?;
        let word = Side::texts(interaction, Padded::full(&word)?)?;
        let block = Block::new(Direction::T2i, &images, &word, Pairing::Every)?;
        let [_, positive, _] = interaction.evidence(&block)?;
        let positive = values(&positive)?;
        let mean = positive.iter().sum::<f64>() / positive.len() as f64;
        scores.iter_mut().zip(positive).for_each(|(row, own)| row[text] += mean - own);
    }
    Ok(scores.concat())
}

#[cfg(test)]
mod tests;
