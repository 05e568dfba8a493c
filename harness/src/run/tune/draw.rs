//! The settings that are tried of a row.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use toml::{Table, Value};
use xmbench_datasets::random::Seed;
use xmbench_methods::{Method, card::Domain};

use crate::run::entry::MethodEntry;

/// Draws of one setting before it is given up: a method may refuse some combinations of values that it permits one by one.
const TRIES: usize = 1000;

/// What each parameter of a row is drawn from: those that its method's card says are tuned, but for those that make the row what it
/// is, that a grid varies or that have no use in it.
pub fn ranges(method: &dyn Method, entry: &MethodEntry, varied: &[&str], present: &Table) -> BTreeMap<String, Domain> {
    let mut ranges = BTreeMap::new();
    for (key, tune) in method.card().tuned() {
        let own = entry.owns(key) && !tune.stated;
        let of_use = tune.with.as_ref().is_none_or(|with| with.holds(present));
        if !own && of_use && !varied.contains(&key) {
            ranges.insert(key.to_string(), tune.domain.clone());
        }
    }
    ranges
}

/// Complete parameters of `trials` settings; the first is the present one.
///
/// A parameter's values come from a stream of their own, which does not know the row: rows that share a parameter and its range are
/// tried with the same values of it, and one more parameter moves no other.
///
/// # Errors
/// If the method refuses whatever is drawn.
pub fn settings(
    method: &dyn Method,
    present: &Table,
    ranges: &BTreeMap<String, Domain>,
    trials: usize,
    seed: Seed,
) -> Result<Vec<Table>> {
    let mut settings = vec![present.clone()];
    for number in 1..trials {
        let drawn = (0..TRIES).map(|attempt| draw(present, ranges, seed, [number, attempt]));
        let mut refused = None;
        let sound = drawn.into_iter().find_map(|params| match method.resolve(&params) {
            Ok(params) => Some(params),
            Err(error) => {
                refused = Some(error);
                None
            }
        });
        match (sound, refused) {
            (Some(params), _) => settings.push(params),
            (None, Some(error)) => bail!("{TRIES} settings were drawn and the method takes none of them: {error}"),
            (None, None) => bail!("no setting was drawn"),
        }
    }
    Ok(settings)
}

fn draw(present: &Table, ranges: &BTreeMap<String, Domain>, seed: Seed, [number, attempt]: [usize; 2]) -> Table {
    let mut params = present.clone();
    for (key, domain) in ranges {
        let unit = seed.stream(&["tune", key, &number.to_string(), &attempt.to_string()]).unit();
        params.insert(key.clone(), domain.at(unit));
    }
    params
}

/// Those parameters of complete ones that are drawn.
pub fn tuned(params: &Table, ranges: &BTreeMap<String, Domain>) -> Table {
    let value = |key: &String| params.get(key).cloned().unwrap_or(Value::Boolean(false));
    ranges.keys().map(|key| (key.clone(), value(key))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Experiment, Methods, Profile};

    fn entry(keys: &str, profile: &str) -> MethodEntry {
        let text = format!(
            "title = 'x'\nseeds = [1]\nprotocol = {{ task = {{ kind = 'pairs' }} }}\n[[datasets]]\nname = 'emoji'\n\
             [[methods]]\n{keys}\n[profile.quick]\n{profile}"
        );
        Experiment::parse("x", "x.toml", &text, Profile::Quick).unwrap().methods.remove(0)
    }

    fn keys(keys: &str) -> Vec<String> {
        let entry = entry(keys, "params.vse = { margin = 0.3, weight_decay = 0.5 }");
        let method = Methods::with(&[]).find("vse").unwrap();
        let present = method.resolve(&entry.params).unwrap();
        ranges(method, &entry, &[], &present).into_keys().collect()
    }

    #[test]
    fn what_makes_a_row_is_not_drawn_and_what_no_row_is_made_of_is() {
        // What a profile says of a row is typed by hand and no more than that.
        assert_eq!(keys("method = 'vse'"), ["learning_rate", "margin", "warmup", "weight_decay"]);
        assert_eq!(keys("method = 'vse'\nmargin = 0.1"), ["learning_rate", "warmup", "weight_decay"]);
        // Whatever its entry says, a row is not its rate.
        assert_eq!(keys("method = 'vse'\nlearning_rate = 0.1\nwarmup = 1").len(), 4);
        // Without hardest negatives there is nothing to warm up to.
        assert_eq!(keys("method = 'vse'\nmax_violation = false"), ["learning_rate", "margin", "weight_decay"]);
    }

    #[test]
    fn the_first_setting_is_the_present_one_and_rows_share_their_draws() {
        let methods = Methods::with(&[]);
        let drawn = |name: &str, seed: u64| {
            let method = methods.find(name).unwrap();
            let present = method.resolve(&Table::new()).unwrap();
            let entry = MethodEntry { own: Some(Vec::new()), ..entry(&format!("method = '{name}'"), "") };
            let ranges = ranges(method, &entry, &[], &present);
            let settings = settings(method, &present, &ranges, 8, Seed(seed)).unwrap();
            assert_eq!((settings.len(), &settings[0]), (8, &present));
            settings.iter().map(|setting| setting["learning_rate"].as_float().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(drawn("vse", 1), drawn("scan", 1));
        assert_ne!(drawn("vse", 1), drawn("vse", 2));
        assert!(drawn("vse", 1)[1..].iter().all(|rate| (1e-4..=1e-2).contains(rate)));
    }
}
