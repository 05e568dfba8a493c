//! Recordings of strangers: what they name, promise and hold is checked before anything uses it.

use std::{collections::BTreeMap, fs, path::Path};

use crate::common::{self, EXPERIMENT, Place};
use polars::prelude::*;
use sha2::{Digest, Sha256};

/// A place with a recording `out` of a moment, and a folder `victim` beside it.
fn place() -> Place {
    let place = Place::new();
    place.write("a.toml", &EXPERIMENT.replace("[1, 2, 3]", "[1]")).write("victim/precious", "");
    place.run("run a.toml --profile smoke --no-report --out out").code(0);
    place
}

/// Changes a table, and takes the checksums out of the manifest, as a stranger would.
fn forge(place: &Place, table: &str, change: impl FnOnce(&mut DataFrame)) {
    forge_packed(place, table, ParquetCompression::Snappy, change);
}

fn forge_packed(place: &Place, table: &str, codec: ParquetCompression, change: impl FnOnce(&mut DataFrame)) {
    let path = place.path(&format!("out/{table}.parquet"));
    let mut frame = ParquetReader::new(fs::File::open(&path).unwrap()).finish().unwrap();
    change(&mut frame);
    let writer = ParquetWriter::new(fs::File::create(&path).unwrap());
    writer.with_compression(codec).finish(&mut frame).unwrap();
    manifest(place, |manifest| drop(manifest.remove("tables")));
}

/// Replaces every value of a column.
fn all<T>(column: &str, value: T) -> impl FnOnce(&mut DataFrame)
where
    Series: NamedFrom<Vec<T>, [T]>,
    T: Clone,
{
    let column = column.to_string();
    move |frame| {
        let series = Series::new(column.as_str().into(), vec![value; frame.height()]);
        frame.replace(&column, series.into_column()).unwrap();
    }
}

fn manifest(place: &Place, change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) {
    let path = place.path("out/manifest.json");
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(value.as_object_mut().unwrap());
    fs::write(&path, value.to_string()).unwrap();
}

/// Every command that reads a recording refuses this one with a line that says so, quickly and without a trace of a stack.
#[track_caller]
fn refused(place: &Place, says: &[&str]) {
    for command in ["report --recording out --out reports", "claims --recording out", "compare out out", "check out"] {
        let begin = std::time::Instant::now();
        let output = place.run(command);
        assert!(begin.elapsed().as_secs() < 20, "{command} took {:?}", begin.elapsed());
        let said = format!("{}{}", output.stdout, output.stderr);
        let code = if command.starts_with("check") && !said.contains("manifest.json is damaged") { 1 } else { 2 };
        assert_eq!(output.code, Some(code), "{command}: {said}");
        // `check` says of queries and datasets what is wrong, and names no file.
        let says = says.iter().filter(|text| **text != "is damaged" || !command.starts_with("check"));
        says.for_each(|text| assert!(said.contains(text), "{command}: `{text}` is not in {said}"));
        assert!(said.len() < 6_000, "{command} says {} bytes", said.len());
        assert!(!said.contains("panicked") && !said.contains("stack backtrace"), "{command}: {said}");
    }
}

#[test]
fn an_identity_that_is_a_path_deletes_nothing() {
    for absolute in [false, true] {
        let place = place();
        let victim = if absolute { place.path("victim").display().to_string() } else { "../../victim".into() };
        forge(&place, "trials", all("id", victim));
        // A seal sweeps the checkpoints of what is recorded.
        fs::create_dir_all(place.path("out/checkpoints/0000000000000000")).unwrap();
        place
            .run("run a.toml --profile smoke --no-report --out out")
            .code(2)
            .says(&["trials.parquet is damaged", "identity"]);
        refused(&place, &["trials.parquet is damaged", "identity of 16 hexadecimal digits"]);
        assert!(place.path("victim/precious").exists());
    }
}

#[test]
fn an_identity_in_the_journal_that_is_a_path_deletes_nothing() {
    for absolute in [false, true] {
        let place = place();
        let victim = if absolute { place.path("victim").display().to_string() } else { "../../victim".into() };
        let trial = &place.recording("out").trials[0];
        let body = toml::to_string(trial).unwrap().replace(trial.id.as_str(), &victim);
        let digest: String = Sha256::digest(body.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        place.write("out/journal/0.toml", &format!("# xmbench trial, sha256 {digest}\n{body}"));
        fs::create_dir_all(place.path("out/checkpoints/0000000000000000")).unwrap();
        place.run("run a.toml --profile smoke --no-report --out out").code(2).says(&["0.toml is damaged", "identity"]);
        refused(&place, &["0.toml is damaged", "identity of 16 hexadecimal digits"]);
        assert!(place.path("victim/precious").exists());
    }
}

#[cfg(unix)]
#[test]
fn a_link_in_a_recording_is_not_followed_where_something_is_written() {
    for part in ["best", "checkpoints", "matchers", "journal"] {
        let place = place();
        let _ = fs::remove_dir_all(place.path(&format!("out/{part}")));
        std::os::unix::fs::symlink(place.path("victim"), place.path(&format!("out/{part}"))).unwrap();
        place.run("run a.toml --profile smoke --no-report --out out").code(2).says(&[part, "link"]);
        assert!(place.path("victim/precious").exists());
    }
    let place = place();
    place.write("victim/precious", "mine");
    fs::remove_file(place.path("out/.lock")).unwrap();
    std::os::unix::fs::symlink(place.path("victim/precious"), place.path("out/.lock")).unwrap();
    place.run("run a.toml --profile smoke --no-report --out out").code(2).says(&[".lock", "link"]);
    assert_eq!(fs::read_to_string(place.path("victim/precious")).unwrap(), "mine");
}

#[test]
fn values_that_cannot_be_are_refused_quickly() {
    type Change = Box<dyn Fn(&mut DataFrame)>;
    let cases: [(&str, Change, &str); 9] = [
        ("queries", Box::new(|frame| all("own", u32::MAX)(frame)), "own items among the"),
        ("queries", Box::new(|frame| all("better", u32::MAX)(frame)), "a gallery of at most"),
        ("queries", Box::new(|frame| all("tied", 1_000_000u32)(frame)), "ranks at most 100 items"),
        ("queries", Box::new(|frame| all("query", u32::MAX)(frame)), "a query below 100"),
        ("metrics", Box::new(|frame| all("value", f64::MAX)(frame)), "within 0 to 100"),
        ("metrics", Box::new(|frame| all("metric", "x".repeat(5_000_000))(frame)), "of at most 1000 characters"),
        ("trials", Box::new(|frame| all("label", "a\u{1b}[2J".to_string())(frame)), "without control characters"),
        ("trials", Box::new(|frame| all("seed", u64::MAX)(frame)), "a seed up to"),
        ("timings", Box::new(|frame| all("seconds", f64::INFINITY)(frame)), "a finite number from 0 on"),
    ];
    for (table, change, says) in cases {
        let place = place();
        forge(&place, table, change);
        refused(&place, &["is damaged", says]);
    }
}

#[test]
fn an_epoch_that_cannot_be_is_refused_quickly() {
    let place = Place::new();
    let text = common::TRAINING.replace("epochs = 100", "epochs = 3");
    place.write("a.toml", &text.replace("seeds = [1]", "seeds = [1]\nplots = [\"training\"]"));
    place.run("run a.toml --profile smoke --no-report --out out").code(0);
    forge(&place, "history", all("epoch", u64::MAX));
    refused(&place, &["is damaged", "epoch 1 in this place of the history", "18446744073709551615"]);
}

#[test]
fn a_title_of_megabytes_is_refused_quickly() {
    let place = place();
    manifest(&place, |manifest| manifest["experiments"]["a"]["title"] = "long ".repeat(1_000_000).into());
    refused(&place, &["manifest.json is damaged", "a title of at most 1000 characters"]);
}

#[test]
fn a_table_that_promises_more_rows_than_its_bytes_hold_is_refused() {
    let place = place();
    // Snappy would not pack them so small.
    forge_packed(&place, "queries", ParquetCompression::Zstd(None), |frame| {
        let mut columns: BTreeMap<PlSmallStr, Column> = BTreeMap::new();
        for column in frame.columns() {
            columns.insert(column.name().clone(), column.new_from_index(0, 20_000_000));
        }
        *frame = DataFrame::new_infer_height(columns.into_values().collect()).unwrap();
    });
    assert!(fs::metadata(place.path("out/queries.parquet")).unwrap().len() < 1 << 20);
    refused(&place, &["queries.parquet is damaged", "rows in"]);
}

#[test]
fn a_flipped_bit_in_a_sealed_table_is_found() {
    let place = place();
    assert!(place.run("check out").code(0).stdout.contains("everything holds"));
    for table in ["metrics", "queries", "timings", "history", "curves", "trials"] {
        let path = place.path(&format!("out/{table}.parquet"));
        let whole = fs::read(&path).unwrap();
        for at in [4, whole.len() / 3, whole.len() / 2, whole.len() - 12] {
            let mut flipped = whole.clone();
            flipped[at] ^= 4;
            fs::write(&path, flipped).unwrap();
            let error = xmbench::record::store::read(&place.path("out")).unwrap_err().to_string();
            let named = format!("{table}.parquet is damaged: expected the SHA-256 of the manifest");
            assert!(error.contains(&named), "{error}");
        }
        let said = place.run("check out").code(1).stdout;
        assert!(said.contains(&format!("WRONG  table {table}")), "{said}");
        place.run("report --recording out --out reports").code(2);
        place.run("run a.toml --profile smoke --no-report --out out").code(2);
        fs::write(&path, whole).unwrap();
    }
    place.run("check out").code(0);
}

#[test]
fn a_number_that_its_queries_do_not_give_is_found() {
    let place = place();
    forge(&place, "metrics", all("value", 50.0));
    let said = place.run("check out").code(1).stdout;
    assert!(said.contains("WRONG  metrics: ") && said.contains("is recorded as 50, and its queries give"), "{said}");
}

#[cfg(unix)]
#[test]
fn a_part_that_is_no_file_is_not_waited_for() {
    for part in ["trials.parquet", "queries.parquet", "manifest.json", "journal/0.toml"] {
        let place = place();
        let path = place.path(&format!("out/{part}"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&path);
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let error = xmbench::record::store::read(&place.path("out")).unwrap_err().to_string();
        assert!(
            error.contains(part) && error.contains("expected a file, found a folder, a pipe or a device"),
            "{error}"
        );
    }
}

#[test]
fn a_long_line_of_an_experiment_is_shown_in_part() {
    let place = Place::new();
    for deep in ["[".repeat(50_000), format!("x = \"{}\" y", "x".repeat(50_000)), format!("{} = 1", "x".repeat(50_000))]
    {
        place.write("a.toml", &format!("{deep}\n{EXPERIMENT}"));
        let error = place.run("run a.toml").code(2).stderr;
        assert!(error.contains("a.toml, line 1: ") && error.len() < 2_500, "{} bytes: {:.3000}", error.len(), error);
    }
}

#[test]
fn an_experiment_reads_nothing_outside_the_data_folder() {
    let place = Place::new();
    place.write("data/inside", "").write("outside/test_caps.txt", "a caption\n");
    let outside = place.path("outside").display().to_string();
    for path in ["../outside", outside.as_str()] {
        let entry = format!("name = \"precomp\"\npath = \"{path}\"");
        place.write("a.toml", &EXPERIMENT.replace("name = \"planted-linear\"", &entry));
        let output = place.run("run a.toml --data-dir data --no-report --out out").code(2);
        output.says(&["expected a path within the data folder", path]);
    }
    assert!(Path::new(&outside).exists());
}
