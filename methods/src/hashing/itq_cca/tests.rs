use xmbench_datasets::random::Seed;

use super::*;
use crate::hashing::checks::{codes, collection, fitted, matrix, noise, saving_keeps_every_bit};

fn orthogonal(rotation: &Mat<f64>) -> bool {
    let square = multiply(rotation.transpose(), rotation.as_ref());
    let c = square.nrows();
    (0..c).all(|i| (0..c).all(|j| (square[(i, j)] - f64::from(u8::from(i == j))).abs() < 1e-10))
}

#[test]
fn a_turned_hypercube_is_turned_back() {
    // Corners of a square, turned: taking signs then loses nothing, and any other rotation by less than an eighth of a turn
    // away comes back to it.
    let corners = Mat::from_fn(40, 2, |i, j| if (i >> j) & 1 == 0 { 1.0 } else { -1.0 });
    for degrees in [10.0f64, 30.0, 50.0, 80.0] {
        let (sin, cos) = degrees.to_radians().sin_cos();
        let turn = Mat::from_fn(2, 2, |i, j| [[cos, -sin], [sin, cos]][i][j]);
        let rows = multiply(corners.as_ref(), turn.as_ref());
        let Quantised { rotation, losses } = quantise(&rows, Mat::identity(2, 2), 30).unwrap();
        assert!(orthogonal(&rotation));
        assert!(losses.last().unwrap() < &1e-9, "{degrees}: {losses:?}");
    }
}

#[test]
fn no_round_raises_the_loss() {
    let noise = noise("rows", 300, 8);
    let rows = Mat::from_fn(300, 8, |i, j| f64::from(noise.row(i)[j]) / (1.0 + j as f64));
    let start = rotation(8, &mut Seed(3).stream(&["start"])).unwrap();
    assert!(orthogonal(&start));
    let Quantised { rotation, losses } = quantise(&rows, start, 50).unwrap();
    assert!(orthogonal(&rotation) && losses.len() == 51);
    assert!(losses.is_sorted_by(|a, b| *b <= a + 1e-9), "{losses:?}");
    assert!(losses[50] < 0.99 * losses[0], "{} {}", losses[0], losses[50]);
    // |B - V R|² = n c + |V|² - 2 |V R|_1, since R keeps lengths.
    let turned = multiply(rows.as_ref(), rotation.as_ref());
    let sum: f64 = (0..300).flat_map(|i| (0..8).map(move |j| (i, j))).map(|at| turned[at].abs()).sum();
    assert!((losses[50] - (2400.0 + rows.squared_norm_l2() - 2.0 * sum)).abs() < 1e-6);
}

#[test]
fn one_seed_has_one_code_and_rounds_of_none_keep_the_random_rotation() {
    let (x, shared) = (noise("x", 80, 6), noise("y", 80, 6));
    let y = matrix(80, 6, |i, j| f64::from(0.5 * shared.row(i)[j] + x.row(i)[j]));
    let train = collection(x, y);
    let fit = |table: toml::Table| fitted(&ItqCca, &train, &table).unwrap();
    let found = fit(toml::toml! { bits = 5 });
    assert_eq!(codes(&*found, &train), codes(&*fit(toml::toml! { bits = 5 }), &train));
    assert_ne!(codes(&*found, &train), codes(&*fit(toml::toml! { bits = 5 iterations = 0 }), &train));
    saving_keeps_every_bit(&ItqCca, &*found, &train);
    let error = fitted(&ItqCca, &train, &toml::toml! { bits = 7 }).err().unwrap().to_string();
    assert!(error.contains("at most 6"), "{error}");
    assert_eq!(codes(&*fit(toml::toml! { bits = 7 longer = "cut" }), &train)[1].bits, 6);
}

#[test]
fn wrong_parameters_are_named() {
    let error = |table: toml::Table| ItqCca.resolve(&table).unwrap_err().to_string();
    assert!(error(toml::toml! { power = -1 }).contains("`power`: expected a number of at least 0, found -1"));
    assert!(error(toml::toml! { iterations = 20000 }).contains("at most 10000"));
}
