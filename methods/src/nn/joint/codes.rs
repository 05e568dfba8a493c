//! Codes of whole collections, and the encoders' files.

use std::path::Path;

use candle_core::{Device, Tensor};
use xmbench_datasets::{Images, Matrix, Texts};

use super::{Encoders, Finish, Joint, Shape, TextModel, TextRows};
use crate::{
    Codes, Fragments, Result,
    linalg::{inputs::Inputs, store::Store},
    nn::Weights,
};

const WEIGHTS: &str = "weights.safetensors";
const VECTORS: &str = "vectors.safetensors";

/// Items that are encoded at once.
const BLOCK: usize = 256;

impl Joint {
    /// The vectors of all texts where words are not read.
    ///
    /// # Errors
    /// If the texts do not have them.
    pub fn rows(&self, texts: &Texts) -> Result<TextRows> {
        self.vectors.as_ref().map(|vectors| vectors.texts(texts)).transpose()
    }

    /// Codes of all images.
    ///
    /// # Errors
    /// As [`Joint::images`].
    pub fn encode_images(&self, images: &Images, device: &Device) -> Result<Codes> {
        let order: Vec<usize> = (0..images.len()).collect();
        self.encode(&order, |items| self.images(images, items, None, device))
    }

    /// Codes of all texts.
    ///
    /// # Errors
    /// As [`Joint::texts`].
    pub fn encode_texts(&self, texts: &Texts, device: &Device) -> Result<Codes> {
        let rows = self.rows(texts)?;
        let mut order: Vec<usize> = (0..texts.len()).collect();
        if let (None, Some(tokens)) = (&rows, &texts.tokens) {
            // Texts of like length side by side keep the recurrence's products large.
            order.sort_by_key(|&item| tokens[item].len());
        }
        self.encode(&order, |items| self.texts(texts, &rows, items, None, device))
    }

    /// Fragment codes of all images: their regions.
    ///
    /// # Errors
    /// As [`Joint::regions`].
    pub fn encode_regions(&self, images: &Images, device: &Device) -> Result<Codes> {
        let regions = images.fragments.as_ref().map_or(0, |table| table.fragments());
        let mut codes = self.no_fragments();
        for items in (0..images.len()).collect::<Vec<_>>().chunks(BLOCK) {
            codes.data.extend(self.regions(images, items, None, device)?.flatten_all()?.to_vec1::<f32>()?);
        }
        codes.offsets.extend((1..=images.len()).map(|i| i * regions));
        Ok(Codes::Fragments(codes))
    }

    /// Fragment codes of all texts: their words.
    ///
    /// # Errors
    /// As [`Joint::words`].
    pub fn encode_words(&self, texts: &Texts, device: &Device) -> Result<Codes> {
        let mut codes = self.no_fragments();
        for items in (0..texts.len()).collect::<Vec<_>>().chunks(BLOCK) {
            let (words, lengths) = self.words(texts, items, device)?;
            codes.data.extend(words.flatten_all()?.to_vec1::<f32>()?);
            for &length in lengths.as_slice() {
                codes.offsets.push(codes.offsets[codes.offsets.len() - 1] + length);
            }
        }
        Ok(Codes::Fragments(codes))
    }

    fn no_fragments(&self) -> Fragments {
        Fragments { dim: self.options.embedding, offsets: vec![0], data: Vec::new() }
    }

    /// Codes block by block in the given order.
    fn encode(&self, order: &[usize], block: impl Fn(&[usize]) -> Result<Tensor>) -> Result<Codes> {
        let width = self.options.embedding;
        let mut codes = Matrix::zeros(order.len(), width);
        for items in order.chunks(BLOCK) {
            let rows = block(items)?.flatten_all()?.to_vec1::<f32>()?;
            for (&item, row) in items.iter().zip(rows.chunks_exact(width)) {
                codes.row_mut(item).copy_from_slice(row);
            }
        }
        Ok(Codes::Dense(codes))
    }

    /// Writes weights and vectors into a folder.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, weights: &Weights, to: &Path) -> Result<()> {
        if let Some(vectors) = &self.vectors {
            vectors.save(Store::default()).save(&to.join(VECTORS))?;
        }
        weights.save(&to.join(WEIGHTS))
    }

    /// Reads what [`Joint::save`] wrote.
    ///
    /// # Errors
    /// A file that is absent or of another form.
    pub fn load(
        method: &'static str,
        options: &Encoders,
        finish: Finish,
        shape: Shape,
        from: &Path,
        device: &Device,
    ) -> Result<(Self, Weights)> {
        let mut weights = Weights::open(&from.join(WEIGHTS), device)?;
        let vectors = match options.text_encoder {
            TextModel::Vectors => Some(Inputs::load(method, &Store::load(&from.join(VECTORS))?)?),
            _ => None,
        };
        let joint = Self::new(method, options, finish, shape, vectors, [None, None], &mut weights)?;
        Ok((joint, weights))
    }
}
