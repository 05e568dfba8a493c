//! What leaves the program as text: three streams with three promises, and the characters that may stand in them.
//!
//! - [`answer`]: what a command was asked for. If it cannot be written, the command failed.
//! - [`tell`]: what is said of files that are written. They are there, whether anybody hears of it or not.
//! - [`progress`]: what is said while something runs, and of what went wrong. Nothing ends because nobody listens.
//!
//! Text of captions, labels and titles was written by others. Whatever a terminal would take for a command is shown as `�`
//! ([`lines`]); formats of files begin with [`plain`] and add what is special to them (`report::export`).

mod panics;
mod safe;
mod start;

use std::io::{self, Write};

pub use panics::{hush, of_panic};
pub use safe::{clipped, json, lines, plain, quoted, short};

/// The answer of a command did not reach anybody.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to stdout: {0}")]
pub struct Unwritten(#[from] io::Error);

impl Unwritten {
    /// Whether the reader went away, as `head` does when it has seen enough: it needs no message.
    pub fn is_gone(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

/// Writes the answer of a command to stdout, with the end of a line.
///
/// # Errors
/// If it cannot be written: the device is full, stdout was closed, or its reader has gone.
pub fn answer(text: &str) -> Result<(), Unwritten> {
    if start::stdout_was_closed() {
        return Err(Unwritten(io::Error::other("it was closed before xmbench began")));
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{}", lines(text))?;
    Ok(out.flush()?)
}

/// Says something on stdout, if anybody listens.
pub fn tell(text: &str) {
    let _ = writeln!(io::stdout(), "{}", lines(text));
}

/// Says something on stderr, if anybody listens.
pub fn progress(line: &str) {
    let _ = writeln!(io::stderr(), "{}", lines(line));
}
