//! SCAN: an image and a text are compared word by word, each word with what it sees of the image, or region by region.
//!
//! ```text
//! v_i = l2n(W x_i + b)                                        a region            (1)
//! u_j = l2n((h_j forth + h_j back) / 2)                       a word, from a GRU  (2)
//! S(image, text)  by stacked cross attention, see [`cross`](crate::nn::cross)         (3)
//! L = sum_b [margin + max_c S_bc - S_bb]+ + [margin + max_c S_cb - S_bb]+         (4)
//! ```
//! where `l2n(x) = x / (|x| + 1e-8)`. Lee, Chen, Hua, Hu and He, ECCV 2018.
//!
//! The maxima of (4) run over the batch, or become sums without `max_violation`. Only `(b, b)` is taken to belong together, as
//! in the released code; `mask_same_image` leaves out of the negatives what the dataset says belongs together.
//!
//! Departures: scores come from Gram matrices unless `scoring = "direct"`, which changes nothing but the rounding; the
//! paper's ensemble is two models of one direction each, whose scores are averaged afterwards.

use std::path::Path;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use xmbench_datasets::{FeatureTable, Images, Pairs, Texts};

use crate::{
    Codes, Error, Fragments, Matcher, Method, Result, Run, Similarity, Training,
    card::Card,
    golden::{Answer, Case, Operation},
    loss::{self, Relation, Relations},
    nn::{
        self, ImageEncoder, Linear, Scaling, TextEncoder, TextLayer, TextSettings, Tokens, Weights,
        cross::{
            self, Aggregation, Attention, Contexts, CrossAttention, CrossScorer, Direction, Norm, Relevance,
            batch_scores,
            golden::{Scored, values},
        },
    },
    params,
    train::{self, Model, Schedule, Step},
};

/// The method.
pub struct Scan;

/// Parameters; the defaults are the paper's for Flickr30K, of the direction that is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Which side asks.
    pub direction: Direction,
    /// Normalisation of similarities along the queries.
    pub raw_feature_norm: Norm,
    /// From relevances to a score.
    pub aggregation: Aggregation,
    /// Inverse temperature of the attention.
    pub lambda_softmax: f64,
    /// Inverse temperature of LogSumExp.
    pub lambda_lse: f64,
    /// Margin of the hinge.
    pub margin: f64,
    /// The hardest negative alone, or all.
    pub max_violation: bool,
    /// Epochs with the sum before `max_violation` takes effect; 0 as in the paper. Keeps a fresh model from collapsing.
    pub warmup: usize,
    /// Leave texts of the same image out of the negatives.
    pub mask_same_image: bool,
    /// Length of the vectors of regions and words.
    pub embedding: usize,
    /// Length of a word's embedding.
    pub word: usize,
    /// Both directions of the GRU.
    pub bi_gru: bool,
    /// Whether attended vectors are built to score.
    pub scoring: Contexts,
    /// How it is trained.
    #[serde(flatten)]
    pub schedule: Schedule,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            direction: Direction::T2i,
            raw_feature_norm: Norm::ClippedL2norm,
            aggregation: Aggregation::LogSumExp,
            lambda_softmax: 9.0,
            lambda_lse: 6.0,
            margin: 0.2,
            max_violation: true,
            warmup: 0,
            mask_same_image: false,
            embedding: 1024,
            word: 300,
            bi_gru: true,
            scoring: Contexts::Gram,
            schedule: Schedule::default(),
        }
    }
}

impl Params {
    fn parse(table: &toml::Table) -> Result<Self> {
        let mut table = table.clone();
        if table.get("direction").and_then(toml::Value::as_str) == Some("i2t") {
            table.entry("lambda_softmax").or_insert(toml::Value::Float(4.0));
            table.entry("lambda_lse").or_insert(toml::Value::Float(5.0));
        }
        let params: Self = params::parse("scan", &table)?;
        for (key, value) in [("lambda_softmax", params.lambda_softmax), ("lambda_lse", params.lambda_lse)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(params::out_of_range("scan", key, "a number above 0", value));
            }
        }
        if !(params.margin >= 0.0 && params.margin.is_finite()) {
            return Err(params::out_of_range("scan", "margin", "a number from 0 up", params.margin));
        }
        for (key, value) in [("embedding", params.embedding), ("word", params.word)] {
            if value == 0 {
                return Err(params::out_of_range("scan", key, "at least 1", value));
            }
        }
        if params.schedule.batch < 2 {
            let batch = params.schedule.batch;
            return Err(params::out_of_range("scan", "batch", "at least 2, for there to be a negative", batch));
        }
        params.schedule.check("scan")?;
        Ok(params)
    }

    fn attention(&self) -> CrossAttention {
        CrossAttention {
            direction: self.direction,
            attention: Attention { norm: self.raw_feature_norm, lambda_softmax: self.lambda_softmax },
            relevance: Relevance { aggregation: self.aggregation, lambda_lse: self.lambda_lse },
        }
    }
}

impl Method for Scan {
    fn card(&self) -> &Card {
        crate::card!("scan.toml")
    }

    fn resolve(&self, table: &toml::Table) -> Result<toml::Table> {
        Ok(params::to_table(&Params::parse(table)?))
    }

    fn fit(&self, training: &Training<'_>, table: &toml::Table, run: &mut Run<'_>) -> Result<Box<dyn Matcher>> {
        let params = Params::parse(table)?;
        let fragments = training.train.images.fragments.as_ref();
        let fragments = fragments.ok_or_else(|| training.missing("scan", "images.fragments"))?;
        if training.train.texts.tokens.is_none() {
            return Err(training.missing("scan", "texts.tokens"));
        }
        let sizes = Sizes { width: fragments.width(), vocabulary: training.vocabulary };
        let weights = Weights::new(run.seed, &run.device);
        let mut model = Encoders::new(params, sizes, weights)?;
        let schedule = model.params.schedule.clone();
        train::train(&mut model, training, &schedule, run)?;
        model.matcher()
    }

    fn load(&self, from: &Path, device: &Device) -> Result<Box<dyn Matcher>> {
        let path = from.join(SETTINGS);
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        let wrong = |found: String| Error::Format {
            file: path.display().to_string(),
            expected: "the settings of a fitted scan".into(),
            found,
        };
        let saved: Saved = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let params = Params::parse(&saved.parameters)?;
        if saved.sizes.width == 0 || saved.sizes.vocabulary == 0 {
            return Err(wrong(format!("{:?}", saved.sizes)));
        }
        Ok(Box::new(Encoders::new(params, saved.sizes, Weights::open(&from.join(WEIGHTS), device)?)?))
    }

    fn operations(&self) -> Vec<Operation> {
        let triplet = Operation { name: "loss.scan_triplet", run: scan_triplet, ignored: &[] };
        cross::operations().into_iter().chain([triplet]).collect()
    }
}

const SETTINGS: &str = "scan.toml";
const WEIGHTS: &str = "weights.safetensors";

/// What beside the weights says how to encode.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    sizes: Sizes,
    parameters: toml::Table,
}

/// What the dataset decides.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sizes {
    /// Length of a region's features.
    width: usize,
    /// Number of words.
    vocabulary: usize,
}

/// Both encoders: a model while its weights are trained, a matcher once they are frozen.
struct Encoders {
    params: Params,
    sizes: Sizes,
    scorer: CrossScorer,
    image: ImageEncoder,
    text: TextEncoder,
    weights: Weights,
}

/// Items that are encoded together.
const TOGETHER: usize = 128;

impl Encoders {
    fn new(params: Params, sizes: Sizes, mut weights: Weights) -> Result<Self> {
        let layer = Linear::xavier(&mut weights, "image", sizes.width, params.embedding)?;
        let image = ImageEncoder { layer, scaling: Scaling::L2n, absolute: false };
        let text = TextEncoder::new(
            &mut weights,
            "text",
            sizes.vocabulary,
            TextSettings {
                layer: if params.bi_gru { TextLayer::Bigru } else { TextLayer::Gru },
                word: params.word,
                hidden: params.embedding,
                layers: 1,
            },
        )?;
        let scorer = CrossScorer { settings: params.attention(), form: params.scoring };
        Ok(Self { params, sizes, scorer, image, text, weights })
    }

    /// Regions of some images, `[images, regions, embedding]`, equation (1).
    fn regions(&self, table: &FeatureTable, items: &[usize]) -> Result<Tensor> {
        let (count, width) = (table.fragments(), table.width());
        if width != self.sizes.width || count == 0 {
            return Err(Error::Format {
                file: "images.fragments".into(),
                expected: format!("regions of width {}, as in training", self.sizes.width),
                found: format!("{count} of width {width}"),
            });
        }
        let features = table.gather(items)?;
        if let Some(at) = features.data.iter().position(|x| !x.is_finite()) {
            return Err(Error::Numeric(format!(
                "region {} of image {} has the value {} at position {}, expected finite features; mend or drop the image",
                at / width % count,
                items[at / (width * count)],
                features.data[at],
                at % width
            )));
        }
        let features = Tensor::from_vec(features.data, (items.len(), count, width), self.weights.device())?;
        self.image.forward(&features)
    }

    /// Words of some texts, `[total, embedding]`, equation (2).
    fn words(&self, tokens: &Tokens) -> Result<Tensor> {
        nn::l2n(&self.text.tokens(tokens)?)
    }
}

fn missing(need: &str) -> Error {
    Error::Missing { method: "scan".into(), need: need.into(), dataset: "to encode".into() }
}

impl Model for Encoders {
    fn weights(&self) -> &Weights {
        &self.weights
    }

    fn loss(&self, training: &Training<'_>, batch: &[(u32, u32)], step: &mut Step) -> Result<Tensor> {
        let hardest = self.params.max_violation && step.epoch >= self.params.warmup;
        let (images, texts) = (&training.train.images, &training.train.texts);
        let table = images.fragments.as_ref().ok_or_else(|| training.missing("scan", "images.fragments"))?;
        let tokens = texts.tokens.as_ref().ok_or_else(|| training.missing("scan", "texts.tokens"))?;
        let items: Vec<usize> = batch.iter().map(|&(image, _)| image as usize).collect();
        let tokens = Tokens::new(batch.iter().map(|&(_, text)| &tokens[text as usize][..]), self.weights.device())?;
        let (regions, words) = (self.regions(table, &items)?, self.words(&tokens)?);
        let scores = batch_scores(&self.scorer.settings, &regions, &words, &tokens.lengths)?;
        let relations = if self.params.mask_same_image {
            belonging(&training.train.pairs, batch)
        } else {
            Relations::diagonal(batch.len())
        };
        loss::hinge(&scores, self.params.margin, hardest, &relations)
    }

    fn matcher(&self) -> Result<Box<dyn Matcher>> {
        let weights = Weights::frozen(self.weights.snapshot()?, "trained weights", self.weights.device());
        Ok(Box::new(Self::new(self.params.clone(), self.sizes, weights)?))
    }
}

/// The relations of a batch in which what belongs together is no negative.
fn belonging(pairs: &Pairs, batch: &[(u32, u32)]) -> Relations {
    Relations::new(batch.len(), batch.len(), |i, j| match () {
        () if i == j => Relation::Positive,
        () if pairs.texts_of(batch[i].0 as usize).contains(&batch[j].1) => Relation::Ignored,
        () => Relation::Negative,
    })
}

impl Matcher for Encoders {
    fn encode_images(&self, images: &Images) -> Result<Codes> {
        let table = images.fragments.as_ref().ok_or_else(|| missing("images.fragments"))?;
        let mut data = Vec::with_capacity(table.items() * table.fragments() * self.params.embedding);
        for start in (0..table.items()).step_by(TOGETHER) {
            let items: Vec<usize> = (start..table.items().min(start + TOGETHER)).collect();
            data.extend(self.regions(table, &items)?.flatten_all()?.to_vec1::<f32>()?);
        }
        let offsets = (0..=table.items()).map(|i| i * table.fragments()).collect();
        Ok(Codes::Fragments(Fragments { dim: self.params.embedding, offsets, data }))
    }

    fn encode_texts(&self, texts: &Texts) -> Result<Codes> {
        let all = texts.tokens.as_ref().ok_or_else(|| missing("texts.tokens"))?;
        let (mut offsets, mut data) = (vec![0], Vec::new());
        for some in all.chunks(TOGETHER) {
            let tokens = Tokens::new(some.iter().map(Vec::as_slice), self.weights.device())?;
            data.extend(self.words(&tokens)?.flatten_all()?.to_vec1::<f32>()?);
            offsets.extend(tokens.lengths.as_slice().iter().scan(offsets[offsets.len() - 1], |end, n| {
                *end += n;
                Some(*end)
            }));
        }
        Ok(Codes::Fragments(Fragments { dim: self.params.embedding, offsets, data }))
    }

    fn similarity(&self) -> Similarity<'_> {
        Similarity::Pairwise(&self.scorer)
    }

    fn save(&self, to: &Path) -> Result<()> {
        let saved = Saved { sizes: self.sizes, parameters: params::to_table(&self.params) };
        let path = to.join(SETTINGS);
        let text = toml::to_string(&saved).map_err(|error| Error::Numeric(error.to_string()))?;
        std::fs::write(&path, text).map_err(Error::io(&path))?;
        self.weights.save(&to.join(WEIGHTS))
    }
}

/// Equation (4) over (3), with gradients.
fn scan_triplet(case: &Case) -> Result<Answer> {
    let direction = case.config("cross_attn")?;
    case.only(&[
        "agg_func",
        "cross_attn",
        "lambda_lse",
        "lambda_softmax",
        "margin",
        "max_violation",
        "raw_feature_norm",
    ])?;
    let scored = Scored::new(case, direction)?;
    let pairs = Relations::diagonal(scored.scores.dim(0)?);
    let loss = loss::hinge(&scored.scores, case.config("margin")?, case.config("max_violation")?, &pairs)?;
    scored.with_gradients(&loss, Answer::default().with("out.loss", values(&loss)?))
}

#[cfg(test)]
mod tests;
