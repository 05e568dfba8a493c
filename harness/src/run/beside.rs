//! Fits side by side, where one alone would leave processors idle: small models do, as a step of theirs is over before threads have shared
//! it. No number depends on it, but for what a fit takes.
//!
//! Each works on its share of the threads and of the memory, and tells how far it is. One thread alone begins them, hears them, and does
//! with what they give what has to be done; what finds too little memory beside others is fitted again alone.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use anyhow::{Context, Result};
use candle_core::Device;
use xmbench_methods::{
    method::{Epoch, Observer},
    train::memory,
};

use super::{Profile, Progress, execute::Failure, progress::Task};
use crate::output::of_panic;

/// Most fits side by side when not said: with more of them memory, which they share, is what they wait for.
const MOST: usize = 4;
/// Bytes that each of them should find.
const ROOM: u64 = 4 << 30;

/// How many are fitted side by side when not said: models of the long profiles fill the processors one by one, as they do a GPU.
pub fn side_by_side(profile: Profile, device: &Device) -> usize {
    match profile {
        Profile::Smoke | Profile::Quick if device.is_cpu() => {
            let fit = usize::try_from(memory::limit() / ROOM).unwrap_or(usize::MAX);
            rayon::current_num_threads().min(MOST).min(fit).max(1)
        }
        _ => 1,
    }
}

/// What a fit has for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Threads to work on.
    pub threads: usize,
    /// Whether nothing else is fitted meanwhile.
    pub alone: bool,
}

/// What the thread of a fit does; it tells how far it is.
pub type Body<'a, T> = Box<dyn FnOnce(&mut (dyn Observer + Send)) -> Result<T, Failure> + Send + 'a>;

/// What begins fits and hears of them, all on one thread.
pub trait Fits<'a> {
    /// One that waits.
    type Waiting;
    /// One that is under way.
    type Begun;
    /// What one gives.
    type Given: Send + 'a;

    /// Whether one has to wait until another is over.
    fn waits_for(&self, _waiting: &Self::Waiting, _begun: &Self::Begun) -> bool {
        false
    }

    /// Begins one; none if it need not be made, or nothing is begun any more.
    ///
    /// # Errors
    /// Whatever ends all of them.
    fn begin(&mut self, waiting: Self::Waiting, share: Share) -> Result<Option<(Self::Begun, Body<'a, Self::Given>)>>;

    /// Where it is shown how far one is.
    fn task(begun: &mut Self::Begun) -> &mut Task;

    /// One is over.
    ///
    /// # Errors
    /// Whatever ends all of them.
    fn end(&mut self, begun: Self::Begun, outcome: Result<Self::Given, Failure>) -> Result<()>;

    /// One found too little memory beside others, and waits again.
    ///
    /// # Errors
    /// Whatever ends all of them.
    fn put_off(&mut self, begun: Self::Begun) -> Result<Self::Waiting>;
}

/// What is heard of a fit.
enum Word<T> {
    Step(usize, usize, f64),
    Epoch(Epoch),
    Over(Result<T, Failure>),
}

/// What tells of a fit.
struct Voice<T> {
    number: usize,
    to: Sender<(usize, Word<T>)>,
}

impl<T> Voice<T> {
    /// Nobody hears it where all have ended for another reason.
    fn say(&self, word: Word<T>) {
        let _ = self.to.send((self.number, word));
    }
}

impl<T> Observer for Voice<T> {
    fn step(&mut self, done: usize, total: usize, loss: f64) {
        self.say(Word::Step(done, total, loss));
    }

    fn epoch(&mut self, epoch: &Epoch) {
        self.say(Word::Epoch(epoch.clone()));
    }
}

/// Makes all that wait, so many at a time.
///
/// # Errors
/// What beginning or ending one gives; `stop` is set then, so that those under way end, too.
pub fn fit_all<'a, F: Fits<'a>>(
    fits: &mut F,
    waiting: impl IntoIterator<Item = F::Waiting>,
    jobs: usize,
    progress: &Progress,
    stop: &AtomicBool,
) -> Result<()> {
    let waiting: VecDeque<_> = waiting.into_iter().collect();
    let jobs = jobs.min(waiting.len()).max(1);
    let put_off = round(fits, waiting, jobs, progress, stop)?;
    round(fits, put_off, 1, progress, stop).map(drop)
}

/// Makes all that wait but those that find too little memory beside others, which are given back.
fn round<'a, F: Fits<'a>>(
    fits: &mut F,
    mut waiting: VecDeque<F::Waiting>,
    jobs: usize,
    progress: &Progress,
    stop: &AtomicBool,
) -> Result<VecDeque<F::Waiting>> {
    let _limit = memory::shared(jobs);
    let share = Share { threads: (rayon::current_num_threads() / jobs).max(1), alone: jobs == 1 };
    let (to, from): (_, Receiver<(usize, Word<F::Given>)>) = channel();
    let (mut under_way, mut put_off): (Vec<(usize, F::Begun)>, _) = (Vec::new(), VecDeque::new());
    thread::scope(|scope| {
        let mut number = 0;
        let mut all = || -> Result<()> {
            loop {
                while under_way.len() < jobs {
                    let free = |it: &F::Waiting| under_way.iter().all(|(_, begun)| !fits.waits_for(it, begun));
                    let Some(next) = waiting.iter().position(free).and_then(|at| waiting.remove(at)) else { break };
                    let Some((begun, body)) = fits.begin(next, share)? else { continue };
                    number += 1;
                    under_way.push((number, begun));
                    let mut voice = Voice { number, to: to.clone() };
                    let work = move || {
                        // A panic of ours: who waits for a word gets one.
                        let outcome = catch_unwind(AssertUnwindSafe(|| body(&mut voice)))
                            .unwrap_or_else(|payload| Err(Failure::Reason(of_panic(payload.as_ref()))));
                        voice.say(Word::Over(outcome));
                    };
                    let thread = thread::Builder::new().name("fit".into());
                    thread.spawn_scoped(scope, work).context("cannot start a thread for a fit")?;
                }
                if under_way.is_empty() {
                    return Ok(());
                }
                let (number, word) = from.recv().context("a fit ended without a word")?;
                let at = under_way.iter().position(|(it, _)| *it == number).context("a fit spoke that has ended")?;
                match word {
                    Word::Step(done, total, loss) => {
                        progress.of(F::task(&mut under_way[at].1)).step(done, total, loss);
                    }
                    Word::Epoch(epoch) => progress.of(F::task(&mut under_way[at].1)).epoch(&epoch),
                    Word::Over(outcome) => {
                        let (_, begun) = under_way.swap_remove(at);
                        memory::release();
                        match outcome {
                            Err(Failure::Memory(_)) if !share.alone => put_off.push_back(fits.put_off(begun)?),
                            outcome => fits.end(begun, outcome)?,
                        }
                    }
                }
            }
        };
        // Those under way are waited for, and have to end where nothing can come of them any more.
        all().inspect_err(|_| stop.store(true, Ordering::Relaxed))
    })?;
    Ok(put_off)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use anyhow::bail;

    use super::*;

    /// What a fit of a test does.
    #[derive(Clone, Copy)]
    enum Does {
        /// Is over when all others that do it are under way, too.
        Meets,
        /// Finds too little memory beside others.
        NeedsAll,
        Panics,
        /// Goes on until it is stopped.
        Stays,
        /// Is over, and cannot be written down.
        Breaks,
        /// Is known before it begins.
        Known,
    }
    use Does::*;

    #[derive(Debug, PartialEq)]
    enum Event {
        Begins(char, Share),
        Ends(char, std::result::Result<usize, String>),
    }
    use Event::*;

    /// Fits by their names; of those with the same name one waits for the other.
    struct Named<'a> {
        meeting: &'a Barrier,
        stop: &'a AtomicBool,
        events: Vec<Event>,
    }

    impl<'a> Fits<'a> for Named<'a> {
        type Waiting = (char, Does);
        type Begun = (char, Does, Task);
        type Given = usize;

        fn waits_for(&self, waiting: &Self::Waiting, begun: &Self::Begun) -> bool {
            waiting.0 == begun.0
        }

        fn begin(
            &mut self,
            (name, does): Self::Waiting,
            share: Share,
        ) -> Result<Option<(Self::Begun, Body<'a, usize>)>> {
            self.events.push(Begins(name, share));
            let (meeting, stop) = (self.meeting, self.stop);
            let body = move |observer: &mut (dyn Observer + Send)| {
                observer.step(1, 2, 0.5);
                match does {
                    Meets => drop(meeting.wait()),
                    NeedsAll if !share.alone => return Err(Failure::Memory("half is too little".into())),
                    Panics => panic!("no room in {name}"),
                    Stays => {
                        while !stop.load(Ordering::Relaxed) {
                            thread::yield_now();
                        }
                        return Err(Failure::Interrupted);
                    }
                    NeedsAll | Breaks | Known => {}
                }
                Ok(share.threads)
            };
            let begun = (name, does, Progress::new(1, true).begin("a fit"));
            Ok((!matches!(does, Known)).then(|| (begun, Box::new(body) as Body<'a, usize>)))
        }

        fn task(begun: &mut Self::Begun) -> &mut Task {
            &mut begun.2
        }

        fn end(&mut self, (name, does, _): Self::Begun, outcome: Result<usize, Failure>) -> Result<()> {
            self.events.push(Ends(name, outcome.map_err(|failure| failure.to_string())));
            match does {
                Breaks => bail!("the disk is full"),
                _ => Ok(()),
            }
        }

        fn put_off(&mut self, (name, does, _): Self::Begun) -> Result<Self::Waiting> {
            Ok((name, does))
        }
    }

    /// What happens on three threads, and whether the rest was stopped.
    fn events(waiting: &[(char, Does)], jobs: usize) -> (Result<()>, Vec<Event>, bool) {
        let meet = waiting.iter().filter(|(_, does)| matches!(does, Meets)).count();
        let (meeting, stop) = (Barrier::new(meet), AtomicBool::new(false));
        let mut fits = Named { meeting: &meeting, stop: &stop, events: Vec::new() };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let outcome = pool
            .install(|| fit_all(&mut fits, waiting.iter().copied(), jobs, &Progress::new(waiting.len(), true), &stop));
        (outcome, fits.events, stop.load(Ordering::Relaxed))
    }

    const ALONE: Share = Share { threads: 3, alone: true };
    const SHARED: Share = Share { threads: 1, alone: false };

    #[test]
    fn as_many_as_asked_for_are_under_way_at_once() {
        // Each waits for the other two.
        let (outcome, events, stopped) = events(&[('a', Meets), ('b', Meets), ('k', Known), ('c', Meets)], 3);
        assert!(outcome.is_ok() && !stopped);
        let begins = ['a', 'b', 'k', 'c'].map(|name| Begins(name, SHARED));
        assert_eq!(events[..4], begins);
        assert!(events[4..].iter().all(|event| matches!(event, Ends(_, Ok(1)))), "{events:?}");
        assert_eq!(events.len(), 7);
    }

    #[test]
    fn one_after_another_each_has_everything() {
        let (_, events, _) = events(&[('a', NeedsAll), ('b', NeedsAll)], 1);
        assert_eq!(events, [Begins('a', ALONE), Ends('a', Ok(3)), Begins('b', ALONE), Ends('b', Ok(3))]);
    }

    #[test]
    fn what_finds_too_little_memory_is_fitted_again_alone() {
        let (outcome, events, _) = events(&[('a', NeedsAll), ('b', Meets), ('c', NeedsAll)], 3);
        assert!(outcome.is_ok());
        assert_eq!(events[..3], ['a', 'b', 'c'].map(|name| Begins(name, SHARED)));
        assert_eq!(events[3], Ends('b', Ok(1)));
        // Whichever was put off first.
        let [Begins(first, ALONE), Ends(_, Ok(3)), Begins(second, ALONE), Ends(_, Ok(3))] = events[4..] else {
            panic!("{events:?}")
        };
        assert_eq!([first.min(second), first.max(second)], ['a', 'c']);
    }

    #[test]
    fn equal_ones_wait_for_each_other_and_let_others_pass() {
        let (_, events, _) = events(&[('a', Meets), ('a', NeedsAll), ('b', Meets)], 2);
        assert_eq!(events[..2], ['a', 'b'].map(|name| Begins(name, SHARED)));
        let place = |wanted: &Event| events.iter().position(|event| event == wanted).unwrap();
        let again = events.iter().rposition(|event| *event == Begins('a', SHARED)).unwrap();
        assert!(place(&Ends('a', Ok(1))) < again, "{events:?}");
    }

    #[test]
    fn a_panic_is_its_own_fits_failure() {
        let (outcome, events, stopped) = events(&[('p', Panics), ('a', NeedsAll)], 1);
        assert!(outcome.is_ok() && !stopped);
        let Ends('p', Err(reason)) = &events[1] else { panic!("{events:?}") };
        assert!(reason.contains("no room in p"), "{reason}");
        assert_eq!(events[3], Ends('a', Ok(3)));
    }

    #[test]
    fn what_cannot_be_written_down_stops_those_under_way() {
        let (outcome, events, stopped) = events(&[('s', Stays), ('b', Breaks), ('c', NeedsAll)], 2);
        assert_eq!(outcome.unwrap_err().to_string(), "the disk is full");
        assert!(stopped);
        assert_eq!(events.len(), 3, "{events:?}");
    }
}
