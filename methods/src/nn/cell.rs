use candle_core::Tensor;

use super::real::Real;

/// What happens to one row of one step, states of length `h`.
pub(crate) trait Cell: Send + Sync + 'static {
    /// What errors call it.
    const NAME: &'static str;
    /// Gates, each `h` columns of the weights.
    const GATES: usize;
    /// Vectors of length `h` in a record. The first [`Cell::GATES`] of them take `h W_hh`.
    const KEPT: usize;
    /// Which gates of `x W_ih` go where: (first gate, number, first vector of the record).
    const INPUT: &'static [(usize, usize, usize)];
    /// A vector of the record that takes `h W_hh` and nothing of the input.
    const BLANK: Option<usize>;
    /// Whether a second state, kept to the cell, goes from step to step.
    const CARRIES: bool;

    /// One row forward. `record` holds the sums of (input and) state without `bias` and takes what backward needs; `carry` is
    /// the second state, before and after.
    fn open<T: Real>(record: &mut [T], bias: &[T], before: &[T], carry: &mut [T], out: &mut [T]);

    /// One row backward. `dh` and `dcarry` come as gradients from the following step; `dh` goes as what reaches the state before
    /// other than through `h W_hh`, `dcarry` as the gradient of the second state before. `record` takes the gradients of
    /// what it held at first.
    fn close<T: Real>(grad: &[T], record: &mut [T], before: &[T], dh: &mut [T], dcarry: &mut [T]);

    /// The same step of all rows from candle's own operations: the new states from the old ones, the output first.
    fn composed(x: &Tensor, gh: &Tensor, before: &[Tensor], h: usize) -> candle_core::Result<Vec<Tensor>>;
}
