//! ResNet (K. He et al., Deep residual learning for image recognition, CVPR 2016) as `transformers` has it, which is the form of torchvision.
//!
//! For maps `[rows, columns, channels]`:
//!
//! - (1) stem: convolution 7 x 7, stride 2, batch normalisation, activation; the largest of 3 x 3, stride 2
//! - (2) a basic layer: two convolutions 3 x 3; a bottleneck: 1 x 1 to a quarter of the channels, 3 x 3, 1 x 1; batch normalisation after
//!   each, the activation after all but the last; what came in is added, through a 1 x 1 convolution where its shape differs; activation
//! - (3) the last map: the regions; the mean over its places: the vector
//!
//! A stage's stride (2, but 1 in the first unless `downsample_in_first_stage`) is that of the first layer's first convolution, in a bottleneck of its second
//! unless `downsample_in_bottleneck`; a bottleneck's other layers have none. Padding is `floor(k / 2)` zeros on each side. Batch normalisation has
//! `eps = 1e-5` and is folded into the convolution before it, in f64.

use xmbench_datasets::Result;

use super::{
    arrays::Arrays,
    config::Resnet,
    layers::{Activation, Linear},
};
use crate::weights::Weights;

/// What batch normalisation adds to a variance.
const EPS: f64 = 1e-5;

/// A map, square.
#[derive(Clone)]
struct Map {
    side: usize,
    /// `[side, side, channels]`.
    values: Vec<f32>,
}

/// A convolution with its normalisation.
struct Convolution {
    /// From patches `[k, k, inputs]`.
    linear: Linear,
    kernel: usize,
    stride: usize,
    inputs: usize,
}

impl Convolution {
    /// `NAME.convolution` and `NAME.normalization`.
    fn read(
        from: &Arrays<'_>,
        name: &str,
        [inputs, outputs]: [usize; 2],
        kernel: usize,
        stride: usize,
    ) -> Result<Self> {
        let stored = from.take(&format!("{name}.convolution.weight"), &[outputs, inputs, kernel, kernel])?;
        let part = |part: &str| from.take(&format!("{name}.normalization.{part}"), &[outputs]);
        let (gain, shift, mean, variance) =
            (part("weight")?, part("bias")?, part("running_mean")?, part("running_var")?);
        let places = kernel * kernel;
        let (mut weights, mut bias) = (Vec::with_capacity(stored.len()), Vec::with_capacity(outputs));
        for (output, filter) in stored.chunks_exact(inputs * places).enumerate() {
            let factor = f64::from(gain[output]) / (f64::from(variance[output].max(0.0)) + EPS).sqrt();
            bias.push((f64::from(shift[output]) - f64::from(mean[output]) * factor) as f32);
            let order = (0..places).flat_map(|place| (0..inputs).map(move |input| input * places + place));
            weights.extend(order.map(|at| (f64::from(filter[at]) * factor) as f32));
        }
        Ok(Self { linear: Linear::new(weights, bias, inputs * places), kernel, stride, inputs })
    }

    fn apply(&self, map: &Map) -> Map {
        if self.kernel == 1 && self.stride == 1 {
            return Map { side: map.side, values: self.linear.apply(&map.values) };
        }
        let pad = self.kernel / 2;
        let side = (map.side + 2 * pad - self.kernel) / self.stride + 1;
        let line = self.kernel * self.inputs;
        let mut patches = vec![0.0; side * side * self.kernel * line];
        for (place, patch) in patches.chunks_exact_mut(self.kernel * line).enumerate() {
            let (y, x) = (place / side * self.stride, place % side * self.stride);
            // Columns of the filter that lie on the map.
            let (first, last) = (pad.saturating_sub(x), self.kernel.min(map.side + pad - x));
            for (row, patch) in patch.chunks_exact_mut(line).enumerate() {
                let Some(y) = (y + row).checked_sub(pad).filter(|&y| y < map.side) else { continue };
                let begin = (y * map.side + x + first - pad) * self.inputs;
                let length = (last - first) * self.inputs;
                patch[first * self.inputs..][..length].copy_from_slice(&map.values[begin..][..length]);
            }
        }
        Map { side, values: self.linear.apply(&patches) }
    }
}

/// A residual layer (2).
struct Layer {
    convolutions: Vec<Convolution>,
    shortcut: Option<Convolution>,
}

impl Layer {
    fn apply(&self, map: Map, activation: Activation) -> Map {
        let mut inner = map.clone();
        for (number, convolution) in self.convolutions.iter().enumerate() {
            if number > 0 {
                activation.apply(&mut inner.values);
            }
            inner = convolution.apply(&inner);
        }
        let past = match &self.shortcut {
            Some(shortcut) => shortcut.apply(&map),
            None => map,
        };
        inner.values.iter_mut().zip(&past.values).for_each(|(value, past)| *value += past);
        activation.apply(&mut inner.values);
        inner
    }
}

/// The network.
pub(super) struct Residual {
    side: usize,
    stem: Convolution,
    layers: Vec<Layer>,
    activation: Activation,
    /// Cells a side of the last map, and its channels.
    cells: usize,
    width: usize,
}

impl Residual {
    /// The network for pictures of `side` pixels, alone or under a classifier.
    pub fn read(weights: &Weights, form: &Resnet, side: usize) -> Result<Self> {
        let from = Arrays::new(weights, "resnet.", "embedder.embedder.convolution.weight");
        let stem = Convolution::read(&from, "embedder.embedder", [3, form.stem], 7, 2)?;
        let mut layers = Vec::new();
        // Behind the stem, half of it twice.
        let mut cells = side.div_ceil(2).div_ceil(2);
        let mut channels = form.stem;
        for (stage, (&width, &depth)) in form.widths.iter().zip(&form.depths).enumerate() {
            for number in 0..depth {
                let reduces = number == 0 && (stage > 0 || form.reduce_first_stage);
                let stride = if reduces { 2 } else { 1 };
                let at = format!("encoder.stages.{stage}.layers.{number}");
                let convolution = |place: usize, sizes, kernel, stride| {
                    Convolution::read(&from, &format!("{at}.layer.{place}"), sizes, kernel, stride)
                };
                let convolutions = if form.bottleneck {
                    let narrow = width / 4;
                    // Only the first layer of a stage is told to reduce in its first convolution, and only it reduces.
                    let strides = if form.reduce_first_layer { [stride, 1] } else { [1, stride] };
                    vec![
                        convolution(0, [channels, narrow], 1, strides[0])?,
                        convolution(1, [narrow, narrow], 3, strides[1])?,
                        convolution(2, [narrow, width], 1, 1)?,
                    ]
                } else {
                    vec![convolution(0, [channels, width], 3, stride)?, convolution(1, [width, width], 3, 1)?]
                };
                let shortcut = match channels != width || stride != 1 {
                    true => Some(Convolution::read(&from, &format!("{at}.shortcut"), [channels, width], 1, stride)?),
                    false => None,
                };
                layers.push(Layer { convolutions, shortcut });
                cells = cells.div_ceil(stride);
                channels = width;
            }
        }
        Ok(Self { side, stem, layers, activation: form.activation, cells, width: channels })
    }

    /// Cells a side of the last map.
    pub fn cells(&self) -> usize {
        self.cells
    }

    /// Values of the vector, and of a cell.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Vector and map (3) of a picture `[side, side, 3]`.
    pub fn look(&self, seen: &[f32]) -> (Vec<f32>, Vec<f32>) {
        // (1)
        let mut map = self.stem.apply(&Map { side: self.side, values: seen.to_vec() });
        self.activation.apply(&mut map.values);
        map = largest(&map);
        for layer in &self.layers {
            map = layer.apply(map, self.activation);
        }
        // (3)
        let mut sums = vec![0.0f64; self.width];
        for place in map.values.chunks_exact(self.width) {
            sums.iter_mut().zip(place).for_each(|(sum, &value)| *sum += f64::from(value));
        }
        let places = (map.side * map.side) as f64;
        (sums.into_iter().map(|sum| (sum / places) as f32).collect(), map.values)
    }
}

/// The largest of 3 x 3 places, stride 2; places outside are none.
fn largest(map: &Map) -> Map {
    let channels = map.values.len() / (map.side * map.side);
    let side = map.side.div_ceil(2);
    let mut values = vec![f32::NEG_INFINITY; side * side * channels];
    let near = |at: usize| (2 * at).saturating_sub(1)..(2 * at + 2).min(map.side);
    for (place, out) in values.chunks_exact_mut(channels).enumerate() {
        for (y, x) in near(place / side).flat_map(|y| near(place % side).map(move |x| (y, x))) {
            let from = &map.values[(y * map.side + x) * channels..][..channels];
            out.iter_mut().zip(from).for_each(|(most, &value)| *most = most.max(value));
        }
    }
    Map { side, values }
}
