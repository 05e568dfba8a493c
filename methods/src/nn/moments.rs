use candle_core::{Device, Tensor};
use xmbench_datasets::Matrix;

use crate::{Error, Result, linalg::select};

/// Items that are read at once.
const BLOCK: usize = 256;

/// Column means of a view, and the root mean square of its centred entries.
pub struct Moments {
    /// One mean a column.
    pub mean: Vec<f32>,
    /// Root mean square of the centred entries; 1 if there is no spread.
    pub spread: f64,
}

impl Moments {
    /// One pass over the items, block by block.
    ///
    /// # Errors
    /// No items, or features that cannot be read or are not finite.
    pub fn of(method: &str, items: usize, gather: impl Fn(&[usize]) -> Result<Matrix>) -> Result<Self> {
        let (mut sums, mut squares) = (Vec::new(), Vec::new());
        for block in (0..items).collect::<Vec<_>>().chunks(BLOCK) {
            let rows = gather(block)?;
            sums.resize(rows.cols, 0.0f64);
            squares.resize(rows.cols, 0.0f64);
            for (i, &item) in block.iter().enumerate() {
                for (j, &value) in rows.row(i).iter().enumerate() {
                    if !value.is_finite() {
                        return Err(Error::Numeric(format!(
                            "{method}: expected finite features, found {value} in item {item}, column {j}; check the features"
                        )));
                    }
                    sums[j] += f64::from(value);
                    squares[j] += f64::from(value).powi(2);
                }
            }
        }
        if sums.is_empty() {
            return Err(Error::Numeric(format!("{method}: expected training items, found none")));
        }
        let n = items as f64;
        let variance = sums.iter().zip(&squares).map(|(sum, square)| (square / n - (sum / n).powi(2)).max(0.0));
        let spread = (variance.sum::<f64>() / sums.len() as f64).sqrt();
        let mean = sums.iter().map(|sum| (sum / n) as f32).collect();
        Ok(Self { mean, spread: if spread > 0.0 { spread } else { 1.0 } })
    }

    /// The same of rows that are there.
    ///
    /// # Errors
    /// As [`Moments::of`].
    pub fn of_rows(method: &str, rows: &Matrix) -> Result<Self> {
        Self::of(method, rows.rows, |items| Ok(select(rows, items)))
    }

    /// The means `[columns]` on a device.
    ///
    /// # Errors
    /// If the tensor cannot be made.
    pub fn mean_tensor(&self, device: &Device) -> Result<Tensor> {
        Ok(Tensor::new(self.mean.as_slice(), device)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_means_and_one_spread() {
        let rows = Matrix { rows: 2, cols: 2, data: vec![0.0, 5.0, 2.0, 5.0] };
        let moments = Moments::of_rows("m", &rows).unwrap();
        assert_eq!(moments.mean, [1.0, 5.0]);
        // Variances 1 and 0.
        assert!((moments.spread - 0.5f64.sqrt()).abs() < 1e-12);
    }
}
