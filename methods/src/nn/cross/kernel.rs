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
use crate::linalg::gemm::{Mat, MatMut, gemm_serial};

/// Context vectors a block: the block of similarities stays in the second-level cache.
pub(super) const CONTEXT_BLOCK: usize = 384;
/// Query vectors a block.
pub(super) const QUERY_BLOCK: usize = 640;

/// Scores of every context item against every query item, `[contexts.items(), queries.items()]`.
pub fn scores<T: Real>(
    settings: &CrossAttention,
    form: Contexts,
    contexts: Stack<'_, T>,
    queries: Stack<'_, T>,
) -> Vec<T> {
    let norms = norms(queries);
    let grams = match form {
        Contexts::Gram => grams(contexts),
        Contexts::Direct => Vec::new(),
    };
    let query_blocks = queries.blocks(QUERY_BLOCK);
    let tasks: Vec<(Range<usize>, Range<usize>)> = contexts
        .blocks(CONTEXT_BLOCK)
        .into_iter()
        .flat_map(|rows| query_blocks.iter().map(move |columns| (rows.clone(), columns.clone())))
        .collect();
    let parts: Vec<Vec<T>> = tasks
        .par_iter()
        .map_init(Scratch::default, |scratch, (rows, columns)| {
            let (block, asked) = (contexts.slice(rows.clone()), queries.slice(columns.clone()));
            let width = asked.vectors();
            let first = queries.span(columns.start).start;
            let mut similarities = std::mem::take(&mut scratch.similarities);
            similarities.resize(block.vectors() * width, T::ZERO);
            similarity(block, asked, &mut similarities);
            let mut part = vec![T::ZERO; rows.len() * columns.len()];
            for i in 0..rows.len() {
                let span = block.span(i);
                let panel = Panel {
                    rows: span.len(),
                    stride: width,
                    segments: asked.offsets,
                    norms: &norms[first..first + width],
                };
                let s = &similarities[span.start * width..span.end * width];
                let context = match form {
                    Contexts::Gram => Context::Gram(&grams[rows.start + i]),
                    Contexts::Direct => Context::Direct(block.item(i), asked),
                };
                attend(&settings.attention, &panel, s, context, scratch);
                let part = &mut part[i * columns.len()..(i + 1) * columns.len()];
                aggregate(&settings.relevance, &panel, &scratch.relevance, part);
            }
            scratch.similarities = similarities;
            part
        })
        .collect();
    let mut out = vec![T::ZERO; contexts.items() * queries.items()];
    for ((rows, columns), part) in tasks.iter().zip(&parts) {
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
