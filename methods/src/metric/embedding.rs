//! What every method of this family is beside its loss: two encoders, a training loop, dense codes.

use std::path::Path;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use xmbench_datasets::{Images, Labels, Texts, random::Stream};

use crate::{
    Codes, Error, Matcher, Method, Result, Run, Similarity, Training,
    card::Card,
    loss::{Relation, Relations},
    nn::{
        Encoders, Finish, Joint, Shape, TextRows, Weights,
        cross::{CrossScorer, batch_scores},
        unit,
    },
    params,
    train::{Model, Schedule, Step, train},
};

/// A loss over the vectors of a batch, with its parameters.
pub trait Loss: Clone + Default + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The method's name.
    const NAME: &'static str;

    /// Checks the loss's own parameters.
    fn check(&self) -> Result<()>;

    /// Sets what other parameters imply.
    fn complete(&mut self) {}

    /// Parameters of the encoders.
    fn encoders(&self) -> &Encoders;

    /// Parameters of the training.
    fn schedule(&self) -> &Schedule;

    /// Which texts are negatives of an image, where that is a choice.
    fn negatives(&self) -> Option<Negatives> {
        None
    }

    /// How the encoders end.
    fn finish(&self) -> Finish {
        Finish::UNIT
    }

    /// How codes are compared.
    fn similarity(&self) -> Similarity<'_> {
        Similarity::Cosine
    }

    /// Whether words attend to regions; codes are fragments then, and scores those of the attention.
    fn attention(&self) -> Option<CrossScorer> {
        None
    }

    /// Makes what the loss learns beside the encoders: centres, a classifier, a temperature.
    fn learnt(&self, _weights: &mut Weights, _shape: &Shape) -> Result<Vec<Tensor>> {
        Ok(Vec::new())
    }

    /// Factor of the learning rate for a weight.
    fn rate(&self, _weight: &str) -> f64 {
        1.0
    }

    /// The images and texts to encode for a batch of pairs; those of the pairs, in their order.
    fn items(&self, _training: &Training<'_>, pairs: &[(u32, u32)], _step: &mut Step) -> Items {
        Items::of(pairs)
    }

    /// The loss, a scalar.
    fn loss(&self, learnt: &[Tensor], batch: &Batch<'_>, step: &mut Step) -> Result<Tensor>;

    /// The loss of `batch` pairs of a model that gives every item the same vector, where that is a trap.
    fn collapsed(&self, _batch: usize, _epoch: usize) -> Option<f64> {
        None
    }
}

/// Positions of what a step encodes.
pub struct Items {
    pub images: Vec<usize>,
    pub texts: Vec<usize>,
    /// Place in `images` of each text's image.
    pub owner: Vec<usize>,
}

impl Items {
    pub fn of(pairs: &[(u32, u32)]) -> Self {
        let (images, texts) = pairs.iter().map(|&(image, text)| (image as usize, text as usize)).unzip();
        Self { images, texts, owner: (0..pairs.len()).collect() }
    }
}

/// What a loss sees.
pub struct Batch<'a> {
    pub method: &'static str,
    pub training: &'a Training<'a>,
    pub items: Items,
    /// Image vectors, `[images, embedding]`.
    pub v: Tensor,
    /// Text vectors, `[texts, embedding]`.
    pub t: Tensor,
    /// Scores where words attend to regions, `[images, texts]`.
    pub attended: Option<Tensor>,
}

/// Which texts of a batch are negatives of an image, and the other way around.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Negatives {
    /// Those that do not belong to it.
    Others,
    /// Every one but that of the pair, as released code has it: other texts of the same image too.
    Paper,
    /// Those that do not belong to it and share no class with it.
    Classes,
}

impl Negatives {
    /// What a table says beside a row.
    pub fn remark(self) -> Option<String> {
        (self == Self::Paper).then(|| "other texts of the same image count as negatives, as in released code".into())
    }
}

impl Batch<'_> {
    /// Scores, `[images, texts]`: `v_i . t_j` unless words attend to regions.
    pub fn scores(&self) -> Result<Tensor> {
        match &self.attended {
            Some(scores) => Ok(scores.clone()),
            None => Ok(self.v.matmul(&self.t.t()?)?),
        }
    }

    /// What image `i` and text `j` of a batch of pairs are to each other: positives on the diagonal.
    pub fn relations(&self, negatives: Negatives) -> Result<Relations> {
        let pairs = &self.training.train.pairs;
        let labels = match negatives {
            Negatives::Classes => Some(self.labels()?),
            _ => None,
        };
        let Items { images, texts, .. } = &self.items;
        Ok(Relations::new(images.len(), texts.len(), |i, j| {
            let belongs = || pairs.texts_of(images[i]).binary_search(&(texts[j] as u32)).is_ok();
            let shares = || labels.is_some_and(|(x, y)| Labels::share(&x.of[images[i]], &y.of[texts[j]]));
            match () {
                () if i == j => Relation::Positive,
                () if negatives != Negatives::Paper && (belongs() || shares()) => Relation::Ignored,
                () => Relation::Negative,
            }
        }))
    }

    /// Labels of all training images and texts.
    pub fn labels(&self) -> Result<(&Labels, &Labels)> {
        let train = &self.training.train;
        let missing = |need| self.training.missing(self.method, need);
        let images = train.images.labels.as_ref().ok_or_else(|| missing("images.labels"))?;
        Ok((images, train.texts.labels.as_ref().ok_or_else(|| missing("texts.labels"))?))
    }

    /// A class of each image and of each text; of several, one is drawn.
    pub fn classes(&self, stream: &mut Stream) -> Result<[Vec<u32>; 2]> {
        let (images, texts) = self.labels()?;
        let mut draw = |labels: &Labels, items: &[usize], kind: &str| -> Result<Vec<u32>> {
            let class = |&item: &usize| match labels.of[item][..] {
                [] => Err(Error::Numeric(format!(
                    "{}: expected at least one class an item, found none for training {kind} {item}; drop it from the dataset",
                    self.method
                ))),
                [class] => Ok(class),
                ref several => Ok(several[stream.below(several.len())]),
            };
            items.iter().map(class).collect()
        };
        Ok([draw(images, &self.items.images, "image")?, draw(texts, &self.items.texts, "text")?])
    }
}

/// A method that is a loss over both encoders.
pub trait Embedded: Send + Sync {
    /// The loss, and parameters.
    type Loss: Loss;

    /// The card.
    fn card() -> &'static Card;
}

impl<M: Embedded> Method for M {
    fn card(&self) -> &Card {
        M::card()
    }

    fn resolve(&self, table: &toml::Table) -> Result<toml::Table> {
        read::<M::Loss>(table).map(|loss| params::to_table(&loss))
    }

    fn fit(&self, training: &Training<'_>, table: &toml::Table, run: &mut Run<'_>) -> Result<Box<dyn Matcher>> {
        let loss: M::Loss = read(table)?;
        let name = M::Loss::NAME;
        let (schedule, scorer) = (loss.schedule().clone(), loss.attention());
        let mut weights = Weights::new(run.seed, &run.device);
        let (joint, rows) = Joint::fit(name, loss.encoders(), loss.finish(), training, run, &mut weights)?;
        let learnt = loss.learnt(&mut weights, joint.shape())?;
        let mut model = Embedding { loss, joint, rows, learnt, weights, scorer };
        train(&mut model, training, &schedule, run)?;
        model.matcher()
    }

    fn load(&self, from: &Path, device: &Device) -> Result<Box<dyn Matcher>> {
        let path = from.join(SHAPE);
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        let saved: Saved = toml::from_str(&text).map_err(|error| Error::Format {
            file: path.display().to_string(),
            expected: format!("the parameters and shape of a saved {} matcher", M::Loss::NAME),
            found: error.message().into(),
        })?;
        let loss: M::Loss = read(&saved.params)?;
        let (joint, weights) = Joint::load(M::Loss::NAME, loss.encoders(), loss.finish(), saved.shape, from, device)?;
        let scorer = loss.attention();
        Ok(Box::new(Embedding { loss, joint, rows: None, learnt: Vec::new(), weights, scorer }))
    }

    fn remark(&self, table: &toml::Table) -> Option<String> {
        read::<M::Loss>(table).ok()?.negatives()?.remark()
    }
}

/// Completed and checked parameters.
fn read<L: Loss>(table: &toml::Table) -> Result<L> {
    let mut read: L = params::parse(L::NAME, table)?;
    read.complete();
    read.check()?;
    read.encoders().check(L::NAME)?;
    read.schedule().check(L::NAME)?;
    Ok(read)
}

const SHAPE: &str = "shape.toml";

/// What is saved beside the weights.
#[derive(Serialize, Deserialize)]
struct Saved {
    params: toml::Table,
    shape: Shape,
}

/// Encoders with their loss, in training or fitted.
struct Embedding<L> {
    loss: L,
    joint: Joint,
    /// Vectors of the training texts where words are not read.
    rows: TextRows,
    learnt: Vec<Tensor>,
    weights: Weights,
    /// Where words attend to regions.
    scorer: Option<CrossScorer>,
}

impl<L: Loss> Model for Embedding<L> {
    fn weights(&self) -> &Weights {
        &self.weights
    }

    fn loss(&self, training: &Training<'_>, pairs: &[(u32, u32)], step: &mut Step) -> Result<Tensor> {
        let items = self.loss.items(training, pairs, step);
        let device = self.weights.device();
        let (images, texts) = (&training.train.images, &training.train.texts);
        let (v, t, attended) = match self.loss.attention() {
            None => {
                let v = self.joint.images(images, &items.images, Some(&mut step.stream), device)?;
                let t = self.joint.texts(texts, &self.rows, &items.texts, Some(&mut step.stream), device)?;
                (v, t, None)
            }
            Some(scorer) => {
                let regions = self.joint.regions(images, &items.images, Some(&mut step.stream), device)?;
                let (words, lengths) = self.joint.words(texts, &items.texts, device)?;
                let scores = batch_scores(&scorer.settings, &regions, &words, &lengths)?;
                (unit(&regions.mean(1)?)?, unit(&lengths.mean(&words)?)?, Some(scores))
            }
        };
        let batch = Batch { method: L::NAME, training, items, v, t, attended };
        self.loss.loss(&self.learnt, &batch, step)
    }

    fn matcher(&self) -> Result<Box<dyn Matcher>> {
        let mut weights = Weights::frozen(self.weights.snapshot()?, "trained weights", self.weights.device());
        let joint = self.joint.frozen(&mut weights)?;
        let (loss, scorer) = (self.loss.clone(), self.scorer);
        Ok(Box::new(Self { loss, joint, rows: None, learnt: Vec::new(), weights, scorer }))
    }

    fn rate(&self, weight: &str) -> f64 {
        self.loss.rate(weight)
    }

    fn collapsed(&self, batch: usize, epoch: usize) -> Option<f64> {
        self.loss.collapsed(batch, epoch)
    }
}

impl<L: Loss> Matcher for Embedding<L> {
    fn encode_images(&self, images: &Images) -> Result<Codes> {
        match self.scorer {
            None => self.joint.encode_images(images, self.weights.device()),
            Some(_) => self.joint.encode_regions(images, self.weights.device()),
        }
    }

    fn encode_texts(&self, texts: &Texts) -> Result<Codes> {
        match self.scorer {
            None => self.joint.encode_texts(texts, self.weights.device()),
            Some(_) => self.joint.encode_words(texts, self.weights.device()),
        }
    }

    fn similarity(&self) -> Similarity<'_> {
        match &self.scorer {
            None => self.loss.similarity(),
            Some(scorer) => Similarity::Pairwise(scorer),
        }
    }

    fn save(&self, to: &Path) -> Result<()> {
        let saved = Saved { params: params::to_table(&self.loss), shape: self.joint.shape().clone() };
        let text = toml::to_string(&saved).expect("parameters and shape are plain values");
        std::fs::write(to.join(SHAPE), text).map_err(Error::io(to.join(SHAPE)))?;
        self.joint.save(&self.weights, to)
    }
}
