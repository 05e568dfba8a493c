//! A folder in the hub's layout: what files there are, read as JSON, and their checksums.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use xmbench_datasets::{Error, Result, files};

use crate::weights::{Weights, hexadecimal};

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
        self.read.insert(name.to_owned(), hexadecimal(&bytes));
        Ok(Some(bytes))
    }

    /// A file as a JSON object, unless there is none.
    pub fn json(&mut self, name: &str) -> Result<Option<Value>> {
        let Some(bytes) = self.bytes(name)? else { return Ok(None) };
        object(&self.file(name), &bytes).map(Some)
    }

    /// The weights: one file, or the parts that a list of them names.
    pub fn weights(&mut self) -> Result<Weights> {
        const NAME: &str = "model.safetensors";
        const LIST: &str = "model.safetensors.index.json";
        let path = self.file(NAME);
        if files::there(&path) {
            return Weights::read(&path);
        }
        if let Some(list) = self.json(LIST)? {
            return self.parts(&self.file(LIST), &list);
        }
        let others = ["pytorch_model.bin", "tf_model.h5", "flax_model.msgpack"];
        let found = others.into_iter().find(|name| files::there(&self.file(name)));
        let next = "save the network so: from_pretrained(FOLDER).save_pretrained(NEW)";
        Err(Error::content(path, "", format!("a file, or {LIST}"), found.unwrap_or("nothing"), next))
    }

    /// The parts that a list names, which has to tell of each array the file that it is in.
    fn parts(&self, list: &Path, value: &Value) -> Result<Weights> {
        #[derive(Deserialize)]
        struct Written {
            weight_map: BTreeMap<String, PartName>,
        }
        let Written { weight_map } = typed(list, "", value)?;
        let next =
            "let the list and its parts be of one network: from_pretrained(FOLDER).save_pretrained(NEW) writes both";
        let names: BTreeSet<&str> = weight_map.values().map(|name| name.0.as_str()).collect();
        let (mut parts, mut sums) = (Vec::with_capacity(names.len()), String::new());
        for name in names {
            let path = self.file(name);
            let part = Weights::read(&path)?;
            let lost = weight_map.iter().find(|(array, file)| file.0 == name && !part.has(array));
            if let Some((array, _)) = lost {
                return Err(Error::content(path, "", format!("an array `{array}`, as the list says"), "none", next));
            }
            sums += &format!("{}  {name}\n", part.digest());
            parts.push(part);
        }
        Weights::joined(list, parts, hexadecimal(sums.as_bytes()))
            .map_err(|array| Error::content(list, format!("array `{array}`"), "in one of the parts", "in two", next))
    }
}

/// The name of a file of weights beside the list that names it: a list is a stranger's, and leads nowhere else.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct PartName(String);

impl TryFrom<String> for PartName {
    type Error = String;

    fn try_from(name: String) -> std::result::Result<Self, String> {
        let mut places = Path::new(&name).components();
        let alone =
            matches!((places.next(), places.next()), (Some(Component::Normal(part)), None) if part == name.as_str());
        match alone && name.ends_with(".safetensors") {
            true => Ok(Self(name)),
            false => Err(format!("expected the name of a .safetensors file in the same folder, found `{name}`")),
        }
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
