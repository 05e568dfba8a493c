//! Exact search against a plain implementation, in one run: `cargo bench -p xmbench --bench retrieval`.
//!
//! Criterion's own figures are elements a second: floating point operations for dense codes, compared codes for binary ones. The
//! lines behind them add what is read from memory, and the ratio to the plain implementation (one query after another, a scan,
//! a sorted list of the best), which the same threads share.

use std::{
    cell::Cell,
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{Criterion, SamplingMode, Throughput};
use rayon::prelude::*;
use xmbench::{
    protocol::Direction,
    retrieval::{Index, index},
};
use xmbench_datasets::{Matrix, random::Seed};
use xmbench_methods::{Bits, Codes, Similarity};

const K: usize = 10;
const QUERIES: usize = 1000;
/// Queries of the plain implementation, whose time grows with their number alone.
const PLAIN: usize = 64;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    dense(&mut criterion);
    for bits in [64, 128] {
        binary(&mut criterion, bits);
    }
    criterion.final_summary();
}

/// Fastest time of a function under criterion, in seconds; none if a filter left it out.
fn time(criterion: &mut Criterion, group: &str, name: &str, elements: u64, mut run: impl FnMut()) -> Option<f64> {
    let fastest = Cell::new(Duration::MAX);
    let mut group = criterion.benchmark_group(group);
    group.sample_size(10).sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(elements));
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(5));
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|times| {
            let mut total = Duration::ZERO;
            for _ in 0..times {
                let start = Instant::now();
                run();
                let taken = start.elapsed();
                fastest.set(fastest.get().min(taken));
                total += taken;
            }
            total
        });
    });
    group.finish();
    Some(fastest.get()).filter(|fastest| *fastest < Duration::MAX).map(|fastest| fastest.as_secs_f64())
}

/// The best `k`, kept in a sorted list; earlier items first among equals.
fn plain<S: PartialOrd + Copy>(gallery: usize, score: impl Fn(usize) -> S) -> Vec<(S, usize)> {
    let mut best: Vec<(S, usize)> = Vec::with_capacity(K + 1);
    for item in 0..gallery {
        let score = score(item);
        if best.len() < K || score > best[K - 1].0 {
            best.insert(best.partition_point(|(other, _)| *other >= score), (score, item));
            best.truncate(K);
        }
    }
    best
}

fn normal(label: &str, rows: usize, cols: usize) -> Matrix {
    let chunk = |row: usize| {
        let mut stream = Seed(1).stream(&[label, &row.to_string()]);
        (0..cols).map(move |_| stream.normal() as f32).collect::<Vec<f32>>()
    };
    Matrix { rows, cols, data: (0..rows).into_par_iter().flat_map_iter(chunk).collect() }
}

fn search(index: &dyn Index, queries: &Codes, rows: usize) {
    black_box(index.search(queries, 0..rows, K).expect("codes of one kind and width"));
}

fn dense(criterion: &mut Criterion) {
    let (gallery, width) = (200_000, 256);
    let (images, texts) = (normal("queries", QUERIES, width), normal("gallery", gallery, width));
    let (queries, codes) = (Codes::Dense(images.clone()), Codes::Dense(texts.clone()));
    let built = index(&codes, Similarity::Dot, Direction::I2t).expect("finite codes");
    let group = format!("dense top-{K} of {gallery} x {width}");
    let flops = |rows: usize| (2 * rows * gallery * width) as u64;
    let batch = time(criterion, &group, "1000 queries", flops(QUERIES), || search(&*built, &queries, QUERIES));
    let single = time(criterion, &group, "1 query", flops(1), || search(&*built, &queries, 1));
    let slow = time(criterion, &group, "plain, 64 queries", flops(PLAIN), || {
        let dot =
            |query: usize, item: usize| images.row(query).iter().zip(texts.row(item)).map(|(a, b)| a * b).sum::<f32>();
        black_box((0..PLAIN).into_par_iter().map(|query| plain(gallery, |item| dot(query, item))).collect::<Vec<_>>());
    });
    let bytes = (gallery * width * 4) as f64;
    if let (Some(batch), Some(single), Some(slow)) = (batch, single, slow) {
        println!(
            "{group}: {:.1} GFLOP/s in a batch of {QUERIES}, one query reads {:.1} GB/s, {:.1} times the plain scan's {:.1} GFLOP/s",
            flops(QUERIES) as f64 / batch / 1e9,
            bytes / single / 1e9,
            slow / PLAIN as f64 / (batch / QUERIES as f64),
            flops(PLAIN) as f64 / slow / 1e9,
        );
    }
}

fn binary(criterion: &mut Criterion, bits: usize) {
    let gallery = 1_000_000;
    let draw = |label: &str, rows: usize| {
        let mut stream = Seed(1).stream(&[label]);
        Bits { bits, words: (0..rows * bits.div_ceil(64)).map(|_| stream.bits()).collect() }
    };
    let (images, texts) = (draw("queries", QUERIES), draw("gallery", gallery));
    let (queries, codes) = (Codes::Binary(images.clone()), Codes::Binary(texts.clone()));
    let built = index(&codes, Similarity::Hamming, Direction::I2t).expect("binary codes");
    let group = format!("Hamming top-{K} of {gallery} x {bits} bits");
    let pairs = |rows: usize| (rows * gallery) as u64;
    let batch = time(criterion, &group, "1000 queries", pairs(QUERIES), || search(&*built, &queries, QUERIES));
    let single = time(criterion, &group, "1 query", pairs(1), || search(&*built, &queries, 1));
    let slow = time(criterion, &group, "plain, 64 queries", pairs(PLAIN), || {
        let distance = |query: usize, item: usize| {
            let differing = images.item(query).iter().zip(texts.item(item)).map(|(a, b)| (a ^ b).count_ones());
            -(differing.sum::<u32>() as i32)
        };
        black_box(
            (0..PLAIN).into_par_iter().map(|query| plain(gallery, |item| distance(query, item))).collect::<Vec<_>>(),
        );
    });
    let bytes = (gallery * bits / 8) as f64;
    if let (Some(batch), Some(single), Some(slow)) = (batch, single, slow) {
        println!(
            "{group}: {:.2} Gcodes/s in a batch of {QUERIES}, {:.1} GB/s of codes; one query reads {:.1} GB/s; {:.1} times the plain scan's {:.2} Gcodes/s",
            pairs(QUERIES) as f64 / batch / 1e9,
            bytes * QUERIES as f64 / batch / 1e9,
            bytes / single / 1e9,
            slow / PLAIN as f64 / (batch / QUERIES as f64),
            pairs(PLAIN) as f64 / slow / 1e9,
        );
    }
}
