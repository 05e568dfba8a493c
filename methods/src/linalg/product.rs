use faer::{Accum, Mat, MatMut, MatRef, Par, linalg::matmul::matmul, prelude::ReborrowMut};
use rayon::prelude::*;

/// Columns a tile: a tile is one task on one thread, so that no sum depends on how many threads there are.
const TILE: usize = 128;

/// Columns a task of what is done column by column.
const PIECE: usize = 32;

/// `out += a * b`, `[m, n] += [m, k] * [k, n]`.
///
/// # Panics
/// If the shapes do not fit.
pub fn accumulate(out: MatMut<'_, f64>, a: MatRef<'_, f64>, b: MatRef<'_, f64>) {
    out.par_col_chunks_mut(TILE).enumerate().for_each(|(t, tile)| {
        let columns = b.subcols(t * TILE, tile.ncols());
        matmul(tile, Accum::Add, a, columns, 1.0, Par::Seq);
    });
}

/// `a * b`, `[m, k] * [k, n]`.
///
/// # Panics
/// If the shapes do not fit.
pub fn multiply(a: MatRef<'_, f64>, b: MatRef<'_, f64>) -> Mat<f64> {
    let mut out = Mat::zeros(a.nrows(), b.ncols());
    accumulate(out.as_mut(), a, b);
    out
}

/// `out += aᵀ a` for `a [k, n]`; only what lies on and below the diagonal tiles of `out [n, n]` is written.
///
/// # Panics
/// If the shapes do not fit.
pub fn scatter(out: MatMut<'_, f64>, a: MatRef<'_, f64>) {
    let n = a.ncols();
    out.par_col_chunks_mut(TILE).enumerate().for_each(|(t, tile)| {
        let (start, width) = (t * TILE, tile.ncols());
        let below = tile.subrows_mut(start, n - start);
        matmul(below, Accum::Add, a.subcols(start, n - start).transpose(), a.subcols(start, width), 1.0, Par::Seq);
    });
}

/// Calls `f(j, column)` for every column, on all threads.
pub fn each_column(out: MatMut<'_, f64>, f: impl Fn(usize, &mut [f64]) + Sync) {
    out.par_col_chunks_mut(PIECE).enumerate().for_each(|(t, mut piece)| {
        for j in 0..piece.ncols() {
            let column = piece.rb_mut().col_mut(j).try_as_col_major_mut().expect("columns of a `Mat` are contiguous");
            f(t * PIECE + j, column.as_slice_mut());
        }
    });
}

/// The entry of largest modulus of column `j`; its sign makes a direction that is only known up to sign repeatable.
pub(crate) fn largest(matrix: &Mat<f64>, j: usize) -> f64 {
    matrix.col(j).iter().fold(0.0f64, |a, &b| if b.abs() > a.abs() { b } else { a })
}

/// Turns column `j` around.
pub(crate) fn flip(matrix: &mut Mat<f64>, j: usize) {
    matrix.col_mut(j).iter_mut().for_each(|value| *value = -*value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_add_up_to_the_product() {
        let (m, k, n) = (3, 5, 300);
        let a = Mat::from_fn(m, k, |i, j| (i + 2 * j) as f64);
        let b = Mat::from_fn(k, n, |i, j| (i * 3) as f64 - (j % 7) as f64);
        let product = multiply(a.as_ref(), b.as_ref());
        for i in 0..m {
            for j in 0..n {
                let expected: f64 = (0..k).map(|l| a[(i, l)] * b[(l, j)]).sum();
                assert_eq!(product[(i, j)], expected);
            }
        }
        let mut squared = Mat::zeros(n, n);
        scatter(squared.as_mut(), b.as_ref());
        for j in 0..n {
            for i in j..n {
                assert_eq!(squared[(i, j)], (0..k).map(|l| b[(l, i)] * b[(l, j)]).sum::<f64>());
            }
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let a = Mat::from_fn(70, 333, |i, j| ((i * 37 + j * 11) as f64).sin());
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| multiply(a.transpose(), a.as_ref()))
        };
        assert_eq!(with(1), with(2));
        assert_eq!(with(1), with(4));
    }
}
