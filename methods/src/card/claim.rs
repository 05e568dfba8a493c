//! What a paper says holds, and how that is put to rows of an experiment.

use serde::{Deserialize, Serialize};

/// Something the paper says holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// Short name.
    pub id: String,
    /// The claim in one sentence.
    pub text: String,
    /// Where it is from.
    pub evidence: Ground,
    /// What must come out where it is put to the test: all of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<ClaimTest>,
    /// Why there is no test; of claims without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untested: Option<String>,
}

/// Where a claim is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ground {
    /// Seen in the paper.
    Verified,
    /// From memory, marked wherever it is printed.
    Recalled,
    /// No paper states it: a common belief, or what a re-run suggests. It is printed apart from claims.
    Hypothesis,
}

/// A claim as a difference between two rows of an experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimTest {
    /// Experiment that has the rows: `01-emoji-pairs`.
    pub experiment: String,
    /// Row that should be better, as tables name it: `VSE++`, `DJSRH 64 bits`; a label alone where it has one row.
    pub better: String,
    /// The row beside which it stands.
    pub worse: String,
    /// Metric by its stored name: `rsum`, `t2i MAP@all`; or `query ms`, `step ms`, the time of a query that is asked alone and of a step.
    pub metric: String,
    /// Dataset as tables call it; each that was run when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// What is said of the gain: of the first row on the second, in the metric's unit and counted towards its better end; of time, in
    /// percent of the second row's.
    #[serde(default)]
    pub kind: Kind,
    /// The gain that a [`Kind::Size`] is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gain: Option<f64>,
    /// What still counts as no difference; of every kind but [`Kind::Superior`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// Whether the claim is one at equal training: rows that were trained unequally do not decide it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub equal_budget: bool,
}

/// What is said of a gain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It is above 0.
    #[default]
    Superior,
    /// It is above `-margin`: the row is not worse by more than that.
    NotInferior,
    /// It is between `-margin` and `margin`.
    Equivalent,
    /// It is that of the paper: between `gain - margin` and `gain + margin`.
    Size,
}

/// The gains that a test asks for: an open interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Region {
    /// Lower end.
    pub low: f64,
    /// Upper end; infinite where more is as good.
    pub high: f64,
}

impl Region {
    /// Whether the gain is one that is asked for.
    pub fn contains(&self, gain: f64) -> bool {
        self.low < gain && gain < self.high
    }
}

impl ClaimTest {
    /// The gains that are asked for.
    pub fn region(&self) -> Region {
        let (gain, margin) = (self.gain.unwrap_or(0.0), self.margin.unwrap_or(0.0));
        let open = matches!(self.kind, Kind::Superior | Kind::NotInferior);
        Region { low: gain - margin, high: if open { f64::INFINITY } else { gain + margin } }
    }

    /// What is wrong with its numbers, if anything: the key, what it should be and what it is.
    fn fault(&self) -> Option<[String; 3]> {
        let found = |number: Option<f64>| number.map_or("none".to_string(), |it| it.to_string());
        let fault = |key: &str, expected: &str, number| Some([key.to_string(), expected.to_string(), found(number)]);
        let sound = |number: Option<f64>| number.is_some_and(f64::is_finite);
        match (self.kind, self.margin, self.gain) {
            (Kind::Size, _, gain) if !sound(gain) => fault("gain", "the gain that a `size` is about", gain),
            (Kind::Superior | Kind::NotInferior | Kind::Equivalent, _, gain @ Some(_)) => {
                fault("gain", "absent but of the kind `size`", gain)
            }
            (Kind::Superior, margin @ Some(_), _) => fault("margin", "absent of the kind `superior`", margin),
            (Kind::NotInferior | Kind::Equivalent | Kind::Size, margin, _)
                if !sound(margin) || margin.is_some_and(|it| it <= 0.0) =>
            {
                fault("margin", "a difference above 0 that still counts as none", margin)
            }
            _ => None,
        }
    }
}

impl Claim {
    /// What is wrong with it, if anything: the key, what it should be and what it is.
    pub(super) fn fault(&self) -> Option<[String; 3]> {
        if self.tests.is_empty() != self.untested.is_some() {
            let found = if self.tests.is_empty() { "neither" } else { "both" };
            return Some(["tests", "there, or else the reason in `untested`", found].map(str::to_string));
        }
        let place = |i: usize, [key, expected, found]: [String; 3]| [format!("tests[{i}].{key}"), expected, found];
        self.tests.iter().enumerate().find_map(|(i, test)| Some(place(i, test.fault()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(test: &str) -> Claim {
        let head = "id = \"a\"\ntext = \"b\"\nevidence = \"hypothesis\"\n";
        toml::from_str(&format!("{head}{test}")).unwrap()
    }

    fn of(keys: &str) -> Claim {
        claim(&format!("[[tests]]\nexperiment = \"x\"\nbetter = \"a\"\nworse = \"b\"\nmetric = \"rsum\"\n{keys}"))
    }

    #[test]
    fn a_kind_asks_for_an_interval_of_gains() {
        let region = |keys: &str| {
            let region = of(keys).tests[0].region();
            (region.low, region.high)
        };
        assert_eq!(region(""), (0.0, f64::INFINITY));
        assert_eq!(region("kind = \"not_inferior\"\nmargin = 2"), (-2.0, f64::INFINITY));
        assert_eq!(region("kind = \"equivalent\"\nmargin = 2"), (-2.0, 2.0));
        assert_eq!(region("kind = \"size\"\ngain = 10\nmargin = 2"), (8.0, 12.0));
        // A gain of nothing is not superior, and one at the margin is not within it.
        let at = |keys: &str, gain: f64| of(keys).tests[0].region().contains(gain);
        assert!(!at("", 0.0) && !at("kind = \"equivalent\"\nmargin = 2", 2.0) && at("", 1e-9));
    }

    #[test]
    fn numbers_that_a_kind_does_not_have_are_found() {
        let fault = |claim: Claim| claim.fault().map(|[key, ..]| key);
        assert_eq!(fault(of("")), None);
        for keys in
            ["margin = 1", "kind = \"equivalent\"", "kind = \"not_inferior\"\nmargin = 0", "kind = \"size\"\ngain = 3"]
        {
            assert_eq!(fault(of(keys)).as_deref(), Some("tests[0].margin"), "{keys}");
        }
        for keys in ["gain = 1", "kind = \"size\"\nmargin = 3", "kind = \"equivalent\"\ngain = 1\nmargin = 1"] {
            assert_eq!(fault(of(keys)).as_deref(), Some("tests[0].gain"), "{keys}");
        }
        assert_eq!(fault(claim("")).as_deref(), Some("tests"));
        assert_eq!(fault(claim("untested = \"no data\"")), None);
    }
}
