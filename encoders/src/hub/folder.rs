//! A folder in the hub's layout: what files there are, read as JSON, and their checksums.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};
use xmbench_datasets::{Error, Result, files};

use crate::weights::Weights;

/// Bytes of the largest JSON file that is read; tokenizers of large vocabularies have 35 million.
const LARGEST: u64 = 256 << 20;

/// A folder, and what of it was read.
pub(super) struct Folder {
    path: PathBuf,
    /// SHA-256 of each file beside the weights.
    pub read: BTreeMap<String, String>,
}

impl Folder {
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), read: BTreeMap::new() }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The bytes of a file, unless there is none.
    pub fn bytes(&mut self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.file(name);
        if !files::there(&path) {
            return Ok(None);
        }
        let (_, length) = files::open(&path)?;
        if length > LARGEST {
            let next = "name a folder in the hub's layout";
            return Err(Error::content(path, "", format!("at most {LARGEST} bytes"), length.to_string(), next));
        }
        let bytes = files::read(&path)?;
        let digest = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        self.read.insert(name.to_owned(), digest);
        Ok(Some(bytes))
    }

    /// A file as a JSON object, unless there is none.
    pub fn json(&mut self, name: &str) -> Result<Option<Value>> {
        let Some(bytes) = self.bytes(name)? else { return Ok(None) };
        object(&self.file(name), &bytes).map(Some)
    }

    /// The file of weights.
    pub fn weights(&self) -> Result<Weights> {
        const NAME: &str = "model.safetensors";
        let path = self.file(NAME);
        if files::there(&path) {
            return Weights::read(&path);
        }
        let others = ["model.safetensors.index.json", "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack"];
        let found = others.into_iter().find(|name| files::there(&self.file(name)));
        let next =
            "save the network into one file: from_pretrained(FOLDER).save_pretrained(NEW, max_shard_size=\"100GB\")";
        Err(Error::content(path, "", "a file", found.unwrap_or("nothing"), next))
    }
}

/// A JSON object, of bytes.
pub(super) fn object(path: &Path, bytes: &[u8]) -> Result<Value> {
    let found = match serde_json::from_slice(bytes) {
        Ok(Value::Object(map)) => return Ok(Value::Object(map)),
        Ok(_) => "another value".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(Error::content(path, "", "a JSON object", found, "name a folder in the hub's layout"))
}

/// What an object says, as the type that it must have.
pub(super) fn typed<T: DeserializeOwned>(path: &Path, place: &str, value: &Value) -> Result<T> {
    T::deserialize(value).map_err(|error| {
        let next = "name a folder whose network is of a known form";
        Error::content(path, place, "keys and values of this network's kind", error.to_string(), next)
    })
}
