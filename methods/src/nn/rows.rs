//! The rows of one step, one after another, compiled a second time for wide vectors where the processor has them. No sum is
//! regrouped and no product fused, so both give the same bits.

use super::{cell::Cell, panels, real::Real};

/// What is done to every row of one step.
pub(super) trait Pass {
    /// Row after row.
    fn run<C: Cell>(self);
}

/// [`Cell::open`] for every row; `before` is empty at the first step.
pub(super) struct Open<'a, T> {
    pub records: &'a mut [T],
    pub bias: &'a [T],
    pub before: &'a [T],
    pub zeros: &'a [T],
    pub carry: &'a mut [T],
    pub out: &'a mut [T],
}

/// [`Cell::close`] for every row; `at` names their rows in `grad`.
pub(super) struct Close<'a, T> {
    pub grad: &'a [T],
    pub at: &'a [usize],
    pub records: &'a mut [T],
    pub before: &'a [T],
    pub dh: &'a mut [T],
    pub dcarry: &'a mut [T],
}

/// The pass over all rows, by the widest vectors there are.
pub(super) fn all<C: Cell>(pass: impl Pass) {
    #[cfg(target_arch = "x86_64")]
    if panels::available() {
        // SAFETY: the processor has these vectors.
        unsafe { wide::<C>(pass) };
        return;
    }
    pass.run::<C>();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw")]
fn wide<C: Cell>(pass: impl Pass) {
    pass.run::<C>();
}

impl<T: Real> Pass for Open<'_, T> {
    #[inline(always)]
    fn run<C: Cell>(self) {
        let h = self.zeros.len();
        let rows = self.records.chunks_exact_mut(C::KEPT * h).zip(self.out.chunks_exact_mut(h));
        for (k, (record, out)) in rows.enumerate() {
            let before = if self.before.is_empty() { self.zeros } else { &self.before[k * h..][..h] };
            let carry = if C::CARRIES { &mut self.carry[k * h..][..h] } else { &mut [][..] };
            C::open(record, self.bias, before, carry, out);
        }
    }
}

impl<T: Real> Pass for Close<'_, T> {
    #[inline(always)]
    fn run<C: Cell>(self) {
        let h = self.before.len() / self.at.len().max(1);
        for (k, (record, &row)) in self.records.chunks_exact_mut(C::KEPT * h).zip(self.at).enumerate() {
            let dcarry = if C::CARRIES { &mut self.dcarry[k * h..][..h] } else { &mut [][..] };
            let (grad, before) = (&self.grad[row * h..][..h], &self.before[k * h..][..h]);
            C::close(grad, record, before, &mut self.dh[k * h..][..h], dcarry);
        }
    }
}
