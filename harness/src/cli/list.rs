//! `xmbench list`: methods, datasets, experiments.

use anyhow::Result;
use clap::ValueEnum;
use serde_json::json;

use xmbench_methods::card::Code;

use super::{Status, table};
use crate::{
    output::answer,
    run::{Experiment, Methods, Profile, plan, splits},
};

#[derive(clap::Args)]
pub struct Args {
    /// What to show; everything when absent
    what: Option<What>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum What {
    Methods,
    Datasets,
    Experiments,
}

pub fn run(args: &Args, methods: &Methods) -> Result<Status> {
    let every = [What::Methods, What::Datasets, What::Experiments];
    let chosen: Vec<What> = every.into_iter().filter(|what| args.what.is_none_or(|only| only == *what)).collect();
    if args.json {
        let mut parts = serde_json::Map::new();
        for what in &chosen {
            let (name, value) = match what {
                What::Methods => ("methods", methods_json(methods)),
                What::Datasets => ("datasets", datasets_json()),
                What::Experiments => ("experiments", experiments_json(methods)?),
            };
            parts.insert(name.into(), value);
        }
        answer(&serde_json::to_string_pretty(&parts)?)?;
        return Ok(Status::Done);
    }
    let parts: Result<Vec<String>> = chosen
        .iter()
        .map(|what| match what {
            What::Methods => Ok(table(&methods_rows(methods))),
            What::Datasets => Ok(table(&datasets_rows())),
            What::Experiments => Ok(table(&experiments_rows(methods)?)),
        })
        .collect();
    answer(&parts?.join("\n\n"))?;
    Ok(Status::Done)
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_string).to_vec()
}

fn methods_rows(methods: &Methods) -> Vec<Vec<String>> {
    let mut rows = vec![row(["METHOD", "LABEL", "FAMILY", "YEAR", "CODES", "NEEDS", "SOURCE CODE"])];
    rows.extend(methods.iter().map(|method| {
        let card = method.card();
        let (year, needs) = (card.year.to_string(), card.needs.join(", "));
        let code: Vec<String> = card.code.iter().map(Code::short).collect();
        row([&card.name, &card.label, &card.family, &year, &card.codes, &needs, &code.join(", ")])
    }));
    rows
}

fn methods_json(methods: &Methods) -> serde_json::Value {
    methods
        .iter()
        .map(|method| {
            let mut card = json!(method.card());
            // No parameters given: what comes back are the defaults.
            card["defaults"] = json!(method.resolve(&toml::Table::new()).ok());
            card
        })
        .collect()
}

/// Name, representations, how to get it, what it is.
pub fn datasets_rows() -> Vec<Vec<String>> {
    let mut rows = vec![row(["DATASET", "FILES", "REPRESENTATIONS", "WHAT IT IS"])];
    rows.extend(xmbench_datasets::sources().iter().map(|source| {
        let files = if source.get.starts_with("built in") { "built in" } else { "to be fetched" };
        row([source.name, files, &source.representations.join(", "), source.doc])
    }));
    rows
}

/// Everything that the sources say of themselves.
pub fn datasets_json() -> serde_json::Value {
    json!(xmbench_datasets::sources())
}

/// Number of trials of an experiment, chance on every dataset among them; none where the profile leaves it out.
fn trials(experiment: &Experiment, methods: &Methods) -> Result<usize> {
    Ok(if experiment.off { 0 } else { splits::trials(experiment, &plan(experiment, methods)?) })
}

fn experiments_rows(methods: &Methods) -> Result<Vec<Vec<String>>> {
    let mut rows = vec![row(["EXPERIMENT", "SMOKE", "QUICK", "FULL", "PAPER", "TITLE"])];
    let profiles = Profile::ALL.into_iter().map(Experiment::builtin).collect::<Result<Vec<_>>>()?;
    for (place, experiment) in profiles[0].iter().enumerate() {
        let mut cells = vec![experiment.name.clone()];
        for profile in &profiles {
            let trials = trials(&profile[place], methods)?;
            cells.push(if trials == 0 { "-".into() } else { trials.to_string() });
        }
        cells.push(experiment.title.clone());
        rows.push(cells);
    }
    Ok(rows)
}

fn experiments_json(methods: &Methods) -> Result<serde_json::Value> {
    let mut all = Vec::new();
    for profile in Profile::ALL {
        for experiment in Experiment::builtin(profile)?.iter().filter(|experiment| !experiment.off) {
            all.push(json!({
                "name": experiment.name, "profile": profile, "title": experiment.title, "analysis": experiment.analysis,
                "datasets": experiment.datasets, "methods": experiment.methods, "ensembles": experiment.ensembles,
                "rerank": experiment.rerank, "seeds": experiment.seeds,
                "protocol": experiment.protocol, "trials": trials(experiment, methods)?,
            }));
        }
    }
    Ok(all.into())
}
