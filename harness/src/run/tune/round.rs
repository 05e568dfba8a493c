//! The fits of one rung: several at a time, as a small model leaves processors idle and no score depends on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::channel,
    },
    time::Instant,
};

use anyhow::{Context, Result};
use toml::Table;
use xmbench_datasets::random::Seed;
use xmbench_methods::{card::Domain, train::memory};

use super::{
    Row, draw,
    fit::{Fit, Judged},
    journal::{Journal, Line},
    search::{Left, Search},
};
use crate::{
    record::Id,
    run::{Progress, execute::Failure},
};

/// The fits of one rung of a row's search.
pub struct Round<'a> {
    pub search: &'a Search<'a>,
    pub row: &'a Row<'a>,
    pub settings: &'a [Table],
    pub ranges: &'a BTreeMap<String, Domain>,
    /// Epochs of every rung.
    pub stops: &'a [usize],
    /// Number of this one.
    pub number: usize,
    pub progress: &'a Progress,
}

impl Round<'_> {
    /// A fit of each setting up to the end of the rung, made now or before. Why there is none, if one is missing, is the inner error.
    ///
    /// # Errors
    /// A journal that cannot be written.
    pub fn lines(&self, going: &[usize], journal: &mut Journal) -> Result<Result<Vec<Line>, Left>> {
        let (mut waiting, mut known) = (Vec::new(), BTreeSet::new());
        for &setting in going {
            // Of equal settings one is fitted.
            let id = self.id(setting);
            if journal.get(&id).is_none() && known.insert(id) {
                waiting.push(setting);
            }
        }
        self.progress.skip(going.len() - waiting.len());
        let jobs = self.search.request.jobs.min(waiting.len()).max(1);
        let left = match self.fit_all(&waiting, jobs, journal)? {
            // What finds too little memory beside others is fitted again alone.
            Some(Left::Memory(_)) if jobs > 1 => {
                waiting.retain(|&setting| journal.get(&self.id(setting)).is_none());
                self.fit_all(&waiting, 1, journal)?
            }
            left => left,
        };
        if let Some(left) = left {
            return Ok(Err(left));
        }
        let name = self.row.planned.row();
        let line = |&setting: &usize| {
            let line = journal.get(&self.id(setting)).context("a fit that was finished is not in the journal")?;
            // Another row or rung may have paid for it.
            let paid = (&line.row, line.setting, line.rung) == (&name, setting, self.number);
            let seconds = if paid { line.seconds } else { 0.0 };
            Ok(Line { row: name.clone(), setting, rung: self.number, seconds, ..line.clone() })
        };
        going.iter().map(line).collect::<Result<_>>().map(Ok)
    }

    /// Fits so many at a time and writes down what is finished, until all are or one is not; why that one is not.
    fn fit_all(&self, waiting: &[usize], jobs: usize, journal: &mut Journal) -> Result<Option<Left>> {
        let _share = memory::shared(jobs);
        let threads = (rayon::current_num_threads() / jobs).max(1);
        let (next, over, (to, from)) = (AtomicUsize::new(0), AtomicBool::new(false), channel());
        let work = |to: std::sync::mpsc::Sender<Result<Line, Left>>| {
            while !over.load(Ordering::Relaxed) {
                let Some(&setting) = waiting.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
                let line = self.fit(setting, threads);
                over.fetch_or(line.is_err(), Ordering::Relaxed);
                // Nobody hears it where the journal cannot be written any more.
                let _ = to.send(line);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                let (to, work) = (to.clone(), &work);
                let thread = std::thread::Builder::new().name("setting".into());
                thread.spawn_scoped(scope, move || work(to)).context("cannot start a thread for a setting")?;
            }
            drop(to);
            let mut left = None;
            for line in from {
                match line {
                    Ok(line) => journal.add(line).inspect_err(|_| over.store(true, Ordering::Relaxed))?,
                    // The first that went wrong; one that only has to be alone gives way.
                    Err(other) if matches!(left, None | Some(Left::Memory(_))) => left = Some(other),
                    Err(_) => {}
                }
            }
            Ok(left)
        })
    }

    /// One fit of a setting.
    fn fit(&self, setting: usize, threads: usize) -> Result<Line, Left> {
        let Self { search, row, progress, .. } = self;
        let (request, params, epochs) = (search.request, &self.settings[setting], self.stops[self.number]);
        let (name, dataset) = (row.planned.row(), search.entry.label());
        if request.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(Left::Time);
        }
        let of = format!("setting {} of {}, {epochs} epochs", setting + 1, request.trials);
        let mut task = progress.begin(&format!("{} {dataset}: {name}, {of}", search.experiment.name));
        let fit = Fit {
            method: row.method,
            params,
            data: search.data,
            protocol: &search.experiment.protocol,
            device: request.device,
            threads,
            seed: Seed(request.seed),
            checkpoints: search.checkpoints(row, params),
            stop: request.stop,
        };
        let (judged, seconds) = fit.judge(epochs, self.stops, &mut progress.of(&mut task)).inspect_err(|failure| {
            if let Failure::Memory(reason) | Failure::Reason(reason) = failure {
                progress.end(&task, &format!("failed: {reason}"));
            }
        })?;
        let (validation, failed) = match judged {
            Judged::Score(score) => (Some(score), None),
            Judged::Failed(reason) => (None, Some(reason)),
        };
        let said = match (&validation, &failed) {
            (Some(score), _) => format!("validation {score:.3}"),
            (None, reason) => format!("cannot be fitted: {}", reason.as_deref().unwrap_or_default()),
        };
        progress.end(&task, &said);
        Ok(Line {
            id: self.id(setting),
            row: name,
            dataset,
            setting,
            rung: self.number,
            epochs,
            validation,
            failed,
            seconds,
            params: draw::tuned(params, self.ranges),
        })
    }

    fn id(&self, setting: usize) -> Id {
        self.search.id(self.row, &self.settings[setting], Some(self.stops[self.number]))
    }
}
