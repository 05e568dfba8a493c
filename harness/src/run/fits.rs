//! The fits of one dataset's experiments, several at a time where one alone would leave processors idle: small models do, as a step of
//! theirs is over before threads have shared it. No number depends on it, but for what a fit takes.
//!
//! This thread alone records and shows; those that fit tell it how far they are.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        atomic::Ordering,
        mpsc::{Sender, channel},
    },
};

use anyhow::{Context, Result};
use candle_core::Device;
use xmbench_methods::{
    method::{Epoch, Observer},
    train::memory,
};

use super::{
    Experiment, Planned, Profile,
    bench::{Begun, End, data},
    execute::{self, Failure, Numbers, Setting},
    plan::Job,
    sweep::{Desk, Summary},
};
use crate::{
    output::of_panic,
    record::{Control, Trial},
};

/// Most fits side by side when not said: with more of them memory, which they share, is what they wait for.
const MOST: usize = 4;
/// Bytes that each of them should find.
const ROOM: u64 = 4 << 30;

/// How many trials are fitted side by side when not said: models of the long profiles fill the processors one by one, as they do a GPU.
pub fn side_by_side(profile: Profile, device: &Device) -> usize {
    match profile {
        Profile::Smoke | Profile::Quick if device.is_cpu() => {
            let fit = usize::try_from(memory::limit() / ROOM).unwrap_or(usize::MAX);
            rayon::current_num_threads().min(MOST).min(fit).max(1)
        }
        _ => 1,
    }
}

/// An experiment with its trials on the dataset.
pub type User<'a> = (&'a Experiment, Vec<Planned>);

/// Where a trial stands: its experiment among the users, and its place in the plan.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    user: usize,
    planned: usize,
}

impl Place {
    fn of<'a>(self, users: &'a [User<'_>]) -> (&'a Experiment, &'a Planned) {
        let (experiment, plan) = &users[self.user];
        (experiment, &plan[self.planned])
    }
}

/// A trial that waits.
struct Waiting {
    place: Place,
    trial: Trial,
}

/// A trial that is being fitted.
struct Fitting {
    place: Place,
    begun: Begun,
}

/// What a fit has to say.
enum Said {
    Step(usize, usize, f64),
    Epoch(Epoch),
    Over(Box<Result<Numbers, Failure>>),
}

/// Tells how far a fit is.
struct Voice {
    place: Place,
    to: Sender<(Place, Said)>,
}

impl Voice {
    /// Nobody hears it where the run has ended for another reason.
    fn say(&self, said: Said) {
        let _ = self.to.send((self.place, said));
    }
}

impl Observer for Voice {
    fn step(&mut self, done: usize, total: usize, loss: f64) {
        self.say(Said::Step(done, total, loss));
    }

    fn epoch(&mut self, epoch: &Epoch) {
        self.say(Said::Epoch(epoch.clone()));
    }
}

/// Fits what is not recorded yet of every experiment on a dataset. What finds too little memory beside others is fitted again alone.
///
/// # Errors
/// If the recording cannot be written.
pub fn fit_all(desk: &mut Desk<'_>, users: &[User<'_>], summary: &mut Summary) -> Result<End> {
    let mut waiting = VecDeque::new();
    for (user, (experiment, plan)) in users.iter().enumerate() {
        let bench = desk.bench(experiment);
        let fits = plan.iter().enumerate().filter(|(_, planned)| matches!(planned.job, Job::Fit { .. }));
        waiting.extend(
            fits.map(|(at, planned)| Waiting { place: Place { user, planned: at }, trial: bench.head(plan, planned) }),
        );
    }
    let jobs = desk.jobs.min(waiting.len()).max(1);
    match round(desk, users, waiting, jobs, summary)? {
        (End::Done, too_little) if !too_little.is_empty() => Ok(round(desk, users, too_little, 1, summary)?.0),
        (ended, _) => Ok(ended),
    }
}

/// So many fits at a time until none waits; also those that found too little memory beside others.
fn round(
    desk: &mut Desk<'_>,
    users: &[User<'_>],
    mut waiting: VecDeque<Waiting>,
    jobs: usize,
    summary: &mut Summary,
) -> Result<(End, VecDeque<Waiting>)> {
    let _share = memory::shared(jobs);
    let threads = (rayon::current_num_threads() / jobs).max(1);
    let (dataset, device, stop) = (desk.dataset, &desk.settings.device, desk.stop);
    let (to, from) = channel();
    let (mut under_way, mut too_little): (Vec<Fitting>, _) = (Vec::new(), VecDeque::new());
    let mut ended = End::Done;
    std::thread::scope(|scope| {
        let mut fit = || -> Result<()> {
            loop {
                while under_way.len() < jobs && ended == End::Done {
                    let Some(Waiting { place, trial }) = next(&mut waiting, &under_way) else { break };
                    let (experiment, planned) = place.of(users);
                    let mut bench = desk.bench(experiment);
                    if !bench.waits(&trial, summary)? {
                        continue;
                    }
                    let (begun, too_large) = bench.begin(trial, (jobs > 1).then_some(threads))?;
                    let id = begun.trial.id.clone();
                    let setting = Setting {
                        dataset,
                        protocol: &experiment.protocol,
                        device,
                        threads,
                        checkpoints: bench.store.checkpoints(&id),
                        // For the clock, and for rows that are made of it; a control is neither's.
                        keep: (planned.control == Control::None).then(|| bench.store.matcher(&id)),
                        best: bench.best(planned),
                        stop,
                    };
                    let voice = Voice { place, to: to.clone() };
                    under_way.push(Fitting { place, begun });
                    if let Some(too_large) = too_large {
                        voice.say(Said::Over(Box::new(Err(too_large))));
                        continue;
                    }
                    let fit = move || {
                        let mut voice = voice;
                        let work = AssertUnwindSafe(|| {
                            let dataset = data(dataset, planned)?;
                            execute::execute(planned, &Setting { dataset: &dataset, ..setting }, &mut voice)
                        });
                        // A panic of ours: who waits for a word gets one.
                        let outcome = catch_unwind(work)
                            .unwrap_or_else(|payload| Err(Failure::Reason(of_panic(payload.as_ref()))));
                        voice.say(Said::Over(Box::new(outcome)));
                    };
                    let thread = std::thread::Builder::new().name("trial".into());
                    thread.spawn_scoped(scope, fit).context("cannot start a thread for a trial")?;
                }
                if under_way.is_empty() {
                    return Ok(());
                }
                let (place, said) = from.recv().context("a trial ended without a word")?;
                let at = under_way.iter().position(|it| it.place == place);
                let at = at.context("a trial spoke that is not under way")?;
                match said {
                    Said::Step(done, total, loss) => {
                        desk.progress.of(&mut under_way[at].begun.task).step(done, total, loss);
                    }
                    Said::Epoch(epoch) => desk.progress.of(&mut under_way[at].begun.task).epoch(&epoch),
                    Said::Over(outcome) => {
                        let Fitting { place, begun } = under_way.swap_remove(at);
                        let (experiment, planned) = place.of(users);
                        memory::release();
                        if jobs > 1 && matches!(*outcome, Err(Failure::Memory(_))) {
                            desk.store.rest(&begun.trial.id)?;
                            too_little.push_back(Waiting { place, trial: begun.trial });
                        } else if desk.bench(experiment).record(planned, begun, *outcome, summary)? != End::Done {
                            ended = End::Interrupted;
                        }
                    }
                }
            }
        };
        // Fits that are under way are waited for, and have to end where nothing can be recorded any more.
        fit().inspect_err(|_| stop.store(true, Ordering::Relaxed))
    })?;
    Ok((ended, too_little))
}

/// The first trial that waits and is not under way already, be it in another experiment: that one's numbers will be its own.
fn next(waiting: &mut VecDeque<Waiting>, under_way: &[Fitting]) -> Option<Waiting> {
    let free = |it: &Waiting| under_way.iter().all(|other| other.begun.trial.id != it.trial.id);
    let at = waiting.iter().position(free)?;
    waiting.remove(at)
}
