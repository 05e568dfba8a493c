//! UARDA: what matches and what does not is told apart by a threshold on similarities, and only what lies above it is attended to.
//!
//! ```text
//! s_ij = u_i · v_j                 the vectors `u` of the side that asks, `v` of the side that answers, of unit length
//! S(image, text)                   by stacked cross attention under the threshold t, see `nn::cross::Masked`          (1)
//! X+ = { max_j s_ij }              of all u_i of each item whose own partner no negative outscores, with it            (2)
//! X- = { max_j s_ij }              of the same u_i with the negative of the lowest score                              (3)
//! t* = [boundary(X+, X-, alpha)]+  where it lies between the two means, else the t of the first step                   (4)
//! t  <- r t* + (1 - r) t           with the rate r; t begins at -1, below every similarity                            (5)
//! L = sum_b [margin + max_c S_bc - S_bb]+ + [margin + max_c S_cb - S_bb]+                                             (6)
//! ```
//! Zhang, Mao, Liu and Zhang, IEEE TMM 2022. No code of it is known. The paper is known here by its abstract and by what its authors'
//! later code, NAAF (CrossmodalGroup/NAAF@cafcd6f), does in its place; what stands above is a specification of ours, in these points
//! by analogy: the softmax of SCAN with its factor 20, `alpha`, the rate, the number of samples, the schedule.
//!
//! Samples are gathered from batch to batch until there are more than `threshold_samples` in (2); then comes an estimate, and gathering
//! begins anew. With large batches that is one a batch. While (2) and (3) are hardly apart it is cheapest to accept nothing at all: the
//! boundary lies above nearly every similarity, or nowhere, and a model under it has no gradient and never moves again. A boundary that is
//! not between the means tells nothing apart, and (4) takes the masks back; see `nn::cross::threshold`. A batch is scored with the
//! threshold of the batches before it; a matcher keeps the last one and learns none. Before the first estimate, and in the first
//! `masks_from` epochs, nothing is masked in training: a model whose similarities are all below a threshold has no gradient, so that masks
//! at 0 from the first step on can end a training before it begins. `threshold_start = 0` with `threshold_rate = 0` is a fixed threshold.
//!
//! `content_mask = false` with `query_mask = false` is SCAN with the mean of relevances. `scoring = "direct"` builds attended vectors, of
//! kept query vectors alone, and changes nothing but the rounding; training always has Gram matrices, where masks save next to nothing.
//! Other texts of the same image are no negatives in (2), (3) and (6) unless `negatives = "paper"`. Word vectors begin at random.

use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Tensor, Var};
use serde::{Deserialize, Serialize};

use crate::{
    Result, Similarity,
    card::Card,
    loss::{Relation, Relations},
    nn::{
        Finish, Lengths, Scaling, Weights,
        cross::{
            Attention, Contexts, Direction, Masked, MaskedScorer, MeanOver, Norm,
            golden::values,
            interact,
            threshold::{Normal, boundary, peaks},
        },
    },
    params::out_of_range,
    train::{Schedule, Step},
    trained::{Attended, Batch, Fitting, Loss, Ranking, Shared, Trained},
};

const NAME: &str = "uarda";

/// The method.
pub static UARDA: Trained<Params> = Trained::new();

/// Parameters; none of the paper's is known but those of its loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Which side asks.
    pub direction: Direction,
    /// Inverse temperature of the attention.
    pub lambda_softmax: f64,
    /// Whether what lies below the threshold is not attended to.
    pub content_mask: bool,
    /// Whether a vector that reaches the threshold nowhere is left out.
    pub query_mask: bool,
    /// What the relevances are averaged over.
    pub mean_over: MeanOver,
    /// How much worse it is to take a vector without a counterpart for one with, than the reverse.
    pub alpha: f64,
    /// The threshold of the first step.
    pub threshold_start: f64,
    /// Share of a new estimate in the threshold, `r` in (5).
    pub threshold_rate: f64,
    /// An estimate needs more samples than these.
    pub threshold_samples: usize,
    /// Epochs of training before the masks take effect; a matcher always has them.
    pub masks_from: usize,
    /// Equation (6).
    #[serde(flatten)]
    pub ranking: Ranking,
    /// Whether attended vectors are built to score.
    pub scoring: Contexts,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            direction: Direction::T2i,
            lambda_softmax: 20.0,
            content_mask: true,
            query_mask: true,
            mean_over: MeanOver::N,
            alpha: 2.0,
            threshold_start: -1.0,
            threshold_rate: 0.7,
            threshold_samples: 200,
            masks_from: 0,
            ranking: Ranking::default(),
            scoring: Contexts::Gram,
        }
    }
}

impl Loss for Params {
    type Body = Attended;
    type Head = Head;

    fn card() -> &'static Card {
        crate::card!("uarda.toml")
    }

    fn shared() -> Shared<Attended> {
        let schedule = Schedule { learning_rate: 5e-4, epochs: 20, decay_every: 10, ..Schedule::default() };
        Shared { schedule, ..Shared::default() }
    }

    fn check(&self, shared: &Shared<Attended>) -> Result<()> {
        for (key, value) in [("lambda_softmax", self.lambda_softmax), ("alpha", self.alpha)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(out_of_range(NAME, key, "a number above 0", value));
            }
        }
        if !(-1.0..=1.0).contains(&self.threshold_start) {
            return Err(out_of_range(NAME, "threshold_start", "a number in [-1, 1]", self.threshold_start));
        }
        if !(0.0..=1.0).contains(&self.threshold_rate) {
            return Err(out_of_range(NAME, "threshold_rate", "a number in [0, 1]", self.threshold_rate));
        }
        if self.threshold_samples == 0 {
            return Err(out_of_range(NAME, "threshold_samples", "at least 1", self.threshold_samples));
        }
        if self.masks_from > 0 && !self.content_mask && !self.query_mask {
            return Err(out_of_range(NAME, "masks_from", "0 without masks", self.masks_from));
        }
        if self.mean_over == MeanOver::Kept && !self.query_mask {
            return Err(out_of_range(NAME, "mean_over", "n without `query_mask`, which keeps all", "kept"));
        }
        shared.has_negatives(NAME)?;
        self.ranking.check(NAME)
    }

    fn ends(&self) -> Finish {
        Finish::both(Scaling::L2n)
    }

    fn head(&self, fitting: &mut Fitting<'_, Attended>) -> Result<Head> {
        let device = fitting.device();
        let threshold = fitting.weights.state("threshold", Tensor::new(&[self.threshold_start as f32], &device)?)?;
        let samples = fitting.weights.state("samples", Tensor::zeros((2, 3), DType::F32, &device)?)?;
        let settings = Masked {
            direction: self.direction,
            attention: Attention { norm: Norm::ClippedL2norm, lambda_softmax: self.lambda_softmax },
            content: self.content_mask,
            query: self.query_mask,
            mean_over: self.mean_over,
            threshold: values(&threshold)?[0],
        };
        let scorer = MaskedScorer { settings, form: self.scoring };
        Ok(Head { scorer, threshold, samples, found: Mutex::default() })
    }

    fn loss(&self, head: &Head, batch: &Batch<'_, Attended>) -> Result<Tensor> {
        let (regions, words) = (batch.regions()?, batch.words()?);
        let on = batch.epoch >= self.masks_from;
        let masked = Masked {
            content: self.content_mask && on,
            query: self.query_mask && on,
            mean_over: if on { self.mean_over } else { MeanOver::N },
            threshold: values(&head.threshold)?[0],
            ..head.scorer.settings
        };
        let scores = interact(&masked, &regions.ends, &words.ends, &words.lengths)?; // (1)
        let relations = batch.relations()?;
        if (self.content_mask || self.query_mask) && self.threshold_rate > 0.0 {
            let found = sample(self.direction, &scores, &relations, &regions.ends, &words.ends, &words.lengths)?;
            *head.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        }
        self.ranking.loss(&scores, &relations, batch.epoch) // (6)
    }

    fn after(&self, head: &Head, _: &Weights, _: &Step) -> Result<()> {
        let Some(found) = head.found.lock().unwrap_or_else(PoisonError::into_inner).take() else { return Ok(()) };
        let known = values(&head.samples)?;
        let before = known.chunks_exact(3).map(|x| Normal { count: x[0], mean: x[1], squares: x[2] });
        let mut both: Vec<Normal> = before.zip(found).map(|(before, found)| before.and(found)).collect();
        if both[0].count > self.threshold_samples as f64 {
            let estimate = estimate(&both[0], &both[1], self.alpha).unwrap_or(self.threshold_start); // (4)
            let (rate, before) = (self.threshold_rate, values(&head.threshold)?[0]);
            let threshold = rate * estimate + (1.0 - rate) * before; // (5)
            head.threshold.set(&Tensor::new(&[threshold as f32], head.threshold.device())?)?;
            both.fill(Normal::default());
        }
        let state: Vec<f32> = both.iter().flat_map(|x| [x.count as f32, x.mean as f32, x.squares as f32]).collect();
        Ok(head.samples.set(&Tensor::from_vec(state, (2, 3), head.samples.device())?)?)
    }

    fn collapsed(&self, batch: usize, epoch: usize) -> Option<f64> {
        self.ranking.collapsed(batch, epoch)
    }

    fn similarity<'a>(&'a self, head: &'a Head) -> Similarity<'a> {
        Similarity::Pairwise(&head.scorer)
    }

    fn remark(&self) -> Option<String> {
        (!self.content_mask && !self.query_mask).then(|| "without masks, so that the threshold plays no part".into())
    }
}

/// Equation (4), if the boundary lies between the means.
fn estimate(matching: &Normal, others: &Normal, alpha: f64) -> Option<f64> {
    boundary(matching, others, alpha).filter(|t| (others.mean..=matching.mean).contains(t)).map(|t| t.max(0.0))
}

/// What is kept beside the encoders.
pub struct Head {
    /// With the threshold of the weights that it was made from.
    scorer: MaskedScorer,
    /// `t`, `[1]`.
    threshold: Var,
    /// Count, mean and squares of (2) and (3) since the last estimate, `[2, 3]`.
    samples: Var,
    /// What a step has found.
    found: Mutex<Option<[Normal; 2]>>,
}

/// Samples (2) and (3) of a batch with these scores, `[images, texts]`; pair `b` stands at `(b, b)`.
fn sample(
    direction: Direction,
    scores: &Tensor,
    relations: &Relations,
    regions: &Tensor,
    words: &Tensor,
    lengths: &Lengths,
) -> Result<[Normal; 2]> {
    let scores = scores.detach().to_dtype(DType::F64)?.to_vec2::<f64>()?;
    let at = |asks: usize, answers: usize| match direction {
        Direction::T2i => (answers, asks),
        Direction::I2t => (asks, answers),
    };
    let score = |asks: usize, answers: usize| {
        let (i, j) = at(asks, answers);
        scores[i][j]
    };
    // Items whose own partner no negative outscores, and the negative that they rank last. Equals count: where a threshold lies above
    // everything all scores are 0, and only new samples bring it down again.
    let mut pairs = Vec::new();
    for asks in 0..scores.len() {
        let negatives = (0..scores.len()).filter(|&answers| {
            let (i, j) = at(asks, answers);
            relations.get(i, j) == Relation::Negative
        });
        let negatives: Vec<usize> = negatives.collect();
        let lowest = negatives.iter().copied().reduce(|a, b| if score(asks, b) < score(asks, a) { b } else { a });
        if let Some(lowest) = lowest
            && negatives.iter().all(|&answers| score(asks, answers) <= score(asks, asks))
        {
            pairs.push((asks, lowest));
        }
    }
    if pairs.is_empty() {
        return Ok([Normal::default(); 2]);
    }
    let found = |answers: fn(&(usize, usize)) -> usize| -> Result<Normal> {
        let pairs: Vec<(usize, usize)> = pairs.iter().map(|pair| at(pair.0, answers(pair))).collect();
        Ok(Normal::of(&peaks(direction, regions, words, lengths, &pairs)?))
    };
    Ok([found(|pair| pair.0)?, found(|pair| pair.1)?])
}

#[cfg(test)]
mod tests;
