//! Scores of encoded items, shard by shard.

use std::ops::Range;

use super::{Contexts, CrossAttention, Direction, Stack, attention, fragments, pairs::turn, scores};
use crate::{AttentionMap, Codes, Error, PairScorer, Result, codes::has_room};

/// Compares fragments of images with fragments of texts by stacked cross attention.
#[derive(Debug, Clone, Copy)]
pub struct CrossScorer {
    /// The settings.
    pub settings: CrossAttention,
    /// Whether attended vectors are built.
    pub form: Contexts,
}

impl PairScorer for CrossScorer {
    fn score(
        &self,
        images: &Codes,
        rows: Range<usize>,
        texts: &Codes,
        columns: Range<usize>,
        out: &mut [f32],
    ) -> Result<()> {
        let (images, texts) = fragments(images, texts)?;
        if images.dim != texts.dim || images.dim == 0 {
            return Err(Error::Numeric(format!(
                "cross attention: expected image and text vectors of one width above 0, found {} and {}",
                images.dim, texts.dim
            )));
        }
        let height = rows.len();
        has_room(out, height, columns.len())?;
        if out.is_empty() {
            return Ok(());
        }
        let (images, texts) = (Stack::of(images, rows)?, Stack::of(texts, columns)?);
        let (contexts, queries) = match self.settings.direction {
            Direction::T2i => (images, texts),
            Direction::I2t => (texts, images),
        };
        turn(self.settings.direction, &scores(&self.settings, self.form, contexts, queries), height, out);
        Ok(())
    }

    fn attention(&self, images: &Codes, image: usize, texts: &Codes, text: usize) -> Result<Vec<AttentionMap>> {
        let (images, texts) = fragments(images, texts)?;
        let (images, texts) = (Stack::of(images, image..image + 1)?, Stack::of(texts, text..text + 1)?);
        let (contexts, queries) = match self.settings.direction {
            Direction::T2i => (images, texts),
            Direction::I2t => (texts, images),
        };
        let (weights, _) = attention(&self.settings.attention, contexts, queries);
        let answers = contexts.vectors();
        let asked = queries.vectors();
        let turned = (0..asked).flat_map(|q| (0..answers).map(move |c| (c, q)));
        let weights = turned.map(|(c, q)| weights[c * asked + q]).collect();
        Ok(vec![AttentionMap { title: String::new(), asks: self.settings.direction, answers, weights }])
    }
}
