//! The vectors that networks on given features see: those of [`crate::linalg::inputs`], centred and scaled.

use candle_core::Device;
use xmbench_datasets::{Images, Matrix, Texts, random::Seed};

use super::{Moments, Standardise};
use crate::{
    Result, Training,
    linalg::{
        inputs::{Inputs, Views},
        store::Store,
    },
};

/// Which representations stand for items, and how they are scaled: `(x - mean) * scale`, with one mean a column and one scale a
/// view.
#[derive(Debug, Clone)]
pub struct ScaledInputs {
    inputs: Inputs,
    image: Standardise,
    text: Standardise,
}

impl ScaledInputs {
    /// Fits them, without scaling unless `normalise`; gives the training vectors of images and texts too.
    ///
    /// # Errors
    /// A representation that the dataset does not offer, or features that are not finite.
    pub fn fit(
        method: &str,
        training: &Training<'_>,
        views: Views,
        normalise: bool,
        seed: Seed,
    ) -> Result<(Self, [Matrix; 2])> {
        let inputs = Inputs::fit(method, training, views, seed)?;
        let x = inputs.images(&training.train.images)?;
        let y = inputs.texts(&training.train.texts)?;
        let fit = |rows: &Matrix| {
            // The moments are taken in any case: they refuse what is not finite.
            let moments = Moments::of_rows(method, rows)?;
            Standardise::new(rows.cols, normalise.then_some(&moments), &Device::Cpu)
        };
        let (image, text) = (fit(&x)?, fit(&y)?);
        let rows = [image.rows(method, x)?, text.rows(method, y)?];
        Ok((Self { inputs, image, text }, rows))
    }

    /// Lengths of the vectors of an image and of a text.
    pub fn widths(&self) -> [usize; 2] {
        [self.image.width(), self.text.width()]
    }

    /// The scaled vectors of images.
    ///
    /// # Errors
    /// A representation that is missing or of another width.
    pub fn images(&self, images: &Images) -> Result<Matrix> {
        self.image.rows(self.inputs.method(), self.inputs.images(images)?)
    }

    /// The scaled vectors of texts.
    ///
    /// # Errors
    /// As [`ScaledInputs::images`].
    pub fn texts(&self, texts: &Texts) -> Result<Matrix> {
        self.text.rows(self.inputs.method(), self.inputs.texts(texts)?)
    }

    /// Adds what [`ScaledInputs::load`] reads.
    ///
    /// # Errors
    /// If the values cannot be read.
    pub fn save(&self, store: Store) -> Result<Store> {
        self.text.save(self.image.save(self.inputs.save(store), "image")?, "text")
    }

    /// Reads what [`ScaledInputs::save`] added.
    ///
    /// # Errors
    /// If it is not there.
    pub fn load(method: &str, store: &Store) -> Result<Self> {
        let [image, text] = ["image", "text"].map(|view| Standardise::load(store, view, &Device::Cpu));
        Ok(Self { inputs: Inputs::load(method, store)?, image: image?, text: text? })
    }
}
