//! The xmbench harness: sweeps, protocols, timing, statistics, recordings, reports and the command line.
//!
//! Another crate can register methods of its own and reuse the binary's `main`: see [`cli::main`].

pub mod claims;
pub mod cli;
pub mod protocol;
pub mod record;
pub mod report;
pub mod repro;
pub mod retrieval;
pub mod run;
pub mod stats;
pub mod verify;
