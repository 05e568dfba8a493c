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
    let (width, dim) = (queries.vectors(), contexts.dim);
    let query_norms = norms(queries);
    let grams = grams(contexts);
    let query_blocks = queries.blocks(QUERY_BLOCK);
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
            let rows = span.len();
            let mut dg = vec![T::ZERO; rows * rows];
            for columns in &query_blocks {
                let asked = queries.slice(columns.clone());
                let first = queries.span(columns.start).start;
                let panel = Panel {
                    rows,
                    stride: width,
                    segments: asked.offsets,
                    norms: &query_norms[first..first + asked.vectors()],
                };
                let s = &mut ds[span.start * width + first..(span.end - 1) * width + first + asked.vectors()];
                attend(&settings.attention, &panel, s, Context::Gram(&grams[item]), scratch);
                let cotangent = &cotangent[item * queries.items() + columns.start..][..columns.len()];
                let radial = &mut radial[i * width + first..][..asked.vectors()];
                spread_scores(&settings.relevance, &panel, cotangent, scratch, radial);
                to_weights(panel.rows, panel.stride, s, scratch);
                accumulate_gram(rows, asked.vectors(), scratch, &mut dg);
                to_similarities(&settings.attention, &panel, s, scratch);
            }
            let item = Mat::new(block.item(i), rows, dim);
            let dc = &mut dc[span.start * dim..span.end * dim];
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
    for ((dq, q), &x) in dq.chunks_exact_mut(dim).zip(queries.data.chunks_exact(dim)).zip(&total) {
        dq.iter_mut().zip(q).for_each(|(dq, &q)| *dq += x * q);
    }
    (dc, dq)
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
