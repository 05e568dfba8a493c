//! Deep joint-semantics reconstructing hashing (Su, Zhong, Zhang, ICCV 2019): two networks learn binary codes whose cosines
//! reconstruct an affinity that is built from the features alone, without labels.
//!
//! For a batch of `m` pairs with features `F_I [m, p]`, `F_T [m, q]`, rows of hat(.) of unit norm:
//!
//! ```text
//! S_I = 2 hat(F_I) hat(F_I)ᵀ - 1,   S_T alike                                       (1)
//! S~  = beta S_I + (1 - beta) S_T                                                   (2)
//! S   = mu ((1 - eta) S~ + eta / m S~ S~ᵀ)                                          (3)
//! H   = tanh(a_e net(F)),   a_e = sqrt(epoch + 1)                                   (4)
//! L   = lambda_1 |cos(H_I, H_I) - S|² + |cos(H_I, H_T) - S|² + lambda_2 |cos(H_T, H_T) - S|²   (5)
//! b   = sign(H)                                                                     (6)
//! ```
//!
//! where `|.|²` is the mean over all `m²` entries. The image network is linear on given features (the paper fine-tunes the
//! AlexNet below it; here features are frozen), the text network has one hidden layer.
//!
//! Departures: one learning rate for both networks. With `normalise`, network inputs (not the affinity's) are centred and divided
//! by one number: fc7 activations have entries near 1, but given features come in any scale, and a histogram that sums to 1 moves
//! a unit less than its random bias does. With `affinity_centre`, features are centred before (1): raw pixels have cosines near 1
//! throughout. The best validation epoch is kept where there is one; the paper keeps the last.

use std::path::Path;

use candle_core::{DType, Device, Tensor, Var};
use serde::{Deserialize, Serialize};
use xmbench_datasets::{Images, Texts};

use super::net::{Net, tensor};
use crate::{
    Codes, Error, Matcher, Method, Result, Run, Similarity, Training,
    card::Card,
    golden::{Answer, Case, Operation},
    linalg::views::{ImageInput, TextInput},
    loss::{cosine_affinity, mixture, reconstruct, second_order},
    nn::{Moments, Weights, unit},
    params,
    train::{Model, Optimiser, Schedule, Step, train},
};

/// The method.
pub struct Djsrh;

/// Its parameters; the defaults are those for Wikipedia.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Code length.
    pub bits: usize,
    /// Weight of the images in equation (2).
    pub beta: f64,
    /// Weight of the second-order affinity in equation (3).
    pub eta: f64,
    /// Scale of the affinity in equation (3).
    pub mu: f64,
    /// Weight of the image-image loss in equation (5).
    pub lambda1: f64,
    /// Weight of the text-text loss in equation (5).
    pub lambda2: f64,
    /// Hidden width of the image network; 0 is linear.
    pub image_hidden: usize,
    /// Hidden width of the text network; 0 is linear.
    pub text_hidden: usize,
    /// Vector that stands for an image.
    pub image: ImageInput,
    /// Vector that stands for a text.
    pub text: TextInput,
    /// Centre and scale the networks' inputs.
    pub normalise: bool,
    /// Centre the features of the affinity.
    pub affinity_centre: bool,
    /// How the networks are trained.
    #[serde(flatten)]
    pub schedule: Schedule,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            bits: 64,
            beta: 0.3,
            eta: 0.4,
            mu: 1.5,
            lambda1: 0.3,
            lambda2: 0.3,
            image_hidden: 0,
            text_hidden: 4096,
            image: ImageInput::Auto,
            text: TextInput::Auto,
            normalise: true,
            affinity_centre: false,
            schedule: Schedule {
                epochs: 200,
                batch: 32,
                optimiser: Optimiser::Sgd,
                learning_rate: 0.01,
                decay_every: 0,
                decay: 1.0,
                weight_decay: 5e-4,
                clip: 0.0,
                patience: 0,
                validate_every: 5,
                ..Schedule::default()
            },
        }
    }
}

impl Params {
    /// Completed and checked parameters.
    ///
    /// # Errors
    /// As [`params::parse`], or a value out of range.
    pub fn read(table: &toml::Table) -> Result<Self> {
        let read: Self = params::parse("djsrh", table)?;
        read.schedule.check("djsrh")?;
        let wrong =
            |key, expected, found: &dyn std::fmt::Display| Err(params::out_of_range("djsrh", key, expected, found));
        if read.bits == 0 || read.bits > 4096 {
            return wrong("bits", "1 to 4096", &read.bits);
        }
        for (key, value) in [("beta", read.beta), ("eta", read.eta)] {
            if !(0.0..=1.0).contains(&value) {
                return wrong(key, "a number in [0, 1]", &value);
            }
        }
        for (key, value) in [("mu", read.mu), ("lambda1", read.lambda1), ("lambda2", read.lambda2)] {
            if !(value >= 0.0 && value.is_finite()) {
                return wrong(key, "a number of at least 0", &value);
            }
        }
        Ok(read)
    }
}

impl Method for Djsrh {
    fn card(&self) -> &Card {
        crate::card!("djsrh.toml")
    }

    fn resolve(&self, table: &toml::Table) -> Result<toml::Table> {
        Params::read(table).map(|params| params::to_table(&params))
    }

    fn fit(&self, training: &Training<'_>, table: &toml::Table, run: &mut Run<'_>) -> Result<Box<dyn Matcher>> {
        let params = Params::read(table)?;
        let schedule = params.schedule.clone();
        let mut model = Hashing::new(params, training, run)?;
        train(&mut model, training, &schedule, run)?;
        model.matcher()
    }

    fn load(&self, from: &Path, device: &Device) -> Result<Box<dyn Matcher>> {
        Hasher::load(from, device).map(|hasher| Box::new(hasher) as Box<dyn Matcher>)
    }

    fn operations(&self) -> Vec<Operation> {
        vec![Operation { name: "hash.djsrh", run: golden, ignored: &[] }]
    }
}

/// The model in training.
struct Hashing {
    params: Params,
    shape: Shape,
    weights: Weights,
    image: Net,
    text: Net,
    image_moments: Moments,
    text_moments: Moments,
}

impl Hashing {
    fn new(params: Params, training: &Training<'_>, run: &Run<'_>) -> Result<Self> {
        let (images, texts) = (&training.train.images, &training.train.texts);
        let missing = |need| training.missing("djsrh", need);
        let image = params.image.resolve(images).ok_or_else(|| missing(params.image.need()))?;
        let text = params.text.resolve(texts).ok_or_else(|| missing(params.text.need()))?;
        let image_moments = Moments::of("djsrh", images.len(), |items| image.gather("djsrh", images, items))?;
        let text_moments = Moments::of("djsrh", texts.len(), |items| text.gather("djsrh", texts, items))?;
        let widths = |moments: &Moments, hidden: usize| {
            [moments.mean.len(), hidden, params.bits].into_iter().filter(|&width| width > 0).collect()
        };
        let image_widths = widths(&image_moments, params.image_hidden);
        let text_widths = widths(&text_moments, params.text_hidden);
        let shape = Shape { image, text, image_widths, text_widths };
        let mut weights = Weights::new(run.seed, &run.device);
        let mut net = |name, widths, moments| Net::new(&mut weights, name, widths, params.normalise.then_some(moments));
        let image = net("image", &shape.image_widths, &image_moments)?;
        let text = net("text", &shape.text_widths, &text_moments)?;
        Ok(Self { params, shape, weights, image, text, image_moments, text_moments })
    }

    /// Equations (1) to (3) for a batch of raw features.
    fn target(&self, images: &Tensor, texts: &Tensor) -> Result<Tensor> {
        let Params { beta, eta, mu, .. } = self.params;
        if !self.params.affinity_centre {
            return Ok(affinity(images, texts, beta, eta, mu, images.dim(0)?)?.1);
        }
        let centred = |rows: &Tensor, moments: &Moments| -> Result<Tensor> {
            Ok(rows.broadcast_sub(&moments.mean_tensor(rows.device())?)?)
        };
        let (images, texts) = (centred(images, &self.image_moments)?, centred(texts, &self.text_moments)?);
        Ok(affinity(&images, &texts, beta, eta, mu, images.dim(0)?)?.1)
    }
}

impl Model for Hashing {
    fn weights(&self) -> &Weights {
        &self.weights
    }

    fn loss(&self, training: &Training<'_>, batch: &[(u32, u32)], step: &mut Step) -> Result<Tensor> {
        let device = self.weights.device();
        let rows: Vec<usize> = batch.iter().map(|pair| pair.0 as usize).collect();
        let images = tensor(self.shape.image.gather("djsrh", &training.train.images, &rows)?, device)?;
        let rows: Vec<usize> = batch.iter().map(|pair| pair.1 as usize).collect();
        let texts = tensor(self.shape.text.gather("djsrh", &training.train.texts, &rows)?, device)?;
        let target = self.target(&images, &texts)?;
        let sharpness = ((step.epoch + 1) as f64).sqrt();
        let relaxed = |net: &Net, rows: &Tensor| -> Result<Tensor> { Ok((net.forward(rows)? * sharpness)?.tanh()?) }; // (4)
        let losses = losses(&relaxed(&self.image, &images)?, &relaxed(&self.text, &texts)?, &target)?;
        losses.total(self.params.lambda1, self.params.lambda2)
    }

    fn matcher(&self) -> Result<Box<dyn Matcher>> {
        let mut values = self.weights.snapshot()?;
        values.extend(self.image.tensors().into_iter().chain(self.text.tensors()));
        let weights = Weights::frozen(values, "the model in training", self.weights.device());
        Ok(Box::new(Hasher::new(self.shape.clone(), weights)?))
    }
}

/// `S~` and `S` of equations (1) to (3); without gradient.
fn affinity(images: &Tensor, texts: &Tensor, beta: f64, eta: f64, mu: f64, batch: usize) -> Result<(Tensor, Tensor)> {
    let (images, texts) = (cosine_affinity(images)?, cosine_affinity(texts)?); // (1)
    let mixed = mixture(&[(&images, beta), (&texts, 1.0 - beta)])?; // (2)
    let target = (second_order(&mixed, eta, batch)? * mu)?; // (3)
    Ok((mixed, target))
}

/// The three terms of equation (5), unweighted.
struct Losses {
    image_image: Tensor,
    image_text: Tensor,
    text_text: Tensor,
}

fn losses(images: &Tensor, texts: &Tensor, target: &Tensor) -> Result<Losses> {
    let (images, texts) = (unit(images)?, unit(texts)?);
    Ok(Losses {
        image_image: reconstruct(&images.matmul(&images.t()?)?, target)?,
        image_text: reconstruct(&images.matmul(&texts.t()?)?, target)?,
        text_text: reconstruct(&texts.matmul(&texts.t()?)?, target)?,
    })
}

impl Losses {
    /// Equation (5).
    fn total(&self, lambda1: f64, lambda2: f64) -> Result<Tensor> {
        Ok((((&self.image_image * lambda1)? + &self.image_text)? + (&self.text_text * lambda2)?)?)
    }
}

/// How the trained networks are made again: which vectors they see, and their widths.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shape {
    image: ImageInput,
    text: TextInput,
    image_widths: Vec<usize>,
    text_widths: Vec<usize>,
}

/// The trained networks.
struct Hasher {
    shape: Shape,
    weights: Weights,
    image: Net,
    text: Net,
}

const WEIGHTS: &str = "djsrh.safetensors";
const SHAPE: &str = "djsrh.toml";

impl Hasher {
    fn new(shape: Shape, mut weights: Weights) -> Result<Self> {
        let image = Net::frozen(&mut weights, "image", &shape.image_widths)?;
        let text = Net::frozen(&mut weights, "text", &shape.text_widths)?;
        Ok(Self { shape, weights, image, text })
    }

    fn load(from: &Path, device: &Device) -> Result<Self> {
        let file = from.join(SHAPE);
        let text = std::fs::read_to_string(&file).map_err(Error::io(&file))?;
        let wrong = |expected: &str, found: String| Error::Format {
            file: file.display().to_string(),
            expected: expected.into(),
            found,
        };
        let shape: Shape = toml::from_str(&text).map_err(|e| wrong("the shape of two networks", e.message().into()))?;
        for widths in [&shape.image_widths, &shape.text_widths] {
            if widths.len() < 2 || widths.contains(&0) {
                return Err(wrong("at least two widths above 0", format!("{widths:?}")));
            }
        }
        Self::new(shape, Weights::open(&from.join(WEIGHTS), device)?)
    }
}

impl Matcher for Hasher {
    fn encode_images(&self, images: &Images) -> Result<Codes> {
        self.image.encode(images.len(), |items| self.shape.image.gather("djsrh", images, items)) // (6)
    }

    fn encode_texts(&self, texts: &Texts) -> Result<Codes> {
        self.text.encode(texts.len(), |items| self.shape.text.gather("djsrh", texts, items)) // (6)
    }

    fn similarity(&self) -> Similarity<'_> {
        Similarity::Hamming
    }

    fn save(&self, to: &Path) -> Result<()> {
        self.weights.save(&to.join(WEIGHTS))?;
        let shape = toml::to_string(&self.shape).expect("words and numbers");
        std::fs::write(to.join(SHAPE), shape).map_err(Error::io(to.join(SHAPE)))
    }
}

/// Golden operation `hash.djsrh`.
fn golden(case: &Case) -> Result<Answer> {
    let feature = |name| case.get(name)?.tensor(DType::F64);
    let code = |name| Ok::<_, Error>(Var::from_tensor(&case.get(name)?.tensor(DType::F64)?)?);
    let (images, texts) = (code("in.code_image")?, code("in.code_text")?);
    let (mixed, target) = affinity(
        &feature("in.feat_image")?,
        &feature("in.feat_text")?,
        case.config("BETA")?,
        case.config("ETA")?,
        case.config("MU")?,
        case.config("BATCH_SIZE")?,
    )?;
    let parts = losses(&images, &texts, &target)?;
    let total = parts.total(case.config("LAMBDA1")?, case.config("LAMBDA2")?)?;
    let gradients = total.backward()?;
    let values = |tensor: &Tensor| -> Result<Vec<f64>> { Ok(tensor.flatten_all()?.to_vec1()?) };
    let gradient = |code: &Var| -> Result<Vec<f64>> {
        gradients.get(code).map_or_else(|| Err(Error::Numeric("djsrh: a code has no gradient".into())), values)
    };
    Ok(Answer::default()
        .with("out.affinity", values(&target)?)
        .with("out.affinity_tilde", values(&mixed)?)
        .with("out.loss", values(&total)?)
        .with("out.loss_ii", values(&parts.image_image)?)
        .with("out.loss_it", values(&parts.image_text)?)
        .with("out.loss_tt", values(&parts.text_text)?)
        .with("grad.code_image", gradient(&images)?)
        .with("grad.code_text", gradient(&texts)?))
}

#[cfg(test)]
mod tests;
