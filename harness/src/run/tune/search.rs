//! The search for the parameters of one row.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::Result;
use serde_json::json;
use toml::Table;
use xmbench_datasets::random::Seed;

use super::{
    Request, Row,
    develop::Development,
    draw,
    fit::{Judged, count},
    journal::Journal,
    round::Round,
    rungs,
};
use crate::{
    record::{Control, Id, Rung, TunedRow},
    run::{Experiment, Progress, entry::DatasetEntry, execute::Failure, machine, trial::Identity},
};

/// Why a row is not tuned.
pub enum Left {
    /// For good, or until something is mended.
    Reason(String),
    /// There was no time.
    Time,
    /// The run was stopped.
    Stopped,
}

impl From<Failure> for Left {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Interrupted => Self::Stopped,
            Failure::Memory(reason) | Failure::Reason(reason) => Self::Reason(reason),
        }
    }
}

/// The search for the parameters of rows on one dataset.
pub struct Search<'a> {
    pub request: &'a Request<'a>,
    pub experiment: &'a Experiment,
    pub entry: &'a DatasetEntry,
    pub data: &'a Development,
    pub rungs: &'a [Rung],
}

/// What was spent on a row.
#[derive(Default)]
struct Spent {
    fits: usize,
    failed: BTreeMap<usize, String>,
    seconds: f64,
}

impl Search<'_> {
    /// Searches for the parameters of a row.
    ///
    /// # Errors
    /// A journal that cannot be written. Why the row is not tuned, if it is not, is the inner one.
    pub fn row(&self, row: &Row<'_>, journal: &mut Journal, progress: &Progress) -> Result<Result<TunedRow, Left>> {
        let varied: Vec<&str> = row.planned.swept.keys().map(String::as_str).collect();
        let ranges = draw::ranges(row.method, row.entry, &varied, row.present);
        if ranges.is_empty() {
            return Ok(Err(Left::Reason("its card says of no parameter what to draw it from".into())));
        }
        let seed = Seed(self.request.seed);
        let settings = match draw::settings(row.method, row.present, &ranges, self.request.trials, seed) {
            Ok(settings) => settings,
            Err(error) => return Ok(Err(Left::Reason(error.to_string()))),
        };
        let epochs = count(row.present, "epochs");
        let stops: Vec<usize> = self.rungs.iter().map(|rung| rung.epochs(epochs)).collect();
        let mut spent = Spent::default();
        let mut scores: Vec<(usize, Option<f64>)> = (0..settings.len()).map(|at| (at, None)).collect();
        for (number, rung) in self.rungs.iter().enumerate() {
            if number > 0 {
                let going: Vec<usize> = rungs::survivors(&scores, rung.settings);
                scores.retain(|(at, _)| going.contains(at));
                // What fell out needs no room any more.
                let gone = (0..settings.len()).filter(|at| !going.contains(at));
                gone.for_each(|at| forget(&self.checkpoints(row, &settings[at])));
            }
            scores.iter_mut().filter(|(at, _)| spent.failed.contains_key(at)).for_each(|(_, score)| *score = None);
            let going = scores.iter_mut().filter(|(at, _)| !spent.failed.contains_key(at));
            let (going, places): (Vec<_>, Vec<_>) = going.map(|(at, score)| (*at, score)).unzip();
            let round =
                Round { search: self, row, settings: &settings, ranges: &ranges, stops: &stops, number, progress };
            let lines = match round.lines(&going, journal)? {
                Ok(lines) => lines,
                Err(left) => return Ok(Err(left)),
            };
            for (line, score) in lines.into_iter().zip(places) {
                spent.fits += 1;
                spent.seconds += line.seconds;
                *score = match line.judged() {
                    Judged::Score(score) => Some(score),
                    Judged::Failed(reason) => {
                        spent.failed.insert(line.setting, reason);
                        None
                    }
                };
            }
        }
        settings.iter().for_each(|params| forget(&self.checkpoints(row, params)));
        let Some((best, after)) = rungs::best(&scores) else {
            let reason = spent.failed.into_values().next().unwrap_or_default();
            return Ok(Err(Left::Reason(format!("no setting could be fitted: {reason}"))));
        };
        Ok(Ok(TunedRow {
            row: row.planned.row(),
            dataset: self.entry.label(),
            method: row.method.card().name.clone(),
            developed_on: self.data.called.clone(),
            checksum: self.data.checksum.to_string(),
            before: scores.first().filter(|(at, _)| *at == 0).and_then(|(_, score)| *score),
            after,
            epochs,
            fits: spent.fits,
            failed: spent.failed.len(),
            seconds: (10.0 * spent.seconds).round() / 10.0,
            present: draw::tuned(row.present, &ranges),
            params: draw::tuned(&settings[best], &ranges),
            ranges,
        }))
    }

    /// What the score of a fit depends on: after so many epochs, or at all.
    pub fn id(&self, row: &Row<'_>, params: &Table, epochs: Option<usize>) -> Id {
        Identity {
            checksum: &self.data.checksum,
            method: &row.method.card().name,
            code: machine::CODE,
            params: &json!({ "tuned": params, "epochs": epochs }),
            seed: self.request.seed,
            protocol: &self.experiment.protocol,
            device: if self.request.device.is_cuda() { "cuda" } else { "cpu" },
            control: Control::None,
        }
        .id()
    }

    /// Where the fit of a setting is kept from rung to rung.
    pub fn checkpoints(&self, row: &Row<'_>, params: &Table) -> PathBuf {
        self.request.scratch.join(self.id(row, params, None).as_str())
    }
}

/// Removes the folder of a fit; one that stays costs room and nothing else.
fn forget(folder: &Path) {
    let _ = std::fs::remove_dir_all(folder);
}
