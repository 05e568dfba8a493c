//! Equations (2) to (7) for one context item against many query vectors at once.

use std::ops::Range;

use super::{Aggregation, Attention, EPS, Norm, Real, Relevance, SLOPE, Stack, real::vectorised};
use crate::linalg::gemm::{Mat, MatMut, gemm_serial};

/// One context item against a block of query items.
pub(super) struct Panel<'a, T> {
    /// Vectors of the context item.
    pub rows: usize,
    /// Distance of two rows of similarities.
    pub stride: usize,
    /// Query items: item `j` owns columns `segments[j] - segments[0]..segments[j + 1] - segments[0]`.
    pub segments: &'a [usize],
    /// L2 norm of every query vector.
    pub norms: &'a [T],
}

impl<T> Panel<'_, T> {
    pub fn width(&self) -> usize {
        self.norms.len()
    }

    pub fn items(&self) -> usize {
        self.segments.len() - 1
    }

    #[inline(always)]
    pub fn segment(&self, j: usize) -> Range<usize> {
        self.segments[j] - self.segments[0]..self.segments[j + 1] - self.segments[0]
    }
}

/// Where the norm of an attended vector comes from.
pub(super) enum Context<'a, T> {
    /// The context item's Gram matrix.
    Gram(&'a [T]),
    /// The context item's vectors, and the queries to compare what is built from them with.
    Direct(&'a [T], Stack<'a, T>),
}

/// What the passes over one panel leave behind; `[rows, width]` or `[width]`.
#[derive(Default)]
pub(super) struct Scratch<T> {
    /// Equation (2), and the norm of each row and query item before dividing.
    pub normalised: Vec<T>,
    pub row_norms: Vec<T>,
    /// Equation (3).
    pub weights: Vec<T>,
    /// `G W`.
    pub spread: Vec<T>,
    /// Equation (4), when built.
    pub built: Vec<T>,
    /// `Q_q · a_q`, `|a_q|²` and equation (5).
    pub inner: Vec<T>,
    pub square: Vec<T>,
    pub relevance: Vec<T>,
    pub peak: Vec<T>,
    pub total: Vec<T>,
    /// For the way back.
    pub inner_grad: Vec<T>,
    pub square_grad: Vec<T>,
}

impl<T: Real> Scratch<T> {
    pub(super) fn fit(&mut self, rows: usize, width: usize, items: usize) {
        for buffer in [&mut self.normalised, &mut self.weights, &mut self.spread] {
            buffer.resize(rows * width, T::ZERO);
        }
        self.row_norms.resize(rows * items, T::ZERO);
        for buffer in [
            &mut self.inner,
            &mut self.square,
            &mut self.relevance,
            &mut self.peak,
            &mut self.total,
            &mut self.inner_grad,
            &mut self.square_grad,
        ] {
            buffer.resize(width, T::ZERO);
        }
    }
}

/// Equations (2) to (5) for one panel of similarities.
pub(super) fn attend<T: Real>(
    settings: &Attention,
    panel: &Panel<'_, T>,
    s: &[T],
    context: Context<'_, T>,
    scratch: &mut Scratch<T>,
) {
    let (rows, width) = (panel.rows, panel.width());
    scratch.fit(rows, width, panel.items());
    normalise(settings.norm, panel, s, &mut scratch.normalised, &mut scratch.row_norms);
    soften(
        T::of(settings.lambda_softmax),
        &scratch.normalised[..rows * width],
        &mut scratch.weights[..rows * width],
        &mut scratch.peak,
        &mut scratch.total,
    );
    match context {
        Context::Gram(gram) => {
            let weights = Mat::new(&scratch.weights, rows, width);
            let spread = MatMut::new(&mut scratch.spread, rows, width);
            gemm_serial(T::ONE, Mat::new(gram, rows, rows), weights, T::ZERO, spread);
            project(panel, s, &scratch.weights, &scratch.spread, &mut scratch.inner, &mut scratch.square);
        }
        Context::Direct(vectors, queries) => {
            let dim = queries.dim;
            scratch.built.resize(width * dim, T::ZERO);
            let weights = Mat::new(&scratch.weights, rows, width).t();
            let built = MatMut::new(&mut scratch.built, width, dim);
            gemm_serial(T::ONE, weights, Mat::new(vectors, rows, dim), T::ZERO, built);
            let asked = &queries.data[..width * dim];
            compare(dim, &scratch.built[..width * dim], asked, &mut scratch.inner, &mut scratch.square);
        }
    }
    relate(panel, &scratch.inner, &scratch.square, &mut scratch.relevance);
}

const LANES: usize = 8;

/// Sum of `f(x)` in a fixed order that vector units can follow.
#[inline(always)]
fn sum<T: Real>(values: &[T], f: impl Fn(T) -> T) -> T {
    let mut lanes = [T::ZERO; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f(x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane += f(x);
    }
    ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]))
}

#[inline(always)]
pub(super) fn sum_squares<T: Real>(values: &[T]) -> T {
    sum(values, |x| x * x)
}

#[inline(always)]
pub(super) fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    let mut lanes = [T::ZERO; LANES];
    let (chunks, others) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (rest, other_rest) = (chunks.remainder(), others.remainder());
    for (chunk, other) in chunks.zip(others) {
        for i in 0..LANES {
            lanes[i] += chunk[i] * other[i];
        }
    }
    for (lane, (&x, &y)) in lanes.iter_mut().zip(rest.iter().zip(other_rest)) {
        *lane += x * y;
    }
    ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]))
}

#[inline(always)]
pub(super) fn larger<T: Real>(a: T, b: T) -> T {
    if b > a { b } else { a }
}

/// Rows whose segments are summed together: the sums are short chains of additions, and several at once hide their latency.
const TOGETHER: usize = 4;

/// `sum f(x)` over the columns `segment` of `N` rows that lie `stride` apart.
#[inline(always)]
fn segment_sums<T: Real, const N: usize>(
    values: &[T],
    stride: usize,
    segment: Range<usize>,
    f: impl Fn(T) -> T,
) -> [T; N] {
    let rows: [&[T]; N] = std::array::from_fn(|row| &values[row * stride..][segment.clone()]);
    let mut sums = [T::ZERO; N];
    for q in 0..segment.len() {
        for (sum, row) in sums.iter_mut().zip(&rows) {
            *sum += f(row[q]);
        }
    }
    sums
}

/// `sum f(x)` over every segment of every row of `values [rows, width]`, into `out [rows, items]`.
#[inline(always)]
fn sums<T: Real>(panel: &Panel<'_, T>, values: &[T], out: &mut [T], f: impl Fn(T) -> T) {
    let (width, items) = (panel.width(), panel.items());
    for row in (0..panel.rows).step_by(TOGETHER) {
        let values = &values[row * width..];
        for j in 0..items {
            if row + TOGETHER <= panel.rows {
                let found: [T; TOGETHER] = segment_sums(values, width, panel.segment(j), &f);
                for (i, &x) in found.iter().enumerate() {
                    out[(row + i) * items + j] = x;
                }
            } else {
                for i in 0..panel.rows - row {
                    let [x] = segment_sums(&values[i * width..], width, panel.segment(j), &f);
                    out[(row + i) * items + j] = x;
                }
            }
        }
    }
}

/// Multiplies every segment of every row of `values [rows, width]` by its own factor.
#[inline(always)]
fn scale<T: Real>(panel: &Panel<'_, T>, values: &mut [T], factor: impl Fn(usize) -> T) {
    let (width, items) = (panel.width(), panel.items());
    for row in 0..panel.rows {
        let values = &mut values[row * width..][..width];
        for j in 0..items {
            let factor = factor(row * items + j);
            values[panel.segment(j)].iter_mut().for_each(|x| *x *= factor);
        }
    }
}

vectorised! {
    /// Equation (2).
    pub(super) fn normalise<T: Real>(norm: Norm, panel: &Panel<'_, T>, s: &[T], out: &mut [T], row_norms: &mut [T]) {
        let (width, items) = (panel.width(), panel.items());
        let (slope, eps) = (T::of(SLOPE), T::of(EPS));
        for (row, out) in out.chunks_exact_mut(width).take(panel.rows).enumerate() {
            let source = &s[row * panel.stride..][..width];
            if norm.clips() {
                for (y, &x) in out.iter_mut().zip(source) {
                    *y = if x > T::ZERO { x } else { slope * x };
                }
            } else {
                out.copy_from_slice(source);
            }
        }
        let row_norms = &mut row_norms[..panel.rows * items];
        match norm {
            Norm::Clipped | Norm::NoNorm => {}
            Norm::L2norm | Norm::ClippedL2norm => {
                sums(panel, out, row_norms, |x| x * x);
                row_norms.iter_mut().for_each(|x| *x = x.sqrt());
                scale(panel, out, |i| T::ONE / (row_norms[i] + eps));
            }
            Norm::L1norm | Norm::ClippedL1norm => {
                sums(panel, out, row_norms, T::abs);
                scale(panel, out, |i| T::ONE / (row_norms[i] + eps));
            }
            Norm::Softmax => {
                for row in out.chunks_exact_mut(width).take(panel.rows) {
                    for j in 0..items {
                        let part = &mut row[panel.segment(j)];
                        let peak = part.iter().fold(part[0], |a, &b| larger(a, b));
                        part.iter_mut().for_each(|x| *x = (*x - peak).exp());
                    }
                }
                sums(panel, out, row_norms, |x| x);
                scale(panel, out, |i| T::ONE / row_norms[i]);
            }
        }
    }
}

vectorised! {
    /// Equation (3).
    fn soften<T: Real>(lambda: T, a: &[T], w: &mut [T], peak: &mut [T], total: &mut [T]) {
        let width = peak.len();
        peak.copy_from_slice(&a[..width]);
        for row in a.chunks_exact(width).skip(1) {
            for (peak, &x) in peak.iter_mut().zip(row) {
                *peak = larger(*peak, x);
            }
        }
        total.fill(T::ZERO);
        for (w, a) in w.chunks_exact_mut(width).zip(a.chunks_exact(width)) {
            for ((w, &a), (total, &peak)) in w.iter_mut().zip(a).zip(total.iter_mut().zip(peak.iter())) {
                *w = (lambda * (a - peak)).exp();
                *total += *w;
            }
        }
        total.iter_mut().for_each(|x| *x = T::ONE / *x);
        for w in w.chunks_exact_mut(width) {
            for (w, &inverse) in w.iter_mut().zip(total.iter()) {
                *w *= inverse;
            }
        }
    }
}

vectorised! {
    /// `Q_q · a_q` and `|a_q|²` from attended vectors.
    fn compare<T: Real>(dim: usize, built: &[T], queries: &[T], inner: &mut [T], square: &mut [T]) {
        for (q, (built, query)) in built.chunks_exact(dim).zip(queries.chunks_exact(dim)).enumerate() {
            inner[q] = dot(built, query);
            square[q] = sum_squares(built);
        }
    }
}

vectorised! {
    /// Equation (7).
    pub(super) fn project<T: Real>(panel: &Panel<'_, T>, s: &[T], w: &[T], spread: &[T], inner: &mut [T], square: &mut [T]) {
        let width = panel.width();
        inner.fill(T::ZERO);
        square.fill(T::ZERO);
        for row in 0..panel.rows {
            let (s, w, h) = (&s[row * panel.stride..][..width], &w[row * width..][..width], &spread[row * width..][..width]);
            for q in 0..width {
                inner[q] += w[q] * s[q];
                square[q] += w[q] * h[q];
            }
        }
    }
}

vectorised! {
    /// Equation (5).
    pub(super) fn relate<T: Real>(panel: &Panel<'_, T>, inner: &[T], square: &[T], relevance: &mut [T]) {
        let eps = T::of(EPS);
        for ((r, &norm), (&inner, &square)) in relevance.iter_mut().zip(panel.norms).zip(inner.iter().zip(square)) {
            // Rounding may leave a square slightly below zero.
            let product = norm * larger(square, T::ZERO).sqrt();
            *r = inner / larger(product, eps);
        }
    }
}

/// Equation (6).
pub(super) fn aggregate<T: Real>(settings: &Relevance, panel: &Panel<'_, T>, relevance: &[T], out: &mut [T]) {
    let lambda = T::of(settings.lambda_lse);
    for (j, out) in out.iter_mut().enumerate() {
        let r = &relevance[panel.segment(j)];
        *out = match settings.aggregation {
            Aggregation::LogSumExp => {
                let peak = r.iter().fold(r[0], |a, &b| larger(a, b));
                peak + sum(r, |x| (lambda * (x - peak)).exp()).ln() / lambda
            }
            // What is not a number must reach the score.
            Aggregation::Max => r.iter().fold(r[0], |a, &b| if b > a || b.partial_cmp(&b).is_none() { b } else { a }),
            Aggregation::Sum => sum(r, |x| x),
            Aggregation::Mean => sum(r, |x| x) / T::of(r.len() as f64),
        };
    }
}
