//! A method's card: the TOML beside its source file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
    /// One entry a parameter.
    pub parameters: BTreeMap<String, Parameter>,
    /// Numbers that papers print.
    #[serde(default)]
    pub reported: Vec<Reported>,
    /// What the paper says holds.
    #[serde(default)]
    pub claims: Vec<Claim>,
}

/// A parameter's meaning.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    /// What it is, with its symbol in the paper.
    pub doc: String,
    /// Allowed values, in words or as an interval.
    pub range: String,
    /// The paper's value or values, with the setting.
    pub paper: String,
}

/// A number that a paper prints.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reported {
    /// Row of the paper's table.
    pub variant: String,
    /// Dataset and split.
    pub dataset: String,
    /// Metric with direction: `i2t R@1`.
    pub metric: String,
    /// The value, R@K in percent, MAP as a fraction.
    pub value: f64,
    /// Where it was seen.
    pub source: String,
    /// `verified`, `recalled` or `measured`.
    pub evidence: Evidence,
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

/// Something the paper says holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// Short name.
    pub id: String,
    /// The claim in one sentence.
    pub text: String,
    /// `verified`, `recalled` or `measured`.
    pub evidence: Evidence,
}

impl Card {
    /// Parses a card that is part of the program.
    ///
    /// # Panics
    /// If the card is malformed; the contract test parses them all.
    pub fn parse(text: &str) -> Self {
        toml::from_str(text).unwrap_or_else(|error| panic!("a built-in card is malformed: {error}"))
    }
}

/// A method's card, parsed once: `card!("scan.toml")`.
#[macro_export]
macro_rules! card {
    ($file:literal) => {{
        static CARD: std::sync::LazyLock<$crate::card::Card> =
            std::sync::LazyLock::new(|| $crate::card::Card::parse(include_str!($file)));
        &*CARD
    }};
}
