//! Canonical correlation analysis at the size of MNIST halves (54,000 pairs, 392 + 392 pixels) and of the Wikipedia set (2,173 pairs,
//! 128 + 10 features).
//!
//! Multiplications and additions that are counted, for `n` pairs of `p` and `q` columns: two covariances and the cross-covariance
//! `n (p² + q² + 2 p q)`; with random Fourier features `m` in the place of `p` and `q`, and `2 n m (p + q)` for the features; the exact
//! kernel way `2 n² (p + q) + 4 n³`. Decompositions count as overhead.
//!
//! `BENCH_ONCE=linear|rff|exact` runs one of them once and prints seconds and the process's peak memory.

#![allow(clippy::disallowed_methods, missing_docs, reason = "criterion's macro; nothing random is drawn here")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use xmbench_datasets::{Matrix, random::Seed};
use xmbench_methods::linalg::{
    cca::{self, Components, Options, Ridge},
    kernel::{
        Kernel,
        cca::{self as exact, Penalty},
        fourier::Fourier,
        median_distance,
    },
};

const PAIRS: usize = 54_000;
const PIXELS: usize = 392;
const FEATURES: usize = 1500;
const FEW: usize = 2173;
const COMPONENTS: Components = Components::Exactly(50);

/// Two views that share 20 sources.
fn views(n: usize, p: usize, q: usize) -> (Matrix, Matrix) {
    let mut stream = Seed(1).stream(&["bench", "cca"]);
    let (mut x, mut y) = (Matrix::zeros(n, p), Matrix::zeros(n, q));
    for i in 0..n {
        let shared: Vec<f64> = (0..20).map(|_| stream.normal()).collect();
        for view in [&mut x, &mut y] {
            let row = view.row_mut(i).iter_mut().enumerate();
            row.for_each(|(j, value)| *value = (shared[j % 20] + stream.normal()) as f32);
        }
    }
    (x, y)
}

fn diagonal(n: usize) -> Vec<(u32, u32)> {
    (0..n as u32).map(|i| (i, i)).collect()
}

fn linear(x: &Matrix, y: &Matrix, pairs: &[(u32, u32)]) -> Vec<f64> {
    let options = Options { components: COMPONENTS, ridge: Ridge::Absolute(1e-4), ..Options::default() };
    cca::fit(x, y, pairs, &options).expect("random views vary").singular_values
}

fn rff(x: &Matrix, y: &Matrix, pairs: &[(u32, u32)]) -> Vec<f64> {
    let map = |rows: &Matrix, label: &str| {
        let sigma = median_distance(rows, &mut Seed(1).stream(&["median", label])).expect("rows differ");
        let mut stream = Seed(1).stream(&["features", label]);
        let map = Fourier::draw(0.5 / (sigma * sigma), rows.cols, FEATURES, &mut stream);
        map.apply(rows).expect("the width is that of the map")
    };
    linear(&map(x, "x"), &map(y, "y"), pairs)
}

fn exact(x: &Matrix, y: &Matrix, pairs: &[(u32, u32)]) -> Vec<f64> {
    let gram = |rows: &Matrix, label: &str| {
        let sigma = median_distance(rows, &mut Seed(1).stream(&["median", label])).expect("rows differ");
        Kernel::rbf(sigma).gram(rows, rows).expect("one width")
    };
    let penalty = Penalty::kappa(0.01 * (pairs.len() as f64 - 1.0));
    let (kx, ky) = (gram(x, "x"), gram(y, "y"));
    exact::fit(&kx, &ky, pairs, penalty, Components::Exactly(10)).expect("random views vary").singular_values
}

type Solve = fn(&Matrix, &Matrix, &[(u32, u32)]) -> Vec<f64>;

/// Name, solver, pairs, columns, multiplications and additions.
fn cases() -> [(&'static str, Solve, [usize; 3], u64); 3] {
    let (n, p, m, few) = (PAIRS as u64, PIXELS as u64, FEATURES as u64, FEW as u64);
    [
        ("linear", linear, [PAIRS, PIXELS, PIXELS], 4 * n * p * p),
        ("rff", rff, [PAIRS, PIXELS, PIXELS], 4 * n * m * p + 4 * n * m * m),
        ("exact", exact, [FEW, 128, 10], 2 * few * few * 138 + 4 * few * few * few),
    ]
}

fn all(c: &mut Criterion) {
    if let Ok(wanted) = std::env::var("BENCH_ONCE") {
        return once(&wanted);
    }
    for (name, solve, [n, p, q], operations) in cases() {
        let ((x, y), pairs) = (views(n, p, q), diagonal(n));
        let mut group = c.benchmark_group("cca");
        group.sample_size(10).measurement_time(Duration::from_secs(5)).throughput(Throughput::Elements(operations));
        group.bench_function(name, |bench| bench.iter(|| black_box(solve(&x, &y, &pairs))));
    }
}

fn once(wanted: &str) {
    for (name, solve, [n, p, q], _) in cases().into_iter().filter(|case| case.0 == wanted) {
        let ((x, y), pairs) = (views(n, p, q), diagonal(n));
        let start = Instant::now();
        black_box(solve(&x, &y, &pairs));
        let seconds = start.elapsed().as_secs_f64();
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("VmHWM: unknown");
        println!("{name} {seconds:.3} s, {peak}");
    }
}

criterion_group!(benches, all);
criterion_main!(benches);
