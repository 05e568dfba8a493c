use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use xmbench_datasets::WordVectors;

use super::{
    Embedding, Gru, Linear, Lstm, Transformer, Weights, WordSource,
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

/// What reads the words of a text one after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextLayer {
    /// Gated recurrent units in one direction.
    Gru,
    /// Gated recurrent units in both directions, averaged token by token.
    Bigru,
    /// Long short-term memory in both directions, one behind the other.
    Bilstm,
    /// A transformer encoder with heads of at least 64 values.
    Transformer,
}

/// The shape of a text encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextSettings {
    /// Which layer.
    pub layer: TextLayer,
    /// Length of a word vector.
    pub word: usize,
    /// Length of the layer's states.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Where word vectors come from.
    pub words: WordSource,
}

/// Texts to vectors: word vectors, then a [`TextLayer`]. Weights `NAME.embedding [vocabulary, word]` ([`Embedding`]), and those of [`Gru`] under `NAME.gru`, of [`Lstm`] under `NAME.lstm`, or of [`Transformer`] under `NAME.transformer`;
/// before the latter, words of another length than its own pass a [`Linear`] layer `NAME.project`.
pub struct TextEncoder {
    embedding: Embedding,
    body: Body,
}

enum Body {
    Gru(Gru),
    Lstm(Lstm),
    Transformer { project: Option<Linear>, layers: Transformer, width: usize },
}

impl TextEncoder {
    /// An encoder of token numbers below `vocabulary`; `vectors` are those that [`WordSource::vectors`] gave.
    ///
    /// # Errors
    /// If a weight cannot be made.
    pub fn new(
        weights: &mut Weights,
        name: &str,
        vocabulary: usize,
        settings: TextSettings,
        vectors: Option<&WordVectors>,
    ) -> Result<Self> {
        let TextSettings { layer, word, hidden, layers, words } = settings;
        let embedding = Embedding::new(weights, &format!("{name}.embedding"), [vocabulary, word], words, vectors)?;
        let body = match layer {
            TextLayer::Gru | TextLayer::Bigru => {
                let both = layer == TextLayer::Bigru;
                Body::Gru(Gru::new(weights, &format!("{name}.gru"), word, hidden, layers, both)?)
            }
            TextLayer::Bilstm => Body::Lstm(Lstm::new(weights, &format!("{name}.lstm"), word, hidden, layers, true)?),
            TextLayer::Transformer => {
                let project = || Linear::new(weights, &format!("{name}.project"), word, hidden);
                let project = (word != hidden).then(project).transpose()?;
                let heads = (1..=(hidden / 64).max(1)).rev().find(|heads| hidden.is_multiple_of(*heads)).unwrap_or(1);
                let layers = Transformer::new(weights, &format!("{name}.transformer"), hidden, heads, layers)?;
                Body::Transformer { project, layers, width: hidden }
            }
        };
        Ok(Self { embedding, body })
    }

    /// Length of the vectors that come out: `hidden`, or twice that from [`TextLayer::Bilstm`].
    pub fn width(&self) -> usize {
        match &self.body {
            Body::Gru(gru) => gru.hidden(),
            Body::Lstm(lstm) => 2 * lstm.hidden(),
            Body::Transformer { width, .. } => *width,
        }
    }

    /// One vector a token, not scaled: `[total, width]`; [`Lengths::pad`] makes it `[texts, longest, width]`.
    ///
    /// # Errors
    /// If a token number is not below the vocabulary.
    pub fn tokens(&self, tokens: &Tokens) -> Result<Tensor> {
        let (words, lengths) = (self.embed(tokens)?, &tokens.lengths);
        match &self.body {
            Body::Gru(gru) => gru.average(&words, lengths),
            Body::Lstm(lstm) => Ok(Tensor::cat(&lstm.directions(&words, lengths)?, 1)?),
            Body::Transformer { project: Some(project), layers, .. } => {
                layers.forward(&project.forward(&words)?, lengths)
            }
            Body::Transformer { project: None, layers, .. } => layers.forward(&words, lengths),
        }
    }

    /// One vector a text, not scaled, `[texts, width]`: where reading ends, which is the last token forth and the first
    /// token back. Both directions of a GRU are averaged; from a transformer, the vector of the last token.
    ///
    /// # Errors
    /// As [`TextEncoder::tokens`].
    pub fn last(&self, tokens: &Tokens) -> Result<Tensor> {
        let lengths = &tokens.lengths;
        let start = |back: &Tensor| -> Result<Tensor> {
            let starts = index((0..lengths.len()).map(|b| lengths.range(b).start), back.device())?;
            Ok(back.index_select(&starts, 0)?)
        };
        match &self.body {
            Body::Gru(gru) => match gru.directions(&self.embed(tokens)?, lengths)?.as_slice() {
                [forth, back] => Ok(((lengths.last(forth)? + start(back)?)? * 0.5)?),
                one => lengths.last(&one[0]),
            },
            Body::Lstm(lstm) => {
                let ways = lstm.directions(&self.embed(tokens)?, lengths)?;
                Ok(Tensor::cat(&[lengths.last(&ways[0])?, start(&ways[1])?], 1)?)
            }
            Body::Transformer { .. } => lengths.last(&self.tokens(tokens)?),
        }
    }

    /// Word vectors, `[total, word]`.
    fn embed(&self, tokens: &Tokens) -> Result<Tensor> {
        if tokens.ids.device().is_cpu() {
            let (vocabulary, ids) = (self.embedding.vocabulary()?, tokens.ids.to_vec1::<u32>()?);
            if let Some(id) = ids.iter().find(|&&id| id as usize >= vocabulary) {
                return Err(Error::Numeric(format!(
                    "token {id} is outside the vocabulary of {vocabulary} words that was trained; encode texts of the dataset that the method was fitted on"
                )));
            }
        }
        self.embedding.forward(&tokens.ids)
    }
}

#[cfg(test)]
mod tests {
    use xmbench_datasets::random::Seed;

    use super::*;
    use crate::nn::checks::{distance, flat};

    const TEXTS: [&[u32]; 3] = [&[3, 1, 4, 1, 5], &[2], &[7, 1, 8]];

    #[test]
    fn every_layer_has_the_promised_shapes_and_ends() {
        for (layer, width) in
            [(TextLayer::Gru, 8), (TextLayer::Bigru, 8), (TextLayer::Bilstm, 16), (TextLayer::Transformer, 8)]
        {
            for word in [5, 8] {
                let mut weights = Weights::new(Seed(2), &Device::Cpu);
                let settings = TextSettings { layer, word, hidden: 8, layers: 2, words: WordSource::Learned };
                let encoder = TextEncoder::new(&mut weights, "text", 9, settings, None).unwrap();
                let tokens = Tokens::new(TEXTS, &Device::Cpu).unwrap();
                let (all, last) = (encoder.tokens(&tokens).unwrap(), encoder.last(&tokens).unwrap());
                assert_eq!((all.dims(), last.dims(), encoder.width()), (&[9, width][..], &[3, width][..], width));
                let (all, last) = (all.to_vec2::<f32>().unwrap(), last.to_vec2::<f32>().unwrap());
                for (text, (first, end)) in [(0, 4), (5, 5), (6, 8)].into_iter().enumerate() {
                    match layer {
                        TextLayer::Bilstm => {
                            assert_eq!(last[text], [&all[end][..8], &all[first][8..]].concat());
                        }
                        // Only where one token is all there is do both directions end at the same place.
                        TextLayer::Bigru if first != end => assert_ne!(last[text], all[end]),
                        _ => assert_eq!(last[text], all[end]),
                    }
                }
                // Every weight takes part.
                let grads = encoder.last(&tokens).unwrap().powf(3.0).unwrap().sum_all().unwrap().backward().unwrap();
                for (name, var) in weights.iter() {
                    assert!(flat(grads.get(var).unwrap()).iter().any(|&g| g != 0.0), "{layer:?}: {name}");
                }
                // Another text beside it changes nothing that counts.
                let alone = Tokens::new([TEXTS[2]], &Device::Cpu).unwrap();
                let row = encoder.last(&tokens).unwrap().narrow(0, 2, 1).unwrap();
                assert!(distance(&encoder.last(&alone).unwrap(), &row) < 1e-6);
            }
        }
    }

    #[test]
    fn an_unknown_word_is_an_error() {
        let mut weights = Weights::new(Seed(2), &Device::Cpu);
        let settings =
            TextSettings { layer: TextLayer::Gru, word: 3, hidden: 4, layers: 1, words: WordSource::Learned };
        let encoder = TextEncoder::new(&mut weights, "text", 9, settings, None).unwrap();
        let tokens = Tokens::new([&[1u32, 9][..]], &Device::Cpu).unwrap();
        assert!(encoder.last(&tokens).unwrap_err().to_string().contains("token 9 is outside the vocabulary of 9"));
    }
}
