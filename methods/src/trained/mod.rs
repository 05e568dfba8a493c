//! The home of every method that gradients train: a method is a loss over a batch and a card, the rest is here.
//!
//! ```text
//! Trained<L>      a method: completes parameters, fits, saves, loads
//!   L: Loss       its own parameters, what it learns beside the networks (its head), its loss, its codes
//!   L::Body       the networks below it: encoders of images and texts (`Joint`, `Attended`), hashing networks
//!   Batch         what a loss sees of a step: vectors, regions and words, raw features, labels, positions
//! ```
//!
//! A method file declares `pub static NAME: Trained<Params> = Trained::new();` and implements [`Loss`] for its parameters. What is not
//! said there is the same for all rows of a table: encoders, batches, optimiser, selection, files.

mod batch;
mod body;
mod classifier;
mod fitted;
mod joint;
mod params;
#[cfg(test)]
pub(crate) mod planted;
mod ranking;

use std::{marker::PhantomData, path::Path};

use candle_core::Device;
use serde::{Serialize, de::DeserializeOwned};
use xmbench_datasets::{Images, Texts, random::Stream};

use self::fitted::Fitted;
pub use self::{
    batch::{Batch, Items, Negatives},
    body::{Body, Fitting},
    classifier::Classifier,
    joint::{Attended, Encoding, FragmentEncoders, Regions, Seen, Words},
    params::{Settings, Shared},
    ranking::Ranking,
};
use crate::{
    AttentionMap, Codes, Matcher, Method, Result, Run, Similarity, Training,
    card::Card,
    golden::Operation,
    nn::Weights,
    params::to_table,
    train::{Phase, Sampler, Step, train},
};

/// A method that trains networks by the loss `L`.
pub struct Trained<L>(PhantomData<fn() -> L>);

impl<L> Trained<L> {
    /// The method.
    #[expect(clippy::new_without_default, reason = "a constant")]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

/// A loss over batches of pairs with its own parameters: all that is a method's own.
///
/// Parameters that several methods have (those of the body, of the schedule, which negatives count) are not repeated here: they
/// are [`Shared`], and stand beside the loss in every function that needs them.
pub trait Loss: Clone + Default + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The networks below.
    type Body: Body;

    /// What is learnt, or kept from the training data, beside the body: a classifier, centres, a router, a queue, a threshold, an
    /// affinity. It stays with the matcher.
    type Head: Send + Sync;

    /// The card.
    fn card() -> &'static Card;

    /// Defaults of the shared parameters; those of VSE++ unless the paper has others.
    fn shared() -> Shared<Self::Body> {
        Shared::default()
    }

    /// Adds to what a user wrote whatever follows from it, before defaults fill the rest.
    fn imply(_written: &mut toml::Table) {}

    /// Checks its own parameters, and shared ones that do not go with them.
    ///
    /// # Errors
    /// A value out of range.
    fn check(&self, shared: &Shared<Self::Body>) -> Result<()>;

    /// How the body ends.
    fn ends(&self) -> <Self::Body as Body>::Ends {
        Default::default()
    }

    /// Makes the head: in training, with weights that are drawn, and again for the matcher, with those that were trained.
    ///
    /// # Errors
    /// If a weight cannot be made, or the dataset does not have what the head needs.
    fn head(&self, fitting: &mut Fitting<'_, Self::Body>) -> Result<Self::Head>;

    /// Factor of the learning rate for a weight.
    fn rate(&self, _weight: &str, _shared: &Shared<Self::Body>) -> f64 {
        1.0
    }

    /// What a step consists of; one loss over all weights unless said otherwise.
    fn phases(&self) -> Vec<Phase> {
        vec![Phase::default()]
    }

    /// How the batches of an epoch are drawn.
    ///
    /// # Errors
    /// If items must be encoded or have labels for it, and cannot or do not.
    fn sampler(
        &self,
        _head: &Self::Head,
        _body: &Self::Body,
        _training: &Training<'_>,
        _epoch: usize,
    ) -> Result<Sampler> {
        Ok(Sampler::Shuffled)
    }

    /// The images and texts to encode for a batch of pairs; those of the pairs, in their order.
    fn items(&self, _training: &Training<'_>, pairs: &[(u32, u32)], _stream: &mut Stream) -> Items {
        Items::of(pairs)
    }

    /// The loss of a batch, a scalar.
    ///
    /// # Errors
    /// If the data lack what it needs, or a tensor operation fails.
    fn loss(&self, head: &Self::Head, batch: &Batch<'_, Self::Body>) -> Result<candle_core::Tensor>;

    /// What happens after the optimiser has moved the weights: clamping, averages, queues.
    ///
    /// # Errors
    /// If a tensor operation fails.
    fn after(&self, _head: &Self::Head, _weights: &Weights, _step: &Step) -> Result<()> {
        Ok(())
    }

    /// The loss of `batch` pairs of a model that gives every item the same vector, where that is a trap.
    fn collapsed(&self, _batch: usize, _epoch: usize) -> Option<f64> {
        None
    }

    /// Codes of images; the body's unless the method makes its own.
    ///
    /// # Errors
    /// As [`Matcher::encode_images`].
    fn encode_images(&self, _head: &Self::Head, body: &Self::Body, images: &Images) -> Result<Codes> {
        body.encode_images(images)
    }

    /// Codes of texts; the body's unless the method makes its own.
    ///
    /// # Errors
    /// As [`Matcher::encode_texts`].
    fn encode_texts(&self, _head: &Self::Head, body: &Self::Body, texts: &Texts) -> Result<Codes> {
        body.encode_texts(texts)
    }

    /// How codes are compared.
    fn similarity<'a>(&'a self, _head: &'a Self::Head) -> Similarity<'a> {
        <Self::Body as Body>::SIMILARITY
    }

    /// What vectors of an image's fragments and of a text's words say of each other, where codes are of whole items.
    ///
    /// # Errors
    /// As [`Matcher::attention`].
    fn attention(
        &self,
        _head: &Self::Head,
        _body: &Self::Body,
        _image: (&Images, usize),
        _text: (&Texts, usize),
    ) -> Result<Vec<AttentionMap>> {
        Ok(Vec::new())
    }

    /// What a table says beside a row with these parameters, beside what it says of its negatives.
    fn remark(&self) -> Option<String> {
        None
    }

    /// The golden operations that its functions answer.
    fn operations() -> Vec<Operation> {
        Vec::new()
    }
}

impl<L: Loss> Method for Trained<L> {
    fn card(&self) -> &Card {
        L::card()
    }

    fn resolve(&self, table: &toml::Table) -> Result<toml::Table> {
        Settings::<L>::read(table).map(|settings| to_table(&settings))
    }

    fn fit(&self, training: &Training<'_>, table: &toml::Table, run: &mut Run<'_>) -> Result<Box<dyn Matcher>> {
        let settings = Settings::<L>::read(table)?;
        let schedule = settings.shared.schedule.clone();
        let mut model = Fitted::fit(settings, training, run)?;
        train(&mut model, training, &schedule, run)?;
        Ok(Box::new(model.frozen()?))
    }

    fn load(&self, from: &Path, device: &Device) -> Result<Box<dyn Matcher>> {
        Ok(Box::new(Fitted::<L>::load(from, device)?))
    }

    fn remark(&self, table: &toml::Table) -> Option<String> {
        let settings = Settings::<L>::read(table).ok()?;
        let remarks = [settings.shared.negatives.and_then(Negatives::remark), settings.loss.remark()];
        let remarks: Vec<String> = remarks.into_iter().flatten().collect();
        (!remarks.is_empty()).then(|| remarks.join("; "))
    }

    fn operations(&self) -> Vec<Operation> {
        L::operations()
    }
}

#[cfg(test)]
mod tests;
