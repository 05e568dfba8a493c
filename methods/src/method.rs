//! The contract between methods and the harness.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use candle_core::Device;
use serde::{Deserialize, Serialize};
use xmbench_datasets::{Collection, Dataset, Images, Texts, random::Seed};

use crate::{AttentionMap, Codes, Error, Result, Similarity, card::Card, golden::Operation};

/// A published way to align images and texts.
///
/// Canonical correlation analysis of two noisy views of one latent vector:
///
/// ```
/// use std::sync::atomic::AtomicBool;
///
/// use xmbench_datasets::random::Seed;
/// use xmbench_methods::{Codes, Run, Training, method::Silent, registry};
///
/// let dataset = xmbench_datasets::open("planted-linear", &toml::toml! { noise = 0.1 }, None)?;
/// let method = registry::find("cca").expect("a built-in method");
/// let params = method.resolve(&toml::toml! { components = 8 })?;
/// assert_eq!(params["power"].as_float(), Some(1.0)); // what was not said has its default
///
/// let stop = AtomicBool::new(false);
/// let mut silent = Silent;
/// let mut run = Run::new(Seed(1), &mut silent, &stop);
/// let matcher = method.fit(&Training::of(&dataset), &params, &mut run)?;
///
/// let test = &dataset.test;
/// let codes = (matcher.encode_images(&test.images)?, matcher.encode_texts(&test.texts)?);
/// let (Codes::Dense(u), Codes::Dense(v)) = codes else { panic!("codes of cca are dense") };
/// let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
/// let cosine = |i: usize, j: usize| dot(u.row(i), v.row(j)) / (dot(u.row(i), u.row(i)) * dot(v.row(j), v.row(j))).sqrt();
/// let own: f32 = (0..u.rows).map(|i| cosine(i, i)).sum::<f32>() / u.rows as f32;
/// assert!(own > 0.9);
/// # Ok::<(), xmbench_methods::Error>(())
/// ```
pub trait Method: Send + Sync {
    /// Citation, needs, parameters and reported numbers.
    fn card(&self) -> &Card;

    /// Completes parameters with their defaults and checks them. What comes back enters the trial's identity.
    ///
    /// # Errors
    /// An unknown key (the nearest known one is named), a wrong type, a value out of range.
    fn resolve(&self, params: &toml::Table) -> Result<toml::Table>;

    /// Fits the method.
    ///
    /// # Errors
    /// A representation that the dataset does not offer, bad parameters, bad numbers, or a stop from outside.
    fn fit(&self, training: &Training<'_>, params: &toml::Table, run: &mut Run<'_>) -> Result<Box<dyn Matcher>>;

    /// Reads a matcher that [`Matcher::save`] wrote; it encodes to the same bits.
    ///
    /// # Errors
    /// A missing or malformed file.
    fn load(&self, from: &Path, device: &Device) -> Result<Box<dyn Matcher>>;

    /// What a table must say beside a row with these complete parameters, such as negatives that are counted as the
    /// released code does and not as the paper says.
    fn remark(&self, _params: &toml::Table) -> Option<String> {
        None
    }

    /// The golden operations that this method's functions answer.
    fn operations(&self) -> Vec<Operation> {
        Vec::new()
    }
}

/// A fitted method.
pub trait Matcher: Send + Sync {
    /// Codes of the images, in order.
    ///
    /// # Errors
    /// A missing representation, or vectors of another width than those of training.
    fn encode_images(&self, images: &Images) -> Result<Codes>;

    /// Codes of the texts, in order.
    ///
    /// # Errors
    /// As [`Matcher::encode_images`].
    fn encode_texts(&self, texts: &Texts) -> Result<Codes>;

    /// How the two kinds of code are compared.
    fn similarity(&self) -> Similarity<'_>;

    /// Whether items that it was fitted on have one code, made of their image and their text, whichever of them is encoded. A
    /// query that finds such a code finds one that knows the query's own modality; other rows do not compare.
    fn unified(&self) -> bool {
        false
    }

    /// How a method that gives each item one vector places a text's words among an image's fragments, where it has learnt to: maps
    /// as those of [`PairScorer::attention`](crate::PairScorer::attention), words asking; nothing otherwise.
    ///
    /// # Errors
    /// As [`Matcher::encode_images`].
    fn attention(&self, _image: (&Images, usize), _text: (&Texts, usize)) -> Result<Vec<AttentionMap>> {
        Ok(Vec::new())
    }

    /// Writes everything that [`Method::load`] needs into `to`, a folder that exists.
    ///
    /// # Errors
    /// If a file cannot be written.
    fn save(&self, to: &Path) -> Result<()>;
}

/// What a method may see while fitting: never the test split.
#[derive(Clone, Copy)]
pub struct Training<'a> {
    /// Name of the dataset, for messages.
    pub dataset: &'a str,
    /// What to fit on.
    pub train: &'a Collection,
    /// What to select on.
    pub val: Option<&'a Collection>,
    /// Number of words in the vocabulary, special tokens included.
    pub vocabulary: usize,
    /// Number of classes.
    pub classes: usize,
}

impl<'a> Training<'a> {
    /// The view of a dataset that a method gets.
    pub fn of(dataset: &'a Dataset) -> Self {
        Self {
            dataset: &dataset.name,
            train: &dataset.train,
            val: dataset.val.as_ref(),
            vocabulary: dataset.words.len(),
            classes: dataset.classes.len(),
        }
    }

    /// The error of a method that needs a representation that is not there.
    pub fn missing(&self, method: &str, need: &str) -> Error {
        Error::Missing { method: method.into(), need: need.into(), dataset: self.dataset.into() }
    }
}

/// Judges a matcher on the validation split; higher is better.
pub type Judge<'a> = dyn Fn(&dyn Matcher) -> Result<f64> + Sync + 'a;

/// What a fit is given beside data and parameters, and where it reports.
pub struct Run<'a> {
    /// Root of every random number.
    pub seed: Seed,
    /// Where tensors live.
    pub device: Device,
    /// Judges a matcher on validation data; absent when there is none.
    pub judge: Option<&'a Judge<'a>>,
    /// Where checkpoints go and are looked for; absent when the fit is not to be resumable.
    pub checkpoints: Option<PathBuf>,
    /// Hears of progress.
    pub observer: &'a mut (dyn Observer + Send),
    /// Set from outside to stop after the current step.
    pub stop: &'a AtomicBool,
    /// One entry an epoch (or solver stage), in order.
    pub history: Vec<Epoch>,
    /// Whether the pairs are shuffled, as a control: there is nothing to learn, and a model that learns nothing is no failure.
    pub control: bool,
}

impl<'a> Run<'a> {
    /// A fit on the CPU from a seed, without a judge and without checkpoints; other fields are set afterwards.
    pub fn new(seed: Seed, observer: &'a mut (dyn Observer + Send), stop: &'a AtomicBool) -> Self {
        Self {
            seed,
            device: Device::Cpu,
            judge: None,
            checkpoints: None,
            observer,
            stop,
            history: Vec::new(),
            control: false,
        }
    }
}

impl Run<'_> {
    /// Stops with [`Error::Interrupted`] if asked to.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub fn check_stop(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }
}

/// One epoch of training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Counted from 1.
    pub epoch: usize,
    /// Mean training loss a step; the sum over its phases, where it has several.
    pub loss: f64,
    /// Learning rate of the last step, before the factors of phases and weights.
    pub learning_rate: f64,
    /// Validation score, if one was taken.
    pub validation: Option<f64>,
    /// Seconds that the steps took, validation not included.
    pub seconds: f64,
    /// Pairs a step, of the largest one; 0 in a recording from before it was kept.
    #[serde(default)]
    pub pairs: usize,
}

/// Hears of the progress of a fit.
pub trait Observer {
    /// `done` of `total` steps are over; `loss` is the latest.
    fn step(&mut self, done: usize, total: usize, loss: f64);
    /// An epoch is over.
    fn epoch(&mut self, epoch: &Epoch);
}

/// Hears and says nothing.
pub struct Silent;

impl Observer for Silent {
    fn step(&mut self, _done: usize, _total: usize, _loss: f64) {}
    fn epoch(&mut self, _epoch: &Epoch) {}
}
