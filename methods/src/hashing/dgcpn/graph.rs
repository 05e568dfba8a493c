//! The affinity of DGCPN over the training set, equations (1) to (4) of [`super`].

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use xmbench_datasets::random::Seed;

use super::{super::networks::Networks, Params};
use crate::{Error, Result, Training, loss::cosines, nn::unit, trained::Batch};

/// Rows that are made at once.
const BLOCK: usize = 256;

/// Equation (1) between pairs with features `[a, p]`, `[a, q]` and others `[b, p]`, `[b, q]`: `[a, b]`.
///
/// # Errors
/// If the widths do not fit.
pub fn similar(rows: [&Tensor; 2], columns: [&Tensor; 2], a1: f64) -> Result<Tensor> {
    let images = cosines(&rows[0].detach(), &columns[0].detach())?;
    Ok(((cosines(&rows[1].detach(), &columns[1].detach())? * a1)? + (images * (1.0 - a1))?)?)
}

/// Equation (2) for rows `[a, b]` of (1), of which the `removed` smallest entries and the largest count nothing. Of equal entries the
/// first count as the smaller, and the first of the largest is the largest. A row that sums to nothing stays 0.
///
/// # Errors
/// If more would be removed than there are.
pub fn neighbours(similar: &Tensor, removed: usize) -> Result<Tensor> {
    let (rows, columns) = similar.dims2()?;
    if removed > columns {
        return Err(Error::Numeric(format!("dgcpn: expected at most {columns} entries to remove, found {removed}")));
    }
    let mut values: Vec<f64> = similar.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
    values.par_chunks_mut(columns.max(1)).for_each(|row| {
        let largest = (0..columns).rev().max_by(|&a, &b| row[a].total_cmp(&row[b]));
        let mut order: Vec<usize> = (0..columns).collect();
        if removed < columns {
            order.select_nth_unstable_by(removed, |&a, &b| row[a].total_cmp(&row[b]).then(a.cmp(&b)));
        }
        order[..removed].iter().for_each(|&j| row[j] = 0.0);
        largest.into_iter().for_each(|j| row[j] = 0.0);
        let sum: f64 = row.iter().sum();
        if sum != 0.0 {
            row.iter_mut().for_each(|value| *value /= sum);
        }
    });
    Ok(Tensor::from_vec(values, (rows, columns), &Device::Cpu)?
        .to_dtype(similar.dtype())?
        .to_device(similar.device())?)
}

/// Equation (3) for rows of (2), `[a, n]` and `[b, n]`: `[a, b]`.
///
/// # Errors
/// If they do not count the same neighbours.
pub fn coherent(rows: &Tensor, columns: &Tensor, scale: f64) -> Result<Tensor> {
    Ok((rows.matmul(&columns.t()?)? * scale)?)
}

/// Equation (4).
///
/// # Errors
/// If the shapes differ.
pub fn joined(similar: &Tensor, coherent: &Tensor, a2: f64) -> Result<Tensor> {
    Ok(((similar * (1.0 - a2))? + (coherent * a2)?)?.affine(2.0, -1.0)?)
}

/// Entries that a row of `n` keeps and loses, its largest not counted.
fn share(neighbours: f64, n: usize) -> [usize; 2] {
    let kept = ((neighbours * n as f64).round() as usize).clamp(1, n);
    [kept, n - kept]
}

/// What is kept of the training set.
pub enum Graph {
    /// The affinity of all pairs.
    Whole {
        /// Row of a pair.
        at: BTreeMap<(u32, u32), u32>,
        /// Equation (4), `[n, n]`.
        affinity: Tensor,
    },
    /// Features of unit length of the pairs among which neighbours are sought.
    Drawn(
        /// `[rows, p]` and `[rows, q]`.
        [Tensor; 2],
    ),
}

impl Graph {
    /// Of all training pairs, or of as many as `affinity_rows` allows.
    ///
    /// # Errors
    /// If features cannot be read.
    pub(super) fn new(params: &Params, body: &Networks, training: &Training<'_>) -> Result<Self> {
        let pairs = training.train.pairs.all();
        let n = pairs.len().min(params.affinity_rows);
        let mut chosen: Vec<usize> = match n < pairs.len() {
            true => Seed(0).stream(&["dgcpn", "rows"]).permutation(pairs.len()),
            false => (0..n).collect(),
        };
        chosen.truncate(n);
        chosen.sort_unstable();
        let mut blocks = [Vec::new(), Vec::new()];
        for block in chosen.chunks(BLOCK) {
            let (images, texts): (Vec<usize>, Vec<usize>) =
                block.iter().map(|&p| (pairs[p].0 as usize, pairs[p].1 as usize)).unzip();
            let [images, texts] = body.centred(&body.features(training, &images, &texts)?)?;
            blocks[0].push(unit(&images)?);
            blocks[1].push(unit(&texts)?);
        }
        if n == 0 {
            return Err(Error::Numeric("dgcpn: expected training pairs, found none".into()));
        }
        let features = [Tensor::cat(&blocks[0], 0)?, Tensor::cat(&blocks[1], 0)?];
        if n < pairs.len() {
            return Ok(Self::Drawn(features));
        }
        let at = pairs.iter().enumerate().map(|(row, &pair)| (pair, row as u32)).collect();
        Ok(Self::Whole { at, affinity: whole(params, &features)? })
    }

    /// Equation (4) of a batch, `[m, m]`, without gradient.
    ///
    /// # Errors
    /// If features cannot be read.
    pub(super) fn affinity(&self, params: &Params, batch: &Batch<'_, Networks>) -> Result<Tensor> {
        match self {
            Self::Whole { at, affinity } => {
                let rows: Vec<u32> = batch
                    .items
                    .images
                    .iter()
                    .zip(&batch.items.texts)
                    .map(|(&image, &text)| at[&(image as u32, text as u32)])
                    .collect();
                let rows = Tensor::from_slice(&rows, rows.len(), affinity.device())?;
                Ok(affinity.index_select(&rows, 0)?.index_select(&rows, 1)?)
            }
            Self::Drawn(features) => {
                let [images, texts] = batch.affinity_features()?;
                among([&images, &texts], features, params)
            }
        }
    }
}

/// Equation (4) of all pairs, from features of unit length.
fn whole(params: &Params, [images, texts]: &[Tensor; 2]) -> Result<Tensor> {
    let n = images.dim(0)?;
    let [kept, removed] = share(params.neighbours, n);
    let starts: Vec<usize> = (0..n).step_by(BLOCK).collect();
    let rows = |start: usize| -> Result<Tensor> {
        let len = BLOCK.min(n - start);
        similar([&images.narrow(0, start, len)?, &texts.narrow(0, start, len)?], [images, texts], params.a1)
    };
    let near = starts.iter().map(|&start| neighbours(&rows(start)?, removed)).collect::<Result<Vec<_>>>()?;
    let near = Tensor::cat(&near, 0)?;
    let blocks = starts
        .iter()
        .map(|&start| {
            let own = near.narrow(0, start, BLOCK.min(n - start))?;
            joined(&rows(start)?, &coherent(&own, &near, params.scale * kept as f64)?, params.a2)
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Tensor::cat(&blocks, 0)?)
}

/// Equation (4) of some pairs whose neighbours are sought among others.
fn among(pairs: [&Tensor; 2], [images, texts]: &[Tensor; 2], params: &Params) -> Result<Tensor> {
    let [kept, removed] = share(params.neighbours, images.dim(0)?);
    let near = neighbours(&similar(pairs, [images, texts], params.a1)?, removed)?;
    joined(&similar(pairs, pairs, params.a1)?, &coherent(&near, &near, params.scale * kept as f64)?, params.a2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::{
        known,
        support::{normal, values},
    };

    #[test]
    fn an_independent_reference_gives_the_same_affinity() {
        let file = known::Known::read();
        let [images, texts] = file.features();
        let pairs = similar([&images, &texts], [&images, &texts], 0.01).unwrap();
        let near = neighbours(&pairs, 1).unwrap();
        let found = joined(&pairs, &coherent(&near, &near, 1.0).unwrap(), 0.3).unwrap();
        known::assert_known(&file, "dgcpn_a1_0.01_a2_0.3_drop1_scale1", &found);
    }

    #[test]
    fn neighbours_by_hand() {
        let rows = Tensor::new(&[[1f64, 0.2, 0.75, 0.25], [0.0, 0.0, 0.0, 7.0]], &Device::Cpu).unwrap();
        let found = neighbours(&rows, 1).unwrap().to_vec2::<f64>().unwrap();
        assert_eq!(found, [[0.0, 0.0, 0.75, 0.25], [0.0; 4]]);
        // Equal entries: the first goes first, and the row itself is the first of the largest.
        let flat = Tensor::ones((1, 4), DType::F64, &Device::Cpu).unwrap();
        assert_eq!(neighbours(&flat, 2).unwrap().to_vec2::<f64>().unwrap(), [[0.0, 0.0, 0.5, 0.5]]);
        assert!(neighbours(&flat, 5).unwrap_err().to_string().contains("at most 4"));
    }

    #[test]
    fn block_by_block_among_all_and_at_once_are_the_same() {
        // More pairs than a block has.
        let features = [normal("x", 300, 6), normal("y", 300, 4)].map(|x| unit(&x.abs().unwrap()).unwrap());
        let params = Params { a1: 0.4, ..Params::default() };
        let [images, texts] = &features;
        let pairs = similar([images, texts], [images, texts], 0.4).unwrap();
        let near = neighbours(&pairs, 180).unwrap();
        let once = values(&joined(&pairs, &coherent(&near, &near, 240.0).unwrap(), 0.3).unwrap());
        let close = |other: Vec<f64>| other.iter().zip(&once).all(|(a, b)| (a - b).abs() < 1e-9);
        assert!(close(values(&whole(&params, &features).unwrap())));
        assert!(close(values(&among([images, texts], &features, &params).unwrap())));
    }
}
