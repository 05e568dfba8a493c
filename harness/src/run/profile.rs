//! How much of an experiment is run, and what that changes of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::entry::DatasetEntry;

/// How much is run: `smoke` in a minute, `quick` in ten, `full` in the hours that two cores take, `paper` as the papers train.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// About a minute: does everything work?
    Smoke,
    /// About ten minutes on two cores: do the orderings hold?
    #[default]
    Quick,
    /// Hours: what two cores reach, with three seeds where a training is short.
    Full,
    /// The papers' sizes, epochs and seeds, for a GPU or for days; where an experiment has none of its own, that of `full`.
    Paper,
}

impl Profile {
    /// Every profile, from the shortest.
    pub const ALL: [Self; 4] = [Self::Smoke, Self::Quick, Self::Full, Self::Paper];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Smoke => "smoke",
            Self::Quick => "quick",
            Self::Full => "full",
            Self::Paper => "paper",
        }
    }

    /// Whether numbers under the profile of this name, or of one of these (`quick and full`), are shortened, so that they are not to be
    /// cited. One that nobody knows is taken for one that is not: it was given on purpose.
    pub fn is_shortened(names: &str) -> bool {
        names.split(" and ").any(|name| [Self::Smoke, Self::Quick].iter().any(|profile| profile.name() == name))
    }
}

impl std::fmt::Display for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What each profile changes.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Profiles {
    smoke: Override,
    quick: Override,
    full: Override,
    paper: Option<Override>,
}

/// What a profile changes.
#[derive(Deserialize, Default, Clone)]
#[serde(deny_unknown_fields, default)]
pub struct Override {
    /// Whether the profile leaves the experiment out.
    pub off: bool,
    /// Root seeds.
    pub seeds: Option<Vec<u64>>,
    /// What is run on.
    pub datasets: Option<Vec<DatasetEntry>>,
    /// Common parameters.
    pub common: toml::Table,
    /// Where tuned parameters are, see [`super::tuned`].
    pub tuned: Option<toml::Value>,
    /// Parameters by label or by method; shortlists by label.
    pub params: BTreeMap<String, toml::Table>,
}

impl Profiles {
    /// Every profile that changes something, with what it changes.
    pub fn all(&self) -> impl Iterator<Item = (Profile, &Override)> {
        let here = [(Profile::Smoke, &self.smoke), (Profile::Quick, &self.quick), (Profile::Full, &self.full)];
        here.into_iter().chain(self.paper.iter().map(|change| (Profile::Paper, change)))
    }

    /// What the profile changes.
    pub fn of(self, profile: Profile) -> Override {
        match profile {
            Profile::Smoke => self.smoke,
            Profile::Quick => self.quick,
            Profile::Full => self.full,
            Profile::Paper => self.paper.unwrap_or(self.full),
        }
    }
}
