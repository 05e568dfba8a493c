use std::path::Path;

use crate::{
    Dataset, Error, OptionSpec, Result, emoji, halves, labelled, mfeat, options, options::Options, planted, precomp,
    wiki,
};

/// Where a dataset comes from: what `xmbench data list` prints of it.
#[derive(Clone, Copy, serde::Serialize)]
pub struct Source {
    /// Name by which it is opened.
    pub name: &'static str,
    /// What it is, in a sentence.
    pub doc: &'static str,
    /// Every option with its default.
    pub options: &'static [OptionSpec],
    /// Representations that it offers.
    pub representations: &'static [&'static str],
    /// How to get its files.
    pub get: &'static str,
    #[serde(skip)]
    pub(crate) load: fn(&Options, Option<&Path>) -> Result<Dataset>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Source").field(&self.name).finish()
    }
}

/// How to get a dataset that is inside the program.
pub(crate) const BUILT_IN: &str = "built in: nothing to get";

/// Every source, in the order in which they are listed.
pub fn sources() -> &'static [Source] {
    &[
        emoji::SOURCE,
        precomp::SOURCE,
        wiki::SOURCE,
        halves::SOURCE,
        mfeat::SOURCE,
        labelled::SOURCES[0],
        labelled::SOURCES[1],
        labelled::SOURCES[2],
        labelled::SOURCES[3],
        labelled::SOURCES[4],
        planted::linear::SOURCE,
        planted::fragments::SOURCE,
        planted::clusters::SOURCE,
        planted::sequences::SOURCE,
    ]
}

/// Opens a dataset by the name of its source. `root` is the data folder, needed by sources that read files.
///
/// # Errors
/// If the name or an option is unknown (the nearest known one is named), an option is out of range, or files are missing
/// or not what they should be.
pub fn open(name: &str, options: &toml::Table, root: Option<&Path>) -> Result<Dataset> {
    let Some(source) = sources().iter().find(|source| source.name == name) else {
        let names: Vec<&str> = sources().iter().map(|source| source.name).collect();
        return Err(options::unknown("dataset", name, &names));
    };
    (source.load)(&Options::new(source.options, options)?, root)
}

/// The folder of a source: option `path` under the data folder.
pub(crate) fn folder(options: &Options, root: Option<&Path>, get: &str) -> Result<std::path::PathBuf> {
    let path = Path::new(options.text("path", &[])?);
    let folder = match root {
        Some(root) => root.join(path),
        None if path.is_absolute() => path.to_owned(),
        None => {
            let next = format!("pass --data-dir DIR or set XMBENCH_DATA; {get}");
            return Err(Error::option("data folder", "a folder with the dataset's files", "none", next));
        }
    };
    if !folder.is_dir() {
        let found = if folder.exists() { "a file" } else { "nothing" };
        return Err(Error::content(folder, "", "a folder with the dataset's files", found, get));
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_get_the_nearest() {
        let error = open("emojis", &toml::Table::new(), None).unwrap_err().to_string();
        insta::assert_snapshot!(error, @"dataset: expected one of emoji, precomp, wiki, mnist-halves, mfeat, features, mirflickr25k, nuswide10, nuswide21, coco, planted-linear, planted-fragments, planted-clusters, planted-sequences, found `emojis`; did you mean `emoji`?");
        let error = open("emoji", &toml::toml! { label = "group" }, None).unwrap_err().to_string();
        insta::assert_snapshot!(error, @"option: expected one of labels, min_count, seed, split, found `label`; did you mean `labels`?");
    }

    #[test]
    fn missing_folders_say_how_to_get_the_data() {
        let error = open("precomp", &toml::Table::new(), None).unwrap_err().to_string();
        assert!(error.contains("--data-dir") && error.contains("caps.txt"), "{error}");
        let error = open("wiki", &toml::Table::new(), Some(Path::new("/nowhere"))).unwrap_err().to_string();
        assert!(error.contains("/nowhere/wiki") && error.contains("svcl.ucsd.edu"), "{error}");
    }

    #[test]
    fn every_option_and_representation_is_documented() {
        for source in sources() {
            assert!(!source.doc.is_empty() && !source.get.is_empty() && !source.representations.is_empty());
            assert!(source.options.is_sorted_by_key(|option| option.name), "{}", source.name);
            assert!(source.options.iter().all(|option| !option.doc.is_empty()));
        }
    }
}
