//! How much memory a fit may take, and what happens to what it frees.
//!
//! An allocation that fails ends the process, and with it every trial behind. So whoever makes something whose size a parameter
//! decides asks first: [`ask`].
//!
//! Freed memory stays with the process while it trains. Each step makes and drops the same tensors of tens of megabytes. glibc gives
//! every one back to the system, which then clears page after page for the next one: up to a third of a step.

use std::sync::{
    Once,
    atomic::{AtomicU64, Ordering},
};

use crate::{Error, Result};

/// Bytes that may be used; 0 until somebody says or asks.
static LIMIT: AtomicU64 = AtomicU64::new(0);

/// Says how many bytes may be used.
pub fn set_limit(bytes: u64) {
    LIMIT.store(bytes.max(1), Ordering::Relaxed);
}

/// Bytes that may be used: what was said, else what the machine, or the group of processes that this one is in, has.
pub fn limit() -> u64 {
    match LIMIT.load(Ordering::Relaxed) {
        0 => {
            let found = machine().unwrap_or(u64::MAX);
            LIMIT.store(found, Ordering::Relaxed);
            found
        }
        said => said,
    }
}

/// A limit for each of so many that work side by side, until this is dropped.
#[must_use]
pub struct Shared(u64);

/// Shares the limit among so many.
pub fn shared(among: usize) -> Shared {
    let whole = limit();
    set_limit(whole / among.max(1) as u64);
    Shared(whole)
}

impl Drop for Shared {
    fn drop(&mut self) {
        set_limit(self.0);
    }
}

/// Memory of the machine, or what its control group leaves of it; none where the system does not say.
fn machine() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let number = |text: String| text.trim().parse::<u64>().ok();
    let total = read("/proc/meminfo").and_then(|text| {
        let rest = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim().strip_suffix("kB")?;
        number(rest.to_string())?.checked_mul(1024)
    });
    let groups = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    groups.into_iter().filter_map(read).filter_map(number).chain(total).min()
}

/// Refuses what would take more than [`limit`] bytes; no number of bytes is one that does not fit into 64 bits.
///
/// # Errors
/// [`Error::Memory`] with `what` it is for.
pub fn ask(what: impl FnOnce() -> String, bytes: Option<u64>) -> Result<()> {
    let limit = limit();
    match bytes {
        Some(bytes) if bytes <= limit => Ok(()),
        _ => Err(Error::Memory {
            what: what(),
            takes: bytes.map_or("more than can be counted".into(), |bytes| format!("at least {}", said(bytes))),
            limit: said(limit),
        }),
    }
}

/// Bytes of an array; none if they do not fit into 64 bits.
pub fn bytes(shape: &[usize], each: usize) -> Option<u64> {
    shape.iter().chain([&each]).try_fold(1u64, |product, &n| product.checked_mul(n as u64))
}

/// Bytes with a binary unit.
fn said(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let unit = (0..units.len()).rev().find(|unit| bytes >> (10 * unit) > 0).unwrap_or(0);
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{:.1} {}", bytes as f64 / (1u64 << (10 * unit)) as f64, units[unit]),
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_refused_with_the_estimate() {
        assert_eq!(bytes(&[2048, 1_000_000_000_000], 4), Some(8_192_000_000_000_000));
        assert_eq!(bytes(&[1 << 40, 1 << 40], 4), None);
        let what = || "a matrix".to_string();
        assert!(ask(what, Some(1 << 20)).is_ok());
        // 2^53 bytes and no machine has them.
        let error = ask(what, Some(1 << 53)).unwrap_err().to_string();
        assert!(error.starts_with("a matrix: at least 8.0 PiB, and ") && error.ends_with("--max-memory"), "{error}");
        assert!(ask(what, None).unwrap_err().to_string().contains("more than can be counted"));
        assert_eq!(
            (said(0), said(1023), said(1536), said(u64::MAX)),
            ("0 B".into(), "1023 B".into(), "1.5 KiB".into(), "16.0 EiB".into())
        );
    }

    #[test]
    fn the_machine_says_what_it_has() {
        if let Some(found) = machine() {
            assert!(found > 64 << 20, "{found}");
        }
    }
}
