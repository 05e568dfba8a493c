//! The vectors that a closed form sees of images and texts, fitted once and saved with the matcher.

use faer::Mat;
use serde::{Deserialize, Serialize};
use xmbench_datasets::{Images, Matrix, Texts, random::Seed};

use super::{
    lsa::Lsa,
    store::Store,
    to_f32,
    views::{ImageInput, TextInput},
};
use crate::{Codes, Result, Training};

/// Parameters of [`Inputs`]; flattened into those of every closed form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Views {
    /// Vector that stands for an image.
    pub image: ImageInput,
    /// Vector that stands for a text.
    pub text: TextInput,
    /// Dimensions that latent semantic analysis reduces a bag of words to, cut to what there is; 0, or as many as words, leaves it
    /// alone.
    pub text_components: usize,
}

impl Views {
    /// Whatever the dataset offers, and a bag of words reduced to so many dimensions.
    pub const fn auto(text_components: usize) -> Self {
        Self { image: ImageInput::Auto, text: TextInput::Auto, text_components }
    }
}

/// Which vector stands for an image and for a text; a bag of words goes through latent semantic analysis, because a vocabulary has
/// more columns than few captions can estimate.
#[derive(Debug, Clone, PartialEq)]
pub struct Inputs {
    method: String,
    image: ImageInput,
    text: TextInput,
    lsa: Option<Lsa>,
}

impl Inputs {
    /// Chooses among what the training items offer.
    ///
    /// # Errors
    /// A representation that the dataset does not offer, or words that cannot be decomposed.
    pub fn fit(method: &str, training: &Training<'_>, views: Views, seed: Seed) -> Result<Self> {
        let Views { image, text, text_components } = views;
        let (images, texts) = (&training.train.images, &training.train.texts);
        let missing = |need| training.missing(method, need);
        let image = image.resolve(images).ok_or_else(|| missing(image.need()))?;
        let text = text.resolve(texts).ok_or_else(|| missing(text.need()))?;
        let lsa = match &texts.bow {
            // A rotation of all columns would change nothing, whatever the penalty.
            Some(bow) if text == TextInput::Bow && (1..bow.cols).contains(&text_components) => {
                let most = bow.cols.min(bow.rows.len());
                Some(Lsa::fit(bow, text_components.min(most), &mut seed.stream(&[method, "lsa"]))?)
            }
            _ => None,
        };
        Ok(Self { method: method.into(), image, text, lsa })
    }

    /// The method that they were fitted for, for messages.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The vectors of all images.
    ///
    /// # Errors
    /// If the images do not have the representation, or it cannot be read.
    pub fn images(&self, images: &Images) -> Result<Matrix> {
        self.image.all(&self.method, images)
    }

    /// The vectors of all texts.
    ///
    /// # Errors
    /// If the texts do not have the representation, or it cannot be read.
    pub fn texts(&self, texts: &Texts) -> Result<Matrix> {
        match (&self.lsa, &texts.bow) {
            (Some(lsa), Some(bow)) => lsa.project(bow),
            _ => self.text.all(&self.method, texts),
        }
    }

    /// Adds what [`Inputs::load`] reads.
    #[must_use]
    pub fn save(&self, store: Store) -> Store {
        let store = store.with_word("image", &self.image).with_word("text", &self.text);
        match &self.lsa {
            Some(lsa) => {
                store.with_matrix("lsa.basis", lsa.basis.as_ref()).with_vector("lsa.values", &lsa.singular_values)
            }
            None => store,
        }
    }

    /// Reads what [`Inputs::save`] added.
    ///
    /// # Errors
    /// If it is not there.
    pub fn load(method: &str, store: &Store) -> Result<Self> {
        let lsa = match store.has("lsa.basis") {
            true => Some(Lsa { basis: store.matrix("lsa.basis")?, singular_values: store.vector("lsa.values")? }),
            false => None,
        };
        Ok(Self { method: method.into(), image: store.word("image")?, text: store.word("text")?, lsa })
    }
}

/// Codes of f64 rows.
pub fn dense(rows: &Mat<f64>) -> Codes {
    Codes::Dense(to_f32(rows.as_ref()))
}
