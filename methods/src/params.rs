//! Typed parameters from TOML: one struct a method, its `Default` the paper's values.

use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, Result};

/// Reads `table` as `P`, with `P::default()` for what is absent.
///
/// # Errors
/// An unknown key, with the nearest known one named; a value of the wrong type.
pub fn parse<P: Serialize + DeserializeOwned + Default>(method: &str, table: &toml::Table) -> Result<P> {
    let mut full = to_table(&P::default());
    for (key, value) in table {
        if !full.contains_key(key) {
            let near = xmbench_datasets::nearest(key, full.keys().map(String::as_str));
            return Err(Error::Parameter {
                method: method.into(),
                key: key.clone(),
                expected: format!("one of {}", full.keys().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ")),
                found: format!("an unknown key `{key}`"),
                hint: near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default(),
            });
        }
        // An integer where a number with a fraction is due is what everybody writes.
        let value = match (&full[key], value) {
            (toml::Value::Float(_), &toml::Value::Integer(i)) => toml::Value::Float(i as f64),
            _ => value.clone(),
        };
        let before = full.insert(key.clone(), value.clone());
        if let Err(error) = toml::Value::Table(full.clone()).try_into::<P>() {
            return Err(Error::Parameter {
                method: method.into(),
                key: key.clone(),
                expected: format!("a value like {}", before.map(|v| v.to_string()).unwrap_or_default()),
                found: value.to_string(),
                hint: format!(" ({})", error.message().trim()),
            });
        }
    }
    Ok(toml::Value::Table(full).try_into().expect("each key was tried"))
}

/// As [`parse`], of a method whose defaults alone make no sense: `check` holds what is stated against itself, and an empty table gives
/// the defaults unchecked.
///
/// # Errors
/// As [`parse`] and `check`.
pub fn stated<P: Serialize + DeserializeOwned + Default>(
    method: &str,
    table: &toml::Table,
    check: impl Fn(&P) -> Result<()>,
) -> Result<P> {
    let read = parse(method, table)?;
    if !table.is_empty() {
        check(&read)?;
    }
    Ok(read)
}

/// Parameters as a table, every key present.
///
/// # Panics
/// If `P` does not serialise to a table of plain values; a programming error that the contract test finds.
pub fn to_table<P: Serialize>(params: &P) -> toml::Table {
    toml::Table::try_from(params).expect("parameters are a struct of plain values")
}

/// A parameter that is out of range.
pub fn out_of_range(method: &str, key: &str, expected: &str, found: impl std::fmt::Display) -> Error {
    Error::Parameter {
        method: method.into(),
        key: key.into(),
        expected: expected.into(),
        found: found.to_string(),
        hint: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Serialize, serde::Deserialize, Debug, PartialEq)]
    struct Example {
        margin: f64,
        epochs: usize,
    }

    impl Default for Example {
        fn default() -> Self {
            Self { margin: 0.2, epochs: 30 }
        }
    }

    #[test]
    fn integers_serve_as_floats_and_absent_keys_take_defaults() {
        let parsed: Example = parse("m", &toml::toml! { margin = 1 }).unwrap();
        assert_eq!(parsed, Example { margin: 1.0, epochs: 30 });
    }

    #[test]
    fn unknown_keys_name_the_nearest() {
        let error = parse::<Example>("m", &toml::toml! { margn = 1 }).unwrap_err().to_string();
        assert!(error.contains("`margn`") && error.contains("did you mean `margin`?"), "{error}");
    }

    #[test]
    fn wrong_types_name_key_and_value() {
        let error = parse::<Example>("m", &toml::toml! { epochs = -3 }).unwrap_err().to_string();
        assert!(error.contains("`epochs`") && error.contains("-3"), "{error}");
    }
}
