use xmbench_datasets::random::{Seed, Stream};

use super::*;
use crate::linalg::checks::{close, diagonal};

/// `n` pairs of views of 6 and 5 columns whose canonical correlations are `rho` in the population, mixed by fixed matrices.
fn planted(n: usize, rho: &[f64], stream: &mut Stream) -> (Matrix, Matrix) {
    let (p, q) = (6, 5);
    let mixing = |cols: usize, i: usize, j: usize| if i == j { 2.0 } else { ((i * cols + 3 * j) as f64).sin() };
    let (mut x, mut y) = (Matrix::zeros(n, p), Matrix::zeros(n, q));
    for row in 0..n {
        let a: Vec<f64> = (0..p).map(|_| stream.normal()).collect();
        let b: Vec<f64> = (0..q)
            .map(|j| rho.get(j).map_or(stream.normal(), |r| r * a[j] + (1.0 - r * r).sqrt() * stream.normal()))
            .collect();
        for j in 0..p {
            x.row_mut(row)[j] = (3.0 + (0..p).map(|i| a[i] * mixing(p, i, j)).sum::<f64>()) as f32;
        }
        for j in 0..q {
            y.row_mut(row)[j] = (0..q).map(|i| b[i] * mixing(q, i, j)).sum::<f64>() as f32;
        }
    }
    (x, y)
}

fn random(n: usize, p: usize, label: &str) -> Matrix {
    let mut stream = Seed(11).stream(&["cca", label]);
    Matrix { rows: n, cols: p, data: (0..n * p).map(|_| stream.normal() as f32).collect() }
}

fn close_weights(a: &Cca, b: &Cca, tolerance: f64) {
    for (a, b) in [(&a.x, &b.x), (&a.y, &b.y)] {
        assert!((&a.weights - &b.weights).norm_max() < tolerance * b.weights.norm_max());
    }
}

#[test]
fn planted_correlations_are_found() {
    let rho = [0.9, 0.6, 0.3];
    let (x, y) = planted(40_000, &rho, &mut Seed(5).stream(&["planted"]));
    let cca = fit(&x, &y, &diagonal(x.rows), &Options::default()).unwrap();
    close(&cca.singular_values[..3], &rho, 0.012);
    assert_eq!(cca.singular_values.len(), 5);
    assert!(cca.singular_values[3] < 0.03);
}

#[test]
fn linnerud_has_the_textbook_correlations() {
    // Physiological (weight, waist, pulse) against exercise (chins, sit-ups, jumps) of 20 men; SAS manual, PROC CANCORR.
    #[rustfmt::skip]
    let body = [191, 36, 50, 189, 37, 52, 193, 38, 58, 162, 35, 62, 189, 35, 46, 182, 36, 56, 211, 38, 56, 167, 34, 60, 176, 31, 74,
        154, 33, 56, 169, 34, 50, 166, 33, 52, 154, 34, 64, 247, 46, 50, 193, 36, 46, 202, 37, 62, 176, 37, 54, 157, 32, 52,
        156, 33, 54, 138, 33, 68];
    #[rustfmt::skip]
    let exercise = [5, 162, 60, 2, 110, 60, 12, 101, 101, 12, 105, 37, 13, 155, 58, 4, 101, 42, 8, 101, 38, 6, 125, 40, 15, 200, 40,
        17, 251, 250, 17, 120, 38, 13, 210, 115, 14, 215, 105, 1, 50, 50, 6, 70, 31, 12, 210, 120, 4, 60, 25, 11, 230, 80,
        15, 225, 73, 2, 110, 43];
    let matrix = |values: [i32; 60]| Matrix { rows: 20, cols: 3, data: values.iter().map(|&v| v as f32).collect() };
    let cca = fit(&matrix(body), &matrix(exercise), &diagonal(20), &Options::default()).unwrap();
    close(&cca.singular_values, &[0.7956082, 0.2005560, 0.0725703], 1e-7);
    close(&cca.correlations, &cca.singular_values, 1e-10);
}

#[test]
fn savings_have_the_textbook_correlations() {
    // 50 countries, 1960 to 1970: shares of people under 15 and over 75 against savings ratio, income and its growth (Belsley, Kuh,
    // Welsch 1980; data `LifeCycleSavings` and the example of `cancor` in R).
    #[rustfmt::skip]
    let age = [29.35, 2.87, 23.32, 4.41, 23.80, 4.43, 41.89, 1.67, 42.19, 0.83, 31.72, 2.85, 39.74, 1.34, 44.75, 0.67, 46.64, 1.06,
        47.64, 1.14, 24.42, 3.93, 46.31, 1.19, 27.84, 2.37, 25.06, 4.70, 23.31, 3.35, 25.62, 3.10, 46.05, 0.87, 47.32, 0.58,
        34.03, 3.08, 41.31, 0.96, 31.16, 4.19, 24.52, 3.48, 27.01, 1.91, 41.74, 0.91, 21.80, 3.73, 32.54, 2.47, 25.95, 3.67,
        24.71, 3.25, 32.61, 3.17, 45.04, 1.21, 43.56, 1.20, 41.18, 1.05, 44.19, 1.28, 46.26, 1.12, 28.96, 2.85, 31.94, 2.28,
        31.92, 1.52, 27.74, 2.87, 21.44, 4.54, 23.49, 3.73, 43.42, 1.08, 46.12, 1.21, 23.27, 4.46, 29.81, 3.43, 46.40, 0.90,
        45.25, 0.56, 41.12, 1.73, 28.13, 2.72, 43.69, 2.07, 47.20, 0.66];
    #[allow(clippy::approx_constant, reason = "a savings ratio of 6.28 is no circle")]
    #[rustfmt::skip]
    let savings = [11.43, 2329.68, 2.87, 12.07, 1507.99, 3.93, 13.17, 2108.47, 3.82, 5.75, 189.13, 0.22, 12.88, 728.47, 4.56,
        8.79, 2982.88, 2.43, 0.60, 662.86, 2.67, 11.90, 289.52, 6.51, 4.98, 276.65, 3.08, 10.78, 471.24, 2.80, 16.85, 2496.53, 3.99,
        3.59, 287.77, 2.19, 11.24, 1681.25, 4.32, 12.64, 2213.82, 4.52, 12.55, 2457.12, 3.44, 10.67, 870.85, 6.28, 3.01, 289.71, 1.48,
        7.70, 232.44, 3.19, 1.27, 1900.10, 1.12, 9.00, 88.94, 1.54, 11.34, 1139.95, 2.99, 14.28, 1390.00, 3.54, 21.10, 1257.28, 8.21,
        3.98, 207.68, 5.81, 10.35, 2449.39, 1.57, 15.48, 601.05, 8.12, 10.25, 2231.03, 3.62, 14.65, 1740.70, 7.66, 10.67, 1487.52, 1.76,
        7.30, 325.54, 2.48, 4.44, 568.56, 3.61, 2.02, 220.56, 1.03, 12.70, 400.06, 0.67, 12.78, 152.01, 2.00, 12.49, 579.51, 7.48,
        11.14, 651.11, 2.19, 13.30, 250.96, 2.00, 11.77, 768.79, 4.35, 6.86, 3299.49, 3.01, 14.13, 2630.96, 2.70, 5.13, 389.66, 2.96,
        2.81, 249.87, 1.13, 7.81, 1813.93, 2.01, 7.56, 4001.89, 2.45, 9.22, 813.39, 0.53, 18.56, 138.33, 5.14, 7.72, 380.47, 10.23,
        9.24, 766.54, 1.88, 8.89, 123.58, 16.71, 4.71, 242.69, 5.08];
    let matrix = |cols: usize, values: &[f32]| Matrix { rows: 50, cols, data: values.to_vec() };
    let cca = fit(&matrix(2, &age), &matrix(3, &savings), &diagonal(50), &Options::default()).unwrap();
    close(&cca.singular_values, &[0.8247966, 0.3652762], 1e-5);
}

#[test]
fn primal_and_dual_agree() {
    for ridge in [Ridge::Absolute(0.1), Ridge::Shrinkage(0.3), Ridge::Relative(0.5)] {
        for (n, p, q) in [(40, 12, 9), (12, 30, 25), (20, 30, 7)] {
            let (x, y) = (random(n, p, "x"), random(n, q, "y"));
            let with = |form| {
                let components = Components::Exactly(5);
                fit(&x, &y, &diagonal(n), &Options { components, ridge, form, ..Options::default() }).unwrap()
            };
            let (primal, dual) = (with(Form::Primal), with(Form::Dual));
            close(&primal.singular_values, &dual.singular_values, 1e-9);
            close(&primal.correlations, &dual.correlations, 1e-9);
            close_weights(&primal, &dual, 1e-9);
        }
    }
}

#[test]
fn without_ridge_linear_maps_change_nothing() {
    let (x, y) = planted(300, &[0.8, 0.5], &mut Seed(6).stream(&["planted"]));
    let mut mapped = x.clone();
    for i in 0..x.rows {
        let row = x.row(i).to_vec();
        for (j, value) in mapped.row_mut(i).iter_mut().enumerate() {
            *value = 4.0 * row[j] - row[(j + 1) % 6] + 100.0;
        }
    }
    let options = Options::default();
    let plain = fit(&x, &y, &diagonal(300), &options).unwrap();
    let other = fit(&mapped, &y, &diagonal(300), &options).unwrap();
    close(&plain.singular_values, &other.singular_values, 1e-5);
}

#[test]
fn scale_matters_to_an_absolute_ridge_alone() {
    let (x, y) = planted(300, &[0.8, 0.5], &mut Seed(6).stream(&["planted"]));
    let scaled = Matrix { data: x.data.iter().map(|v| v * 64.0).collect(), ..x.clone() };
    let both = |ridge, standardise| {
        let options = Options { ridge, standardise, ..Options::default() };
        let fit = |x| fit(x, &y, &diagonal(300), &options).unwrap().singular_values;
        (fit(&x), fit(&scaled))
    };
    let (a, b) = both(Ridge::Relative(0.3), false);
    close(&a, &b, 1e-10);
    let (a, b) = both(Ridge::Absolute(0.3), true);
    close(&a, &b, 1e-10);
    let (a, b) = both(Ridge::Absolute(3.0), false);
    assert!((a[0] - b[0]).abs() > 0.01);
}

#[test]
fn an_item_of_several_pairs_counts_as_often() {
    let (x, y) = (random(30, 5, "x"), random(60, 4, "y"));
    let pairs: Vec<(u32, u32)> = (0..60u32).filter(|j| j % 7 != 0).map(|j| (j % 29, j)).collect();
    let repeated = |view: &Matrix, rows: Vec<u32>| Matrix {
        rows: rows.len(),
        cols: view.cols,
        data: rows.iter().flat_map(|&row| view.row(row as usize).to_vec()).collect(),
    };
    let long_x = repeated(&x, pairs.iter().map(|p| p.0).collect());
    let long_y = repeated(&y, pairs.iter().map(|p| p.1).collect());
    for form in [Form::Primal, Form::Dual] {
        for standardise in [false, true] {
            let options = Options { ridge: Ridge::Relative(0.01), form, standardise, ..Options::default() };
            let short = fit(&x, &y, &pairs, &options).unwrap();
            let long = fit(&long_x, &long_y, &diagonal(pairs.len()), &options).unwrap();
            close(&short.singular_values, &long.singular_values, 1e-10);
            close_weights(&short, &long, 1e-8);
            close(&short.x.mean, &long.x.mean, 1e-12);
        }
    }
}

#[test]
fn correlations_are_those_of_the_projections() {
    let (x, y) = (random(50, 6, "x"), random(50, 4, "y"));
    for ridge in [Ridge::Absolute(0.5), Ridge::Shrinkage(0.4), Ridge::Relative(0.0)] {
        let cca = fit(&x, &y, &diagonal(50), &Options { ridge, ..Options::default() }).unwrap();
        let (u, v) = (cca.x.apply(&x).unwrap(), cca.y.apply(&y).unwrap());
        for k in 0..4 {
            let dot = |a: &Mat<f64>, b: &Mat<f64>| (0..50).map(|i| a[(i, k)] * b[(i, k)]).sum::<f64>();
            let pearson = dot(&u, &v) / (dot(&u, &u) * dot(&v, &v)).sqrt();
            assert!((pearson - cca.correlations[k]).abs() < 1e-10);
        }
    }
}

#[test]
fn null_directions_and_constant_columns_are_dropped() {
    let (mut x, y) = (random(200, 6, "x"), random(200, 5, "y"));
    for i in 0..200 {
        let row = x.row_mut(i);
        row[4] = 7.0;
        row[5] = 1.0 - row[..4].iter().sum::<f32>();
    }
    let options = |components| Options { components, standardise: true, ..Options::default() };
    let cca = fit(&x, &y, &diagonal(200), &options(Components::AtMost(9))).unwrap();
    assert_eq!(cca.singular_values.len(), 4);
    assert!(cca.singular_values[0] < 0.5);
    let error = fit(&x, &y, &diagonal(200), &options(Components::Exactly(5))).unwrap_err().to_string();
    assert!(error.contains("at most 4 components (ranks of the views: 4 and 5), found 5"), "{error}");
}

#[test]
fn threads_do_not_change_a_bit() {
    let (x, y) = (random(1500, 150, "x"), random(1500, 140, "y"));
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| fit(&x, &y, &diagonal(1500), &Options::default()).unwrap())
    };
    assert_eq!(with(1), with(2));
    assert_eq!(with(1), with(4));
}

#[test]
fn bad_input_is_named() {
    let (mut x, y) = (random(10, 3, "x"), random(10, 3, "y"));
    let error = |x: &Matrix, pairs: &[(u32, u32)], ridge| {
        fit(x, &y, pairs, &Options { ridge, ..Options::default() }).unwrap_err().to_string()
    };
    let plain = Ridge::Absolute(0.0);
    assert!(error(&x, &[(0, 0)], plain).contains("at least 2 pairs, found 1"));
    assert!(error(&x, &[(0, 0), (3, 10)], plain).contains("pairs within 10 and 10 rows, found (3, 10)"));
    assert!(error(&x, &diagonal(10), Ridge::Absolute(-1.0)).contains("found -1"));
    assert!(error(&x, &diagonal(10), Ridge::Shrinkage(1.5)).contains("[0, 1], found 1.5"));
    assert!(error(&Matrix::zeros(10, 3), &diagonal(10), plain).contains("constant first view"));
    x.row_mut(4)[1] = f32::NAN;
    assert!(error(&x, &diagonal(10), plain).contains("NaN in the first view, row 4, column 1"));
}
