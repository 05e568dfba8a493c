use std::path::Path;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use xmbench_datasets::{Images, Texts};

use super::{Batch, Body, Fitting, Loss, Settings};
use crate::{
    AttentionMap, Codes, Error, Matcher, Result, Run, Similarity, Training,
    nn::Weights,
    params::to_table,
    train::{Model, Phase, Sampler, Step},
};

const WEIGHTS: &str = "weights.safetensors";
const SHAPE: &str = "shape.toml";

/// What is saved beside the weights.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved<S> {
    params: toml::Table,
    shape: S,
}

/// Networks and head with their loss: a model while its weights are trained, a matcher once they are frozen.
pub(super) struct Fitted<L: Loss> {
    settings: Settings<L>,
    body: L::Body,
    head: L::Head,
    weights: Weights,
}

impl<L: Loss> Fitted<L> {
    /// With weights that are drawn.
    pub fn fit(settings: Settings<L>, training: &Training<'_>, run: &Run<'_>) -> Result<Self> {
        let mut weights = Weights::new(run.seed, &run.device);
        let (options, ends) = (&settings.shared.options, settings.loss.ends());
        let body = L::Body::fit(&L::card().name, options, ends, training, run, &mut weights)?;
        Self::new(settings, body, weights, Some(training))
    }

    fn new(
        settings: Settings<L>,
        body: L::Body,
        mut weights: Weights,
        training: Option<&Training<'_>>,
    ) -> Result<Self> {
        let method = &L::card().name;
        let head = settings.loss.head(&mut Fitting {
            method,
            body: &body,
            weights: &mut weights,
            shared: &settings.shared,
            training,
        })?;
        Ok(Self { settings, body, head, weights })
    }

    /// A copy that later steps do not change.
    pub fn frozen(&self) -> Result<Self> {
        let mut weights = Weights::frozen(self.weights.snapshot()?, "trained weights", self.weights.device());
        let body = self.body.on(&mut weights)?;
        Self::new(self.settings.clone(), body, weights, None)
    }

    /// Reads what [`Matcher::save`] wrote.
    pub fn load(from: &Path, device: &Device) -> Result<Self> {
        let (path, method) = (from.join(SHAPE), &L::card().name);
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        let saved: Saved<<L::Body as Body>::Shape> = toml::from_str(&text).map_err(|error| Error::Format {
            file: path.display().to_string(),
            expected: format!("the parameters and shape of a saved {method} matcher"),
            found: error.message().into(),
        })?;
        let settings = Settings::<L>::read(&saved.params)?;
        let mut weights = Weights::open(&from.join(WEIGHTS), device)?;
        let (options, ends) = (&settings.shared.options, settings.loss.ends());
        let body = L::Body::load(method, options, ends, saved.shape, from, &mut weights)?;
        Self::new(settings, body, weights, None)
    }
}

impl<L: Loss> Model for Fitted<L> {
    fn weights(&self) -> &Weights {
        &self.weights
    }

    fn loss(&self, training: &Training<'_>, pairs: &[(u32, u32)], step: &mut Step) -> Result<Tensor> {
        let items = self.settings.loss.items(training, pairs, &mut step.stream);
        let device = self.weights.device();
        let batch =
            Batch::new(&L::card().name, training, &self.body, items, self.settings.shared.negatives, step, device);
        self.settings.loss.loss(&self.head, &batch)
    }

    fn phases(&self) -> Vec<Phase> {
        self.settings.loss.phases()
    }

    fn sampler(&self, training: &Training<'_>, epoch: usize) -> Result<Sampler> {
        self.settings.loss.sampler(&self.head, &self.body, training, epoch)
    }

    fn after(&self, step: &Step) -> Result<()> {
        self.settings.loss.after(&self.head, &self.weights, step)
    }

    fn matcher(&self) -> Result<Box<dyn Matcher>> {
        Ok(Box::new(self.frozen()?))
    }

    fn rate(&self, weight: &str) -> f64 {
        self.settings.loss.rate(weight, &self.settings.shared)
    }

    fn collapsed(&self, batch: usize, epoch: usize) -> Option<f64> {
        self.settings.loss.collapsed(batch, epoch)
    }
}

impl<L: Loss> Matcher for Fitted<L> {
    fn encode_images(&self, images: &Images) -> Result<Codes> {
        self.settings.loss.encode_images(&self.head, &self.body, images)
    }

    fn encode_texts(&self, texts: &Texts) -> Result<Codes> {
        self.settings.loss.encode_texts(&self.head, &self.body, texts)
    }

    fn similarity(&self) -> Similarity<'_> {
        self.settings.loss.similarity(&self.head)
    }

    fn attention(&self, image: (&Images, usize), text: (&Texts, usize)) -> Result<Vec<AttentionMap>> {
        self.settings.loss.attention(&self.head, &self.body, image, text)
    }

    fn save(&self, to: &Path) -> Result<()> {
        let saved = Saved { params: to_table(&self.settings), shape: self.body.shape().clone() };
        let text = toml::to_string(&saved).expect("parameters and shape are plain values");
        std::fs::write(to.join(SHAPE), text).map_err(Error::io(to.join(SHAPE)))?;
        self.body.save(to)?;
        self.weights.save(&to.join(WEIGHTS))
    }
}
