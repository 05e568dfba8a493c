//! A dataset under several seeds: one for all of them, or for each a split of its own, so that the split is a level of what is uncertain.

use super::{Experiment, Planned, entry::DatasetEntry, plan::only};

/// The option of a dataset that says which split is made.
pub const SEED: &str = "seed";

/// A dataset as it is opened, and the trials of an experiment on it.
#[derive(Clone)]
pub struct Opened {
    /// With the options under which it is opened.
    pub entry: DatasetEntry,
    /// What tables call all splits together, where this is one of them.
    pub of: Option<String>,
    /// The trials on it, with what was tuned for it or for all splits.
    pub plan: Vec<Planned>,
}

impl DatasetEntry {
    /// What is opened under such seeds, with the seed of which it is the split.
    pub fn opened(&self, seeds: &[u64]) -> Vec<(Self, Option<u64>)> {
        if !self.split_by_seed {
            return vec![(self.clone(), None)];
        }
        let split = |&seed: &u64| {
            let label = Some(format!("{}, split {seed}", self.label()));
            let mut options = self.options.clone();
            options.insert(SEED.into(), i64::try_from(seed).unwrap_or(i64::MAX).into());
            (Self { name: self.name.clone(), label, split_by_seed: false, options }, Some(seed))
        };
        seeds.iter().map(split).collect()
    }
}

/// Every dataset that is opened for an experiment, with the trials of its plan on it.
pub fn opened(experiment: &Experiment, plan: &[Planned]) -> Vec<Opened> {
    let of_entry = |typed: &DatasetEntry| {
        let of = typed.split_by_seed.then(|| typed.label());
        let open = |(entry, seed): (DatasetEntry, Option<u64>)| {
            let here = only(plan, |planned| seed.is_none_or(|seed| planned.seed == seed));
            let labels = [entry.label(), typed.label()];
            let plan = here.iter().map(|planned| planned.on(&labels)).collect();
            Opened { entry, of: of.clone(), plan }
        };
        typed.opened(&experiment.seeds).into_iter().map(open).collect::<Vec<_>>()
    };
    experiment.datasets.iter().flat_map(of_entry).collect()
}

/// How many trials an experiment has on all that is opened, chance among them.
pub fn trials(experiment: &Experiment, plan: &[Planned]) -> usize {
    opened(experiment, plan).iter().map(|opened| opened.plan.len() + 1).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Methods, Profile, plan::plan};

    fn spread(dataset: &str) -> Vec<Opened> {
        let text = format!(
            "title = 'x'\nseeds = [1, 2]\nprotocol = {{ task = {{ kind = 'pairs' }} }}\ndatasets = [{{ name = 'emoji', {dataset} }}]\n\
             [[methods]]\nmethod = 'vse'\nlabel = 'A'\n[[methods]]\nmethod = 'vse'\nlabel = 'B'\nshuffled = true\n\
             [[ensembles]]\nlabel = 'Both'\nof = ['A', 'B']"
        );
        let experiment = Experiment::parse("x", "x.toml", &text, Profile::Full).unwrap();
        let plan = plan(&experiment, &Methods::with(&[])).unwrap();
        assert_eq!(trials(&experiment, &plan), plan.len() + opened(&experiment, &plan).len());
        opened(&experiment, &plan)
    }

    #[test]
    fn each_seed_has_its_split_and_its_trials() {
        let [all] = &spread("seed = 1")[..] else { panic!() };
        assert_eq!((all.entry.label(), &all.of, all.plan.len()), ("emoji (seed=1)".into(), &None, 8));
        let splits = spread("split_by_seed = true");
        for (opened, seed) in splits.iter().zip(1..) {
            assert_eq!(opened.entry.label(), format!("emoji, split {seed}"));
            assert_eq!((opened.of.as_deref(), opened.entry.options[SEED].as_integer()), (Some("emoji"), Some(seed)));
            assert_eq!(opened.plan.len(), 4);
            assert!(opened.plan.iter().all(|planned| planned.seed == seed as u64));
        }
        assert_eq!(splits.len(), 2);
        // The same split as an experiment that names it.
        let named = spread("label = 'emoji, split 1', seed = 1");
        assert_eq!(named[0].entry, splits[0].entry);
    }
}
