use faer::Mat;

use super::*;
use crate::{
    hashing::checks::{bit, codes, collection, fitted, matrix, noise, saving_keeps_every_bit},
    linalg::{Cholesky, cca, inputs::Inputs, multiply, to_f64},
    method::Silent,
};

/// Column `k` of the Hadamard matrix of order 8: balanced and orthogonal to the others for `k` from 1.
fn sign(i: usize, k: usize) -> f64 {
    if (i & k).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 }
}

#[test]
fn bits_are_the_signs_of_known_directions_in_order_of_correlation() {
    // Correlations 0.8 and 0.6 along known axes.
    let images = matrix(8, 2, |i, j| sign(i, [2, 1][j]));
    let texts = matrix(8, 2, |i, j| match j {
        0 => 0.8 * sign(i, 1) + 0.6 * sign(i, 3),
        _ => 0.6 * sign(i, 2) + 0.8 * sign(i, 4),
    });
    let train = collection(images, texts);
    let matcher = fitted(&Cvh, &train, &toml::toml! { bits = 2 ridge = 0 }).unwrap();
    let [images, texts] = codes(&*matcher, &train);
    for i in 0..8 {
        assert_eq!(bit(&images, i, 0) == bit(&images, 0, 0), sign(i, 1) > 0.0);
        assert_eq!(bit(&images, i, 1) == bit(&images, 0, 1), sign(i, 2) > 0.0);
        assert_eq!(bit(&images, i, 0), bit(&texts, i, 0));
        // 0.6 against 0.8: the noise has the last word.
        assert_eq!(bit(&texts, i, 1) == bit(&texts, 0, 1), sign(i, 4) > 0.0);
    }
    saving_keeps_every_bit(&Cvh, &*matcher, &train);
}

#[test]
fn directions_solve_the_generalised_eigenproblem() {
    let (x, shared) = (noise("x", 60, 4), noise("y", 60, 3));
    let y = matrix(60, 3, |i, j| f64::from(shared.row(i)[j] + x.row(i)[j]));
    let train = collection(x.clone(), y.clone());
    let directions = Directions { bits: 3, ridge: 2.0, ..Directions::default() };
    let training = Training { dataset: "toy", train: &train, val: None, vocabulary: 0, classes: 0 };
    let (stop, mut silent) = (std::sync::atomic::AtomicBool::new(false), Silent);
    let run = Run::new(xmbench_datasets::random::Seed(1), &mut silent, &stop);
    let (_, cca::Cca { x: wx, y: wy, singular_values: rho, .. }): (Inputs, _) =
        directions.fit("cvh", &training, &run).unwrap();
    let centred = |rows: &xmbench_datasets::Matrix, mean: &[f64]| {
        let rows = to_f64(rows);
        Mat::from_fn(rows.nrows(), rows.ncols(), |i, j| rows[(i, j)] - mean[j])
    };
    let (x, y) = (centred(&x, &wx.mean), centred(&y, &wy.mean));
    let ridged = |rows: &Mat<f64>| {
        let mut square = multiply(rows.transpose(), rows.as_ref());
        (0..square.nrows()).for_each(|i| square[(i, i)] += 2.0);
        square
    };
    let (cxx, cyy, cyx) = (ridged(&x), ridged(&y), multiply(y.transpose(), x.as_ref()));
    // Cyy^-1 Cyx Wx, equation (2).
    let mut solved = multiply(cyx.as_ref(), wx.weights.as_ref());
    Cholesky::new(cyy.as_ref()).unwrap().solve(solved.as_mut());
    let (left, right) = (cyx.transpose() * &solved, &cxx * &wx.weights);
    for k in 0..3 {
        for i in 0..4 {
            assert!((left[(i, k)] - rho[k].powi(2) * right[(i, k)]).abs() < 1e-9, "equation (1), {i}, {k}");
        }
        for i in 0..3 {
            assert!((solved[(i, k)] / rho[k] - wy.weights[(i, k)]).abs() < 1e-9, "equation (2), {i}, {k}");
        }
    }
}

#[test]
fn codes_longer_than_there_are_directions_are_refused_or_cut() {
    // Three proportions that sum to 1 have two directions.
    let shared = noise("shares", 40, 2);
    let shares = matrix(40, 3, |i, j| {
        let [a, b] = [0, 1].map(|k| 0.3 + 0.05 * f64::from(shared.row(i)[k]));
        [a, b, 1.0 - a - b][j]
    });
    let other = noise("other", 40, 5);
    let images = matrix(40, 5, |i, j| f64::from(other.row(i)[j] + shared.row(i)[j % 2]));
    let train = collection(images, shares);
    let error = fitted(&Cvh, &train, &toml::toml! { bits = 3 }).err().unwrap().to_string();
    assert!(error.contains("`bits`: expected at most 2, the directions") && error.contains("found 3"), "{error}");
    let cut = fitted(&Cvh, &train, &toml::toml! { bits = 64 longer = "cut" }).unwrap();
    let two = fitted(&Cvh, &train, &toml::toml! { bits = 2 }).unwrap();
    assert_eq!(codes(&*cut, &train), codes(&*two, &train));
    assert_eq!(codes(&*cut, &train)[0].bits, 2);
    assert!(Cvh.remark(&toml::toml! { longer = "cut" }).is_some() && Cvh.remark(&toml::Table::new()).is_none());
}

#[test]
fn a_longer_code_begins_with_the_shorter_one() {
    let (x, shared) = (noise("x", 50, 6), noise("y", 50, 6));
    let y = matrix(50, 6, |i, j| f64::from(shared.row(i)[j] + x.row(i)[j]));
    let train = collection(x, y);
    let [short, long] = [2, 5].map(|bits: i64| {
        let table = toml::Table::from_iter([("bits".to_string(), bits.into())]);
        codes(&*fitted(&Cvh, &train, &table).unwrap(), &train)
    });
    for side in 0..2 {
        assert!((0..50).all(|i| (0..2).all(|b| bit(&short[side], i, b) == bit(&long[side], i, b))));
    }
}

#[test]
fn wrong_parameters_are_named() {
    let error = |table: toml::Table| Cvh.resolve(&table).unwrap_err().to_string();
    assert!(error(toml::toml! { bits = 0 }).contains("`bits`: expected 1 to 4096, found 0"));
    assert!(error(toml::toml! { ridge = -1 }).contains("at least 0, found -1"));
    assert!(error(toml::toml! { longer = "pad" }).contains("longer"));
}
