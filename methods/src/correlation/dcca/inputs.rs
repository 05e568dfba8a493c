//! The vectors that the networks see.

use xmbench_datasets::{Images, Matrix, Texts, random::Seed};

use super::{NAME, Params};
use crate::{
    Error, Result, Training,
    linalg::{
        lsa::Lsa,
        store::Store,
        views::{ImageInput, TextInput},
    },
    nn::Moments,
};

/// Which representations stand for items, and how they are scaled: `(x - mean) * scale`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Inputs {
    image: ImageInput,
    text: TextInput,
    lsa: Option<Lsa>,
    image_scaling: Scaling,
    text_scaling: Scaling,
}

#[derive(Debug, Clone, PartialEq)]
struct Scaling {
    mean: Vec<f32>,
    scale: f32,
}

impl Inputs {
    /// Fits them; gives the scaled training vectors of images and texts too.
    ///
    /// # Errors
    /// A representation that the dataset does not offer, or features that are not finite.
    pub fn fit(params: &Params, training: &Training<'_>, seed: Seed) -> Result<(Self, [Matrix; 2])> {
        let (images, texts) = (&training.train.images, &training.train.texts);
        let missing = |need| training.missing(NAME, need);
        let image = params.image.resolve(images).ok_or_else(|| missing(params.image.need()))?;
        let text = params.text.resolve(texts).ok_or_else(|| missing(params.text.need()))?;
        let lsa = match &texts.bow {
            Some(bow) if text == TextInput::Bow && (1..bow.cols).contains(&params.text_components) => {
                let most = bow.cols.min(bow.rows.len());
                Some(Lsa::fit(bow, params.text_components.min(most), &mut seed.stream(&[NAME, "lsa"]))?)
            }
            _ => None,
        };
        let x = image.all(NAME, images)?;
        let y = text_vectors(text, lsa.as_ref(), texts)?;
        let image_scaling = Scaling::fit(&x, params.normalise)?;
        let text_scaling = Scaling::fit(&y, params.normalise)?;
        let rows = [image_scaling.apply(x)?, text_scaling.apply(y)?];
        Ok((Self { image, text, lsa, image_scaling, text_scaling }, rows))
    }

    /// Lengths of the vectors of an image and of a text.
    pub fn widths(&self) -> [usize; 2] {
        [self.image_scaling.mean.len(), self.text_scaling.mean.len()]
    }

    /// The scaled vectors of images.
    ///
    /// # Errors
    /// A representation that is missing or of another width.
    pub fn images(&self, images: &Images) -> Result<Matrix> {
        self.image_scaling.apply(self.image.all(NAME, images)?)
    }

    /// The scaled vectors of texts.
    ///
    /// # Errors
    /// As [`Inputs::images`].
    pub fn texts(&self, texts: &Texts) -> Result<Matrix> {
        self.text_scaling.apply(text_vectors(self.text, self.lsa.as_ref(), texts)?)
    }

    /// Adds everything to a store.
    pub fn put(&self, store: Store) -> Store {
        let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|&value| f64::from(value)).collect() };
        let store = store
            .with_word("image", &self.image)
            .with_word("text", &self.text)
            .with_vector("image.mean", &wide(&self.image_scaling.mean))
            .with_vector("image.scale", &wide(&[self.image_scaling.scale]))
            .with_vector("text.mean", &wide(&self.text_scaling.mean))
            .with_vector("text.scale", &wide(&[self.text_scaling.scale]));
        match &self.lsa {
            Some(lsa) => {
                store.with_matrix("lsa.basis", lsa.basis.as_ref()).with_vector("lsa.values", &lsa.singular_values)
            }
            None => store,
        }
    }

    /// Takes back what [`Inputs::put`] added.
    ///
    /// # Errors
    /// Something that is absent or of another form.
    pub fn take(store: &Store) -> Result<Self> {
        let narrow = |name: &str| -> Result<Vec<f32>> {
            Ok(store.vector(name)?.into_iter().map(|value| value as f32).collect())
        };
        let scaling = |view: &str| -> Result<Scaling> {
            let scale = narrow(&format!("{view}.scale"))?.first().copied().unwrap_or(1.0);
            Ok(Scaling { mean: narrow(&format!("{view}.mean"))?, scale })
        };
        let lsa = match store.has("lsa.basis") {
            true => Some(Lsa { basis: store.matrix("lsa.basis")?, singular_values: store.vector("lsa.values")? }),
            false => None,
        };
        Ok(Self {
            image: store.word("image")?,
            text: store.word("text")?,
            lsa,
            image_scaling: scaling("image")?,
            text_scaling: scaling("text")?,
        })
    }
}

fn text_vectors(text: TextInput, lsa: Option<&Lsa>, texts: &Texts) -> Result<Matrix> {
    match (lsa, &texts.bow) {
        (Some(lsa), Some(bow)) => lsa.project(bow),
        _ => text.all(NAME, texts),
    }
}

impl Scaling {
    fn fit(rows: &Matrix, normalise: bool) -> Result<Self> {
        let some = |items: &[usize]| {
            Ok(Matrix {
                rows: items.len(),
                cols: rows.cols,
                data: items.iter().flat_map(|&i| rows.row(i)).copied().collect(),
            })
        };
        let moments = Moments::of(NAME, rows.rows, some)?;
        Ok(match normalise {
            true => Self { mean: moments.mean, scale: (1.0 / moments.spread) as f32 },
            false => Self { mean: vec![0.0; rows.cols], scale: 1.0 },
        })
    }

    fn apply(&self, mut rows: Matrix) -> Result<Matrix> {
        if rows.cols != self.mean.len() {
            return Err(Error::Numeric(format!(
                "{NAME}: expected vectors of {} values as in training, found {}",
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
