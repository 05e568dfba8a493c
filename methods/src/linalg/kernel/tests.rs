use xmbench_datasets::random::Seed;

use super::{
    cca::{KernelCca, Penalty},
    fourier::Fourier,
    incomplete::Incomplete,
    *,
};
use crate::linalg::{
    cca::{self as linear, Components, Form, Options, Ridge},
    checks::{close, diagonal},
};

fn random(n: usize, p: usize, label: &str) -> Matrix {
    let mut stream = Seed(21).stream(&["kernel", label]);
    Matrix { rows: n, cols: p, data: (0..n * p).map(|_| stream.normal() as f32).collect() }
}

/// Two views of `n` points on a circle: the angle, which is no linear function of either, with a little noise.
fn circle(n: usize, label: &str) -> (Matrix, Matrix) {
    let mut stream = Seed(22).stream(&["circle", label]);
    let (mut x, mut y) = (Matrix::zeros(n, 2), Matrix::zeros(n, 1));
    for i in 0..n {
        let angle = stream.uniform(-3.0, 3.0);
        let noise = |stream: &mut Stream| 0.05 * stream.normal();
        x.row_mut(i)
            .copy_from_slice(&[(angle.cos() + noise(&mut stream)) as f32, (angle.sin() + noise(&mut stream)) as f32]);
        y.row_mut(i)[0] = (angle * angle + noise(&mut stream)) as f32;
    }
    (x, y)
}

fn exact(kernel: Kernel, x: &Matrix, y: &Matrix, pairs: &[(u32, u32)], penalty: Penalty, d: usize) -> KernelCca {
    let (kx, ky) = (kernel.gram(x, x).unwrap(), kernel.gram(y, y).unwrap());
    cca::fit(&kx, &ky, pairs, penalty, Components::Exactly(d)).unwrap()
}

const KERNELS: [Kernel; 3] =
    [Kernel::Linear, Kernel::Rbf { gamma: 0.3 }, Kernel::Polynomial { gamma: 0.5, offset: 1.0, degree: 3 }];

#[test]
fn grams_hold_the_kernel_of_each_pair() {
    // More rows than a block, so that tiles meet.
    let (a, b) = (random(1100, 3, "a"), random(7, 3, "b"));
    for kernel in KERNELS {
        let (gram, other) = (kernel.gram(&a, &b).unwrap(), kernel.gram(&b, &a).unwrap());
        for i in (0..1100).step_by(77).chain([1023, 1024]) {
            for j in 0..7 {
                let pairs = || a.row(i).iter().zip(b.row(j)).map(|(&x, &y)| (f64::from(x), f64::from(y)));
                let dot: f64 = pairs().map(|(x, y)| x * y).sum();
                let expected = match kernel {
                    Kernel::Linear => dot,
                    Kernel::Rbf { .. } => (-0.3 * pairs().map(|(x, y)| (x - y) * (x - y)).sum::<f64>()).exp(),
                    Kernel::Polynomial { .. } => (0.5 * dot + 1.0).powi(3),
                };
                assert!((gram[(i, j)] - expected).abs() < 1e-10 * expected.abs().max(1.0));
                assert!((other[(j, i)] - expected).abs() < 1e-10 * expected.abs().max(1.0));
            }
        }
        let own = kernel.gram(&b, &b).unwrap();
        close(&kernel.diagonal(&b), &(0..7).map(|i| own[(i, i)]).collect::<Vec<_>>(), 1e-10);
    }
    let error = Kernel::Linear.gram(&a, &random(3, 4, "c")).unwrap_err().to_string();
    assert!(error.contains("expected vectors of 4 values as in training, found 3"), "{error}");
}

#[test]
fn the_median_is_that_of_all_distances_of_few_rows() {
    // Distances 1, 2, 3, 3, 5, 6 and no zeros of equal rows.
    let rows = Matrix { rows: 5, cols: 1, data: vec![0.0, 1.0, 3.0, 6.0, 6.0] };
    let all = [1.0, 2.0, 3.0, 3.0, 3.0, 5.0, 5.0, 6.0, 6.0];
    let median = median_distance(&rows, &mut Seed(1).stream(&["m"])).unwrap();
    assert!((median - all[4]).abs() < 1e-12);
    let equal = Matrix { rows: 3, cols: 2, data: vec![0.3; 6] };
    let error = median_distance(&equal, &mut Seed(1).stream(&["m"])).unwrap_err().to_string();
    assert!(error.contains("the same vector for every item"), "{error}");
    let mut bad = random(4, 2, "bad");
    bad.row_mut(1)[1] = f32::NAN;
    assert!(median_distance(&bad, &mut Seed(1).stream(&["m"])).unwrap_err().to_string().contains("NaN"));
    // The median distance of normal vectors in p dimensions is about sqrt(2 p).
    let median = median_distance(&random(3000, 50, "x"), &mut Seed(1).stream(&["m"])).unwrap();
    assert!((median - 10.0).abs() < 0.2, "{median}");
}

#[test]
fn a_linear_kernel_is_linear_cca() {
    // Two captions for some images, none without a pair.
    let (x, y) = (random(40, 6, "x"), random(55, 4, "y"));
    let pairs: Vec<(u32, u32)> = (0..55u32).map(|j| (j % 40, j)).collect();
    let n = pairs.len() as f64;
    for ridge in [0.3, 0.01] {
        let kernel = exact(Kernel::Linear, &x, &y, &pairs, Penalty::kappa(ridge * (n - 1.0)), 4);
        let options = Options { ridge: Ridge::Absolute(ridge), form: Form::Primal, ..Options::default() };
        let linear = linear::fit(&x, &y, &pairs, &options).unwrap();
        close(&kernel.singular_values, &linear.singular_values, 1e-10);
        close(&kernel.correlations, &linear.correlations, 1e-10);
        // New vectors go to the same place, but for the length of a component: wᵀ (S + r I) w = 1 there, (n - 1) times that here.
        let new = random(9, 6, "new");
        let (ours, theirs) =
            (kernel.x.apply(Kernel::Linear.gram(&new, &x).unwrap().as_ref()), linear.x.apply(&new).unwrap());
        for k in 0..4 {
            let sign = (ours[(0, k)] * theirs[(0, k)]).signum() * (n - 1.0).sqrt();
            (0..9).for_each(|i| assert!((sign * ours[(i, k)] - theirs[(i, k)]).abs() < 1e-9));
        }
    }
}

#[test]
fn an_item_of_several_pairs_counts_as_often() {
    let (x, y) = (random(20, 3, "x"), random(31, 2, "y"));
    let pairs: Vec<(u32, u32)> = (0..31u32).map(|j| (j * 7 % 20, j)).collect();
    let data = pairs.iter().flat_map(|&(i, _)| x.row(i as usize).to_vec()).collect();
    let long = Matrix { rows: 31, cols: 3, data };
    let kernel = Kernel::Rbf { gamma: 0.2 };
    for penalty in [Penalty::kappa(2.0), Penalty::Covariance { mix: 0.4, shift: 0.0 }] {
        // The shift of the uncentred form counts coefficients, of which repeated rows have more; without it the two agree.
        let penalty = match penalty {
            Penalty::Covariance { .. } => Penalty::Covariance { mix: 0.4, shift: 1e-9 },
            other => other,
        };
        let (once, repeated) =
            (exact(kernel, &x, &y, &pairs, penalty, 3), exact(kernel, &long, &y, &diagonal(31), penalty, 3));
        let tolerance = if matches!(penalty, Penalty::Covariance { .. }) { 1e-4 } else { 1e-9 };
        close(&once.singular_values, &repeated.singular_values, tolerance);
        close(&once.correlations, &repeated.correlations, tolerance);
    }
}

#[test]
fn a_gaussian_kernel_finds_what_a_linear_one_cannot() {
    let ((x, y), (new_x, new_y)) = (circle(300, "train"), circle(200, "new"));
    let kernel = Kernel::Rbf { gamma: 1.0 };
    let pearson = |fitted: &KernelCca, kernel: Kernel| {
        let u = fitted.x.apply(kernel.gram(&new_x, &x).unwrap().as_ref());
        let v = fitted.y.apply(kernel.gram(&new_y, &y).unwrap().as_ref());
        let mean = |m: &Mat<f64>| (0..200).map(|i| m[(i, 0)]).sum::<f64>() / 200.0;
        let (mu, mv) = (mean(&u), mean(&v));
        let sum = |f: &dyn Fn(f64, f64) -> f64| (0..200).map(|i| f(u[(i, 0)] - mu, v[(i, 0)] - mv)).sum::<f64>();
        sum(&|u, v| u * v) / (sum(&|u, _| u * u) * sum(&|_, v| v * v)).sqrt()
    };
    let gaussian = exact(kernel, &x, &y, &diagonal(300), Penalty::kappa(3.0), 1);
    assert!(pearson(&gaussian, kernel) > 0.98, "{}", pearson(&gaussian, kernel));
    let flat = exact(Kernel::Linear, &x, &y, &diagonal(300), Penalty::kappa(3.0), 1);
    assert!(pearson(&flat, Kernel::Linear) < pearson(&gaussian, kernel) - 0.01);
}

#[test]
fn incomplete_cholesky_rebuilds_the_gram_matrix() {
    let mut rows = random(60, 4, "rows");
    // Repeated rows add nothing.
    for i in 40..60 {
        let copy = rows.row(i - 40).to_vec();
        rows.row_mut(i).copy_from_slice(&copy);
    }
    for (kernel, rank) in KERNELS.into_iter().zip([4, 40, 35]) {
        let gram = kernel.gram(&rows, &rows).unwrap();
        let whole = Incomplete::fit(kernel, &rows, 0.0, 1000).unwrap();
        assert_eq!(whole.rank(), rank, "{kernel:?}");
        let rebuilt = |map: &Incomplete| {
            let features = map.apply(&rows).unwrap();
            Kernel::Linear.gram(&features, &features).unwrap()
        };
        assert!((rebuilt(&whole) - &gram).norm_max() < 1e-5 * gram.norm_max());
        // A part of the trace may be missing, and no more.
        let trace: f64 = (0..60).map(|i| gram[(i, i)]).sum();
        let part = Incomplete::fit(kernel, &rows, 0.2, 1000).unwrap();
        let left: f64 = trace - (0..60).map(|i| rebuilt(&part)[(i, i)]).sum::<f64>();
        assert!(left <= 0.2 * trace * (1.0 + 1e-6) && part.rank() < rank, "{left} of {trace}");
        assert_eq!(Incomplete::fit(kernel, &rows, 0.0, 3).unwrap().rank(), 3);
    }
    let error = Incomplete::fit(Kernel::Linear, &Matrix::zeros(5, 2), 0.0, 5).unwrap_err().to_string();
    assert!(error.contains("positive finite trace, found 0"), "{error}");
}

#[test]
fn fourier_features_have_the_kernel_as_their_mean() {
    let rows = random(30, 5, "rows");
    let gamma = 0.1;
    let gram = Kernel::Rbf { gamma }.gram(&rows, &rows).unwrap();
    let features = Fourier::draw(gamma, 5, 20_000, &mut Seed(3).stream(&["f"])).apply(&rows).unwrap();
    let approximate = Kernel::Linear.gram(&features, &features).unwrap();
    // The deviation of a mean of 20,000 products within [-2, 2] is at most 0.014; the largest of 465 stays within four.
    assert!((approximate - gram).norm_max() < 0.04);
}

#[test]
fn approximations_come_close_to_the_exact_solution() {
    let (x, y) = circle(200, "train");
    let (gamma, ridge) = (0.5, 1e-3);
    let kernel = Kernel::Rbf { gamma };
    let exact = exact(kernel, &x, &y, &diagonal(200), Penalty::kappa(ridge * 199.0), 3);
    let options = Options { components: Components::Exactly(3), ridge: Ridge::Absolute(ridge), ..Options::default() };
    let map = |rows: &Matrix| Incomplete::fit(kernel, rows, 1e-9, 200).unwrap().apply(rows).unwrap();
    let icd = linear::fit(&map(&x), &map(&y), &diagonal(200), &options).unwrap();
    close(&icd.singular_values, &exact.singular_values, 1e-5);
    close(&icd.correlations, &exact.correlations, 1e-5);
    let draw = |rows: &Matrix, label: &str| {
        Fourier::draw(gamma, rows.cols, 2000, &mut Seed(3).stream(&[label])).apply(rows).unwrap()
    };
    let rff = linear::fit(&draw(&x, "x"), &draw(&y, "y"), &diagonal(200), &options).unwrap();
    close(&rff.singular_values, &exact.singular_values, 0.02);
}

#[test]
fn threads_do_not_change_a_bit() {
    let (x, y) = (random(1100, 20, "x"), random(1100, 10, "y"));
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let kernel = Kernel::rbf(median_distance(&x, &mut Seed(1).stream(&["m"])).unwrap());
            let map = Incomplete::fit(kernel, &x, 0.01, 60).unwrap().apply(&x).unwrap();
            let drawn = Fourier::draw(0.1, 10, 70, &mut Seed(1).stream(&["f"])).apply(&y).unwrap();
            let small = |m: &Matrix| Matrix { rows: 300, cols: m.cols, data: m.data[..300 * m.cols].to_vec() };
            (exact(kernel, &small(&x), &small(&y), &diagonal(300), Penalty::kappa(1.0), 5), map, drawn)
        })
    };
    let one = with(1);
    assert!(one == with(2) && one == with(4));
}

#[test]
fn degenerate_kernels_are_refused_or_survived() {
    let (x, y) = (random(12, 2, "x"), random(12, 2, "y"));
    let fit = |x: &Matrix, pairs: &[(u32, u32)], d| {
        let (kx, ky) = (Kernel::Linear.gram(x, x).unwrap(), Kernel::Linear.gram(&y, &y).unwrap());
        cca::fit(&kx, &ky, pairs, Penalty::kappa(0.1), Components::Exactly(d)).map_err(|error| error.to_string())
    };
    let same = Matrix { rows: 12, cols: 2, data: vec![0.5; 24] };
    assert!(fit(&same, &diagonal(12), 1).unwrap_err().contains("a constant one"));
    assert!(fit(&x, &diagonal(1), 1).unwrap_err().contains("at least 2 pairs, found 1"));
    assert!(fit(&x, &diagonal(11), 1).unwrap_err().contains("an item without one"));
    assert!(fit(&x, &diagonal(12), 3).unwrap_err().contains("at most 2 components, found 3"));
    let mut bad = x.clone();
    bad.row_mut(3)[0] = f32::NAN;
    assert!(fit(&bad, &diagonal(12), 1).is_err());
    // A rank-deficient view: the second column repeats the first.
    let mut flat = x.clone();
    (0..12).for_each(|i| flat.row_mut(i)[1] = 2.0 * x.row(i)[0]);
    let found = fit(&flat, &diagonal(12), 1).unwrap();
    assert!(found.singular_values[0] < 1.0 && found.correlations[0].is_finite());
    // An identical view correlates fully, up to the ridge.
    let (kx, own) = (Kernel::Rbf { gamma: 1.0 }, diagonal(12));
    let twin = exact(kx, &x, &x, &own, Penalty::kappa(1e-6), 3);
    close(&twin.correlations, &[1.0; 3], 1e-9);
}
