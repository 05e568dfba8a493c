use anyhow::Result;
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use xmbench_datasets::{Matrix, random::Seed};
use xmbench_methods::{Codes, Similarity};

use super::{Row, Sizes};
use crate::{
    retrieval::{self, Direction},
    run::timing::{Effort, sample},
};

/// Results that a query asks for.
const WANTED: usize = 10;

/// Values drawn at random, a stream a row.
fn normal(label: &str, rows: usize, cols: usize) -> Matrix {
    let row = |row: usize| {
        let mut stream = Seed(1).stream(&["speed", label, &row.to_string()]);
        (0..cols).map(move |_| stream.normal() as f32)
    };
    Matrix { rows, cols, data: (0..rows).into_par_iter().flat_map_iter(row).collect() }
}

/// Exact search with the program's index, on the processor.
pub fn index(sizes: &Sizes, effort: Effort) -> Result<Row> {
    let [queries, gallery] = sizes.searched;
    let asked = Codes::Dense(normal("queries", queries, sizes.dim));
    let codes = Codes::Dense(normal("gallery", gallery, sizes.dim));
    let built = retrieval::index(&codes, Similarity::Dot, Direction::I2t)?;
    let samples = sample(effort, |_| built.search(&asked, 0..queries, WANTED).map(drop))?;
    let work = format!("dense top-{WANTED}, {queries} queries in {gallery} x {}", sizes.dim);
    Ok(Row::new(work, "cpu", (queries, "queries"), samples))
}

/// The scores of the same search as one matrix product on the device, without the choice of the best: what a search there could
/// not be faster than.
pub fn product((device, name): (&Device, &str), sizes: &Sizes, effort: Effort) -> Result<Row> {
    let [queries, gallery] = sizes.searched;
    let tensor = |matrix: Matrix| Tensor::from_vec(matrix.data, (matrix.rows, matrix.cols), device);
    let asked = tensor(normal("queries", queries, sizes.dim))?;
    let turned = tensor(normal("gallery", gallery, sizes.dim))?.t()?;
    let samples = sample(effort, |_| {
        asked.matmul(&turned)?;
        device.synchronize()
    })?;
    let work = format!("matrix product, {queries} queries by {gallery} x {}", sizes.dim);
    Ok(Row::new(work, name, (queries, "queries"), samples))
}
