//! Captures what a recording says of the build: the compiler, the versions of the crates that compute, and a fingerprint
//! of the sources that numbers depend on.

use std::{env, fs, path::Path, process::Command};

/// Sources whose change makes recorded trials out of date; cards say what is known of a method, and compute nothing.
const SOURCES: [&str; 10] = [
    "../datasets/src",
    "../methods/src",
    "src/protocol",
    "src/retrieval",
    "src/run/bench.rs",
    "src/run/combine.rs",
    "src/run/execute.rs",
    "src/run/plan.rs",
    "src/run/score.rs",
    "src/run/trial.rs",
];

/// Crates whose versions a recording names.
const CRATES: [&str; 4] = ["candle-core", "faer", "gemm", "polars"];

fn main() {
    let compiler = env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let output = Command::new(compiler).arg("-V").output();
    let version = output.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_string()).unwrap_or_default();
    let version = version.strip_prefix("rustc ").unwrap_or(&version);
    println!("cargo::rerun-if-changed=../Cargo.lock");
    let lock = fs::read_to_string("../Cargo.lock").unwrap_or_default();

    let mut hash = 0xcbf2_9ce4_8422_2325;
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
        add(Path::new(source), &mut hash);
    }
    let target = ["CARGO_CFG_TARGET_ARCH", "CARGO_CFG_TARGET_FEATURE"].map(|name| env::var(name).unwrap_or_default());
    for text in [&lock, version, &target[0], &target[1]] {
        feed(text.as_bytes(), &mut hash);
    }
    println!("cargo::rustc-env=XMBENCH_CODE={}+{hash:016x}", env!("CARGO_PKG_VERSION"));

    println!("cargo::rustc-env=XMBENCH_RUSTC={}", if version.is_empty() { "unknown" } else { version });

    println!("cargo::rustc-env=XMBENCH_VERSIONS={}", versions(&lock).join(" "));
    println!("cargo::rustc-env=XMBENCH_BUILD={}", env::var("PROFILE").unwrap_or_default());

    let out = env::var("OUT_DIR").expect("cargo names a folder for what a build makes");
    fs::write(Path::new(&out).join("equations.rs"), equations(Path::new("../methods/src"))).expect("it can be written");

    // The commit of the build, which is not that of the folder one stands in later.
    for path in ["src", "HEAD", "logs/HEAD"].into_iter().filter_map(|name| match name {
        "src" => Some(name.to_string()),
        _ => git(&["rev-parse", "--git-path", name]),
    }) {
        // A path that is not there would have this run every time.
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    println!("cargo::rustc-env=XMBENCH_COMMIT={}", git(&["rev-parse", "HEAD"]).unwrap_or_default());
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| !changes.is_empty());
    println!("cargo::rustc-env=XMBENCH_DIRTY={}", if changed { "yes" } else { "no" });
    tuned();
}

/// Writes the list of the tuned files that travel with the program, as the experiments do: names and texts.
fn tuned() {
    const FOLDER: &str = "experiments/tuned";
    println!("cargo::rerun-if-changed={FOLDER}");
    let mut files: Vec<_> = fs::read_dir(FOLDER).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    let entries: String = files
        .iter()
        .filter_map(|path| Some((path.file_stem()?.to_str()?, fs::canonicalize(path).ok()?)))
        .map(|(name, path)| format!("    ({name:?}, include_str!({path:?})),\n"))
        .collect();
    let text = format!(
        "/// The tuned rows that are part of the program: name and text of each file.\npub const TUNED: &[(&str, &str)] = &[\n{entries}];\n"
    );
    let out = env::var("OUT_DIR").unwrap_or_default();
    fs::write(Path::new(&out).join("tuned.rs"), text)
        .unwrap_or_else(|error| panic!("cannot write {out}/tuned.rs: {error}"));
}

/// The equations at the head of each method's source, the first block of text in its documentation: name, path, line, text.
fn equations(methods: &Path) -> String {
    let inside = |folder: &Path| -> Vec<_> {
        let mut paths: Vec<_> =
            fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        paths.sort();
        paths
    };
    let mut found = Vec::new();
    for card in inside(methods).iter().flat_map(|family| inside(family)) {
        let source = card.with_extension("rs");
        let (true, Ok(text)) = (card.extension().is_some_and(|it| it == "toml"), fs::read_to_string(&source)) else {
            continue;
        };
        let head: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("//!")).collect();
        let Some(start) = head.iter().position(|line| line.trim() == "```text") else { continue };
        let block: Vec<&str> = head[start + 1..].iter().take_while(|line| line.trim() != "```").copied().collect();
        let block: Vec<&str> = block.iter().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
        let name = card.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let path = source.strip_prefix("..").unwrap_or(&source).to_string_lossy().replace('\\', "/");
        found.push(format!("({name:?}, {path:?}, {}, {:?})", start + 2, block.join("\n")));
    }
    format!(
        "/// Of each method: its name, the path of its source, the line of the first equation, the equations.\n\
         const EQUATIONS: &[(&str, &str, usize, &str)] = &[{}];\n",
        found.join(", ")
    )
}

/// What git says of the project's own repository: of sources that were unpacked inside another one it is asked nothing.
fn git(arguments: &[&str]) -> Option<String> {
    if !Path::new("../.git").exists() {
        return None;
    }
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_string())
}

/// FNV-1a.
fn feed(bytes: &[u8], hash: &mut u64) {
    bytes.iter().for_each(|&byte| *hash = (*hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
}

/// Names and contents in the order of the names, without tests.
fn add(path: &Path, hash: &mut u64) {
    let name = path.file_stem().unwrap_or_default();
    if name == "tests" || name == "snapshots" {
        return;
    }
    feed(path.to_string_lossy().as_bytes(), hash);
    if let Ok(bytes) = fs::read(path) {
        let tests = b"#[cfg(test)]\nmod tests {";
        let end = bytes.windows(tests.len()).position(|window| window == tests).unwrap_or(bytes.len());
        feed(&bytes[..end], hash);
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
