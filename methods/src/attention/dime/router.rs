//! Soft routers, and how the outputs of cells are mixed by them.

use candle_core::{D, Tensor};

use super::{cells::Locals, columns::mean};
use crate::{
    Result,
    nn::{Linear, Weights},
};

/// Below this sum of gates a path is closed.
const CLOSED: f64 = 1e-4;
/// Added to a sum of gates.
const EPS: f64 = 1e-8;
/// What the gates' biases begin at: every path is open.
const OPEN: f32 = 1.5;

/// Equation (1): how far the paths out of a cell are open. Weights `NAME.hidden [d, hidden]` and `NAME.gate [hidden, paths]`, each with
/// `.weight` and `.bias`.
pub(super) struct Router {
    hidden: Linear,
    gate: Linear,
}

impl Router {
    /// From vectors of length `width` to `paths` gates.
    pub fn new(weights: &mut Weights, name: &str, [width, hidden, paths]: [usize; 3]) -> Result<Self> {
        let weight = weights.uniform(&format!("{name}.gate.weight"), &[hidden, paths], 1.0 / (hidden as f64).sqrt())?;
        let bias = Tensor::full(OPEN, paths, weights.device())?;
        let gate = Linear::from_parts(weight, weights.insert(&format!("{name}.gate.bias"), bias)?);
        Ok(Self { hidden: Linear::new(weights, &format!("{name}.hidden"), width, hidden)?, gate })
    }

    /// Gates in `[0, 1)`, `[n, M, paths]`, for vectors `[n, M, q, d]`.
    pub fn gates(&self, locals: &Locals) -> Result<Tensor> {
        let hidden = self.hidden.forward(&mean(locals)?)?.relu()?;
        Ok(self.gate.forward(&hidden)?.tanh()?.relu()?)
    }
}

/// Gates of a layer's cells as its equation has them.
pub(super) struct Paths {
    /// Share of each cell in each output, `[n, M, outputs, cells]`; as they are in a layer of one output.
    pub shares: Tensor,
    /// 1 where an output (or, of one output, a cell) is closed, `[n, M, outputs]` (`[n, M, 1, cells]`).
    pub closed: Tensor,
}

impl Paths {
    /// Equation (6), of gates `[n, M, outputs]` of each cell.
    pub fn split(gates: &[Tensor; 4]) -> Result<Self> {
        let gates = Tensor::stack(gates, 3)?;
        let total = gates.sum_keepdim(3)?;
        let closed = total.lt(CLOSED)?.to_dtype(gates.dtype())?.squeeze(3)?;
        Ok(Self { shares: gates.broadcast_div(&(total + EPS)?)?, closed })
    }

    /// Equation (7), of one gate `[n, M, 1]` of each cell.
    pub fn joined(gates: &[Tensor; 4]) -> Result<Self> {
        let shares = Tensor::stack(gates, 3)?;
        let closed = shares.lt(CLOSED / 4.0)?.to_dtype(shares.dtype())?;
        Ok(Self { shares, closed })
    }

    /// Shares of the cells `which`, of which cell 0 takes the closed outputs whole, `[n, M, outputs, which]`.
    pub fn of(&self, which: &[usize]) -> Result<Tensor> {
        let column = |&cell: &usize| -> Result<Tensor> {
            let share = self.shares.narrow(3, cell, 1)?.squeeze(3)?;
            Ok(if cell == 0 { (share + &self.closed)? } else { share })
        };
        let columns = which.iter().map(column).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::stack(&columns, D::Minus1)?)
    }
}

/// Sums of cells by weights: `weights [.., outputs, cells]` of `cells [.., q, d]`, one tensor a cell, give `[.., outputs, q, d]`. The
/// leading dimensions are those of the cells, or 1.
pub(super) fn mix(weights: &Tensor, cells: &[&Tensor]) -> Result<Tensor> {
    let mut shape = cells[0].dims().to_vec();
    let (at, outputs) = (shape.len() - 2, weights.dim(weights.rank() - 2)?);
    let vectors = shape[at] * shape[at + 1];
    let flat: Vec<usize> = shape[..at].iter().copied().chain([1, vectors]).collect();
    let rows = cells.iter().map(|cell| cell.reshape(flat.as_slice())).collect::<candle_core::Result<Vec<_>>>()?;
    let rows = Tensor::cat(&rows, at)?;
    let wide: Vec<usize> = shape[..at].iter().copied().chain([outputs, cells.len()]).collect();
    shape.insert(at, outputs);
    Ok(weights.broadcast_as(wide)?.contiguous()?.matmul(&rows)?.reshape(shape)?)
}
