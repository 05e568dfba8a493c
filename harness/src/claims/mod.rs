//! Claims of papers, tested on a recording.
//!
//! A method's card says what its paper claims, and how that reads as a difference between two rows of an experiment:
//!
//! ```toml
//! [[claims]]
//! id = "hardest-negatives"
//! text = "The hardest negative alone makes a better loss than the sum over all of them"
//! evidence = "verified"
//!
//! [[claims.tests]]
//! experiment = "01-emoji-pairs"
//! better = "VSE++"                # rows, as tables name them
//! worse = "VSE0"
//! metric = "rsum"                 # or `query ms`, `step ms`, whose gain is in percent of the other row's time
//! # dataset = "emoji"             # each that was run when absent
//! # kind = "size"                 # what is said of the gain: superior (to 0; when absent), not_inferior, equivalent, size
//! # gain = 10.8                   # the paper's, of a size
//! # margin = 2.0                  # what still counts as no difference, in the metric's unit; of all kinds but superior
//! # equal_budget = true           # the training of both rows stands beside the verdict
//! ```
//!
//! A claim without a test says why in `untested`; what no paper states has `evidence = "hypothesis"`. [`choose`] picks claims by name,
//! [`check`] finds tests that name what does not exist, and [`test()`] sets the rows of a recording side by side: one holds where the paired difference is what it asks for, at 5 % of all tests of the recording together
//! (Holm's correction), and a claim where all of its tests that were run do ([`judge`]). One seed of a trained row decides nothing.

mod judged;
mod outcome;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use xmbench_methods::card::{Card, Claim, ClaimTest, Ground};

pub use judged::{Judged, counts, judge};
pub use outcome::{Finding, LEVEL, Missing, ONE_TRAINING, Tested, Verdict, asked_text, budget_text, rows_text, test};

use crate::{
    record::{Control, Recording, words},
    run::{Experiment, Methods, Profile, builtin::BUILTIN, nearest, plan},
};

/// A claim with the card that states it.
#[derive(Debug, Clone, Copy)]
pub struct Stated<'a> {
    /// The card.
    pub card: &'a Card,
    /// One of its claims.
    pub claim: &'a Claim,
}

/// Every claim of every method, in the registry's order.
pub fn stated(methods: &Methods) -> Vec<Stated<'static>> {
    methods.iter().flat_map(|method| of_card(method.card())).collect()
}

/// Every claim of a card.
pub fn of_card(card: &Card) -> impl Iterator<Item = Stated<'_>> {
    card.claims.iter().map(move |claim| Stated { card, claim })
}

/// The claims that the names pick: by the claim's name, or all of a method; all when there is no name.
///
/// # Errors
/// A name that is neither; the nearest one is given.
pub fn choose<'a>(all: &[Stated<'a>], names: &[String]) -> Result<Vec<Stated<'a>>> {
    let picks = |name: &str, stated: &Stated<'_>| stated.claim.id == name || stated.card.name == name;
    for name in names {
        if !all.iter().any(|stated| picks(name, stated)) {
            let known = all.iter().flat_map(|stated| [stated.claim.id.as_str(), stated.card.name.as_str()]);
            bail!("no claim and no method `{name}`{}; `xmbench claims --list` shows them all", nearest(name, known));
        }
    }
    let chosen = |stated: &&Stated<'_>| names.is_empty() || names.iter().any(|name| picks(name, stated));
    Ok(all.iter().filter(chosen).copied().collect())
}

/// Finds tests that name an experiment or a row that neither the program nor the recording has.
///
/// # Errors
/// Such a test, or one that sets a row beside itself.
pub fn check(stated: &[Stated<'_>], recording: Option<&Recording>, methods: &Methods) -> Result<()> {
    for Stated { card, claim } in stated {
        for test in &claim.tests {
            check_test(test, recording, methods)
                .with_context(|| format!("method {}, claim {}", card.name, claim.id))?;
        }
    }
    Ok(())
}

fn check_test(test: &ClaimTest, recording: Option<&Recording>, methods: &Methods) -> Result<()> {
    let ClaimTest { experiment, better, worse, .. } = test;
    if better == worse {
        bail!("expected two rows, found `{better}` beside itself");
    }
    let built_in = BUILTIN.iter().any(|(name, _)| name == experiment);
    let recorded = recording.into_iter().flat_map(|it| &it.trials).filter(|trial| trial.experiment == *experiment);
    let mut rows: BTreeSet<String> = recorded.flat_map(|it| [it.label.clone(), words::row(it)]).collect();
    if rows.is_empty() && !built_in {
        let hint = nearest(experiment, BUILTIN.iter().map(|(name, _)| *name));
        bail!("no experiment `{experiment}`{hint}; `xmbench list experiments` shows them all");
    }
    if built_in {
        for profile in Profile::ALL {
            rows.extend(planned_rows(&Experiment::find(experiment, profile)?, methods)?);
        }
    }
    for row in [better, worse] {
        if !rows.contains(row) {
            bail!("experiment {experiment} has no row `{row}`{}", nearest(row, rows.iter().map(String::as_str)));
        }
    }
    Ok(())
}

/// The rows that an experiment makes, by label and as tables name them.
fn planned_rows(experiment: &Experiment, methods: &Methods) -> Result<Vec<String>> {
    let names = plan(experiment, methods)?.into_iter().flat_map(|planned| {
        let name = words::label(&planned.label, &planned.swept);
        match planned.control {
            Control::None => vec![planned.label, name],
            _ => vec![words::shuffled(&name)],
        }
    });
    Ok(names.collect())
}

/// Where a claim is from, in a word.
pub fn evidence(ground: Ground) -> &'static str {
    match ground {
        Ground::Verified => "verified",
        Ground::Recalled => "recalled",
        Ground::Hypothesis => "hypothesis",
    }
}
