//! A training step of VSE++ and the recurrence below it.
//!
//! Multiplications and additions that are counted, with `n` tokens in `b` texts, word vectors `w`, states `d`, image vectors `p`:
//! GRU forward `2 n (w + d) 3d`, backward twice that; linear layer `2 b p d`, backward twice that; scores `2 b^2 d`, backward twice.
//! Everything else (gates, embedding, hinge, optimiser) counts as overhead.

#![allow(clippy::disallowed_methods, missing_docs, reason = "criterion's macro; nothing random is drawn here")]

use std::{cell::Cell, hint::black_box, sync::atomic::AtomicBool, time::Duration};

use candle_core::{Device, Tensor, Var};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use xmbench_datasets::{Collection, Images, Matrix, Pairs, Texts, random::Seed};
use xmbench_methods::{
    Method, Run, Training,
    method::Silent,
    metric::vse::VSE,
    nn::{Gru, Lengths, Weights},
};

const BATCH: usize = 128;
const TOKENS: usize = 20;
const WORD: usize = 300;
const IMAGE: usize = 2048;
const VOCABULARY: usize = 8000;

/// One batch of pairs with random features and tokens.
fn batch() -> Collection {
    let mut stream = Seed(1).stream(&["bench"]);
    let features =
        Matrix { rows: BATCH, cols: IMAGE, data: (0..BATCH * IMAGE).map(|_| stream.normal() as f32).collect() };
    let tokens = (0..BATCH).map(|_| (0..TOKENS).map(|_| stream.below(VOCABULARY) as u32).collect()).collect();
    let ids: Vec<String> = (0..BATCH).map(|i| i.to_string()).collect();
    Collection {
        images: Images { ids: ids.clone(), global: Some(std::sync::Arc::new(features)), ..Images::default() },
        texts: Texts { ids, tokens: Some(tokens), ..Texts::default() },
        pairs: Pairs::new(BATCH, BATCH, (0..BATCH as u32).map(|i| (i, i)).collect()),
    }
}

fn gru_flops(d: usize, directions: usize) -> f64 {
    (directions * 3 * 2 * BATCH * TOKENS * (WORD + d) * 3 * d) as f64
}

/// Multiplications and additions of a step, as counted above.
fn step_flops(d: usize, directions: usize) -> f64 {
    gru_flops(d, directions) + (3 * 2 * BATCH * IMAGE * d) as f64 + (3 * 2 * BATCH * BATCH * d) as f64
}

/// Whole fits: `epochs` epochs of one step each, so that the difference of two lengths is the time of steps alone.
fn vse(c: &mut Criterion) {
    let data = batch();
    let training = Training { dataset: "bench", train: &data, val: None, vocabulary: VOCABULARY, classes: 0 };
    for (d, encoder) in [(256, "gru"), (1024, "gru"), (256, "bigru"), (1024, "bigru")] {
        let flops = step_flops(d, if encoder == "bigru" { 2 } else { 1 });
        // Once by the schedule of criterion, once in pairs and operations a second, from the fastest of its samples.
        let fastest = Cell::new(f64::INFINITY);
        let mut group = c.benchmark_group(format!("vse++ step, {encoder}, d={d}, {:.1} GFLOP", flops / 1e9));
        group.sample_size(10).measurement_time(Duration::from_secs(8)).throughput(Throughput::Elements(BATCH as u64));
        group.bench_function("pairs", |b| {
            b.iter_custom(|steps| {
                let mut table = toml::toml! { decay_every = 0 text_pooling = "mean" };
                table.insert("text_encoder".into(), toml::Value::String(encoder.into()));
                table.insert("embedding".into(), toml::Value::Integer(d as i64));
                // The first step pays for fresh memory and is left out.
                table.insert("epochs".into(), toml::Value::Integer(steps as i64 + 1));
                let (stop, mut silent) = (AtomicBool::new(false), Silent);
                let mut run = Run::new(Seed(1), &mut silent, &stop);
                VSE.fit(&training, &table, &mut run).expect("the batch can be fitted");
                let seconds: Vec<f64> = run.history.iter().skip(1).map(|epoch| epoch.seconds).collect();
                fastest.set(seconds.iter().copied().fold(fastest.get(), f64::min));
                Duration::from_secs_f64(seconds.iter().sum())
            });
        });
        group.finish();
        let rate = 1.0 / fastest.get();
        println!("fastest step: {:.0} pairs/s, {:.1} GFLOP/s", BATCH as f64 * rate, flops * rate / 1e9);
    }
}

/// Forward alone and with backward, for full and for uneven lengths.
fn gru(c: &mut Criterion) {
    let mut stream = Seed(2).stream(&["bench"]);
    for (d, uneven) in [(256, false), (1024, false), (1024, true)] {
        let lengths =
            Lengths::new((0..BATCH).map(|b| if uneven { 6 + b * 15 / BATCH } else { TOKENS })).expect("not empty");
        let flops = gru_flops(d, 2) * lengths.total() as f64 / (BATCH * TOKENS) as f64;
        let kind = if uneven { "6 to 20 words" } else { "20 words" };
        let mut group =
            c.benchmark_group(format!("bigru [128, {kind}, 300 -> {d}], {:.1} GFLOP with backward", flops / 1e9));
        group.sample_size(10).measurement_time(Duration::from_secs(8));
        let values: Vec<f32> = (0..lengths.total() * WORD).map(|_| stream.normal() as f32).collect();
        let x = Var::from_vec(values, (lengths.total(), WORD), &Device::Cpu).expect("a tensor");
        let mut weights = Weights::new(Seed(1), &Device::Cpu);
        let gru = Gru::new(&mut weights, "gru", WORD, d, 1, true).expect("weights");
        let loss = |gru: &Gru, x: &Tensor| gru.average(x, &lengths).and_then(|y| Ok(y.sum_all()?)).expect("states");
        let frozen = Weights::frozen(weights.snapshot().expect("a copy"), "bench", &Device::Cpu);
        let mut frozen = frozen;
        let plain = Gru::new(&mut frozen, "gru", WORD, d, 1, true).expect("weights");
        group.bench_function("forward", |b| b.iter(|| black_box(loss(&plain, &x.as_detached_tensor()))));
        group.bench_function("forward and backward", |b| {
            b.iter(|| black_box(loss(&gru, &x).backward().expect("gradients")));
        });
        group.finish();
    }
}

criterion_group!(benches, vse, gru);
criterion_main!(benches);
