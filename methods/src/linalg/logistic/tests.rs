use xmbench_datasets::random::Seed;

use super::*;

const MULTINOMIAL: Scheme = Scheme::Multinomial;

fn options(c: f64, scheme: Scheme) -> Options {
    Options { c, scheme }
}

fn single(classes: &[u32]) -> Vec<Vec<u32>> {
    classes.iter().map(|&class| vec![class]).collect()
}

/// `n` rows of `d` values around a centre a class, and the classes.
fn clusters(n: usize, d: usize, count: usize) -> (Mat<f64>, Vec<Vec<u32>>) {
    let mut stream = Seed(3).stream(&["logistic"]);
    let centres = Mat::from_fn(count, d, |_, _| stream.normal());
    let x = Mat::from_fn(n, d, |i, j| centres[(i % count, j)] + 1.5 * stream.normal());
    (x, (0..n).map(|i| vec![(i % count) as u32]).collect())
}

/// Equation (2), term by term.
fn objective(x: &Mat<f64>, classes: &[Vec<u32>], c: f64, w: &Mat<f64>, b: &[f64]) -> f64 {
    let mut sum = 0.0;
    for (i, own) in classes.iter().enumerate() {
        let score = |k: usize| b[k] + (0..x.ncols()).map(|j| x[(i, j)] * w[(j, k)]).sum::<f64>();
        let denominator: f64 = (0..b.len()).map(|k| score(k).exp()).sum();
        sum -= own.iter().map(|&k| (score(k as usize).exp() / denominator).ln()).sum::<f64>() / own.len().max(1) as f64;
    }
    let penalty: f64 = (0..w.ncols()).flat_map(|k| (0..w.nrows()).map(move |j| (j, k))).map(|at| w[at] * w[at]).sum();
    sum + penalty / (2.0 * c)
}

/// scikit-learn 1.9.1, `LogisticRegression(C=2, tol=1e-14)`, softmax and one-vs-rest.
#[test]
fn a_small_example_has_the_coefficients_of_scikit_learn() {
    let rows = [[0.0, 1.0], [1.0, 0.5], [2.0, 2.0], [3.0, -1.0], [0.5, -2.0], [-1.0, 0.0], [-2.0, 1.5], [1.5, 1.5]];
    let x = Mat::from_fn(8, 2, |i, j| rows[i][j]);
    let classes = single(&[0, 1, 2, 1, 0, 2, 2, 0]);
    let weights = [
        (
            MULTINOMIAL,
            [[-0.082567032115, -0.221919290581], [0.758881177353, -0.420063022594], [-0.676314145238, 0.641982313174]],
        ),
        (
            Scheme::OneVsRest,
            [[-0.002134422813, -0.224578564679], [0.917115576828, -0.402509094914], [-0.735645316507, 0.805181579488]],
        ),
    ];
    let biases = [[0.638696303206, -0.809641403506, 0.1709451003], [-0.420484440827, -1.952392803498, -0.687381136712]];
    let posteriors =
        [[0.449852033063, 0.118429145917, 0.431718821020], [0.359317005674, 0.123573741188, 0.414729501704]];
    let row = Mat::from_fn(1, 2, |_, j| [0.3, 0.7][j]);
    for (((scheme, weights), bias), posterior) in weights.into_iter().zip(biases).zip(posteriors) {
        let fitted = fit(x.as_ref(), &classes, 3, &options(2.0, scheme)).unwrap();
        let found = fitted.posterior(row.as_ref()).unwrap();
        let sum: f64 = posterior.iter().sum();
        for k in 0..3 {
            assert!((0..2).all(|j| (fitted.weights[(j, k)] - weights[k][j]).abs() < 1e-9), "{fitted:?}");
            assert!((fitted.bias[k] - bias[k]).abs() < 1e-9, "{fitted:?}");
            assert!((found[(0, k)] - posterior[k] / sum).abs() < 1e-9, "{found:?}");
        }
    }
}

#[test]
fn features_that_say_nothing_leave_the_frequencies() {
    let x = Mat::from_fn(10, 3, |_, _| 0.0);
    let classes = single(&[0, 0, 0, 0, 0, 0, 1, 1, 1, 2]);
    let fitted = fit(x.as_ref(), &classes, 3, &options(1.0, MULTINOMIAL)).unwrap();
    let posterior = fitted.posterior(x.as_ref()).unwrap();
    for (k, frequency) in [0.6, 0.3, 0.1].into_iter().enumerate() {
        assert!((posterior[(4, k)] - frequency).abs() < 1e-12);
    }
    assert_eq!(fitted.weights, Mat::<f64>::zeros(3, 3));
}

/// At the minimum, central differences of the objective vanish in every direction, for single and multiple classes.
#[test]
fn the_objective_is_flat_at_the_solution_and_higher_around_it() {
    let (x, mut classes) = clusters(40, 4, 3);
    for shared in [false, true] {
        if shared {
            (0..40).step_by(3).for_each(|i| classes[i] = vec![0, 1 + (i as u32 / 3) % 2]);
            (0..40).step_by(5).for_each(|i| classes[i].clear());
        }
        let labelled: Vec<usize> = (0..40).filter(|&i| !classes[i].is_empty()).collect();
        let kept = Mat::from_fn(labelled.len(), 4, |i, j| x[(labelled[i], j)]);
        let of: Vec<Vec<u32>> = labelled.iter().map(|&i| classes[i].clone()).collect();
        for c in [0.01, 1.0, 100.0] {
            let Logistic { weights, bias, .. } = fit(x.as_ref(), &classes, 3, &options(c, MULTINOMIAL)).unwrap();
            let least = objective(&kept, &of, c, &weights, &bias);
            for j in 0..5 {
                for k in 0..3 {
                    let moved = |by: f64| {
                        let (mut weights, mut bias) = (weights.clone(), bias.clone());
                        if j < 4 {
                            weights[(j, k)] += by
                        } else {
                            bias[k] += by
                        }
                        objective(&kept, &of, c, &weights, &bias)
                    };
                    let slope = (moved(1e-4) - moved(-1e-4)) / 2e-4;
                    assert!(slope.abs() < 1e-6, "C = {c}, entry ({j}, {k}): slope {slope}");
                    assert!(moved(0.05) > least && moved(-0.05) > least);
                }
            }
        }
    }
}

#[test]
fn wide_rows_are_solved_in_their_span() {
    let (x, classes) = clusters(15, 60, 3);
    let found = fit(x.as_ref(), &classes, 3, &options(0.5, MULTINOMIAL)).unwrap();
    // The same without the rotation.
    let targets = Mat::from_fn(15, 3, |i, k| f64::from(u8::from(i % 3 == k)));
    let plain = minimise(&Problem::new(with_ones(x.as_ref()), targets, 0.5).unwrap()).unwrap();
    for k in 0..3 {
        assert!((found.bias[k] - plain[(60, k)]).abs() < 1e-8);
        assert!((0..60).all(|j| (found.weights[(j, k)] - plain[(j, k)]).abs() < 1e-8));
    }
}

#[test]
fn badly_scaled_constant_and_repeated_columns_converge() {
    let (x, classes) = clusters(60, 3, 3);
    let odd = Mat::from_fn(60, 6, |i, j| match j {
        0 => 1e6 * x[(i, 0)],
        1 => 1e-6 * x[(i, 1)],
        2 | 3 => x[(i, 2)],
        4 => 7.0,
        _ => 0.0,
    });
    for c in [1e-3, 1.0, 1e6] {
        let fitted = fit(odd.as_ref(), &classes, 3, &options(c, MULTINOMIAL)).unwrap();
        for k in 0..3 {
            assert!(
                (fitted.weights[(2, k)] - fitted.weights[(3, k)]).abs() < 1e-6 * (1.0 + fitted.weights[(2, k)].abs())
            );
            // What the bias does for free, a penalised constant column need not do; a zero column cannot.
            assert!(fitted.weights[(4, k)].abs() < 1e-6 && fitted.weights[(5, k)] == 0.0, "{fitted:?}");
        }
    }
}

#[test]
fn separable_classes_converge_for_a_weak_penalty() {
    let x = Mat::from_fn(8, 1, |i, _| i as f64);
    let classes = single(&[0, 0, 0, 0, 1, 1, 1, 1]);
    for scheme in [MULTINOMIAL, Scheme::OneVsRest] {
        let fitted = fit(x.as_ref(), &classes, 2, &options(1e6, scheme)).unwrap();
        let posterior = fitted.posterior(x.as_ref()).unwrap();
        assert!(posterior[(3, 0)] > 0.999 && posterior[(4, 1)] > 0.999, "{posterior:?}");
    }
}

#[test]
fn a_class_without_training_items_has_posterior_zero() {
    let (x, classes) = clusters(20, 3, 2);
    let shifted: Vec<Vec<u32>> = classes.iter().map(|own| vec![own[0] * 2]).collect();
    for scheme in [MULTINOMIAL, Scheme::OneVsRest] {
        let two = fit(x.as_ref(), &classes, 2, &options(1.0, scheme)).unwrap().posterior(x.as_ref()).unwrap();
        let three = fit(x.as_ref(), &shifted, 3, &options(1.0, scheme)).unwrap().posterior(x.as_ref()).unwrap();
        for i in 0..20 {
            assert_eq!(three[(i, 1)], 0.0);
            assert!((three[(i, 0)] - two[(i, 0)]).abs() < 1e-12 && (three[(i, 2)] - two[(i, 1)]).abs() < 1e-12);
        }
    }
}

#[test]
fn what_has_no_solution_is_named() {
    let (mut x, classes) = clusters(12, 2, 3);
    let error = |classes: &[Vec<u32>], options: Options| fit(x.as_ref(), classes, 3, &options).unwrap_err().to_string();
    assert!(error(&vec![vec![1]; 12], options(1.0, MULTINOMIAL)).contains("at least 2 classes, found 1 of 12 items"));
    assert!(error(&vec![vec![]; 12], options(1.0, MULTINOMIAL)).contains("found 0 of 0 items"));
    assert!(error(&classes, options(0.0, MULTINOMIAL)).contains("a C above 0, found 0"));
    assert!(error(&classes[..5], options(1.0, MULTINOMIAL)).contains("5 for 12 rows"));
    assert!(error(&vec![vec![0, 7]; 12], options(1.0, MULTINOMIAL)).contains("classes below 3, found 7"));
    let always: Vec<Vec<u32>> = (0..12).map(|i| if i == 0 { vec![0] } else { vec![0, 1] }).collect();
    assert!(error(&always, options(1.0, Scheme::OneVsRest)).contains("class 0 in every training item"));
    x[(4, 1)] = f64::NAN;
    let error = fit(x.as_ref(), &classes, 3, &options(1.0, MULTINOMIAL)).unwrap_err().to_string();
    assert!(error.contains("finite features, found NaN in row 4, column 1"), "{error}");
}

#[test]
fn log_loss_is_the_mean_over_labelled_rows() {
    let posterior = Mat::from_fn(3, 2, |i, k| [[0.5, 0.5], [0.2, 0.8], [1.0, 0.0]][i][k]);
    let loss = log_loss(&posterior, &[vec![0], vec![0, 1], vec![]]);
    assert!((loss - (2f64.ln() - 0.5 * (0.2f64.ln() + 0.8f64.ln())) / 2.0).abs() < 1e-12);
    assert!((log_loss(&posterior, &[vec![], vec![], vec![1]]) - 1e-15f64.ln().abs()).abs() < 1e-9);
    assert_eq!(log_loss(&posterior, &[vec![], vec![], vec![]]), 0.0);
}
