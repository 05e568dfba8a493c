use super::{Answer, Case};
use crate::{Error, Result};

/// How an answer compares with a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Largest `|answer - file|` of any value; infinite if a tensor is absent, of another length, or not a number.
    pub max_abs: f64,
    /// Largest `|answer - file| / |file|` of any value that is not zero in the file.
    pub max_rel: f64,
    /// The tensor that uses most of its tolerance, or the first that cannot be compared and why.
    pub worst: String,
    /// Whether every value is within `atol + rtol * |file|`.
    pub pass: bool,
}

/// Compares an answer with every `out.` and `grad.` tensor of a file that `ignored` does not name; an entry of `ignored` may
/// begin or end with `*`, which matches anything. An absent tensor and NaN fail, and so does a file with nothing to compare.
pub fn check(case: &Case, answer: &Answer, ignored: &[&str]) -> Verdict {
    let mut verdict = Verdict { max_abs: 0.0, max_rel: 0.0, worst: String::new(), pass: true };
    let mut most = -1.0;
    let mut broken = None;
    for (name, expected) in &case.tensors {
        if !(name.starts_with("out.") || name.starts_with("grad.")) || ignored.iter().any(|p| matches(p, name)) {
            continue;
        }
        let found = match answer.values.get(name) {
            Some(values) if values.len() == expected.data.len() => values,
            Some(values) => {
                broken.get_or_insert(format!(
                    "{name}: expected {} values, found {}",
                    expected.data.len(),
                    values.len()
                ));
                continue;
            }
            None => {
                broken.get_or_insert(format!("{name}: not answered"));
                continue;
            }
        };
        for (&a, &b) in found.iter().zip(&expected.data) {
            // Equal infinities are equal; anything else that is not finite is infinitely far.
            let distance =
                if a == b { 0.0 } else { Some((a - b).abs()).filter(|d| d.is_finite()).unwrap_or(f64::INFINITY) };
            verdict.max_abs = verdict.max_abs.max(distance);
            if b != 0.0 {
                verdict.max_rel = verdict.max_rel.max(if distance == 0.0 { 0.0 } else { distance / b.abs() });
            }
            let tolerance = case.atol + case.rtol * b.abs();
            // Not `distance > tolerance`: a tolerance that is not a number must not pass.
            let within = distance <= tolerance;
            verdict.pass &= within;
            let used = if within { distance / tolerance.max(f64::MIN_POSITIVE) } else { 1.0 + distance / tolerance };
            if used > most {
                most = used;
                verdict.worst.clone_from(name);
            }
        }
        if expected.data.is_empty() && verdict.worst.is_empty() {
            verdict.worst.clone_from(name);
        }
    }
    if broken.is_none() && verdict.worst.is_empty() {
        broken = Some("the file has no out. or grad. tensor to compare".into());
    }
    if let Some(problem) = broken {
        verdict = Verdict { max_abs: f64::INFINITY, max_rel: f64::INFINITY, worst: problem, pass: false };
    }
    verdict
}

/// Whether a pattern with an optional `*` at either end covers a name.
fn matches(pattern: &str, name: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(_), Some(_)) => name.contains(pattern.trim_matches('*')),
        (Some(end), None) => name.ends_with(end),
        (None, Some(start)) => name.starts_with(start),
        (None, None) => name == pattern,
    }
}

impl Case {
    /// Refuses a configuration with entries that an operation does not know, since they might change the result.
    ///
    /// # Errors
    /// If there is an entry besides `keys`.
    pub fn only(&self, keys: &[&str]) -> Result<()> {
        let Some(config) = self.config.as_object() else {
            return Err(Error::Format {
                file: self.file.clone(),
                expected: "a JSON object as `config`".into(),
                found: self.config.to_string(),
            });
        };
        match config.keys().find(|key| !keys.contains(&key.as_str())) {
            Some(key) => Err(Error::Format {
                file: self.file.clone(),
                expected: format!("configuration keys among {}", keys.join(", ")),
                found: format!("`{key}`"),
            }),
            None => Ok(()),
        }
    }

    /// The error of a configuration entry with a value that an operation does not know.
    pub fn unsupported(&self, key: &str, expected: &str) -> Error {
        Error::Format {
            file: self.file.clone(),
            expected: format!("configuration key `{key}` to be {expected}"),
            found: self.config[key].to_string(),
        }
    }
}

/// Runs every file of the [golden folder](super::folder) whose operation is among `operations`, and asserts that each passes.
///
/// # Panics
/// If the folder or a file cannot be read, no file is of these operations, an operation fails or a value is out of tolerance.
#[cfg(test)]
pub(crate) fn assert_files(operations: &[super::Operation]) -> usize {
    let folder = super::folder();
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "safetensors"));
    paths.sort();
    let mut ran = 0;
    for path in paths {
        let case = Case::read(&path).unwrap();
        let Some(operation) = operations.iter().find(|operation| operation.name == case.op) else { continue };
        let answer = (operation.run)(&case).unwrap_or_else(|error| panic!("{}: {error}", case.file));
        let verdict = check(&case, &answer, operation.ignored);
        assert!(verdict.pass, "{}: {verdict:?}", case.file);
        ran += 1;
    }
    assert!(ran > 0, "no file in {} is of these operations", folder.display());
    ran
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Array;

    fn case(values: &[f64]) -> Case {
        let array = Array::new(vec![values.len()], values.to_vec());
        let tensors = ["in.x", "out.y"].map(|name| (name.to_string(), array.clone()));
        let mut case = Case::new("f", "o", tensors);
        (case.config, case.rtol, case.atol) = (serde_json::json!({"k": 1}), 1e-3, 1e-6);
        case
    }

    #[test]
    fn tolerance_is_absolute_plus_relative() {
        let case = case(&[1.0, 0.0]);
        let passes = |y: [f64; 2]| check(&case, &Answer::default().with("out.y", y), &[]).pass;
        assert!(passes([1.001, 1e-6]));
        assert!(!passes([1.0011, 0.0]));
        assert!(!passes([1.0, 2e-6]));
        let verdict = check(&case, &Answer::default().with("out.y", [0.5, 0.25]), &[]);
        assert_eq!(verdict, Verdict { max_abs: 0.5, max_rel: 0.5, worst: "out.y".into(), pass: false });
    }

    #[test]
    fn nan_absent_and_short_answers_fail() {
        let case = case(&[1.0, f64::NAN]);
        for answer in [
            Answer::default(),
            Answer::default().with("out.y", [1.0]),
            Answer::default().with("out.y", [1.0, f64::NAN]),
            Answer::default().with("out.y", [f64::INFINITY, 1.0]),
        ] {
            let verdict = check(&case, &answer, &[]);
            assert!(!verdict.pass && verdict.max_abs.is_infinite(), "{verdict:?}");
        }
        assert!(!check(&case, &Answer::default(), &["out.*"]).pass);
    }

    #[test]
    fn patterns_cover_names() {
        for (pattern, name, covers) in [
            ("out.y", "out.y", true),
            ("out.y", "out.yy", false),
            ("out.upstream_*", "out.upstream_map", true),
            ("*_quirk", "out.pool_quirk", true),
            ("*_quirk", "out.pool_quirks", false),
            ("*stable*", "out.stable_map", true),
        ] {
            assert_eq!(matches(pattern, name), covers, "{pattern} {name}");
        }
    }

    #[test]
    fn unknown_configuration_is_refused() {
        assert!(case(&[]).only(&["k"]).is_ok());
        assert!(case(&[]).only(&["other"]).unwrap_err().to_string().contains("`k`"));
    }
}
