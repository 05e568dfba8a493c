use crate::{Error, Result};

/// One option of a [source](crate::Source): its name, meaning and default.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct OptionSpec {
    /// Key in the experiment file.
    pub name: &'static str,
    /// What it does and which values it takes.
    pub doc: &'static str,
    /// Value when it is not given.
    pub default: OptionValue,
}

/// A default value of an option.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[serde(untagged)]
pub enum OptionValue {
    /// A string.
    Text(&'static str),
    /// A whole number.
    Integer(i64),
    /// A number.
    Float(f64),
}

impl OptionValue {
    fn value(self) -> toml::Value {
        match self {
            Self::Text(text) => toml::Value::String(text.into()),
            Self::Integer(number) => toml::Value::Integer(number),
            Self::Float(number) => toml::Value::Float(number),
        }
    }
}

/// The options of one dataset, checked against its specification and completed with the defaults.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    values: toml::Table,
    changed: toml::Table,
}

impl Options {
    /// Completes `given` with the defaults.
    ///
    /// # Errors
    /// If a key is unknown; the nearest known key is named.
    pub fn new(specs: &[OptionSpec], given: &toml::Table) -> Result<Self> {
        let mut values: toml::Table = specs.iter().map(|spec| (spec.name.to_owned(), spec.default.value())).collect();
        for (key, value) in given {
            if !values.contains_key(key) {
                let names: Vec<&str> = specs.iter().map(|spec| spec.name).collect();
                return Err(unknown("option", key, &names));
            }
            values.insert(key.clone(), like(&values[key], value));
        }
        let is_default = |key: &str, value: &toml::Value| {
            specs.iter().any(|spec| spec.name == key && spec.default.value() == *value)
        };
        let changed = values.iter().filter(|(key, value)| !is_default(key, value));
        let changed = changed.map(|(key, value)| (key.clone(), value.clone())).collect();
        Ok(Self { values, changed })
    }

    /// A string that is one of `allowed`; any string when `allowed` is empty.
    pub fn text(&self, key: &str, allowed: &[&str]) -> Result<&str> {
        let value = &self.values[key];
        let text = value.as_str().ok_or_else(|| wrong(key, "a string", value))?;
        if !allowed.is_empty() && !allowed.contains(&text) {
            return Err(unknown(key, text, allowed));
        }
        Ok(text)
    }

    /// A whole number inside `range`.
    pub fn integer(&self, key: &str, range: std::ops::RangeInclusive<usize>) -> Result<usize> {
        let value = &self.values[key];
        let expected = || format!("a whole number from {} to {}", range.start(), range.end());
        value
            .as_integer()
            .and_then(|number| usize::try_from(number).ok())
            .filter(|number| range.contains(number))
            .ok_or_else(|| wrong(key, &expected(), value))
    }

    /// A number inside `range`; whole numbers are taken as well.
    pub fn float(&self, key: &str, range: std::ops::RangeInclusive<f64>) -> Result<f64> {
        let value = &self.values[key];
        let expected = || format!("a number from {} to {}", range.start(), range.end());
        value.as_float().filter(|number| range.contains(number)).ok_or_else(|| wrong(key, &expected(), value))
    }

    /// The seed, any non-negative whole number.
    pub fn seed(&self) -> Result<crate::random::Seed> {
        Ok(crate::random::Seed(self.integer("seed", 0..=i64::MAX as usize)? as u64))
    }

    /// What was changed from the defaults, such as `labels=subgroup,split=random`; sorted by key.
    pub fn variant(&self) -> String {
        let mut parts: Vec<String> = self
            .changed
            .iter()
            .map(|(key, value)| match value.as_str() {
                Some(text) => format!("{key}={text}"),
                None => format!("{key}={value}"),
            })
            .collect();
        parts.sort();
        parts.join(",")
    }

    /// Every option with its value, defaults included, for a checksum; sorted by key. Paths are left out: a folder may
    /// move without becoming another dataset, and what a file of word vectors holds enters the checksum itself.
    pub fn canonical(&self) -> String {
        let mut parts: Vec<String> = self
            .values
            .iter()
            .filter(|(key, _)| !["path", crate::words::OPTION].contains(&key.as_str()))
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        parts.sort();
        parts.join(",")
    }
}

/// A whole number where the default has a fraction becomes one with a fraction, so that `1` and `1.0` are one option; true and false
/// become words.
fn like(default: &toml::Value, given: &toml::Value) -> toml::Value {
    match (default, given) {
        (toml::Value::Float(_), toml::Value::Integer(number)) => toml::Value::Float(*number as f64),
        // `transposed = true` is the word: an option that takes words says which.
        (toml::Value::String(_), toml::Value::Boolean(yes)) => toml::Value::String(yes.to_string()),
        _ => given.clone(),
    }
}

fn wrong(key: &str, expected: &str, found: &toml::Value) -> Error {
    Error::option(key, expected, found.to_string(), "see `xmbench data list` for every option")
}

/// An error about a name that is none of `known`, with the nearest of them.
pub(crate) fn unknown(what: &str, found: &str, known: &[&str]) -> Error {
    let next = match crate::nearest(found, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None if known.is_empty() => "it takes no options".to_owned(),
        None => "see `xmbench data list` for every name".to_owned(),
    };
    let expected = match known {
        [] => "nothing".to_owned(),
        _ => format!("one of {}", known.join(", ")),
    };
    Error::option(what, expected, format!("`{found}`"), next)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECS: &[OptionSpec] = &[
        OptionSpec { name: "noise", doc: "", default: OptionValue::Float(0.5) },
        OptionSpec { name: "split", doc: "", default: OptionValue::Text("series") },
    ];

    #[test]
    fn errors_name_the_nearest() {
        let given = toml::toml! { spilt = "random" };
        let error = Options::new(SPECS, &given).unwrap_err().to_string();
        insta::assert_snapshot!(error, @"option: expected one of noise, split, found `spilt`; did you mean `split`?");
        let options = Options::new(SPECS, &toml::toml! { noise = 2 }).unwrap();
        let error = options.float("noise", 0.0..=1.0).unwrap_err().to_string();
        insta::assert_snapshot!(error, @"noise: expected a number from 0 to 1, found 2.0; see `xmbench data list` for every option");
    }

    #[test]
    fn variant_holds_only_what_was_changed() {
        let given = toml::toml! { split = "random" noise = 0.5 };
        let options = Options::new(SPECS, &given).unwrap();
        assert_eq!(options.variant(), "split=random");
        assert_eq!(options.float("noise", 0.0..=1.0).unwrap(), 0.5);
        assert_eq!(options.canonical(), "noise=0.5,split=\"random\"");
    }
}
