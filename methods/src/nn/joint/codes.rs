//! Codes of whole collections, and the encoders' files.

use std::path::Path;

use candle_core::Tensor;
use xmbench_datasets::{Images, Texts};

use super::{Encoders, Finish, Joint, Shape, TextModel};
use crate::{
    Codes, Fragments, Result,
    linalg::{inputs::Inputs, store::Store},
    nn::{Weights, in_blocks},
};

const VECTORS: &str = "vectors.safetensors";

/// Items that are encoded at once.
const BLOCK: usize = 256;

impl Joint {
    /// Codes of all images.
    ///
    /// # Errors
    /// As [`Joint::images`].
    pub fn encode_images(&self, images: &Images) -> Result<Codes> {
        self.codes_of_images(images, self.width(), |items| self.images(images, items, None))
    }

    /// Codes of all texts.
    ///
    /// # Errors
    /// A representation that is missing, a text without words, or a word that was not trained.
    pub fn encode_texts(&self, texts: &Texts) -> Result<Codes> {
        let rows = self.vectors.as_ref().map(|vectors| vectors.texts(texts)).transpose()?;
        self.codes_of_texts(texts, self.width(), |items| self.texts(texts, &rows, items, None))
    }

    /// Dense codes that a method makes of images itself, `[items, width]` a block of items.
    ///
    /// # Errors
    /// What `block` reports.
    pub fn codes_of_images(
        &self,
        images: &Images,
        width: usize,
        block: impl Fn(&[usize]) -> Result<Tensor>,
    ) -> Result<Codes> {
        let order: Vec<usize> = (0..images.len()).collect();
        in_blocks(&order, width, BLOCK, block).map(Codes::Dense)
    }

    /// Dense codes that a method makes of texts itself, `[items, width]` a block of items.
    ///
    /// # Errors
    /// What `block` reports.
    pub fn codes_of_texts(
        &self,
        texts: &Texts,
        width: usize,
        block: impl Fn(&[usize]) -> Result<Tensor>,
    ) -> Result<Codes> {
        let mut order: Vec<usize> = (0..texts.len()).collect();
        if let (None, Some(tokens)) = (&self.vectors, &texts.tokens) {
            // Texts of like length side by side keep the recurrence's products large.
            order.sort_by_key(|&item| tokens[item].len());
        }
        in_blocks(&order, width, BLOCK, block).map(Codes::Dense)
    }

    /// Fragment codes of all images: their regions.
    ///
    /// # Errors
    /// As [`Joint::regions`].
    pub fn encode_regions(&self, images: &Images) -> Result<Codes> {
        let regions = images.fragments.as_ref().ok_or_else(|| self.missing("images.fragments"))?.fragments();
        let mut codes = self.no_fragments();
        for items in (0..images.len()).collect::<Vec<_>>().chunks(BLOCK) {
            let ends = self.finish_images(&self.regions(images, items, None)?)?;
            codes.data.extend(ends.flatten_all()?.to_vec1::<f32>()?);
        }
        codes.offsets.extend((1..=images.len()).map(|i| i * regions));
        Ok(Codes::Fragments(codes))
    }

    /// Fragment codes of all texts: their words.
    ///
    /// # Errors
    /// As [`Joint::states`].
    pub fn encode_words(&self, texts: &Texts) -> Result<Codes> {
        let mut codes = self.no_fragments();
        for items in (0..texts.len()).collect::<Vec<_>>().chunks(BLOCK) {
            let read = self.states(texts, items)?;
            let ends = self.finish_texts(&self.words(&read)?)?;
            codes.data.extend(ends.flatten_all()?.to_vec1::<f32>()?);
            for &length in read.tokens.lengths.as_slice() {
                codes.offsets.push(codes.offsets[codes.offsets.len() - 1] + length);
            }
        }
        Ok(Codes::Fragments(codes))
    }

    fn no_fragments(&self) -> Fragments {
        Fragments { dim: self.options.embedding, offsets: vec![0], data: Vec::new() }
    }

    /// Writes what is not among the weights into a folder.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, to: &Path) -> Result<()> {
        match &self.vectors {
            Some(vectors) => vectors.save(Store::default()).save(&to.join(VECTORS)),
            None => Ok(()),
        }
    }

    /// The encoders that [`Joint::save`], a shape and weights describe.
    ///
    /// # Errors
    /// A file or weight that is absent or of another form.
    pub fn load(
        method: &'static str,
        options: &Encoders,
        finish: Finish,
        shape: Shape,
        from: &Path,
        weights: &mut Weights,
    ) -> Result<Self> {
        let vectors = match options.text_encoder {
            TextModel::Vectors => Some(Inputs::load(method, &Store::load(&from.join(VECTORS))?)?),
            _ => None,
        };
        Self::new(method, options, finish, shape, (vectors, None), [None, None], weights)
    }
}
