//! A recording folder: `manifest.json`, Parquet tables, what stands first for each query, fitted matchers, and while a run is under
//! way a journal and checkpoints.
//!
//! A finished trial is in the journal before another one begins; sealing merges the journal into the tables. Reading takes
//! both, the journal's word over the tables', so that a process that is killed at any moment loses only the trials in flight.
//!
//! The manifest has the SHA-256 of every table. While a seal replaces them one by one it has two of each, of the old one and of the
//! new one: at every moment each table is one that the manifest knows.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::{
    Error, Id, Manifest, Recording, Result, Trial, files,
    journal::{JOURNAL, Journal},
    kept,
    lock::Lock,
    running::Running,
    tables,
};
use crate::{
    output::{plain, short},
    protocol::Found,
};

/// The layout that this program writes and reads.
pub const FORMAT: u32 = 1;

/// The folder of fitted matchers.
const MATCHERS: &str = "matchers";
/// The folder of checkpoints.
const CHECKPOINTS: &str = "checkpoints";
/// Bytes of the longest manifest.
const LONGEST: u64 = 256 << 20;

/// A recording folder that is open for writing.
pub struct Store {
    folder: PathBuf,
    manifest: Manifest,
    trials: BTreeMap<String, Trial>,
    /// The trials that the last run did not end.
    left: Option<Running>,
    /// Those of this run that have begun and not ended.
    under_way: Vec<Id>,
    lock: Lock,
}

impl Store {
    /// Opens the folder, or makes it, for one run.
    ///
    /// # Errors
    /// If another run holds it, it cannot be written, it is damaged, or it holds a recording of another profile.
    pub fn open(folder: &Path, manifest: Manifest) -> Result<Self> {
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let lock = Lock::take(folder)?;
        files::sweep(folder)?;
        [CHECKPOINTS, MATCHERS, JOURNAL, kept::FOLDER]
            .into_iter()
            .try_for_each(|part| files::no_link(&folder.join(part)))?;
        let mut manifest = Manifest { format: FORMAT, ..manifest };
        if manifest_path(folder).exists() {
            let found = read_manifest(folder)?;
            if found.profile != manifest.profile {
                return Err(Error::Mismatch {
                    path: folder.into(),
                    what: "profile",
                    found: found.profile,
                    wanted: manifest.profile,
                });
            }
            // The newest circumstances hold; what earlier runs added to the recording stays.
            manifest.started = found.started;
            let (experiments, datasets) = (manifest.experiments, manifest.datasets);
            (manifest.experiments, manifest.datasets) = (found.experiments, found.datasets);
            manifest.experiments.extend(experiments);
            manifest.datasets.extend(datasets);
            manifest.left_out = found.left_out;
            manifest.tables = found.tables;
        }
        let trials = trials(folder, &manifest)?;
        let store = Self {
            folder: folder.into(),
            manifest,
            trials,
            left: Running::left_in(folder),
            under_way: Vec::new(),
            lock,
        };
        store.write_manifest()?;
        Ok(store)
    }

    /// Removes the recording in `folder`, if there is one; other files stay.
    ///
    /// # Errors
    /// If another run holds the folder, or a file cannot be removed.
    pub fn clear(folder: &Path) -> Result<()> {
        if !folder.is_dir() {
            return Ok(());
        }
        let _lock = Lock::take(folder)?;
        files::sweep(folder)?;
        Running::are(folder, &[])?;
        Journal::of(folder).remove()?;
        for kept in [CHECKPOINTS, MATCHERS, kept::FOLDER].map(|name| folder.join(name)) {
            files::no_link(&kept)?;
            if kept.is_dir() {
                fs::remove_dir_all(&kept).map_err(Error::io("remove", &kept))?;
            }
        }
        for path in tables::paths(folder).into_iter().chain([manifest_path(folder)]).filter(|path| path.exists()) {
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
        Ok(())
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The circumstances as they are recorded so far.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Changes the circumstances and writes them down.
    ///
    /// # Errors
    /// If the manifest cannot be written.
    pub fn note(&mut self, change: impl FnOnce(&mut Manifest)) -> Result<()> {
        change(&mut self.manifest);
        self.write_manifest()
    }

    /// The recorded trial with this key.
    pub fn get(&self, key: &str) -> Option<&Trial> {
        self.trials.get(key)
    }

    /// The recorded trials of this identity, in whatever experiments.
    pub fn of_id<'a>(&'a self, id: &'a Id) -> impl Iterator<Item = &'a Trial> {
        self.trials.values().filter(move |trial| trial.id == *id)
    }

    /// Every recorded trial of an experiment.
    pub fn of_experiment<'a>(&'a self, experiment: &'a str) -> impl Iterator<Item = &'a Trial> {
        self.trials.values().filter(move |trial| trial.experiment == experiment)
    }

    /// Whether the last run in this folder was ended for want of memory while several trials were under way. That is told once.
    pub fn had_too_many(&mut self) -> bool {
        self.left.take_if(|left| left.were_too_many()).is_some()
    }

    /// Notes that a trial begins; whether the last run in this folder was ended for want of memory while this same trial was under
    /// way alone. That is told once: the run after this one may try again.
    ///
    /// # Errors
    /// If the note cannot be written.
    pub fn begin(&mut self, id: &Id) -> Result<bool> {
        let too_large = self.left.take_if(|left| left.was_too_large(id)).is_some();
        self.under_way.push(id.clone());
        Running::are(&self.folder, &self.under_way)?;
        Ok(too_large)
    }

    /// Notes that a trial is not under way any more.
    ///
    /// # Errors
    /// If the note cannot be written.
    pub fn rest(&mut self, id: &Id) -> Result<()> {
        self.under_way.retain(|other| other != id);
        Running::are(&self.folder, &self.under_way)
    }

    /// Records a trial; it is on the disk when this returns.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add(&mut self, trial: Trial) -> Result<()> {
        Journal::of(&self.folder).add(&trial)?;
        let checkpoints = self.checkpoints(&trial.id);
        if checkpoints.is_dir() {
            fs::remove_dir_all(&checkpoints).map_err(Error::io("remove", &checkpoints))?;
        }
        let id = trial.id.clone();
        self.trials.insert(trial.key(), trial);
        self.rest(&id)
    }

    /// Where the trial of this identity keeps its checkpoints until it is recorded.
    pub fn checkpoints(&self, id: &Id) -> PathBuf {
        self.folder.join(CHECKPOINTS).join(id.as_str())
    }

    /// Where checkpoints go of a trial that is recorded and fitted once more: those of a recorded trial's own are swept away.
    pub fn checkpoints_again(&self, id: &Id) -> PathBuf {
        self.folder.join(CHECKPOINTS).join(format!("{id}-again"))
    }

    /// Where the matcher of the fitted trial of this identity is kept: until it was clocked and rows that are made of it are recorded, and for
    /// whoever asks it in words.
    pub fn matcher(&self, id: &Id) -> PathBuf {
        matcher(&self.folder, id)
    }

    /// Keeps what stands first for each query of a trial that is about to be recorded; the SHA-256 of the file, which goes into it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep(&self, id: &Id, found: &[Found]) -> Result<String> {
        kept::write(&self.folder, id, found)
    }

    /// Bytes of what stands first for each query, and of fitted matchers, as they lie in the folder.
    pub fn kept_bytes(&self) -> [u64; 2] {
        [kept::FOLDER, MATCHERS].map(|name| files::size(&self.folder.join(name)))
    }

    /// Removes the matcher of this identity, if it is kept.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub fn forget_matcher(&self, id: &Id) -> Result<()> {
        let path = self.matcher(id);
        if path.is_dir() {
            fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?;
        }
        // Goes only with the last one.
        let _ = fs::remove_dir(self.folder.join(MATCHERS));
        Ok(())
    }

    /// Removes matchers of trials that the recording does not hold any more.
    fn forget_matchers_of_none(&self) -> Result<()> {
        let folder = self.folder.join(MATCHERS);
        files::no_link(&folder)?;
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let ids: Vec<Id> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        ids.iter().filter(|id| self.of_id(id).next().is_none()).try_for_each(|id| self.forget_matcher(id))
    }

    /// Drops trials for which `stale` holds; they leave the tables at the next [`Store::seal`].
    pub fn drop_where(&mut self, stale: impl Fn(&Trial) -> bool) -> usize {
        let before = self.trials.len();
        self.trials.retain(|_, trial| !stale(trial));
        before - self.trials.len()
    }

    /// Merges the journal into the tables.
    ///
    /// # Errors
    /// If a table cannot be written; nothing is lost then. [`Error::Disappeared`] if the folder or the lock in it was removed since
    /// the store was opened: what was recorded is written again, unless another run has taken the folder.
    pub fn seal(&mut self) -> Result<()> {
        let disappeared = !self.lock.is_held();
        if disappeared {
            fs::create_dir_all(&self.folder).map_err(Error::io("create", &self.folder))?;
            self.lock = Lock::take(&self.folder).map_err(|error| Error::Disappeared {
                path: self.folder.clone(),
                kept: format!("nothing more was written: {error}"),
            })?;
        }
        let mut trials: Vec<&Trial> = self.trials.values().collect();
        trials.sort_by_cached_key(|trial| trial.order());
        let packed = tables::packed(&trials);
        let sealed = tables::checksums(&packed);
        for (name, digests) in &sealed {
            let known = self.manifest.tables.entry(name.clone()).or_default();
            if known.is_empty() {
                known.push(tables::digest(&self.folder, name)?.unwrap_or(tables::NONE.into()));
            }
            // The old table and the new one, whichever of them a kill leaves.
            known.extend(digests.iter().filter(|digest| !known.contains(digest)).cloned().collect::<Vec<_>>());
        }
        self.write_manifest()?;
        tables::write(&self.folder, &packed)?;
        self.manifest.tables = sealed;
        self.write_manifest()?;
        Journal::of(&self.folder).remove()?;
        kept::sweep(&self.folder, |id| self.trials.values().any(|trial| trial.id == *id && trial.kept.is_some()))?;
        self.forget_matchers_of_none()?;
        let checkpoints = self.folder.join(CHECKPOINTS);
        if checkpoints.is_dir() {
            files::no_link(&checkpoints)?;
            // A run that was killed between a trial's record and the removal of its checkpoints left them behind.
            for trial in self.trials.values() {
                let _ = fs::remove_dir_all(self.checkpoints(&trial.id));
            }
            // Goes only when no trial left something to resume from.
            let _ = fs::remove_dir(checkpoints);
        }
        if disappeared {
            let kept = format!("{} trials that this run knew of were written again", self.trials.len());
            return Err(Error::Disappeared { path: self.folder.clone(), kept });
        }
        Ok(())
    }

    /// What is recorded so far.
    pub fn recording(&self) -> Recording {
        let mut trials: Vec<Trial> = self.trials.values().cloned().collect();
        trials.sort_by_cached_key(|trial| trial.order());
        Recording { manifest: self.manifest.clone(), trials }
    }

    fn write_manifest(&self) -> Result<()> {
        let mut text = serde_json::to_string_pretty(&self.manifest).expect("a manifest is a tree of plain values");
        text.push('\n');
        files::replace_with(&manifest_path(&self.folder), text.as_bytes())
    }
}

/// Where a recording keeps the matcher of the fitted trial of this identity, if it does.
pub fn matcher(folder: &Path, id: &Id) -> PathBuf {
    folder.join(MATCHERS).join(id.as_str())
}

/// Reads a recording, sealed or not; every value is in its range.
///
/// # Errors
/// If the folder holds none, a file is damaged, or another version wrote it.
pub fn read(folder: &Path) -> Result<Recording> {
    let manifest = read_manifest(folder)?;
    let mut trials: Vec<Trial> = trials(folder, &manifest)?.into_values().collect();
    trials.sort_by_cached_key(|trial| trial.order());
    Ok(Recording { manifest, trials })
}

/// Every trial of tables and journal, by key.
fn trials(folder: &Path, manifest: &Manifest) -> Result<BTreeMap<String, Trial>> {
    let mut trials = tables::read(folder, &manifest.tables)?;
    trials.extend(Journal::of(folder).read()?);
    for trial in trials.values() {
        trial.check_against(manifest).map_err(|wrong| Error::Damaged {
            path: folder.into(),
            expected: wrong.expected,
            found: wrong.found,
            next: "restore the recording from a copy, or record anew into another folder with --out",
        })?;
    }
    Ok(trials)
}

fn manifest_path(folder: &Path) -> PathBuf {
    folder.join("manifest.json")
}

/// Reads the circumstances alone.
///
/// # Errors
/// As [`read`], of the manifest.
pub fn read_manifest(folder: &Path) -> Result<Manifest> {
    /// What every version of the layout has.
    #[derive(serde::Deserialize)]
    struct Any {
        format: u32,
        #[serde(default)]
        version: String,
    }
    let path = manifest_path(folder);
    let bytes = files::read(&path, LONGEST)?;
    let next = "restore the file from a copy, or record anew into another folder with --out";
    let damaged = |error: serde_json::Error| Error::Damaged {
        path: path.clone(),
        expected: "the manifest of a recording".into(),
        found: short(&plain(&error.to_string()), 300).into_owned(),
        next,
    };
    let any: Any = serde_json::from_slice(&bytes).map_err(damaged)?;
    if any.format != FORMAT {
        let version = short(&plain(&any.version), 80).into_owned();
        return Err(Error::Version { path, expected: FORMAT, found: any.format, version });
    }
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(damaged)?;
    manifest.check().map_err(|wrong| {
        let path = path.clone();
        Error::Damaged { path, expected: wrong.expected, found: wrong.found, next }
    })?;
    Ok(manifest)
}
