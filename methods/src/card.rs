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
    /// Groups of parameters that several methods have: `encoders`, `schedule`.
    #[serde(default)]
    pub shared: Vec<String>,
    /// One entry a parameter, those of the shared groups included; a card's own entry goes before a group's.
    #[serde(default)]
    pub parameters: BTreeMap<String, Parameter>,
    /// Numbers that papers print.
    #[serde(default)]
    pub reported: Vec<Reported>,
    /// What the paper says holds.
    #[serde(default)]
    pub claims: Vec<Claim>,
}

/// The groups of parameters that several methods have.
const SHARED: [(&str, &str); 2] =
    [("encoders", include_str!("nn/joint/options.toml")), ("schedule", include_str!("train/schedule.toml"))];

/// A group's file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    parameters: BTreeMap<String, Parameter>,
}

fn built_in<T: serde::de::DeserializeOwned>(text: &str) -> T {
    toml::from_str(text).unwrap_or_else(|error| panic!("a built-in card is malformed: {error}"))
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
    /// What must come out where it is put to the test; it counts as tested only where there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<ClaimTest>,
}

/// A claim as a difference between two rows of an experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimTest {
    /// Experiment that has the rows: `01-emoji-pairs`.
    pub experiment: String,
    /// Row that should be better, as tables name it: `VSE++`, `DJSRH 64 bits`; a label alone where it has one row.
    pub better: String,
    /// Row that should be worse.
    pub worse: String,
    /// Metric by its stored name: `rsum`, `t2i MAP@all`.
    pub metric: String,
    /// Dataset as tables call it; each that was run when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// By how much it should be better, in the metric's unit and counted towards the better end of the metric.
    #[serde(default)]
    pub at_least: f64,
    /// Whether the claim is one at equal training, so that what each row was trained for stands beside the verdict.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub equal_budget: bool,
}

impl Card {
    /// Parses a card that is part of the program.
    ///
    /// # Panics
    /// If the card is malformed or names an unknown group; the contract test parses them all.
    pub fn parse(text: &str) -> Self {
        let mut card: Self = built_in(text);
        for name in &card.shared {
            let (_, text) = SHARED
                .iter()
                .find(|(known, _)| known == name)
                .unwrap_or_else(|| panic!("card {}: no group of parameters is called {name}", card.name));
            let Group { parameters } = built_in(text);
            for (key, parameter) in parameters {
                card.parameters.entry(key).or_insert(parameter);
            }
        }
        card
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
