//! Scores of pairs by a function of one's own, with weights of its own: what the fused kernel of this module cannot compute.
//!
//! An [`Interaction`] says how some images and some texts score, on tensors. The rest is the same for all of them:
//!
//! - [`interact`] scores a batch to train on. On the CPU the forward pass goes tile by tile over the threads and keeps no graph; the
//!   backward pass computes again, with one, those pairs alone whose score has a gradient ([`backward`]). No tensor holds more than
//!   a tile.
//! - [`InteractionScorer`] compares encoded items in the same tiles.
//!
//! Texts go by length, so that a tile's padding is short. Tiles depend on the sizes alone and their results are put together in a
//! fixed order: the bits do not depend on the number of threads.

use std::ops::Range;

use candle_core::{CpuStorage, CustomOp3, DType, Device, Layout, Shape, Tensor, WithDType};
use rayon::prelude::*;

use super::{Direction, Padded};
use crate::{
    AttentionMap, Codes, Error, Fragments, PairScorer, Result,
    codes::has_room,
    nn::{Lengths, lengths::index},
};

/// Which images and texts of a block are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// Every image with every text: scores are `[images, texts]`.
    Every,
    /// Image `p` with text `p`: scores are `[pairs]`.
    Matching,
}

/// A score of an image and a text as tensor operations, with weights of its own. It draws no random numbers: a pass may be
/// repeated.
pub trait Interaction: Clone + Send + Sync + 'static {
    /// What is made once an image however many texts it meets, `[images, ..]` each; found again in [`Side::made`].
    ///
    /// # Errors
    /// If a tensor operation fails.
    fn images(&self, _images: &Padded) -> Result<Vec<Tensor>> {
        Ok(Vec::new())
    }

    /// What is made once a text, `[texts, ..]` each.
    ///
    /// # Errors
    /// If a tensor operation fails.
    fn texts(&self, _texts: &Padded) -> Result<Vec<Tensor>> {
        Ok(Vec::new())
    }

    /// Scores: `[images, texts]` for [`Pairing::Every`], `[pairs]` for [`Pairing::Matching`].
    ///
    /// # Errors
    /// If the vectors are of another width than it compares, or a tensor operation fails.
    fn scores(&self, images: &Side, texts: &Side, pairing: Pairing) -> Result<Tensor>;

    /// What it looked at in one image and one text, for showing; see [`PairScorer::attention`].
    ///
    /// # Errors
    /// As [`Interaction::scores`].
    fn attention(&self, _image: &Side, _text: &Side) -> Result<Vec<AttentionMap>> {
        Ok(Vec::new())
    }

    /// The variables that it reads, for their gradients: themselves and not what was made of them.
    fn weights(&self) -> Vec<Tensor> {
        Vec::new()
    }
}

/// The items of one side of a block.
#[derive(Debug, Clone)]
pub struct Side {
    /// Their vectors.
    pub items: Padded,
    /// What [`Interaction::images`] or [`Interaction::texts`] made of them.
    pub made: Vec<Tensor>,
}

impl Side {
    /// Images with what an interaction makes of them.
    ///
    /// # Errors
    /// That of [`Interaction::images`].
    pub fn images(interaction: &impl Interaction, items: Padded) -> Result<Self> {
        Ok(Self { made: interaction.images(&items)?, items })
    }

    /// Texts with what an interaction makes of them.
    ///
    /// # Errors
    /// That of [`Interaction::texts`].
    pub fn texts(interaction: &impl Interaction, items: Padded) -> Result<Self> {
        Ok(Self { made: interaction.texts(&items)?, items })
    }

    fn narrow(&self, rows: Range<usize>) -> Result<Self> {
        let made = self.made.iter().map(|made| Ok(made.narrow(0, rows.start, rows.len())?.contiguous()?));
        Ok(Self { items: self.items.narrow(rows.clone())?, made: made.collect::<Result<_>>()? })
    }
}

/// One side asks and the other answers, as the tensor pieces of this module take them.
#[derive(Debug, Clone)]
pub struct Block<'a> {
    /// The side that answers, `[N, c, d]`.
    pub contexts: &'a Side,
    /// The side that asks.
    pub asking: &'a Side,
    /// The vectors that ask, `[M, q, d]`, or `[N, 1, q, d]` of matching pairs.
    pub queries: Tensor,
    /// Which of them are real, `[1, M, q]` or `[N, 1, q]`; nothing if all.
    pub asked: Option<Tensor>,
    /// Which context vectors are real, `[N, 1, 1, c]`; nothing if all.
    pub seen: Option<Tensor>,
    direction: Direction,
    pairing: Pairing,
}

impl<'a> Block<'a> {
    /// Images and texts in the roles that a direction gives them.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn new(direction: Direction, images: &'a Side, texts: &'a Side, pairing: Pairing) -> Result<Self> {
        let (contexts, asking) = match direction {
            Direction::T2i => (images, texts),
            Direction::I2t => (texts, images),
        };
        let (queries, real) = (asking.items.vectors(), asking.items.real());
        let at = usize::from(pairing == Pairing::Matching);
        Ok(Self {
            queries: if at == 1 { queries.unsqueeze(1)? } else { queries.clone() },
            asked: real.map(|real| real.unsqueeze(at)).transpose()?,
            seen: contexts.items.seen()?,
            contexts,
            asking,
            direction,
            pairing,
        })
    }

    /// What was made of the asking side, `[M, ..]`, in the place of [`Block::queries`]: `[N, 1, ..]` of matching pairs.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn aligned(&self, made: &Tensor) -> Result<Tensor> {
        Ok(if self.pairing == Pairing::Matching { made.unsqueeze(1)? } else { made.clone() })
    }

    /// Scores `[N, M]` of contexts and queries as [`Interaction::scores`] gives them.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn scores(&self, scores: &Tensor) -> Result<Tensor> {
        Ok(match (self.pairing, self.direction) {
            (Pairing::Matching, _) => scores.squeeze(1)?,
            (Pairing::Every, Direction::T2i) => scores.clone(),
            (Pairing::Every, Direction::I2t) => scores.t()?.contiguous()?,
        })
    }
}

/// Images and texts of a tile: their pairs' vectors stay in the cache of a core.
const IMAGES: usize = 4;
const TEXTS: usize = 16;

/// Scores of every image of a batch against every text, `[images, texts]`, with gradients for `images [images, regions, d]`,
/// `words [total, e]` and the interaction's weights.
///
/// # Errors
/// Shapes that do not fit each other or the lengths, or those of the interaction.
pub fn interact<I: Interaction>(interaction: &I, images: &Tensor, words: &Tensor, lengths: &Lengths) -> Result<Tensor> {
    if !images.device().is_cpu() {
        let images = Side::images(interaction, Padded::full(images)?)?;
        let texts = Side::texts(interaction, Padded::packed(words, lengths)?)?;
        return interaction.scores(&images, &texts, Pairing::Every);
    }
    let (images, words) = (images.contiguous()?, words.contiguous()?);
    let texts: Vec<(Vec<usize>, Padded)> = strips(lengths.as_slice())
        .into_iter()
        .map(|columns| Ok((columns.clone(), strip(&words.detach(), lengths, &columns)?)))
        .collect::<Result<_>>()?;
    let (rows, columns) = (images.dim(0)?, lengths.len());
    let mut scores = vec![0f64; rows * columns];
    every(interaction, &Padded::full(&images.detach())?, texts, columns, &mut scores)?;
    let scores = Tensor::from_vec(scores, (rows, columns), &Device::Cpu)?.to_dtype(images.dtype())?;
    let weights = interaction.weights();
    // The operation takes one tensor of all weights; the graph takes its gradient apart again.
    let together = match weights.as_slice() {
        [] => Tensor::zeros(1, images.dtype(), &Device::Cpu)?,
        weights => Tensor::cat(&weights.iter().map(Tensor::flatten_all).collect::<candle_core::Result<Vec<_>>>()?, 0)?,
    };
    let op = Again { interaction: interaction.clone(), lengths: lengths.clone(), scores };
    Ok(images.apply_op3(&words, &together, op)?)
}

/// Positions of texts by length, the shortest first, some at a time.
fn strips(lengths: &[usize]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&text| lengths[text]);
    order.chunks(TEXTS).map(<[usize]>::to_vec).collect()
}

/// Some of the texts, padded to the longest of them.
fn strip(words: &Tensor, lengths: &Lengths, texts: &[usize]) -> Result<Padded> {
    let rows = texts.iter().flat_map(|&text| lengths.range(text));
    let words = words.index_select(&index(rows, words.device())?, 0)?;
    Padded::packed(&words, &Lengths::new(texts.iter().map(|&text| lengths.as_slice()[text]))?)
}

/// Writes the scores of all images with all texts, `columns` of them in strips with their positions.
fn every<I: Interaction>(
    interaction: &I,
    images: &Padded,
    texts: Vec<(Vec<usize>, Padded)>,
    columns: usize,
    out: &mut [f64],
) -> Result<()> {
    let rows = images.vectors().dim(0)?;
    let on_cpu = images.vectors().device().is_cpu();
    let images = Side::images(interaction, images.clone())?;
    let step = if on_cpu { IMAGES } else { rows.max(1) };
    let tiles = (0..rows).step_by(step).map(|start| images.narrow(start..(start + step).min(rows)));
    let tiles: Vec<Side> = tiles.collect::<Result<_>>()?;
    let side = |(columns, texts): (Vec<usize>, Padded)| Ok((columns, Side::texts(interaction, texts)?));
    let texts: Vec<(Vec<usize>, Side)> = match on_cpu {
        true => texts.into_par_iter().map(side).collect::<Result<_>>()?,
        false => texts.into_iter().map(side).collect::<Result<_>>()?,
    };
    let score = |at: usize| -> Result<Vec<f64>> {
        let (tile, (_, strip)) = (&tiles[at / texts.len()], &texts[at % texts.len()]);
        let scores = interaction.scores(tile, strip, Pairing::Every)?.detach();
        Ok(scores.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
    };
    let all = 0..tiles.len() * texts.len();
    let found: Vec<Vec<f64>> = match on_cpu {
        true => all.into_par_iter().map(score).collect::<Result<_>>()?,
        false => all.map(score).collect::<Result<_>>()?,
    };
    for (at, scores) in found.iter().enumerate() {
        let ((first, places), width) =
            ((at / texts.len() * step, &texts[at % texts.len()].0), texts[at % texts.len()].0.len());
        for (i, row) in scores.chunks_exact(width).enumerate() {
            for (&place, &score) in places.iter().zip(row) {
                out[(first + i) * columns + place] = score;
            }
        }
    }
    Ok(())
}

/// Scores that are known, and how to find their gradient.
struct Again<I> {
    interaction: I,
    lengths: Lengths,
    scores: Tensor,
}

impl<I: Interaction> CustomOp3 for Again<I> {
    fn name(&self) -> &'static str {
        "interaction"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let scores = self.scores.flatten_all()?;
        let storage = match scores.dtype() {
            DType::F64 => f64::to_cpu_storage_owned(scores.to_vec1()?),
            _ => f32::to_cpu_storage_owned(scores.to_vec1()?),
        };
        Ok((storage, self.scores.shape().clone()))
    }

    fn bwd(
        &self,
        images: &Tensor,
        words: &Tensor,
        weights: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradients = match images.dtype() {
            DType::F64 => backward::gradients::<I, f64>,
            _ => backward::gradients::<I, f32>,
        };
        let found = gradients(&self.interaction, &images.detach(), &words.detach(), &self.lengths, grad);
        let [of_images, of_words, of_weights] = found.map_err(candle_core::Error::wrap)?;
        let of_weights = (of_weights.elem_count() == weights.elem_count()).then_some(of_weights);
        Ok((Some(of_images), Some(of_words), of_weights))
    }
}

/// Compares fragments of images with fragments of texts by an interaction, tile by tile.
#[derive(Debug, Clone)]
pub struct InteractionScorer<I> {
    /// How they score.
    pub interaction: I,
    /// Where its weights are.
    pub device: Device,
}

impl<I: Interaction> PairScorer for InteractionScorer<I> {
    fn score(
        &self,
        images: &Codes,
        rows: Range<usize>,
        texts: &Codes,
        columns: Range<usize>,
        out: &mut [f32],
    ) -> Result<()> {
        let (images, texts) = fragments(images, texts)?;
        has_room(out, rows.len(), columns.len())?;
        if out.is_empty() {
            return Ok(());
        }
        let lengths: Vec<usize> = columns.clone().map(|text| texts.count(text)).collect();
        let texts = strips(&lengths).into_iter().map(|places| {
            let items: Vec<usize> = places.iter().map(|place| columns.start + place).collect();
            Ok((places, padded(texts, &items, &self.device)?))
        });
        let texts = texts.collect::<Result<Vec<_>>>()?;
        let images = padded(images, &rows.collect::<Vec<_>>(), &self.device)?;
        let mut scores = vec![0f64; out.len()];
        every(&self.interaction, &images, texts, columns.len(), &mut scores)?;
        out.iter_mut().zip(scores).for_each(|(out, score)| *out = score as f32);
        Ok(())
    }

    fn attention(&self, images: &Codes, image: usize, texts: &Codes, text: usize) -> Result<Vec<AttentionMap>> {
        let (images, texts) = fragments(images, texts)?;
        let image = Side::images(&self.interaction, padded(images, &[image], &self.device)?)?;
        self.interaction.attention(&image, &Side::texts(&self.interaction, padded(texts, &[text], &self.device)?)?)
    }
}

/// Fragments of both sides.
///
/// # Errors
/// If a side has codes of another kind.
pub fn fragments<'a>(images: &'a Codes, texts: &'a Codes) -> Result<(&'a Fragments, &'a Fragments)> {
    match (images, texts) {
        (Codes::Fragments(images), Codes::Fragments(texts)) => Ok((images, texts)),
        _ => Err(Error::Numeric("fragments are compared with fragments; encode both sides with this matcher".into())),
    }
}

/// Writes scores `[contexts, queries]` as `[images, texts]`.
pub(super) fn turn(direction: Direction, scores: &[f32], images: usize, out: &mut [f32]) {
    match direction {
        Direction::T2i => out.copy_from_slice(scores),
        Direction::I2t => {
            let texts = out.len() / images;
            for (j, column) in scores.chunks_exact(images).enumerate() {
                column.iter().enumerate().for_each(|(i, &score)| out[i * texts + j] = score);
            }
        }
    }
}

/// Some items as a tensor, `[items, most, d]`; one without vectors gets a zero vector.
///
/// # Errors
/// If a tensor cannot be made.
pub fn padded(from: &Fragments, items: &[usize], device: &Device) -> Result<Padded> {
    let lengths: Vec<usize> = items.iter().map(|&item| from.count(item).max(1)).collect();
    let most = lengths.iter().copied().max().unwrap_or(1);
    let mut data = vec![0f32; items.len() * most * from.dim];
    for (row, &item) in data.chunks_exact_mut((most * from.dim).max(1)).zip(items) {
        let vectors = from.item(item);
        row[..vectors.len()].copy_from_slice(vectors);
    }
    let vectors = Tensor::from_vec(data, (items.len(), most, from.dim), device)?;
    match lengths.iter().all(|&length| length == most) {
        true => Padded::full(&vectors),
        false => Padded::new(&vectors, &Lengths::new(lengths)?),
    }
}

mod backward;
#[cfg(test)]
mod tests;
