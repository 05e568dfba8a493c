//! From an experiment to its trials: grids are multiplied out and every parameter is checked before anything runs.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use xmbench_methods::Method;

use super::{Experiment, Methods, experiment::MethodEntry};
use crate::record::Control;

/// A trial of an experiment on any of its datasets.
#[derive(Clone)]
pub struct Planned {
    /// Position of the method's entry in the experiment.
    pub position: usize,
    /// Row label.
    pub label: String,
    /// What is fitted.
    pub method: &'static dyn Method,
    /// Complete parameters.
    pub params: toml::Table,
    /// The parameters that the grid varies.
    pub swept: BTreeMap<String, String>,
    /// Root seed.
    pub seed: u64,
    /// Whether the pairs are shuffled.
    pub control: Control,
}

/// Every trial of the experiment, entry by entry, grid point by grid point, seed by seed, and then seed by seed again on
/// shuffled pairs where the entry asks for that control.
///
/// # Errors
/// An unknown method, an unknown or bad parameter, or two entries that are one.
pub fn plan(experiment: &Experiment, methods: &Methods) -> Result<Vec<Planned>> {
    let mut trials = Vec::new();
    let mut rows = BTreeSet::new();
    for (position, entry) in experiment.methods.iter().enumerate() {
        let named = || format!("experiment {}, methods entry {}", experiment.name, position + 1);
        let method = methods.find(&entry.method).with_context(named)?;
        let label = entry.label.clone().unwrap_or_else(|| method.card().label.clone());
        for (params, swept) in grid(entry).with_context(named)? {
            let params = method.resolve(&params).with_context(named)?;
            if !rows.insert((label.clone(), swept.clone())) {
                bail!(
                    "{}: the label `{label}` is taken by an earlier entry; give this one a `label` of its own",
                    named()
                );
            }
            let of = |seed: u64, control: Control| Planned {
                position,
                label: label.clone(),
                method,
                params: params.clone(),
                swept: swept.clone(),
                seed,
                control,
            };
            for control in [Control::None].into_iter().chain(entry.shuffled.then_some(Control::Shuffled)) {
                trials.extend(experiment.seeds.iter().map(|&seed| of(seed, control)));
            }
        }
    }
    for expected in &experiment.expected {
        if !rows.iter().any(|(label, _)| *label == expected.label) {
            let labels = rows.iter().map(|(label, _)| label.as_str());
            let hint = super::nearest(&expected.label, labels);
            bail!(
                "experiment {}: a value is expected of `{}`, which is no label of it{hint}",
                experiment.name,
                expected.label
            );
        }
    }
    Ok(trials)
}

type Point = (toml::Table, BTreeMap<String, String>);

/// Every combination of the values of parameters that are arrays, with what varies; the last one varies fastest.
fn grid(entry: &MethodEntry) -> Result<Vec<Point>> {
    let mut points: Vec<Point> = vec![Default::default()];
    for (key, value) in &entry.params {
        let choices = match value {
            toml::Value::Array(values) if values.is_empty() => {
                bail!("parameter `{key}`: an empty array sweeps over nothing")
            }
            toml::Value::Array(values) => values.as_slice(),
            single => std::slice::from_ref(single),
        };
        points = points
            .iter()
            .flat_map(|(params, swept)| {
                choices.iter().map(|choice| {
                    let (mut params, mut swept) = (params.clone(), swept.clone());
                    params.insert(key.clone(), choice.clone());
                    if choices.len() > 1 {
                        swept.insert(key.clone(), choice.as_str().map_or_else(|| choice.to_string(), str::to_string));
                    }
                    (params, swept)
                })
            })
            .collect();
    }
    Ok(points)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(params: toml::Table) -> MethodEntry {
        MethodEntry { method: "m".into(), label: None, shuffled: false, params }
    }

    #[test]
    fn arrays_multiply_and_singles_do_not_count_as_swept() {
        let points = grid(&entry(toml::toml! { bits = [16, 32]
        mode = ["a", "b", "c"]
        only = [7]
        plain = 1.5 }))
        .unwrap();
        assert_eq!(points.len(), 6);
        let (params, swept) = &points[1];
        assert_eq!(
            *params,
            toml::toml! { bits = 16
            mode = "b"
            only = 7
            plain = 1.5 }
        );
        assert_eq!(*swept, BTreeMap::from([("bits".into(), "16".into()), ("mode".into(), "b".into())]));
    }

    #[test]
    fn an_array_of_arrays_sweeps_over_arrays() {
        let points = grid(&entry(toml::toml! { hidden = [[512, 256]] })).unwrap();
        assert_eq!(points.len(), 1);
        assert_eq!(points[0].0, toml::toml! { hidden = [512, 256] });
    }

    #[test]
    fn nothing_to_sweep_over_is_an_error() {
        assert!(grid(&entry(toml::toml! { bits = [] })).is_err());
    }
}
