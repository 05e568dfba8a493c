//! The scores put together from tensor operations, for devices without a kernel of ours and to check ours.

use candle_core::Tensor;

use super::{
    Contexts, CrossAttention, Direction, Padded, attended, op::check, relevance, relevance_from_grams, similarities,
};
use crate::{Result, nn::Lengths};

/// As [`super::batch_scores`], on any device, from the Gram matrices, with the gradient of the tensor library.
///
/// # Errors
/// As [`super::batch_scores`].
pub fn composed_scores(
    settings: &CrossAttention,
    images: &Tensor,
    words: &Tensor,
    lengths: &Lengths,
) -> Result<Tensor> {
    check(images, words, lengths)?;
    let (images, texts) = (Padded::full(images)?, Padded::packed(words, lengths)?);
    match settings.direction {
        Direction::T2i => settings.pair_scores(Contexts::Gram, &images, &texts),
        Direction::I2t => Ok(settings.pair_scores(Contexts::Gram, &texts, &images)?.t()?.contiguous()?),
    }
}

impl CrossAttention {
    /// The scores of all pairs, `[contexts, queries]`, by tensor operations; the direction is that of the arguments.
    ///
    /// # Errors
    /// If the widths differ.
    pub fn pair_scores(&self, form: Contexts, contexts: &Padded, queries: &Padded) -> Result<Tensor> {
        let asked = queries.asked()?;
        let s = similarities(contexts, queries.vectors())?; // (1)
        let weights = self.attention.weights(&s, asked.as_ref(), contexts.seen()?.as_ref())?; // (2), (3)
        let r = match form {
            Contexts::Direct => relevance(queries.vectors(), &attended(&weights, contexts)?)?, // (4), (5)
            Contexts::Gram => relevance_from_grams(&s, &weights, &contexts.grams()?, &queries.norms()?)?, // (7), (5)
        };
        self.relevance.aggregate(&r, asked.as_ref()) // (6)
    }
}
