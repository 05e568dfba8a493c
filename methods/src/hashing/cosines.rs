//! Cosines of the relaxed codes of a batch, which nearly every loss of this family compares with an affinity.

use candle_core::{D, Tensor};

use crate::{Result, loss::reconstruct, nn::unit};

/// Codes of unit length and the cosines between them; item `i` of both modalities belongs together.
pub(super) struct Cosines {
    /// `[m, bits]`, rows of unit length.
    pub images: Tensor,
    /// `[m, bits]`, rows of unit length.
    pub texts: Tensor,
    /// Images with images, `[m, m]`.
    pub image_image: Tensor,
    /// Images with texts, `[m, m]`; the transpose is that of texts with images.
    pub image_text: Tensor,
    /// Texts with texts, `[m, m]`.
    pub text_text: Tensor,
}

/// How far the three are from an affinity: means of squared differences.
pub(super) struct Reconstructions {
    pub image_image: Tensor,
    pub image_text: Tensor,
    pub text_text: Tensor,
}

impl Cosines {
    /// Of codes `[m, bits]`.
    pub fn of(images: &Tensor, texts: &Tensor) -> Result<Self> {
        let (images, texts) = (unit(images)?, unit(texts)?);
        let (columns, rows) = (texts.t()?, images.t()?);
        Ok(Self {
            image_image: images.matmul(&rows)?,
            image_text: images.matmul(&columns)?,
            text_text: texts.matmul(&columns)?,
            images,
            texts,
        })
    }

    /// The cosine of each pair, `[m]`.
    pub fn paired(&self) -> Result<Tensor> {
        Ok((&self.images * &self.texts)?.sum(D::Minus1)?)
    }

    /// Against one affinity `[m, m]`.
    pub fn reconstruct(&self, affinity: &Tensor) -> Result<Reconstructions> {
        Ok(Reconstructions {
            image_image: reconstruct(&self.image_image, affinity)?,
            image_text: reconstruct(&self.image_text, affinity)?,
            text_text: reconstruct(&self.text_text, affinity)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn cosines_by_hand() {
        let matrix = |rows: [[f64; 2]; 2]| Tensor::new(&rows, &Device::Cpu).unwrap();
        let found = Cosines::of(&matrix([[3.0, 4.0], [0.0, 2.0]]), &matrix([[1.0, 0.0], [0.0, 0.0]])).unwrap();
        let rows = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let near = |x: &Tensor, y: &[f64]| rows(x).iter().zip(y).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(near(&found.image_image, &[1.0, 0.8, 0.8, 1.0]));
        assert!(near(&found.image_text, &[0.6, 0.0, 0.0, 0.0]) && near(&found.text_text, &[1.0, 0.0, 0.0, 0.0]));
        assert!(near(&found.paired().unwrap(), &[0.6, 0.0]));
        let losses = found.reconstruct(&matrix([[1.0, 0.8], [0.8, 0.0]])).unwrap();
        assert!(
            near(&losses.image_image, &[0.25]) && near(&losses.image_text, &[0.36]),
            "{:?}",
            rows(&losses.image_text)
        );
    }
}
