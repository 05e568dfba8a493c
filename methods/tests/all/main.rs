//! The tests of the whole crate: one program, so that it is linked once.

#[cfg(target_os = "linux")]
mod absurd;
mod cards;
mod contract;
mod golden;
mod real_data;
