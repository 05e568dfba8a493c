//! The vectors that networks on given features see: those of [`crate::linalg::inputs`], centred and scaled.

use xmbench_datasets::{Images, Matrix, Texts, random::Seed};

use super::Moments;
use crate::{
    Error, Result, Training,
    linalg::{
        inputs::Inputs,
        store::Store,
        views::{ImageInput, TextInput},
    },
};

/// Which representations stand for items, and how they are scaled: `(x - mean) * scale`, with one mean a column and one scale a
/// view.
#[derive(Debug, Clone, PartialEq)]
pub struct ScaledInputs {
    inputs: Inputs,
    image: Affine,
    text: Affine,
}

#[derive(Debug, Clone, PartialEq)]
struct Affine {
    mean: Vec<f32>,
    scale: f32,
}

impl ScaledInputs {
    /// Fits them, without scaling unless `normalise`; gives the training vectors of images and texts too. `components` as in
    /// [`Inputs::fit`].
    ///
    /// # Errors
    /// A representation that the dataset does not offer, or features that are not finite.
    pub fn fit(
        method: &str,
        training: &Training<'_>,
        (image, text, components): (ImageInput, TextInput, usize),
        normalise: bool,
        seed: Seed,
    ) -> Result<(Self, [Matrix; 2])> {
        let inputs = Inputs::fit(method, training, image, text, components, seed)?;
        let x = inputs.images(&training.train.images)?;
        let y = inputs.texts(&training.train.texts)?;
        let image = Affine::fit(method, &x, normalise)?;
        let text = Affine::fit(method, &y, normalise)?;
        let rows = [image.apply(method, x)?, text.apply(method, y)?];
        Ok((Self { inputs, image, text }, rows))
    }

    /// Lengths of the vectors of an image and of a text.
    pub fn widths(&self) -> [usize; 2] {
        [self.image.mean.len(), self.text.mean.len()]
    }

    /// The scaled vectors of images.
    ///
    /// # Errors
    /// A representation that is missing or of another width.
    pub fn images(&self, images: &Images) -> Result<Matrix> {
        self.image.apply(self.inputs.method(), self.inputs.images(images)?)
    }

    /// The scaled vectors of texts.
    ///
    /// # Errors
    /// As [`ScaledInputs::images`].
    pub fn texts(&self, texts: &Texts) -> Result<Matrix> {
        self.text.apply(self.inputs.method(), self.inputs.texts(texts)?)
    }

    /// Adds what [`ScaledInputs::load`] reads.
    #[must_use]
    pub fn save(&self, store: Store) -> Store {
        let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|&value| f64::from(value)).collect() };
        let mut store = self.inputs.save(store);
        for (view, affine) in [("image", &self.image), ("text", &self.text)] {
            store = store
                .with_vector(&format!("{view}.mean"), &wide(&affine.mean))
                .with_vector(&format!("{view}.scale"), &wide(&[affine.scale]));
        }
        store
    }

    /// Reads what [`ScaledInputs::save`] added.
    ///
    /// # Errors
    /// If it is not there.
    pub fn load(method: &str, store: &Store) -> Result<Self> {
        let narrow = |name: &str| -> Result<Vec<f32>> {
            Ok(store.vector(name)?.into_iter().map(|value| value as f32).collect())
        };
        let affine = |view: &str| -> Result<Affine> {
            let scale = narrow(&format!("{view}.scale"))?.first().copied().unwrap_or(1.0);
            Ok(Affine { mean: narrow(&format!("{view}.mean"))?, scale })
        };
        Ok(Self { inputs: Inputs::load(method, store)?, image: affine("image")?, text: affine("text")? })
    }
}

impl Affine {
    fn fit(method: &str, rows: &Matrix, normalise: bool) -> Result<Self> {
        let some = |items: &[usize]| {
            Ok(Matrix {
                rows: items.len(),
                cols: rows.cols,
                data: items.iter().flat_map(|&i| rows.row(i)).copied().collect(),
            })
        };
        let moments = Moments::of(method, rows.rows, some)?;
        Ok(match normalise {
            true => Self { mean: moments.mean, scale: (1.0 / moments.spread) as f32 },
            false => Self { mean: vec![0.0; rows.cols], scale: 1.0 },
        })
    }

    fn apply(&self, method: &str, mut rows: Matrix) -> Result<Matrix> {
        if rows.cols != self.mean.len() {
            return Err(Error::Numeric(format!(
                "{method}: expected vectors of {} values as in training, found {}",
                self.mean.len(),
                rows.cols
            )));
        }
        for i in 0..rows.rows {
            rows.row_mut(i).iter_mut().zip(&self.mean).for_each(|(value, mean)| *value = (*value - mean) * self.scale);
        }
        Ok(rows)
    }
}
