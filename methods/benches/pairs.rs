//! Pairs a second of everything that compares word by word and region by region, beside the machine's matrix product.
//!
//! `cargo bench -p xmbench-methods --bench pairs`; threads: `RAYON_NUM_THREADS`. The share is that of the products a pair needs at
//! least in this form (14 words, 36 regions) over the largest rate of a square product in the same run.

#![allow(missing_docs, reason = "the macro of criterion makes a public function")]

use std::{hint::black_box, sync::atomic::AtomicBool, time::Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use xmbench_datasets::random::Seed;
use xmbench_methods::{
    Codes, Fragments, Matcher, Run, Similarity, Training,
    linalg::gemm::{Mat, MatMut, gemm},
    method::Silent,
    registry,
};

const REGIONS: usize = 36;
const WORDS: usize = 14;

/// Items of so many vectors of unit length each.
fn codes(label: &str, items: usize, each: usize, dim: usize) -> Codes {
    let mut stream = Seed(5).stream(&["bench", label]);
    let mut data: Vec<f32> = (0..items * each * dim).map(|_| stream.normal() as f32).collect();
    for vector in data.chunks_exact_mut(dim) {
        let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        vector.iter_mut().for_each(|x| *x /= norm);
    }
    Codes::Fragments(Fragments { dim, offsets: (0..=items).map(|item| item * each).collect(), data })
}

/// A matcher that has hardly learnt anything: its speed is that of any other.
fn matcher(method: &str, dim: usize, params: toml::Table) -> Box<dyn Matcher> {
    let options = toml::toml! { train = 32 val = 8 test = 8 };
    let dataset = xmbench_datasets::open("planted-fragments", &options, None).expect("planted");
    let method = registry::find(method).expect("a built-in method");
    let mut table = params;
    for (key, value) in [("embedding", dim), ("epochs", 1), ("batch", 8), ("word", 8)] {
        table.insert(key.into(), toml::Value::Integer(value as i64));
    }
    let (stop, mut silent) = (AtomicBool::new(false), Silent);
    let mut run = Run::new(Seed(1), &mut silent, &stop);
    method.fit(&Training::of(&dataset), &table, &mut run).expect("it fits")
}

/// Operations a second of the largest of three square products.
fn peak() -> f64 {
    const N: usize = 2048;
    let (a, b, mut c) = (vec![1f32; N * N], vec![0.5f32; N * N], vec![0f32; N * N]);
    let once = |c: &mut [f32]| {
        let start = Instant::now();
        gemm(1.0, Mat::new(&a, N, N), Mat::new(&b, N, N), 0.0, MatMut::new(c, N, N));
        2.0 * (N * N * N) as f64 / start.elapsed().as_secs_f64()
    };
    (0..3).map(|_| once(&mut c)).fold(0.0, f64::max)
}

fn pairs(criterion: &mut Criterion) {
    let peak = peak();
    println!("square product: {:.0} GFLOP/s", peak / 1e9);
    for dim in [256, 1024] {
        let (n, k, d) = (WORDS as f64, REGIONS as f64, dim as f64);
        let similarities = 2.0 * n * k * d;
        // Name, parameters, images and texts, vectors before the fragments of either side, operations a pair.
        let rows: [(&str, &str, toml::Table, usize, [usize; 2], f64); 7] = [
            ("scan", "t2i", toml::toml! { aggregation = "Mean" }, 128, [0, 0], similarities + 2.0 * n * k * k),
            (
                "uarda",
                "no masks, direct",
                toml::toml! { content_mask = false query_mask = false scoring = "direct" },
                128,
                [0, 0],
                2.0 * similarities,
            ),
            (
                "uarda",
                "masks, direct",
                toml::toml! { threshold_start = 0.1 threshold_rate = 0.0 scoring = "direct" },
                128,
                [0, 0],
                2.0 * similarities,
            ),
            (
                "uarda",
                "masks, Gram",
                toml::toml! { threshold_start = 0.1 threshold_rate = 0.0 },
                128,
                [0, 0],
                similarities + 2.0 * n * k * k,
            ),
            ("imram", "text, 2 steps", toml::toml! { mode = "text" steps = 2 }, 64, [0, 0], 4.0 * similarities),
            (
                "imram",
                "text, 3 steps",
                toml::toml! { mode = "text" steps = 3 },
                32,
                [0, 0],
                7.0 * similarities + 4.0 * n * d * d,
            ),
            (
                "dime",
                "i2t",
                toml::toml! { direction = "i2t" heads = 16 },
                8,
                [0, 1],
                2.0 * (14.0 * k * d * d + 2048.0 * k * d),
            ),
        ];
        let mut group = criterion.benchmark_group(format!("pairs/d = {dim}"));
        group.sample_size(10);
        for (method, label, params, items, before, operations) in rows {
            let matcher = matcher(method, dim, params);
            let Similarity::Pairwise(scorer) = matcher.similarity() else { unreachable!("these compare pairs") };
            let images = codes("images", items, REGIONS + before[0], dim);
            let texts = codes("texts", items, WORDS + before[1], dim);
            let mut out = vec![0f32; items * items];
            let mut score =
                || scorer.score(&images, 0..items, &texts, 0..items, black_box(&mut out)).expect("codes fit");
            score();
            let start = Instant::now();
            score();
            let rate = (items * items) as f64 / start.elapsed().as_secs_f64();
            println!(
                "{method}, {label}, d = {dim}: {rate:.0} pairs/s, {:.0} % of the product's rate",
                100.0 * rate * operations / peak
            );
            group.throughput(Throughput::Elements((items * items) as u64));
            group.bench_function(format!("{method}, {label}"), |bench| bench.iter(&mut score));
        }
        group.finish();
    }
}

criterion_group!(benches, pairs);
criterion_main!(benches);
