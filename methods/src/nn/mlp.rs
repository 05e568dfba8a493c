//! Multilayer perceptrons: what stands between vectors and a common space in most methods.
//!
//! ```text
//! h_i = dropout(a(norm(h_{i-1} W_i + b_i)))     each hidden layer, h_0 = x; norm and dropout where they are asked for    (1)
//! y = h_L W + b                                                                                                       (2)
//! ```

use candle_core::{Device, Tensor};
use xmbench_datasets::{Matrix, random::Stream};

use super::{Activation, BatchNorm, Dense, Init, Weights, dropout, in_blocks};
use crate::Result;

/// Rows that go through at once where no gradient is taken.
const BLOCK: usize = 1024;

/// How the layers of an [`Mlp`] are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MlpSettings {
    /// `a` of the hidden layers.
    pub activation: Activation,
    /// Initial values.
    pub init: Init,
    /// Names of the layers.
    pub names: LayerNames,
    /// Whether hidden layers have batch normalisation.
    pub norm: bool,
    /// Share of the hidden values that is dropped in training.
    pub dropout: f64,
}

impl Default for MlpSettings {
    fn default() -> Self {
        Self {
            activation: Activation::Relu,
            init: Init::Xavier,
            names: LayerNames::Numbered,
            norm: false,
            dropout: 0.0,
        }
    }
}

/// Under which names the weights of an [`Mlp`] stand; initial values are drawn by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerNames {
    /// Layers `NAME.0`, `NAME.1` and so on; normalisation behind them `NAME.0.norm`.
    Numbered,
    /// The last layer `NAME`, the first hidden one `NAME.hidden` and its normalisation `NAME.norm`; of more hidden ones, the
    /// next `NAME.hidden.1` and `NAME.norm.1`.
    Last,
}

impl LayerNames {
    /// Of a layer and of the normalisation behind it.
    fn of(self, name: &str, i: usize, last: bool) -> [String; 2] {
        match (self, i) {
            (Self::Numbered, _) => [format!("{name}.{i}"), format!("{name}.{i}.norm")],
            (Self::Last, _) if last => [name.into(), format!("{name}.norm")],
            (Self::Last, 0) => [format!("{name}.hidden"), format!("{name}.norm")],
            (Self::Last, _) => [format!("{name}.hidden.{i}"), format!("{name}.norm.{i}")],
        }
    }
}

/// A multilayer perceptron.
pub struct Mlp {
    layers: Vec<Layer>,
    dropout: f64,
    width: usize,
}

/// Equation (1) but for the dropout, or equation (2).
struct Layer {
    /// With the nonlinearity, if no normalisation comes between.
    dense: Dense,
    norm: Option<(BatchNorm, Activation)>,
}

impl Layer {
    fn forward(&self, x: &Tensor, training: bool) -> Result<Tensor> {
        let y = self.dense.forward(x)?;
        match &self.norm {
            Some((norm, activation)) => activation.apply(&norm.forward(&y, training)?),
            None => Ok(y),
        }
    }
}

impl Mlp {
    /// Layers `widths[0] -> widths[1] -> ..`; two widths make one linear layer.
    ///
    /// # Errors
    /// If a weight cannot be made.
    pub fn new(weights: &mut Weights, name: &str, widths: &[usize], settings: MlpSettings) -> Result<Self> {
        let last = widths.len().saturating_sub(2);
        let layer = |(i, pair): (usize, &[usize])| {
            let [at, norm] = settings.names.of(name, i, i == last);
            let activation = if i == last { Activation::Identity } else { settings.activation };
            let (inside, norm) = match settings.norm && i != last {
                true => (Activation::Identity, Some((BatchNorm::new(weights, &norm, pair[1])?, activation))),
                false => (activation, None),
            };
            let [weight, bias] = settings.init.layer(weights, &at, pair[0], pair[1])?;
            Ok(Layer { dense: Dense::from_parts(weight, bias, inside), norm })
        };
        let layers = widths.windows(2).enumerate().map(layer).collect::<Result<_>>()?;
        Ok(Self { layers, dropout: settings.dropout, width: widths.last().copied().unwrap_or(0) })
    }

    /// Length of the vectors that come out.
    pub fn width(&self) -> usize {
        self.width
    }

    /// `[n, in]` to `[n, out]`. With a stream the network is in training: batch normalisation goes by the batch, and dropout
    /// drops.
    ///
    /// # Errors
    /// Rows of another width.
    pub fn forward(&self, x: &Tensor, mut training: Option<&mut Stream>) -> Result<Tensor> {
        let mut y = x.clone();
        for (i, layer) in self.layers.iter().enumerate() {
            y = layer.forward(&y, training.is_some())?;
            if let (Some(stream), true) = (&mut training, self.dropout > 0.0 && i + 1 < self.layers.len()) {
                y = dropout(&y, self.dropout, stream)?;
            }
        }
        Ok(y)
    }

    /// The outputs of many rows, block by block, outside training.
    ///
    /// # Errors
    /// Rows of another width.
    pub fn outputs(&self, rows: &Matrix, device: &Device) -> Result<Matrix> {
        let order: Vec<usize> = (0..rows.rows).collect();
        in_blocks(&order, self.width, BLOCK, |items| {
            let values = &rows.data[items[0] * rows.cols..][..items.len() * rows.cols];
            self.forward(&Tensor::from_slice(values, (items.len(), rows.cols), device)?, None)
        })
    }
}

#[cfg(test)]
mod tests {
    use xmbench_datasets::random::Seed;

    use super::*;
    use crate::nn::checks::{counted, distance, fill, flat};

    fn mlp(widths: &[usize], settings: MlpSettings) -> (Weights, Mlp) {
        let mut weights = Weights::new(Seed(2), &Device::Cpu);
        let mlp = Mlp::new(&mut weights, "net", widths, settings).unwrap();
        (weights, mlp)
    }

    fn names(weights: &Weights) -> Vec<&str> {
        weights.iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn two_layers_by_hand() {
        for (activation, expected) in [(Activation::Relu, 4.5), (Activation::Identity, 3.5), (Activation::Cubic, 5.5)] {
            let (weights, mlp) = mlp(&[2, 2, 1], MlpSettings { activation, ..MlpSettings::default() });
            let set = |name: &str, values: &[f32]| {
                let var = weights.var(name).unwrap();
                var.set(&Tensor::from_slice(values, var.shape(), &Device::Cpu).unwrap()).unwrap();
            };
            // Sums 12 and -12 (or 2 and -1); the cubic sigmoid of 12 is 3.
            let sums: [f32; 2] = if activation == Activation::Cubic { [12.0, -12.0] } else { [2.0, -1.0] };
            set("net.0.weight", &[sums[0], sums[1] + 1.0, 0.0, 0.0]);
            set("net.0.bias", &[0.0, -1.0]);
            set("net.1.weight", &[2.0, 1.0]);
            set("net.1.bias", &[if activation == Activation::Cubic { 2.5 } else { 0.5 }]);
            let x = Tensor::new(&[[1f32, 5.0]], &Device::Cpu).unwrap();
            let y = flat(&mlp.forward(&x, None).unwrap());
            // relu: 2 * 2 + 0.5;  none: 2 * 2 - 1 + 0.5;  cubic: 2 * 3 - 3 + 2.5.
            assert!((y[0] - expected).abs() < 1e-6, "{activation:?}: {y:?}");
        }
    }

    #[test]
    fn names_are_those_that_draw_the_values() {
        let (numbered, _) = mlp(&[3, 4, 2], MlpSettings { norm: true, ..MlpSettings::default() });
        let expected = ["net.0.bias", "net.0.norm.beta", "net.0.norm.gamma", "net.0.norm.running_mean"];
        assert_eq!(names(&numbered)[..4], expected);
        assert_eq!(names(&numbered)[5..], ["net.0.weight", "net.1.bias", "net.1.weight"]);
        let (last, _) = mlp(&[3, 4, 2], MlpSettings { names: LayerNames::Last, ..MlpSettings::default() });
        assert_eq!(names(&last), ["net.bias", "net.hidden.bias", "net.hidden.weight", "net.weight"]);
        // Xavier's bound of 3 + 4 is sqrt(6 / 7) and its biases are zero; PyTorch's is 1 / sqrt(3) for both.
        let bounds = |init| {
            let (weights, _) = mlp(&[3, 400], MlpSettings { init, ..MlpSettings::default() });
            ["net.0.weight", "net.0.bias"].map(|name| {
                flat(weights.var(name).unwrap()).into_iter().fold(0f64, |most, value| most.max(value.abs()))
            })
        };
        let ([weight, bias], [other, shift]) = (bounds(Init::Xavier), bounds(Init::Pytorch));
        assert!((weight - 0.12202).abs() < 1e-3 && bias == 0.0, "{weight} {bias}");
        assert!((other - 0.57735).abs() < 1e-2 && (shift - 0.57735).abs() < 1e-2, "{other} {shift}");
    }

    #[test]
    fn blocks_or_not_give_the_same_numbers() {
        for norm in [false, true] {
            let settings = MlpSettings { activation: Activation::Tanh, norm, ..MlpSettings::default() };
            let (weights, mlp) = mlp(&[5, 7, 3], settings);
            fill(&weights);
            let x = counted(3, &[2500, 5], 20.0);
            let outputs = mlp.forward(&x, None).unwrap();
            let rows = Matrix { rows: 2500, cols: 5, data: x.flatten_all().unwrap().to_vec1().unwrap() };
            let blocks = mlp.outputs(&rows, &Device::Cpu).unwrap();
            let blocks = Tensor::from_vec(blocks.data, (2500, 3), &Device::Cpu).unwrap();
            assert!(distance(&outputs, &blocks) < 1e-6);
        }
    }

    #[test]
    fn training_drops_hidden_values_alone_and_normalises_by_the_batch() {
        let x = counted(1, &[400, 5], 20.0);
        let dropped = |widths: &[usize]| {
            let settings = MlpSettings { dropout: 0.5, activation: Activation::Identity, ..MlpSettings::default() };
            let (_, mlp) = mlp(widths, settings);
            let trained = mlp.forward(&x, Some(&mut Seed(3).stream(&["drop"]))).unwrap();
            distance(&trained, &mlp.forward(&x, None).unwrap())
        };
        assert_eq!(dropped(&[5, 2]), 0.0);
        assert!(dropped(&[5, 6, 2]) > 0.1);
        // A batch that is shifted gives the same outputs in training.
        let (_, mlp) = mlp(&[5, 6, 2], MlpSettings { norm: true, ..MlpSettings::default() });
        let trained = |x: &Tensor| mlp.forward(x, Some(&mut Seed(3).stream(&["drop"]))).unwrap();
        assert!(distance(&trained(&x), &trained(&(&x + 1.0).unwrap())) < 1e-4);
    }
}
