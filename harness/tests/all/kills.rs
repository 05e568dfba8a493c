//! 200 kills during training, sealing and reporting: nothing that was finished is lost.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::common::{Place, numbers};
use xmbench::record::{Manifest, Recording, Store};
use xmbench_datasets::random::Seed;

/// Trained and closed-form rows, some made of others, of seconds in all.
const SMALL: &str = r#"
title = "Small"
analysis = "One of each."
seeds = [1, 2]
columns = ["i2t R@1", "t2i R@1", "rsum"]
plots = ["recall", "training"]
protocol = { task = { kind = "pairs" } }
datasets = [{ name = "planted-fragments", train = 120, val = 30, test = 40 }]

[[methods]]
method = "cca"
components = [2, 4, 8]
shuffled = true

[[methods]]
method = "vse"
embedding = 32
word = 16
epochs = 6
batch = 32

[[methods]]
method = "scan"
embedding = 32
word = 16
epochs = 2
batch = 32

[[ensembles]]
label = "both"
of = ["VSE++", "SCAN"]
"#;

/// Kills of runs that fit and record, and as many of runs that find everything in the journal: they seal and report.
const KILLS: usize = 100;

/// Trials by key that a reader of the folder finds now.
fn found(place: &Place) -> BTreeMap<String, String> {
    if !place.path("out/manifest.json").exists() {
        return BTreeMap::new();
    }
    by_key(&place.recording("out"))
}

fn by_key(recording: &Recording) -> BTreeMap<String, String> {
    recording.trials.iter().map(|trial| (trial.key(), numbers(trial))).collect()
}

/// Puts every trial into the journal of a new folder.
fn unsealed(place: &Place, whole: &Recording) {
    let manifest = Manifest { tables: BTreeMap::new(), ..whole.manifest.clone() };
    let mut store = Store::open(&place.path("out"), manifest).unwrap();
    whole.trials.iter().for_each(|trial| store.add(trial.clone()).unwrap());
}

#[test]
#[ignore = "minutes: 200 runs that are killed"]
fn two_hundred_kills_lose_nothing_that_was_finished() {
    let place = Place::new();
    place.write("a.toml", SMALL);
    let command = |out: &str| format!("run a.toml --profile smoke --out {out} --reports {out}-reports");
    place.run(&command("whole")).code(0);
    let recording = place.recording("whole");
    let whole = by_key(&recording);
    let clear = || {
        for folder in ["out", "out-reports"] {
            let _ = std::fs::remove_dir_all(place.path(folder));
        }
    };

    let mut stream = Seed(1).stream(&["kills"]);
    for sealing in [false, true] {
        clear();
        let (mut kept, mut kills, mut ends) = (BTreeMap::new(), 0, 0);
        // What a kill left: no sealed tables, a seal that was cut off, sealed tables, a page.
        let mut left = [0; 4];
        while kills < KILLS {
            // Every other time behind a seal, which the next run would only repeat.
            let sealed = place.path("out/trials.parquet").exists() && !place.path("out/journal").exists();
            if sealing && (kept.is_empty() || sealed && stream.unit() < 0.5) {
                clear();
                unsealed(&place, &recording);
                kept = whole.clone();
            }
            // Windows from 1 ms to 2 s, each length of time as likely as ten times as much.
            let window = Duration::from_secs_f64(1e-3 * 2000f64.powf(stream.unit()));
            let begin = Instant::now();
            let mut child = place.start(&command("out"));
            while begin.elapsed() < window {
                std::thread::sleep(Duration::from_millis(1));
            }
            match child.try_wait().unwrap() {
                Some(_) => ends += 1,
                None => {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    kills += 1;
                }
            }
            let now = found(&place);
            for (key, numbers) in &kept {
                assert_eq!(now.get(key), Some(numbers), "kill {kills}, after {window:?}");
            }
            for (key, numbers) in &now {
                assert_eq!(whole.get(key), Some(numbers), "kill {kills}, after {window:?}");
            }
            // A page is there only if it is whole.
            let page = std::fs::read_to_string(place.path("out-reports/index.html")).ok();
            assert!(page.as_ref().is_none_or(|page| page.ends_with("</html>\n")));
            let tables = place.path("out/trials.parquet").exists();
            left[match (page.is_some(), tables, place.path("out/journal").exists()) {
                (true, ..) => 3,
                (_, true, false) => 2,
                (_, true, true) => 1,
                _ => usize::from(place.path("out/metrics.parquet").exists()),
            }] += 1;
            kept = now;
            // Done, or a few kills after that: begin anew, so that all of its life is hit.
            if !sealing && kept.len() == whole.len() && stream.unit() < 0.5 {
                clear();
                kept.clear();
            }
        }
        let [open, cut, sealed, paged] = left;
        println!(
            "{kills} kills, {ends} ended before; left: {open} without tables, {cut} with a seal cut off, {sealed} sealed, {paged} with a page"
        );
        place.run(&command("out")).code(0);
        assert_eq!(found(&place), whole);
    }
}
