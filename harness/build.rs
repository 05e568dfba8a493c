//! Captures what a recording says of the build: the compiler, the versions of the crates that compute, and a fingerprint
//! of the sources that numbers depend on.

use std::{env, fs, path::Path, process::Command};

/// Sources whose change makes recorded trials out of date; cards say what is known of a method, and compute nothing.
const SOURCES: [&str; 6] =
    ["../datasets/src", "../methods/src", "src/protocol", "src/retrieval", "src/run/trial.rs", "src/run/controls.rs"];

/// Crates whose versions a recording names.
const CRATES: [&str; 4] = ["candle-core", "faer", "gemm", "polars"];

fn main() {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
        add(Path::new(source), &mut hash);
    }
    println!("cargo::rustc-env=XMBENCH_CODE={}+{hash:016x}", env!("CARGO_PKG_VERSION"));

    let compiler = env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let output = Command::new(compiler).arg("-V").output();
    let version = output.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_string()).unwrap_or_default();
    let version = version.strip_prefix("rustc ").unwrap_or(&version);
    println!("cargo::rustc-env=XMBENCH_RUSTC={}", if version.is_empty() { "unknown" } else { version });

    println!("cargo::rerun-if-changed=../Cargo.lock");
    let lock = fs::read_to_string("../Cargo.lock").unwrap_or_default();
    println!("cargo::rustc-env=XMBENCH_VERSIONS={}", versions(&lock).join(" "));
    println!("cargo::rustc-env=XMBENCH_BUILD={}", env::var("PROFILE").unwrap_or_default());
}

/// FNV-1a over names and contents, in the order of the names.
fn add(path: &Path, hash: &mut u64) {
    let mut feed =
        |bytes: &[u8]| bytes.iter().for_each(|&byte| *hash = (*hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    feed(path.to_string_lossy().as_bytes());
    if let Ok(bytes) = fs::read(path) {
        feed(&bytes);
    }
    let mut inside: Vec<_> = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    inside.retain(|path| path.extension().is_none_or(|extension| extension != "toml"));
    inside.sort();
    for path in inside {
        add(&path, hash);
    }
}

/// `name=version` of each crate in the lock file.
fn versions(lock: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = lock.lines().peekable();
    while let Some(line) = lines.next() {
        let name = line.strip_prefix("name = ").map(|name| name.trim_matches('"'));
        if let Some(name) = name.filter(|name| CRATES.contains(name))
            && let Some(version) = lines.peek().and_then(|line| line.strip_prefix("version = "))
        {
            found.push(format!("{name}={}", version.trim_matches('"')));
        }
    }
    found
}
