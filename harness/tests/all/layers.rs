//! The crate's modules use what is below them and nothing above: the order that `lib.rs` states, read from the sources.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// From top to bottom.
const ORDER: [&str; 12] = [
    "cli",
    "repro",
    "report",
    "claims",
    "verify",
    "speed",
    "run",
    "stats",
    "record",
    "protocol",
    "retrieval",
    "output",
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(sources(&entry));
        } else if entry.extension().is_some_and(|ending| ending == "rs") {
            found.push(entry);
        }
    }
    found.sort();
    found
}

/// What paths that begin with `crate::` name first: `crate::a::b`, and each of `crate::{a::{b, c}, d}`.
fn named(source: &str) -> BTreeSet<String> {
    let code: String = source.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n");
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut names = BTreeSet::new();
    for (at, start) in code.match_indices("crate::") {
        if code[..at].ends_with(['$', '_']) {
            continue;
        }
        let rest = &code[at + start.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.insert(word(rest));
            continue;
        };
        let (mut depth, mut first) = (1, true);
        for (i, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => first = true,
                _ if first && !c.is_whitespace() => {
                    names.insert(word(&group[i..]));
                    first = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    names
}

#[test]
fn paths_are_found_however_they_are_grouped() {
    let source = "use crate::{\n    a::{b, c as d},\n    e,\n    f::g,\n};\n// crate::no\nfn x() { crate::h::i(); }\n\
                  use super::j;\nuse crate::k;";
    assert_eq!(named(source), ["a", "e", "f", "h", "k"].map(String::from).into());
}

#[test]
fn every_module_has_a_place_in_the_order() {
    let head = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/lib.rs")).unwrap();
    let declared: BTreeSet<&str> =
        head.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert_eq!(declared, ORDER.into());
    let stated: Vec<&str> = head.lines().filter_map(|line| line.strip_prefix("//! - [`")?.split('`').next()).collect();
    assert_eq!(stated, ORDER, "the head of lib.rs states another order");
}

#[test]
fn no_module_uses_one_above_it() {
    let place = |name: &str| ORDER.iter().position(|known| *known == name);
    let mut upward = Vec::new();
    for (from, module) in ORDER.iter().enumerate() {
        let files = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(module));
        assert!(!files.is_empty(), "{module} has no sources");
        for file in files {
            let used = named(&fs::read_to_string(&file).unwrap());
            let above = used.iter().filter(|name| place(name).is_some_and(|to| to < from));
            upward.extend(above.map(|name| format!("{} uses `{name}`", file.display())));
        }
    }
    assert!(upward.is_empty(), "what both need belongs below both:\n{}", upward.join("\n"));
}
