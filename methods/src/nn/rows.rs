//! The rows of one step, one after another, compiled a second time for wide vectors where the processor has them. No sum is
//! regrouped and no product fused, so both give the same bits.

use super::{panels, real::Real, recurrence::Cell};

/// [`Cell::open`] for every row; `before` is empty at the first step.
pub(super) fn open<C: Cell, T: Real>(
    records: &mut [T],
    bias: &[T],
    before: &[T],
    zeros: &[T],
    carry: &mut [T],
    out: &mut [T],
) {
    #[cfg(target_arch = "x86_64")]
    if panels::available() {
        // SAFETY: the processor has these vectors.
        unsafe { wide::open::<C, T>(records, bias, before, zeros, carry, out) };
        return;
    }
    open_all::<C, T>(records, bias, before, zeros, carry, out);
}

/// [`Cell::close`] for every row; `at` names their rows in `grad`.
pub(super) fn close<C: Cell, T: Real>(
    grad: &[T],
    at: &[usize],
    records: &mut [T],
    before: &[T],
    dh: &mut [T],
    dcarry: &mut [T],
) {
    #[cfg(target_arch = "x86_64")]
    if panels::available() {
        // SAFETY: the processor has these vectors.
        unsafe { wide::close::<C, T>(grad, at, records, before, dh, dcarry) };
        return;
    }
    close_all::<C, T>(grad, at, records, before, dh, dcarry);
}

#[inline(always)]
fn open_all<C: Cell, T: Real>(
    records: &mut [T],
    bias: &[T],
    before: &[T],
    zeros: &[T],
    carry: &mut [T],
    out: &mut [T],
) {
    let h = zeros.len();
    for (k, (record, out)) in records.chunks_exact_mut(C::KEPT * h).zip(out.chunks_exact_mut(h)).enumerate() {
        let before = if before.is_empty() { zeros } else { &before[k * h..][..h] };
        let carry = if C::CARRIES { &mut carry[k * h..][..h] } else { &mut [][..] };
        C::open(record, bias, before, carry, out);
    }
}

#[inline(always)]
fn close_all<C: Cell, T: Real>(
    grad: &[T],
    at: &[usize],
    records: &mut [T],
    before: &[T],
    dh: &mut [T],
    dcarry: &mut [T],
) {
    let h = before.len() / at.len().max(1);
    for (k, (record, &row)) in records.chunks_exact_mut(C::KEPT * h).zip(at).enumerate() {
        let dcarry = if C::CARRIES { &mut dcarry[k * h..][..h] } else { &mut [][..] };
        C::close(&grad[row * h..][..h], record, &before[k * h..][..h], &mut dh[k * h..][..h], dcarry);
    }
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use super::{Cell, Real, close_all, open_all};

    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw")]
    pub(super) fn open<C: Cell, T: Real>(
        records: &mut [T],
        bias: &[T],
        before: &[T],
        zeros: &[T],
        carry: &mut [T],
        out: &mut [T],
    ) {
        open_all::<C, T>(records, bias, before, zeros, carry, out);
    }

    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw")]
    pub(super) fn close<C: Cell, T: Real>(
        grad: &[T],
        at: &[usize],
        records: &mut [T],
        before: &[T],
        dh: &mut [T],
        dcarry: &mut [T],
    ) {
        close_all::<C, T>(grad, at, records, before, dh, dcarry);
    }
}
