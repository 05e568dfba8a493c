//! Scores of many items.
//!
//! The work is cut into blocks of context items and blocks of query items, always at the same places, so that bits do not
//! depend on the number of threads. Within a block similarities lie as `[context vectors, query vectors]`: every pass
//! over them is a run along many queries at once, whatever the number of regions or words.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    Attention, Contexts, CrossAttention, Real, Stack,
    panel::{Context, Panel, Scratch, aggregate, attend, sum_squares},
};
use crate::{
    linalg::gemm::{Mat, MatMut, gemm_serial},
    nn::panels::Panels,
};

/// Context vectors a block of the way back.
pub(super) const CONTEXT_BLOCK: usize = 384;
/// Query vectors a block of the way back.
pub(super) const QUERY_BLOCK: usize = 640;
/// Context vectors a tile: these (up to 1024 long), their similarities and a panel of queries stay in a second-level cache of 1 MiB.
const TILE_CONTEXTS: usize = 144;
/// Query vectors a tile.
const TILE_QUERIES: usize = 320;

/// Scores of every context item against every query item, `[contexts.items(), queries.items()]`.
pub fn scores<T: Real>(
    settings: &CrossAttention,
    form: Contexts,
    contexts: Stack<'_, T>,
    queries: Stack<'_, T>,
) -> Vec<T> {
    let grams = match form {
        Contexts::Gram => grams(contexts),
        Contexts::Direct => Vec::new(),
    };
    tiles(contexts, queries, |scratch: &mut Scratch<T>, tile, out| {
        let context = match form {
            Contexts::Gram => Context::Gram(&grams[tile.item]),
            Contexts::Direct => Context::Direct(contexts.item(tile.item), tile.queries),
        };
        attend(&settings.attention, &tile.panel, tile.s, context, scratch);
        aggregate(&settings.relevance, &tile.panel, &scratch.relevance, out);
    })
}

/// One context item against a block of query items.
pub(super) struct Tile<'a, T> {
    /// Which context item.
    pub item: usize,
    /// The query items.
    pub queries: Stack<'a, T>,
    /// What the passes of [`super::panel`] take of it.
    pub panel: Panel<'a, T>,
    /// Their similarities, equation (1).
    pub s: &'a [T],
}

/// What `one` writes of every context item and query item, `[contexts.items(), queries.items()]`. A thread keeps its `S` from one
/// tile to the next.
pub(super) fn tiles<T: Real, S: Default, R: Copy + Default + Send>(
    contexts: Stack<'_, T>,
    queries: Stack<'_, T>,
    one: impl Fn(&mut S, &Tile<'_, T>, &mut [R]) + Sync,
) -> Vec<R> {
    let norms = norms(queries);
    // Laid out once for all contexts; a product lays its right side out at every call.
    let query_blocks: Vec<(Range<usize>, Panels<'_, T>)> = queries
        .blocks(TILE_QUERIES)
        .into_iter()
        .map(|columns| {
            let asked = queries.slice(columns.clone());
            (columns, Panels::new(asked.data, asked.dim, asked.vectors(), true))
        })
        .collect();
    let tasks: Vec<(Range<usize>, &(Range<usize>, Panels<'_, T>))> = contexts
        .blocks(TILE_CONTEXTS)
        .into_iter()
        .flat_map(|rows| query_blocks.iter().map(move |columns| (rows.clone(), columns)))
        .collect();
    let parts: Vec<Vec<R>> = tasks
        .par_iter()
        .map_init(
            || (Vec::new(), S::default()),
            |(similarities, scratch), (rows, (columns, panels))| {
                let (block, asked) = (contexts.slice(rows.clone()), queries.slice(columns.clone()));
                let width = asked.vectors();
                let first = queries.span(columns.start).start;
                similarities.clear();
                similarities.resize(block.vectors() * width, T::ZERO);
                panels.add_product(block.vectors(), block.data, block.dim, similarities, width); // (1)
                let mut part = vec![R::default(); rows.len() * columns.len()];
                for (i, part) in part.chunks_exact_mut(columns.len()).enumerate() {
                    let span = block.span(i);
                    let panel = Panel {
                        rows: span.len(),
                        stride: width,
                        segments: asked.offsets,
                        norms: &norms[first..first + width],
                    };
                    let s = &similarities[span.start * width..span.end * width];
                    one(scratch, &Tile { item: rows.start + i, queries: asked, panel, s }, part);
                }
                part
            },
        )
        .collect();
    let mut out = vec![R::default(); contexts.items() * queries.items()];
    for ((rows, (columns, _)), part) in tasks.iter().zip(&parts) {
        for (i, row) in rows.clone().zip(part.chunks_exact(columns.len())) {
            out[i * queries.items() + columns.start..][..columns.len()].copy_from_slice(row);
        }
    }
    out
}

/// Attention weights `[c, q]` of equation (3) and attended vectors `[q, d]` of equation (4) for one context item and one
/// query item, to be looked at.
pub fn attention<T: Real>(settings: &Attention, context: Stack<'_, T>, query: Stack<'_, T>) -> (Vec<T>, Vec<T>) {
    let (rows, width) = (context.vectors(), query.vectors());
    let norms = norms(query);
    let panel = Panel { rows, stride: width, segments: query.offsets, norms: &norms };
    let mut s = vec![T::ZERO; rows * width];
    similarity(context, query, &mut s);
    let mut scratch = Scratch::default();
    attend(settings, &panel, &s, Context::Direct(context.data, query), &mut scratch);
    scratch.weights.truncate(rows * width);
    scratch.built.truncate(width * query.dim);
    (scratch.weights, scratch.built)
}

/// Similarities of a block, equation (1), `[contexts.vectors(), queries.vectors()]`.
pub(super) fn similarity<T: Real>(contexts: Stack<'_, T>, queries: Stack<'_, T>, out: &mut [T]) {
    let (m, n, d) = (contexts.vectors(), queries.vectors(), contexts.dim);
    gemm_serial(
        T::ONE,
        Mat::new(contexts.data, m, d),
        Mat::new(queries.data, n, d).t(),
        T::ZERO,
        MatMut::new(out, m, n),
    );
}

/// The Gram matrix of every item.
pub(super) fn grams<T: Real>(stack: Stack<'_, T>) -> Vec<Vec<T>> {
    (0..stack.items())
        .into_par_iter()
        .map(|i| {
            let n = stack.span(i).len();
            let mut gram = vec![T::ZERO; n * n];
            let item = Mat::new(stack.item(i), n, stack.dim);
            gemm_serial(T::ONE, item, item.t(), T::ZERO, MatMut::new(&mut gram, n, n));
            gram
        })
        .collect()
}

/// L2 norm of every vector.
pub(super) fn norms<T: Real>(stack: Stack<'_, T>) -> Vec<T> {
    stack.data.chunks_exact(stack.dim).map(|vector| sum_squares(vector).sqrt()).collect()
}
