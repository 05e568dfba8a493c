//! Freed memory stays with the process while it trains.
//!
//! Each step makes and drops the same tensors of tens of megabytes. glibc gives every one back to the system, which then clears
//! page after page for the next one: up to a third of a step.

use std::sync::Once;

/// Asks the allocator to keep what is freed; only glibc is asked.
pub(super) fn keep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        {
            unsafe extern "C" {
                fn mallopt(parameter: i32, value: i32) -> i32;
            }
            // From malloc.h: no blocks of their own, never shrink, grow by 64 MiB, one heap for all threads (those of others
            // are limited to 64 MiB).
            const OPTIONS: [(i32, i32); 4] = [(-4, 0), (-1, -1), (-2, 64 << 20), (-8, 1)];
            for (parameter, value) in OPTIONS {
                // SAFETY: mallopt takes any two integers; what it does not know it ignores.
                unsafe { mallopt(parameter, value) };
            }
        }
    });
}

/// Gives back what training kept, so that the memory of what comes next can be told from it; only glibc is asked.
pub fn release() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> i32;
        }
        // SAFETY: malloc_trim takes any number of bytes to leave at the top of the heap.
        unsafe { malloc_trim(0) };
    }
}
