//! Gradients of the scores with respect to both stacks.
//!
//! With `g_q` the gradient of `r_q`, `n_q = |Q_q|`, `m_q = w_qᵀ G w_q` and `H = G W`, where the clamp of equation (5) is open:
//! ```text
//! d(Q·a)_q = g_q / (n_q sqrt(m_q))      d m_q = -g_q r_q / (2 m_q)      d|Q_q| = -g_q r_q / n_q
//! dW_cq = d(Q·a)_q S_cq + 2 d m_q H_cq
//! dA_cq = lambda W_cq (dW_cq - sum_c' W_c'q dW_c'q)
//! dX = (dA - A (A·dA) (N + eps) / N) / (N + eps)     for A = X / (N + eps), N the L2 norm along the queries of an item
//! dX = (dA - sign(X) (A·dA)) / (N + eps)             for the L1 norm;   A (dA - A·dA) for the softmax
//! dS = d(Q·a) W + dX, times the slope of LeakyReLU
//! dG = sum_q d m_q w_q w_qᵀ,   dC = dS Q + 2 dG C,   dQ = dSᵀ C + Q_q d|Q_q| / n_q
//! ```
//! Where it is closed `d(Q·a)_q = g_q / 1e-8` and the norms have no gradient. Similarities are recomputed rather than kept.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    Aggregation, Attention, CrossAttention, EPS, Norm, Real, Relevance, SLOPE, Stack,
    kernel::{CONTEXT_BLOCK, QUERY_BLOCK, grams, norms, similarity},
    panel::{Context, Panel, Scratch, attend, dot, larger},
    real::vectorised,
};
use crate::linalg::gemm::{Mat, MatMut, gemm, gemm_serial};

/// Gradients of `sum(cotangent * scores)` with respect to the vectors of the contexts and of the queries; `cotangent` is
/// `[contexts.items(), queries.items()]`.
pub fn gradients<T: Real>(
    settings: &CrossAttention,
    contexts: Stack<'_, T>,
    queries: Stack<'_, T>,
    cotangent: &[T],
) -> (Vec<T>, Vec<T>) {
    let felt = cotangent.iter().filter(|&&g| g != T::ZERO).count();
    match felt * PICKED < cotangent.len() {
        true => of_picked(settings, contexts, queries, cotangent),
        false => of_all(settings, contexts, queries, cotangent),
    }
}

/// Pairs are picked out where of so many at most one has a gradient: a product over all of them runs at a higher rate.
const PICKED: usize = 6;

/// [`gradients`] by products of all contexts with all queries.
fn of_all<T: Real>(
    settings: &CrossAttention,
    contexts: Stack<'_, T>,
    queries: Stack<'_, T>,
    cotangent: &[T],
) -> (Vec<T>, Vec<T>) {
    let (width, dim) = (queries.vectors(), contexts.dim);
    let grams = grams(contexts);
    let asked = Asked::new(queries, norms(queries));
    let mut ds = vec![T::ZERO; contexts.vectors() * width];
    let mut radial = vec![T::ZERO; contexts.items() * width];
    let mut dc = vec![T::ZERO; contexts.vectors() * dim];

    let mut tasks = Vec::new();
    let (mut ds_rest, mut radial_rest, mut dc_rest) = (&mut ds[..], &mut radial[..], &mut dc[..]);
    for items in contexts.blocks(CONTEXT_BLOCK) {
        let block = contexts.slice(items.clone());
        let (ds, rest) = ds_rest.split_at_mut(block.vectors() * width);
        ds_rest = rest;
        let (radial, rest) = radial_rest.split_at_mut(items.len() * width);
        radial_rest = rest;
        let (dc, rest) = dc_rest.split_at_mut(block.vectors() * dim);
        dc_rest = rest;
        tasks.push((items, block, ds, radial, dc));
    }
    tasks.into_par_iter().for_each_init(Scratch::default, |scratch, (items, block, ds, radial, dc)| {
        similarity(block, queries, ds);
        for (i, item) in items.enumerate() {
            let span = block.span(i);
            let ds = &mut ds[span.start * width..span.end * width];
            let cotangent = &cotangent[item * queries.items()..][..queries.items()];
            let radial = &mut radial[i * width..][..width];
            let dg = asked.to_similarities(settings, &grams[item], cotangent, ds, radial, scratch);
            let (rows, dc) = (span.len(), &mut dc[span.start * dim..span.end * dim]);
            let item = Mat::new(block.item(i), rows, dim);
            gemm_serial(T::ONE, Mat::new(&dg, rows, rows), item, T::ZERO, MatMut::new(dc, rows, dim));
        }
        let rows = block.vectors();
        let asked = Mat::new(queries.data, width, dim);
        gemm_serial(T::ONE, Mat::new(ds, rows, width), asked, T::ONE, MatMut::new(dc, rows, dim));
    });

    let mut dq = vec![T::ZERO; width * dim];
    let all = Mat::new(contexts.data, contexts.vectors(), dim);
    gemm(T::ONE, Mat::new(&ds, contexts.vectors(), width).t(), all, T::ZERO, MatMut::new(&mut dq, width, dim));
    let mut total = vec![T::ZERO; width];
    for row in radial.chunks_exact(width) {
        total.iter_mut().zip(row).for_each(|(total, &x)| *total += x);
    }
    add_radial(&mut dq, queries.data, &total, dim);
    (dc, dq)
}

/// [`gradients`] of the pairs alone that have one: each context with those queries, side by side.
fn of_picked<T: Real>(
    settings: &CrossAttention,
    contexts: Stack<'_, T>,
    queries: Stack<'_, T>,
    cotangent: &[T],
) -> (Vec<T>, Vec<T>) {
    let dim = contexts.dim;
    let (grams, query_norms) = (grams(contexts), norms(queries));
    let of_item = |scratch: &mut Scratch<T>, item: usize| {
        let cotangent = &cotangent[item * queries.items()..][..queries.items()];
        let picked: Vec<usize> = (0..queries.items()).filter(|&query| cotangent[query] != T::ZERO).collect();
        let (mut offsets, mut data, mut lengths) = (vec![0], Vec::new(), Vec::new());
        for &query in &picked {
            let span = queries.span(query);
            data.extend_from_slice(queries.item(query));
            lengths.extend_from_slice(&query_norms[span.clone()]);
            offsets.push(offsets[offsets.len() - 1] + span.len());
        }
        let (near, width) = (Stack { dim, offsets: &offsets, data: &data }, lengths.len());
        let block = contexts.slice(item..item + 1);
        let rows = block.vectors();
        if picked.is_empty() {
            return (vec![T::ZERO; rows * dim], picked, Vec::new());
        }
        let (mut ds, mut radial) = (vec![T::ZERO; rows * width], vec![T::ZERO; width]);
        similarity(block, near, &mut ds);
        let cotangent: Vec<T> = picked.iter().map(|&query| cotangent[query]).collect();
        let asked = Asked::new(near, lengths);
        let dg = asked.to_similarities(settings, &grams[item], &cotangent, &mut ds, &mut radial, scratch);
        let (mut dc, mut dq) = (vec![T::ZERO; rows * dim], vec![T::ZERO; width * dim]);
        let (own, ds) = (Mat::new(block.data, rows, dim), Mat::new(&ds, rows, width));
        gemm_serial(T::ONE, Mat::new(&dg, rows, rows), own, T::ZERO, MatMut::new(&mut dc, rows, dim));
        gemm_serial(T::ONE, ds, Mat::new(&data, width, dim), T::ONE, MatMut::new(&mut dc, rows, dim));
        gemm_serial(T::ONE, ds.t(), own, T::ZERO, MatMut::new(&mut dq, width, dim));
        add_radial(&mut dq, &data, &radial, dim);
        (dc, picked, dq)
    };
    let parts: Vec<_> = (0..contexts.items()).into_par_iter().map_init(Scratch::default, of_item).collect();
    let mut dc = Vec::with_capacity(contexts.data.len());
    let mut dq = vec![T::ZERO; queries.data.len()];
    for (of_context, picked, of_queries) in parts {
        dc.extend(of_context);
        let mut rest = &of_queries[..];
        for query in picked {
            let span = queries.span(query);
            let (own, others) = rest.split_at(span.len() * dim);
            rest = others;
            dq[span.start * dim..span.end * dim].iter_mut().zip(own).for_each(|(sum, &x)| *sum += x);
        }
    }
    (dc, dq)
}

/// Adds `Q_q d|Q_q| / n_q`.
fn add_radial<T: Real>(dq: &mut [T], queries: &[T], radial: &[T], dim: usize) {
    for ((dq, q), &x) in dq.chunks_exact_mut(dim).zip(queries.chunks_exact(dim)).zip(radial) {
        dq.iter_mut().zip(q).for_each(|(dq, &q)| *dq += x * q);
    }
}

/// Queries that a context meets.
struct Asked<'a, T> {
    queries: Stack<'a, T>,
    norms: Vec<T>,
    blocks: Vec<Range<usize>>,
}

impl<'a, T: Real> Asked<'a, T> {
    fn new(queries: Stack<'a, T>, norms: Vec<T>) -> Self {
        Self { queries, norms, blocks: queries.blocks(QUERY_BLOCK) }
    }

    /// Similarities of one context's vectors, `ds [rows, vectors]`, become their gradients; `radial` becomes `d|Q| / |Q|`. What is returned
    /// is `2 dG`.
    fn to_similarities(
        &self,
        settings: &CrossAttention,
        gram: &[T],
        cotangent: &[T],
        ds: &mut [T],
        radial: &mut [T],
        scratch: &mut Scratch<T>,
    ) -> Vec<T> {
        let width = self.queries.vectors();
        let rows = ds.len() / width.max(1);
        let mut dg = vec![T::ZERO; gram.len()];
        for columns in &self.blocks {
            let asked = self.queries.slice(columns.clone());
            let first = self.queries.span(columns.start).start;
            let vectors = first..first + asked.vectors();
            let panel = Panel { rows, stride: width, segments: asked.offsets, norms: &self.norms[vectors.clone()] };
            let s = &mut ds[first..(rows - 1) * width + vectors.end];
            attend(&settings.attention, &panel, s, Context::Gram(gram), scratch);
            spread_scores(&settings.relevance, &panel, &cotangent[columns.clone()], scratch, &mut radial[vectors]);
            to_weights(panel.rows, panel.stride, s, scratch);
            accumulate_gram(rows, asked.vectors(), scratch, &mut dg);
            to_similarities(&settings.attention, &panel, s, scratch);
        }
        dg
    }
}

/// From the scores to `inner_grad = d(Q·a)`, `square_grad = 2 dm` and `radial = d|Q| / |Q|`.
fn spread_scores<T: Real>(
    settings: &Relevance,
    panel: &Panel<'_, T>,
    cotangent: &[T],
    scratch: &mut Scratch<T>,
    radial: &mut [T],
) {
    let (lambda, eps) = (T::of(settings.lambda_lse), T::of(EPS));
    for (j, &g) in cotangent.iter().enumerate() {
        let segment = panel.segment(j);
        let r = &scratch.relevance[segment.clone()];
        let dr = &mut scratch.inner_grad[segment.clone()];
        match settings.aggregation {
            Aggregation::LogSumExp => {
                let peak = r.iter().fold(r[0], |a, &b| larger(a, b));
                let mut total = T::ZERO;
                for (dr, &r) in dr.iter_mut().zip(r) {
                    *dr = (lambda * (r - peak)).exp();
                    total += *dr;
                }
                dr.iter_mut().for_each(|dr| *dr *= g / total);
            }
            Aggregation::Max => {
                // Of equal maxima the first gets all, as in PyTorch, which the released code is written in.
                let best = (1..r.len()).fold(0, |best, q| if r[q] > r[best] { q } else { best });
                dr.fill(T::ZERO);
                dr[best] = g;
            }
            Aggregation::Sum => dr.fill(g),
            Aggregation::Mean => dr.fill(g / T::of(r.len() as f64)),
        }
        for (i, q) in segment.enumerate() {
            let (norm, r, dr) = (panel.norms[q], r[i], dr[i]);
            let square = larger(scratch.square[q], T::ZERO);
            let product = norm * square.sqrt();
            let open = product >= eps;
            scratch.square_grad[q] = if open { T::ZERO - dr * r / square } else { T::ZERO };
            radial[q] = if open { T::ZERO - dr * r / (norm * norm) } else { T::ZERO };
            scratch.total[q] = dr / larger(product, eps);
        }
    }
    std::mem::swap(&mut scratch.total, &mut scratch.inner_grad);
}

/// `spread` becomes `dA / lambda`, as `W (dW - sum_c W dW)`.
fn to_weights<T: Real>(rows: usize, stride: usize, s: &[T], scratch: &mut Scratch<T>) {
    let Scratch { weights, spread, inner_grad, square_grad, total, .. } = scratch;
    softmax_gradient(rows, stride, s, weights, spread, inner_grad, square_grad, total);
}

vectorised! {
    fn softmax_gradient<T: Real>(
        rows: usize,
        stride: usize,
        s: &[T],
        w: &[T],
        spread: &mut [T],
        inner_grad: &[T],
        square_grad: &[T],
        total: &mut [T],
    ) {
        let width = total.len();
        total.fill(T::ZERO);
        for row in 0..rows {
            let (s, w, h) = (&s[row * stride..][..width], &w[row * width..][..width], &mut spread[row * width..][..width]);
            for q in 0..width {
                h[q] = inner_grad[q] * s[q] + square_grad[q] * h[q];
                total[q] += w[q] * h[q];
            }
        }
        for (w, h) in w.chunks_exact(width).zip(spread.chunks_exact_mut(width)) {
            for q in 0..width {
                h[q] = w[q] * (h[q] - total[q]);
            }
        }
    }
}

/// `dg += W diag(2 dm) Wᵀ`, which is symmetric and already doubled.
fn accumulate_gram<T: Real>(rows: usize, width: usize, scratch: &mut Scratch<T>, dg: &mut [T]) {
    scratch.built.resize(rows * width, T::ZERO);
    for (scaled, w) in scratch.built.chunks_exact_mut(width).zip(scratch.weights.chunks_exact(width)) {
        for ((scaled, &w), &x) in scaled.iter_mut().zip(w).zip(&scratch.square_grad) {
            *scaled = w * x;
        }
    }
    let scaled = Mat::new(&scratch.built, rows, width);
    let weights = Mat::new(&scratch.weights, rows, width).t();
    gemm_serial(T::ONE, scaled, weights, T::ONE, MatMut::new(dg, rows, rows));
}

/// `s` becomes `dS`.
fn to_similarities<T: Real>(settings: &Attention, panel: &Panel<'_, T>, s: &mut [T], scratch: &Scratch<T>) {
    normalise_gradient(
        settings.norm,
        T::of(settings.lambda_softmax),
        panel,
        s,
        &scratch.normalised,
        &scratch.row_norms,
        &scratch.weights,
        &scratch.spread,
        &scratch.inner_grad,
    );
}

vectorised! {
    fn normalise_gradient<T: Real>(
        norm: Norm,
        lambda: T,
        panel: &Panel<'_, T>,
        s: &mut [T],
        a: &[T],
        row_norms: &[T],
        w: &[T],
        spread: &[T],
        inner_grad: &[T],
    ) {
        let (width, items) = (panel.width(), panel.items());
        let (slope, eps) = (T::of(SLOPE), T::of(EPS));
        for row in 0..panel.rows {
            let s = &mut s[row * panel.stride..][..width];
            let (a, w, da) = (&a[row * width..][..width], &w[row * width..][..width], &spread[row * width..][..width]);
            let slope_of = |s: T| if norm.clips() && s <= T::ZERO { slope } else { T::ONE };
            match norm {
                Norm::Clipped | Norm::NoNorm => {
                    for q in 0..width {
                        s[q] = inner_grad[q] * w[q] + lambda * da[q] * slope_of(s[q]);
                    }
                }
                _ => {
                    for j in 0..items {
                        let segment = panel.segment(j);
                        let (s, a, w) = (&mut s[segment.clone()], &a[segment.clone()], &w[segment.clone()]);
                        let (da, inner_grad) = (&da[segment.clone()], &inner_grad[segment]);
                        let along = dot(a, da);
                        let row_norm = row_norms[row * items + j];
                        match norm {
                            Norm::L2norm | Norm::ClippedL2norm => {
                                let scale = lambda / (row_norm + eps);
                                let along = if row_norm > T::ZERO { along * (row_norm + eps) / row_norm } else { T::ZERO };
                                for q in 0..s.len() {
                                    let dx = (da[q] - a[q] * along) * scale;
                                    s[q] = inner_grad[q] * w[q] + dx * slope_of(s[q]);
                                }
                            }
                            Norm::L1norm | Norm::ClippedL1norm => {
                                let scale = lambda / (row_norm + eps);
                                for q in 0..s.len() {
                                    let signed = if s[q] > T::ZERO {
                                        along
                                    } else if s[q] < T::ZERO {
                                        T::ZERO - along
                                    } else {
                                        T::ZERO
                                    };
                                    s[q] = inner_grad[q] * w[q] + (da[q] - signed) * scale * slope_of(s[q]);
                                }
                            }
                            _ => {
                                for q in 0..s.len() {
                                    s[q] = inner_grad[q] * w[q] + lambda * a[q] * (da[q] - along);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use xmbench_datasets::random::Seed;

    use super::{super::Direction, *};

    #[test]
    fn picked_pairs_have_the_gradients_that_all_pairs_have() {
        let mut stream = Seed(3).stream(&["picked"]);
        let dim = 7;
        let mut stack = |counts: &[usize]| {
            let offsets: Vec<usize> = std::iter::once(0)
                .chain(counts.iter().scan(0, |end, n| {
                    *end += n;
                    Some(*end)
                }))
                .collect();
            let data: Vec<f64> = (0..offsets[counts.len()] * dim).map(|_| stream.normal()).collect();
            (offsets, data)
        };
        let ((a, contexts), (b, queries)) = (stack(&[3, 1, 4, 2, 5]), stack(&[2, 6, 1, 3]));
        let contexts = Stack { dim, offsets: &a, data: &contexts };
        let queries = Stack { dim, offsets: &b, data: &queries };
        // Two queries of one context, one query of two, and a context without any.
        let mut cotangent = vec![0.0; 20];
        for (at, value) in [(1, 0.5), (3, -1.5), (5, 2.0), (18, 0.25)] {
            cotangent[at] = value;
        }
        for norm in [Norm::ClippedL2norm, Norm::L1norm, Norm::Softmax, Norm::NoNorm] {
            for aggregation in [Aggregation::LogSumExp, Aggregation::Mean, Aggregation::Max] {
                let settings = CrossAttention {
                    direction: Direction::T2i,
                    attention: Attention { norm, lambda_softmax: 4.0 },
                    relevance: Relevance { aggregation, lambda_lse: 6.0 },
                };
                let all = of_all(&settings, contexts, queries, &cotangent);
                let picked = of_picked(&settings, contexts, queries, &cotangent);
                for (all, picked) in [(all.0, picked.0), (all.1, picked.1)] {
                    assert_eq!(all.len(), picked.len());
                    assert!(all.iter().any(|x| x.abs() > 1e-3));
                    for (x, y) in all.iter().zip(&picked) {
                        assert!((x - y).abs() < 1e-12, "{norm:?} {aggregation:?}: {x} and {y}");
                    }
                }
            }
        }
    }
}
