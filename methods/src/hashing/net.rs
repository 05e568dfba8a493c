//! What hashing networks on given features share: input normalisation, fully connected layers, signs.

use candle_core::{DType, Device, Tensor};
use xmbench_datasets::Matrix;

use crate::{
    Bits, Codes, Error, Result,
    nn::{Linear, Moments, Weights},
};

/// Items that are read at once.
const BLOCK: usize = 256;

/// Fully connected layers with ReLU between them, after `(x - mean) * scale`.
pub(super) struct Net {
    name: String,
    mean: Tensor,
    scale: Tensor,
    layers: Vec<Linear>,
    bits: usize,
}

impl Net {
    /// Layers `widths[0] -> widths[1] -> ..`, initialised as PyTorch does, on inputs that `moments` normalise.
    ///
    /// # Errors
    /// If a weight cannot be made.
    pub fn new(weights: &mut Weights, name: &str, widths: &[usize], moments: Option<&Moments>) -> Result<Self> {
        let device = weights.device().clone();
        let (mean, scale) = match moments {
            Some(moments) => (moments.mean_tensor(&device)?, (1.0 / moments.spread) as f32),
            None => (Tensor::zeros(widths[0], DType::F32, &device)?, 1.0),
        };
        Self::with_input(weights, name, widths, mean, Tensor::new(&[scale], &device)?)
    }

    /// The net that [`Net::tensors`] and a snapshot of its weights describe.
    ///
    /// # Errors
    /// A tensor that is absent or of another shape.
    pub fn frozen(weights: &mut Weights, name: &str, widths: &[usize]) -> Result<Self> {
        let mean = weights.zeros(&format!("{name}.mean"), &widths[..1])?;
        let scale = weights.zeros(&format!("{name}.scale"), &[1])?;
        Self::with_input(weights, name, widths, mean, scale)
    }

    fn with_input(weights: &mut Weights, name: &str, widths: &[usize], mean: Tensor, scale: Tensor) -> Result<Self> {
        let layers = widths.windows(2).enumerate();
        let layers = layers.map(|(i, pair)| Linear::new(weights, &format!("{name}.{i}"), pair[0], pair[1]));
        let bits = widths[widths.len() - 1];
        Ok(Self { name: name.into(), mean, scale, layers: layers.collect::<Result<_>>()?, bits })
    }

    /// What is not trained.
    pub fn tensors(&self) -> [(String, Tensor); 2] {
        [(format!("{}.mean", self.name), self.mean.clone()), (format!("{}.scale", self.name), self.scale.clone())]
    }

    /// `[n, widths[0]]` to `[n, bits]`.
    ///
    /// # Errors
    /// Rows of another width.
    pub fn forward(&self, rows: &Tensor) -> Result<Tensor> {
        let mut out = rows.broadcast_sub(&self.mean)?.broadcast_mul(&self.scale)?;
        for (i, layer) in self.layers.iter().enumerate() {
            out = layer.forward(&if i > 0 { out.relu()? } else { out })?;
        }
        Ok(out)
    }

    /// Signs of the outputs.
    ///
    /// # Errors
    /// Features that cannot be read, or of another width.
    pub fn encode(&self, items: usize, gather: impl Fn(&[usize]) -> Result<Matrix>) -> Result<Codes> {
        let width = self.mean.elem_count();
        let mut real = Matrix::zeros(items, self.bits);
        for (block, out) in (0..items).collect::<Vec<_>>().chunks(BLOCK).zip(real.data.chunks_mut(BLOCK * self.bits)) {
            let rows = gather(block)?;
            if rows.cols != width {
                return Err(Error::Numeric(format!(
                    "hashing: expected vectors of {width} values as in training, found {}",
                    rows.cols
                )));
            }
            let rows = tensor(rows, self.mean.device())?;
            out.copy_from_slice(&self.forward(&rows)?.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(Codes::Binary(Bits::from_signs(&real)))
    }
}

/// The same values on a device.
pub(super) fn tensor(rows: Matrix, device: &Device) -> Result<Tensor> {
    Ok(Tensor::from_vec(rows.data, (rows.rows, rows.cols), device)?)
}

#[cfg(test)]
mod tests {
    use xmbench_datasets::random::Seed;

    use super::*;

    #[test]
    fn bits_are_the_signs_of_the_outputs() {
        let mut weights = Weights::new(Seed(1), &Device::Cpu);
        let net = Net::new(&mut weights, "net", &[5, 7, 3], None).unwrap();
        let items = Matrix { rows: 600, cols: 5, data: (0..3000).map(|i| (i as f32).sin()).collect() };
        let gather = |chosen: &[usize]| {
            Ok(Matrix {
                rows: chosen.len(),
                cols: 5,
                data: chosen.iter().flat_map(|&i| items.row(i).to_vec()).collect(),
            })
        };
        let Codes::Binary(bits) = net.encode(600, gather).unwrap() else { panic!("binary codes") };
        let real: Vec<Vec<f32>> =
            net.forward(&tensor(items.clone(), &Device::Cpu).unwrap()).unwrap().to_vec2().unwrap();
        for (i, row) in real.iter().enumerate() {
            for (b, value) in row.iter().enumerate() {
                assert_eq!(bits.item(i)[0] >> b & 1 == 1, *value > 0.0);
            }
        }
    }
}
