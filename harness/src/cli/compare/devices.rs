//! `xmbench compare A B --devices`: one program on two devices, and whether rounding explains what differs.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::{Row, comparable};
use crate::{
    output::{answer, json as to_json},
    record::{Trial, words},
    report::export::markdown_cell,
    stats::{
        agreement::{allowed, allowed_loss},
        metric::Metric,
    },
};

/// A row of both recordings under one seed.
struct Beside {
    /// Experiment, dataset and row; the seed where there are several.
    what: String,
    /// The losses of the epochs and the metrics of both, or which of them has none.
    outcome: Result<Vec<Apart>, &'static str>,
}

/// One number on both devices.
struct Apart {
    name: String,
    values: [f64; 2],
    allowed: f64,
}

impl Apart {
    fn difference(&self) -> f64 {
        (self.values[0] - self.values[1]).abs()
    }

    fn equal(&self) -> bool {
        self.values[0] == self.values[1]
    }

    fn agrees(&self) -> bool {
        self.difference() <= self.allowed
    }

    /// The share of what is allowed that is used.
    fn used(&self) -> f64 {
        if self.equal() { 0.0 } else { self.difference() / self.allowed }
    }
}

impl Beside {
    fn agrees(&self) -> bool {
        self.outcome.as_ref().is_ok_and(|metrics| metrics.iter().all(Apart::agrees))
    }
}

/// Compares every number of every row that either recording has, prints the outcome, and says whether all agree.
pub fn run(a: &[Row<'_>], b: &[Row<'_>], json: bool) -> Result<bool> {
    let beside = pair(a, b)?;
    if beside.is_empty() {
        bail!("nothing to compare: neither recording has a row that ran through");
    }
    answer(&if json { as_json(&beside) } else { as_markdown(&beside) })?;
    Ok(beside.iter().all(Beside::agrees))
}

/// Trials by experiment, dataset, row and seed.
fn by_place<'a>(rows: &[Row<'a>]) -> BTreeMap<(&'a str, &'a str, String, u64), &'a Trial> {
    let trials = rows.iter().flat_map(|row| row.trials.iter().map(move |trial| (row, *trial)));
    trials.map(|(row, trial)| ((row.experiment, row.dataset, row.name.clone(), trial.seed), trial)).collect()
}

fn pair(a: &[Row<'_>], b: &[Row<'_>]) -> Result<Vec<Beside>> {
    let (a, b) = (by_place(a), by_place(b));
    let places: BTreeSet<_> = a.keys().chain(b.keys()).collect();
    let seeds: BTreeSet<u64> = places.iter().map(|(.., seed)| *seed).collect();
    let mut all = Vec::new();
    for place in places {
        let (experiment, dataset, row, seed) = place;
        let seed = if seeds.len() > 1 { format!(", seed {seed}") } else { String::new() };
        let what = format!("{experiment}, {dataset}: {row}{seed}");
        let outcome = match (a.get(place), b.get(place)) {
            (Some(a), Some(b)) => {
                comparable(&what, a, b)?;
                Ok(numbers(a, b))
            }
            (Some(_), None) => Err("ran through in the first recording only"),
            _ => Err("ran through in the second recording only"),
        };
        all.push(Beside { what, outcome });
    }
    Ok(all)
}

/// The training losses of two trials, epoch by epoch, and their metrics.
fn numbers(a: &Trial, b: &Trial) -> Vec<Apart> {
    let losses = a.history.iter().zip(&b.history).map(|(x, y)| Apart {
        name: format!("loss of epoch {}", x.epoch),
        values: [x.loss, y.loss],
        allowed: allowed_loss(x.epoch, x.loss, y.loss),
    });
    let metrics = a.metrics.iter().filter_map(|(name, &x)| {
        let y = *b.metrics.get(name)?;
        Some(Apart { name: name.clone(), values: [x, y], allowed: allowed(&Metric::parse(name), a, b) })
    });
    losses.chain(metrics).collect()
}

/// A line a row, with the number that uses most of what is allowed to it.
fn as_markdown(beside: &[Beside]) -> String {
    let mut out = String::from("| row | numbers | furthest apart | first | second | allowed | verdict |\n");
    out += "|---|---:|---|---:|---:|---:|---|";
    for one in beside {
        let what = markdown_cell(&one.what);
        let worst =
            one.outcome.as_ref().map(|all| (all.len(), all.iter().max_by(|x, y| x.used().total_cmp(&y.used()))));
        out += &match worst {
            Ok((count, Some(worst))) if worst.equal() => format!("\n| {what} | {count} | | | | | equal |"),
            Ok((count, Some(worst))) => format!(
                "\n| {what} | {count} | {} | {} | {} | {} | {} |",
                markdown_cell(&worst.name),
                precise(worst.values[0]),
                precise(worst.values[1]),
                words::digits(worst.allowed),
                if one.agrees() { "agrees" } else { "DIFFERS" },
            ),
            Ok((_, None)) => format!("\n| {what} | 0 | | | | | nothing to compare |"),
            Err(reason) => format!("\n| {what} | 0 | | | | | DIFFERS: {reason} |"),
        };
    }
    out
}

/// Four digits behind the point: differences between devices are small.
fn precise(value: f64) -> String {
    format!("{value:.4}")
}

fn as_json(beside: &[Beside]) -> String {
    let object = |one: &Beside| {
        let numbers = one.outcome.as_ref().map(|all| {
            let object = |it: &Apart| {
                json!({
                    "name": it.name, "a": it.values[0], "b": it.values[1],
                    "difference": it.values[0] - it.values[1], "allowed": it.allowed, "agrees": it.agrees(),
                })
            };
            all.iter().map(object).collect::<Vec<_>>()
        });
        json!({
            "row": one.what, "agrees": one.agrees(), "numbers": numbers.as_ref().ok(), "reason": numbers.as_ref().err(),
        })
    };
    to_json(&Value::Array(beside.iter().map(object).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::synthetic;

    #[test]
    fn a_row_differs_where_one_metric_leaves_its_bound() {
        let recording = synthetic::recording();
        let find = |label: &str| recording.trials.iter().find(|trial| trial.label == label).unwrap().clone();
        let (mut near, mut far, mut closed) = (find("VSE++"), find("SCAN t2i"), find("CCA"));
        let before = [near.clone(), far.clone(), closed.clone(), find("IMRAM_2 & co"), find("VSE++ on shuffled pairs")];
        *near.metrics.get_mut("rsum").unwrap() += 30.0;
        far.history[3].loss *= 1.5;
        *closed.metrics.get_mut("t2i R@1").unwrap() += 0.001;
        let after = [near, far, closed, find("VSE++ on shuffled pairs")];
        let rows = |trials: &'static [Trial]| {
            let row = |trial: &'static Trial| Row {
                experiment: &trial.experiment,
                dataset: &trial.dataset,
                name: trial.label.clone(),
                trials: vec![trial],
                overlap: 0.0,
            };
            trials.iter().map(row).collect::<Vec<_>>()
        };
        let (before, after) = (rows(before.to_vec().leak()), rows(after.to_vec().leak()));
        insta::assert_snapshot!(as_markdown(&pair(&before, &after).unwrap()), @r"
        | row | numbers | furthest apart | first | second | allowed | verdict |
        |---|---:|---|---:|---:|---:|---|
        | 01-recall, f8k: CCA | 9 | t2i R@1 | 3.8000 | 3.8010 | 0 | DIFFERS |
        | 01-recall, f8k: IMRAM\_2 & co | 0 | | | | | DIFFERS: ran through in the first recording only |
        | 01-recall, f8k: SCAN t2i | 19 | loss of epoch 4 | 0.2635 | 0.3952 | 0.119 | DIFFERS |
        | 01-recall, f8k: VSE++ | 19 | rsum | 300.7000 | 330.7000 | 66.1 | agrees |
        | 01-recall, f8k: VSE++ on shuffled pairs | 9 | | | | | equal |
        ");
        assert!(pair(&before, &before).unwrap().iter().all(Beside::agrees));
        let json: Value = serde_json::from_str(&as_json(&pair(&before, &after).unwrap())).unwrap();
        assert_eq!(json[1]["reason"], "ran through in the first recording only");
        assert_eq!(json[0]["numbers"][0]["allowed"], 0.0);
    }
}
