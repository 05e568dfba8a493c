//! SelfAlign (Zhuang et al., IEEE TMM 2023): two losses align regions with words while a model of one vector an item is trained, and a
//! wider vector carries what they have learnt; an image and a text are still compared by one dot product.
//!
//! With `x_bj [d]` the unit vectors of regions, `y_bi [d]` of words, C `[K, d]` prototypes of unit length, `v_b` and `t_b` the unit vectors
//! of the base model:
//!
//! ```text
//! Q = sinkhorn(x C^T, eps)      over all regions of the batch, no gradient: see `loss::sinkhorn`                      (1)
//! m_i = argmax_j y_bi . x_bj    no gradient                                                                          (2)
//! LCA = mean_b mean_i -sum_k Q[m_i]_k log softmax(y_bi C^T / tau)_k                                                   (3)
//! l = unit(relu(BN(z))),   g = unit(relu(BN(W mean(z) + a)))     locals and global of a side with context vectors z  (4)
//! CRA(l, g) = mean over locals of log(1 + sum_N exp((g_b . l_N - l . g_b) / T))                                         (5)
//! f = unit(G mean(z) + (1 - G) g),   G = sigmoid(MLP([mean(z); g])), a number                                          (6)
//! image [v; mean(l_v) / 2; f_v / 2],   text [t; f_t; mean(l_t)]                                                        (7)
//! L = hinge of the products of (7) + w_c LCA + w_x (CRA(l_v, g_t) + CRA(l_t, g_v)) / 2                                (8)
//! ```
//!
//! N of (5) are the `negatives_kept` locals of other items that are most like `g_b`; as in Zjamie813/SelfAlign@26343b7 those of its own item
//! stand among the candidates as the number -10, so that they are taken where there are too few others. The mean of (5) is over all locals of a
//! batch. The locals of other texts of the same image are no candidates unless `negatives = "paper"`. Prototypes are scaled to unit length
//! after each step (released: before it), and have no gradient in the first `prototype_freeze` epochs. Means in (7) are not scaled again.
//!
//! The released code has two base models. What is not here: VSRN's graph convolutions, its GRU over regions and its captioner; CAMERA's
//! gated self-attention with boxes, its twelve views and their diversity loss; BERT. In their place stand the encoders of VSE++ on fragments
//! and words (read both ways), and for (4) a Transformer of `context_layers` layers over an image's regions, which knows their order. Word
//! vectors are states of the recurrence, so that they know their context in (2) and (3) already, and are the z of texts. Padding, which
//! counts as locals there, is not here.
//!
//! `fragment_norm`: the models' `l2norm` scales by default along the first axis behind the batch, which of `[B, k, d]` is the regions: each
//! channel of an image is divided by its length over the regions ("channel"). "fragment" is what was meant, each region to unit length;
//! "none" leaves them as they are. It applies to the regions behind the layer, and with that to everything of an image; "none" is the default,
//! as the F30K script of VSRN has it.
//!
//! `enlarged = false` leaves (4) to (7) out of codes: an item is its base vector. With both weights 0 it is VSE++ on the same parts.

use candle_core::Tensor;
use candle_nn::ops;
use serde::{Deserialize, Serialize};
use xmbench_datasets::{Images, Texts};

use self::context::{Context, Described};
use super::parts::{self, Parts};
use crate::{
    AttentionMap, Codes, Result, Similarity,
    card::Card,
    golden::Operation,
    loss::Relation,
    nn::{Joint, Lengths, Transformer, Weights, cross::Direction, unit},
    params::out_of_range,
    train::Step,
    trained::{Batch, Fitting, Loss, Ranking, Shared, Trained},
};

mod align;
mod context;
mod golden;

const NAME: &str = "self_align";

/// The weight that holds the prototypes.
const PROTOTYPES: &str = "prototypes";

/// The method.
pub static SELF_ALIGN: Trained<Params> = Trained::new();

/// Its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// The hinge of (8).
    #[serde(flatten)]
    pub ranking: Ranking,
    /// Weight w_c of (3).
    pub concept_weight: f64,
    /// Weight w_x of (5).
    pub context_weight: f64,
    /// Whether codes are those of (7), or base vectors.
    pub enlarged: bool,
    /// Number K of prototypes.
    pub prototypes: usize,
    /// Epochs in which prototypes stay as they are.
    pub prototype_freeze: usize,
    /// eps of (1).
    pub epsilon: f64,
    /// Iterations of (1).
    pub sinkhorn_iterations: usize,
    /// tau of (3).
    pub student_temperature: f64,
    /// T of (5).
    pub context_temperature: f64,
    /// Candidates that count in (5).
    pub negatives_kept: usize,
    /// Layers between regions and the z of (4).
    pub context_layers: usize,
    /// How regions are scaled.
    pub fragment_norm: FragmentNorm,
}

/// How the vectors of an image's regions are scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FragmentNorm {
    /// Not at all.
    None,
    /// Each region to unit length.
    Fragment,
    /// Each channel to unit length over the regions, as released.
    Channel,
}

impl FragmentNorm {
    /// Of `[images, regions, d]`.
    fn apply(self, regions: &Tensor) -> Result<Tensor> {
        match self {
            Self::None => Ok(regions.clone()),
            Self::Fragment => unit(regions),
            Self::Channel => Ok(unit(&regions.transpose(1, 2)?)?.transpose(1, 2)?.contiguous()?),
        }
    }
}

impl Default for Params {
    fn default() -> Self {
        Self {
            ranking: Ranking::default(),
            concept_weight: 1.0,
            context_weight: 1.0,
            enlarged: true,
            prototypes: 1024,
            prototype_freeze: 1,
            epsilon: 0.05,
            sinkhorn_iterations: 2,
            student_temperature: 0.1,
            context_temperature: 0.7,
            negatives_kept: 512,
            context_layers: 1,
            fragment_norm: FragmentNorm::None,
        }
    }
}

impl Loss for Params {
    type Body = Joint;
    type Head = Head;

    fn card() -> &'static Card {
        crate::card!("self_align.toml")
    }

    fn shared() -> Shared<Joint> {
        Shared { options: parts::encoders(), ..Shared::default() }
    }

    fn imply(written: &mut toml::Table) {
        parts::imply(written);
    }

    fn check(&self, shared: &Shared<Joint>) -> Result<()> {
        parts::check(NAME, shared)?;
        shared.has_negatives(NAME)?;
        self.ranking.check(NAME)?;
        for (key, value) in [("concept_weight", self.concept_weight), ("context_weight", self.context_weight)] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(out_of_range(NAME, key, "a number from 0 up", value));
            }
        }
        for (key, value) in [
            ("epsilon", self.epsilon),
            ("student_temperature", self.student_temperature),
            ("context_temperature", self.context_temperature),
        ] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(out_of_range(NAME, key, "a number above 0", value));
            }
        }
        for (key, value, least, most) in [
            ("prototypes", self.prototypes, 2, 1 << 16),
            ("sinkhorn_iterations", self.sinkhorn_iterations, 1, 100),
            ("negatives_kept", self.negatives_kept, 1, 1 << 20),
            ("context_layers", self.context_layers, 0, 8),
        ] {
            if !(least..=most).contains(&value) {
                return Err(out_of_range(NAME, key, &format!("{least} to {most}"), value));
            }
        }
        Ok(())
    }

    fn head(&self, fitting: &mut Fitting<'_, Joint>) -> Result<Head> {
        let (width, fresh) = (fitting.body.width(), fitting.training.is_some());
        let weights = &mut *fitting.weights;
        let prototypes = match self.concept_weight > 0.0 {
            true => Some(weights.normal(PROTOTYPES, &[self.prototypes, width], 1.0)?),
            false => None,
        };
        if fresh {
            rescale(weights)?;
        }
        if !self.enlarged && self.context_weight == 0.0 {
            return Ok(Head { prototypes, context: None });
        }
        let layers = match self.context_layers {
            0 => None,
            layers => {
                let heads = (1..=(width / 64).max(1)).rev().find(|heads| width.is_multiple_of(*heads)).unwrap_or(1);
                Some(Transformer::new(weights, "context", width, heads, layers)?)
            }
        };
        let image = Context::new(weights, "image.context", width)?;
        let text = Context::new(weights, "text.context", width)?;
        Ok(Head { prototypes, context: Some(Contexts { layers, image, text }) })
    }

    fn loss(&self, head: &Head, batch: &Batch<'_, Joint>) -> Result<Tensor> {
        let images = Parts::of_regions(batch.body(), &self.fragment_norm.apply(&batch.regions()?.raw)?)?;
        let texts = Parts::texts(batch)?;
        let relations = batch.relations()?;
        let described = match &head.context {
            Some(context) => Some([context.image(&images, true)?, context.text(&texts, true)?]),
            None => None,
        };
        let codes = match &described {
            Some([image, text]) if self.enlarged => [image_code(&images, image)?, text_code(&texts, text)?],
            _ => [images.whole.clone(), texts.whole.clone()],
        };
        let scores = codes[0].matmul(&codes[1].t()?)?;
        let mut loss = self.ranking.loss(&scores, &relations, batch.epoch)?;
        if let Some(prototypes) = &head.prototypes {
            let frozen = batch.epoch < self.prototype_freeze;
            let prototypes = if frozen { prototypes.detach() } else { prototypes.clone() };
            let concepts = align::Concepts {
                prototypes: &prototypes,
                epsilon: self.epsilon,
                iterations: self.sinkhorn_iterations,
                temperature: self.student_temperature,
            };
            let sides = [&images, &texts].map(|parts| Ok::<_, crate::Error>((unit(&parts.fragments)?, &parts.lengths)));
            let [regions, words] = sides;
            loss = (loss + (concepts.loss(regions?, words?)?.0 * self.concept_weight)?)?; // (3)
        }
        if let (Some([image, text]), true) = (&described, self.context_weight > 0.0) {
            let negative = |image: usize, text: usize| relations.get(image, text) == Relation::Negative;
            let settings = align::Contrast { temperature: self.context_temperature, kept: Some(self.negatives_kept) };
            let a = settings.loss(&image.locals, &images.lengths, &text.global, |text, image| negative(image, text))?;
            let b = settings.loss(&text.locals, &texts.lengths, &image.global, negative)?;
            loss = (loss + ((a + b)? * (0.5 * self.context_weight))?)?; // (8)
        }
        Ok(loss)
    }

    fn after(&self, _: &Head, weights: &Weights, _: &Step) -> Result<()> {
        rescale(weights)
    }

    /// Of (7) where all base vectors, and all fused ones, are the same; with the losses beside the hinge there is a way out.
    fn collapsed(&self, batch: usize, epoch: usize) -> Option<f64> {
        let alone = self.concept_weight == 0.0 && self.context_weight == 0.0;
        if alone { self.ranking.collapsed(batch, epoch) } else { None }
    }

    fn encode_images(&self, head: &Head, body: &Joint, images: &Images) -> Result<Codes> {
        let width = self.width(body);
        body.codes_of_images(images, width, |items| {
            let regions = self.fragment_norm.apply(&body.regions(images, items, None)?)?;
            let parts = Parts::of_regions(body, &regions)?;
            match (&head.context, self.enlarged) {
                (Some(context), true) => image_code(&parts, &context.image(&parts, false)?),
                _ => Ok(parts.whole),
            }
        })
    }

    fn encode_texts(&self, head: &Head, body: &Joint, texts: &Texts) -> Result<Codes> {
        parts::text_codes(body, texts, self.width(body), |parts| match (&head.context, self.enlarged) {
            (Some(context), true) => text_code(parts, &context.text(parts, false)?),
            _ => Ok(parts.whole.clone()),
        })
    }

    fn similarity<'a>(&'a self, _: &'a Head) -> Similarity<'a> {
        Similarity::Dot
    }

    /// The softmax over regions of the cosines of (2) over tau.
    fn attention(
        &self,
        _: &Head,
        body: &Joint,
        image: (&Images, usize),
        text: (&Texts, usize),
    ) -> Result<Vec<AttentionMap>> {
        let [regions, words] = parts::pair(body, image, text)?;
        let regions = self.fragment_norm.apply(&regions.unsqueeze(0)?)?.squeeze(0)?;
        let cosines = unit(&words)?.matmul(&unit(&regions)?.t()?)?;
        let weights = ops::softmax(&(cosines / self.student_temperature)?, candle_core::D::Minus1)?;
        Ok(vec![AttentionMap::of("", Direction::T2i, &weights)?])
    }

    fn operations() -> Vec<Operation> {
        golden::operations()
    }
}

impl Params {
    /// Length of a code.
    fn width(&self, body: &Joint) -> usize {
        if self.enlarged { 3 * body.width() } else { body.width() }
    }
}

/// (7) of images.
fn image_code(parts: &Parts, described: &Described) -> Result<Tensor> {
    let mean = (parts.lengths.mean(&described.locals)? * 0.5)?;
    Ok(Tensor::cat(&[&parts.whole, &mean, &(&described.fused * 0.5)?], 1)?)
}

/// (7) of texts.
fn text_code(parts: &Parts, described: &Described) -> Result<Tensor> {
    Ok(Tensor::cat(&[&parts.whole, &described.fused, &parts.lengths.mean(&described.locals)?], 1)?)
}

/// Prototypes to unit length.
fn rescale(weights: &Weights) -> Result<()> {
    match weights.var(PROTOTYPES) {
        Some(prototypes) => Ok(prototypes.set(&unit(&prototypes.as_detached_tensor())?)?),
        None => Ok(()),
    }
}

/// What stands beside the encoders.
pub struct Head {
    /// `[K, d]`; none where nothing is learnt from them.
    prototypes: Option<Tensor>,
    /// None where only base vectors count.
    context: Option<Contexts>,
}

/// (4) and (6) of both sides.
struct Contexts {
    layers: Option<Transformer>,
    image: Context,
    text: Context,
}

impl Contexts {
    fn image(&self, parts: &Parts, training: bool) -> Result<Described> {
        let z = match &self.layers {
            Some(layers) => layers.forward(&parts.fragments, &parts.lengths)?,
            None => parts.fragments.clone(),
        };
        self.image.describe(&z, &parts.lengths, training)
    }

    fn text(&self, parts: &Parts, training: bool) -> Result<Described> {
        self.text.describe(&parts.fragments, &parts.lengths, training)
    }
}

/// Vectors of a side with the lengths of its items.
type Rows<'a> = (Tensor, &'a Lengths);

#[cfg(test)]
mod tests;
