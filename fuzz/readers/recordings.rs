//! Recordings: the manifest, the journal, the tables.

use std::{fs, path::Path};

use sha2::{Digest, Sha256};
use xmbench::record::{self, Manifest, Store, Trial};

use super::{Refused, Stage};

/// A trial with a little of everything.
fn trial(seed: u64) -> Result<Trial, Refused> {
    let text = format!(
        r#"{{
        "id": "{seed:016x}", "experiment": "01-emoji-pairs", "position": 0, "label": "CCA", "method": "cca", "control": "none",
        "dataset": "emoji", "checksum": "{:064x}", "params": {{ "components": 8 }}, "swept": {{ "components": "8" }}, "seed": {seed},
        "protocol": {{ "task": {{ "kind": "pairs" }} }}, "device": "cpu", "outcome": {{ "status": "done" }},
        "metrics": {{ "i2t R@1": 12.5, "rsum": 100.0 }}, "envelope": {{ "i2t R@1": [12.0, 13.0] }},
        "curves": {{ "selection by setting": [[1.0, 2.0], [2.0, 3.0]] }},
        "history": [{{ "epoch": 1, "loss": 0.5, "learning_rate": 0.1, "validation": 3.0, "seconds": 0.1, "pairs": 6 }}],
        "timings": [{{ "phase": "fit", "items": 12, "seconds": [0.1, 0.2] }}], "peak_memory": 1000000, "bytes_per_item": [32.0, 32.0],
        "queries": [
            {{ "direction": "i2t", "query": 0, "cluster": 0, "better": 1, "tied": 1, "own": 1, "average_precision": 0.5 }},
            {{ "direction": "t2i", "query": 0, "cluster": 0, "better": 0, "tied": 2, "own": 1, "average_precision": 0.5 }}
        ],
        "values": {{ "i2t MAP@50": [0.5], "t2i MAP@50": [0.25] }}
    }}"#,
        7
    );
    Ok(serde_json::from_str(&text)?)
}

/// A recording of two trials, sealed or not.
fn recording(sealed: bool) -> Result<tempfile::TempDir, Refused> {
    let folder = tempfile::tempdir()?;
    let manifest = Manifest { profile: "smoke".into(), started: "2026-01-31T12:00:00Z".into(), ..Manifest::default() };
    let mut store = Store::open(folder.path(), manifest)?;
    for seed in [1, 2] {
        store.add(trial(seed)?)?;
    }
    if sealed {
        store.seal()?;
    }
    Ok(folder)
}

/// A recording with one file replaced. Where that file's SHA-256 stands in itself or in the manifest, it is made to fit again.
fn replaced(sealed: bool, choose: impl Fn(&Path) -> bool) -> Result<Stage, Refused> {
    let source = recording(sealed)?;
    let mut files = Vec::new();
    let mut folders = vec![source.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    let name = |path: &Path| -> Result<String, Refused> {
        Ok(path.strip_prefix(source.path())?.to_string_lossy().into_owned())
    };
    let chosen = files.iter().find(|path| choose(path)).ok_or("a recording has such a file")?;
    let seed = fs::read(chosen)?;
    let manifest = fs::read_to_string(source.path().join("manifest.json"))?;
    let (before, place) = (hex(&seed), name(chosen)?);
    let tie = manifest.contains(&before);
    let read = move |root: &Path, bytes: &[u8]| -> Result<(), Refused> {
        if tie {
            fs::write(root.join("manifest.json"), manifest.replace(&before, &hex(bytes)))?;
        }
        record::store::read(root)?;
        Ok(())
    };
    let mut stage = Stage::new(vec![seed], read)?.into(&place)?;
    for other in files.iter().filter(|path| *path != chosen) {
        stage = stage.beside(&name(other)?, &fs::read(other)?)?;
    }
    Ok(stage)
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn manifest() -> Result<Stage, Refused> {
    replaced(true, |path| path.ends_with("manifest.json"))
}

pub fn journal() -> Result<Stage, Refused> {
    let stage = replaced(false, |path| path.parent().is_some_and(|folder| folder.ends_with("journal")))?;
    // A first line with the SHA-256 of what follows.
    Ok(stage.packed(|bytes| {
        let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else { return bytes.to_vec() };
        let (head, body) = bytes.split_at(end + 1);
        match head.len().checked_sub(65) {
            Some(at) => [&head[..at], hex(body).as_bytes(), b"\n", body].concat(),
            None => bytes.to_vec(),
        }
    }))
}

pub fn table(name: &str) -> Result<Stage, Refused> {
    let file = format!("{name}.parquet");
    replaced(true, |path| path.ends_with(&file))
}
