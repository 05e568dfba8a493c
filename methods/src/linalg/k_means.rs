//! Clusters of vectors by k-means: Lloyd's iteration (1982) from the seeds of Arthur and Vassilvitskii (SODA 2007, "k-means++").
//!
//! ```text
//! first seed: any row;  each next one: row i with probability D_i^2 / sum D^2, D_i its distance to the nearest seed     (1)
//! a_i = argmin_c |x_i - m_c|,  the first of equals                                                                     (2)
//! m_c = mean of the rows with a_i = c                                                                                  (3)
//! ```
//! (2) and (3) in turn, until no row moves. A cluster that loses its last row takes the row that lies farthest from its centre.

use rayon::prelude::*;
use xmbench_datasets::{Matrix, random::Stream};

use super::{
    gemm::{Mat, MatMut, gemm},
    select,
};
use crate::{Error, Result};

/// Turns at most; a row rarely moves after the first thirty.
const ITERATIONS: usize = 100;
/// Rows whose distances to all centres are held at once.
const BLOCK: usize = 1024;

/// Rows in clusters.
#[derive(Debug, Clone, PartialEq)]
pub struct Clusters {
    /// The cluster of each row.
    pub assignment: Vec<u32>,
    /// `[clusters, width]`.
    pub centres: Matrix,
}

/// Puts rows into `clusters` clusters. Distances are computed in f64; for equal rows, clusters and stream the result is the
/// same to the bit whatever the number of threads. With fewer different rows than clusters, some clusters stay empty.
///
/// # Errors
/// No clusters or more than rows, or values that are not finite.
pub fn k_means(rows: &Matrix, clusters: usize, stream: &mut Stream) -> Result<Clusters> {
    if clusters == 0 || clusters > rows.rows {
        return Err(Error::Numeric(format!(
            "k-means: expected 1 to {} clusters, as many as rows at most, found {clusters}",
            rows.rows
        )));
    }
    if let Some(at) = rows.data.iter().position(|value| !value.is_finite()) {
        let (row, column) = (at / rows.cols, at % rows.cols);
        return Err(Error::Numeric(format!(
            "k-means: expected finite values, found {} in row {row}, column {column}; check the features",
            rows.data[at]
        )));
    }
    let mut centres = seeds(rows, clusters, stream);
    let (mut assignment, mut distances) = nearest(rows, &centres);
    for _ in 0..ITERATIONS {
        refill(&mut assignment, &distances, clusters);
        centres = means(rows, &assignment, &centres);
        let (next, far) = nearest(rows, &centres);
        let settled = next == assignment;
        (assignment, distances) = (next, far);
        if settled {
            break;
        }
    }
    Ok(Clusters { assignment, centres })
}

/// Equation (1).
fn seeds(rows: &Matrix, clusters: usize, stream: &mut Stream) -> Matrix {
    let mut chosen = vec![stream.below(rows.rows)];
    let mut distances = vec![f64::INFINITY; rows.rows];
    while chosen.len() < clusters {
        let last = rows.row(chosen[chosen.len() - 1]);
        distances.par_iter_mut().enumerate().for_each(|(i, nearest)| {
            let differences = rows.row(i).iter().zip(last).map(|(&x, &c)| f64::from(x) - f64::from(c));
            *nearest = nearest.min(differences.map(|d| d * d).sum());
        });
        let mut left = stream.unit() * distances.iter().sum::<f64>();
        let far = (0..rows.rows).filter(|&i| distances[i] > 0.0);
        // Rounding may leave something behind the last row; without distances any row is as good.
        let mut next = None;
        for i in far {
            next = Some(i);
            left -= distances[i];
            if left < 0.0 {
                break;
            }
        }
        chosen.push(next.unwrap_or_else(|| stream.below(rows.rows)));
    }
    select(rows, &chosen)
}

/// Equation (2), and the squared distance of each row to its centre.
fn nearest(rows: &Matrix, centres: &Matrix) -> (Vec<u32>, Vec<f64>) {
    let (width, clusters) = (rows.cols, centres.rows);
    // About the first centre: far from the origin, the squares below would leave nothing of a small distance.
    let origin: Vec<f64> = centres.row(0).iter().map(|&value| f64::from(value)).collect();
    let moved = |values: &[f32]| -> Vec<f64> {
        values.iter().enumerate().map(|(at, &value)| f64::from(value) - origin[at % width]).collect()
    };
    let square = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>();
    let wide = moved(&centres.data);
    let squares: Vec<f64> = (0..clusters).map(|c| square(&wide[c * width..][..width])).collect();
    let (mut assignment, mut distances) = (Vec::with_capacity(rows.rows), Vec::with_capacity(rows.rows));
    for start in (0..rows.rows).step_by(BLOCK) {
        let len = BLOCK.min(rows.rows - start);
        let block = moved(&rows.data[start * width..][..len * width]);
        let mut products = vec![0.0; len * clusters];
        let to = MatMut::new(&mut products, len, clusters);
        gemm(1.0, Mat::new(&block, len, width), Mat::new(&wide, clusters, width).t(), 0.0, to);
        let best = |i: usize| {
            let products = &products[i * clusters..][..clusters];
            // |x - c|^2 without |x|^2, which is the same for all.
            let (mut at, mut least) = (0, squares[0] - 2.0 * products[0]);
            for c in 1..clusters {
                let value = squares[c] - 2.0 * products[c];
                if value < least {
                    (at, least) = (c, value);
                }
            }
            (at as u32, (least + square(&block[i * width..][..width])).max(0.0))
        };
        let found: Vec<(u32, f64)> = (0..len).into_par_iter().map(best).collect();
        assignment.extend(found.iter().map(|found| found.0));
        distances.extend(found.iter().map(|found| found.1));
    }
    (assignment, distances)
}

/// Gives every empty cluster the row that lies farthest from its centre among those that are not alone, one row each.
fn refill(assignment: &mut [u32], distances: &[f64], clusters: usize) {
    let mut sizes = vec![0usize; clusters];
    assignment.iter().for_each(|&c| sizes[c as usize] += 1);
    let empty: Vec<usize> = (0..clusters).filter(|&c| sizes[c] == 0).collect();
    if empty.is_empty() {
        return;
    }
    let mut farthest: Vec<usize> = (0..assignment.len()).filter(|&i| distances[i] > 0.0).collect();
    // A stable sort: the first of equals.
    farthest.sort_by(|&a, &b| distances[b].total_cmp(&distances[a]));
    let mut farthest = farthest.into_iter();
    for cluster in empty {
        let Some(row) = farthest.find(|&i| sizes[assignment[i] as usize] > 1) else { return };
        sizes[assignment[row] as usize] -= 1;
        sizes[cluster] = 1;
        assignment[row] = cluster as u32;
    }
}

/// Equation (3); the centre of an empty cluster stays.
fn means(rows: &Matrix, assignment: &[u32], before: &Matrix) -> Matrix {
    let mut centres = before.clone();
    let mut members = vec![Vec::new(); before.rows];
    assignment.iter().enumerate().for_each(|(i, &c)| members[c as usize].push(i));
    centres.data.par_chunks_mut(rows.cols.max(1)).zip(&members).filter(|(_, members)| !members.is_empty()).for_each(
        |(centre, members)| {
            let mut sums = vec![0.0f64; centre.len()];
            for &i in members {
                sums.iter_mut().zip(rows.row(i)).for_each(|(sum, &value)| *sum += f64::from(value));
            }
            let n = members.len() as f64;
            centre.iter_mut().zip(sums).for_each(|(value, sum)| *value = (sum / n) as f32);
        },
    );
    centres
}

#[cfg(test)]
mod tests {
    use xmbench_datasets::random::Seed;

    use super::*;

    fn stream(label: &str) -> Stream {
        Seed(6).stream(&["k-means", label])
    }

    /// Row `i` lies about corner `i % 4` of a square of side 10, far from the origin.
    fn planted(n: usize) -> Matrix {
        let mut stream = stream("planted");
        let corner =
            |i: usize| [if i % 4 < 2 { 1000.0 } else { 1010.0 }, if i.is_multiple_of(2) { -500.0 } else { -490.0 }];
        let data = (0..n).flat_map(corner).map(|value| (value + 0.5 * stream.normal()) as f32).collect();
        Matrix { rows: n, cols: 2, data }
    }

    #[test]
    fn planted_clusters_are_found_from_every_seed() {
        let rows = planted(2000);
        for seed in 0..10 {
            let found = k_means(&rows, 4, &mut Seed(seed).stream(&["k-means"])).unwrap();
            for i in 0..2000 {
                assert_eq!(found.assignment[i], found.assignment[i % 4], "seed {seed}, row {i}");
            }
            for (i, corner) in
                [[1000.0, -500.0], [1000.0, -490.0], [1010.0, -500.0], [1010.0, -490.0]].iter().enumerate()
            {
                let centre = found.centres.row(found.assignment[i] as usize);
                // The mean of 500 values of deviation 0.5 has one of 0.022.
                assert!(centre.iter().zip(corner).all(|(a, b): (&f32, &f32)| (a - b).abs() < 0.1), "{centre:?}");
            }
        }
    }

    #[test]
    fn few_points_have_the_best_clusters() {
        // 0, 1 | 10, 11, 12 | 30.
        let rows = Matrix { rows: 6, cols: 1, data: vec![0.0, 30.0, 11.0, 1.0, 10.0, 12.0] };
        let found = k_means(&rows, 3, &mut stream("few")).unwrap();
        let centre = |i: usize| found.centres.row(found.assignment[i] as usize)[0];
        assert_eq!([0, 1, 2, 3, 4, 5].map(centre), [0.5, 30.0, 11.0, 0.5, 11.0, 11.0]);
        let one = k_means(&rows, 1, &mut stream("few")).unwrap();
        assert_eq!((one.centres.data, one.assignment), (vec![64.0f32 / 6.0], vec![0; 6]));
        let mut all = k_means(&rows, 6, &mut stream("few")).unwrap();
        all.centres.data.sort_by(f32::total_cmp);
        assert_eq!(all.centres.data, [0.0, 1.0, 10.0, 11.0, 12.0, 30.0]);
    }

    #[test]
    fn an_empty_cluster_takes_the_farthest_row_that_is_not_alone() {
        let mut assignment = vec![0, 0, 0, 3];
        refill(&mut assignment, &[1.0, 5.0, 2.0, 9.0], 5);
        assert_eq!(assignment, [0, 1, 2, 3]);
        // Rows that lie on their centre stay.
        let mut assignment = vec![0, 0];
        refill(&mut assignment, &[0.0, 0.0], 2);
        assert_eq!(assignment, [0, 0]);
    }

    #[test]
    fn equal_rows_share_a_cluster_and_leave_the_others_empty() {
        let rows = Matrix { rows: 5, cols: 2, data: [[1.0, 2.0]; 5].concat() };
        let found = k_means(&rows, 3, &mut stream("equal")).unwrap();
        assert_eq!((found.assignment, found.centres.data), (vec![0; 5], [[1.0f32, 2.0]; 3].concat()));
    }

    #[test]
    fn threads_change_no_bit_and_seeds_do() {
        let mut values = stream("values");
        let rows = Matrix { rows: 1500, cols: 7, data: (0..1500 * 7).map(|_| values.normal() as f32).collect() };
        let compute = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| k_means(&rows, 20, &mut stream("threads")).unwrap())
        };
        let one = compute(1);
        assert!([2, 4].into_iter().all(|threads| compute(threads) == one));
        assert!(k_means(&rows, 20, &mut stream("other")).unwrap() != one);
        // Every row is in the cluster of its nearest centre, and there is none without a row.
        let distance = |i: usize, c: usize| -> f64 {
            rows.row(i).iter().zip(one.centres.row(c)).map(|(&a, &b)| f64::from(a - b).powi(2)).sum()
        };
        for (i, &own) in one.assignment.iter().enumerate() {
            assert!((0..20).all(|c| distance(i, own as usize) <= distance(i, c) + 1e-5), "row {i}");
        }
        assert!((0..20).all(|c| one.assignment.contains(&c)));
    }

    #[test]
    fn what_cannot_be_clustered_is_an_error() {
        let error = |rows: &Matrix, clusters| k_means(rows, clusters, &mut stream("error")).unwrap_err().to_string();
        let mut rows = Matrix::zeros(3, 2);
        assert!(error(&rows, 4).contains("expected 1 to 3 clusters"));
        assert!(error(&rows, 0).contains("found 0"));
        rows.data[5] = f32::NAN;
        assert!(error(&rows, 2).contains("found NaN in row 2, column 1"));
    }
}
