//! What deep hashing on given features shares: inputs, two networks, relaxed codes, signs, files.
//!
//! ```text
//! o = net((x - mean) scale)              x: the vector of an image or a text          (1)
//! H = tanh(a_e o),  a_e = sqrt(e + 1)    relaxed codes in epoch e, counted from 0     (2)
//! b = sign(o)                            the code                                     (3)
//! ```
//!
//! A net is linear, or has one hidden layer with ReLU, perhaps with batch normalisation and dropout. Without `annealed`, `a_e` is 1.
//! The papers put it on top of an image network that they train or freeze; here features are given.

use std::{cell::OnceCell, path::Path};

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use xmbench_datasets::{Images, Matrix, Texts};

use crate::{
    Bits, Codes, Error, Result, Run, Similarity, Training,
    linalg::views::{ImageInput, TextInput},
    nn::{Init, Mlp, MlpSettings, Moments, Standardise, Weights, in_blocks},
    params::out_of_range,
    trained::{Batch, Body},
};

/// Items that are encoded at once.
const BLOCK: usize = 256;

/// Parameters of both networks and of the features that affinities are built from; flattened into those of every method that
/// hashes. The defaults are those of DJSRH.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Code length.
    pub bits: usize,
    /// Hidden width of the image network; 0 is linear.
    pub image_hidden: usize,
    /// Hidden width of the text network; 0 is linear.
    pub text_hidden: usize,
    /// Vector that stands for an image.
    pub image: ImageInput,
    /// Vector that stands for a text.
    pub text: TextInput,
    /// Centre and scale the networks' inputs, equation (1).
    pub normalise: bool,
    /// Centre the features of the affinity.
    pub affinity_centre: bool,
    /// Share of the hidden values that is dropped in training.
    pub dropout: f64,
    /// Batch normalisation between hidden layer and ReLU.
    pub batch_norm: bool,
    /// Whether the tanh of equation (2) sharpens from epoch to epoch.
    pub annealed: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            bits: 64,
            image_hidden: 0,
            text_hidden: 4096,
            image: ImageInput::Auto,
            text: TextInput::Auto,
            normalise: true,
            affinity_centre: false,
            dropout: 0.0,
            batch_norm: false,
            annealed: true,
        }
    }
}

impl Options {
    fn layers(&self) -> MlpSettings {
        let Self { dropout, batch_norm: norm, .. } = *self;
        MlpSettings { init: Init::Pytorch, dropout, norm, ..MlpSettings::default() }
    }
}

/// Which vectors the networks see, and their widths.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    image: ImageInput,
    text: TextInput,
    image_widths: Vec<usize>,
    text_widths: Vec<usize>,
}

/// Both networks.
pub struct Networks {
    method: &'static str,
    shape: Shape,
    options: Options,
    image: Net,
    text: Net,
    /// Means of the training features, while training.
    means: Option<[Tensor; 2]>,
}

/// What of a step has been computed.
#[derive(Default)]
pub struct Seen {
    features: OnceCell<[Tensor; 2]>,
}

impl Batch<'_, Networks> {
    /// Raw features of images and of texts, `[images, p]` and `[texts, q]`.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn features(&self) -> Result<&[Tensor; 2]> {
        let (body, items) = (self.body(), &self.items);
        self.once(|seen| &seen.features, || body.features(self.training, &items.images, &items.texts))
    }

    /// The features that affinities are built from: raw, or without the training mean.
    ///
    /// # Errors
    /// As [`Batch::features`].
    pub fn affinity_features(&self) -> Result<[Tensor; 2]> {
        self.body().centred(self.features()?)
    }

    /// What the networks read of raw features: centred and scaled, if they are.
    ///
    /// # Errors
    /// As [`Batch::features`].
    pub fn inputs(&self) -> Result<[Tensor; 2]> {
        let [images, texts] = self.features()?;
        let Networks { image, text, .. } = self.body();
        Ok([image.standardise.forward(images)?, text.standardise.forward(texts)?])
    }

    /// Outputs of both networks for such inputs, `[images, bits]` and `[texts, bits]`, equation (1).
    ///
    /// # Errors
    /// If the widths do not fit.
    pub fn outputs_of(&self, [images, texts]: &[Tensor; 2]) -> Result<[Tensor; 2]> {
        let (body, mut stream) = (self.body(), self.stream());
        let images = body.image.layers.forward(images, Some(&mut stream))?;
        Ok([images, body.text.layers.forward(texts, Some(&mut stream))?])
    }

    /// Relaxed codes of outputs in this epoch, equation (2).
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn relax(&self, [images, texts]: [Tensor; 2]) -> Result<[Tensor; 2]> {
        let sharpness = if self.body().options.annealed { ((self.epoch + 1) as f64).sqrt() } else { 1.0 };
        Ok([(images * sharpness)?.tanh()?, (texts * sharpness)?.tanh()?])
    }

    /// Relaxed codes of the batch, equation (2). Where networks drop values, each call draws anew.
    ///
    /// # Errors
    /// As [`Batch::features`].
    pub fn relaxed(&self) -> Result<[Tensor; 2]> {
        self.relax(self.outputs_of(&self.inputs()?)?)
    }
}

impl Body for Networks {
    type Options = Options;
    type Ends = ();
    type Shape = Shape;
    type Seen = Seen;

    const SIMILARITY: Similarity<'static> = Similarity::Hamming;

    fn check(options: &Options, method: &str) -> Result<()> {
        let Options { bits, image_hidden, text_hidden, dropout, batch_norm, .. } = *options;
        if !(1..=4096).contains(&bits) {
            return Err(out_of_range(method, "bits", "1 to 4096", bits));
        }
        if !(0.0..1.0).contains(&dropout) {
            return Err(out_of_range(method, "dropout", "a share in [0, 1)", dropout));
        }
        if image_hidden + text_hidden == 0 && (dropout > 0.0 || batch_norm) {
            let expected = "a hidden layer for `dropout` and `batch_norm` to act on";
            return Err(out_of_range(method, "text_hidden", expected, text_hidden));
        }
        Ok(())
    }

    fn fit(
        method: &'static str,
        options: &Options,
        (): (),
        training: &Training<'_>,
        _run: &Run<'_>,
        weights: &mut Weights,
    ) -> Result<Self> {
        let (images, texts) = (&training.train.images, &training.train.texts);
        let missing = |need| training.missing(method, need);
        let image = options.image.resolve(images).ok_or_else(|| missing(options.image.need()))?;
        let text = options.text.resolve(texts).ok_or_else(|| missing(options.text.need()))?;
        let image_moments = Moments::of(method, images.len(), |items| image.gather(method, images, items))?;
        let text_moments = Moments::of(method, texts.len(), |items| text.gather(method, texts, items))?;
        let widths = |moments: &Moments, hidden: usize| {
            [moments.mean.len(), hidden, options.bits].into_iter().filter(|&width| width > 0).collect()
        };
        let image_widths = widths(&image_moments, options.image_hidden);
        let text_widths = widths(&text_moments, options.text_hidden);
        let shape = Shape { image, text, image_widths, text_widths };
        let settings = options.layers();
        let mut net =
            |name, widths, moments| Net::new(weights, name, widths, settings, options.normalise.then_some(moments));
        let image = net("image", &shape.image_widths, &image_moments)?;
        let text = net("text", &shape.text_widths, &text_moments)?;
        let device = weights.device();
        let means = Some([image_moments.mean_tensor(device)?, text_moments.mean_tensor(device)?]);
        Ok(Self { method, shape, options: options.clone(), image, text, means })
    }

    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn on(&self, weights: &mut Weights) -> Result<Self> {
        Self::new(self.method, &self.options, self.shape.clone(), weights)
    }

    fn encode_images(&self, images: &Images) -> Result<Codes> {
        self.image.encode(self.method, images.len(), |items| self.shape.image.gather(self.method, images, items)) // (3)
    }

    fn encode_texts(&self, texts: &Texts) -> Result<Codes> {
        self.text.encode(self.method, texts.len(), |items| self.shape.text.gather(self.method, texts, items)) // (3)
    }

    fn save(&self, _to: &Path) -> Result<()> {
        Ok(())
    }

    fn load(
        method: &'static str,
        options: &Options,
        (): (),
        shape: Shape,
        from: &Path,
        weights: &mut Weights,
    ) -> Result<Self> {
        for widths in [&shape.image_widths, &shape.text_widths] {
            if widths.len() < 2 || widths.contains(&0) {
                return Err(Error::Format {
                    file: from.display().to_string(),
                    expected: "a shape with at least two widths above 0 a network".into(),
                    found: format!("{widths:?}"),
                });
            }
        }
        Self::new(method, options, shape, weights)
    }
}

impl Networks {
    fn new(method: &'static str, options: &Options, shape: Shape, weights: &mut Weights) -> Result<Self> {
        let settings = options.layers();
        let image = Net::new(weights, "image", &shape.image_widths, settings, None)?;
        let text = Net::new(weights, "text", &shape.text_widths, settings, None)?;
        Ok(Self { method, shape, options: options.clone(), image, text, means: None })
    }

    /// Code length.
    pub fn bits(&self) -> usize {
        self.options.bits
    }

    /// Lengths of the vectors of images and of texts.
    pub fn widths(&self) -> [usize; 2] {
        [self.shape.image_widths[0], self.shape.text_widths[0]]
    }

    /// Raw features of some training images and texts, `[images, p]` and `[texts, q]`.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn features(&self, training: &Training<'_>, images: &[usize], texts: &[usize]) -> Result<[Tensor; 2]> {
        let (shape, train, device) = (&self.shape, training.train, self.image.standardise.device());
        let images = tensor(shape.image.gather(self.method, &train.images, images)?, device)?;
        Ok([images, tensor(shape.text.gather(self.method, &train.texts, texts)?, device)?])
    }

    /// Raw features as affinities are built from them: as they are, or without the training mean.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn centred(&self, [images, texts]: &[Tensor; 2]) -> Result<[Tensor; 2]> {
        Ok(match &self.means {
            Some([x, y]) if self.options.affinity_centre => [images.broadcast_sub(x)?, texts.broadcast_sub(y)?],
            _ => [images.clone(), texts.clone()],
        })
    }
}

/// Layers with ReLU between them over standardised inputs; weights `NAME.mean`, `NAME.scale` and `NAME.0.weight` on.
struct Net {
    standardise: Standardise,
    layers: Mlp,
}

impl Net {
    /// Layers `widths[0] -> widths[1] -> ..`, initialised as PyTorch does, on inputs that `moments` standardise.
    fn new(
        weights: &mut Weights,
        name: &str,
        widths: &[usize],
        settings: MlpSettings,
        moments: Option<&Moments>,
    ) -> Result<Self> {
        let standardise = Standardise::in_weights(weights, name, widths[0], moments)?;
        Ok(Self { standardise, layers: Mlp::new(weights, name, widths, settings)? })
    }

    /// `[n, widths[0]]` to `[n, bits]`.
    fn forward(&self, rows: &Tensor) -> Result<Tensor> {
        self.layers.forward(&self.standardise.forward(rows)?, None)
    }

    /// Signs of the outputs.
    fn encode(&self, method: &str, items: usize, gather: impl Fn(&[usize]) -> Result<Matrix>) -> Result<Codes> {
        let order: Vec<usize> = (0..items).collect();
        let real = in_blocks(&order, self.layers.width(), BLOCK, |items| {
            let rows = gather(items)?;
            if rows.cols != self.standardise.width() {
                let (expected, found) = (self.standardise.width(), rows.cols);
                return Err(Error::Numeric(format!(
                    "{method}: expected vectors of {expected} values as in training, found {found}"
                )));
            }
            self.forward(&tensor(rows, self.standardise.device())?)
        })?;
        Ok(Codes::Binary(Bits::from_signs(&real)))
    }
}

/// The same values on a device.
fn tensor(rows: Matrix, device: &Device) -> Result<Tensor> {
    Ok(Tensor::from_vec(rows.data, (rows.rows, rows.cols), device)?)
}

#[cfg(test)]
mod tests {
    use xmbench_datasets::random::Seed;

    use super::*;

    #[test]
    fn bits_are_the_signs_of_the_outputs() {
        let mut weights = Weights::new(Seed(1), &Device::Cpu);
        let net = Net::new(&mut weights, "net", &[5, 7, 3], Options::default().layers(), None).unwrap();
        let items = Matrix { rows: 600, cols: 5, data: (0..3000).map(|i| (i as f32).sin()).collect() };
        let gather = |chosen: &[usize]| {
            Ok(Matrix {
                rows: chosen.len(),
                cols: 5,
                data: chosen.iter().flat_map(|&i| items.row(i).to_vec()).collect(),
            })
        };
        let Codes::Binary(bits) = net.encode("m", 600, gather).unwrap() else { panic!("binary codes") };
        let real: Vec<Vec<f32>> =
            net.forward(&tensor(items.clone(), &Device::Cpu).unwrap()).unwrap().to_vec2().unwrap();
        for (i, row) in real.iter().enumerate() {
            for (b, value) in row.iter().enumerate() {
                assert_eq!(bits.item(i)[0] >> b & 1 == 1, *value > 0.0);
            }
        }
    }

    #[test]
    fn training_drops_values_and_normalises_by_the_batch_and_codes_do_not() {
        let options = Options { dropout: 0.5, batch_norm: true, ..Options::default() };
        let mut weights = Weights::new(Seed(1), &Device::Cpu);
        let net = Net::new(&mut weights, "net", &[3, 40, 8], options.layers(), None).unwrap();
        let rows = Tensor::new(&[[1f32, 2.0, 3.0], [-1.0, 0.5, 0.0], [2.0, 2.0, -1.0]], &Device::Cpu).unwrap();
        let values = |x: Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let mut stream = Seed(2).stream(&["drop"]);
        let mut trained = || values(net.layers.forward(&rows, Some(&mut stream)).unwrap());
        assert_ne!(trained(), trained());
        assert_eq!(values(net.forward(&rows).unwrap()), values(net.forward(&rows).unwrap()));
        // Frozen weights keep the running moments that training moved.
        let mut frozen = Weights::frozen(weights.snapshot().unwrap(), "here", &Device::Cpu);
        let again = Net::new(&mut frozen, "net", &[3, 40, 8], options.layers(), None).unwrap();
        assert_eq!(values(net.forward(&rows).unwrap()), values(again.forward(&rows).unwrap()));
    }

    #[test]
    fn options_that_would_do_nothing_are_refused() {
        let error = |options: Options| Networks::check(&options, "m").unwrap_err().to_string();
        let linear = Options { image_hidden: 0, text_hidden: 0, ..Options::default() };
        assert!(Networks::check(&linear, "m").is_ok());
        assert!(
            error(Options { batch_norm: true, ..linear.clone() })
                .contains("a hidden layer for `dropout` and `batch_norm`")
        );
        assert!(error(Options { dropout: 0.5, ..linear }).contains("a hidden layer for"));
        assert!(error(Options { dropout: 1.0, ..Options::default() }).contains("a share in [0, 1), found 1"));
        assert!(error(Options { bits: 0, ..Options::default() }).contains("1 to 4096, found 0"));
    }
}
