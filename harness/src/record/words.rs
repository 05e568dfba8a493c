//! How a recording is put into words: machines, names of rows, quantities.

use std::collections::BTreeMap;

use super::{Control, Manifest, Trial};

/// `1 image`, `2 images`.
pub fn counted(count: usize, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
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

/// A row: label and swept parameters, `DJSRH 16 bits`; a control that shuffled its pairs says so.
pub fn row(trial: &Trial) -> String {
    let name = label(&trial.label, &trial.swept);
    if trial.control == Control::Shuffled { shuffled(&name) } else { name }
}

/// The name of a row that was fitted on shuffled pairs.
pub fn shuffled(name: &str) -> String {
    if name.contains("shuffled") { name.to_string() } else { format!("{name}, shuffled pairs") }
}

/// Label and swept parameters.
pub fn label(label: &str, swept: &BTreeMap<String, String>) -> String {
    format!("{label} {}", settings(swept)).trim().to_string()
}

/// Parameters with their values: `16 bits, ridge 0.1`.
pub fn settings(settings: &BTreeMap<String, String>) -> String {
    let part = |(key, value): (&String, &String)| match key.as_str() {
        "bits" => format!("{value} bits"),
        _ => format!("{} {value}", key.replace('_', " ")),
    };
    settings.iter().map(part).collect::<Vec<_>>().join(", ")
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
        if i > 0 && (whole.len() - i).is_multiple_of(3) && whole.len() > 4 {
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
    }
}
