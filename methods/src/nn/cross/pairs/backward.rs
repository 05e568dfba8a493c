//! Gradients of the scores of [`interact`](super::interact), whose forward pass kept no graph.
//!
//! What an interaction makes of an item alone is made again, once, with a graph; what it makes of pairs is differentiated by that, some
//! pairs at a time:
//!
//! - a tile as a whole where at least half of its scores have a gradient, as under a hinge over all negatives: each item stands in it
//!   once;
//! - elsewhere the pairs themselves. Under the hinge of the hardest negatives these are at most `3 B` of `B²`.
//!
//! Both are added up in a fixed order, which does not depend on the number of threads, and only a wave of them is held at a time.

use candle_core::{DType, Tensor, Var};
use rayon::prelude::*;

use super::{IMAGES, Interaction, Padded, Pairing, Side, strips};
use crate::{
    Result,
    nn::{
        Lengths, backward,
        lengths::index,
        real::{Real, with},
    },
};

/// Pairs that are differentiated at once where they are picked out.
const PAIRS: usize = 32;
/// Blocks whose gradients are held before they are added up.
const WAVE: usize = 32;

/// Gradients for `images [images, regions, d]`, `words [total, e]` and the interaction's weights one after another, `[0]` if it has
/// none, given that of the scores; all are of type `T`.
///
/// # Errors
/// Those of the interaction.
pub(super) fn gradients<I: Interaction, T: Real>(
    interaction: &I,
    images: &Tensor,
    words: &Tensor,
    lengths: &Lengths,
    grad: &Tensor,
) -> Result<[Tensor; 3]> {
    let (grad, columns) = (grad.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?, lengths.len());
    let strips = strips(lengths.as_slice());
    let blocks = blocks(&grad, &strips, columns);
    let mut regions = Leaves::<T>::images(interaction, images)?;
    let mut texts: Vec<Leaves<T>> =
        strips.par_iter().map(|strip| Leaves::texts(interaction, words, lengths, strip)).collect::<Result<_>>()?;
    let weights = interaction.weights();
    let mut of_weights: Vec<Vec<T>> = weights.iter().map(|weight| vec![T::ZERO; weight.elem_count()]).collect();
    for wave in blocks.chunks(WAVE) {
        let differentiated = |block: &Block| {
            let given: Vec<f64> = block.cells(columns, &strips[block.strip]).map(|at| grad[at]).collect();
            block.differentiated(interaction, &regions, &texts[block.strip], given)
        };
        let parts: Vec<Part> = wave.par_iter().map(differentiated).collect::<Result<_>>()?;
        for (block, part) in wave.iter().zip(parts) {
            regions.add(&block.images, &part.images)?;
            texts[block.strip].add(&block.texts, &part.texts)?;
            add_weights(&mut of_weights, &part.weights)?;
        }
    }
    let (of_images, own) = regions.finish(&weights)?;
    add_weights(&mut of_weights, &own)?;
    let mut of_words = words.zeros_like()?;
    let finished: Vec<_> = texts.into_par_iter().map(|leaves| leaves.finish(&weights)).collect::<Result<_>>()?;
    for (strip, (vectors, own)) in strips.iter().zip(finished) {
        let places = index(strip.iter().flat_map(|&text| lengths.range(text)), words.device())?;
        of_words = of_words.index_add(&places, &vectors, 0)?;
        add_weights(&mut of_weights, &own)?;
    }
    let of_weights = of_weights.concat();
    let count = of_weights.len();
    Ok([of_images, of_words, Tensor::from_vec(of_weights, count, images.device())?])
}

/// Pairs that are differentiated together: images by position, and texts by their place in a strip.
struct Block {
    images: Vec<usize>,
    strip: usize,
    texts: Vec<usize>,
    pairing: Pairing,
}

/// Divides the pairs of which the score has a gradient.
fn blocks(grad: &[f64], strips: &[Vec<usize>], columns: usize) -> Vec<Block> {
    let rows: Vec<usize> = (0..grad.len() / columns.max(1)).collect();
    let mut blocks = Vec::new();
    for (strip, texts) in strips.iter().enumerate() {
        let mut single: Vec<(usize, usize)> = Vec::new();
        for images in rows.chunks(IMAGES) {
            let cells = images.iter().flat_map(|&image| (0..texts.len()).map(move |text| (image, text)));
            let felt: Vec<_> = cells.filter(|&(image, text)| grad[image * columns + texts[text]] != 0.0).collect();
            if 2 * felt.len() >= images.len() * texts.len() {
                let texts = (0..texts.len()).collect();
                blocks.push(Block { images: images.to_vec(), strip, texts, pairing: Pairing::Every });
            } else {
                single.extend(felt);
            }
        }
        for pairs in single.chunks(PAIRS) {
            let (images, texts) = pairs.iter().copied().unzip();
            blocks.push(Block { images, strip, texts, pairing: Pairing::Matching });
        }
    }
    blocks
}

/// What a block adds to the gradients of the leaves of both sides, and to those of the weights; nothing where there is none.
struct Part {
    images: Vec<Option<Tensor>>,
    texts: Vec<Option<Tensor>>,
    weights: Vec<Option<Tensor>>,
}

impl Block {
    /// Positions of its scores in the whole matrix, in the order in which an interaction gives them.
    fn cells<'a>(&'a self, columns: usize, strip: &'a [usize]) -> Box<dyn Iterator<Item = usize> + 'a> {
        let text = |&place: &usize| strip[place];
        match self.pairing {
            Pairing::Every => Box::new(
                self.images
                    .iter()
                    .flat_map(move |&image| self.texts.iter().map(move |place| image * columns + text(place))),
            ),
            Pairing::Matching => {
                let pairs = self.images.iter().zip(&self.texts);
                Box::new(pairs.map(move |(&image, place)| image * columns + text(place)))
            }
        }
    }

    fn differentiated<I: Interaction, T: Real>(
        &self,
        interaction: &I,
        images: &Leaves<T>,
        texts: &Leaves<T>,
        given: Vec<f64>,
    ) -> Result<Part> {
        let ((images, of_images), (texts, of_texts)) = (images.cut(&self.images)?, texts.cut(&self.texts)?);
        let scores = interaction.scores(&images, &texts, self.pairing)?;
        let given = Tensor::from_vec(given, scores.shape(), scores.device())?.to_dtype(scores.dtype())?;
        let grads = backward(&(scores * given)?.sum_all()?)?;
        let of = |tensor: &Tensor| grads.get(tensor).map(Tensor::contiguous).transpose();
        let all = |tensors: &[Tensor]| tensors.iter().map(of).collect::<candle_core::Result<_>>();
        Ok(Part { images: all(&of_images)?, texts: all(&of_texts)?, weights: all(&interaction.weights())? })
    }
}

/// Items of one side with what was made of them, and the gradients for each of these tensors as far as they are known.
struct Leaves<T> {
    /// What a gradient is wanted for: all vectors of the items.
    vectors: Var,
    side: Side,
    /// For the items' vectors as they are compared and for what was made of them.
    sums: Vec<Vec<T>>,
}

impl<T: Real> Leaves<T> {
    fn images(interaction: &impl Interaction, images: &Tensor) -> Result<Self> {
        let vectors = Var::from_tensor(images)?;
        let side = Side::images(interaction, Padded::full(&vectors)?)?;
        Ok(Self::new(vectors, side))
    }

    fn texts(interaction: &impl Interaction, words: &Tensor, lengths: &Lengths, strip: &[usize]) -> Result<Self> {
        let rows = index(strip.iter().flat_map(|&text| lengths.range(text)), words.device())?;
        let vectors = Var::from_tensor(&words.index_select(&rows, 0)?)?;
        let lengths = Lengths::new(strip.iter().map(|&text| lengths.as_slice()[text]))?;
        let side = Side::texts(interaction, Padded::packed(&vectors, &lengths)?)?;
        Ok(Self::new(vectors, side))
    }

    fn new(vectors: Var, side: Side) -> Self {
        let tensors = std::iter::once(side.items.vectors()).chain(&side.made);
        let sums = tensors.map(|tensor| vec![T::ZERO; tensor.elem_count()]).collect();
        Self { vectors, side, sums }
    }

    /// Some of the items without the graph that made them, and what to differentiate by in the order of the sums.
    fn cut(&self, items: &[usize]) -> Result<(Side, Vec<Tensor>)> {
        let rows = index(items.iter().copied(), self.vectors.device())?;
        let items = self.side.items.select(&rows)?;
        let leaf = |tensor: &Tensor| -> Result<Tensor> { Ok(Var::from_tensor(&tensor.detach())?.into_inner()) };
        let made = self.side.made.iter().map(|made| leaf(&made.index_select(&rows, 0)?));
        let (vectors, made) = (leaf(items.vectors())?, made.collect::<Result<Vec<_>>>()?);
        let leaves = std::iter::once(vectors.clone()).chain(made.iter().cloned()).collect();
        Ok((Side { items: items.with(&vectors)?, made }, leaves))
    }

    /// Adds gradients of some of the items.
    fn add(&mut self, items: &[usize], grads: &[Option<Tensor>]) -> Result<()> {
        for (sums, grad) in self.sums.iter_mut().zip(grads) {
            let Some(grad) = grad else { continue };
            let width = grad.elem_count() / items.len().max(1);
            with::<T, _>(grad, |grad| {
                for (&item, grad) in items.iter().zip(grad.chunks_exact(width.max(1))) {
                    add(&mut sums[item * width..][..width], grad);
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Gradients of all vectors, and what those of what was made of them add to the gradients of some weights.
    fn finish(self, weights: &[Tensor]) -> Result<(Tensor, Vec<Option<Tensor>>)> {
        let tensors = std::iter::once(self.side.items.vectors()).chain(&self.side.made);
        let mut total = self.vectors.zeros_like()?.sum_all()?;
        for (tensor, sums) in tensors.zip(self.sums) {
            let sums = Tensor::from_vec(sums, tensor.shape(), tensor.device())?;
            total = (total + (tensor * sums)?.sum_all()?)?;
        }
        let grads = backward(&total)?;
        let of_vectors = grads.get(&self.vectors).map_or_else(|| self.vectors.zeros_like(), Tensor::contiguous)?;
        let of = |weight: &Tensor| grads.get(weight).map(Tensor::contiguous).transpose();
        Ok((of_vectors, weights.iter().map(of).collect::<candle_core::Result<_>>()?))
    }
}

/// Adds the gradients of weights to their sums.
fn add_weights<T: Real>(sums: &mut [Vec<T>], grads: &[Option<Tensor>]) -> Result<()> {
    for (sums, grad) in sums.iter_mut().zip(grads) {
        let Some(grad) = grad else { continue };
        with::<T, _>(grad, |grad| {
            add(sums, grad);
            Ok(())
        })?;
    }
    Ok(())
}

fn add<T: Real>(sums: &mut [T], grad: &[T]) {
    sums.iter_mut().zip(grad).for_each(|(sum, &grad)| *sum += grad);
}
