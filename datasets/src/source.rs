use std::path::Path;

use crate::{
    Dataset, Error, OptionSpec, Result, clipart, emoji, halves, labelled, mfeat, options, options::Options, planted,
    precomp, wiki, words,
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
        clipart::SOURCE,
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
    let options = Options::new(source.options, options)?;
    let dataset = (source.load)(&options, root)?;
    match source.options.iter().any(|option| option.name == words::OPTION) {
        true => words::attach(dataset, &options, root),
        false => Ok(dataset),
    }
    .map(Dataset::marked)
}

/// Where option `path` leads: under the data folder, which an experiment of somebody else must not leave; to an absolute path where no
/// data folder is named, because then it is the one thing that says where to read.
pub(crate) fn located(options: &Options, root: Option<&Path>, get: &str) -> Result<std::path::PathBuf> {
    within("path", options.text("path", &[])?, root, get)
}

/// As [`located`], for what option `key` says.
pub(crate) fn within(key: &str, path: &str, root: Option<&Path>, get: &str) -> Result<std::path::PathBuf> {
    use std::path::Component;
    let path = Path::new(path);
    let stays = || path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    match root {
        Some(root) if stays() => Ok(root.join(path)),
        Some(_) => {
            let next = "move or link the files there, or name the folder itself as the data folder";
            Err(Error::option(key, "a path within the data folder", format!("`{}`", path.display()), next))
        }
        None if path.is_absolute() => Ok(path.to_owned()),
        None => {
            let next = format!("pass --data-dir DIR or set XMBENCH_DATA; {get}");
            Err(Error::option("data folder", "a folder with the dataset's files", "none", next))
        }
    }
}

/// The folder of a source: option `path` under the data folder.
pub(crate) fn folder(options: &Options, root: Option<&Path>, get: &str) -> Result<std::path::PathBuf> {
    let folder = located(options, root, get)?;
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
        insta::assert_snapshot!(error, @"dataset: expected one of emoji, clipart, precomp, wiki, mnist-halves, mfeat, features, mirflickr25k, nuswide10, nuswide21, coco, planted-linear, planted-fragments, planted-clusters, planted-sequences, found `emojis`; did you mean `emoji`?");
        let error = open("emoji", &toml::toml! { label = "group" }, None).unwrap_err().to_string();
        insta::assert_snapshot!(error, @"option: expected one of features, labels, min_count, seed, split, word_vectors, found `label`; did you mean `labels`?");
    }

    #[test]
    fn a_path_stays_in_the_data_folder() {
        let place = tempfile::tempdir().unwrap();
        let (root, outside) = (place.path().join("data"), place.path().join("outside"));
        std::fs::create_dir_all(&root).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        let absolute = outside.display().to_string();
        for source in ["precomp", "features", "wiki"] {
            for path in ["../outside", "a/../../outside", absolute.as_str()] {
                let options = toml::Table::from_iter([("path".to_string(), path.into())]);
                let error = open(source, &options, Some(&root)).unwrap_err().to_string();
                let wanted = format!("path: expected a path within the data folder, found `{path}`");
                assert!(error.starts_with(&wanted), "{source}: {error}");
            }
            // Without a data folder an absolute path says where to read.
            let options = toml::Table::from_iter([("path".to_string(), absolute.as_str().into())]);
            assert!(!open(source, &options, None).unwrap_err().to_string().contains("data folder"));
        }
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
