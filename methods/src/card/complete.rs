//! Whether a card has all its keys, so that whoever writes one hears of every gap at once.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::{Table, Value};

use super::Parameter;

/// The groups of parameters that several methods have, and their files.
const GROUPS: [(&str, &str, &str); 6] = [
    ("encoders", "nn/joint/options.toml", include_str!("../nn/joint/options.toml")),
    ("fragments", "trained/fragments.toml", include_str!("../trained/fragments.toml")),
    ("hashing", "hashing/options.toml", include_str!("../hashing/options.toml")),
    ("negatives", "trained/negatives.toml", include_str!("../trained/negatives.toml")),
    ("ranking", "trained/ranking.toml", include_str!("../trained/ranking.toml")),
    ("schedule", "train/schedule.toml", include_str!("../train/schedule.toml")),
];

/// A group's file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    parameters: BTreeMap<String, Parameter>,
}

/// Keys that must be there, by the place that has them.
const CARD: [&str; 10] =
    ["name", "family", "label", "title", "authors", "venue", "year", "identifier", "needs", "codes"];
const CODE: [&str; 2] = ["repository", "taken"];
const PARAMETER: [&str; 3] = ["doc", "range", "paper"];
const REPORTED: [&str; 5] = ["variant", "dataset", "source", "evidence", "metrics"];
const CLAIM: [&str; 3] = ["id", "text", "evidence"];
const TEST: [&str; 4] = ["experiment", "better", "worse", "metric"];

/// Names of the groups.
pub fn names() -> Vec<&'static str> {
    GROUPS.iter().map(|(name, ..)| *name).collect()
}

/// Parameters of the groups that a card shares; an error is the name of an unknown group.
///
/// # Panics
/// If a group's file is malformed: it is part of the program, and every gradient method's card reads it.
pub fn groups(card: &Table) -> Result<BTreeMap<String, Parameter>, String> {
    let mut all = BTreeMap::new();
    for name in card.get("shared").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        let (_, file, text) = GROUPS.iter().find(|(known, ..)| *known == name).ok_or_else(|| format!("`{name}`"))?;
        let group: Group = toml::from_str(text).unwrap_or_else(|error| panic!("{file}: {error}"));
        all.extend(group.parameters);
    }
    Ok(all)
}

/// Every key that is not there: `title`, `reported[2].source`, `parameters.margin.doc` unless a group has it.
pub fn missing(card: &Table, groups: &BTreeMap<String, Parameter>) -> Vec<String> {
    let mut out = Vec::new();
    lacks(&mut out, "", card, &CARD);
    each(card, "code", |place, code| lacks(&mut out, &place, code, &CODE));
    for (key, parameter) in card.get("parameters").and_then(Value::as_table).into_iter().flatten() {
        if let (Some(parameter), false) = (parameter.as_table(), groups.contains_key(key)) {
            lacks(&mut out, &format!("parameters.{key}."), parameter, &PARAMETER);
        }
    }
    each(card, "reported", |place, row| lacks(&mut out, &place, row, &REPORTED));
    each(card, "claims", |place, claim| {
        lacks(&mut out, &place, claim, &CLAIM);
        each(claim, "tests", |inner, test| lacks(&mut out, &format!("{place}{inner}"), test, &TEST));
    });
    out
}

fn lacks(out: &mut Vec<String>, place: &str, table: &Table, keys: &[&str]) {
    out.extend(keys.iter().filter(|&&key| !table.contains_key(key)).map(|key| format!("`{place}{key}`")));
}

/// Calls `see` with each table of an array, and its place: `claims[3].`.
fn each(table: &Table, key: &str, mut see: impl FnMut(String, &Table)) {
    for (i, entry) in table.get(key).and_then(Value::as_array).into_iter().flatten().enumerate() {
        if let Some(entry) = entry.as_table() {
            see(format!("{key}[{i}]."), entry);
        }
    }
}
