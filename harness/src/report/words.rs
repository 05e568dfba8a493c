//! How the report says things: protocols, machines, names, quantities.

use std::collections::BTreeMap;

use crate::protocol::{Denominator, Protocol, Task, Ties};
use crate::record::Manifest;

/// The protocol in one line.
pub fn protocol(protocol: &Protocol) -> String {
    let list = |cutoffs: &[usize]| cutoffs.iter().map(usize::to_string).collect::<Vec<_>>().join("/");
    let split = split(protocol.split);
    let task = match &protocol.task {
        Task::Pairs { cutoffs, folds } => {
            let gallery = match folds {
                0 | 1 => format!("whole {split} split"),
                folds => format!("mean over {folds} folds of the {split} split"),
            };
            format!("pairs; {gallery}; R@{} as hit rate (an image's best-ranked own text counts)", list(cutoffs))
        }
        Task::Category { gallery, cutoffs, denominator } => {
            let gallery = match self::split(*gallery) {
                gallery if gallery == split => "gallery of the same split".to_string(),
                gallery => format!("gallery of the {gallery} split"),
            };
            let denominator = match denominator {
                Denominator::Relevant => "all relevant items",
                Denominator::Hits => "the hits within k",
                Denominator::MinKRelevant => "min(k, relevant items)",
            };
            format!(
                "category; queries of the {split} split, {gallery}; k = {}; MAP@k divided by {denominator}",
                list(cutoffs)
            )
        }
    };
    let ties = match protocol.ties {
        Ties::Expected => "ties count as the expectation over their orders",
        Ties::Optimistic => "ties count for the query",
        Ties::Pessimistic => "ties count against the query",
    };
    format!("{task}; {ties}; selected on {}", self::split(protocol.select_on))
}

/// A split as written in TOML.
pub fn split(split: xmbench_datasets::Split) -> String {
    serde_json::to_value(split).ok().and_then(|value| value.as_str().map(String::from)).unwrap_or_default()
}

/// The machine in one line.
pub fn machine(manifest: &Manifest) -> String {
    let threads = match manifest.threads {
        0 => String::new(),
        1 => "1 thread".to_string(),
        threads => format!("{threads} threads"),
    };
    let memory = if manifest.memory > 0 { format!("{} memory", bytes(manifest.memory as f64)) } else { String::new() };
    let flags = if manifest.cpu_flags.is_empty() { String::new() } else { format!(" ({})", manifest.cpu_flags) };
    join(&[
        format!("{}{flags}", manifest.cpu),
        threads,
        memory,
        manifest.os.clone(),
        format!("device {}", manifest.device),
    ])
}

/// Version, commit and state of the working tree.
pub fn program(manifest: &Manifest) -> String {
    let short: String = manifest.commit.chars().take(12).collect();
    let dirty = if manifest.dirty { ", with uncommitted changes" } else { "" };
    let commit = if short.is_empty() { String::new() } else { format!(" at commit {short}{dirty}") };
    format!("xmbench {}{commit}", manifest.version)
}

/// The parts that say something, with commas.
pub fn join(parts: &[String]) -> String {
    parts.iter().filter(|part| !part.trim().is_empty()).cloned().collect::<Vec<_>>().join(", ")
}

/// A row: label and swept parameters, `DJSRH 16 bits`.
pub fn row(label: &str, swept: &BTreeMap<String, String>) -> String {
    let parts: Vec<String> = swept
        .iter()
        .map(
            |(key, value)| {
                if key == "bits" { format!("{value} bits") } else { format!("{} {value}", key.replace('_', " ")) }
            },
        )
        .collect();
    format!("{label} {}", parts.join(", ")).trim().to_string()
}

/// A key that sorts 16 before 128 and 0.05 before 0.2: numbers by value, then words.
pub fn natural(value: &str) -> (bool, u64, String) {
    match value.trim().parse::<f64>() {
        // Flipping the sign bit, or all bits of a negative number, makes the bits sort as the numbers do.
        Ok(number) => {
            let bits = number.to_bits();
            (false, if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }, String::new())
        }
        Err(_) => (true, 0, value.to_string()),
    }
}

/// A name of files: letters, digits, `-`, `_` and `.`; everything else becomes `-`.
pub fn stem(text: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    text.chars().map(safe).collect::<String>().trim_matches(['-', '.']).to_string()
}

/// The first digits of a checksum.
pub fn checksum(checksum: &str) -> String {
    checksum.chars().take(12).collect()
}

/// Bytes with a binary unit and three digits.
pub fn bytes(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut scaled = bytes;
    let mut unit = 0;
    while scaled >= 1000.0 && unit + 1 < units.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    format!("{} {}", digits(scaled), units[unit])
}

/// Three significant digits, never in scientific notation, thousands apart: `0.0123`, `12.3`, `12 300`.
pub fn digits(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return if value == 0.0 { "0".to_string() } else { value.to_string() };
    }
    let magnitude = value.abs().log10().floor() as i32;
    if magnitude < 2 {
        return format!("{value:.*}", (2 - magnitude).min(6) as usize);
    }
    let step = 10f64.powi(magnitude - 2);
    group(&format!("{:.0}", (value / step).round() * step))
}

/// A count: whole if it is whole.
pub fn count(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 { group(&format!("{value:.0}")) } else { digits(value) }
}

/// Whole digits with a space between thousands, from five digits on.
fn group(whole: &str) -> String {
    let mut grouped = String::new();
    for (i, c) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 && whole.len() > 4 {
            grouped.push(' ');
        }
        grouped.push(c);
    }
    grouped
}

/// A list of seeds.
pub fn seeds(seeds: &[u64]) -> String {
    seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_three_digits() {
        let cases =
            [(0.0, "0"), (0.012345, "0.0123"), (1.0, "1.00"), (12.34, "12.3"), (123.4, "123"), (1234.0, "1230")];
        for (value, text) in cases {
            assert_eq!(digits(value), text);
        }
        assert_eq!(digits(1234567.0), "1 230 000");
        assert_eq!((bytes(512.0).as_str(), bytes(1536.0 * 1024.0).as_str()), ("512 B", "1.50 MiB"));
    }

    #[test]
    fn values_sort_by_size() {
        let mut values = vec!["128", "none", "0.2", "16", "-1", "1e-3", "0.05"];
        values.sort_by_key(|value| natural(value));
        assert_eq!(values, ["-1", "1e-3", "0.05", "0.2", "16", "128", "none"]);
        assert_eq!(stem("02 hash/wiki: 10"), "02-hash-wiki--10");
    }
}
