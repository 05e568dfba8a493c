//! The xmbench harness: sweeps, protocols, timing, statistics, recordings, reports and the command line.
//!
//! Another crate can register methods of its own and reuse the binary's `main`: see [`cli::main`].
//!
//! A module uses those below it and never one above; what two need stands below both. From top to bottom:
//!
//! - [`cli`]: what there is to type
//! - [`repro`]: a paper's tables, run again and judged
//! - [`report`]: tables, plots and the page of a recording
//! - [`claims`]: what papers claim, put to a recording
//! - [`verify`]: our functions beside the authors' values
//! - [`speed`]: what a device does in a second
//! - [`run`]: from experiments to recorded trials
//! - [`stats`]: intervals and paired differences
//! - [`record`]: what a run leaves behind, and how it is cut into rows and named
//! - [`protocol`]: what a number means
//! - [`retrieval`]: exact search and blocks of scores
//! - [`output`]: what leaves the program as text

pub mod claims;
pub mod cli;
pub mod output;
pub mod protocol;
pub mod record;
pub mod report;
pub mod repro;
pub mod retrieval;
pub mod run;
pub mod speed;
pub mod stats;
pub mod verify;
