//! The identity of a trial: what its numbers depend on, and nothing else.

use serde_json::{Value, json};
use xmbench_datasets::Checksum;

use crate::{
    protocol::Protocol,
    record::{Control, Id},
};

/// Everything that a trial's numbers depend on.
pub struct Identity<'a> {
    /// Of the dataset.
    pub checksum: &'a Checksum,
    /// Name of the method; `chance` for the closed form.
    pub method: &'a str,
    /// Version of the code.
    pub code: &'a str,
    /// Complete parameters.
    pub params: &'a Value,
    /// Root seed.
    pub seed: u64,
    /// What the numbers mean.
    pub protocol: &'a Protocol,
    /// `cpu` or `cuda`.
    pub device: &'a str,
    /// What stands beside learned results.
    pub control: Control,
}

impl Identity<'_> {
    /// The first 16 hexadecimal digits of the SHA-256 of the canonical JSON.
    pub fn id(&self) -> Id {
        let Self { checksum, method, code, params, seed, protocol, device, control } = self;
        let value = json!({
            "checksum": checksum, "method": method, "code": code, "params": params, "seed": seed,
            "protocol": protocol, "device": device, "control": control,
        });
        Id::of(&canonical(&value))
    }
}

/// JSON without spaces, the keys of every object sorted.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            let inside: Vec<String> =
                entries.iter().map(|(key, value)| format!("{}:{}", json!(key), canonical(value))).collect();
            format!("{{{}}}", inside.join(","))
        }
        Value::Array(values) => format!("[{}]", values.iter().map(canonical).collect::<Vec<_>>().join(",")),
        plain => plain.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(change: impl FnOnce(&mut Identity<'_>)) -> Id {
        let protocol: Protocol = toml::from_str("task = { kind = 'pairs' }").unwrap();
        let checksum = Checksum("abc".into());
        let params = json!({"b": 1, "a": {"d": 0.5, "c": [1, 2]}});
        let mut identity = Identity {
            checksum: &checksum,
            method: "cca",
            code: "1",
            params: &params,
            seed: 1,
            protocol: &protocol,
            device: "cpu",
            control: Control::None,
        };
        change(&mut identity);
        identity.id()
    }

    #[test]
    fn keys_are_sorted_at_every_depth() {
        let value = json!({"b": 1, "a": {"d": 0.5, "c": [1, {"y": null, "x": "\""}]}});
        assert_eq!(canonical(&value), r#"{"a":{"c":[1,{"x":"\"","y":null}],"d":0.5},"b":1}"#);
    }

    #[test]
    fn the_order_of_keys_does_not_count_and_everything_else_does() {
        let base = identity(|_| {});
        let reordered = json!({"a": {"c": [1, 2], "d": 0.5}, "b": 1});
        assert_eq!(base, identity(|identity| identity.params = Box::leak(Box::new(reordered))));
        let other = Checksum("abd".into());
        let category: Protocol = toml::from_str("task = { kind = 'category' }").unwrap();
        let changed = [
            identity(|identity| identity.checksum = Box::leak(Box::new(other))),
            identity(|identity| identity.method = "scm"),
            identity(|identity| identity.code = "2"),
            identity(|identity| identity.params = Box::leak(Box::new(json!({"b": 1})))),
            identity(|identity| identity.seed = 2),
            identity(|identity| identity.protocol = Box::leak(Box::new(category))),
            identity(|identity| identity.device = "cuda"),
            identity(|identity| identity.control = Control::Shuffled),
        ];
        let distinct: std::collections::BTreeSet<&Id> = changed.iter().chain([&base]).collect();
        assert_eq!(distinct.len(), changed.len() + 1);
    }
}
