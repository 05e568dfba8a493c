//! The golden files that lie in the project are those that their list of checksums names, to the last bit.

use std::{collections::BTreeMap, path::Path};

use sha2::{Digest, Sha256};

#[test]
fn every_golden_file_is_as_it_was() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("golden");
    let list = std::fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
    let listed: BTreeMap<String, String> = list
        .lines()
        .map(|line| line.split_once("  ").map(|(sum, name)| (name.to_string(), sum.to_string())).unwrap())
        .collect();
    let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap());
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    let found: BTreeMap<String, String> = names
        .filter(|name| !["SHA256SUMS", "README.md"].contains(&name.as_str()))
        .map(|name| {
            let digest = Sha256::digest(std::fs::read(folder.join(&name)).unwrap());
            (name, digest.iter().map(|byte| format!("{byte:02x}")).collect())
        })
        .collect();
    assert_eq!(found, listed);
    assert!(found.len() > 150);
}
