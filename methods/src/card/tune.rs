//! What tuning draws a parameter from.
//!
//! ```toml
//! tune = [0.0, 0.0001, 0.001]                                 # one of these
//! tune = { from = 0.0001, to = 0.01, scale = "log" }          # a number between, its logarithm uniform
//! tune = { values = [0, 1, 2], stated = true, with = "max_violation" }
//! tune = []                                                   # not tuned, whatever the group of the parameter says
//! ```

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

/// Digits of a number that is drawn between two: more than that nobody tells apart, and files stay readable.
const DIGITS: i32 = 3;

/// What tuning draws a parameter from, and in which rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct Tune {
    /// The values.
    pub domain: Domain,
    /// Whether it is tuned also where an experiment states it in a row's entry. Without this such a parameter is what makes the row
    /// what it is, and stays.
    pub stated: bool,
    /// The parameter without which this one has no use, and the values with which it has one; any but false, 0 and `none` when none is
    /// listed. Written `aggregation = LogSumExp`, alternatives joined by `|`, or `max_violation` alone.
    pub with: Option<With>,
}

/// The values that are drawn from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Domain {
    /// One of these, each as often.
    Values(Vec<Value>),
    /// A number between two.
    Between(Between),
}

/// A number between two.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Between {
    /// The smallest.
    pub from: f64,
    /// The largest.
    pub to: f64,
    /// What is uniform.
    pub scale: Scale,
}

/// What is uniform between two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// The number's logarithm.
    Log,
    /// The number.
    Linear,
}

/// A parameter that another one needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct With {
    /// The parameter.
    pub key: String,
    /// Its values as text; any that is neither false nor 0 nor `none` where there are none.
    pub values: Vec<String>,
}

/// As it is written.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Wire {
    Values(Vec<Value>),
    Long(Long),
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Long {
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scale: Option<Scale>,
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<Vec<Value>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    with: Option<String>,
}

impl TryFrom<Wire> for Tune {
    type Error = String;

    fn try_from(wire: Wire) -> Result<Self, String> {
        let long = match wire {
            Wire::Values(values) => Long { values: Some(values), ..Long::default() },
            Wire::Long(long) => long,
        };
        let domain = match (long.values, long.from, long.to, long.scale) {
            (Some(values), None, None, None) => Domain::Values(values),
            (None, Some(from), Some(to), Some(scale)) => Domain::Between(Between { from, to, scale }),
            _ => return Err("expected `from`, `to` and `scale`, or `values` alone".into()),
        };
        domain.check()?;
        let with = long.with.map(|text| {
            let (key, values) = text.split_once('=').unwrap_or((&text, ""));
            let values = values.split('|').map(str::trim).filter(|value| !value.is_empty());
            With { key: key.trim().into(), values: values.map(str::to_string).collect() }
        });
        Ok(Self { domain, stated: long.stated, with })
    }
}

impl From<Tune> for Wire {
    fn from(Tune { domain, stated, with }: Tune) -> Self {
        let with = with.map(|With { key, values }| match values.is_empty() {
            true => key,
            false => format!("{key} = {}", values.join(" | ")),
        });
        let long = Long { stated, with, ..Long::default() };
        Self::Long(match domain {
            Domain::Values(values) => Long { values: Some(values), ..long },
            Domain::Between(Between { from, to, scale }) => {
                Long { from: Some(from), to: Some(to), scale: Some(scale), ..long }
            }
        })
    }
}

impl Domain {
    /// That numbers are in order, and finite.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Values(values) if values.len() == 1 => Err("expected two values or more, found one".into()),
            Self::Values(values) => {
                match values.iter().find(|value| value.as_float().is_some_and(|it| !it.is_finite())) {
                    Some(value) => Err(format!("expected finite numbers, found {value}")),
                    None => Ok(()),
                }
            }
            &Self::Between(Between { from, to, .. }) if !(from.is_finite() && to.is_finite() && from < to) => {
                Err(format!("expected two numbers, `from` below `to`, found {from} and {to}"))
            }
            &Self::Between(Between { from, scale: Scale::Log, .. }) if from <= 0.0 => {
                Err(format!("expected `from` above 0 on a logarithmic scale, found {from}"))
            }
            Self::Between(_) => Ok(()),
        }
    }

    /// Whether there is nothing to draw.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Values(values) if values.is_empty())
    }

    /// The value at `unit` in `[0, 1)` of the way from the first to the last, of three digits where it is between two numbers.
    ///
    /// # Panics
    /// If there is nothing to draw.
    pub fn at(&self, unit: f64) -> Value {
        match self {
            Self::Values(values) => values[((unit * values.len() as f64) as usize).min(values.len() - 1)].clone(),
            &Self::Between(Between { from, to, scale }) => {
                let value = match scale {
                    Scale::Linear => from + (to - from) * unit,
                    Scale::Log => (from.ln() + (to.ln() - from.ln()) * unit).exp(),
                };
                Value::Float(rounded(value).clamp(from, to))
            }
        }
    }

    /// The ends, or every value: what a parameter must permit.
    pub fn extremes(&self) -> Vec<Value> {
        match self {
            Self::Values(values) => values.clone(),
            Self::Between(between) => vec![between.from.into(), between.to.into()],
        }
    }
}

impl std::fmt::Display for Domain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Values(values) => {
                let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
                write!(f, "{{{}}}", values.iter().map(text).collect::<Vec<_>>().join(", "))
            }
            Self::Between(Between { from, to, scale: Scale::Log }) => write!(f, "{from} to {to}, log"),
            Self::Between(Between { from, to, scale: Scale::Linear }) => write!(f, "{from} to {to}"),
        }
    }
}

/// The decimal number of [`DIGITS`] digits that is nearest.
fn rounded(value: f64) -> f64 {
    format!("{value:.*e}", DIGITS as usize - 1).parse().unwrap_or(value)
}

impl With {
    /// Whether complete parameters have what is needed.
    pub fn holds(&self, params: &Table) -> bool {
        let Some(value) = params.get(&self.key) else { return false };
        if !self.values.is_empty() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
            return self.values.contains(&text);
        }
        match value {
            Value::Boolean(value) => *value,
            Value::Integer(value) => *value != 0,
            Value::Float(value) => *value != 0.0,
            Value::String(value) => !value.is_empty() && value != "none",
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tune(text: &str) -> Result<Tune, String> {
        let table: Table = format!("tune = {text}").parse().unwrap();
        table["tune"].clone().try_into().map_err(|error: toml::de::Error| error.to_string())
    }

    #[test]
    fn a_number_between_two_is_uniform_on_its_scale_and_short() {
        let log = tune("{ from = 0.0001, to = 0.01, scale = 'log' }").unwrap().domain;
        assert_eq!([0.0, 0.5].map(|unit| log.at(unit)), [0.0001, 0.001].map(Value::Float));
        // 10^-3.5 = 0.000316228, of which three digits are kept.
        assert_eq!(log.at(0.25), Value::Float(0.000316));
        let linear = tune("{ from = 0, to = 2, scale = 'linear' }").unwrap().domain;
        assert_eq!([0.0, 0.25, 0.123456].map(|unit| linear.at(unit)), [0.0, 0.5, 0.247].map(Value::Float));
        // Rounding leads out of no range.
        let narrow = tune("{ from = 0.12345, to = 0.12346, scale = 'linear' }").unwrap().domain;
        assert_eq!(narrow.at(0.5), Value::Float(0.12345));
        assert_eq!(log.to_string(), "0.0001 to 0.01, log");
    }

    #[test]
    fn each_of_some_values_has_its_share() {
        let values = tune("[0, 1, 2, 4]").unwrap().domain;
        assert_eq!(
            [0.0, 0.2499, 0.25, 0.75, 0.9999].map(|unit| values.at(unit).as_integer().unwrap()),
            [0, 0, 1, 4, 4]
        );
        assert_eq!(values.to_string(), "{0, 1, 2, 4}");
        assert!(tune("[]").unwrap().domain.is_empty());
    }

    #[test]
    fn a_need_is_a_parameter_that_is_on_or_has_a_value() {
        let params = toml::toml! { on = true
        off = false
        weight = 0.5
        zero = 0.0
        mode = "b"
        nothing = "none" };
        let holds =
            |with: &str| tune(&format!("{{ values = [1, 2], with = '{with}' }}")).unwrap().with.unwrap().holds(&params);
        assert!(holds("on") && holds("weight") && holds("mode") && holds("mode = a | b") && holds("weight=0.5"));
        assert!(!holds("off") && !holds("zero") && !holds("nothing") && !holds("mode = a") && !holds("absent"));
    }

    #[test]
    fn what_cannot_be_drawn_from_is_refused() {
        for (text, part) in [
            ("{ from = 1, to = 1, scale = 'linear' }", "`from` below `to`, found 1 and 1"),
            ("{ from = 0, to = 1, scale = 'log' }", "above 0 on a logarithmic scale, found 0"),
            ("{ from = 0, to = 1 }", "`from`, `to` and `scale`, or `values` alone"),
            ("{ from = 0, values = [1, 2] }", "`from`, `to` and `scale`, or `values` alone"),
            ("[1]", "two values or more"),
            ("[1.0, nan]", "finite numbers, found nan"),
        ] {
            let error = tune(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn it_is_read_back_as_it_is_written() {
        for text in ["[0.0, 0.5]", "{ from = 0.1, to = 1.0, scale = 'log', stated = true, with = 'a = b | c' }"] {
            let read = tune(text).unwrap();
            let written = Value::try_from(&read).unwrap();
            assert_eq!(written.try_into::<Tune>().unwrap(), read, "{text}");
        }
    }
}
