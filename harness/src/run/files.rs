//! Files that parameters name: where they are, and what is in them.
//!
//! A card says which parameters are paths (`file = true`). A relative path is looked for beside the experiment's file, then in the data
//! folder; where a data folder is named, nothing outside these two is read. `{seed}` in a path stands for the seed of a trial,
//! `{split}` for the split that is read. The method gets the path of what was found, and a trial's identity the checksum, so that a
//! file that has changed makes another trial, and one that was moved does not.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use toml::{Table, Value};
use xmbench_datasets::{Split, arrays};
use xmbench_methods::{
    Method,
    external::given::{SEED, SPLIT},
};

/// Where files are looked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Places {
    /// The folder of the experiment's file; none of a built-in experiment.
    pub beside: Option<PathBuf>,
    /// The data folder.
    pub data: Option<PathBuf>,
}

/// Checksums by seed: a table of one a file, `images` or `images test`.
pub type Checksums = BTreeMap<u64, Table>;

const SPLITS: [Split; 4] = [Split::Train, Split::Val, Split::Test, Split::Database];

impl Places {
    /// Writes the places of files into complete parameters, and gives their checksums for every seed; none where no parameter
    /// names a file.
    ///
    /// # Errors
    /// A file that is not there, of any seed, or outside of where files are looked for.
    pub fn find(&self, method: &dyn Method, params: &mut Table, seeds: &[u64]) -> Result<Checksums> {
        let mut sums = Checksums::new();
        for (key, _) in method.card().parameters.iter().filter(|(_, parameter)| parameter.file) {
            let Some(Value::String(path)) = params.get_mut(key).filter(|value| value.as_str() != Some("")) else {
                continue;
            };
            let named = || format!("method `{}`, parameter `{key}`", method.card().name);
            let place = self.locate(path, seeds).with_context(named)?;
            for &seed in seeds {
                let sums = sums.entry(seed).or_default();
                for (split, place) in of_seed(&place, seed) {
                    let split = split.map(|split| format!(" {split}")).unwrap_or_default();
                    let sum = arrays::digest(&place).with_context(named)?;
                    sums.insert(format!("{key}{split}"), Value::String(sum.0));
                }
            }
            *path = place;
        }
        Ok(sums)
    }

    /// The first place in which the file of the first seed is; those of the others must be there as well.
    fn locate(&self, path: &str, seeds: &[u64]) -> Result<String> {
        let stays = Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if self.data.is_some() && !stays {
            bail!(
                "expected a path within the experiment's folder or the data folder, found `{path}`; move or link the file there, or \
                 run without --data-dir and XMBENCH_DATA"
            );
        }
        let folders = [&self.beside, &self.data].into_iter().flatten();
        let mut places: Vec<String> =
            folders.filter_map(|folder| folder.join(path).to_str().map(str::to_owned)).collect();
        if places.is_empty() {
            places.push(path.into());
        }
        let there = |place: &&String| seeds.first().is_none_or(|&seed| !of_seed(place, seed).is_empty());
        let place = places.iter().find(there).unwrap_or(&places[0]).clone();
        if let Some(seed) = seeds.iter().find(|&&seed| of_seed(&place, seed).is_empty()) {
            let tried: Vec<String> = places.iter().map(|place| place.replace(SEED, &seed.to_string())).collect();
            let of = if path.contains(SEED) { format!(" for seed {seed}") } else { String::new() };
            bail!(
                "expected a file{of}, found nothing at {}; paths are relative to the experiment's file, or to --data-dir",
                tried.join(" nor at ")
            );
        }
        Ok(place)
    }
}

/// The places of a seed that are there, with the split where there is one for each.
fn of_seed(place: &str, seed: u64) -> Vec<(Option<Split>, String)> {
    let place = place.replace(SEED, &seed.to_string());
    let all: Vec<_> = match place.contains(SPLIT) {
        true => SPLITS.iter().map(|split| (Some(*split), place.replace(SPLIT, &split.to_string()))).collect(),
        false => vec![(None, place)],
    };
    all.into_iter().filter(|(_, place)| xmbench_datasets::files::there(&arrays::split(place).0)).collect()
}

#[cfg(test)]
mod tests {
    use xmbench_methods::registry;

    use super::*;

    fn params(images: &str) -> Table {
        let method = registry::find("given").unwrap();
        let table = [("images", images), ("texts", "t.npy")].map(|(key, value)| (key.into(), value.into()));
        method.resolve(&Table::from_iter(table)).unwrap()
    }

    fn sums(found: &Checksums, seed: u64) -> Vec<(&str, &str)> {
        found[&seed].iter().map(|(key, sum)| (key.as_str(), sum.as_str().unwrap())).collect()
    }

    #[test]
    fn a_file_is_found_beside_the_experiment_first_and_known_by_what_is_in_it() {
        let method = registry::find("given").unwrap();
        let root = tempfile::tempdir().unwrap();
        let (beside, data) = (root.path().join("beside"), root.path().join("data"));
        for folder in [&beside, &data] {
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(folder.join("t.npy"), "texts").unwrap();
        }
        let places = Places { beside: Some(beside.clone()), data: Some(data.clone()) };
        std::fs::write(data.join("i1.npy"), "one").unwrap();
        std::fs::write(data.join("i2.npy"), "two").unwrap();
        let mut table = params("i{seed}.npy");
        let found = places.find(method, &mut table, &[1, 2]).unwrap();
        assert_eq!(table["images"].as_str().unwrap(), data.join("i{seed}.npy").to_str().unwrap());
        assert_eq!(table["texts"].as_str().unwrap(), beside.join("t.npy").to_str().unwrap());
        let (one, two) = (sums(&found, 1), sums(&found, 2));
        assert_eq!((one[0].0, one[1]), ("images", two[1]));
        assert_ne!(one[0], two[0]);
        // The other way round: what counts is what is in the file.
        std::fs::write(data.join("i1.npy"), "two").unwrap();
        let again = places.find(method, &mut params("i{seed}.npy"), &[1]).unwrap();
        assert_eq!(sums(&again, 1)[0], two[0]);
        let error = places.find(method, &mut params("i{seed}.npy"), &[1, 3]).unwrap_err();
        let error = format!("{error:#}").replace(root.path().to_str().unwrap(), "DIR");
        insta::assert_snapshot!(error, @"method `given`, parameter `images`: expected a file for seed 3, found nothing at DIR/beside/i3.npy nor at DIR/data/i3.npy; paths are relative to the experiment's file, or to --data-dir");
        for outside in ["../data/i1.npy", data.join("i1.npy").to_str().unwrap()] {
            let error = places.find(method, &mut params(outside), &[1]).unwrap_err();
            assert!(format!("{error:#}").contains("within the experiment's folder or the data folder"), "{error:#}");
            let alone = Places { beside: Some(beside.clone()), data: None };
            assert_eq!(sums(&alone.find(method, &mut params(outside), &[1]).unwrap(), 1)[0], two[0]);
        }
    }

    #[test]
    fn a_file_a_split_is_known_by_its_split() {
        let method = registry::find("given").unwrap();
        let root = tempfile::tempdir().unwrap();
        for (name, text) in [("test.npy", "a"), ("train.npy", "b"), ("t.npy", "c")] {
            std::fs::write(root.path().join(name), text).unwrap();
        }
        let places = Places { beside: Some(root.path().into()), data: None };
        let found = places.find(method, &mut params("{split}.npy#x"), &[7]).unwrap();
        let mut keys: Vec<&str> = sums(&found, 7).into_iter().map(|(key, _)| key).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["images test", "images train", "texts"]);
    }
}
