//! How much a fit holds on the heap, which the peak of the process does not say of one that has others beside it: threads that work
//! for it share a [`Count`], and the allocator adds to it and takes from it. A program that wants counts makes [`Counting`] its
//! allocator; in any other they stay 0.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::atomic::{AtomicI64, Ordering::Relaxed},
};

/// What the threads of one piece of work hold.
#[derive(Debug, Default)]
pub struct Count {
    /// Bytes now; what others allocated and these free counts against it.
    held: AtomicI64,
    /// The most that it was.
    most: AtomicI64,
}

thread_local! {
    static COUNT: Cell<Option<&'static Count>> = const { Cell::new(None) };
}

impl Count {
    /// One that begins. It is never freed, as threads may outlive the work: sixteen bytes each time.
    pub fn begin() -> &'static Self {
        Box::leak(Box::default())
    }

    /// From now on this thread counts here.
    pub fn enter(&'static self) {
        COUNT.set(Some(self));
    }

    fn add(&self, bytes: i64) {
        let held = self.held.fetch_add(bytes, Relaxed) + bytes;
        if bytes > 0 {
            self.most.fetch_max(held, Relaxed);
        }
    }
}

/// The most bytes that the threads which count with this one have held; 0 where nobody counts.
pub fn most() -> u64 {
    COUNT.get().map_or(0, |count| u64::try_from(count.most.load(Relaxed)).unwrap_or(0))
}

/// The system's allocator, counting.
pub struct Counting;

fn count(bytes: i64) {
    if let Some(count) = COUNT.get() {
        count.add(bytes);
    }
}

// SAFETY: every call goes to the system's allocator with the arguments that came. Counting allocates nothing: the cell needs no
// initialisation and no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as i64 - layout.size() as i64);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::apart::apart;

    #[global_allocator]
    static HEAP: Counting = Counting;

    #[test]
    fn work_counts_what_its_threads_hold_and_nothing_of_others() {
        let held = |bytes: usize| {
            apart("heap", 2, || {
                rayon::join(|| std::hint::black_box(vec![1u8; bytes]), || std::hint::black_box(vec![1u8; bytes]));
                drop(std::hint::black_box(vec![1u8; bytes]));
                most()
            })
        };
        let other = vec![1u8; 32 << 20];
        let (small, large) = (held(1 << 10).unwrap(), held(8 << 20).unwrap());
        assert!(small < 1 << 20, "{small}");
        // Two at a time, and never the third.
        assert!((16 << 20..24 << 20).contains(&large), "{large}");
        assert_eq!(most(), 0, "this thread counts nowhere: {}", other.len());
    }
}
