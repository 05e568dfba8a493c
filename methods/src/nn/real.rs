//! Arithmetic of the fused operations: gate functions that a compiler can vectorise (no branch, no call, accurate to a few
//! units in the last place) and access to the values behind CPU tensors.

use std::{
    ops::{Deref, DerefMut},
    sync::{Mutex, PoisonError},
};

use candle_core::{CpuStorage, Layout, Storage, Tensor, WithDType};
use rayon::prelude::*;

use crate::linalg::gemm::Float;

/// f32 or f64 with the two functions that gates need.
pub(crate) trait Real: Float + WithDType + bytemuck::Pod {
    /// Buffers that were used before.
    fn pool() -> &'static Mutex<Vec<Vec<Self>>>;
    /// `1 / (1 + e^-x)`.
    fn sigmoid(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// Square root.
    fn root(self) -> Self;
    /// Cube root of a number from 0 up, within 4 % for f32 (enough to start an iteration).
    fn rough_cube_root(self) -> Self;
}

impl Real for f32 {
    fn pool() -> &'static Mutex<Vec<Vec<Self>>> {
        static POOL: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());
        &POOL
    }

    #[inline(always)]
    fn sigmoid(self) -> Self {
        // Beyond 87 the smallest normal number is reached; the result no longer changes in f32 above 17.
        1.0 / (2.0 + exp_minus_1(-self))
    }

    #[inline(always)]
    fn tanh(self) -> Self {
        // (e^2x - 1) / (e^2x + 1) through e^2x - 1, so that small arguments keep their relative precision.
        let e = exp_minus_1((self + self).clamp(-40.0, 40.0));
        e / (e + 2.0)
    }

    #[inline(always)]
    fn root(self) -> Self {
        self.sqrt()
    }

    #[inline(always)]
    fn rough_cube_root(self) -> Self {
        // A third of the exponent, and of the mantissa with it.
        Self::from_bits(self.to_bits() / 3 + 0x2a51_37a0)
    }
}

impl Real for f64 {
    fn pool() -> &'static Mutex<Vec<Vec<Self>>> {
        static POOL: Mutex<Vec<Vec<f64>>> = Mutex::new(Vec::new());
        &POOL
    }

    #[inline(always)]
    fn sigmoid(self) -> Self {
        1.0 / (1.0 + (-self).exp())
    }

    #[inline(always)]
    fn tanh(self) -> Self {
        f64::tanh(self)
    }

    #[inline(always)]
    fn root(self) -> Self {
        self.sqrt()
    }

    #[inline(always)]
    fn rough_cube_root(self) -> Self {
        self.cbrt()
    }
}

/// `e^x - 1`, relative error about 2e-7, for `x` cut to what f32 can hold; NaN stays NaN.
///
/// With `k = round(x / ln 2)` and `r = x - k ln 2`: `e^x - 1 = 2^k (e^r - 1) + (2^k - 1)`.
#[inline(always)]
fn exp_minus_1(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to an integer, which then stands in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts; the product of the first with an integer below 2^8 is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let k = shifted - ROUND;
    let r = (x - k * LN_2_HIGH) - k * LN_2_LOW;
    // Taylor series of e^r - 1; |r| <= 0.35 leaves an error of r^8 / 8!.
    let tail = 1.0 / 5040.0;
    let series = ((((tail * r + 1.0 / 720.0) * r + 1.0 / 120.0) * r + 1.0 / 24.0) * r + 1.0 / 6.0) * r + 0.5;
    let p = r + r * r * series;
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    scale * p + (scale - 1.0)
}

/// `a . b`, summed in sixteen interleaved parts, so in one order whatever the machine.
#[inline]
pub(crate) fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    let mut parts = [T::ZERO; 16];
    let (a_chunks, b_chunks) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest = a_chunks.remainder().iter().zip(b_chunks.remainder()).fold(T::ZERO, |sum, (&a, &b)| sum + a * b);
    for (a, b) in a_chunks.zip(b_chunks) {
        for i in 0..16 {
            parts[i] += a[i] * b[i];
        }
    }
    parts.into_iter().fold(rest, |sum, part| sum + part)
}

/// `f` of each value and its neighbour in another slice, side by side.
pub(crate) fn zipped<T: Real, U: Copy + Sync>(x: &[T], with: &[U], f: impl Fn(T, U) -> T + Sync) -> Vec<T> {
    const CHUNK: usize = 1 << 14;
    let mut y = vec![T::ZERO; x.len()];
    y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).zip(with.par_chunks(CHUNK)).for_each(|((y, x), with)| {
        y.iter_mut().zip(x).zip(with).for_each(|((y, &x), &with)| *y = f(x, with));
    });
    y
}

/// Sums over rows, in f64, each column by one task.
pub(crate) fn column_sums<T: Real>(data: &[T], width: usize) -> Vec<T> {
    const COLUMNS: usize = 256;
    let mut sums = vec![T::ZERO; width];
    sums.par_chunks_mut(COLUMNS).enumerate().for_each(|(c, sums)| {
        let mut wide = [0f64; COLUMNS];
        for row in data.chunks_exact(width) {
            for (sum, value) in wide.iter_mut().zip(&row[c * COLUMNS..][..sums.len()]) {
                *sum += value.to_f64();
            }
        }
        for (sum, wide) in sums.iter_mut().zip(wide) {
            *sum = T::from_f64(wide);
        }
    });
    sums
}

/// A buffer that goes back for the next one to take: fresh memory of this size costs a page fault every 4 KiB, which took as
/// long as the products themselves.
pub(crate) struct Scratch<T: Real> {
    data: Vec<T>,
    len: usize,
}

/// Buffers that wait at most.
const WAITING: usize = 12;

impl<T: Real> Scratch<T> {
    /// `len` values, whatever they are.
    pub(crate) fn any(len: usize) -> Self {
        let mut pool = T::pool().lock().unwrap_or_else(PoisonError::into_inner);
        // The smallest that is large enough.
        let fitting = (0..pool.len()).filter(|&i| pool[i].len() >= len).min_by_key(|&i| pool[i].len());
        let taken = fitting.map(|i| pool.swap_remove(i));
        drop(pool);
        Self { data: taken.unwrap_or_else(|| vec![T::ZERO; len]), len }
    }

    /// `len` zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        let mut scratch = Self::any(len);
        scratch.fill(T::ZERO);
        scratch
    }
}

impl<T: Real> Deref for Scratch<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.data[..self.len]
    }
}

impl<T: Real> DerefMut for Scratch<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.data[..self.len]
    }
}

impl<T: Real> Drop for Scratch<T> {
    fn drop(&mut self) {
        let mut pool = T::pool().lock().unwrap_or_else(PoisonError::into_inner);
        pool.push(std::mem::take(&mut self.data));
        if pool.len() > WAITING {
            let smallest = (0..pool.len()).min_by_key(|&i| pool[i].len());
            smallest.map(|i| pool.swap_remove(i));
        }
    }
}

/// The values of a contiguous tensor within its storage.
pub(crate) fn contiguous<'a, T>(data: &'a [T], layout: &Layout) -> candle_core::Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&data[start..end]),
        None => candle_core::bail!("expected a contiguous tensor of shape {:?}", layout.shape()),
    }
}

/// Calls `f` with the values of a contiguous CPU tensor.
pub(crate) fn with<T: WithDType, R>(
    tensor: &Tensor,
    f: impl FnOnce(&[T]) -> candle_core::Result<R>,
) -> candle_core::Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => f(contiguous(CpuStorage::as_slice::<T>(storage)?, layout)?),
        _ => candle_core::bail!("expected a tensor on the CPU"),
    }
}

/// Evaluates a block with `T` standing for f32 or f64.
macro_rules! dispatch {
    ($dtype:expr, $t:ident => $body:block) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $t = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $t = f64;
                $body
            }
            other => candle_core::bail!("expected a tensor of f32 or f64, found {other:?}"),
        }
    };
}
pub(crate) use dispatch;

/// What a function makes of the values of contiguous tensors, all of f32 or all of f64; the name is for the error.
macro_rules! together {
    ($name:literal, $f:expr, $(($x:ident, $layout:ident)),*) => {
        match ($($x),*) {
            ($(candle_core::CpuStorage::F32($x)),*) => {
                candle_core::CpuStorage::F32($f($($crate::nn::real::contiguous($x, $layout)?),*))
            }
            ($(candle_core::CpuStorage::F64($x)),*) => {
                candle_core::CpuStorage::F64($f($($crate::nn::real::contiguous($x, $layout)?),*))
            }
            _ => candle_core::bail!("{}: expected tensors of f32, or all of f64", $name),
        }
    };
}
pub(crate) use together;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_standard_library() {
        let (mut worst_sigmoid, mut worst_tanh) = (0f64, 0f64);
        for i in -400_000..=400_000 {
            let x = i as f32 * 1e-4 + 3e-6;
            let exact = f64::from(x);
            let sigmoid = 1.0 / (1.0 + (-exact).exp());
            worst_sigmoid = worst_sigmoid.max((f64::from(x.sigmoid()) - sigmoid).abs() / sigmoid);
            worst_tanh = worst_tanh.max((f64::from(Real::tanh(x)) - exact.tanh()).abs() / exact.tanh().abs());
        }
        assert!(worst_sigmoid < 5e-7 && worst_tanh < 5e-7, "{worst_sigmoid:e} {worst_tanh:e}");
    }

    #[test]
    fn ends_are_flat_and_nan_is_kept() {
        for (x, sigmoid, tanh) in [(1e30f32, 1.0, 1.0), (f32::INFINITY, 1.0, 1.0), (-1e30, 0.0, -1.0), (0.0, 0.5, 0.0)]
        {
            assert!((x.sigmoid() - sigmoid).abs() < 1e-37, "{}", x.sigmoid());
            assert_eq!(Real::tanh(x), tanh);
        }
        assert!(f32::NAN.sigmoid().is_nan() && Real::tanh(f32::NAN).is_nan());
        assert_eq!(Real::tanh(1e-20f32), 1e-20);
    }
}
