//! Stacked cross attention under a threshold `t` on the similarities: what lies below it is not looked at.
//!
//! Between equations (2) and (6) of the [module](super), for the query vectors of one item:
//! ```text
//! content mask   W_cq = 0 where S_cq < t, what is left of (3) divided by its sum
//! query mask     r_q = 0 where max_c S_cq < t
//! score          (sum of r_q) / q, or / the number of query vectors that the query mask keeps; 0 if it keeps none     (8)
//! ```
//! The content mask alone gives `r_q = 0` there too, as nothing is attended to; the query mask says so beforehand. Equation (2) is
//! that of all similarities. Masks have no gradient. Without masks this is stacked cross attention with the mean.
//!
//! [`Masked`] is the interaction to train with. [`MaskedScorer`] has a kernel that takes the kept query vectors together before (3)
//! and all that follows: with [`Contexts::Direct`] a dropped one saves `c d` operations, with [`Contexts::Gram`] `c²`, beside the
//! `c d` of its similarities, which must be known first. [`MaskedScorer::kept`] counts what is kept.

use std::ops::{AddAssign, Range};

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::{
    Aggregation, Attention, Block, Contexts, Direction, Interaction, Padded, Pairing, Real, Relevance, Side, Stack,
    fragments, keep,
    kernel::{Tile, grams, tiles},
    pairs::{padded, turn},
    panel::{Context, Panel, Scratch, aggregate, dot, larger, normalise, project, relate, sum_squares},
    real::vectorised,
    relevance_from_grams, similarities, soften,
};
use crate::{
    AttentionMap, Codes, Error, PairScorer, Result,
    codes::has_room,
    linalg::gemm::{Mat, MatMut, gemm_serial},
};

const MEAN: Relevance = Relevance { aggregation: Aggregation::Mean, lambda_lse: 1.0 };

/// Images that are counted at a time.
const COUNTED: usize = 128;

/// What the sum of (8) is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MeanOver {
    /// All query vectors.
    N,
    /// Those that the query mask keeps.
    Kept,
}

/// The settings of cross attention under a threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Masked {
    /// Which side asks.
    pub direction: Direction,
    /// Equations (2) and (3).
    pub attention: Attention,
    /// Whether there is a content mask.
    pub content: bool,
    /// Whether there is a query mask.
    pub query: bool,
    /// Equation (8).
    pub mean_over: MeanOver,
    /// The threshold `t`.
    pub threshold: f64,
}

impl Masked {
    fn made(&self, items: &Padded, answers: Direction) -> Result<Vec<Tensor>> {
        Ok(vec![if self.direction == answers { items.grams()? } else { items.norms()? }])
    }
}

impl Interaction for Masked {
    fn images(&self, images: &Padded) -> Result<Vec<Tensor>> {
        self.made(images, Direction::T2i)
    }

    fn texts(&self, texts: &Padded) -> Result<Vec<Tensor>> {
        self.made(texts, Direction::I2t)
    }

    fn scores(&self, images: &Side, texts: &Side, pairing: Pairing) -> Result<Tensor> {
        let block = Block::new(self.direction, images, texts, pairing)?;
        let Looked { s, weights, reached } = self.look(&block)?; // (1) to (3)
        let norms = block.aligned(&block.asking.made[0])?;
        let mut r = relevance_from_grams(&s, &weights, &block.contexts.made[0], &norms)?; // (7), (5)
        let mut counted = block.asked.clone();
        if self.query {
            r = reached.where_cond(&r, &r.zeros_like()?)?;
            if self.mean_over == MeanOver::Kept {
                counted = Some(both(reached, block.asked.as_ref())?);
            }
        }
        block.scores(&MEAN.aggregate(&r, counted.as_ref())?) // (8)
    }

    fn attention(&self, image: &Side, text: &Side) -> Result<Vec<AttentionMap>> {
        let Looked { weights, reached, .. } = self.look(&Block::new(self.direction, image, text, Pairing::Every)?)?;
        let weights = if self.query { keep(Some(&reached.unsqueeze(3)?), &weights, 0.0)? } else { weights };
        Ok(vec![AttentionMap::of("", self.direction, &weights)?])
    }
}

/// Similarities and weights `[N, M, q, c]`, and the query vectors `[N, M, q]` with a similarity that is not below the threshold.
struct Looked {
    s: Tensor,
    weights: Tensor,
    reached: Tensor,
}

impl Masked {
    fn look(&self, block: &Block<'_>) -> Result<Looked> {
        let (asked, seen) = (block.asked.as_ref(), block.seen.as_ref());
        let s = similarities(&block.contexts.items, &block.queries)?; // (1)
        // Not `s >= t`: what is not a number must reach the score.
        let above = both(s.lt(self.threshold)?.eq(0u8)?, seen)?;
        let logits = (self.attention.normalise(&s, asked)? * self.attention.lambda_softmax)?; // (2)
        let weights = soften(&logits, if self.content { Some(&above) } else { seen })?; // (3)
        Ok(Looked { reached: above.max(3)?, s, weights })
    }
}

/// Where `mask` and, if there is one, the mask `other` that broadcasts to it are 1.
fn both(mask: Tensor, other: Option<&Tensor>) -> Result<Tensor> {
    Ok(match other {
        Some(other) => mask.broadcast_mul(other)?,
        None => mask,
    })
}

/// How much of some pairs' vectors a threshold keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kept {
    /// Query vectors that are compared with what they saw, over all pairs of items.
    pub queries: u64,
    /// Of so many.
    pub of_queries: u64,
    /// Query vectors with a context vector that they look at.
    pub pairs: u64,
    /// Of so many.
    pub of_pairs: u64,
}

impl Kept {
    /// The share of query vectors; 1 of none.
    pub fn query_fraction(&self) -> f64 {
        if self.of_queries == 0 { 1.0 } else { self.queries as f64 / self.of_queries as f64 }
    }

    /// The share of query vectors with a context vector; 1 of none.
    pub fn pair_fraction(&self) -> f64 {
        if self.of_pairs == 0 { 1.0 } else { self.pairs as f64 / self.of_pairs as f64 }
    }
}

impl AddAssign for Kept {
    fn add_assign(&mut self, other: Self) {
        self.queries += other.queries;
        self.of_queries += other.of_queries;
        self.pairs += other.pairs;
        self.of_pairs += other.of_pairs;
    }
}

/// Scores of every context item against every query item, `[contexts.items(), queries.items()]`; the direction is that of the
/// arguments.
pub fn masked_scores<T: Real>(
    settings: &Masked,
    form: Contexts,
    contexts: Stack<'_, T>,
    queries: Stack<'_, T>,
) -> Vec<T> {
    let grams = match form {
        Contexts::Gram => grams(contexts),
        Contexts::Direct => Vec::new(),
    };
    tiles(contexts, queries, |own: &mut Own<T>, tile, out| {
        let context = match form {
            Contexts::Gram => Context::Gram(&grams[tile.item]),
            Contexts::Direct => Context::Direct(contexts.item(tile.item), tile.queries),
        };
        attend(settings, &tile.panel, tile.s, context, own);
        aggregate(&MEAN, &tile.panel, &own.scratch.relevance, out); // (8)
        if settings.query && settings.mean_over == MeanOver::Kept {
            for (j, out) in out.iter_mut().enumerate() {
                let reached = &own.reached[tile.panel.segment(j)];
                let kept = reached.iter().filter(|&&x| x > T::ZERO).count();
                *out *= T::of(reached.len() as f64 / kept.max(1) as f64);
            }
        }
    })
}

/// What a thread needs beside the scratch of the unmasked kernel.
#[derive(Default)]
struct Own<T> {
    scratch: Scratch<T>,
    /// Above 0 for each column with a similarity that is not below the threshold.
    reached: Vec<T>,
    /// Columns that are kept; their normalised similarities, similarities, norms and relevances.
    kept: Vec<usize>,
    normalised: Vec<T>,
    similarities: Vec<T>,
    norms: Vec<T>,
    relevance: Vec<T>,
}

/// Equations (2) to (5) under the masks, for one panel of similarities.
fn attend<T: Real>(settings: &Masked, panel: &Panel<'_, T>, s: &[T], context: Context<'_, T>, own: &mut Own<T>) {
    let Own { scratch, reached, kept, normalised, similarities, norms, relevance } = own;
    let (rows, width, threshold) = (panel.rows, panel.width(), T::of(settings.threshold));
    scratch.fit(rows, width, panel.items());
    reached.resize(width, T::ZERO);
    reach(panel, s, threshold, &mut reached[..width]);
    kept.clear();
    kept.extend((0..width).filter(|&q| !settings.query || reached[q] > T::ZERO));
    let n = kept.len();
    scratch.relevance[..width].fill(T::ZERO);
    if n == 0 {
        return;
    }
    normalise(settings.attention.norm, panel, s, &mut scratch.normalised, &mut scratch.row_norms); // (2)
    for buffer in [&mut *normalised, &mut *similarities] {
        buffer.resize(rows * width, T::ZERO);
    }
    gather(kept, &scratch.normalised, width, &mut normalised[..rows * n]);
    gather(kept, s, panel.stride, &mut similarities[..rows * n]);
    norms.clear();
    norms.extend(kept.iter().map(|&q| panel.norms[q]));
    relevance.resize(n, T::ZERO);
    let weights = &mut scratch.weights[..rows * n];
    let floor = if settings.content { threshold } else { T::of(f64::NEG_INFINITY) };
    let (peak, total) = (&mut scratch.peak[..n], &mut scratch.total[..n]);
    let lambda = T::of(settings.attention.lambda_softmax);
    soften_above(lambda, floor, &similarities[..rows * n], &normalised[..rows * n], weights, peak, total); // (3)
    let all = Panel { rows, stride: n, segments: &[0, n], norms };
    let (inner, square) = (&mut scratch.inner[..n], &mut scratch.square[..n]);
    match context {
        Context::Gram(gram) => {
            let spread = &mut scratch.spread[..rows * n];
            let product = MatMut::new(spread, rows, n);
            gemm_serial(T::ONE, Mat::new(gram, rows, rows), Mat::new(weights, rows, n), T::ZERO, product);
            project(&all, similarities, weights, spread, inner, square); // (7)
        }
        Context::Direct(vectors, queries) => {
            let dim = queries.dim;
            scratch.built.resize(width * dim, T::ZERO);
            let built = &mut scratch.built[..n * dim];
            let product = MatMut::new(built, n, dim);
            gemm_serial(T::ONE, Mat::new(weights, rows, n).t(), Mat::new(vectors, rows, dim), T::ZERO, product); // (4)
            compare(kept, dim, built, queries.data, inner, square);
        }
    }
    relate(&all, inner, square, relevance); // (5)
    for (&q, &r) in kept.iter().zip(&*relevance) {
        scratch.relevance[q] = r;
    }
}

/// Some columns of rows that lie `stride` apart.
fn gather<T: Copy>(columns: &[usize], from: &[T], stride: usize, to: &mut [T]) {
    for (to, from) in to.chunks_exact_mut(columns.len()).zip(from.chunks(stride)) {
        for (to, &q) in to.iter_mut().zip(columns) {
            *to = from[q];
        }
    }
}

vectorised! {
    /// 1 for each column with a value that is not below the threshold, else 0.
    fn reach<T: Real>(panel: &Panel<'_, T>, s: &[T], threshold: T, out: &mut [T]) {
        out.fill(T::ZERO);
        for row in 0..panel.rows {
            let row = &s[row * panel.stride..][..panel.width()];
            for (out, &x) in out.iter_mut().zip(row) {
                *out = if x < threshold { *out } else { T::ONE };
            }
        }
    }
}

vectorised! {
    /// The softmax of `lambda a` along each column over the rows whose `s` is not below `floor`; the others have exactly 0.
    fn soften_above<T: Real>(lambda: T, floor: T, s: &[T], a: &[T], w: &mut [T], peak: &mut [T], total: &mut [T]) {
        let width = peak.len();
        peak.fill(T::of(-1e30));
        for (s, a) in s.chunks_exact(width).zip(a.chunks_exact(width)) {
            for (peak, (&s, &a)) in peak.iter_mut().zip(s.iter().zip(a)) {
                let a = if s < floor { *peak } else { a };
                *peak = larger(*peak, a);
            }
        }
        total.fill(T::ZERO);
        for (w, (s, a)) in w.chunks_exact_mut(width).zip(s.chunks_exact(width).zip(a.chunks_exact(width))) {
            let columns = s.iter().zip(a).zip(total.iter_mut().zip(peak.iter()));
            for (w, ((&s, &a), (total, &peak))) in w.iter_mut().zip(columns) {
                let term = (lambda * (a - peak)).exp();
                *w = if s < floor { T::ZERO } else { term };
                *total += *w;
            }
        }
        // Nothing is left where the sum is 0; else it is at least 1.
        total.iter_mut().for_each(|x| *x = if *x < T::of(0.5) { T::ZERO } else { T::ONE / *x });
        for w in w.chunks_exact_mut(width) {
            for (w, &inverse) in w.iter_mut().zip(total.iter()) {
                *w *= inverse;
            }
        }
    }
}

vectorised! {
    /// `Q_q · a_q` and `|a_q|²` of the kept query vectors from their attended vectors.
    fn compare<T: Real>(kept: &[usize], dim: usize, built: &[T], queries: &[T], inner: &mut [T], square: &mut [T]) {
        for (at, (built, &q)) in built.chunks_exact(dim).zip(kept).enumerate() {
            inner[at] = dot(built, &queries[q * dim..][..dim]);
            square[at] = sum_squares(built);
        }
    }
}

/// Compares fragments of images with fragments of texts by cross attention under a threshold.
#[derive(Debug, Clone, Copy)]
pub struct MaskedScorer {
    /// The settings.
    pub settings: Masked,
    /// Whether attended vectors are built.
    pub form: Contexts,
}

impl MaskedScorer {
    /// What the masks keep of some images against some texts; everything where a mask is off.
    ///
    /// # Errors
    /// As [`PairScorer::score`].
    pub fn kept(&self, images: &Codes, rows: Range<usize>, texts: &Codes, columns: Range<usize>) -> Result<Kept> {
        let mut kept = Kept::default();
        if rows.is_empty() || columns.is_empty() {
            return Ok(kept);
        }
        let settings = &self.settings;
        let threshold = settings.threshold as f32;
        let (contexts, queries) = self.sides(images, rows, texts, columns)?;
        let count = |reached: &mut Vec<f32>, tile: &Tile<'_, f32>, out: &mut [[u64; 2]]| {
            let panel = &tile.panel;
            reached.resize(panel.width(), 0.0);
            reach(panel, tile.s, threshold, reached);
            for (j, out) in out.iter_mut().enumerate() {
                for q in panel.segment(j).filter(|&q| !settings.query || reached[q] > 0.0) {
                    let column = (0..panel.rows).map(|row| tile.s[row * panel.stride + q]);
                    // What is not a number is kept.
                    let seen =
                        column.filter(|s| !settings.content || s.partial_cmp(&threshold).is_none_or(|o| o.is_ge()));
                    *out = [out[0] + 1, out[1] + seen.count() as u64];
                }
            }
        };
        for [queries, pairs] in tiles(contexts, queries, count) {
            kept += Kept { queries, pairs, ..Kept::default() };
        }
        kept.of_queries = (contexts.items() * queries.vectors()) as u64;
        kept.of_pairs = (contexts.vectors() * queries.vectors()) as u64;
        Ok(kept)
    }

    /// Contexts and queries.
    fn sides<'a>(
        &self,
        images: &'a Codes,
        rows: Range<usize>,
        texts: &'a Codes,
        columns: Range<usize>,
    ) -> Result<(Stack<'a, f32>, Stack<'a, f32>)> {
        let (images, texts) = fragments(images, texts)?;
        if images.dim != texts.dim || images.dim == 0 {
            return Err(Error::Numeric(format!(
                "cross attention: expected image and text vectors of one width above 0, found {} and {}",
                images.dim, texts.dim
            )));
        }
        let (images, texts) = (Stack::of(images, rows)?, Stack::of(texts, columns)?);
        Ok(match self.settings.direction {
            Direction::T2i => (images, texts),
            Direction::I2t => (texts, images),
        })
    }
}

impl PairScorer for MaskedScorer {
    fn measures(&self, images: &Codes, texts: &Codes) -> Result<Vec<(&'static str, f64)>> {
        let mut kept = Kept::default();
        for start in (0..images.len()).step_by(COUNTED) {
            kept += self.kept(images, start..(start + COUNTED).min(images.len()), texts, 0..texts.len())?;
        }
        Ok(vec![
            ("kept queries", 100.0 * kept.query_fraction()),
            ("kept pairs", 100.0 * kept.pair_fraction()),
            ("threshold", self.settings.threshold),
        ])
    }

    fn attention(&self, images: &Codes, image: usize, texts: &Codes, text: usize) -> Result<Vec<AttentionMap>> {
        let (images, texts) = fragments(images, texts)?;
        let side = |from, item: usize| padded(from, &[item], &Device::Cpu);
        let image = Side::images(&self.settings, side(images, image)?)?;
        let text = Side::texts(&self.settings, side(texts, text)?)?;
        let before = Masked { content: false, query: false, ..self.settings };
        let titles = ["without the threshold".into(), format!("under the threshold {:.3}", self.settings.threshold)];
        let maps = [before, self.settings].into_iter().zip(titles).map(|(settings, title)| {
            let maps = settings.attention(&image, &text)?.into_iter();
            Ok(maps.map(|map| AttentionMap { title: title.clone(), ..map }).collect::<Vec<_>>())
        });
        Ok(maps.collect::<Result<Vec<_>>>()?.concat())
    }

    fn score(
        &self,
        images: &Codes,
        rows: Range<usize>,
        texts: &Codes,
        columns: Range<usize>,
        out: &mut [f32],
    ) -> Result<()> {
        let height = rows.len();
        has_room(out, height, columns.len())?;
        if out.is_empty() {
            return Ok(());
        }
        let (contexts, queries) = self.sides(images, rows, texts, columns)?;
        let scores = masked_scores(&self.settings, self.form, contexts, queries);
        turn(self.settings.direction, &scores, height, out);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
