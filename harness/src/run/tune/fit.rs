//! One fit of one setting up to some epoch, and its validation score.
//!
//! A fit is that of the whole schedule, stopped behind an epoch: its checkpoint goes on from there when the setting has come further, so
//! that what survives costs no more than one fit, and the rates of an epoch are those that the row will see.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use candle_core::Device;
use toml::Table;
use xmbench_datasets::random::Seed;
use xmbench_methods::{
    Error, Matcher, Method, Run,
    method::{Epoch, Observer},
};

use super::develop::Development;
use crate::{
    protocol::Protocol,
    run::{
        execute::{Failure, apart},
        score::validate,
    },
};

/// What a setting is fitted in.
pub struct Fit<'a> {
    pub method: &'static dyn Method,
    /// Complete parameters.
    pub params: &'a Table,
    pub data: &'a Development,
    pub protocol: &'a Protocol,
    pub device: &'a Device,
    /// Those that it works on.
    pub threads: usize,
    pub seed: Seed,
    /// Where the fit of this setting is kept from rung to rung.
    pub checkpoints: PathBuf,
    pub stop: &'a AtomicBool,
}

/// What came of a fit.
#[derive(Debug, Clone, PartialEq)]
pub enum Judged {
    /// The best validation score up to the epoch, of those epochs after which the row itself is validated and of the last; that of the
    /// last alone where the row is never validated.
    Score(f64),
    /// The setting cannot be fitted.
    Failed(String),
}

/// Stops a fit behind an epoch, or when the run is stopped.
struct UpTo<'a> {
    inner: &'a mut (dyn Observer + Send),
    epochs: usize,
    halt: &'a AtomicBool,
    stop: &'a AtomicBool,
}

impl Observer for UpTo<'_> {
    fn step(&mut self, done: usize, total: usize, loss: f64) {
        if self.stop.load(Ordering::Relaxed) {
            self.halt.store(true, Ordering::Relaxed);
        }
        self.inner.step(done, total, loss);
    }

    fn epoch(&mut self, epoch: &Epoch) {
        if epoch.epoch >= self.epochs {
            self.halt.store(true, Ordering::Relaxed);
        }
        self.inner.epoch(epoch);
    }
}

impl Fit<'_> {
    /// Fits up to and including an epoch; `rungs` are all epochs at which the setting may be judged. Also the seconds that it took.
    ///
    /// # Errors
    /// A stop from outside, or whatever is no fault of the setting.
    pub fn judge(
        &self,
        epochs: usize,
        rungs: &[usize],
        observer: &mut (dyn Observer + Send),
    ) -> Result<(Judged, f64), Failure> {
        apart("tuning", self.threads, || self.judge_here(epochs, rungs, observer))
    }

    fn judge_here(
        &self,
        epochs: usize,
        rungs: &[usize],
        observer: &mut (dyn Observer + Send),
    ) -> Result<(Judged, f64), Failure> {
        let own = count(self.params, "validate_every");
        let never = self.data.held_out || own > count(self.params, "epochs");
        let mut params = self.params.clone();
        // As often as the row itself, and behind every rung.
        let every = rungs.iter().fold(if never { 0 } else { own }, |a, &b| gcd(a, b));
        params.insert("validate_every".into(), toml::Value::Integer(every as i64));
        if never {
            params.insert("patience".into(), toml::Value::Integer(0));
        }
        std::fs::create_dir_all(&self.checkpoints).map_err(Error::io(&self.checkpoints))?;

        let judge = |matcher: &dyn Matcher| validate(matcher, &self.data.val, self.protocol);
        let halt = AtomicBool::new(self.stop.load(Ordering::Relaxed));
        let mut observer = UpTo { inner: observer, epochs, halt: &halt, stop: self.stop };
        let mut run = Run {
            device: self.device.clone(),
            judge: Some(&judge),
            checkpoints: Some(self.checkpoints.clone()),
            ..Run::new(self.seed, &mut observer, &halt)
        };
        let start = Instant::now();
        let outcome = self.method.fit(&self.data.training(), &params, &mut run);
        let seconds = start.elapsed().as_secs_f64();
        match outcome {
            Ok(_) => {}
            Err(Error::Interrupted) if run.history.len() >= epochs => {}
            Err(Error::Numeric(reason)) => return Ok((Judged::Failed(reason), seconds)),
            Err(error) => return Err(error.into()),
        }
        let due = |epoch: usize| epoch == epochs || (!never && epoch.is_multiple_of(own));
        let judged = run.history.iter().filter(|it| it.epoch <= epochs && due(it.epoch)).filter_map(|it| it.validation);
        match judged.reduce(f64::max) {
            Some(score) => Ok((Judged::Score(score), seconds)),
            // A fit that ended of itself before any of those epochs: the last that was judged.
            None => match run.history.iter().rev().find_map(|it| it.validation) {
                Some(score) => Ok((Judged::Score(score), seconds)),
                None => Err(Failure::Reason("the fit was never judged on validation data".into())),
            },
        }
    }
}

/// A number of complete parameters, 1 or more.
pub fn count(params: &Table, key: &str) -> usize {
    let value = params.get(key).and_then(toml::Value::as_integer);
    value.and_then(|value| usize::try_from(value).ok()).unwrap_or(1).max(1)
}

/// The greatest common divisor; that of 0 and a number is the number.
fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
