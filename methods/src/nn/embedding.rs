//! Vectors of words: learnt from nothing, begun from pretrained ones, or pretrained and fixed.
//!
//! ```text
//! learned      w_k = E_k,                          E uniform within 0.1
//! pretrained   w_k = E_k,                          E_k begins as p_k where word k has a pretrained vector p_k
//! frozen       w_k = p_k if word k has one, else E_k
//! ```
//!
//! A word without a pretrained vector, and the special tokens, begin as in `learned` and are learnt in all three: with the same seed
//! they begin with the same bits.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use xmbench_datasets::{Matrix, WordVectors};

use super::Weights;
use crate::{Result, Training, params::out_of_range};

/// Bound of vectors that are drawn.
const BOUND: f64 = 0.1;

/// Where vectors of words come from; the parameter `words` of every text encoder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WordSource {
    /// The captions alone.
    #[default]
    Learned,
    /// The dataset's pretrained vectors, which training moves.
    Pretrained,
    /// The dataset's pretrained vectors as they are.
    Frozen,
}

impl WordSource {
    /// The pretrained vectors of the training texts, where they are asked for.
    ///
    /// # Errors
    /// If the dataset has none, or of another length than `word`.
    pub fn vectors<'a>(
        self,
        method: &'static str,
        training: &Training<'a>,
        word: usize,
    ) -> Result<Option<&'a WordVectors>> {
        if self == Self::Learned {
            return Ok(None);
        }
        let need = "texts.word_vectors (the dataset's option `word_vectors`, or `words = \"learned\"`)";
        let vectors = training.train.texts.word_vectors.as_deref().ok_or_else(|| training.missing(method, need))?;
        match vectors.rows.cols {
            cols if cols == word => Ok(Some(vectors)),
            cols => {
                let expected = format!("{cols}, the length of the vectors of {}", vectors.origin);
                Err(out_of_range(method, "word", &expected, word))
            }
        }
    }
}

/// The vectors of a vocabulary's words. Weight `NAME [vocabulary, word]`; where they are frozen also the states `NAME.given
/// [vocabulary, word]` and `NAME.free [vocabulary, 1]`, 0 for a word whose vector is given and else 1.
pub struct Embedding {
    table: Tensor,
    given: Option<[Tensor; 2]>,
}

impl Embedding {
    /// Vectors for token numbers below `vocabulary`. `vectors` may be of fewer tokens, of which they are the first; they are there
    /// when a method is fitted, and not when its weights are read.
    ///
    /// # Errors
    /// If a weight cannot be made.
    pub fn new(
        weights: &mut Weights,
        name: &str,
        [vocabulary, word]: [usize; 2],
        source: WordSource,
        vectors: Option<&WordVectors>,
    ) -> Result<Self> {
        let table = weights.uniform(name, &[vocabulary, word], BOUND)?;
        match (source, vectors) {
            (WordSource::Learned, _) | (WordSource::Pretrained, None) => Ok(Self { table, given: None }),
            (WordSource::Pretrained, Some(vectors)) => {
                let drawn = Matrix { rows: vocabulary, cols: word, data: table.flatten_all()?.to_vec1()? };
                let begun = laid_over(drawn, vectors);
                let var = weights.var(name).expect("it was just made");
                var.set(&Tensor::from_vec(begun.data, (vocabulary, word), weights.device())?)?;
                Ok(Self { table, given: None })
            }
            (WordSource::Frozen, _) => {
                let zeros = Matrix::zeros(vocabulary, word);
                let given = vectors.map_or(zeros.clone(), |vectors| laid_over(zeros, vectors));
                let known = |token: usize| vectors.is_some_and(|v| v.known.get(token) == Some(&true));
                let free: Vec<f32> = (0..vocabulary).map(|token| f32::from(!known(token))).collect();
                let given = Tensor::from_vec(given.data, (vocabulary, word), weights.device())?;
                let free = Tensor::from_vec(free, (vocabulary, 1), weights.device())?;
                // Detached: states move by no gradient.
                let given = weights.state(&format!("{name}.given"), given)?.as_detached_tensor();
                let free = weights.state(&format!("{name}.free"), free)?.as_detached_tensor();
                Ok(Self { table, given: Some([given, free]) })
            }
        }
    }

    /// Number of words.
    ///
    /// # Errors
    /// If the table has lost its shape.
    pub fn vocabulary(&self) -> Result<usize> {
        Ok(self.table.dim(0)?)
    }

    /// The vectors of some tokens, u32 `[total]` to `[total, word]`.
    ///
    /// # Errors
    /// If a token number is not below the vocabulary.
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let learnt = self.table.index_select(ids, 0)?;
        match &self.given {
            None => Ok(learnt),
            Some([given, free]) => {
                let learnt = learnt.broadcast_mul(&free.index_select(ids, 0)?)?;
                Ok((given.index_select(ids, 0)? + learnt)?)
            }
        }
    }
}

/// The table with the rows of words that have a pretrained vector.
fn laid_over(mut table: Matrix, vectors: &WordVectors) -> Matrix {
    for token in (0..table.rows).filter(|&token| vectors.known.get(token) == Some(&true)) {
        table.row_mut(token).copy_from_slice(vectors.rows.row(token));
    }
    table
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use xmbench_datasets::random::Seed;

    use super::*;

    /// Words 1 and 3 of five have a vector; the last token is beyond what the vectors know of.
    fn vectors() -> WordVectors {
        let rows = Matrix { rows: 4, cols: 2, data: vec![0.0, 0.0, 5.0, 6.0, 0.0, 0.0, -7.0, 8.0] };
        WordVectors { origin: "test".into(), rows, known: vec![false, true, false, true] }
    }

    fn rows(tensor: &Tensor) -> Vec<Vec<f32>> {
        tensor.to_vec2().unwrap()
    }

    fn all(embedding: &Embedding) -> Tensor {
        embedding.forward(&Tensor::new(&[0u32, 1, 2, 3, 4, 3], &Device::Cpu).unwrap()).unwrap()
    }

    fn made(source: WordSource) -> (Weights, Embedding) {
        let mut weights = Weights::new(Seed(3), &Device::Cpu);
        let embedding = Embedding::new(&mut weights, "text.embedding", [5, 2], source, Some(&vectors())).unwrap();
        (weights, embedding)
    }

    #[test]
    fn words_without_a_vector_begin_as_learned_ones_do() {
        let learned = rows(&all(&made(WordSource::Learned).1));
        assert!(learned.iter().flatten().all(|value| value.abs() <= 0.1));
        for source in [WordSource::Pretrained, WordSource::Frozen] {
            let begun = rows(&all(&made(source).1));
            assert_eq!((&begun[1], &begun[3], &begun[5]), (&vec![5.0, 6.0], &vec![-7.0, 8.0], &vec![-7.0, 8.0]));
            for token in [0, 2, 4] {
                assert_eq!(begun[token], learned[token], "{source:?} {token}");
            }
        }
    }

    /// The gradient of `sum w^3` is `3 w^2` a use of a word, so it is zero nowhere unless it is kept from a word.
    #[test]
    fn frozen_words_take_no_gradient_and_pretrained_ones_do() {
        for source in [WordSource::Learned, WordSource::Pretrained, WordSource::Frozen] {
            let (weights, embedding) = made(source);
            let words = all(&embedding);
            let grads = words.powf(3.0).unwrap().sum_all().unwrap().backward().unwrap();
            let grad = rows(grads.get(weights.var("text.embedding").unwrap()).unwrap());
            let words = rows(&words);
            for token in 0..5 {
                let uses = if token == 3 { 2.0 } else { 1.0 };
                let fixed = source == WordSource::Frozen && [1, 3].contains(&token);
                for (found, w) in grad[token].iter().zip(&words[token]) {
                    let expected = if fixed { 0.0 } else { uses * 3.0 * w * w };
                    assert!(
                        (found - expected).abs() <= 1e-5 * expected.abs(),
                        "{source:?} {token}: {found} {expected}"
                    );
                }
            }
            for state in ["text.embedding.given", "text.embedding.free"] {
                assert_eq!(weights.var(state).is_some(), source == WordSource::Frozen);
                assert!(weights.var(state).is_none_or(|var| grads.get(var).is_none()), "{state}");
            }
        }
    }

    #[test]
    fn what_was_trained_is_read_back_without_the_vectors() {
        for source in [WordSource::Learned, WordSource::Pretrained, WordSource::Frozen] {
            let (weights, embedding) = made(source);
            let var = weights.var("text.embedding").unwrap();
            var.set(&(var.as_tensor() * 2.0).unwrap()).unwrap();
            let mut read = Weights::frozen(weights.snapshot().unwrap(), "trained weights", &Device::Cpu);
            let again = Embedding::new(&mut read, "text.embedding", [5, 2], source, None).unwrap();
            assert_eq!(rows(&all(&again)), rows(&all(&embedding)));
            // Twice what word 1 began with, unless it is frozen.
            match source {
                WordSource::Learned => {}
                WordSource::Pretrained => assert_eq!(rows(&all(&again))[1], [10.0, 12.0]),
                WordSource::Frozen => assert_eq!(rows(&all(&again))[1], [5.0, 6.0]),
            }
        }
    }
}
