use std::fmt;

use serde_json::Value;

use super::{Denominator, Protocol, Task, Ties};
use xmbench_datasets::Split;

/// One line that says everything: it stands under every table.
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dagger = if self.select_on == Split::Test { " †" } else { "" };
        write!(f, "{}; selected on {}{dagger}", Numbers(self), self.select_on)
    }
}

impl Protocol {
    /// The line of a dataset that has these splits alone: without the one to select on nothing is.
    pub fn with_splits(&self, mut splits: impl Iterator<Item = impl AsRef<str>>) -> String {
        if splits.any(|split| split.as_ref() == self.select_on.to_string()) {
            return self.to_string();
        }
        format!("{}; nothing is selected, there is no {} split", Numbers(self), self.select_on)
    }
}

/// What the numbers of a protocol are.
struct Numbers<'a>(&'a Protocol);

impl fmt::Display for Numbers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(protocol) = self;
        let list = |name: &str, cutoffs: &[usize]| {
            cutoffs.iter().map(|k| format!("{name}@{k}")).collect::<Vec<_>>().join(", ")
        };
        match &protocol.task {
            Task::Pairs { cutoffs, folds } => {
                let gallery = match folds {
                    1 => format!("gallery the whole {} split", protocol.split),
                    n => format!("mean of {n} consecutive folds of the {} split, gallery the fold", protocol.split),
                };
                write!(f, "pairs: {gallery}; {} = best-ranked own item, percent", list("R", cutoffs))?;
            }
            Task::Category { gallery, cutoffs, denominator } => {
                let gallery = match gallery {
                    Split::Database => "database (all but the queries; train where the dataset has none)".to_string(),
                    split => split.to_string(),
                };
                write!(
                    f,
                    "category: queries {}, gallery {gallery}, relevant = shares a class; MAP@all, MAP@R",
                    protocol.split
                )?;
                if !cutoffs.is_empty() {
                    let divisor = match denominator {
                        Denominator::Relevant => "all relevant items",
                        Denominator::Hits => "hits within k",
                        Denominator::MinKRelevant => "min(k, relevant)",
                    };
                    write!(
                        f,
                        ", {} over {divisor}, {}, {}",
                        list("MAP", cutoffs),
                        list("P", cutoffs),
                        list("nDCG", cutoffs)
                    )?;
                }
                f.write_str("; queries without relevant items count 0")?;
            }
            Task::Correlation { dimensions } => {
                write!(
                    f,
                    "correlation: Pearson over the pairs of the {} split, summed over the first {dimensions} dimensions",
                    protocol.split
                )?;
            }
        }
        if !matches!(protocol.task, Task::Correlation { .. }) {
            f.write_str(match protocol.ties {
                Ties::Expected => "; ties: expected value over all orders",
                Ties::Optimistic => "; ties: best order",
                Ties::Pessimistic => "; ties: worst order",
            })?;
        }
        Ok(())
    }
}

/// The fields in which two protocols differ, with both values; empty if their numbers compare.
pub fn differences(a: &Protocol, b: &Protocol) -> Vec<String> {
    let json = |protocol| serde_json::to_value(protocol).expect("a protocol is plain data");
    let mut out = Vec::new();
    compare("", &json(a), &json(b), &mut out);
    out
}

fn compare(field: &str, a: &Value, b: &Value, out: &mut Vec<String>) {
    match (a, b) {
        (Value::Object(left), Value::Object(right)) => {
            let only_right = right.keys().filter(|key| !left.contains_key(*key));
            for key in left.keys().chain(only_right) {
                let name = if field.is_empty() { key.clone() } else { format!("{field}.{key}") };
                compare(&name, &a[key.as_str()], &b[key.as_str()], out);
            }
        }
        _ if a == b => {}
        _ => {
            let word = |value: &Value| match value {
                Value::Null => "absent".to_string(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            out.push(format!("{field}: {} against {}", word(a), word(b)));
        }
    }
}
