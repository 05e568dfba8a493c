//! A method's card: the TOML beside its source file.
//!
//! What is known once is written once: a row of a paper's table is one entry with all its metrics, and a parameter that several
//! methods have is documented in its group's file, so that a card says of it only what differs.

mod claim;
mod complete;
mod metrics;
mod tune;

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};

pub use claim::{Claim, ClaimTest, Ground, Kind, Region};
pub use tune::{Between, Domain, Scale, Tune, With};

use crate::{Error, Result};

/// What is known of a method: where it is from, what it needs, what it claims.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// Short name, as in the registry: `scan`.
    pub name: String,
    /// Folder: `attention`.
    pub family: String,
    /// Name as papers print it: `SCAN`.
    pub label: String,
    /// Title of the paper.
    pub title: String,
    /// Authors, as cited.
    pub authors: String,
    /// Venue.
    pub venue: String,
    /// Year of publication.
    pub year: u16,
    /// DOI or arXiv number.
    pub identifier: String,
    /// Representations that it consumes, as `images.global`, `images.fragments`, `texts.tokens`, `texts.bow`, `texts.global`.
    /// Alternatives are joined by `|`.
    pub needs: Vec<String>,
    /// What its matcher makes: `dense`, `binary` or `fragments`.
    pub codes: String,
    /// Whether fitting or encoding runs programs that its parameters name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub runs_programs: bool,
    /// What its pair scorer measures beside the scores, see [`PairScorer::measures`](crate::PairScorer::measures).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measures: Vec<String>,
    /// Groups of parameters that several methods have: `encoders`, `schedule`.
    #[serde(default)]
    pub shared: Vec<String>,
    /// Programs that were read for the method or run to make its golden files; none where no program of it is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub code: Vec<Code>,
    /// One entry a parameter, those of the shared groups included; what a card's own entry says goes before the group's.
    #[serde(default)]
    pub parameters: BTreeMap<String, Parameter>,
    /// Numbers that papers print, one entry a row of a table.
    #[serde(default)]
    pub reported: Vec<Reported>,
    /// What the paper says holds.
    #[serde(default)]
    pub claims: Vec<Claim>,
}

/// A program that the method, or a part of it, follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Code {
    /// `owner/name` on GitHub, or a package of PyPI.
    pub repository: String,
    /// Of a repository: the commit that was read, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Of a package: its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Which part, and what was taken from there.
    pub taken: String,
}

impl Code {
    /// As a table names it: `kuanghuei/SCAN@8063557`, `mvlearn==0.5.0`, or the repository alone where no commit is known.
    pub fn short(&self) -> String {
        match (&self.commit, &self.version) {
            (Some(commit), _) => format!("{}@{}", self.repository, commit.get(..7).unwrap_or(commit)),
            (None, Some(version)) => format!("{}=={version}", self.repository),
            (None, None) => self.repository.clone(),
        }
    }

    /// Page of the commit or of the repository; a package has none.
    pub fn address(&self) -> Option<String> {
        match (&self.commit, &self.version) {
            (Some(commit), _) => Some(format!("https://github.com/{}/tree/{commit}", self.repository)),
            (None, Some(_)) => None,
            (None, None) => Some(format!("https://github.com/{}", self.repository)),
        }
    }

    /// What is wrong with it, if anything: the key, what it should be and what it is.
    fn fault(&self) -> Option<[String; 3]> {
        let Self { repository, commit, version, .. } = self;
        let fault = |key: &str, expected: &str, found: &str| Some([key, expected, found].map(str::to_string));
        if repository.contains('/') == version.is_some() {
            let expected = "`owner/name` on GitHub without a `version`, or a package of PyPI with one";
            return fault("repository", expected, repository);
        }
        match commit {
            Some(commit) if version.is_some() => fault("commit", "none beside a `version`", commit),
            Some(commit) if commit.len() < 7 || !commit.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                fault("commit", "7 hexadecimal digits or more", commit)
            }
            _ => None,
        }
    }
}

/// A parameter's meaning.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    /// What it is, with its symbol in the paper.
    #[serde(default)]
    pub doc: String,
    /// Allowed values, in words or as an interval.
    #[serde(default)]
    pub range: String,
    /// The paper's value or values, with the setting.
    #[serde(default)]
    pub paper: String,
    /// Whether the value is the path of a file: it is looked for beside the experiment and in the data folder, and what is in the file
    /// is part of a trial's identity.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub file: bool,
    /// What tuning draws it from; absent of one that is not tuned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tune: Option<Tune>,
}

/// A row of a paper's table.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reported {
    /// Row of the paper's table.
    pub variant: String,
    /// Dataset and split.
    pub dataset: String,
    /// Where it was seen.
    pub source: String,
    /// `verified`, `recalled` or `measured`.
    pub evidence: Evidence,
    /// Metrics with direction, `i2t R@1`, and their values in the order of the card: R@K in percent, MAP as a fraction.
    #[serde(with = "metrics")]
    pub metrics: Vec<(String, f64)>,
    /// What the source does not say of a metric: `rsum` was summed here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub notes: BTreeMap<String, String>,
}

/// One number that a paper prints.
#[derive(Debug, Clone, PartialEq)]
pub struct Number<'a> {
    /// Row of the paper's table.
    pub variant: &'a str,
    /// Dataset and split.
    pub dataset: &'a str,
    /// Metric with direction.
    pub metric: &'a str,
    /// The value.
    pub value: f64,
    /// Where it was seen, and what else is to be said of it.
    pub source: Cow<'a, str>,
    /// How sure it is.
    pub evidence: Evidence,
}

impl Reported {
    /// The numbers of the row, one by one, in the card's order.
    pub fn numbers(&self) -> impl Iterator<Item = Number<'_>> {
        self.metrics.iter().map(|(metric, value)| Number {
            variant: &self.variant,
            dataset: &self.dataset,
            metric,
            value: *value,
            source: match self.notes.get(metric) {
                Some(note) => format!("{}; {note}", self.source).into(),
                None => Cow::Borrowed(&self.source),
            },
            evidence: self.evidence,
        })
    }
}

/// How sure a reported number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Evidence {
    /// Seen in the named source.
    Verified,
    /// From memory; marked wherever it is printed.
    Recalled,
    /// A small independent re-run.
    Measured,
}

impl Card {
    /// Parses a card, and completes its parameters by those of the groups that it shares; `file` is named in errors.
    ///
    /// # Errors
    /// No TOML; keys that are missing, all of them named; an unknown key or group, a number that is not finite, or a value that
    /// is not what its key asks for.
    pub fn parse(file: &str, text: &str) -> Result<Self> {
        let wrong = |expected: String, found: String| Error::Format { file: file.into(), expected, found };
        let table: toml::Table = text.parse().map_err(|error| malformed(file, &error))?;
        let groups = complete::groups(&table).map_err(|unknown| {
            wrong(format!("`shared` with groups among {}", complete::names().join(", ")), unknown)
        })?;
        let missing = complete::missing(&table, &groups);
        if !missing.is_empty() {
            return Err(wrong(format!("a card with {}", missing.join(", ")), "none of them".into()));
        }
        // From the text once more: the order of metrics is that of their places in it.
        let mut card: Self = toml::from_str(text).map_err(|error| malformed(file, &error))?;
        for (key, shared) in groups {
            let own = card.parameters.entry(key).or_insert_with(|| shared.clone());
            for (own, shared) in
                [(&mut own.doc, shared.doc), (&mut own.range, shared.range), (&mut own.paper, shared.paper)]
            {
                if own.is_empty() {
                    *own = shared;
                }
            }
            own.tune = own.tune.take().or(shared.tune);
        }
        for (i, code) in card.code.iter().enumerate() {
            if let Some([key, expected, found]) = code.fault() {
                return Err(wrong(format!("`code[{i}].{key}` to be {expected}"), found));
            }
        }
        for (i, row) in card.reported.iter().enumerate() {
            let of = |metric: &String| row.metrics.iter().any(|(known, _)| known == metric);
            if let Some(metric) = row.notes.keys().find(|metric| !of(metric)) {
                return Err(wrong(format!("`reported[{i}].notes` of metrics of its row"), format!("`{metric}`")));
            }
        }
        for (i, claim) in card.claims.iter().enumerate() {
            if let Some([key, expected, found]) = claim.fault() {
                return Err(wrong(format!("`claims[{i}].{key}` to be {expected}"), found));
            }
        }
        Ok(card)
    }

    /// Whether gradients train it, over epochs: its row is tuned.
    pub fn is_trained(&self) -> bool {
        self.shared.iter().any(|group| group == "schedule")
    }

    /// The parameters that are tuned, with what they are drawn from.
    pub fn tuned(&self) -> impl Iterator<Item = (&str, &Tune)> {
        let tuned =
            self.parameters.iter().filter_map(|(key, parameter)| Some((key.as_str(), parameter.tune.as_ref()?)));
        tuned.filter(|(_, tune)| !tune.domain.is_empty())
    }

    /// Every number that papers print, one by one, in the card's order.
    pub fn numbers(&self) -> impl Iterator<Item = Number<'_>> {
        self.reported.iter().flat_map(Reported::numbers)
    }
}

/// What the parser says, with the line.
fn malformed(file: &str, error: &toml::de::Error) -> Error {
    Error::Format { file: file.into(), expected: "a method's card".into(), found: error.to_string().trim_end().into() }
}

/// A method's card, parsed once: `card!("scan.toml")`. A malformed one panics when it is first asked for; it is part of the
/// program, and the contract test asks for all.
#[macro_export]
macro_rules! card {
    ($file:literal) => {{
        static CARD: std::sync::LazyLock<$crate::card::Card> = std::sync::LazyLock::new(|| {
            $crate::card::Card::parse($file, include_str!($file)).unwrap_or_else(|error| panic!("{error}"))
        });
        &*CARD
    }};
}

#[cfg(test)]
mod tests;
