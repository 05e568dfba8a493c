use sha2::{Digest, Sha256};

/// SHA-256 of a dataset's content and options, in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Checksum(pub String);

impl std::fmt::Display for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Feeds a checksum with labelled byte strings; a label and a length stand before each, so that no two contents run together.
#[derive(Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Adds a labelled byte string.
    pub fn add(&mut self, label: &str, bytes: &[u8]) -> &mut Self {
        for part in [label.as_bytes(), bytes] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
        self
    }

    /// The checksum of everything added so far.
    pub fn finish(self) -> Checksum {
        Checksum(self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}
