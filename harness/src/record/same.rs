//! Whether two trials came out alike, bit by bit: what was measured by the clock or of memory aside.

use std::{collections::BTreeMap, fmt::Debug};

use super::{Outcome, Trial};

impl Trial {
    /// In what the numbers of a trial differ from those of the same one, run again; nothing where each is equal in every bit.
    pub fn differences(&self, again: &Self) -> Vec<String> {
        let mut found = Vec::new();
        match (&self.outcome, &again.outcome) {
            (Outcome::Done, Outcome::Done) => {}
            (Outcome::Failed { .. }, Outcome::Failed { .. }) => return found,
            (_, Outcome::Failed { reason }) => return vec![format!("it failed now: {}", reason.trim())],
            (Outcome::Failed { .. }, _) => return vec!["it failed when it was recorded, and did not now".into()],
        }
        named(&mut found, "", &self.metrics, &again.metrics, |value| value.to_bits());
        named(&mut found, "ties of ", &self.envelope, &again.envelope, |ends| ends.map(f64::to_bits));
        named(&mut found, "each query's ", &self.values, &again.values, |values| bits(values));
        named(&mut found, "curve ", &self.curves, &again.curves, |points| bits(points.as_flattened()));
        named(&mut found, "selected ", &self.selected, &again.selected, String::clone);
        let ranks = |trial: &Self| -> Vec<_> {
            let query = |it: &crate::protocol::Query| {
                (it.direction, [it.query, it.cluster, it.better, it.tied, it.own], it.average_precision.to_bits())
            };
            trial.queries.iter().map(query).collect()
        };
        if ranks(self) != ranks(again) {
            let differing = ranks(self).iter().zip(&ranks(again)).filter(|(a, b)| a != b).count();
            found.push(format!("{differing} of {} queries", self.queries.len()));
        }
        let epochs = |trial: &Self| -> Vec<_> {
            trial.history.iter().map(|it| (it.epoch, it.loss.to_bits(), it.validation.map(f64::to_bits))).collect()
        };
        if let Some(at) = epochs(self).iter().zip(&epochs(again)).position(|(a, b)| a != b) {
            let (a, b) = (&self.history[at], &again.history[at]);
            found.push(format!("training from epoch {} on: loss {} recorded, {} now", a.epoch, a.loss, b.loss));
        } else if self.history.len() != again.history.len() {
            found.push(format!("{} epochs recorded, {} now", self.history.len(), again.history.len()));
        }
        found
    }
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// What of two maps is not equal by `key`.
fn named<T: Debug, K: PartialEq>(
    found: &mut Vec<String>,
    what: &str,
    recorded: &BTreeMap<String, T>,
    again: &BTreeMap<String, T>,
    key: impl Fn(&T) -> K,
) {
    let say = |value: Option<&T>| {
        let text = value.map_or("nothing".into(), |value| format!("{value:?}"));
        crate::output::short(&text, 60).into_owned()
    };
    let names: std::collections::BTreeSet<&String> = recorded.keys().chain(again.keys()).collect();
    for name in names {
        let (a, b) = (recorded.get(name), again.get(name));
        if a.map(&key) != b.map(&key) {
            found.push(format!("{what}{name}: {} recorded, {} now", say(a), say(b)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::synthetic;

    #[test]
    fn one_bit_is_a_difference_and_time_is_none() {
        let trial = synthetic::recording().trials.into_iter().find(|trial| trial.label == "VSE++").unwrap();
        let mut again = trial.clone();
        again.timings.clear();
        again.peak_memory += 1;
        again.origin = None;
        assert_eq!(trial.differences(&again), Vec::<String>::new());
        let value = again.metrics.get_mut("rsum").unwrap();
        *value = f64::from_bits(value.to_bits() + 1);
        again.queries[0].better += 1;
        again.history[3].loss *= 2.0;
        again.selected.insert("ridge".into(), "1.0".into());
        let found = trial.differences(&again);
        let starts = ["rsum: ", "selected ridge: nothing recorded", "1 of ", "training from epoch 4 on: "];
        assert_eq!(found.len(), starts.len());
        assert!(found.iter().zip(starts).all(|(text, start)| text.starts_with(start)), "{found:?}");
        again.outcome = Outcome::failed("loss is NaN");
        assert_eq!(trial.differences(&again), ["it failed now: loss is NaN"]);
    }
}
