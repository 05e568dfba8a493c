use std::path::Path;

use candle_core::Device;
use serde::{Serialize, de::DeserializeOwned};
use xmbench_datasets::{Images, Texts};

use crate::{Codes, Result, Run, Similarity, Training, nn::Weights};

/// The networks below a loss: they read the items of a dataset and give each its vectors, in training and afterwards.
pub trait Body: Sized + Send + Sync + 'static {
    /// Parameters, flattened into those of every method on this body.
    type Options: Clone + Default + Serialize + DeserializeOwned + Send + Sync;

    /// What a loss decides: how the networks end.
    type Ends: Clone + Default + Send + Sync;

    /// What the data decide; saved beside the weights.
    type Shape: Clone + Serialize + DeserializeOwned + Send + Sync;

    /// What of a step has been computed; empty to begin with.
    type Seen: Default;

    /// How codes are compared unless a loss says otherwise.
    const SIMILARITY: Similarity<'static>;

    /// Checks every option; `method` is named in the error.
    ///
    /// # Errors
    /// A value out of range.
    fn check(options: &Self::Options, method: &str) -> Result<()>;

    /// Networks for the training split, with weights of their own drawn into `weights`.
    ///
    /// # Errors
    /// A representation that the dataset does not offer, features that are not finite, or weights that cannot be made.
    fn fit(
        method: &'static str,
        options: &Self::Options,
        ends: Self::Ends,
        training: &Training<'_>,
        run: &Run<'_>,
        weights: &mut Weights,
    ) -> Result<Self>;

    /// What the data decided.
    fn shape(&self) -> &Self::Shape;

    /// The same networks on other weights.
    ///
    /// # Errors
    /// A weight that is absent or of another shape.
    fn on(&self, weights: &mut Weights) -> Result<Self>;

    /// Codes of images.
    ///
    /// # Errors
    /// A missing representation, or vectors of another width than those of training.
    fn encode_images(&self, images: &Images) -> Result<Codes>;

    /// Codes of texts.
    ///
    /// # Errors
    /// As [`Body::encode_images`].
    fn encode_texts(&self, texts: &Texts) -> Result<Codes>;

    /// Writes what is not among the weights into a folder.
    ///
    /// # Errors
    /// If a file cannot be written.
    fn save(&self, to: &Path) -> Result<()>;

    /// The networks that [`Body::save`], a shape and weights describe.
    ///
    /// # Errors
    /// A file, a shape or a weight that is absent or of another form.
    fn load(
        method: &'static str,
        options: &Self::Options,
        ends: Self::Ends,
        shape: Self::Shape,
        from: &Path,
        weights: &mut Weights,
    ) -> Result<Self>;
}

/// What a head is made from.
pub struct Fitting<'a, B: Body> {
    /// The method's name, for messages.
    pub method: &'static str,
    /// The networks.
    pub body: &'a B,
    /// Where the head's weights and state are asked for.
    pub weights: &'a mut Weights,
    /// Shared parameters.
    pub shared: &'a super::Shared<B>,
    /// The training data while a method is fitted; absent when the head of a matcher is made.
    pub training: Option<&'a Training<'a>>,
}

impl<B: Body> Fitting<'_, B> {
    /// Where tensors live.
    pub fn device(&self) -> Device {
        self.weights.device().clone()
    }
}
