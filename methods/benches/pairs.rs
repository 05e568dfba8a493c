//! Pairs a second of everything that compares word by word and region by region, beside the machine's matrix product.
//!
//! `cargo bench -p xmbench-methods --bench pairs`; threads: `RAYON_NUM_THREADS`. The share is that of the products a pair needs at
//! least in this form (12 words, 36 regions) over the largest rate of a square product measured beside it; for SCAN of the
//! similarities alone, `2 n k d` operations a pair, so that all else counts as overhead.

use std::{hint::black_box, sync::atomic::AtomicBool, time::Instant};

use xmbench_datasets::random::Seed;
use xmbench_methods::{
    Codes, Fragments, Matcher, Run, Similarity, Training,
    linalg::gemm::{Mat, MatMut, gemm},
    method::Silent,
    registry,
};

const REGIONS: usize = 36;
const WORDS: usize = 12;

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

/// One line of the table.
struct Row {
    method: &'static str,
    label: &'static str,
    params: toml::Table,
    items: [usize; 2],
    /// Vectors before the fragments of images and of texts.
    before: [usize; 2],
    /// Operations of a pair.
    operations: f64,
}

fn rows(dim: usize) -> Vec<Row> {
    let (n, k, d) = (WORDS as f64, REGIONS as f64, dim as f64);
    let similarities = 2.0 * n * k * d;
    let row =
        |method, label, params, items, operations| Row { method, label, params, items, before: [0, 0], operations };
    let masked = |masks: bool, scoring: &str| {
        let mut table = toml::toml! { threshold_start = 0.1 threshold_rate = 0.0 };
        table.insert("content_mask".into(), toml::Value::Boolean(masks));
        table.insert("query_mask".into(), toml::Value::Boolean(masks));
        table.insert("scoring".into(), toml::Value::String(scoring.into()));
        table
    };
    let some = [128, 640];
    let few = if dim > 512 { [16, 32] } else { [48, 96] };
    let fewest = if dim > 512 { [8, 8] } else { [16, 16] };
    let dime = toml::toml! { direction = "i2t" heads = 16 };
    vec![
        row("scan", "t2i, Gram, similarities alone", toml::toml! { direction = "t2i" }, [500, 2500], similarities),
        row("scan", "i2t, Gram, similarities alone", toml::toml! { direction = "i2t" }, [500, 2500], similarities),
        row("uarda", "no masks, direct", masked(false, "direct"), some, 2.0 * similarities),
        row("uarda", "no masks, Gram", masked(false, "gram"), some, similarities + 2.0 * n * k * k),
        row("uarda", "masks, direct", masked(true, "direct"), some, 2.0 * similarities),
        row("uarda", "masks, Gram", masked(true, "gram"), some, similarities + 2.0 * n * k * k),
        row("imram", "text, K = 1", toml::toml! { mode = "text" steps = 1 }, some, similarities + 2.0 * n * k * k),
        row(
            "imram",
            "text, K = 3",
            toml::toml! { mode = "text" steps = 3 },
            few,
            7.0 * similarities + 6.0 * n * k * k + 4.0 * n * d * d,
        ),
        Row { before: [0, 1], ..row("dime", "i2t", dime, fewest, 2.0 * (14.0 * k * d * d + 2048.0 * k * d)) },
    ]
}

/// Seconds of the fastest of three.
fn fastest(mut run: impl FnMut()) -> f64 {
    let once = |run: &mut dyn FnMut()| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    (0..3).map(|_| once(&mut run)).fold(f64::INFINITY, f64::min)
}

fn main() {
    let threads = std::env::var("RAYON_NUM_THREADS").unwrap_or_else(|_| "all".into());
    println!("Square product of 2048, threads: {threads}: {:.0} GFLOP/s\n", peak() / 1e9);
    println!(
        "| method | form | d | images x texts | pairs/s | share of the product's rate |\n|---|---|---|---|---|---|"
    );
    for dim in [256, 1024] {
        for row in rows(dim) {
            let matcher = matcher(row.method, dim, row.params);
            let Similarity::Pairwise(scorer) = matcher.similarity() else { unreachable!("these compare pairs") };
            let [rows, columns] = row.items;
            let images = codes("images", rows, REGIONS + row.before[0], dim);
            let texts = codes("texts", columns, WORDS + row.before[1], dim);
            let mut out = vec![0f32; rows * columns];
            // Beside each row, since the clock of a machine is not the same for long.
            let peak = peak();
            let seconds = fastest(|| {
                scorer.score(&images, 0..rows, &texts, 0..columns, black_box(&mut out)).expect("codes fit");
            });
            let rate = (rows * columns) as f64 / seconds;
            println!(
                "| {} | {} | {dim} | {rows} x {columns} | {rate:.0} | {:.0} % |",
                row.method,
                row.label,
                100.0 * rate * row.operations / peak
            );
        }
    }
}
