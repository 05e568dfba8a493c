use candle_core::Var;
use xmbench_datasets::{Matrix, random::Seed};

use super::*;
use crate::linalg::cca::{self, Options, Ridge};

const PAPER: CanonicalCorrelation =
    CanonicalCorrelation { top: None, ridge: [1e-3, 2e-3], epsilon: 1e-9, objective: Objective::Paper };

/// Two views of 30 rows and 5 and 4 columns that share two directions.
fn views() -> [Mat<f64>; 2] {
    let mut stream = Seed(11).stream(&["views"]);
    let shared = Mat::from_fn(30, 2, |_, _| stream.normal());
    let mut view = |columns: usize| {
        Mat::from_fn(30, columns, |i, j| shared[(i, j % 2)] * (1.0 + j as f64) + (j as f64 + 0.5) * stream.normal())
    };
    [view(5), view(4)]
}

fn solve(settings: &CanonicalCorrelation, [first, second]: &[Mat<f64>; 2]) -> Correlated {
    settings.solve(first.as_ref(), second.as_ref()).unwrap()
}

#[test]
fn gradients_are_those_of_finite_differences() {
    for top in [None, Some(4), Some(2), Some(1)] {
        for objective in [Objective::Paper, Objective::Released] {
            let settings = CanonicalCorrelation { top, objective, ..PAPER };
            let at = views();
            let gradients = solve(&settings, &at).gradients();
            for (k, gradient) in gradients.iter().enumerate() {
                for i in 0..gradient.nrows() {
                    for j in 0..gradient.ncols() {
                        let moved = |by: f64| {
                            let mut moved = at.clone();
                            moved[k][(i, j)] += by;
                            solve(&settings, &moved).value
                        };
                        let difference = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                        assert!((gradient[(i, j)] - difference).abs() < 1e-9, "{} {difference}", gradient[(i, j)]);
                    }
                }
            }
        }
    }
}

#[test]
fn singular_values_are_those_of_linear_cca() {
    let at = views();
    let rows = |m: &Mat<f64>| Matrix {
        rows: m.nrows(),
        cols: m.ncols(),
        data: (0..m.nrows()).flat_map(|i| (0..m.ncols()).map(move |j| m[(i, j)] as f32)).collect(),
    };
    let pairs: Vec<(u32, u32)> = (0..30).map(|i| (i, i)).collect();
    let options = Options { ridge: Ridge::Absolute(1e-3), ..Options::default() };
    let exact = cca::fit(&rows(&at[0]), &rows(&at[1]), &pairs, &options).unwrap();
    let solved = solve(&CanonicalCorrelation { ridge: [1e-3; 2], ..PAPER }, &at);
    for (a, b) in solved.singular_values.iter().zip(&exact.singular_values) {
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }
    assert!((solved.value - solved.singular_values.iter().sum::<f64>()).abs() < 1e-12);
}

#[test]
fn equal_and_zero_singular_values_have_finite_gradients() {
    // The same view twice: without a ridge every singular value is 1, the maximum, so the gradient is 0.
    let [first, _] = views();
    let twice = [first.clone(), first.clone()];
    let bare = CanonicalCorrelation { ridge: [0.0; 2], ..PAPER };
    let solved = solve(&bare, &twice);
    assert!((solved.value - 5.0).abs() < 1e-10);
    for gradient in solved.gradients() {
        assert!((0..30).all(|i| (0..5).all(|j| gradient[(i, j)].abs() < 1e-10)));
    }
    // One direction in two columns (rank 4), and a constant second view: nothing correlates.
    let mut copied = first.clone();
    (0..30).for_each(|i| copied[(i, 4)] = copied[(i, 0)]);
    let solved = solve(&bare, &[copied.clone(), first]);
    assert!((solved.value - 4.0).abs() < 1e-9);
    assert!(solved.gradients().iter().all(|gradient| gradient.norm_l2().is_finite()));
    let flat = solve(&PAPER, &[copied, Mat::from_fn(30, 3, |_, _| 7.0)]);
    assert!(flat.value.abs() < 1e-12 && flat.gradients().iter().all(|gradient| gradient.norm_l2() < 1e-9));
}

#[test]
fn bad_input_is_named() {
    let [first, second] = views();
    let error = |settings: &CanonicalCorrelation, first: &Mat<f64>, second: &Mat<f64>| {
        settings.solve(first.as_ref(), second.as_ref()).err().unwrap().to_string()
    };
    let mut nan = first.clone();
    nan[(3, 2)] = f64::NAN;
    assert!(error(&PAPER, &nan, &second).contains("column 2 of the first view"));
    assert!(error(&PAPER, &first, &second.subrows(0, 29).to_owned()).contains("found 30 and 29"));
    assert!(error(&CanonicalCorrelation { top: Some(5), ..PAPER }, &first, &second).contains("1 to 4 singular values"));
    let bare = CanonicalCorrelation { ridge: [0.0; 2], ..PAPER };
    assert!(error(&bare, &first, &Mat::from_fn(30, 2, |_, _| 1.0)).contains("constant second view"));
}

#[test]
fn tensors_of_f32_get_the_gradient_of_the_operation() {
    let at = views();
    let tensor = |m: &Mat<f64>| {
        let values: Vec<f32> = (0..m.nrows()).flat_map(|i| (0..m.ncols()).map(move |j| m[(i, j)] as f32)).collect();
        Var::from_tensor(&Tensor::from_vec(values, (m.nrows(), m.ncols()), &Device::Cpu).unwrap()).unwrap()
    };
    let (first, second) = (tensor(&at[0]), tensor(&at[1]));
    let value = canonical_correlation(&PAPER, &first, &second).unwrap();
    let solved = solve(&PAPER, &at);
    assert!((f64::from(value.to_scalar::<f32>().unwrap()) - solved.value).abs() < 1e-5);
    let grads = (value * 3.0).unwrap().backward().unwrap();
    for (var, expected) in [&first, &second].into_iter().zip(solved.gradients()) {
        let grad = grads.get(var).unwrap().to_vec2::<f32>().unwrap();
        for (i, row) in grad.iter().enumerate() {
            for (j, value) in row.iter().enumerate() {
                assert!((f64::from(*value) - 3.0 * expected[(i, j)]).abs() < 1e-6);
            }
        }
    }
}
