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

use std::{
    collections::HashMap,
    path::Path,
};

use candle_core::{D, DType, Device, Tensor, Var};
use serde::{Deserialize, Serialize};
use xmbench_datasets::{Images, Matrix, Texts};

use crate::{
    Bits, Codes, Error, Matcher, Method, Result, Run, Similarity, Training,
    card::Card,
    golden::{Answer, Case, Operation},
    linalg::views::{ImageInput, TextInput},
    nn::Weights,
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
        let wrong = |key, expected, found: &dyn std::fmt::Display| Err(params::out_of_range("djsrh", key, expected, found));
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
    weights: Weights,
    hasher: Hasher,
    image_moments: Moments,
    text_moments: Moments,
}

impl Hashing {
    fn new(params: Params, training: &Training<'_>, run: &Run<'_>) -> Result<Self> {
        let (images, texts) = (&training.train.images, &training.train.texts);
        let missing = |need| training.missing("djsrh", need);
        let image = params.image.resolve(images).ok_or_else(|| missing(params.image.need()))?;
        let text = params.text.resolve(texts).ok_or_else(|| missing(params.text.need()))?;
        let image_moments = Moments::of(images.len(), |items| image.gather("djsrh", images, items))?;
        let text_moments = Moments::of(texts.len(), |items| text.gather("djsrh", texts, items))?;
        let mut weights = Weights::new(run.seed, &run.device);
        let mut net = |name: &str, moments: &Moments, hidden: usize| {
            let widths = [moments.mean.len(), hidden, params.bits];
            let widths: Vec<usize> = widths.into_iter().filter(|&width| width > 0).collect();
            Net::new(&mut weights, name, &widths, params.normalise.then_some(moments))
        };
        let (image_net, text_net) =
            (net("image", &image_moments, params.image_hidden)?, net("text", &text_moments, params.text_hidden)?);
        let hasher = Hasher { inputs: Inputs { image, text }, image: image_net, text: text_net };
        Ok(Self { params, weights, hasher, image_moments, text_moments })
    }

    /// Equations (1) to (3) for a batch of raw features.
    fn target(&self, images: &Tensor, texts: &Tensor) -> Result<Tensor> {
        let Params { beta, eta, mu, .. } = self.params;
        if !self.params.affinity_centre {
            return Ok(affinity(images, texts, beta, eta, mu, images.dim(0)?)?.1);
        }
        let centred = |rows: &Tensor, moments: &Moments| rows.broadcast_sub(&moments.mean_tensor(rows.device())?);
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
        let images = tensor(self.hasher.inputs.image.gather("djsrh", &training.train.images, &rows)?, device)?;
        let rows: Vec<usize> = batch.iter().map(|pair| pair.1 as usize).collect();
        let texts = tensor(self.hasher.inputs.text.gather("djsrh", &training.train.texts, &rows)?, device)?;
        let target = self.target(&images, &texts)?;
        let sharpness = ((step.epoch + 1) as f64).sqrt();
        let relaxed = |net: &Net, rows: &Tensor| -> Result<Tensor> { Ok((net.forward(rows)? * sharpness)?.tanh()?) }; // (4)
        let losses = losses(&relaxed(&self.hasher.image, &images)?, &relaxed(&self.hasher.text, &texts)?, &target)?;
        losses.total(self.params.lambda1, self.params.lambda2)
    }

    fn matcher(&self) -> Result<Box<dyn Matcher>> {
        Ok(Box::new(self.hasher.copy()?))
    }
}

/// `S~` and `S` of equations (1) to (3); without gradient. A zero row has cosine 0 with all.
fn affinity(images: &Tensor, texts: &Tensor, beta: f64, eta: f64, mu: f64, batch: usize) -> Result<(Tensor, Tensor)> {
    let signed = |rows: &Tensor| -> Result<Tensor> {
        let unit = unit(&rows.detach())?;
        Ok(unit.matmul(&unit.t()?)?.affine(2.0, -1.0)?) // (1)
    };
    let mixed = ((signed(images)? * beta)? + (signed(texts)? * (1.0 - beta))?)?; // (2)
    let second = mixed.matmul(&mixed.t()?)?;
    let target = (((&mixed * (1.0 - eta))? + (second * (eta / batch as f64))?)? * mu)?; // (3)
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
    let reconstruct = |a: &Tensor, b: &Tensor| -> Result<Tensor> { Ok((a.matmul(&b.t()?)? - target)?.sqr()?.mean_all()?) };
    Ok(Losses {
        image_image: reconstruct(&images, &images)?,
        image_text: reconstruct(&images, &texts)?,
        text_text: reconstruct(&texts, &texts)?,
    })
}

impl Losses {
    /// Equation (5).
    fn total(&self, lambda1: f64, lambda2: f64) -> Result<Tensor> {
        Ok((((&self.image_image * lambda1)? + &self.image_text)? + (&self.text_text * lambda2)?)?)
    }
}

/// Rows over `max(norm, 1e-12)`; the bound stands under the root, whose gradient at 0 is infinite.
fn unit(rows: &Tensor) -> Result<Tensor> {
    let norms = rows.sqr()?.sum_keepdim(D::Minus1)?.maximum(1e-24)?.sqrt()?;
    Ok(rows.broadcast_div(&norms)?)
}

/// Column means of a view, and the root mean square of its centred entries.
struct Moments {
    mean: Vec<f32>,
    spread: f64,
}

impl Moments {
    /// One pass over the items, block by block.
    fn of(items: usize, gather: impl Fn(&[usize]) -> Result<Matrix>) -> Result<Self> {
        let (mut sums, mut squares) = (Vec::new(), Vec::new());
        for block in (0..items).collect::<Vec<_>>().chunks(256) {
            let rows = gather(block)?;
            sums.resize(rows.cols, 0.0f64);
            squares.resize(rows.cols, 0.0f64);
            for (i, &item) in block.iter().enumerate() {
                for (j, &value) in rows.row(i).iter().enumerate() {
                    if !value.is_finite() {
                        return Err(Error::Numeric(format!(
                            "djsrh: expected finite features, found {value} in item {item}, column {j}; check the features"
                        )));
                    }
                    sums[j] += f64::from(value);
                    squares[j] += f64::from(value).powi(2);
                }
            }
        }
        if sums.is_empty() {
            return Err(Error::Numeric("djsrh: expected training items, found none".into()));
        }
        let n = items as f64;
        let variance = sums.iter().zip(&squares).map(|(sum, square)| (square / n - (sum / n).powi(2)).max(0.0));
        let spread = (variance.sum::<f64>() / sums.len() as f64).sqrt();
        let mean = sums.iter().map(|sum| (sum / n) as f32).collect();
        Ok(Self { mean, spread: if spread > 0.0 { spread } else { 1.0 } })
    }

    fn mean_tensor(&self, device: &Device) -> candle_core::Result<Tensor> {
        Tensor::new(self.mean.as_slice(), device)
    }
}

/// Fully connected layers with ReLU between them, after an input normalisation `(x - mean) * scale`.
struct Net {
    mean: Tensor,
    scale: Tensor,
    /// Weight `[in, out]` and bias `[out]`.
    layers: Vec<(Tensor, Tensor)>,
}

impl Net {
    fn new(weights: &mut Weights, name: &str, widths: &[usize], moments: Option<&Moments>) -> Result<Self> {
        let device = weights.device().clone();
        let (mean, scale) = match moments {
            Some(moments) => (moments.mean_tensor(&device)?, (1.0 / moments.spread) as f32),
            None => (Tensor::zeros(widths[0], DType::F32, &device)?, 1.0),
        };
        let layer = |(i, pair): (usize, &[usize])| {
            let bound = 1.0 / (pair[0] as f64).sqrt();
            Ok((
                weights.uniform(&format!("{name}.{i}.weight"), pair, bound)?,
                weights.uniform(&format!("{name}.{i}.bias"), &pair[1..], bound)?,
            ))
        };
        let layers = widths.windows(2).enumerate().map(layer).collect::<Result<_>>()?;
        Ok(Self { mean, scale: Tensor::new(&[scale], &device)?, layers })
    }

    fn forward(&self, rows: &Tensor) -> Result<Tensor> {
        let mut out = rows.broadcast_sub(&self.mean)?.broadcast_mul(&self.scale)?;
        for (i, (weight, bias)) in self.layers.iter().enumerate() {
            out = if i > 0 { out.relu()? } else { out };
            out = out.matmul(weight)?.broadcast_add(bias)?;
        }
        Ok(out)
    }

    /// Signs of the outputs, equation (6), by blocks of rows.
    fn encode(&self, items: usize, gather: impl Fn(&[usize]) -> Result<Matrix>) -> Result<Codes> {
        let (width, bits) = (self.mean.dim(0)?, self.layers.last().map_or(Ok(0), |(_, bias)| bias.dim(0))?);
        let mut real = Matrix::zeros(items, bits);
        for (block, out) in (0..items).collect::<Vec<_>>().chunks(512).zip(real.data.chunks_mut(512 * bits.max(1))) {
            let rows = gather(block)?;
            if rows.cols != width {
                return Err(Error::Numeric(format!(
                    "djsrh: expected vectors of {width} values as in training, found {}",
                    rows.cols
                )));
            }
            let rows = tensor(rows, self.mean.device())?;
            out.copy_from_slice(&self.forward(&rows)?.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(Codes::Binary(Bits::from_signs(&real)))
    }

    fn copy(&self) -> Result<Self> {
        let layers = self.layers.iter().map(|(weight, bias)| Ok((weight.detach().copy()?, bias.detach().copy()?)));
        Ok(Self { mean: self.mean.clone(), scale: self.scale.clone(), layers: layers.collect::<Result<_>>()? })
    }

    fn tensors(&self, name: &str) -> Vec<(String, Tensor)> {
        let layers = self.layers.iter().enumerate().flat_map(|(i, (weight, bias))| {
            [(format!("{name}.{i}.weight"), weight.clone()), (format!("{name}.{i}.bias"), bias.clone())]
        });
        let input = [(format!("{name}.mean"), self.mean.clone()), (format!("{name}.scale"), self.scale.clone())];
        input.into_iter().chain(layers).collect()
    }

    fn from_tensors(name: &str, tensors: &HashMap<String, Tensor>, file: &Path) -> Result<Self> {
        let wrong = |expected: String, found: String| Error::Format { file: file.display().to_string(), expected, found };
        let get = |key: String, rank: usize| match tensors.get(&key) {
            Some(tensor) if tensor.rank() == rank && tensor.dtype() == DType::F32 => Ok(tensor.clone()),
            Some(tensor) => Err(wrong(format!("`{key}` of f32 and rank {rank}"), format!("{tensor:?}"))),
            None => Err(wrong(format!("a tensor `{key}`"), "none".into())),
        };
        let (mean, scale) = (get(format!("{name}.mean"), 1)?, get(format!("{name}.scale"), 1)?);
        let mut width = mean.dim(0)?;
        let mut layers = Vec::new();
        while layers.is_empty() || tensors.contains_key(&format!("{name}.{}.weight", layers.len())) {
            let i = layers.len();
            let (weight, bias) = (get(format!("{name}.{i}.weight"), 2)?, get(format!("{name}.{i}.bias"), 1)?);
            let out = bias.dim(0)?;
            if weight.dims() != [width, out] {
                return Err(wrong(format!("`{name}.{i}.weight` of shape [{width}, {out}]"), format!("{:?}", weight.dims())));
            }
            width = out;
            layers.push((weight, bias));
        }
        Ok(Self { mean, scale, layers })
    }
}

/// Which vectors the networks see.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Inputs {
    image: ImageInput,
    text: TextInput,
}

/// The trained networks.
struct Hasher {
    inputs: Inputs,
    image: Net,
    text: Net,
}

const WEIGHTS: &str = "djsrh.safetensors";
const INPUTS: &str = "djsrh.toml";

impl Hasher {
    fn copy(&self) -> Result<Self> {
        Ok(Self { inputs: self.inputs, image: self.image.copy()?, text: self.text.copy()? })
    }

    fn load(from: &Path, device: &Device) -> Result<Self> {
        let (file, inputs) = (from.join(WEIGHTS), from.join(INPUTS));
        let format = |path: &Path, expected: &str, found: String| Error::Format {
            file: path.display().to_string(),
            expected: expected.into(),
            found,
        };
        let text = std::fs::read_to_string(&inputs).map_err(Error::io(&inputs))?;
        let chosen = toml::from_str(&text).map_err(|e| format(&inputs, "the inputs of the networks", e.to_string()))?;
        let bytes = std::fs::read(&file).map_err(Error::io(&file))?;
        let tensors = candle_core::safetensors::load_buffer(&bytes, device)
            .map_err(|error| format(&file, "a safetensors file", error.to_string()))?;
        Ok(Self {
            inputs: chosen,
            image: Net::from_tensors("image", &tensors, &file)?,
            text: Net::from_tensors("text", &tensors, &file)?,
        })
    }
}

impl Matcher for Hasher {
    fn encode_images(&self, images: &Images) -> Result<Codes> {
        self.image.encode(images.len(), |items| self.inputs.image.gather("djsrh", images, items))
    }

    fn encode_texts(&self, texts: &Texts) -> Result<Codes> {
        self.text.encode(texts.len(), |items| self.inputs.text.gather("djsrh", texts, items))
    }

    fn similarity(&self) -> Similarity<'_> {
        Similarity::Hamming
    }

    fn save(&self, to: &Path) -> Result<()> {
        let tensors: HashMap<_, _> = self.image.tensors("image").into_iter().chain(self.text.tensors("text")).collect();
        candle_core::safetensors::save(&tensors, to.join(WEIGHTS))?;
        let inputs = toml::to_string(&self.inputs).expect("two words");
        std::fs::write(to.join(INPUTS), inputs).map_err(Error::io(to.join(INPUTS)))
    }
}

fn tensor(rows: Matrix, device: &Device) -> Result<Tensor> {
    Ok(Tensor::from_vec(rows.data, (rows.rows, rows.cols), device)?)
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
