//! The tests of the whole crate: one program, so that it is linked once.

mod beside;
mod cli;
#[cfg(unix)]
mod command;
mod common;
mod course;
mod eval;
mod extract;
mod failures;
mod given;
mod kills;
mod layers;
mod memory;
mod messages;
mod query;
mod recordings;
mod repro;
mod rerun;
mod splits;
mod stages;
mod strangers;
#[cfg(target_os = "linux")]
mod streams;
mod trec;
mod tune;
