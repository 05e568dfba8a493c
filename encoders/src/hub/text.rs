//! Towers that read: those of CLIP and SigLIP, and BERT (MiniLM).
//!
//! - (1) a token is its row of a table plus that of its place; BERT adds that of the first segment and normalises
//! - (2) CLIP: blocks in which a token sees those before it; layer normalisation; `W x` of the first end token
//! - (3) SigLIP: blocks over the text filled up to its full length, in which the filling is seen like words, as it was trained; layer normalisation;
//!   `W x + b` of the last place
//! - (4) BERT: blocks normalised after; the mean of all tokens divided by its length, as sentence-transformers has it; or the first token so
//!   divided, where `1_Pooling/config.json` says `pooling_mode_cls_token`
//!
//! The vectors of tokens are `last_hidden_state` of the reference. A text is never filled up but in SigLIP: behind a mask or a causal
//! one filling changes nothing, and alone a text's bits depend on nothing but it.
//!
//! CLIP's end is the first token of the number `eos_token_id`; where that is 2, which old files say and none means, the highest number in the
//! text, as in the reference.

use xmbench_datasets::{Error, Result};

use super::{
    arrays::{Arrays, BERT, CLIP},
    config::Reading,
    layers::{Block, Linear, Norm, add},
};
use crate::weights::Weights;

/// A tower for texts.
pub(super) struct Text {
    width: usize,
    /// `[words, width]`.
    table: Vec<f32>,
    /// `[positions, width]`.
    positions: Vec<f32>,
    /// Of the first segment; empty for none.
    segment: Vec<f32>,
    /// Before the blocks.
    before: Option<Norm>,
    blocks: Vec<Block>,
    /// Behind them.
    after: Option<Norm>,
    head: Head,
}

/// From tokens to a vector.
enum Head {
    /// (2)
    End { projection: Linear, end: u32 },
    /// (3)
    Last(Linear),
    /// (4)
    Mean,
    /// (4)
    First,
}

/// What of BERT's tokens makes the vector of a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pooling {
    Mean,
    First,
}

/// What comes out.
pub(super) struct Read {
    pub vector: Vec<f32>,
    /// `[tokens, width]`.
    pub tokens: Vec<f32>,
}

impl Text {
    /// CLIP's (2).
    pub fn clip(weights: &Weights, reading: &Reading, projected: usize) -> Result<Self> {
        let projection =
            Linear::read(&Arrays::new(weights, "", ""), "text_projection", [reading.form.width, projected], false)?;
        Self::of_pair(weights, reading, Head::End { projection, end: reading.end }, true)
    }

    /// SigLIP's (3).
    pub fn siglip(weights: &Weights, reading: &Reading, projected: usize) -> Result<Self> {
        let from = Arrays::new(weights, "", "");
        let head = Linear::read(&from, "text_model.head", [reading.form.width, projected], true)?;
        Self::of_pair(weights, reading, Head::Last(head), false)
    }

    fn of_pair(weights: &Weights, reading: &Reading, head: Head, causal: bool) -> Result<Self> {
        let from = Arrays::new(weights, "", "");
        let width = reading.form.width;
        let rows = |name: &str, rows| from.take(&format!("text_model.embeddings.{name}.weight"), &[rows, width]);
        Ok(Self {
            width,
            table: rows("token_embedding", reading.words)?,
            positions: rows("position_embedding", reading.positions)?,
            segment: Vec::new(),
            before: None,
            blocks: from.blocks("text_model.encoder.layers", &CLIP, &reading.form, causal)?,
            after: Some(Norm::read(&from, "text_model.final_layer_norm", width, reading.form.eps)?),
            head,
        })
    }

    /// BERT (4), alone or under a head.
    pub fn bert(weights: &Weights, reading: &Reading, pooling: Pooling) -> Result<Self> {
        let from = Arrays::new(weights, "bert.", "embeddings.word_embeddings.weight");
        let width = reading.form.width;
        let rows = |name: &str, rows| from.take(&format!("embeddings.{name}.weight"), &[rows, width]);
        let mut segment = rows("token_type_embeddings", reading.segments)?;
        segment.truncate(width);
        Ok(Self {
            width,
            table: rows("word_embeddings", reading.words)?,
            positions: rows("position_embeddings", reading.positions)?,
            segment,
            before: Some(Norm::read(&from, "embeddings.LayerNorm", width, reading.form.eps)?),
            blocks: from.blocks("encoder.layer", &BERT, &reading.form, false)?,
            after: None,
            head: match pooling {
                Pooling::Mean => Head::Mean,
                Pooling::First => Head::First,
            },
        })
    }

    /// Values of the vector of a text.
    pub fn vector_width(&self) -> usize {
        match &self.head {
            Head::End { projection, .. } => projection.outputs(),
            Head::Last(projection) => projection.outputs(),
            Head::Mean | Head::First => self.width,
        }
    }

    /// Values of a token.
    pub fn token_width(&self) -> usize {
        self.width
    }

    /// What is made of a text, of the numbers of its tokens.
    pub fn read(&self, ids: &[u32]) -> Result<Read> {
        let width = self.width;
        // (1)
        let mut x = Vec::with_capacity(ids.len() * width);
        for (&id, position) in ids.iter().zip(self.positions.chunks_exact(width)) {
            let row = &self.table[id as usize * width..][..width];
            let begin = x.len();
            x.extend_from_slice(row);
            if !self.segment.is_empty() {
                add(&mut x[begin..], &self.segment, &[]);
            }
            add(&mut x[begin..], position, &[]);
        }
        if let Some(norm) = &self.before {
            norm.apply(&mut x);
        }
        self.blocks.iter().for_each(|block| block.apply(&mut x));
        if let Some(norm) = &self.after {
            norm.apply(&mut x);
        }
        let token = |at: usize| &x[at * width..][..width];
        let vector = match &self.head {
            // (2)
            Head::End { projection, end } => projection.apply(token(end_of(ids, *end)?)),
            // (3)
            Head::Last(projection) => projection.apply(token(ids.len() - 1)),
            // (4)
            Head::Mean => {
                let mut sums = vec![0.0f64; width];
                for token in x.chunks_exact(width) {
                    sums.iter_mut().zip(token).for_each(|(sum, &value)| *sum += f64::from(value));
                }
                unit(sums.into_iter().map(|sum| sum / ids.len() as f64))
            }
            Head::First => unit(token(0).iter().map(|&value| f64::from(value))),
        };
        Ok(Read { vector, tokens: x })
    }
}

/// The place of CLIP's end token.
fn end_of(ids: &[u32], end: u32) -> Result<usize> {
    const OLD: u32 = 2;
    let end = if end == OLD { ids.iter().copied().max().unwrap_or(end) } else { end };
    ids.iter().position(|&id| id == end).ok_or_else(|| {
        let next = "let tokenizer.json be that of the network";
        Error::option("tokenizer.json", format!("the end token {end} behind every text"), format!("{ids:?}"), next)
    })
}

/// A vector divided by its length.
fn unit(vector: impl Iterator<Item = f64>) -> Vec<f32> {
    let vector: Vec<f64> = vector.collect();
    let length = vector.iter().map(|value| value * value).sum::<f64>().sqrt().max(1e-12);
    vector.into_iter().map(|value| (value / length) as f32).collect()
}
