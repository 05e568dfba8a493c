use std::collections::BTreeMap;
use std::path::Path;

use super::*;

/// Every file of a report on the made-up recording, by name.
fn files(recording: &Recording) -> BTreeMap<String, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let rendered = render(recording, folder.path()).unwrap();
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    rendered.files.iter().map(|path| (name(path), std::fs::read(path).unwrap())).collect()
}

fn text(files: &BTreeMap<String, Vec<u8>>, name: &str) -> String {
    String::from_utf8(files[name].clone()).unwrap()
}

#[test]
fn tables_read_as_they_did() {
    let files = files(&synthetic::recording());
    for (name, bytes) in &files {
        if [".md", ".tex", ".csv"].iter().any(|ending| name.ends_with(ending)) {
            insta::assert_snapshot!(name.as_str(), String::from_utf8(bytes.clone()).unwrap());
        }
    }
}

#[test]
fn rendering_twice_gives_the_same_bytes() {
    let recording = synthetic::recording();
    assert!(files(&recording) == files(&recording));
}

/// For a look: `XMBENCH_LOOK=/tmp/look cargo test -p xmbench -- --ignored look`.
#[test]
#[ignore = "writes a report for a person to look at"]
fn look() {
    let folder = std::env::var("XMBENCH_LOOK").expect("XMBENCH_LOOK names the folder");
    render(&synthetic::recording(), Path::new(&folder)).unwrap();
}
