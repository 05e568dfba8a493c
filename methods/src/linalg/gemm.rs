//! Matrix products into a caller's buffer: `C <- alpha A B + beta C`, row-major, f32 or f64, on all threads of rayon.
//!
//! ```
//! use xmbench_methods::linalg::gemm::{Mat, MatMut, gemm};
//! let (a, b) = ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]);
//! let mut c = [0.0; 4];
//! // A B^T
//! gemm(1.0, Mat::new(&a, 2, 2), Mat::new(&b, 2, 2).t(), 0.0, MatMut::new(&mut c, 2, 2));
//! assert_eq!(c, [17.0, 23.0, 39.0, 53.0]);
//! ```
//!
//! The bits of a product do not depend on the number of threads: the work is cut along rows and columns of `C`, never along
//! the sum. Nothing is allocated beside the packing buffers of the `gemm` crate, whose only caller this is.

/// An element type: f32 or f64.
pub trait Float: Copy + PartialEq + Send + Sync + 'static {
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
}

impl Float for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
}

impl Float for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
}

/// A matrix to be read: element `(i, j)` is `data[i * row_stride + j * column_stride]`.
#[derive(Debug, Clone, Copy)]
pub struct Mat<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    strides: (usize, usize),
}

/// A matrix to be written; a row's elements are neighbours.
#[derive(Debug)]
pub struct MatMut<'a, T> {
    data: &'a mut [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

/// Values that a strided matrix spans.
fn span(rows: usize, cols: usize, (row, column): (usize, usize)) -> usize {
    if rows == 0 || cols == 0 { 0 } else { (rows - 1) * row + (cols - 1) * column + 1 }
}

impl<'a, T> Mat<'a, T> {
    /// `rows * cols` values, row after row.
    ///
    /// # Panics
    /// If `data` is shorter than that.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// Rows that start `row_stride` values apart: a block of the columns of a wider matrix.
    ///
    /// # Panics
    /// If `data` ends before the last row does.
    pub fn strided(data: &'a [T], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(data.len() >= span(rows, cols, (row_stride, 1)), "{} values for [{rows}, {cols}]", data.len());
        Self { data, rows, cols, strides: (row_stride, 1) }
    }

    /// The transpose; nothing is moved.
    #[must_use]
    pub fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, strides: (self.strides.1, self.strides.0), ..self }
    }
}

impl<'a, T> MatMut<'a, T> {
    /// `rows * cols` values, row after row.
    ///
    /// # Panics
    /// If `data` is shorter than that.
    pub fn new(data: &'a mut [T], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// Rows that start `row_stride` values apart.
    ///
    /// # Panics
    /// If `data` ends before the last row does, or if rows overlap.
    pub fn strided(data: &'a mut [T], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(data.len() >= span(rows, cols, (row_stride, 1)), "{} values for [{rows}, {cols}]", data.len());
        assert!(rows < 2 || row_stride >= cols, "rows of {cols} values that start {row_stride} apart overlap");
        Self { data, rows, cols, row_stride }
    }
}

/// `c <- alpha a b + beta c` on all threads; with `beta` 0 the old content of `c` is not read, so it may be NaN.
///
/// # Panics
/// If the shapes do not fit.
pub fn gemm<T: Float>(alpha: T, a: Mat<'_, T>, b: Mat<'_, T>, beta: T, c: MatMut<'_, T>) {
    product(alpha, a, b, beta, c, gemm::Parallelism::Rayon(0));
}

/// [`gemm()`] on the calling thread alone, for loops that are parallel outside.
///
/// # Panics
/// If the shapes do not fit.
pub fn gemm_serial<T: Float>(alpha: T, a: Mat<'_, T>, b: Mat<'_, T>, beta: T, c: MatMut<'_, T>) {
    product(alpha, a, b, beta, c, gemm::Parallelism::None);
}

fn product<T: Float>(alpha: T, a: Mat<'_, T>, b: Mat<'_, T>, beta: T, c: MatMut<'_, T>, threads: gemm::Parallelism) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    assert!(
        b.rows == k && c.rows == m && c.cols == n,
        "[{m}, {k}] times [{}, {n}] into [{}, {}]",
        b.rows,
        c.rows,
        c.cols
    );
    // SAFETY: the constructors checked that every (i, j) within the shape lies inside its slice, the rows of `c` do not
    // overlap, and `c` is borrowed exclusively.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.data.as_mut_ptr(),
            1,
            c.row_stride as isize,
            beta != T::ZERO,
            a.data.as_ptr(),
            a.strides.1 as isize,
            a.strides.0 as isize,
            b.data.as_ptr(),
            b.strides.1 as isize,
            b.strides.0 as isize,
            beta,
            alpha,
            false,
            false,
            false,
            threads,
        );
    }
}

#[cfg(test)]
mod tests {
    use xmbench_datasets::random::Seed;

    use super::*;

    fn draw(label: &str, n: usize) -> Vec<f64> {
        let mut stream = Seed(3).stream(&[label]);
        (0..n).map(|_| stream.normal()).collect()
    }

    #[test]
    fn agrees_with_the_sum_for_every_transpose_alpha_and_beta() {
        let (m, k, n) = (7, 5, 9);
        for (ta, tb, alpha, beta) in
            [(false, false, 1.0, 0.0), (true, false, 2.0, 1.0), (false, true, -1.0, 0.5), (true, true, 0.5, 1.0)]
        {
            let (a, b, c) = (draw("a", m * k), draw("b", k * n), draw("c", m * n));
            let view =
                |data, rows, cols, t: bool| if t { Mat::new(data, cols, rows).t() } else { Mat::new(data, rows, cols) };
            let mut out = c.clone();
            gemm(alpha, view(&a, m, k, ta), view(&b, k, n, tb), beta, MatMut::new(&mut out, m, n));
            for i in 0..m {
                for j in 0..n {
                    let at = |p: usize| if ta { a[p * m + i] } else { a[i * k + p] };
                    let bt = |p: usize| if tb { b[j * k + p] } else { b[p * n + j] };
                    let expected = alpha * (0..k).map(|p| at(p) * bt(p)).sum::<f64>() + beta * c[i * n + j];
                    assert!((out[i * n + j] - expected).abs() < 1e-12);
                }
            }
        }
    }

    #[test]
    fn strides_leave_the_columns_beside_alone_and_beta_zero_ignores_nan() {
        let (a, b) = ([1.0f32, 2.0, 9.0, 3.0, 4.0, 9.0], [1.0f32, 0.0, 0.0, 1.0]);
        let mut out = [f32::NAN, f32::NAN, 7.0, f32::NAN, f32::NAN, 7.0];
        gemm(1.0, Mat::strided(&a, 2, 2, 3), Mat::new(&b, 2, 2), 0.0, MatMut::strided(&mut out, 2, 2, 3));
        assert_eq!(out, [1.0, 2.0, 7.0, 3.0, 4.0, 7.0]);
    }

    #[test]
    fn an_empty_sum_is_zero() {
        let mut out = [3.0f64; 4];
        gemm(1.0, Mat::new(&[], 2, 0), Mat::new(&[], 0, 2), 0.0, MatMut::new(&mut out, 2, 2));
        assert_eq!(out, [0.0; 4]);
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        for (m, k, n) in [(128, 1024, 768), (37, 333, 1000), (1, 2048, 512), (600, 64, 1), (700, 700, 5)] {
            let narrow = |label: &str, len| draw(label, len).into_iter().map(|x| x as f32).collect::<Vec<_>>();
            let (a, b) = (narrow("a", m * k), narrow("b", k * n));
            let compute = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let mut out = vec![0f32; m * n];
                pool.install(|| gemm(1.0, Mat::new(&a, m, k), Mat::new(&b, k, n), 0.0, MatMut::new(&mut out, m, n)));
                out
            };
            let one = compute(1);
            assert!([2, 3, 4].into_iter().all(|threads| compute(threads) == one), "[{m}, {k}] times [{k}, {n}]");
        }
    }
}
