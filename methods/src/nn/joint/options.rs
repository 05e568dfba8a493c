use serde::{Deserialize, Serialize};

use crate::{
    Result,
    linalg::views::{ImageInput, TextInput},
    nn::{TextLayer, WordSource},
    params::out_of_range,
};

/// Parameters of both encoders; flattened into those of every method that trains them. The defaults are those of VSE++.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Encoders {
    /// Length of the vectors of the joint space.
    pub embedding: usize,
    /// What reads a text.
    pub text_encoder: TextModel,
    /// How the vectors of a text's tokens become one.
    pub text_pooling: TextPooling,
    /// Length of a word vector.
    pub word: usize,
    /// Where word vectors come from.
    pub words: WordSource,
    /// Layers of the recurrence or Transformer.
    pub layers: usize,
    /// Which vectors stand for a text where words are not read.
    pub text: TextInput,
    /// Dimensions that a bag of words is reduced to first; 0 leaves it alone.
    pub text_components: usize,
    /// Which vectors stand for an image.
    pub image: ImageInput,
    /// How the vectors of an image's fragments become one.
    pub image_pooling: ImagePooling,
    /// Whether image features are scaled to unit length first.
    pub normalise_features: bool,
    /// Whether vectors are centred and divided by one number first.
    pub standardise: bool,
    /// Width of a hidden layer between vectors and the joint space; 0 for none.
    pub hidden: usize,
    /// Share of the hidden layer that is dropped in training.
    pub dropout: f64,
}

/// What reads a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextModel {
    /// Nothing: the text's vector or bag of words.
    Vectors,
    /// A layer over its words; behind both directions of an LSTM side by side, and behind a Transformer, a linear one.
    #[serde(untagged)]
    Words(TextLayer),
}

/// Tokens to text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextPooling {
    /// The state where the recurrence ends.
    Last,
    /// The mean over tokens.
    Mean,
    /// The largest value over tokens.
    Max,
    /// Learnt weights over sorted values.
    Gpo,
}

/// Fragments to image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImagePooling {
    /// The mean over fragments, before the layer.
    Mean,
    /// Learnt weights over sorted values, behind the layer.
    Gpo,
}

impl Default for Encoders {
    fn default() -> Self {
        Self {
            embedding: 1024,
            text_encoder: TextModel::Words(TextLayer::Gru),
            text_pooling: TextPooling::Last,
            word: 300,
            words: WordSource::Learned,
            layers: 1,
            text: TextInput::Auto,
            text_components: 300,
            image: ImageInput::Auto,
            image_pooling: ImagePooling::Mean,
            normalise_features: false,
            standardise: false,
            hidden: 0,
            dropout: 0.0,
        }
    }
}

impl Encoders {
    /// Checks every value.
    ///
    /// # Errors
    /// A value out of range; `method` is named in the error.
    pub fn check(&self, method: &str) -> Result<()> {
        for (key, value, least, most) in [
            ("embedding", self.embedding, 1, 1 << 16),
            ("word", self.word, 1, 1 << 16),
            ("layers", self.layers, 1, 8),
            ("hidden", self.hidden, 0, 1 << 16),
        ] {
            if value < least || value > most {
                return Err(out_of_range(method, key, &format!("{least} to {most}"), value));
            }
        }
        if self.words != WordSource::Learned && self.text_encoder == TextModel::Vectors {
            let found = format!("{:?}", self.words).to_lowercase();
            return Err(out_of_range(method, "words", "learned where `text_encoder` reads no words", found));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(out_of_range(method, "dropout", "a number from 0 to below 1", self.dropout));
        }
        if self.dropout > 0.0 && self.hidden == 0 {
            return Err(out_of_range(method, "dropout", "0 without a `hidden` layer to drop from", self.dropout));
        }
        Ok(())
    }
}
