//! Threads with room for autograd, which walks its graph recursively.

/// Bytes of stack; reserved, not used up.
const STACK: usize = 256 << 20;

/// Runs work in a thread of its own, so that a panic ends the work and not the program.
///
/// # Errors
/// If the thread cannot be started, or the work panics.
pub fn deep<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(name.into()).stack_size(STACK);
        let handle = thread
            .spawn_scoped(scope, work)
            .map_err(|error| format!("cannot start a thread with {} MiB of stack: {error}", STACK >> 20))?;
        handle.join().map_err(|payload| {
            let text = payload.downcast_ref::<&str>().map(|text| text.to_string());
            let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
            format!("the method panicked: {text}")
        })
    })
}
