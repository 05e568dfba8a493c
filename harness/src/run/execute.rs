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
    protocol::{Direction, Protocol},
    record::{Query, Timing},
    retrieval,
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
    let Setting { dataset, protocol, profile, device, .. } = setting;
    machine::forget_peak();
    std::fs::create_dir_all(&setting.checkpoints).map_err(Error::io(&setting.checkpoints))?;
    let judge = |matcher: &dyn Matcher| validate(matcher, dataset, protocol);
    let judged = dataset.split(protocol.select_on).is_some();
    let mut run = Run {
        seed: Seed(planned.seed),
        device: Device::clone(device),
        judge: judged.then_some(&judge),
        checkpoints: Some(setting.checkpoints.clone()),
        observer,
        stop: setting.stop,
        history: Vec::new(),
    };
    let start = Instant::now();
    let matcher = planned.method.fit(&Training::of(dataset), &planned.params, &mut run)?;
    device.synchronize().map_err(Error::from)?;
    let wall = start.elapsed().as_secs_f64();
    // A fit that was resumed took what its epochs took, of which the clock saw only the last.
    let trained: f64 = run.history.iter().map(|epoch| epoch.seconds).sum();
    let mut timings =
        vec![Timing { phase: "fit".into(), items: dataset.train.pairs.all().len(), seconds: vec![wall.max(trained)] }];
    let history = run.history;
    let goes_on = || if setting.stop.load(Ordering::Relaxed) { Err(Failure::Interrupted) } else { Ok(()) };
    goes_on()?;

    let scored = dataset.split(protocol.split).ok_or_else(|| missing(dataset, protocol.split))?;
    let codes = Coded::of(&*matcher, scored)?;
    let gallery = match protocol.gallery() {
        split if split == protocol.split => None,
        split => {
            let collection = dataset.split(split).ok_or_else(|| missing(dataset, split))?;
            Some((collection, Coded::of(&*matcher, collection)?))
        }
    };
    goes_on()?;
    let evaluation = todo!();
    let peak_memory = machine::peak_memory();
    let bytes_per_item = [codes.images.bytes_per_item(), codes.texts.bytes_per_item()];
    timings.extend(clock(&*matcher, scored, &codes, *profile)?);
    goes_on()?;
    todo!()
}

/// Results a query asks for while it is timed.
const WANTED: usize = 10;

/// Times encoding the scored split and texts asking for its images, one by one and all together.
fn clock(matcher: &dyn Matcher, scored: &Collection, codes: &Coded, profile: Profile) -> Result<Vec<Timing>, Error> {
    let (long, short) = (Effort::long(profile), Effort::short(profile));
    let timing = |phase: &str, items: usize, seconds: Vec<f64>| Timing { phase: phase.into(), items, seconds };
    let (images, texts) = (scored.images.len(), scored.texts.len());
    let encode_images = timing::sample(long, |_| matcher.encode_images(&scored.images).map(drop))?;
    let encode_texts = timing::sample(long, |_| matcher.encode_texts(&scored.texts).map(drop))?;
    let build = || retrieval::index(&codes.images, matcher.similarity(), Direction::T2i);
    let indexing = timing::sample(long, |_| build().map(drop))?;
    let index = build()?;
    let single = timing::sample(short, |call| {
        let query = call % texts;
        index.search(&codes.texts, query..query + 1, WANTED).map(drop)
    })?;
    let batch = timing::sample(long, |_| index.search(&codes.texts, 0..texts, WANTED).map(drop))?;
    Ok(vec![
        timing("encode images", images, encode_images),
        timing("encode texts", texts, encode_texts),
        timing("index", images, indexing),
        timing("query single", 1, single),
        timing("query batch", texts, batch),
    ])
}

/// Codes of a collection, found sound.
struct Coded {
    images: Codes,
    texts: Codes,
}

impl Coded {
    fn of(matcher: &dyn Matcher, collection: &Collection) -> Result<Self, Error> {
        let images = matcher.encode_images(&collection.images)?;
        sound(&images, collection.images.len(), "image")?;
        let texts = matcher.encode_texts(&collection.texts)?;
        sound(&texts, collection.texts.len(), "text")?;
        Ok(Self { images, texts })
    }
}

/// One code an item, every value finite.
fn sound(codes: &Codes, items: usize, kind: &str) -> Result<(), Error> {
    if codes.len() != items {
        return Err(Error::Numeric(format!("the method made {} codes of {items} {kind}s", codes.len())));
    }
    let bad = |item: usize| Err(Error::Numeric(format!("the code of {kind} {item} holds NaN or infinity")));
    match codes {
        Codes::Binary(_) => Ok(()),
        Codes::Dense(matrix) => {
            let at = matrix.data.iter().position(|value| !value.is_finite());
            at.map_or(Ok(()), |at| bad(at / matrix.cols.max(1)))
        }
        Codes::Fragments(fragments) => {
            let at = fragments.data.iter().position(|value| !value.is_finite());
            let item = |at: usize| fragments.offsets.partition_point(|&offset| offset * fragments.dim <= at) - 1;
            at.map_or(Ok(()), |at| bad(item(at)))
        }
    }
}
