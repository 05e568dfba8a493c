//! The fits of one rung: several at a time, as no score depends on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use anyhow::{Context, Result};
use toml::Table;
use xmbench_datasets::random::Seed;
use xmbench_methods::{card::Domain, method::Observer};

use super::{
    Row, draw,
    fit::{Fit, Judged},
    journal::{Journal, Line},
    search::{Left, Search},
};
use crate::{
    record::Id,
    run::{
        Progress,
        beside::{Body, Fits, Share, fit_all},
        execute::Failure,
        progress::Task,
    },
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

impl<'a> Round<'a> {
    /// A fit of each setting up to the end of the rung, made now or before. Why there is none, if one is missing, is the inner error.
    ///
    /// # Errors
    /// A journal that cannot be written.
    pub fn lines(&self, going: &[usize], journal: &mut Journal) -> Result<Result<Vec<Line>, Left>> {
        let epochs = self.stops[self.number];
        let id = |&setting: &usize| (setting, self.search.id(self.row, &self.settings[setting], Some(epochs)));
        let going: Vec<(usize, Id)> = going.iter().map(id).collect();
        let (mut waiting, mut known) = (Vec::new(), BTreeSet::new());
        for (setting, id) in &going {
            // Of equal settings one is fitted.
            if journal.get(id).is_none() && known.insert(id) {
                waiting.push((*setting, id.clone()));
            }
        }
        self.progress.skip(going.len() - waiting.len());
        let (jobs, stop) = (self.search.request.jobs, self.search.request.stop);
        let mut rung = Rung { round: self, journal, left: None };
        fit_all(&mut rung, waiting, jobs, self.progress, stop)?;
        if let Some(left) = rung.left {
            return Ok(Err(left));
        }
        let name = self.row.planned.row();
        let line = |(setting, id): &(usize, Id)| {
            let line = journal.get(id).context("a fit that was finished is not in the journal")?;
            // Another row or rung may have paid for it.
            let paid = (&line.row, line.setting, line.rung) == (&name, *setting, self.number);
            let seconds = if paid { line.seconds } else { 0.0 };
            Ok(Line { row: name.clone(), setting: *setting, rung: self.number, seconds, ..line.clone() })
        };
        going.iter().map(line).collect::<Result<_>>().map(Ok)
    }
}

/// The fits that a rung still lacks; what is finished is written down, until all are or one is not.
struct Rung<'r, 'a> {
    round: &'r Round<'a>,
    journal: &'r mut Journal,
    /// Why one is not.
    left: Option<Left>,
}

/// A setting that is being fitted.
struct Fitting {
    setting: usize,
    id: Id,
    task: Task,
}

impl<'a> Fits<'a> for Rung<'_, 'a> {
    type Waiting = (usize, Id);
    type Begun = Fitting;
    type Given = (Judged, f64);

    fn begin(
        &mut self,
        (setting, id): (usize, Id),
        share: Share,
    ) -> Result<Option<(Fitting, Body<'a, (Judged, f64)>)>> {
        let &Round { search, row, settings, stops, number, progress, .. } = self.round;
        let (request, params, epochs) = (search.request, &settings[setting], stops[number]);
        if self.left.is_none() && request.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            self.left = Some(Left::Time);
        }
        if self.left.is_some() {
            return Ok(None);
        }
        let (experiment, dataset, row_name) = (&search.experiment.name, search.entry.label(), row.planned.row());
        let of = format!("setting {} of {}, {epochs} epochs", setting + 1, request.trials);
        let task = progress.begin(&format!("{experiment} {dataset}: {row_name}, {of}"));
        let fit = Fit {
            method: row.method,
            params,
            data: search.data,
            protocol: &search.experiment.protocol,
            device: request.device,
            threads: share.threads,
            seed: Seed(request.seed),
            checkpoints: search.checkpoints(row, params),
            stop: request.stop,
        };
        let body = move |observer: &mut (dyn Observer + Send)| fit.judge(epochs, stops, observer);
        Ok(Some((Fitting { setting, id, task }, Box::new(body))))
    }

    fn task(fitting: &mut Fitting) -> &mut Task {
        &mut fitting.task
    }

    fn end(&mut self, fitting: Fitting, outcome: Result<(Judged, f64), Failure>) -> Result<()> {
        let Fitting { setting, id, task } = fitting;
        let &Round { search, row, settings, ranges, stops, number, progress } = self.round;
        let (judged, seconds) = match outcome {
            Ok(given) => given,
            Err(failure) => {
                if !matches!(failure, Failure::Interrupted) {
                    progress.end(&task, &format!("failed: {failure}"));
                }
                // The first that went wrong.
                self.left.get_or_insert(failure.into());
                return Ok(());
            }
        };
        let (validation, failed) = match judged {
            Judged::Score(score) => (Some(score), None),
            Judged::Failed(reason) => (None, Some(reason)),
        };
        let said = match (&validation, &failed) {
            (Some(score), _) => format!("validation {score:.3}"),
            (None, reason) => format!("cannot be fitted: {}", reason.as_deref().unwrap_or_default()),
        };
        progress.end(&task, &said);
        self.journal.add(Line {
            id,
            row: row.planned.row(),
            dataset: search.entry.label(),
            setting,
            rung: number,
            epochs: stops[number],
            validation,
            failed,
            seconds,
            params: draw::tuned(&settings[setting], ranges),
        })
    }

    fn put_off(&mut self, fitting: Fitting) -> Result<(usize, Id)> {
        Ok((fitting.setting, fitting.id))
    }
}
