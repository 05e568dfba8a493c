//! Exact search by dot products: a tile of the gallery against a block of queries is one matrix product, and a scan of each row
//! of the product lets through the few scores that can still enter a query's best `k`.

use std::{borrow::Cow, ops::Range};

use rayon::prelude::*;
use xmbench_datasets::Matrix;
use xmbench_methods::{
    Codes, Error, Result,
    linalg::gemm::{Mat, MatMut, gemm_serial},
};

use super::{
    Index, TopK,
    best::{Best, real_key, real_score},
    kind, mismatch, not_a_number,
};

/// Queries a task. With [`TILE`], the product of a task stays within a core's second-level cache.
const BLOCK: usize = 256;
/// Gallery rows a product.
const TILE: usize = 1024;
/// Fewer queries than this are bound by memory, and are multiplied row by row.
const FEW: usize = 8;
/// Tasks that a search is cut into at least, where the gallery is large enough: fixed, so that the bits of a score do not depend
/// on the number of threads.
const TASKS: usize = 16;

/// A gallery of dense codes.
pub struct Dense<'a> {
    gallery: Cow<'a, Matrix>,
    cosine: bool,
}

impl<'a> Dense<'a> {
    /// An index over rows that are of unit norm already if `cosine`.
    pub fn new(gallery: Cow<'a, Matrix>, cosine: bool) -> Result<Self> {
        finite(&gallery, "gallery")?;
        Ok(Self { gallery, cosine })
    }

    /// Keeps the best of the gallery rows in `range` for the queries `[count, cols]`.
    fn scan(&self, queries: &[f32], count: usize, first: usize, range: Range<usize>, k: usize) -> Result<Vec<Best>> {
        let (cols, tile) = (self.gallery.cols, TILE.min(self.len()));
        let mut best: Vec<Best> = (0..count).map(|_| Best::new(k)).collect();
        let mut product = vec![0.0f32; count * tile];
        for start in range.clone().step_by(TILE) {
            // The last tile reaches back instead of being smaller: the order of summation depends on the shape of a product, and
            // equal rows of the gallery must tie to the bit.
            let from = start.min(self.len() - tile);
            let gallery = &self.gallery.data[from * cols..(from + tile) * cols];
            multiply(queries, count, gallery, tile, cols, &mut product);
            for (i, (scores, best)) in product.chunks_exact(tile).zip(&mut best).enumerate() {
                offer(&scores[start - from..], start, best).map_err(|item| not_a_number(first + i, item))?;
            }
        }
        Ok(best)
    }
}

/// Scores of `count` queries against `tile` rows.
fn multiply(queries: &[f32], count: usize, gallery: &[f32], tile: usize, cols: usize, out: &mut [f32]) {
    if count < FEW {
        for (query, out) in queries.chunks_exact(cols.max(1)).zip(out.chunks_exact_mut(tile)) {
            dots(query, gallery, out);
        }
        return;
    }
    let (a, b) = (Mat::new(queries, count, cols), Mat::new(gallery, tile, cols).t());
    gemm_serial(1.0, a, b, 0.0, MatMut::new(out, count, tile));
}

impl Index for Dense<'_> {
    fn search(&self, queries: &Codes, rows: Range<usize>, k: usize) -> Result<TopK> {
        let queries = matrix(queries, "queries")?;
        same_width(queries, &self.gallery)?;
        let cols = queries.cols;
        let block = slice(queries, rows.clone());
        let block = if self.cosine { unit_rows(&block, "queries")?.into_owned() } else { block.into_owned() };
        finite(&block, "queries")?;
        let k = k.min(self.len());
        let blocks: Vec<Range<usize>> =
            (0..block.rows).step_by(BLOCK).map(|i| i..(i + BLOCK).min(block.rows)).collect();
        let parts = TASKS.div_ceil(blocks.len().max(1)).min(self.len().div_ceil(TILE)).max(1);
        let part = self.len().div_ceil(parts).next_multiple_of(TILE);
        let tasks: Vec<(Range<usize>, Range<usize>)> = blocks
            .iter()
            .flat_map(|queries| (0..parts).map(|p| (queries.clone(), p * part..((p + 1) * part).min(self.len()))))
            .collect();
        let found: Vec<Vec<Best>> = tasks
            .par_iter()
            .map(|(queries, range)| {
                let data = &block.data[queries.start * cols..queries.end * cols];
                self.scan(data, queries.len(), rows.start + queries.start, range.start.min(range.end)..range.end, k)
            })
            .collect::<Result<_>>()?;
        let mut out = TopK { k, items: Vec::with_capacity(k * rows.len()), scores: Vec::with_capacity(k * rows.len()) };
        let mut found = found.into_iter();
        for _ in &blocks {
            let mut best = found.next().expect("every block has at least one part");
            for part in found.by_ref().take(parts - 1) {
                best.iter_mut().zip(part).for_each(|(best, other)| best.absorb(other));
            }
            for key in best.into_iter().flat_map(Best::sorted) {
                out.items.push(key as u32);
                out.scores.push(real_score(key));
            }
        }
        Ok(out)
    }

    fn bytes(&self) -> usize {
        self.gallery.data.len() * 4
    }

    fn len(&self) -> usize {
        self.gallery.rows
    }
}

/// Offers a row of scores, the first of which belongs to gallery item `start`; the position of a score that is not a number is
/// the error.
pub fn offer(scores: &[f32], start: usize, best: &mut Best) -> std::result::Result<(), usize> {
    const STRIDE: usize = 64;
    for (c, chunk) in scores.chunks(STRIDE).enumerate() {
        if best.limit() != u64::MAX && !any_reaches(chunk, real_score(best.limit())) {
            continue;
        }
        for (i, &score) in chunk.iter().enumerate() {
            let item = start + c * STRIDE + i;
            if score.is_nan() {
                return Err(item);
            }
            best.push(real_key(score, item as u32));
        }
    }
    Ok(())
}

/// Dot products of a query with every row of `gallery`, in one order of summation.
pub fn dots(query: &[f32], gallery: &[f32], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has the instructions.
            return unsafe { dots_avx512(query, gallery, out) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor has the instructions.
            return unsafe { dots_avx2(query, gallery, out) };
        }
    }
    dots_in_lanes(query, gallery, out, |a, b, c| a * b + c);
}

/// The same loop, compiled for AVX-512.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,fma")]
fn dots_avx512(query: &[f32], gallery: &[f32], out: &mut [f32]) {
    dots_in_lanes(query, gallery, out, f32::mul_add);
}

/// The same loop, compiled for AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn dots_avx2(query: &[f32], gallery: &[f32], out: &mut [f32]) {
    dots_in_lanes(query, gallery, out, f32::mul_add);
}

#[inline(always)]
fn dots_in_lanes(query: &[f32], gallery: &[f32], out: &mut [f32], multiply_add: impl Fn(f32, f32, f32) -> f32) {
    const LANES: usize = 64;
    if query.is_empty() {
        return out.fill(0.0);
    }
    let whole = query.len() / LANES * LANES;
    for (row, out) in gallery.chunks_exact(query.len()).zip(out) {
        let mut sums = [0.0f32; LANES];
        for (a, b) in query[..whole].chunks_exact(LANES).zip(row[..whole].chunks_exact(LANES)) {
            for lane in 0..LANES {
                sums[lane] = multiply_add(a[lane], b[lane], sums[lane]);
            }
        }
        let mut width = LANES / 2;
        while width > 0 {
            for lane in 0..width {
                sums[lane] += sums[lane + width];
            }
            width /= 2;
        }
        *out = query[whole..].iter().zip(&row[whole..]).fold(sums[0], |sum, (&a, &b)| multiply_add(a, b, sum));
    }
}

/// Whether a score is not below the limit; NaN is not below anything.
#[inline]
fn any_reaches(scores: &[f32], limit: f32) -> bool {
    #[expect(clippy::neg_cmp_op_on_partial_ord, reason = "NaN must get through, to be refused")]
    scores.iter().fold(false, |any, &score| any | !(score < limit))
}

/// The rows as a matrix of their own, borrowed if they are all.
fn slice(matrix: &Matrix, rows: Range<usize>) -> Cow<'_, Matrix> {
    if rows == (0..matrix.rows) {
        return Cow::Borrowed(matrix);
    }
    let data = matrix.data[rows.start * matrix.cols..rows.end * matrix.cols].to_vec();
    Cow::Owned(Matrix { rows: rows.len(), cols: matrix.cols, data })
}

/// Dense codes, or the error that they are not.
pub fn matrix<'a>(codes: &'a Codes, what: &str) -> Result<&'a Matrix> {
    match codes {
        Codes::Dense(matrix) => Ok(matrix),
        other => Err(mismatch(what, "dense codes", kind(other))),
    }
}

/// Refuses codes of different width.
pub fn same_width(queries: &Matrix, gallery: &Matrix) -> Result<()> {
    if queries.cols == gallery.cols {
        return Ok(());
    }
    Err(mismatch("queries", format!("{} values, as in the gallery", gallery.cols), format!("{} values", queries.cols)))
}

/// Refuses NaN and infinity.
pub fn finite(matrix: &Matrix, what: &str) -> Result<()> {
    match matrix.data.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Error::Numeric(format!(
            "codes of the {what}, row {}, column {}: expected a finite number, found {}; check the method's codes",
            at / matrix.cols,
            at % matrix.cols,
            matrix.data[at]
        ))),
    }
}

/// Rows of unit L2 norm; a zero row stays zero, so that its cosine with anything is 0.
pub fn unit_rows(matrix: &Matrix, what: &str) -> Result<Cow<'static, Matrix>> {
    finite(matrix, what)?;
    let mut out = matrix.clone();
    if out.cols > 0 {
        out.data.par_chunks_mut(out.cols).for_each(|row| {
            let norm = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            if norm > 0.0 {
                row.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
            }
        });
    }
    Ok(Cow::Owned(out))
}
