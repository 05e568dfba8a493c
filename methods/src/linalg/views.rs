//! One vector an image and one a text, from whatever a dataset offers.

use serde::{Deserialize, Serialize};
use xmbench_datasets::{FeatureTable, Images, Matrix, Texts};

use crate::{Error, Result};

/// Which vector stands for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageInput {
    /// `global` if there is one, else `fragments`.
    Auto,
    /// The global vector.
    Global,
    /// The mean of the fragments.
    Fragments,
}

/// Which vector stands for a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextInput {
    /// `global` if there is one, else `bow`.
    Auto,
    /// The tf-idf weighted bag of words.
    Bow,
    /// The global vector.
    Global,
}

impl ImageInput {
    /// The choice made: never `Auto`; `None` if the images do not have it.
    pub fn resolve(self, images: &Images) -> Option<Self> {
        let offers = |input| match input {
            Self::Global => images.global.is_some(),
            _ => images.fragments.is_some(),
        };
        match self {
            Self::Auto => [Self::Global, Self::Fragments].into_iter().find(|&input| offers(input)),
            chosen => offers(chosen).then_some(chosen),
        }
    }

    /// Name in a card's `needs`.
    pub fn need(self) -> &'static str {
        match self {
            Self::Auto => "images.global|images.fragments",
            Self::Global => "images.global",
            Self::Fragments => "images.fragments",
        }
    }

    /// Length of the vectors.
    pub fn width(self, images: &Images) -> Option<usize> {
        Some(self.table(images)?.width())
    }

    /// The vectors of some images, `[items.len(), width]`.
    ///
    /// # Errors
    /// If the images do not have the representation, or it cannot be read.
    pub fn gather(self, method: &str, images: &Images, items: &[usize]) -> Result<Matrix> {
        let table = self.table(images).ok_or_else(|| missing(method, self.need()))?;
        let rows = table.gather(items)?;
        let (fragments, width) = (table.fragments(), table.width());
        if fragments == 1 {
            return Ok(rows);
        }
        let mut means = Matrix::zeros(items.len(), width);
        for i in 0..items.len() {
            let row = rows.row(i);
            for (j, mean) in means.row_mut(i).iter_mut().enumerate() {
                let sum: f64 = (0..fragments).map(|r| f64::from(row[r * width + j])).sum();
                *mean = (sum / fragments as f64) as f32;
            }
        }
        Ok(means)
    }

    /// The vectors of all images.
    ///
    /// # Errors
    /// As [`ImageInput::gather`].
    pub fn all(self, method: &str, images: &Images) -> Result<Matrix> {
        self.gather(method, images, &(0..images.len()).collect::<Vec<_>>())
    }

    fn table(self, images: &Images) -> Option<&FeatureTable> {
        match self.resolve(images)? {
            Self::Global => images.global.as_ref(),
            _ => images.fragments.as_ref(),
        }
    }
}

impl TextInput {
    /// The choice made: never `Auto`; `None` if the texts do not have it.
    pub fn resolve(self, texts: &Texts) -> Option<Self> {
        let offers = |input| match input {
            Self::Global => texts.global.is_some(),
            _ => texts.bow.is_some(),
        };
        match self {
            Self::Auto => [Self::Global, Self::Bow].into_iter().find(|&input| offers(input)),
            chosen => offers(chosen).then_some(chosen),
        }
    }

    /// Name in a card's `needs`.
    pub fn need(self) -> &'static str {
        match self {
            Self::Auto => "texts.global|texts.bow",
            Self::Bow => "texts.bow",
            Self::Global => "texts.global",
        }
    }

    /// Length of the vectors.
    pub fn width(self, texts: &Texts) -> Option<usize> {
        match self.resolve(texts)? {
            Self::Global => texts.global.as_ref().map(|table| table.width()),
            _ => texts.bow.as_ref().map(|bow| bow.cols),
        }
    }

    /// The vectors of some texts, `[items.len(), width]`.
    ///
    /// # Errors
    /// If the texts do not have the representation, or it cannot be read.
    pub fn gather(self, method: &str, texts: &Texts, items: &[usize]) -> Result<Matrix> {
        match (self.resolve(texts), &texts.global, &texts.bow) {
            (Some(Self::Global), Some(table), _) => Ok(table.gather(items)?),
            (Some(Self::Bow), _, Some(bow)) => {
                let mut out = Matrix::zeros(items.len(), bow.cols);
                for (i, &item) in items.iter().enumerate() {
                    let row = out.row_mut(i);
                    bow.rows[item].iter().for_each(|&(column, value)| row[column as usize] = value);
                }
                Ok(out)
            }
            _ => Err(missing(method, self.need())),
        }
    }

    /// The vectors of all texts.
    ///
    /// # Errors
    /// As [`TextInput::gather`].
    pub fn all(self, method: &str, texts: &Texts) -> Result<Matrix> {
        self.gather(method, texts, &(0..texts.len()).collect::<Vec<_>>())
    }
}

fn missing(method: &str, need: &str) -> Error {
    Error::Missing { method: method.into(), need: need.into(), dataset: "to encode".into() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use xmbench_datasets::{SparseRows, Subset};

    use super::*;

    #[test]
    fn fragments_are_averaged_where_no_global_vector_is() {
        let table = Matrix { rows: 1, cols: 4, data: vec![1.0, 2.0, 3.0, 6.0] };
        let mut images = Images { ids: vec!["a".into()], ..Images::default() };
        assert_eq!(ImageInput::Auto.resolve(&images), None);
        images.fragments = Some(Arc::new(Subset::fragments_of(table, 2)));
        assert_eq!(ImageInput::Auto.resolve(&images), Some(ImageInput::Fragments));
        assert_eq!(ImageInput::Auto.all("m", &images).unwrap().data, [2.0, 4.0]);
        images.global = Some(Arc::new(Matrix { rows: 1, cols: 1, data: vec![7.0] }));
        assert_eq!(ImageInput::Auto.all("m", &images).unwrap().data, [7.0]);
        assert_eq!(ImageInput::Fragments.width(&images), Some(2));
    }

    #[test]
    fn a_bag_of_words_is_spread_out() {
        let bow = SparseRows { cols: 3, rows: vec![vec![(1, 0.5)], vec![(0, 1.0), (2, 2.0)]] };
        let texts = Texts { ids: vec!["a".into(), "b".into()], bow: Some(bow), ..Texts::default() };
        assert_eq!(TextInput::Auto.gather("m", &texts, &[1, 0]).unwrap().data, [1.0, 0.0, 2.0, 0.0, 0.5, 0.0]);
        assert!(TextInput::Global.all("m", &texts).unwrap_err().to_string().contains("texts.global"));
    }
}
