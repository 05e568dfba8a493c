//! Stacked cross attention: scoring a gallery from Gram matrices and with attended vectors, and one training step.
//!
//! `cargo bench -p xmbench-methods --bench scan`; threads: `RAYON_NUM_THREADS`.

#![allow(missing_docs, reason = "the macro of criterion makes a public function")]

use std::{hint::black_box, time::Instant};

use candle_core::{Device, Tensor, Var};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use xmbench_datasets::random::Seed;
use xmbench_methods::{
    Codes, Fragments, PairScorer,
    loss::{Relations, hinge},
    nn::{
        Lengths,
        cross::{
            Aggregation, Attention, Contexts, CrossAttention, CrossScorer, Direction, Norm, Relevance, batch_scores,
            composed_scores,
        },
    },
};

const REGIONS: usize = 36;
const DIM: usize = 256;

fn settings(direction: Direction) -> CrossAttention {
    CrossAttention {
        direction,
        attention: Attention { norm: Norm::ClippedL2norm, lambda_softmax: 9.0 },
        relevance: Relevance { aggregation: Aggregation::LogSumExp, lambda_lse: 6.0 },
    }
}

/// Unit vectors, as the encoders make them.
fn vectors(label: &str, n: usize) -> Vec<f32> {
    let mut stream = Seed(5).stream(&["bench", label]);
    let mut data: Vec<f32> = (0..n * DIM).map(|_| stream.normal() as f32).collect();
    for vector in data.chunks_exact_mut(DIM) {
        let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        vector.iter_mut().for_each(|x| *x /= norm);
    }
    data
}

/// Caption lengths from 8 to 18, 13 on average.
fn lengths(n: usize) -> Vec<usize> {
    (0..n).map(|j| 8 + (j * 7) % 11).collect()
}

fn codes(label: &str, lengths: &[usize]) -> Codes {
    let mut offsets = vec![0];
    lengths.iter().for_each(|n| offsets.push(offsets[offsets.len() - 1] + n));
    Codes::Fragments(Fragments { dim: DIM, data: vectors(label, offsets[lengths.len()]), offsets })
}

/// Best of three, in seconds.
fn seconds(mut run: impl FnMut()) -> f64 {
    let once = |run: &mut dyn FnMut()| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    (0..3).map(|_| once(&mut run)).fold(f64::INFINITY, f64::min)
}

fn scoring(criterion: &mut Criterion) {
    let (rows, columns) = (500, 2500);
    let captions = lengths(columns);
    let (images, texts) = (codes("images", &vec![REGIONS; rows]), codes("texts", &captions));
    let pairs = (rows * columns) as f64;
    // The similarities alone, which both forms need: 2 n k d.
    let floor = 2.0 * (rows * REGIONS * DIM) as f64 * captions.iter().sum::<usize>() as f64;
    let mut group = criterion.benchmark_group("scan/score 500 x 2500");
    group.sample_size(10).throughput(Throughput::Elements(pairs as u64));
    let mut out = vec![0f32; rows * columns];
    for direction in [Direction::T2i, Direction::I2t] {
        for form in [Contexts::Gram, Contexts::Direct] {
            let scorer = CrossScorer { settings: settings(direction), form };
            let mut score =
                || scorer.score(&images, 0..rows, &texts, 0..columns, black_box(&mut out)).expect("codes fit");
            let time = seconds(&mut score);
            println!(
                "{direction:?} {form:?}: {time:.3} s, {:.3} million pairs/s, {:.1} GFLOP/s in similarities",
                pairs / time / 1e6,
                floor / time / 1e9
            );
            group.bench_function(BenchmarkId::new(format!("{direction:?}"), format!("{form:?}")), |b| {
                b.iter(&mut score)
            });
        }
    }
}

fn training(criterion: &mut Criterion) {
    let batch = 128;
    let captions = Lengths::new(lengths(batch)).expect("no caption is empty");
    let tensor = |data: Vec<f32>, shape: &[usize]| {
        Var::from_tensor(&Tensor::from_vec(data, shape, &Device::Cpu).expect("a tensor")).expect("a variable")
    };
    let images = tensor(vectors("regions", batch * REGIONS), &[batch, REGIONS, DIM]);
    let words = tensor(vectors("words", captions.total()), &[captions.total(), DIM]);
    let mut group = criterion.benchmark_group("scan/step 128");
    group.sample_size(10);
    let relations = Relations::diagonal(batch);
    for direction in [Direction::T2i, Direction::I2t] {
        let settings = settings(direction);
        // Under the hardest negatives at most 3 pairs an item have a gradient.
        for (name, hardest) in [("all negatives", false), ("hardest negatives", true)] {
            let fused = || {
                let scores = batch_scores(&settings, &images, &words, &captions).expect("scores");
                let loss = hinge(&scores, 0.2, hardest, &relations).expect("a square matrix");
                black_box(loss.backward().expect("gradients"));
            };
            println!("{direction:?} {name}, forward and backward: {:.3} s", seconds(fused));
            group.bench_function(BenchmarkId::new(format!("{direction:?}"), name), |b| b.iter(fused));
        }
    }
    let composed = || {
        let scores = composed_scores(&settings(Direction::T2i), &images, &words, &captions).expect("scores");
        black_box(scores.sqr().and_then(|s| s.sum_all()).and_then(|s| s.backward()).expect("gradients"));
    };
    println!("T2i composed of tensor operations: {:.3} s", seconds(composed));
}

criterion_group!(benches, scoring, training);
criterion_main!(benches);
