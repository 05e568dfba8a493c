//! Rows that are made of fitted rows: the mean of their scores, and the best of one ordered anew by another.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::{Context, Result, bail};

use super::{
    Experiment, Planned,
    entry::{EnsembleEntry, RerankEntry},
    nearest,
    plan::{Combined, Job},
};
use crate::{
    protocol::Task,
    record::{Control, words},
};

/// A row's label and what its grid varies.
type Row = (String, BTreeMap<String, String>);

/// A row that others may be made of.
struct Part {
    row: Row,
    /// As tables name it.
    name: String,
    /// The fitted rows that it consists of.
    fitted: Vec<Row>,
    /// Whether it scores galleries.
    scored: bool,
}

/// Appends the trials of ensembles and re-ranked rows, seed by seed. `rows` are those that are there already.
///
/// # Errors
/// A label that is taken, a row that is not there or not one, a row that would be made of itself, a shortlist of nothing, or a
/// protocol that knows no scores.
pub fn append(experiment: &Experiment, trials: &mut Vec<Planned>, rows: &mut BTreeSet<Row>) -> Result<()> {
    let Experiment { ensembles, rerank, .. } = experiment;
    unused(experiment, trials)?;
    if ensembles.is_empty() && rerank.is_empty() {
        return Ok(());
    }
    if matches!(experiment.protocol.task, Task::Correlation { .. }) {
        bail!(
            "experiment {}: `ensembles` and `rerank` combine scores, and the task `correlation` compares codes; choose another task",
            experiment.name
        );
    }
    let scores =
        |row: &Row| trials.iter().all(|trial| trial.scored || (&trial.label, &trial.swept) != (&row.0, &row.1));
    let part = |row: &Row| Part {
        row: row.clone(),
        name: words::label(&row.0, &row.1),
        fitted: vec![row.clone()],
        scored: scores(row),
    };
    let mut parts: Vec<Part> = rows.iter().map(part).collect();
    let mut position = experiment.methods.len();
    let mut made = Vec::new();
    for (i, entry) in ensembles.iter().enumerate() {
        let named = || format!("experiment {}, ensembles entry {}", experiment.name, i + 1);
        let fitted = members(entry, experiment, &parts).with_context(named)?;
        let params = toml::Table::from_iter([("of".to_string(), toml::Value::from(entry.of.clone()))]);
        let row = (entry.label.clone(), BTreeMap::new());
        take(rows, &row).with_context(named)?;
        add(trials, experiment, (position, &row, &params), (&fitted, None));
        made.push(Part { name: entry.label.clone(), row, fitted, scored: true });
        position += 1;
    }
    parts.extend(made);
    for (i, entry) in rerank.iter().enumerate() {
        let named = || format!("experiment {}, rerank entry {}", experiment.name, i + 1);
        let shortlists = shortlists(&entry.shortlist).with_context(named)?;
        if entry.first == entry.second {
            bail!("{}: `first` and `second` are both `{}`: there is nothing to order anew", named(), entry.first);
        }
        let stage =
            |key: &str, name: &str| find(name, &parts, experiment).with_context(|| format!("{}: `{key}`", named()));
        let first = &scored(stage("first", &entry.first)?, "`first`").with_context(named)?.fitted;
        let second = &stage("second", &entry.second)?.fitted;
        for &shortlist in &shortlists {
            let params = params(entry, shortlist);
            let swept = (shortlists.len() > 1).then(|| ("shortlist".to_string(), shortlist.to_string()));
            let row = (entry.label.clone(), swept.into_iter().collect());
            take(rows, &row).with_context(named)?;
            add(trials, experiment, (position, &row, &params), (first, Some((second, shortlist))));
        }
        position += 1;
    }
    Ok(())
}

fn params(entry: &RerankEntry, shortlist: usize) -> toml::Table {
    toml::Table::from_iter([
        ("first".to_string(), entry.first.clone().into()),
        ("second".to_string(), entry.second.clone().into()),
        ("shortlist".to_string(), toml::Value::Integer(shortlist as i64)),
    ])
}

/// Takes a row's place.
fn take(rows: &mut BTreeSet<Row>, row: &Row) -> Result<()> {
    if !rows.insert(row.clone()) {
        bail!("the row `{}` is there already; give this one a `label` of its own", words::label(&row.0, &row.1));
    }
    Ok(())
}

/// One trial a seed.
fn add(
    trials: &mut Vec<Planned>,
    experiment: &Experiment,
    (position, row, params): (usize, &Row, &toml::Table),
    (first, second): (&[Row], Option<(&Vec<Row>, usize)>),
) {
    for &seed in &experiment.seeds {
        let places = |rows: &[Row]| -> Vec<usize> {
            let same = |trial: &Planned, row: &Row| {
                (&trial.label, &trial.swept, trial.seed, trial.control) == (&row.0, &row.1, seed, Control::None)
            };
            rows.iter().filter_map(|row| trials.iter().position(|trial| same(trial, row))).collect()
        };
        let combined =
            Combined { first: places(first), second: second.map(|(rows, shortlist)| (places(rows), shortlist)) };
        trials.push(Planned {
            position,
            label: row.0.clone(),
            job: Job::Combine(combined),
            params: params.clone(),
            files: Arc::default(),
            tuned: Arc::default(),
            swept: row.1.clone(),
            images: None,
            seed,
            control: Control::None,
            scored: true,
        });
    }
}

/// Refuses a row that is fitted for shortlists if no entry has it in the second place.
fn unused(experiment: &Experiment, trials: &[Planned]) -> Result<()> {
    for trial in trials.iter().filter(|trial| !trial.scored) {
        let name = words::label(&trial.label, &trial.swept);
        if !experiment.rerank.iter().any(|entry| entry.second == name || entry.second == trial.label) {
            bail!(
                "experiment {}: row `{name}` is for shortlists only, and no `rerank` entry has it as its `second`",
                experiment.name
            );
        }
    }
    Ok(())
}

/// Refuses a part that scores no gallery where one has to be scored.
fn scored<'a>(part: &'a Part, place: &str) -> Result<&'a Part> {
    if !part.scored {
        bail!("{place}: row `{}` is for shortlists only; it can be the `second` of a `rerank` entry", part.name);
    }
    Ok(part)
}

/// The fitted rows of an ensemble.
fn members(entry: &EnsembleEntry, experiment: &Experiment, parts: &[Part]) -> Result<Vec<Row>> {
    if entry.of.len() < 2 {
        bail!("`of`: expected the labels of at least two rows, found {}", entry.of.len());
    }
    let mut found: Vec<Row> = Vec::new();
    for name in &entry.of {
        let part = scored(find(name, parts, experiment).context("`of`")?, "`of`")?;
        if found.contains(&part.row) {
            bail!("`of` names `{name}` twice");
        }
        found.push(part.row.clone());
    }
    Ok(found)
}

/// The one row of that name.
fn find<'a>(name: &str, parts: &'a [Part], experiment: &Experiment) -> Result<&'a Part> {
    if let Some(part) = parts.iter().find(|part| part.name == name) {
        return Ok(part);
    }
    let of_label: Vec<String> =
        parts.iter().filter(|part| part.row.0 == name).map(|part| format!("`{}`", part.name)).collect();
    if !of_label.is_empty() {
        bail!("`{name}` is the label of {} rows; name one of them: {}", of_label.len(), of_label.join(", "));
    }
    if experiment.ensembles.iter().any(|entry| entry.label == name) {
        bail!("`{name}` is an ensemble; an ensemble is made of rows that are fitted");
    }
    if experiment.rerank.iter().any(|entry| entry.label == name) {
        bail!("`{name}` is re-ranked already; name a row that is fitted, or for a stage an ensemble");
    }
    let names = || parts.iter().map(|part| part.name.as_str());
    let hint = match nearest(name, names()) {
        none if none.is_empty() => format!("; its rows are {}", names().collect::<Vec<_>>().join(", ")),
        hint => hint,
    };
    bail!("`{name}` is no row of the experiment{hint}")
}

/// The sizes that a shortlist takes.
fn shortlists(value: &toml::Value) -> Result<Vec<usize>> {
    let expected = "`shortlist`: expected a number of items from 1 on, or an array of different ones";
    let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    let mut sizes = Vec::new();
    for value in values {
        match value.as_integer().and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0) {
            Some(size) if !sizes.contains(&size) => sizes.push(size),
            Some(size) => bail!("{expected}, found {size} twice"),
            None => bail!("{expected}, found {value}"),
        }
    }
    if sizes.is_empty() {
        bail!("{expected}, found none");
    }
    Ok(sizes)
}

#[cfg(test)]
mod tests;
