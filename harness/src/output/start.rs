//! What stdout was when the process began. The runtime opens `/dev/null` in the place of a closed stream before `main`, and
//! everything that is written is lost without an error.

use std::sync::atomic::{AtomicBool, Ordering};

static CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether the process was started without a stdout; false where the system does not say.
pub fn stdout_was_closed() -> bool {
    CLOSED.load(Ordering::Relaxed)
}

#[cfg(target_os = "linux")]
mod linux {
    use super::{CLOSED, Ordering};

    unsafe extern "C" {
        fn fcntl(descriptor: i32, command: i32, ...) -> i32;
    }

    /// `F_GETFD` of fcntl.h.
    const FLAGS: i32 = 1;

    extern "C" fn look() {
        // SAFETY: fcntl takes any descriptor; of one that is closed it says so.
        CLOSED.store(unsafe { fcntl(1, FLAGS) } == -1, Ordering::Relaxed);
    }

    // SAFETY: an entry of `.init_array` is a function that the loader calls once before the runtime begins; this one uses nothing
    // of the runtime.
    #[used]
    #[unsafe(link_section = ".init_array")]
    static LOOK: extern "C" fn() = look;
}
