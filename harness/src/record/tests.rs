use std::{collections::BTreeMap, fs, path::Path};

use polars::prelude::{ParquetCompression, ParquetReader, ParquetWriter, SerReader};

use xmbench_methods::method::Epoch;

use super::{journal::Journal, store, *};
use crate::protocol::{Direction, Task, Ties};

fn protocol() -> Protocol {
    Protocol {
        task: Task::Pairs { cutoffs: vec![1, 5, 10], folds: 1 },
        split: xmbench_datasets::Split::Test,
        select_on: xmbench_datasets::Split::Val,
        ties: Ties::Expected,
    }
}

/// A trial in which every kind of value is hard to keep: NaN, infinity, an empty list, a third, an absent cell.
fn trial(label: &str, seed: u64) -> Trial {
    let query = Query {
        direction: Direction::I2t,
        query: 0,
        cluster: 7,
        better: 3,
        tied: 2,
        own: 1,
        average_precision: f64::NAN,
    };
    Trial {
        id: Id::of(&format!("id-{label}-{seed}")),
        experiment: "01-example".into(),
        position: 2,
        label: label.into(),
        method: "cca".into(),
        control: Control::Shuffled,
        dataset: "emoji".into(),
        checksum: "abc".into(),
        params: serde_json::json!({"components": 7, "list": [1, 2], "name": "a\"b\n", "ridge": 0.1}),
        swept: BTreeMap::from([("components".into(), "7".into())]),
        selected: BTreeMap::from([("ridge".into(), "0.1".into())]),
        remark: "negatives as the released code counts them".into(),
        seed,
        protocol: protocol(),
        device: "cpu".into(),
        outcome: Outcome::Done,
        metrics: BTreeMap::from([("i2t R@1".into(), 1.0 / 3.0), ("t2i R@1".into(), 100.0)]),
        envelope: BTreeMap::from([("i2t R@1".into(), [0.1 + 0.2, 0.7]), ("alone".into(), [0.0, 1.0])]),
        curves: BTreeMap::from([("a".into(), vec![[0.0, 1e-300], [1.0, 2.0]]), ("empty".into(), vec![])]),
        history: vec![
            Epoch { epoch: 1, loss: f64::INFINITY, learning_rate: 2e-4, validation: None, seconds: 0.5, pairs: 10 },
            Epoch { epoch: 2, loss: 0.1, learning_rate: 2e-4, validation: Some(33.3), seconds: 0.25, pairs: 10 },
        ],
        timings: vec![
            Timing { phase: "fit".into(), items: 10, seconds: vec![0.1] },
            Timing { phase: "index".into(), items: 3, seconds: vec![] },
            Timing { phase: "query single".into(), items: 1, seconds: vec![1e-6, 3e-6, 2e-6] },
        ],
        peak_memory: 1 << 40,
        bytes_per_item: [4.0, 4.5],
        queries: vec![query, Query { direction: Direction::T2i, average_precision: 0.25, ..query }],
        values: BTreeMap::from([("i2t MAP@50".into(), vec![1.0 / 3.0]), ("t2i P@5".into(), vec![0.5])]),
        unified: true,
        origin: (seed == 1).then(|| Origin { time: "2026-01-31T12:00:00Z".into(), threads: 2, ..Origin::default() }),
        kept: None,
    }
}

/// Equal, with NaN equal to NaN.
fn same(a: &Trial, b: &Trial) {
    assert_eq!(format!("{a:?}"), format!("{b:?}"));
}

fn manifest() -> Manifest {
    Manifest {
        profile: "smoke".into(),
        version: "0.1.0".into(),
        started: "2026-01-31T12:00:00Z".into(),
        ..Manifest::default()
    }
}

#[test]
fn everything_comes_back_from_journal_and_tables() {
    let folder = tempfile::tempdir().unwrap();
    let mut failed = trial("b", 1);
    failed.outcome = Outcome::Failed { reason: "loss is NaN at step 3".into() };
    (failed.metrics, failed.queries, failed.timings, failed.values) = Default::default();
    let wanted = [trial("a", 1), trial("a", 10), failed];
    let mut store = Store::open(folder.path(), manifest()).unwrap();
    for trial in wanted.iter().rev() {
        store.add(trial.clone()).unwrap();
    }
    let before = store::read(folder.path()).unwrap();
    store.seal().unwrap();
    assert!(!folder.path().join("journal").exists());
    let after = store::read(folder.path()).unwrap();
    for recording in [before, after, store.recording()] {
        assert_eq!(recording.trials.len(), 3);
        recording.trials.iter().zip(&wanted).for_each(|(found, wanted)| same(found, wanted));
        assert_eq!(recording.manifest.profile, "smoke");
    }
}

#[test]
fn training_that_ended_at_its_best_epoch_was_cut_short() {
    let epoch = |(at, validation): (usize, &Option<f64>)| Epoch {
        epoch: at + 1,
        loss: 1.0,
        learning_rate: 0.1,
        validation: *validation,
        seconds: 1.0,
        pairs: 8,
    };
    let of = |scores: &[Option<f64>]| {
        Trial { history: scores.iter().enumerate().map(epoch).collect(), ..trial("a", 1) }.cut_short()
    };
    assert!(of(&[Some(1.0), None, Some(2.0)]));
    assert!(!of(&[Some(1.0), Some(2.0), Some(2.0)]));
    assert!(!of(&[Some(2.0), Some(1.0)]));
    assert!(!of(&[None, None]) && !of(&[]));
}

#[test]
fn sealing_twice_writes_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path(), manifest()).unwrap();
    store.add(trial("a", 1)).unwrap();
    store.seal().unwrap();
    let bytes = || tables::paths(folder.path()).iter().map(|path| fs::read(path).unwrap()).collect::<Vec<_>>();
    let first = bytes();
    drop(store);
    Store::open(folder.path(), manifest()).unwrap().seal().unwrap();
    assert_eq!(first, bytes());
}

#[test]
fn tables_and_journals_of_earlier_versions_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut old = trial("a", 1);
    (old.selected, old.remark, old.values, old.unified) = Default::default();
    old.history.iter_mut().for_each(|epoch| epoch.pairs = 0);
    let mut store = Store::open(folder.path(), manifest()).unwrap();
    store.add(old.clone()).unwrap();

    let path = fs::read_dir(folder.path().join("journal")).unwrap().next().unwrap().unwrap().path();
    let text = fs::read_to_string(&path).unwrap();
    let (_, body) = text.split_once('\n').unwrap();
    let body = body.replace("remark = \"\"\n", "").replace("[selected]\n", "").replace("pairs = 0\n", "");
    let body = body.replace("[values]\n", "").replace("unified = false\n", "");
    assert!(
        !body.contains("values")
            && !body.contains("unified")
            && !body.contains("remark")
            && !body.contains("selected")
            && !body.contains("pairs = ")
    );
    fs::write(&path, format!("# xmbench trial, sha256 {}\n{body}", digest(&body))).unwrap();
    same(&store::read(folder.path()).unwrap().trials[0], &old);

    store.seal().unwrap();
    for (table, columns) in [("trials", &["remark", "selected", "unified"][..]), ("history", &["pairs"])] {
        let path = folder.path().join(table).with_extension("parquet");
        let mut frame = ParquetReader::new(fs::File::open(&path).unwrap()).finish().unwrap();
        columns.iter().for_each(|column| drop(frame.drop_in_place(column).unwrap()));
        let writer = ParquetWriter::new(fs::File::create(&path).unwrap());
        writer.with_compression(ParquetCompression::Snappy).finish(&mut frame).unwrap();
    }
    // They had no checksums either.
    drop(store);
    let path = folder.path().join("manifest.json");
    let mut manifest: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest.as_object_mut().unwrap().remove("tables").unwrap();
    fs::write(&path, manifest.to_string()).unwrap();
    same(&store::read(folder.path()).unwrap().trials[0], &old);
}

#[test]
fn an_empty_recording_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    Store::open(folder.path(), manifest()).unwrap().seal().unwrap();
    assert!(store::read(folder.path()).unwrap().trials.is_empty());
}

#[test]
fn a_seal_that_is_cut_off_after_any_step_loses_nothing() {
    let (old, mut new) = (trial("a", 1), trial("a", 1));
    new.metrics.insert("i2t R@1".into(), 99.0);
    new.id = Id::of("another");
    new.queries.pop();
    for first in [true, false] {
        let sealed = tempfile::tempdir().unwrap();
        let cut = tempfile::tempdir().unwrap();
        for folder in [&sealed, &cut] {
            let mut store = Store::open(folder.path(), manifest()).unwrap();
            if !first {
                store.add(old.clone()).unwrap();
                store.seal().unwrap();
            }
            store.add(new.clone()).unwrap();
        }
        let known = |folder: &Path| store::read_manifest(folder).unwrap().tables;
        let before = known(cut.path());
        Store::open(sealed.path(), manifest()).unwrap().seal().unwrap();
        let after = known(sealed.path());
        // As a seal does: the manifest knows both tables, then they are replaced, then it knows the new ones alone.
        let write = |tables: tables::Checksums| {
            let manifest = Manifest { tables, ..store::read_manifest(cut.path()).unwrap() };
            fs::write(cut.path().join("manifest.json"), serde_json::to_string(&manifest).unwrap()).unwrap();
            same(&store::read(cut.path()).unwrap().trials[0], &new);
        };
        let of = |name: &String| before.get(name).map_or("none".to_string(), |known| known[0].clone());
        write(after.iter().map(|(name, new)| (name.clone(), vec![of(name), new[0].clone()])).collect());
        for name in tables::paths(Path::new("")) {
            fs::copy(sealed.path().join(&name), cut.path().join(&name)).unwrap();
            same(&store::read(cut.path()).unwrap().trials[0], &new);
        }
        write(after);
        Journal::of(cut.path()).remove().unwrap();
        same(&store::read(cut.path()).unwrap().trials[0], &store::read(sealed.path()).unwrap().trials[0]);
    }
}

#[test]
fn a_second_run_is_told_who_holds_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), manifest()).unwrap();
    let error = Store::open(folder.path(), manifest()).err().unwrap().to_string();
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    drop(store);
    Store::open(folder.path(), manifest()).unwrap();
}

#[test]
fn another_profile_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(Store::open(folder.path(), manifest()).unwrap());
    let error =
        Store::open(folder.path(), Manifest { profile: "full".into(), ..manifest() }).err().unwrap().to_string();
    assert!(error.contains("profile `smoke`, this run has `full`"), "{error}");
}

#[test]
fn another_format_is_refused_whatever_else_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("manifest.json"), r#"{"format": 2, "version": "9.0.0", "shape": "unknown"}"#).unwrap();
    let error = store::read(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("format 2") && error.contains("reads format 1") && error.contains("xmbench 9.0.0"),
        "{error}"
    );
}

#[test]
fn every_truncation_of_a_journal_file_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    Journal::of(folder.path()).add(&trial("a", 1)).unwrap();
    let path = fs::read_dir(folder.path().join("journal")).unwrap().next().unwrap().unwrap().path();
    let whole = fs::read(&path).unwrap();
    for length in (0..whole.len()).step_by(7) {
        fs::write(&path, &whole[..length]).unwrap();
        let error = Journal::of(folder.path()).read().unwrap_err().to_string();
        assert!(error.contains(".toml is damaged") && error.contains("delete this file"), "{error}");
    }
}

#[test]
fn every_truncation_of_a_table_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path(), manifest()).unwrap();
    store.add(trial("a", 1)).unwrap();
    store.seal().unwrap();
    for path in tables::paths(folder.path()) {
        let whole = fs::read(&path).unwrap();
        for length in (0..whole.len()).step_by(97) {
            fs::write(&path, &whole[..length]).unwrap();
            let error = store::read(folder.path()).unwrap_err().to_string();
            assert!(error.contains(&format!("{} is damaged", path.display())), "{error}");
        }
        fs::remove_file(&path).unwrap();
        if !path.ends_with("trials.parquet") {
            assert!(store::read(folder.path()).unwrap_err().to_string().starts_with("cannot read "));
        }
        fs::write(&path, whole).unwrap();
    }
}

#[test]
fn a_folder_that_is_a_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("taken");
    fs::write(&path, "").unwrap();
    let error = Store::open(&path, manifest()).err().unwrap().to_string();
    assert!(error.starts_with("cannot create ") && error.contains("taken"), "{error}");
}

#[test]
fn clearing_removes_the_recording_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path(), manifest()).unwrap();
    store.add(trial("a", 1)).unwrap();
    store.seal().unwrap();
    store.add(trial("b", 1)).unwrap();
    drop(store);
    fs::write(folder.path().join("notes.md"), "mine").unwrap();
    Store::clear(folder.path()).unwrap();
    assert!(!folder.path().join("manifest.json").exists() && folder.path().join("notes.md").exists());
    assert!(Store::open(folder.path(), manifest()).unwrap().recording().trials.is_empty());
}
