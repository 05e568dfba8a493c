use candle_core::{Device, Tensor};

use super::{
    Gru, Weights,
    lengths::{Lengths, index},
};
use crate::{Error, Result};

/// Token numbers of a batch of texts, without padding.
pub struct Tokens {
    /// All token numbers, text after text, u32 `[total]`.
    pub ids: Tensor,
    /// Tokens of each text.
    pub lengths: Lengths,
}

impl Tokens {
    /// The tokens of the given texts.
    ///
    /// # Errors
    /// If a text has no tokens.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a [u32]>, device: &Device) -> Result<Self> {
        let texts: Vec<&[u32]> = texts.into_iter().collect();
        let lengths = Lengths::new(texts.iter().map(|text| text.len()))?;
        let ids = texts.concat();
        let total = ids.len();
        Ok(Self { ids: Tensor::from_vec(ids, total, device)?, lengths })
    }
}

/// Texts to the joint space: word vectors, then gated recurrent units. Weights `NAME.embedding [vocabulary, word]`, initially
/// uniform within 0.1, and those of [`Gru`] under `NAME.gru`.
pub struct TextEncoder {
    embedding: Tensor,
    gru: Gru,
}

impl TextEncoder {
    /// An encoder of token numbers below `vocabulary` into vectors of length `hidden`.
    ///
    /// # Errors
    /// If a weight cannot be made.
    #[allow(clippy::too_many_arguments, reason = "the sizes of one encoder")]
    pub fn new(
        weights: &mut Weights,
        name: &str,
        vocabulary: usize,
        word: usize,
        hidden: usize,
        layers: usize,
        bidirectional: bool,
    ) -> Result<Self> {
        let embedding = weights.uniform(&format!("{name}.embedding"), &[vocabulary, word], 0.1)?;
        let gru = Gru::new(weights, &format!("{name}.gru"), word, hidden, layers, bidirectional)?;
        Ok(Self { embedding, gru })
    }

    /// Length of the vectors that come out.
    pub fn hidden(&self) -> usize {
        self.gru.hidden()
    }

    /// One vector a token, both directions averaged, not scaled: `[total, hidden]`; [`Lengths::pad`] makes it
    /// `[texts, longest, hidden]`.
    ///
    /// # Errors
    /// If a token number is not below the vocabulary.
    pub fn tokens(&self, tokens: &Tokens) -> Result<Tensor> {
        self.gru.average(&self.embed(tokens)?, &tokens.lengths)
    }

    /// The state after the last token of each text, not scaled: `[texts, hidden]`. With both directions, the mean of the
    /// forward state after the last token and the backward state after the first.
    ///
    /// # Errors
    /// As [`TextEncoder::tokens`].
    pub fn last(&self, tokens: &Tokens) -> Result<Tensor> {
        let lengths = &tokens.lengths;
        match self.gru.directions(&self.embed(tokens)?, lengths)?.as_slice() {
            [forth, back] => {
                let starts = index((0..lengths.len()).map(|b| lengths.range(b).start), back.device())?;
                Ok(((lengths.last(forth)? + back.index_select(&starts, 0)?)? * 0.5)?)
            }
            one => lengths.last(&one[0]),
        }
    }

    /// Word vectors, `[total, word]`.
    fn embed(&self, tokens: &Tokens) -> Result<Tensor> {
        if tokens.ids.device().is_cpu() {
            let (vocabulary, ids) = (self.embedding.dim(0)?, tokens.ids.to_vec1::<u32>()?);
            if let Some(id) = ids.iter().find(|&&id| id as usize >= vocabulary) {
                return Err(Error::Numeric(format!(
                    "token {id} is outside the vocabulary of {vocabulary} words that was trained; encode texts of the dataset that the method was fitted on"
                )));
            }
        }
        Ok(self.embedding.index_select(&tokens.ids, 0)?)
    }
}
