//! Several recordings as one: seeds that were run on different machines, or experiments that were recorded apart.

use std::path::{Path, PathBuf};

use super::{LeftOut, Recording, Trial, words};
use crate::output::quoted;

/// Why two recordings are not one.
#[derive(Debug, thiserror::Error)]
#[error("{} and {} cannot be one report: {what}", first.display(), second.display())]
pub struct Conflict {
    first: PathBuf,
    second: PathBuf,
    what: String,
}

impl Recording {
    /// Adds what another one holds. Trials that are in both count once; circumstances of a run are those of this one, and each trial
    /// keeps its own.
    ///
    /// # Errors
    /// A dataset, or a row of a table, of which the two mean different things; or a trial of which they have different numbers.
    pub fn merge(&mut self, (first, second): (&Path, &Path), other: Self) -> Result<(), Conflict> {
        let conflict = |what: String| Conflict { first: first.into(), second: second.into(), what };
        for (name, note) in other.manifest.datasets {
            let known = self.manifest.datasets.entry(name.clone()).or_insert_with(|| note.clone());
            if known.checksum != note.checksum {
                return Err(conflict(format!("dataset {} is not the same in both, by its checksum", quoted(&name))));
            }
        }
        for (name, note) in other.manifest.experiments {
            self.manifest.experiments.entry(name).or_insert(note);
        }
        self.manifest.left_out.extend(other.manifest.left_out);
        if self.manifest.profile != other.manifest.profile {
            self.manifest.profile = format!("{} and {}", self.manifest.profile, other.manifest.profile);
        }
        for trial in other.trials {
            let same_row = |known: &&Trial| row(known) == row(&trial);
            if let Some(known) = self.trials.iter().find(same_row).filter(|known| meant(known) != meant(&trial)) {
                let what = format!(
                    "row {} of {} was run with other parameters, code or protocol there than here; run both with one program and one profile",
                    quoted(&words::row(known)),
                    known.experiment
                );
                return Err(conflict(what));
            }
            match self.trials.iter_mut().find(|known| known.key() == trial.key()) {
                None => self.trials.push(trial),
                Some(known) => match (known.outcome == trial.outcome, known.differences(&trial).first()) {
                    (true, Some(difference)) => {
                        return Err(conflict(format!(
                            "trial {} came out differently: {difference}",
                            quoted(&trial.key())
                        )));
                    }
                    // What failed on one machine and not on the other has numbers.
                    (false, _) if trial.outcome == super::Outcome::Done => *known = trial,
                    _ => {}
                },
            }
        }
        // What one run left out the other may have run.
        let Self { manifest, trials } = self;
        let ran = |it: &LeftOut| {
            let on = |trial: &&Trial| it.dataset.is_empty() || it.dataset == trial.dataset;
            trials.iter().filter(on).any(|trial| trial.experiment == it.experiment)
        };
        let mut seen: Vec<LeftOut> = Vec::new();
        for it in std::mem::take(&mut manifest.left_out) {
            if !ran(&it) && !seen.contains(&it) {
                seen.push(it);
            }
        }
        manifest.left_out = seen;
        self.trials.sort_by(|a, b| place(a).cmp(&place(b)));
        Ok(())
    }
}

/// Which row of which table.
fn row(trial: &Trial) -> impl PartialEq + use<'_> {
    (&trial.experiment, &trial.dataset, &trial.label, &trial.swept, trial.control)
}

/// What the row of a trial means, whatever the seed.
fn meant(trial: &Trial) -> impl PartialEq + use<'_> {
    let code = trial.origin.as_ref().map(|origin| &origin.code);
    (&trial.method, &trial.params, &trial.protocol, &trial.checksum, &trial.device, code)
}

fn place(trial: &Trial) -> impl Ord + use<'_> {
    (&trial.experiment, &trial.dataset, trial.position, &trial.label, &trial.swept, trial.seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::synthetic;

    fn merged(change: impl FnOnce(&mut Recording)) -> Result<Recording, String> {
        let mut all = synthetic::recording();
        let mut other = all.clone();
        // The last seed of every row was run elsewhere.
        let last = all.trials.iter().map(|trial| trial.seed).max().unwrap();
        all.trials.retain(|trial| trial.seed != last);
        other.trials.retain(|trial| trial.seed == last);
        change(&mut other);
        all.merge((Path::new("here"), Path::new("there")), other).map_err(|error| error.to_string())?;
        Ok(all)
    }

    #[test]
    fn seeds_that_were_run_apart_are_one_recording() {
        let keys = |recording: &Recording| {
            let mut keys: Vec<String> = recording.trials.iter().map(Trial::key).collect();
            keys.sort();
            keys
        };
        let whole = synthetic::recording();
        assert_eq!(keys(&merged(|_| {}).unwrap()), keys(&whole));
        // What is in both counts once.
        assert_eq!(keys(&merged(|other| other.trials = whole.trials.clone()).unwrap()), keys(&whole));
    }

    #[test]
    fn what_one_run_left_out_the_other_may_have_run() {
        let (name, absent) = (synthetic::recording().trials[0].experiment.clone(), "absent".to_string());
        let left = |experiment: &String| LeftOut { experiment: experiment.clone(), ..LeftOut::default() };
        let whole = merged(|other| other.manifest.left_out = vec![left(&name), left(&absent), left(&absent)]).unwrap();
        let own = synthetic::recording().manifest.left_out;
        assert_eq!(whole.manifest.left_out, [own, vec![left(&absent)]].concat());
    }

    #[test]
    fn what_means_two_things_is_refused() {
        let checksum = merged(|other| other.manifest.datasets.values_mut().next().unwrap().checksum = "other".into());
        let said = checksum.unwrap_err();
        assert!(
            said.starts_with("here and there cannot be one report: dataset ") && said.contains("not the same"),
            "{said}"
        );
        let params = merged(|other| other.trials[0].params = serde_json::json!({ "other": 1 }));
        assert!(params.unwrap_err().contains("was run with other parameters, code or protocol there than here"));
        let numbers = merged(|other| {
            other.trials = synthetic::recording().trials;
            *other.trials.iter_mut().find_map(|trial| trial.metrics.values_mut().next()).unwrap() += 1.0;
        });
        assert!(numbers.unwrap_err().contains("came out differently"));
    }
}
