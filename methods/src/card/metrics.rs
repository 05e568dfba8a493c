//! A table of metrics that keeps the order in which it is written.

use std::fmt;

use serde::{
    Deserializer, Serializer,
    de::{Error, MapAccess, Visitor},
};
use toml::Spanned;

/// As a map, in order.
pub fn serialize<S: Serializer>(metrics: &[(String, f64)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(metrics.iter().map(|(metric, value)| (metric, value)))
}

/// From TOML text, whose parser sorts keys but knows where each of them stands.
///
/// # Errors
/// No metric, or a value that is not a finite number.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(String, f64)>, D::Error> {
    from.deserialize_map(Metrics)
}

struct Metrics;

impl<'de> Visitor<'de> for Metrics {
    type Value = Vec<(String, f64)>;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a table of metrics and their values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut placed = Vec::new();
        while let Some((metric, value)) = map.next_entry::<Spanned<String>, f64>()? {
            let (at, metric) = (metric.span().start, metric.into_inner());
            if !value.is_finite() {
                return Err(A::Error::custom(format!("metric `{metric}`: expected a finite number, found {value}")));
            }
            placed.push((at, (metric, value)));
        }
        if placed.is_empty() {
            return Err(A::Error::custom("expected at least one metric, found none"));
        }
        placed.sort_by_key(|&(at, _)| at);
        Ok(placed.into_iter().map(|(_, metric)| metric).collect())
    }
}
