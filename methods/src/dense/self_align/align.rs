//! The two alignment losses.

use candle_core::{D, DType, Device, Tensor};
use candle_nn::ops;

use super::Rows;
use crate::{
    Result,
    dense::{
        nce,
        parts::{owners, select},
    },
    loss::{matching, sinkhorn},
    nn::Lengths,
};

/// What an entry of one's own item is worth among the candidates of equation (5), as released.
const OWN: f64 = -10.0;

/// What takes no part: nothing is left of an exponential this far below the others.
const OUT: f64 = -1e9;

/// Equations (1) to (3).
pub(super) struct Concepts<'a> {
    /// `[K, d]`, of unit length.
    pub prototypes: &'a Tensor,
    pub epsilon: f64,
    pub iterations: usize,
    pub temperature: f64,
}

impl Concepts<'_> {
    /// Equation (3), and the assignments of (1).
    pub fn loss(&self, (x, x_lengths): Rows<'_>, (y, y_lengths): Rows<'_>) -> Result<(Tensor, Tensor)> {
        let turned = self.prototypes.t()?;
        let assigned = sinkhorn(&x.detach().matmul(&turned.detach())?, self.epsilon, self.iterations)?; // (1)
        let products = matching::within(&y, y_lengths, &x, x_lengths)?;
        let items = owners(y_lengths);
        let matched: Vec<usize> = products
            .iter()
            .zip(&items)
            .map(|(row, &item)| x_lengths.range(item).start + matching::first_largest(row)) // (2)
            .collect();
        let targets = select(&assigned, &matched)?;
        let seen = ops::log_softmax(&(y.matmul(&turned)? / self.temperature)?, D::Minus1)?;
        let words = (targets * seen)?.sum_keepdim(1)?.neg()?;
        Ok((y_lengths.mean(&words)?.mean_all()?, assigned)) // (3)
    }
}

/// Equation (5).
pub(super) struct Contrast {
    pub temperature: f64,
    /// How many candidates count; all of them if absent.
    pub kept: Option<usize>,
}

impl Contrast {
    /// Of locals `[total, d]` and the globals `[items, d]` of the other side; `negative(b, c)` says whether the locals of item `c` are
    /// candidates of the global of item `b`.
    pub fn loss(
        &self,
        locals: &Tensor,
        lengths: &Lengths,
        globals: &Tensor,
        negative: impl Fn(usize, usize) -> bool,
    ) -> Result<Tensor> {
        let (items, total) = (lengths.len(), lengths.total());
        let of = owners(lengths);
        let products = (globals.matmul(&locals.t()?)? / self.temperature)?;
        let values = products.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec2::<f64>()?;
        // The logarithm of the sum over the candidates that count is one for all locals of an item.
        let (mut factor, mut added) = (vec![0f64; items * total], vec![OUT; items * total]);
        for (b, row) in values.iter().enumerate() {
            let worth = |j: usize| match () {
                () if of[j] == b => Some(OWN),
                () if negative(b, of[j]) => Some(row[j]),
                () => None,
            };
            let mut candidates: Vec<(f64, usize)> = (0..total).filter_map(|j| Some((worth(j)?, j))).collect();
            candidates.sort_by(|a, b| b.0.total_cmp(&a.0));
            for &(_, j) in &candidates[..self.kept.unwrap_or(total).min(candidates.len())] {
                let own = of[j] == b;
                factor[b * total + j] = if own { 0.0 } else { 1.0 };
                added[b * total + j] = if own { OWN } else { 0.0 };
            }
        }
        let matrix = |values: Vec<f64>| -> Result<Tensor> {
            let matrix = Tensor::from_vec(values, (items, total), &Device::Cpu)?;
            Ok(matrix.to_dtype(products.dtype())?.to_device(products.device())?)
        };
        let others = ((&products * matrix(factor)?)? + matrix(added)?)?.log_sum_exp(D::Minus1)?.unsqueeze(1)?;
        nce::summed([locals, &select(globals, &of)?, &select(&others, &of)?], self.temperature)
    }
}
