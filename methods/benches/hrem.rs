//! A training step of HREM with its graph of instances.
//!
//! 128 pairs, 36 regions of 2048 values an image, 12 words a text, of which each is a vector through a linear layer: no recurrence, so
//! that the time is that of HREM itself. Nothing is left out of images and texts, so that every step is as large. Multiplications and
//! additions that are counted, with `n` regions, `m` words, states `d`, `h = d / 2`: forward `2 n (p d + p h + h d)` for regions, `2 m w d`
//! for words, `12 d^2` a row of a layer of relations, and `2 n m d` for all fragments with all, which has no way back; backward twice
//! the others.

#![allow(clippy::disallowed_methods, missing_docs, reason = "criterion's macro; nothing random is drawn here")]

use std::{cell::Cell, sync::atomic::AtomicBool, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use xmbench_datasets::{Collection, Images, Matrix, Pairs, Subset, Texts, random::Seed};
use xmbench_methods::{Method, Run, Training, method::Silent, relation::hrem::HREM};

const BATCH: usize = 128;
const REGIONS: usize = 36;
const TOKENS: usize = 12;
const WORD: usize = 300;
const IMAGE: usize = 2048;
const VOCABULARY: usize = 8000;

/// One batch of pairs with random features and tokens.
fn batch() -> Collection {
    let mut stream = Seed(1).stream(&["bench"]);
    let cols = REGIONS * IMAGE;
    let features = Matrix { rows: BATCH, cols, data: (0..BATCH * cols).map(|_| stream.normal() as f32).collect() };
    let tokens = (0..BATCH).map(|_| (0..TOKENS).map(|_| stream.below(VOCABULARY) as u32).collect()).collect();
    let ids: Vec<String> = (0..BATCH).map(|i| i.to_string()).collect();
    let fragments = std::sync::Arc::new(Subset::fragments_of(features, REGIONS));
    Collection {
        images: Images { ids: ids.clone(), fragments: Some(fragments), ..Images::default() },
        texts: Texts { ids, tokens: Some(tokens), ..Texts::default() },
        pairs: Pairs::new(BATCH, BATCH, (0..BATCH as u32).map(|i| (i, i)).collect()),
    }
}

fn step_flops(d: usize, graph: bool) -> f64 {
    let (n, m, h) = (BATCH * REGIONS, BATCH * TOKENS, d / 2);
    let rows = n + m + if graph { 2 * BATCH } else { 0 };
    let both = 2 * n * (IMAGE * d + IMAGE * h + h * d) + 2 * m * WORD * d + 12 * rows * d * d;
    // The first layer of regions is not asked for the gradient of its input.
    let unasked = 2 * n * (IMAGE * d + IMAGE * h);
    (3 * both - unasked + if graph { 2 * n * m * d } else { 0 }) as f64
}

fn hrem(c: &mut Criterion) {
    let data = batch();
    let training = Training { dataset: "bench", train: &data, val: None, vocabulary: VOCABULARY, classes: 0 };
    for (d, interaction) in [(256, "fusion"), (1024, "none"), (1024, "fusion")] {
        let flops = step_flops(d, interaction != "none");
        let fastest = Cell::new(f64::INFINITY);
        let mut group = c.benchmark_group(format!("hrem step, {interaction}, d={d}, {:.1} GFLOP", flops / 1e9));
        group.sample_size(10).measurement_time(Duration::from_secs(10)).throughput(Throughput::Elements(BATCH as u64));
        group.bench_function("pairs", |b| {
            b.iter_custom(|steps| {
                let mut table = toml::toml! {
                    decay_every = 0 text_encoder = "words" graph_after = 0 drop_regions = 0.0 drop_words = 0.0
                };
                table.insert("interaction".into(), toml::Value::String(interaction.into()));
                table.insert("embedding".into(), toml::Value::Integer(d as i64));
                table.insert("hidden".into(), toml::Value::Integer(d as i64 / 2));
                // The first step pays for fresh memory and is left out.
                table.insert("epochs".into(), toml::Value::Integer(steps as i64 + 1));
                let (stop, mut silent) = (AtomicBool::new(false), Silent);
                let mut run = Run::new(Seed(1), &mut silent, &stop);
                HREM.fit(&training, &table, &mut run).expect("the batch can be fitted");
                let seconds: Vec<f64> = run.history.iter().skip(1).map(|epoch| epoch.seconds).collect();
                fastest.set(seconds.iter().copied().fold(fastest.get(), f64::min));
                Duration::from_secs_f64(seconds.iter().sum())
            });
        });
        group.finish();
        if fastest.get().is_infinite() {
            // Another group was asked for.
            continue;
        }
        let rate = 1.0 / fastest.get();
        println!("fastest step: {:.0} ms, {:.1} GFLOP/s", 1e3 * fastest.get(), flops * rate / 1e9);
    }
}

criterion_group!(benches, hrem);
criterion_main!(benches);
