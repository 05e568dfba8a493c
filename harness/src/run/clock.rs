//! The clock of an experiment, apart from its training: when every row is fitted, the matchers are loaded again and measured in rounds, each row
//! once a round, so that whatever else the machine does falls on all of them.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{
    Planned, Profile,
    bench::{Bench, End},
    combine::{Part, summed, together},
    execute::{self, Failure, Setting},
    machine,
    plan::{Combined, Job},
    score::{Encoded, IN_TURN},
    timing::Effort,
};
use crate::{
    output::short,
    record::{Control, Outcome, Timing, Trial, check, phase},
};

/// How long a row is measured in one round, and how often.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Rounds; the samples of all are one row's samples.
    pub rounds: usize,
    /// Of a phase that takes milliseconds to seconds, in one round.
    pub long: Effort,
    /// Of one that takes microseconds to milliseconds.
    pub short: Effort,
    /// A row whose round takes longer is not asked again.
    pub patience: Duration,
}

impl Clock {
    /// That of a profile.
    pub fn of(profile: Profile) -> Self {
        let (rounds, patience) = match profile {
            Profile::Smoke => (2, 1),
            Profile::Quick => (3, 3),
            Profile::Full | Profile::Paper => (5, 60),
        };
        let (long, short) = (Effort::long(profile).share(rounds), Effort::short(profile).share(rounds));
        Self { rounds, long, short, patience: Duration::from_secs(patience) }
    }
}

/// A row that is being measured.
struct Row<'p> {
    planned: &'p Planned,
    parts: Vec<(usize, Part)>,
    trial: Trial,
    timings: Vec<Timing>,
    state: State,
}

/// Whether a row is asked in the next round.
enum State {
    Asked,
    /// Its rounds take too long.
    Enough,
    Failed(String),
}

impl Bench<'_> {
    /// Measures what is recorded and was not measured yet; controls cost what their rows cost, and are left out.
    ///
    /// # Errors
    /// If the recording cannot be written.
    pub fn clock(&mut self, plan: &[Planned]) -> Result<End> {
        let mut rows = self.unclocked(plan)?;
        let setting = self.setting(PathBuf::new());
        if setting.goes_on().is_err() {
            return Ok(End::Interrupted);
        }
        if rows.is_empty() {
            return Ok(End::Done);
        }
        let clock = Clock::of(self.settings.profile);
        let name = &self.experiment.name;
        self.progress.say(&format!("{name} {}: clocking {} rows in {} rounds", self.label, rows.len(), clock.rounds));
        let begin = machine::load();
        for _ in 0..clock.rounds {
            for row in rows.iter_mut().filter(|row| matches!(row.state, State::Asked)) {
                if setting.goes_on().is_err() {
                    return Ok(End::Interrupted);
                }
                let start = Instant::now();
                match execute::apart(&row.planned.label, setting.threads, || row.round(&clock, &setting)) {
                    Ok(timings) => {
                        row.add(timings);
                        if start.elapsed() > clock.patience {
                            row.state = State::Enough;
                        }
                    }
                    Err(Failure::Interrupted) => return Ok(End::Interrupted),
                    Err(Failure::Memory(reason) | Failure::Reason(reason)) => row.state = State::Failed(reason),
                }
            }
        }
        let load = begin.zip(machine::load()).map(|(begin, end)| [begin, end]);
        // Rows that are made of others come behind these, whose encoding is theirs.
        for Row { planned, mut trial, timings, state, .. } in rows {
            match state {
                State::Asked | State::Enough => {
                    if let Job::Combine(combined) = &planned.job {
                        trial.timings.extend(self.encoding(plan, planned, combined));
                    }
                    trial.timings.extend(timings);
                }
                State::Failed(reason) => {
                    let said = format!(
                        "{}{}not clocked: {reason}",
                        trial.remark,
                        if trial.remark.is_empty() { "" } else { "; " }
                    );
                    trial.remark = short(&said, check::LONGEST_TEXT - 100).into_owned();
                }
            }
            if let Some(origin) = &mut trial.origin {
                origin.load = load;
            }
            self.store.add(trial)?;
        }
        Ok(End::Done)
    }

    /// What is to be measured, in the order of the plan.
    fn unclocked<'p>(&mut self, plan: &'p [Planned]) -> Result<Vec<Row<'p>>> {
        let mut rows = Vec::new();
        for (place, planned) in plan.iter().enumerate().filter(|(_, planned)| planned.control == Control::None) {
            let key = self.head(plan, planned).key();
            let Some(trial) = self.store.get(&key).filter(|it| it.outcome == Outcome::Done && !is_clocked(it)).cloned()
            else {
                continue;
            };
            // The same trial of another experiment was measured among that one's rows.
            let twin = self.store.of_id(&trial.id).find(|twin| is_clocked(twin));
            if let Some(timings) = twin.map(|twin| twin.timings.clone()) {
                self.store.add(Trial { timings, ..trial })?;
                continue;
            }
            let members = match &planned.job {
                Job::Fit { .. } => vec![place],
                Job::Combine(combined) => combined.members(),
            };
            let parts = members.iter().map(|&place| Ok((place, self.part(plan, planned, place)?)));
            let (parts, state) = match parts.collect::<Result<Vec<_>, Failure>>() {
                Ok(parts) => (parts, State::Asked),
                Err(failure) => (Vec::new(), State::Failed(failure.to_string())),
            };
            rows.push(Row { planned, parts, trial, timings: Vec::new(), state });
        }
        Ok(rows)
    }

    /// What encoding takes that every row goes through one after another.
    fn encoding(&self, plan: &[Planned], planned: &Planned, combined: &Combined) -> Vec<Timing> {
        let of = |place: usize| {
            let member = self.member(plan, place, planned.seed);
            self.store.of_id(&member.1).find(|it| is_clocked(it)).map(|it| it.timings.clone()).unwrap_or_default()
        };
        let members: Vec<Vec<Timing>> = combined.members().into_iter().map(of).collect();
        IN_TURN.into_iter().filter_map(|phase| summed(phase, &members)).collect()
    }
}

impl Row<'_> {
    /// One round.
    fn round(&self, clock: &Clock, setting: &Setting<'_>) -> Result<Vec<Timing>, Failure> {
        let batch = self.timings.iter().find(|timing| timing.phase == phase::QUERY_BATCH).map(|timing| timing.items);
        match &self.planned.job {
            Job::Fit { method, .. } => {
                let [(_, part)] = self.parts.as_slice() else {
                    return Err(Failure::Reason("its matcher is gone".into()));
                };
                let matcher = method.load(&part.folder, setting.device)?;
                let mut encoded = Encoded::of(setting.dataset, setting.protocol)?;
                encoded.add(&*matcher)?;
                let mut timings = encoded.clock_encoding(&*matcher, clock)?;
                if self.planned.scored {
                    timings.extend(encoded.clock_search(&matcher.similarity().into(), clock, batch)?);
                }
                Ok(timings)
            }
            Job::Combine(combined) => together(&self.parts, combined, setting, |encoded, compared| {
                Ok(encoded.clock_search(compared, clock, batch)?)
            }),
        }
    }

    /// Adds the samples of a round.
    fn add(&mut self, timings: Vec<Timing>) {
        for new in timings {
            match self.timings.iter_mut().find(|known| (&known.phase, known.items) == (&new.phase, new.items)) {
                Some(known) => known.seconds.extend(new.seconds),
                None => self.timings.push(new),
            }
        }
    }
}

/// Whether a trial was measured.
fn is_clocked(trial: &Trial) -> bool {
    trial.timings.iter().any(|timing| IN_TURN.contains(&timing.phase.as_str()))
}
