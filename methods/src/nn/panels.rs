//! Products by one matrix, again and again: `C <- C + A B` on the calling thread, with `B` laid out once for all of them.
//!
//! The `gemm` crate copies `B` into its own layout at every call; over the steps of a recurrence that takes a third of the time
//! of the products themselves.

use rayon::prelude::*;

use super::real::Real;
use crate::linalg::gemm::{Mat, MatMut, gemm_serial};

/// Columns of a panel: two vectors of sixteen.
const WIDTH: usize = 32;

/// The matrix `B [k, n]`.
pub(super) struct Panels<'a, T> {
    plain: Mat<'a, T>,
    k: usize,
    n: usize,
    /// Blocks of [`WIDTH`] columns, each `[k, WIDTH]`, zeros behind the last column; empty where there is no kernel for them.
    panels: Vec<f32>,
}

impl<'a, T: Real> Panels<'a, T> {
    /// `data [k, n]`, or its transpose if that is `turned`.
    pub(super) fn new(data: &'a [T], k: usize, n: usize, turned: bool) -> Self {
        let plain = if turned { Mat::new(data, n, k).t() } else { Mat::new(data, k, n) };
        let panels = match bytemuck::try_cast_slice::<T, f32>(data) {
            Ok(data) if T::DTYPE == candle_core::DType::F32 && available() => lay_out(data, k, n, turned),
            _ => Vec::new(),
        };
        Self { plain, k, n, panels }
    }

    /// `C <- C + A B` for `rows` rows of `a` and `c`, which start so many values apart.
    pub(super) fn add_product(&self, rows: usize, a: &[T], a_stride: usize, c: &mut [T], c_stride: usize) {
        if rows == 0 {
            return;
        }
        assert!(a_stride >= self.k && c_stride >= self.n, "rows overlap");
        assert!(a.len() >= (rows - 1) * a_stride + self.k && c.len() >= (rows - 1) * c_stride + self.n, "too short");
        #[cfg(target_arch = "x86_64")]
        if !self.panels.is_empty() {
            let a: &[f32] = bytemuck::cast_slice(a);
            let c: &mut [f32] = bytemuck::cast_slice_mut(c);
            // SAFETY: panels exist only where the processor has AVX-512; the lengths were checked above.
            unsafe { wide::add_product(rows, self.k, self.n, a, a_stride, &self.panels, c, c_stride) };
            return;
        }
        let a = Mat::strided(a, rows, self.k, a_stride);
        gemm_serial(T::ONE, a, self.plain, T::ONE, MatMut::strided(c, rows, self.n, c_stride));
    }
}

/// Whether this processor has the vectors that the kernel is written for.
pub(super) fn available() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512bw");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

fn lay_out(data: &[f32], k: usize, n: usize, turned: bool) -> Vec<f32> {
    let mut panels = vec![0f32; n.div_ceil(WIDTH) * WIDTH * k];
    panels.par_chunks_mut(WIDTH * k.max(1)).enumerate().for_each(|(p, panel)| {
        let columns = p * WIDTH..n.min((p + 1) * WIDTH);
        if turned {
            // Source rows are columns of the panel; squares of 32 keep both sides in the cache.
            for start in (0..k).step_by(WIDTH) {
                for (j, column) in columns.clone().enumerate() {
                    let source = &data[column * k..][start..k.min(start + WIDTH)];
                    for (i, &value) in source.iter().enumerate() {
                        panel[(start + i) * WIDTH + j] = value;
                    }
                }
            }
        } else {
            for (i, row) in panel.chunks_exact_mut(WIDTH).enumerate() {
                let source = &data[i * n..][columns.clone()];
                row[..source.len()].copy_from_slice(source);
            }
        }
    });
    panels
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::{
        __mmask16, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps,
        _mm512_set1_ps, _mm512_setzero_ps,
    };

    use super::WIDTH;

    /// Rows whose sums fit into registers beside a row of a panel.
    const HEIGHT: usize = 12;

    /// # Safety
    /// The processor must have AVX-512; `a` and `c` must hold `rows` rows of `k` and `n` values at their strides, and `panels`
    /// all panels of `[k, n]`.
    #[target_feature(enable = "avx512f")]
    #[allow(clippy::too_many_arguments, reason = "three matrices")]
    pub(super) unsafe fn add_product(
        rows: usize,
        k: usize,
        n: usize,
        a: &[f32],
        a_stride: usize,
        panels: &[f32],
        c: &mut [f32],
        c_stride: usize,
    ) {
        for (p, panel) in panels.chunks_exact(WIDTH * k).enumerate() {
            let columns = (n - p * WIDTH).min(WIDTH);
            // Tiles of nearly one height: a low one at the end would wait for its own sums.
            let tiles = rows.div_ceil(HEIGHT);
            for tile in 0..tiles {
                let (row, end) = (tile * rows / tiles, (tile + 1) * rows / tiles);
                // SAFETY: these rows and the columns of the panel lie within the matrices.
                unsafe {
                    let (a, c) = (a.as_ptr().add(row * a_stride), c.as_mut_ptr().add(row * c_stride + p * WIDTH));
                    let tile = (k, columns, a, a_stride, panel.as_ptr(), c, c_stride);
                    match end - row {
                        1 => block::<1>(tile),
                        2 => block::<2>(tile),
                        3 => block::<3>(tile),
                        4 => block::<4>(tile),
                        5 => block::<5>(tile),
                        6 => block::<6>(tile),
                        7 => block::<7>(tile),
                        8 => block::<8>(tile),
                        9 => block::<9>(tile),
                        10 => block::<10>(tile),
                        11 => block::<11>(tile),
                        _ => block::<HEIGHT>(tile),
                    }
                }
            }
        }
    }

    type Tile = (usize, usize, *const f32, usize, *const f32, *mut f32, usize);

    /// `R` rows times one panel, sums in registers.
    ///
    /// # Safety
    /// As [`add_product`].
    #[target_feature(enable = "avx512f")]
    unsafe fn block<const R: usize>((k, columns, a, a_stride, panel, c, c_stride): Tile) {
        let mut sums = [[_mm512_setzero_ps(); 2]; R];
        // SAFETY: the caller's.
        unsafe {
            for i in 0..k {
                let (left, right) = (_mm512_loadu_ps(panel.add(i * WIDTH)), _mm512_loadu_ps(panel.add(i * WIDTH + 16)));
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = _mm512_set1_ps(*a.add(r * a_stride + i));
                    sums[0] = _mm512_fmadd_ps(x, left, sums[0]);
                    sums[1] = _mm512_fmadd_ps(x, right, sums[1]);
                }
            }
            let bits = ((1u64 << columns) - 1) as u32;
            for (r, sums) in sums.iter().enumerate() {
                for (half, &sum) in sums.iter().enumerate() {
                    let mask = (bits >> (16 * half)) as __mmask16;
                    let at = c.add(r * c_stride).wrapping_add(16 * half);
                    _mm512_mask_storeu_ps(at, mask, _mm512_add_ps(_mm512_maskz_loadu_ps(mask, at), sum));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::checks::{draw, flat};

    #[test]
    fn products_are_sums_of_products_for_every_shape_and_stride() {
        for (rows, k, n) in [(1, 1, 1), (3, 7, 5), (12, 33, 32), (31, 40, 70), (64, 16, 96)] {
            for turned in [false, true] {
                let (a, b) = (flat(&draw("a", &[rows, k + 2])), flat(&draw("b", &[k, n])));
                let narrow = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<f32>>();
                let (a, b) = (narrow(&a), narrow(&b));
                let mut c = vec![0.5f32; rows * (n + 3)];
                Panels::new(&b, k, n, turned).add_product(rows, &a, k + 2, &mut c, n + 3);
                for i in 0..rows {
                    for j in 0..n + 3 {
                        let b = |p: usize| f64::from(if turned { b[j * k + p] } else { b[p * n + j] });
                        let sum: f64 =
                            (0..k).map(|p| if j < n { f64::from(a[i * (k + 2) + p]) * b(p) } else { 0.0 }).sum();
                        assert!((f64::from(c[i * (n + 3) + j]) - 0.5 - sum).abs() < 1e-5, "{rows} {k} {n}: {i} {j}");
                    }
                }
            }
        }
    }
}
