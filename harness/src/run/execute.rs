//! One trial: fit, encode, score, time. In a thread of its own with a large stack (autograd walks its graph recursively),
//! so that a panic inside a method ends the trial and not the run.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use candle_core::Device;
use xmbench_datasets::{Collection, Dataset, Images, Split, Texts, random::Seed};
use xmbench_methods::{
    Codes, Error, Matcher, Run, Training,
    method::{Epoch, Observer},
};

use super::{
    Planned, Profile, machine,
    timing::{self, Effort},
};
use crate::{
    protocol::Protocol,
    record::{Query, Timing},
};

/// Bytes of stack for a trial; reserved, not used up.
const STACK: usize = 256 << 20;

/// What a trial runs in.
pub struct Setting<'a> {
    /// What it is fitted and scored on.
    pub dataset: &'a Dataset,
    /// What the numbers mean.
    pub protocol: &'a Protocol,
    /// How long is timed.
    pub profile: Profile,
    /// Where tensors live.
    pub device: &'a Device,
    /// Where checkpoints go and are looked for.
    pub checkpoints: PathBuf,
    /// Set from outside to stop.
    pub stop: &'a AtomicBool,
}

/// What a trial gives.
#[derive(Debug, Default)]
pub struct Numbers {
    /// See [`crate::record::Trial`].
    pub metrics: BTreeMap<String, f64>,
    /// See [`crate::record::Trial`].
    pub envelope: BTreeMap<String, [f64; 2]>,
    /// See [`crate::record::Trial`].
    pub curves: BTreeMap<String, Vec<[f64; 2]>>,
    /// See [`crate::record::Trial`].
    pub history: Vec<Epoch>,
    /// See [`crate::record::Trial`].
    pub timings: Vec<Timing>,
    /// See [`crate::record::Trial`].
    pub peak_memory: u64,
    /// See [`crate::record::Trial`].
    pub bytes_per_item: [f64; 2],
    /// See [`crate::record::Trial`].
    pub queries: Vec<Query>,
}

/// Why a trial gives nothing.
#[derive(Debug)]
pub enum Failure {
    /// The run was stopped from outside.
    Interrupted,
    /// The reason as it is printed.
    Reason(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Interrupted => Self::Interrupted,
            other => Self::Reason(other.to_string()),
        }
    }
}

/// Runs a trial.
///
/// # Errors
/// Whatever keeps the trial from giving numbers, a panic included.
pub fn execute(
    planned: &Planned,
    setting: &Setting<'_>,
    observer: &mut (dyn Observer + Send),
) -> Result<Numbers, Failure> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(planned.label.clone()).stack_size(STACK);
        let handle = thread.spawn_scoped(scope, || measure(planned, setting, observer)).map_err(|error| {
            Failure::Reason(format!("cannot start a thread with {} MiB of stack: {error}", STACK >> 20))
        })?;
        handle.join().unwrap_or_else(|payload| {
            let text = payload.downcast_ref::<&str>().map(|text| text.to_string());
            let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
            Err(Failure::Reason(format!("the method panicked: {text}")))
        })
    })
}

fn measure(planned: &Planned, setting: &Setting<'_>, observer: &mut (dyn Observer + Send)) -> Result<Numbers, Failure> {
    machine::forget_peak();
    todo!()
}

/// The expectation of a random order under the protocol.
///
/// # Errors
/// If the protocol asks for what the dataset lacks.
pub fn chance(protocol: &Protocol, dataset: &Dataset) -> Result<Numbers, String> {
    todo!()
}
