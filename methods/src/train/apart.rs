//! Threads of its own for a piece of work: with room for autograd, which walks its graph by recursion, and so many that others find
//! room beside it.

use std::{
    any::Any,
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
};

use rayon::ThreadPoolBuilder;

use super::heap::Count;
use crate::{Error, Result};

/// Bytes of stack a thread; reserved, not used up.
const STACK: usize = 256 << 20;

thread_local! {
    /// Whether this thread has such a stack.
    static DEEP: Cell<bool> = const { Cell::new(false) };
}

/// Runs work on so many threads of its own, over which rayon spreads what is in it. They count together what they hold, see
/// [`heap`](super::heap). A panic ends the work and not the program.
///
/// # Errors
/// If the threads cannot be started, or the work panics.
pub fn apart<T: Send>(name: &str, threads: usize, work: impl FnOnce() -> T + Send) -> std::result::Result<T, String> {
    let (count, name) = (Count::begin(), name.to_string());
    let begin = move |_| {
        count.enter();
        DEEP.set(true);
    };
    let pool = ThreadPoolBuilder::new()
        .num_threads(threads)
        .stack_size(STACK)
        .thread_name(move |_| name.clone())
        .start_handler(begin)
        .build()
        .map_err(|error| format!("cannot start {threads} threads with {} MiB of stack each: {error}", STACK >> 20))?;
    catch_unwind(AssertUnwindSafe(|| pool.install(work)))
        .map_err(|payload| format!("the method panicked: {}", last_words(payload.as_ref())))
}

/// What a panic said that was caught.
pub fn last_words(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| text.to_string());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or("no message".into())
}

/// Runs work where autograd has room: on this thread if it is one of [`apart`], else on one that is started for it.
///
/// # Errors
/// If a thread cannot be started, and the work's own. A panic goes on.
pub fn deep<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    if DEEP.get() {
        return work();
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("training".into()).stack_size(STACK);
        let thread = thread.spawn_scoped(scope, work).map_err(Error::io("the training thread"))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The stack that so many calls take, each with a kilobyte of its own.
    fn recurse(calls: usize) -> usize {
        let held = std::hint::black_box([calls as u8; 1024]);
        if calls == 0 { 0 } else { recurse(calls - 1) + usize::from(held[0] == calls as u8) }
    }

    #[test]
    fn there_is_room_and_rayon_stays_within() {
        let (depth, threads) = apart("deep", 3, || (recurse(20_000), rayon::current_num_threads())).unwrap();
        assert_eq!((depth, threads), (20_000, 3));
        assert_eq!(deep(|| Ok(recurse(20_000))).unwrap(), 20_000);
        let within = apart("within", 1, || deep(|| Ok(rayon::current_num_threads())).unwrap());
        assert_eq!(within.unwrap(), 1);
    }

    #[test]
    fn a_panic_is_told_and_ends_nothing_else() {
        let told = apart("panics", 1, || -> usize { panic!("no {}", "room") });
        assert_eq!(told.unwrap_err(), "the method panicked: no room");
        let told = apart("panics", 2, || rayon::join(|| (), || panic!("beside")).0);
        assert_eq!(told.unwrap_err(), "the method panicked: beside");
    }
}
