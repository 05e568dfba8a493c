//! What a run takes, and what it says when it falls.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    panic,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

static LEVEL: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system's memory, counted.
pub struct Counting;

fn more(bytes: usize) {
    PEAK.fetch_max(LEVEL.fetch_add(bytes, Relaxed) + bytes, Relaxed);
}

// SAFETY: every call is handed on to the system as it came; the counts are beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        // SAFETY: as it came.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        // SAFETY: as it came.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LEVEL.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as it came.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LEVEL.fetch_sub(layout.size(), Relaxed);
        more(size);
        // SAFETY: as it came.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// Bytes that are taken now; the peak is counted from here on.
pub fn level() -> usize {
    let level = LEVEL.load(Relaxed);
    PEAK.store(level, Relaxed);
    level
}

/// The most bytes since [`level`].
pub fn peak() -> usize {
    PEAK.load(Relaxed)
}

/// What the last panic said.
pub struct Heard(Arc<Mutex<String>>);

impl Heard {
    pub fn last(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Keeps what panics say and prints nothing.
pub fn listen() -> Heard {
    let last = Arc::new(Mutex::new(String::new()));
    let kept = last.clone();
    panic::set_hook(Box::new(move |panic| {
        let text = panic.to_string().replace('\n', " ");
        *kept.lock().unwrap_or_else(PoisonError::into_inner) = text.chars().take(300).collect();
    }));
    Heard(last)
}

/// After so long a run hangs, and there is nothing to wait for.
const HANGS: Duration = Duration::from_secs(60);

/// Ends the program when a run hangs, saying which.
pub struct Watch {
    shared: Arc<Shared>,
    born: Instant,
}

struct Shared {
    number: AtomicU64,
    /// Milliseconds after the watch began at which the run under way did; 0 when there is none.
    since: AtomicU64,
    over: AtomicBool,
}

impl Watch {
    pub fn over(name: &str) -> Self {
        let shared =
            Arc::new(Shared { number: AtomicU64::new(0), since: AtomicU64::new(0), over: AtomicBool::new(false) });
        let (seen, name, born) = (shared.clone(), name.to_owned(), Instant::now());
        std::thread::spawn(move || {
            while !seen.over.load(Relaxed) {
                std::thread::sleep(Duration::from_millis(500));
                let (since, now) = (seen.since.load(Relaxed), born.elapsed().as_millis() as u64);
                if since != 0 && now.saturating_sub(since) > HANGS.as_millis() as u64 {
                    println!("{name}: run {} hangs", seen.number.load(Relaxed));
                    std::process::exit(1);
                }
            }
        });
        Self { shared, born }
    }

    pub fn begin(&self, number: u64) {
        self.shared.number.store(number, Relaxed);
        self.shared.since.store(self.born.elapsed().as_millis().max(1) as u64, Relaxed);
    }

    pub fn end(&self) {
        self.shared.since.store(0, Relaxed);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.over.store(true, Relaxed);
    }
}
