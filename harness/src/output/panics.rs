//! Panics are defects, and whoever meets one is told in a line: what broke and where. There is no trace of the stack on the
//! screen, unless somebody asks for it with RUST_BACKTRACE.

use std::{any::Any, panic, sync::Mutex};

use xmbench_methods::train::apart::last_words;

/// Where the last panic was.
static PLACE: Mutex<String> = Mutex::new(String::new());

/// From now on nothing is printed when a thread panics: whoever catches it says so. A reader of a damaged file may panic and be
/// caught on purpose.
pub fn hush() {
    if std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0") {
        return;
    }
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(|place| format!("{}:{}", place.file(), place.line())).unwrap_or_default();
        *PLACE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = place;
    }));
}

/// What to say of a panic that was caught.
pub fn of_panic(payload: &(dyn Any + Send)) -> String {
    let text = last_words(payload);
    let place = PLACE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
    match place.is_empty() {
        true => format!("xmbench broke: {text}; please report it with the command line"),
        false => format!("xmbench broke at {place}: {text}; please report it with the command line"),
    }
}
