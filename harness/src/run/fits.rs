//! The fits of one dataset's experiments: what is not recorded yet, each recorded as it ends.

use anyhow::Result;
use xmbench_methods::method::Observer;

use super::{
    Experiment, Planned,
    bench::{Begun, End, data},
    beside::{self, Body, Fits, Share},
    execute::{self, Failure, Numbers, Setting},
    plan::Job,
    progress::Task,
    sweep::{Desk, Summary, Work},
};
use crate::record::{Control, Trial};

/// Where a trial stands: its experiment among those on the dataset, and its place in the plan.
#[derive(Clone, Copy)]
struct Place {
    user: usize,
    planned: usize,
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

/// The trials on one dataset.
struct Trials<'d, 'a> {
    desk: &'d mut Desk<'a>,
    users: &'a [Work<'a>],
    summary: &'d mut Summary,
    ended: End,
}

impl<'a> Trials<'_, 'a> {
    fn of(&self, place: Place) -> (&'a Experiment, &'a Planned) {
        let (experiment, plan) = self.users[place.user];
        (experiment, &plan[place.planned])
    }
}

impl<'a> Fits<'a> for Trials<'_, 'a> {
    type Waiting = Waiting;
    type Begun = Fitting;
    type Given = Numbers;

    /// The same trial may be under way in another experiment, whose numbers will be its own.
    fn waits_for(&self, waiting: &Waiting, fitting: &Fitting) -> bool {
        waiting.trial.id == fitting.begun.trial.id
    }

    fn begin(
        &mut self,
        Waiting { place, trial }: Waiting,
        share: Share,
    ) -> Result<Option<(Fitting, Body<'a, Numbers>)>> {
        let (experiment, planned) = self.of(place);
        let mut bench = self.desk.bench(experiment);
        if self.ended != End::Done || !bench.waits(&trial, self.summary)? {
            return Ok(None);
        }
        let (begun, too_large) = bench.begin(trial, (!share.alone).then_some(share.threads))?;
        let id = &begun.trial.id;
        let (checkpoints, matcher) = (bench.store.checkpoints(id), bench.store.matcher(id));
        // For the clock, and for rows that are made of it; a control is neither's.
        let keep = (planned.control == Control::None).then_some(matcher);
        let best = bench.best(planned);
        let Desk { dataset, settings, stop, .. } = *self.desk;
        let body = move |observer: &mut (dyn Observer + Send)| {
            too_large.map_or(Ok(()), Err)?;
            let dataset = data(dataset, planned)?;
            let setting = Setting {
                dataset: &dataset,
                protocol: &experiment.protocol,
                device: &settings.device,
                threads: share.threads,
                checkpoints,
                keep,
                best,
                stop,
            };
            execute::execute(planned, &setting, observer)
        };
        Ok(Some((Fitting { place, begun }, Box::new(body))))
    }

    fn task(fitting: &mut Fitting) -> &mut Task {
        &mut fitting.begun.task
    }

    fn end(&mut self, Fitting { place, begun }: Fitting, outcome: Result<Numbers, Failure>) -> Result<()> {
        let (experiment, planned) = self.of(place);
        if self.desk.bench(experiment).record(planned, begun, outcome, self.summary)? != End::Done {
            self.ended = End::Interrupted;
        }
        Ok(())
    }

    fn put_off(&mut self, Fitting { place, begun }: Fitting) -> Result<Waiting> {
        self.desk.store.rest(&begun.trial.id)?;
        Ok(Waiting { place, trial: begun.trial })
    }
}

/// Fits what is not recorded yet of every experiment on a dataset.
///
/// # Errors
/// If the recording cannot be written.
pub fn fit_all<'a>(desk: &mut Desk<'a>, users: &'a [Work<'a>], summary: &mut Summary) -> Result<End> {
    let mut waiting = Vec::new();
    for (user, (experiment, plan)) in users.iter().enumerate() {
        let bench = desk.bench(experiment);
        let fits = plan.iter().enumerate().filter(|(_, planned)| matches!(planned.job, Job::Fit { .. }));
        waiting.extend(
            fits.map(|(at, planned)| Waiting { place: Place { user, planned: at }, trial: bench.head(plan, planned) }),
        );
    }
    let (jobs, progress, stop) = (desk.jobs, desk.progress, desk.stop);
    let mut trials = Trials { desk, users, summary, ended: End::Done };
    beside::fit_all(&mut trials, waiting, jobs, progress, stop)?;
    Ok(trials.ended)
}
