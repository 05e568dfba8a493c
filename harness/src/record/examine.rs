//! What holds of a recording and what does not, file by file.

use std::path::Path;

use super::{Manifest, Result, Trial, journal::Journal, kept, store, tables};

/// What was looked at, and what was found.
#[derive(Debug)]
pub struct Finding {
    /// What was looked at: `manifest.json`, `table queries`.
    pub what: String,
    /// What holds, or what does not.
    pub outcome: std::result::Result<String, String>,
}

/// Looks at every part of the recording in `folder`: it goes on behind a part that is damaged, as far as the others can be read
/// without it. The trials are those that can be read, for whatever is asked of them next.
///
/// # Errors
/// If the manifest cannot be read: then the folder is no recording of which anything could be said.
pub fn examine(folder: &Path) -> Result<(Vec<Finding>, Vec<Trial>)> {
    let manifest = store::read_manifest(folder)?;
    let mut findings = vec![Finding {
        what: "manifest.json".into(),
        outcome: Ok(format!("format {}, written by xmbench {}", manifest.format, manifest.version)),
    }];
    let mut trials = std::collections::BTreeMap::new();
    findings.extend(checksums(folder, &manifest));
    let sealed = tables::read(folder, &Default::default());
    findings.push(Finding {
        what: "values of the tables".into(),
        outcome: match sealed {
            Ok(sealed) => {
                let said = format!("{} trials, every value in its range", sealed.len());
                trials.extend(sealed);
                Ok(said)
            }
            Err(error) => Err(error.to_string()),
        },
    });
    findings.push(Finding {
        what: "journal".into(),
        outcome: match Journal::of(folder).read() {
            Ok(open) if open.is_empty() => Ok("none, the recording is sealed".into()),
            Ok(open) => {
                let said =
                    format!("{} trials that are not sealed yet, each with the SHA-256 of its first line", open.len());
                trials.extend(open);
                Ok(said)
            }
            Err(error) => Err(error.to_string()),
        },
    });
    let misfit = trials.values().find_map(|trial| trial.check_against(&manifest).err());
    findings.push(Finding {
        what: "queries and datasets".into(),
        outcome: match misfit {
            None => Ok("no query is beyond its split or ranks more than the gallery".into()),
            Some(wrong) => Err(format!("expected {}, found {}", wrong.expected, wrong.found)),
        },
    });
    findings.push(kept_results(folder, trials.values()));
    let mut trials: Vec<Trial> = trials.into_values().collect();
    trials.sort_by_cached_key(|trial| trial.order());
    Ok((findings, trials))
}

/// Whether what stands first for each query is what the trials promise, and says what their queries say.
fn kept_results<'a>(folder: &Path, trials: impl Iterator<Item = &'a Trial>) -> Finding {
    let (mut seen, mut wrong) = (std::collections::BTreeSet::new(), None);
    for trial in trials.filter(|trial| trial.kept.is_some()) {
        if wrong.is_some() || !seen.insert(trial.id.clone()) {
            continue;
        }
        wrong = match kept::read(folder, trial) {
            Ok(found) => {
                kept::agrees(trial, &found.unwrap_or_default()).err().map(|it| format!("{}: {it}", trial.key()))
            }
            Err(error) => Some(error.to_string()),
        };
    }
    let outcome = match (wrong, seen.len()) {
        (Some(wrong), _) => Err(wrong),
        (None, 0) => Ok("none".into()),
        (None, files) => {
            Ok(format!("{files} files with the SHA-256 that their trials have, ranks as in the table queries"))
        }
    };
    Finding { what: "best items of each query".into(), outcome }
}

/// A finding a table: whether it has the bytes that the manifest promises.
fn checksums(folder: &Path, manifest: &Manifest) -> Vec<Finding> {
    let one = |name: &str| {
        let outcome = match tables::digest(folder, name) {
            Err(error) => Err(error.to_string()),
            Ok(None) => match manifest.tables.get(name) {
                Some(known) if !known.iter().any(|digest| digest == tables::NONE) => {
                    Err("the manifest promises it, and it is not there".into())
                }
                _ => Ok("not sealed yet".into()),
            },
            Ok(Some(found)) => match manifest.tables.get(name) {
                None if manifest.tables.is_empty() => {
                    Ok("there; an earlier version sealed it, without a checksum to compare with".into())
                }
                Some(known) if known.contains(&found) => Ok(format!("SHA-256 {found}")),
                _ => Err(format!("has the SHA-256 {found}, which the manifest does not know")),
            },
        };
        Finding { what: format!("table {name}"), outcome }
    };
    tables::NAMES.into_iter().map(one).collect()
}
