//! Equations (2), (3), (4) and (7) of the [module](super) on tensors of the CPU, each as one operation with its gradient.
//!
//! Composed of tensor operations they make a dozen passes over `[N, M, q, c]`, of which exponentials, maxima and sums are not
//! vector code. Here a pair's block `[q, c]` stays in the cache from the first pass to the last. With `W` the weights, `A` what (2)
//! gives, `X` what it is given and `N` its norm:
//! ```text
//! dL = W (dW - sum_c W dW)                                       for L = lambda A, and for logits L
//! dX = (dA - A (A·dA) (N + eps) / N) / (N + eps)                 L2, sums along q;  the first term alone below the floor of N
//! dX = (dA - sign(X) (A·dA)) / (N + eps)                         L1
//! dX = A (dA - A·dA)                                             softmax
//! dS = g W,  dW = g S + 2 h W G,  dG = sum_q h w_q w_qᵀ           (7), g and h being the gradients of Q·a and |a|²
//! ```
//! Blocks are independent, and what is summed over them is summed in their order: the bits do not depend on the number of threads.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::{Attention, EPS, Norm, Real, SLOPE, panel::dot, real::vectorised};
use crate::nn::real::{contiguous, with};

mod products;

pub(super) use products::{attended_plus, project};

/// Least norm, as [`super::floored_root`] has it.
const LEAST: f64 = 1e-15;
/// Values that a task takes at least.
const TASK: usize = 1 << 14;

/// So many items of so many values that a task has work.
fn least(values: usize) -> usize {
    TASK.div_ceil(values.max(1))
}

/// A mask of the rows, or of the values, of blocks `[q, c]`.
#[derive(Clone)]
struct Mask {
    data: Vec<u8>,
    /// Distance from one context item, query item and query to the next; 0 where they share.
    strides: [usize; 3],
}

impl Mask {
    /// `[N or 1, M or 1, q or 1, c or 1]`, whose last dimension becomes `width`.
    fn new(mask: &Tensor, shape: [usize; 3], width: usize) -> candle_core::Result<Self> {
        mask.broadcast_as(&[shape[0], shape[1], shape[2], width][..])?;
        let mut dims = vec![1; 4 - mask.rank()];
        dims.extend(mask.dims());
        let wide = mask.reshape(dims.as_slice())?.broadcast_as((dims[0], dims[1], dims[2], width))?;
        let data = wide.to_dtype(DType::U8)?.contiguous()?.flatten_all()?.to_vec1()?;
        let (row, item) = (width, dims[2] * width);
        let stride = |at: usize, stride: usize| if dims[at] == 1 { 0 } else { stride };
        Ok(Self { data, strides: [stride(0, dims[1] * item), stride(1, item), stride(2, row)] })
    }

    /// Where the block of a pair begins.
    fn of(&self, context: usize, query: usize) -> &[u8] {
        &self.data[context * self.strides[0] + query * self.strides[1]..]
    }
}

/// Equations (2) and (3): weights from similarities.
struct Weigh {
    rule: Rule,
    /// Rows that count, in the last dimension of `[N or 1, M, 1, q]`.
    asked: Option<Mask>,
    seen: Option<Mask>,
}

/// How values become weights.
#[derive(Clone, Copy)]
pub(super) struct Rule {
    /// Equation (2), and the factor of (3).
    pub attention: Attention,
    /// Whether values are divided by `max(N, 1e-12)` rather than by `N + 1e-8`; a column of zeros then has no gradient.
    pub floored: bool,
    /// Whether values above 0 alone have weights, in whose sum stands 1e-8 besides; for [`Norm::NoNorm`].
    pub positive: bool,
}

impl Rule {
    /// The softmax of logits.
    pub(super) const PLAIN: Self =
        Self { attention: Attention { norm: Norm::NoNorm, lambda_softmax: 1.0 }, floored: false, positive: false };

    /// What is added to a norm, and the least one.
    #[inline(always)]
    fn below<T: Real>(self) -> (T, T) {
        if self.floored { (T::ZERO, T::of(1e-12)) } else { (T::of(EPS), T::of(LEAST)) }
    }
}

/// [`Attention::weights`] and its kin on the CPU.
pub(super) fn weigh(
    rule: Rule,
    s: &Tensor,
    asked: Option<&Tensor>,
    seen: Option<&Tensor>,
) -> candle_core::Result<Tensor> {
    let (n, m, q, c) = s.dims4()?;
    let asked = asked.map(|asked| Mask::new(&asked.unsqueeze(2)?, [n, m, 1], q)).transpose()?;
    let seen = seen.map(|seen| Mask::new(seen, [n, m, q], c)).transpose()?;
    s.contiguous()?.apply_op1(Weigh { rule, asked, seen })
}

/// The masks of one block.
#[derive(Clone, Copy)]
struct Masks<'a> {
    asked: Option<&'a [u8]>,
    seen: Option<(&'a [u8], usize)>,
}

impl Masks<'_> {
    #[inline(always)]
    fn asked(&self, row: usize) -> bool {
        self.asked.is_none_or(|asked| asked[row] != 0)
    }
}

impl Weigh {
    fn masks(&self, block: usize, queries: usize) -> Masks<'_> {
        let (context, query) = (block / queries, block % queries);
        Masks {
            asked: self.asked.as_ref().map(|mask| mask.of(context, query)),
            seen: self.seen.as_ref().map(|mask| (mask.of(context, query), mask.strides[2])),
        }
    }

    fn forward<T: Real>(&self, s: &[T], [_, m, q, c]: [usize; 4]) -> Vec<T> {
        let mut w = vec![T::ZERO; s.len()];
        if w.is_empty() {
            return w;
        }
        let blocks = w.par_chunks_mut(q * c).zip(s.par_chunks(q * c)).enumerate().with_min_len(least(q * c));
        blocks.for_each_init(
            || (vec![T::ZERO; 2 * c], vec![T::ZERO; q]),
            |(columns, peaks), (block, (w, s))| weights(self.rule, c, s, self.masks(block, m), w, columns, peaks),
        );
        w
    }

    fn backward<T: Real>(&self, s: &[T], w: &[T], dw: &[T], [_, m, q, c]: [usize; 4]) -> Vec<T> {
        let mut ds = vec![T::ZERO; s.len()];
        if ds.is_empty() {
            return ds;
        }
        let blocks =
            ds.par_chunks_mut(q * c).zip(s.par_chunks(q * c)).zip(w.par_chunks(q * c).zip(dw.par_chunks(q * c)));
        blocks.enumerate().with_min_len(least(q * c)).for_each_init(
            || (vec![T::ZERO; 2 * c], vec![T::ZERO; q * c]),
            |(columns, a), (block, ((ds, s), (w, dw)))| {
                gradient(self.rule, c, s, self.masks(block, m), [w, dw], a, ds, columns);
            },
        );
        ds
    }
}

impl CustomOp1 for Weigh {
    fn name(&self) -> &'static str {
        "attention weights"
    }

    fn cpu_fwd(&self, s: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let shape: [usize; 4] = layout.shape().dims4()?.into();
        let w = match s {
            CpuStorage::F32(s) => CpuStorage::F32(self.forward(contiguous(s, layout)?, shape)),
            CpuStorage::F64(s) => CpuStorage::F64(self.forward(contiguous(s, layout)?, shape)),
            _ => candle_core::bail!("attention weights: expected f32 or f64"),
        };
        Ok((w, layout.shape().clone()))
    }

    fn bwd(&self, s: &Tensor, w: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let (shape, grad) = (s.dims4()?.into(), grad.contiguous()?);
        let s = s.contiguous()?;
        crate::nn::real::dispatch!(s.dtype(), T => {
            let ds = with(&s, |s| with(w, |w| with(&grad, |grad| Ok(self.backward::<T>(s, w, grad, shape)))))?;
            Ok(Some(Tensor::from_vec(ds, grad.shape(), grad.device())?))
        })
    }
}

/// Values that are compared or summed side by side.
const LANES: usize = 8;

#[inline(always)]
fn larger<T: Real>(a: T, b: T) -> T {
    if b > a { b } else { a }
}

/// The largest of `row` and `floor`.
#[inline(always)]
fn peak<T: Real>(row: &[T], floor: T) -> T {
    let mut lanes = [floor; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = larger(*lane, x);
    }
    lanes.into_iter().fold(floor, |a, b| larger(a, b))
}

#[inline(always)]
fn sum<T: Real>(row: &[T]) -> T {
    let mut lanes = [T::ZERO; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += x;
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane += x;
    }
    ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]))
}

/// Equation (2) of a block in place; the first half of `columns` becomes the norms.
#[inline(always)]
fn normalise<T: Real>(rule: Rule, c: usize, masks: &Masks<'_>, x: &mut [T], columns: &mut [T]) {
    let (norm, slope, (eps, least)) = (rule.attention.norm, T::of(SLOPE), rule.below());
    if norm.clips() {
        for x in x.iter_mut() {
            *x = if *x > T::ZERO { *x } else { slope * *x };
        }
    }
    if matches!(norm, Norm::Clipped | Norm::NoNorm) {
        return;
    }
    let (totals, factors) = columns.split_at_mut(c);
    match norm {
        Norm::Clipped | Norm::NoNorm => {}
        Norm::L2norm | Norm::ClippedL2norm => {
            totals.fill(T::ZERO);
            for (i, row) in x.chunks_exact_mut(c).enumerate() {
                if !masks.asked(i) {
                    row.fill(T::ZERO);
                }
                totals.iter_mut().zip(row).for_each(|(total, x)| *total += *x * *x);
            }
            for (factor, total) in factors.iter_mut().zip(totals) {
                *total = total.sqrt();
                *factor = T::ONE / (if *total < least { least } else { *total } + eps);
            }
        }
        Norm::L1norm | Norm::ClippedL1norm => {
            totals.fill(T::ZERO);
            for (i, row) in x.chunks_exact_mut(c).enumerate() {
                if !masks.asked(i) {
                    row.fill(T::ZERO);
                }
                totals.iter_mut().zip(row).for_each(|(total, x)| *total += x.abs());
            }
            factors.iter_mut().zip(totals).for_each(|(factor, total)| *factor = T::ONE / (*total + eps));
        }
        Norm::Softmax => {
            totals.fill(T::of(LOW));
            for (i, row) in x.chunks_exact(c).enumerate() {
                if masks.asked(i) {
                    totals.iter_mut().zip(row).for_each(|(total, &x)| *total = larger(*total, x));
                }
            }
            for row in x.chunks_exact_mut(c) {
                row.iter_mut().zip(&*totals).for_each(|(x, &peak)| *x = (*x - peak).exp());
            }
            totals.fill(T::ZERO);
            for (i, row) in x.chunks_exact_mut(c).enumerate() {
                if !masks.asked(i) {
                    row.fill(T::ZERO);
                }
                totals.iter_mut().zip(row).for_each(|(total, x)| *total += *x);
            }
            factors.iter_mut().zip(totals).for_each(|(factor, total)| *factor = inverse(*total));
        }
    }
    for row in x.chunks_exact_mut(c) {
        row.iter_mut().zip(&*factors).for_each(|(x, &factor)| *x *= factor);
    }
}

/// One over a sum of exponentials, which is at least 1, or 0 where everything is left out.
#[inline(always)]
fn inverse<T: Real>(total: T) -> T {
    let half = T::of(0.5);
    T::ONE / if total < half { half } else { total }
}

/// A finite number below all others.
const LOW: f64 = -1e30;

vectorised! {
    /// Equations (2) and (3) of a block `[q, c]`.
    fn weights<T: Real>(
        rule: Rule,
        c: usize,
        s: &[T],
        masks: Masks<'_>,
        w: &mut [T],
        columns: &mut [T],
        peaks: &mut [T],
    ) {
        let (low, lambda) = (T::of(LOW), T::of(rule.attention.lambda_softmax));
        w.copy_from_slice(s);
        normalise(rule, c, &masks, w, columns);
        for (i, (row, top)) in w.chunks_exact_mut(c).zip(peaks.iter_mut()).enumerate() {
            row.iter_mut().for_each(|x| *x *= lambda);
            if let Some((seen, stride)) = masks.seen {
                for (x, &seen) in row.iter_mut().zip(&seen[i * stride..][..c]) {
                    *x = if seen == 0 { low } else { *x };
                }
            }
            // Not below 0, so that the small constant keeps its place where nothing is large.
            *top = peak(row, if rule.positive { T::ZERO } else { low });
            if rule.positive {
                row.iter_mut().for_each(|x| *x = if *x > T::ZERO { *x } else { low });
            }
            let top = *top;
            row.iter_mut().for_each(|x| *x -= top);
        }
        // What was left out is far below its peak, or nothing is left and the sum says so.
        w.iter_mut().for_each(|x| *x = if *x <= T::of(0.5 * LOW) { T::ZERO } else { x.exp() });
        for (i, (row, &top)) in w.chunks_exact_mut(c).zip(peaks.iter()).enumerate() {
            if let Some((seen, stride)) = masks.seen {
                for (x, &seen) in row.iter_mut().zip(&seen[i * stride..][..c]) {
                    *x = if seen == 0 { T::ZERO } else { *x };
                }
            }
            let total = sum(row);
            let inverse = if rule.positive { T::ONE / (total + T::of(EPS) * (T::ZERO - top).exp()) } else { inverse(total) };
            row.iter_mut().for_each(|x| *x *= inverse);
        }
    }
}

vectorised! {
    /// The gradient of [`weights`] by the block of similarities.
    fn gradient<T: Real>(
        rule: Rule,
        c: usize,
        s: &[T],
        masks: Masks<'_>,
        given: [&[T]; 2],
        a: &mut [T],
        ds: &mut [T],
        columns: &mut [T],
    ) {
        let [w, dw] = given;
        let (norm, lambda, slope) = (rule.attention.norm, T::of(rule.attention.lambda_softmax), T::of(SLOPE));
        let (eps, least) = rule.below::<T>();
        for (ds, (w, dw)) in ds.chunks_exact_mut(c).zip(w.chunks_exact(c).zip(dw.chunks_exact(c))) {
            let along = dot(w, dw);
            for (ds, (&w, &dw)) in ds.iter_mut().zip(w.iter().zip(dw)) {
                *ds = lambda * (w * (dw - along));
            }
        }
        if !matches!(norm, Norm::Clipped | Norm::NoNorm) {
            a.copy_from_slice(s);
            normalise(rule, c, &masks, a, columns);
            let (norms, along) = columns.split_at_mut(c);
            along.fill(T::ZERO);
            for (i, (ds, a)) in ds.chunks_exact_mut(c).zip(a.chunks_exact(c)).enumerate() {
                if !masks.asked(i) {
                    ds.fill(T::ZERO);
                }
                for (along, (&ds, &a)) in along.iter_mut().zip(ds.iter().zip(a)) {
                    *along += a * ds;
                }
            }
            let rows = ds.chunks_exact_mut(c).zip(a.chunks_exact(c).zip(s.chunks_exact(c)));
            match norm {
                Norm::L2norm | Norm::ClippedL2norm => {
                    for (along, norm) in along.iter_mut().zip(norms.iter_mut()) {
                        let below = if *norm < least { least } else { *norm } + eps;
                        *along = if *norm <= least { T::ZERO } else { *along * (below / *norm) };
                        *norm = if rule.floored && *norm == T::ZERO { T::ZERO } else { T::ONE / below };
                    }
                    for (ds, (a, _)) in rows {
                        for (ds, (&a, (&along, &scale))) in ds.iter_mut().zip(a.iter().zip(along.iter().zip(norms.iter()))) {
                            *ds = (*ds - a * along) * scale;
                        }
                    }
                }
                Norm::L1norm | Norm::ClippedL1norm => {
                    norms.iter_mut().for_each(|norm| *norm = T::ONE / (*norm + eps));
                    for (i, (ds, (_, s))) in rows.enumerate() {
                        let counts = masks.asked(i);
                        for (ds, (&s, (&along, &scale))) in ds.iter_mut().zip(s.iter().zip(along.iter().zip(norms.iter()))) {
                            let signed = if s > T::ZERO {
                                along
                            } else if s < T::ZERO {
                                T::ZERO - along
                            } else {
                                T::ZERO
                            };
                            *ds = if counts { (*ds - signed) * scale } else { T::ZERO };
                        }
                    }
                }
                _ => {
                    for (ds, (a, _)) in rows {
                        for (ds, (&a, &along)) in ds.iter_mut().zip(a.iter().zip(along.iter())) {
                            *ds = a * (*ds - along);
                        }
                    }
                }
            }
        }
        if norm.clips() {
            for (ds, &s) in ds.iter_mut().zip(s) {
                *ds = if s > T::ZERO { *ds } else { slope * *ds };
            }
        }
    }
}

/// Rows of logits that become weights one by one, for attentions within an item.
pub(crate) struct Rows<'a> {
    /// Length of a row.
    pub width: usize,
    /// Which entries of each count.
    pub seen: Option<&'a [u8]>,
}

impl Rows<'_> {
    fn masks(&self) -> Masks<'_> {
        Masks { asked: None, seen: self.seen.map(|seen| (seen, 0)) }
    }

    /// The softmax of every row.
    pub(crate) fn soften<T: Real>(&self, logits: &[T], weights: &mut [T]) {
        self::weights(
            Rule::PLAIN,
            self.width,
            logits,
            self.masks(),
            weights,
            &mut [],
            &mut vec![T::ZERO; logits.len() / self.width],
        );
    }

    /// The gradient by the logits.
    pub(crate) fn gradient<T: Real>(&self, weights: &[T], grad: &[T], out: &mut [T]) {
        gradient(Rule::PLAIN, self.width, weights, self.masks(), [weights, grad], &mut [], out, &mut []);
    }
}

#[cfg(test)]
mod tests;
