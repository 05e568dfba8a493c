//! Texts of one length, as the released code has them.

use candle_core::Tensor;

use crate::{
    Result,
    nn::{Lengths, Weights},
    train::memory,
};

/// What stands behind the end of a text: one learnt vector, where the released code has what BERT makes of its padding token.
pub(super) struct Padding {
    /// `[d]`.
    vector: Tensor,
    /// Words and padding together.
    positions: usize,
}

impl Padding {
    /// Weight `padding [d]`.
    pub fn new(weights: &mut Weights, width: usize, positions: usize) -> Result<Self> {
        let vector = weights.uniform("padding", &[width], (1.0 / width as f64).sqrt())?;
        Ok(Self { vector, positions })
    }

    /// The words of `[total, d]` that have a position.
    pub fn cut(&self, words: &Tensor, lengths: &Lengths) -> Result<(Tensor, Lengths)> {
        lengths.cut(words, self.positions)
    }

    /// [`Padding::cut`] and padding behind, `[texts * positions, d]`.
    pub fn fill(&self, words: &Tensor, lengths: &Lengths) -> Result<(Tensor, Lengths)> {
        let (words, lengths) = self.cut(words, lengths)?;
        let shape = [lengths.as_slice().len(), self.positions, words.dim(1)?];
        // Padded words, their mask, the padding beside each, and what is chosen of both.
        let what = || format!("{} texts, padded to {} positions", shape[0], shape[1]);
        memory::ask(what, memory::bytes(&shape, 4 * words.dtype().size_in_bytes()))?;
        let padded = lengths.pad(&words, self.positions)?;
        let (texts, positions, d) = padded.dims3()?;
        let real = lengths.mask(positions, words.device())?.unsqueeze(2)?.broadcast_as(padded.shape())?;
        let filled = real.where_cond(&padded, &self.vector.broadcast_as(padded.shape())?.contiguous()?)?;
        Ok((filled.reshape((texts * positions, d))?, Lengths::new(vec![positions; texts])?))
    }
}

/// [`Padding::cut`] where there is padding.
pub(super) fn cut(padding: Option<&Padding>, words: &Tensor, lengths: &Lengths) -> Result<(Tensor, Lengths)> {
    padding.map_or_else(|| Ok((words.clone(), lengths.clone())), |padding| padding.cut(words, lengths))
}

/// [`Padding::fill`] where there is padding.
pub(super) fn fill(padding: Option<&Padding>, words: &Tensor, lengths: &Lengths) -> Result<(Tensor, Lengths)> {
    padding.map_or_else(|| Ok((words.clone(), lengths.clone())), |padding| padding.fill(words, lengths))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use xmbench_datasets::random::Seed;

    use super::*;

    #[test]
    fn texts_are_cut_or_filled_to_one_length() {
        let mut weights = Weights::new(Seed(1), &Device::Cpu);
        let padding = Padding::new(&mut weights, 2, 3).unwrap();
        let vector = padding.vector.to_vec1::<f32>().unwrap();
        let words: Vec<f32> = (0..14).map(|x| x as f32).collect();
        let words = Tensor::from_vec(words, (7, 2), &Device::Cpu).unwrap();
        let lengths = Lengths::new([1, 2, 4]).unwrap();
        let (cut, kept) = padding.cut(&words, &lengths).unwrap();
        assert_eq!(kept.as_slice(), [1, 2, 3]);
        assert_eq!(cut.to_vec2::<f32>().unwrap()[3..], [[6.0, 7.0], [8.0, 9.0], [10.0, 11.0]]);
        let (filled, all) = padding.fill(&words, &lengths).unwrap();
        assert_eq!(all.as_slice(), [3, 3, 3]);
        let filled = filled.to_vec2::<f32>().unwrap();
        assert_eq!(filled[0], [0.0, 1.0]);
        assert!(filled[1] == vector && filled[2] == vector && filled[5] == vector);
        assert_eq!(filled[3..5], [[2.0, 3.0], [4.0, 5.0]]);
        assert_eq!(filled[6..], [[6.0, 7.0], [8.0, 9.0], [10.0, 11.0]]);
        let grads = padding.fill(&words, &lengths).unwrap().0.sum_all().unwrap().backward().unwrap();
        assert_eq!(grads.get(&padding.vector).unwrap().to_vec1::<f32>().unwrap(), [3.0, 3.0]);
    }
}
