//! Trials as Parquet: one table a kind of row, joined by the column `key`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use polars::prelude::*;
use xmbench_methods::method::Epoch;

use super::{Control, Error, Outcome, Result, Timing, Trial, check, digest_of, files, pages};
use crate::{
    output::{plain, quoted, short},
    protocol::{Direction, Query},
};

/// Every table, in the order in which they are written: `trials` last, because rows of keys that it does not list do not count.
pub const NAMES: [&str; 6] = ["metrics", "queries", "timings", "history", "curves", "trials"];

const NEXT: &str = "restore the file from a copy, or record anew into another folder with --out";

/// Bytes of the longest table that is read.
const LONGEST: u64 = 8 << 30;

/// What stands for the SHA-256 of a table that is not there: the old one of a first seal.
pub const NONE: &str = "none";

/// SHA-256 of tables by their names: what a table may be.
pub type Checksums = BTreeMap<String, Vec<String>>;

/// Every table, packed: name and bytes, in the order in which they are to be written.
pub fn packed(trials: &[&Trial]) -> Vec<(&'static str, Vec<u8>)> {
    let frames = [metrics(trials), queries(trials), timings(trials), history(trials), curves(trials), heads(trials)];
    NAMES.into_iter().zip(frames).map(|(name, frame)| (name, packed_frame(frame))).collect()
}

/// The bytes of a table.
pub fn packed_frame(mut frame: DataFrame) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Snappy and no statistics: the tables are small, and the bytes depend on nothing but the rows.
    ParquetWriter::new(&mut bytes)
        .with_compression(ParquetCompression::Snappy)
        .finish(&mut frame)
        .expect("columns of plain values can be written to memory");
    bytes
}

/// The checksums of packed tables.
pub fn checksums(packed: &[(&'static str, Vec<u8>)]) -> Checksums {
    packed.iter().map(|(name, bytes)| (name.to_string(), vec![digest_of(bytes)])).collect()
}

/// Writes packed tables into `folder`, each replaced as a whole.
///
/// # Errors
/// If a file cannot be written. The folder then still reads as before, as long as its journal is there.
pub fn write(folder: &Path, packed: &[(&'static str, Vec<u8>)]) -> Result<()> {
    packed.iter().try_for_each(|(name, bytes)| files::replace_with(&path(folder, name), bytes))
}

fn path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.parquet"))
}

/// SHA-256 of a table as it lies in `folder`, if it does.
///
/// # Errors
/// If the file cannot be read.
pub fn digest(folder: &Path, name: &str) -> Result<Option<String>> {
    let path = path(folder, name);
    if path.exists() { Ok(Some(digest_of(&files::read(&path, LONGEST)?))) } else { Ok(None) }
}

/// The files of the tables.
pub fn paths(folder: &Path) -> Vec<PathBuf> {
    NAMES.iter().map(|name| path(folder, name)).collect()
}

/// Every trial of the tables in `folder`, by key, each value within its range; none if there are no tables yet. `promised` are the
/// checksums of the manifest, which are compared if there are any.
///
/// # Errors
/// If a table is absent or damaged.
pub fn read(folder: &Path, promised: &Checksums) -> Result<BTreeMap<String, Trial>> {
    let none = promised.get("trials").is_none_or(|known| known.iter().any(|digest| digest == NONE));
    if none && !path(folder, "trials").exists() {
        return Ok(BTreeMap::new());
    }
    let open = |name: &str| Table::open(folder, name, promised);
    let heads = open("trials")?;
    let mut trials = read_heads(&heads)?;
    read_metrics(&open("metrics")?, &mut trials)?;
    read_queries(&open("queries")?, &mut trials)?;
    read_timings(&open("timings")?, &mut trials)?;
    read_history(&open("history")?, &mut trials)?;
    read_curves(&open("curves")?, &mut trials)?;
    for trial in trials.values() {
        trial.check().map_err(|wrong| heads.damaged(&wrong.expected, wrong.found))?;
    }
    Ok(trials)
}

/// A table of these columns.
pub fn frame(columns: Vec<Column>) -> DataFrame {
    DataFrame::new_infer_height(columns).expect("columns of one table have one length and different names")
}

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("a tree of plain values")
}

fn heads(trials: &[&Trial]) -> DataFrame {
    let text = |name: &str, value: &dyn Fn(&Trial) -> String| {
        Column::new(name.into(), trials.iter().map(|trial| value(trial)).collect::<Vec<String>>())
    };
    let word = |value: serde_json::Value| value.as_str().expect("a unit variant is a word").to_string();
    frame(vec![
        text("key", &|t| t.key()),
        text("id", &|t| t.id.to_string()),
        text("experiment", &|t| t.experiment.clone()),
        Column::new("position".into(), trials.iter().map(|t| t.position as u32).collect::<Vec<_>>()),
        text("label", &|t| t.label.clone()),
        text("method", &|t| t.method.clone()),
        text("control", &|t| word(serde_json::json!(t.control))),
        text("dataset", &|t| t.dataset.clone()),
        text("checksum", &|t| t.checksum.clone()),
        text("params", &|t| json(&t.params)),
        text("swept", &|t| json(&t.swept)),
        text("selected", &|t| json(&t.selected)),
        text("remark", &|t| t.remark.clone()),
        Column::new("seed".into(), trials.iter().map(|t| t.seed).collect::<Vec<_>>()),
        text("protocol", &|t| json(&t.protocol)),
        text("device", &|t| t.device.clone()),
        Column::new(
            "failure".into(),
            trials
                .iter()
                .map(|t| match &t.outcome {
                    Outcome::Done => None,
                    Outcome::Failed { reason } => Some(reason.clone()),
                })
                .collect::<Vec<_>>(),
        ),
        Column::new("origin".into(), trials.iter().map(|t| t.origin.as_ref().map(json)).collect::<Vec<_>>()),
        Column::new("kept".into(), trials.iter().map(|t| t.kept.clone()).collect::<Vec<Option<String>>>()),
        Column::new("unified".into(), trials.iter().map(|t| t.unified).collect::<Vec<_>>()),
        Column::new("peak_memory".into(), trials.iter().map(|t| t.peak_memory).collect::<Vec<_>>()),
        Column::new("image_bytes".into(), trials.iter().map(|t| t.bytes_per_item[0]).collect::<Vec<_>>()),
        Column::new("text_bytes".into(), trials.iter().map(|t| t.bytes_per_item[1]).collect::<Vec<_>>()),
    ])
}

fn read_heads(table: &Table) -> Result<BTreeMap<String, Trial>> {
    let mut trials = BTreeMap::new();
    for row in 0..table.height() {
        let control = serde_json::Value::String(table.text("control", row)?);
        let trial = Trial {
            id: table.text("id", row)?.parse().map_err(|error: String| table.damaged("identities", error))?,
            experiment: table.name("experiment", row)?,
            position: table.small("position", row)? as usize,
            label: table.name("label", row)?,
            method: table.name("method", row)?,
            control: serde_json::from_value::<Control>(control)
                .map_err(|e| table.damaged("a control", e.to_string()))?,
            dataset: table.name("dataset", row)?,
            checksum: table.text("checksum", row)?,
            params: table.json("params", row)?,
            swept: table.json("swept", row)?,
            // Recordings of earlier versions lack these two columns.
            selected: if table.has("selected") { table.json("selected", row)? } else { BTreeMap::new() },
            remark: if table.has("remark") { table.text("remark", row)? } else { String::new() },
            seed: table.large("seed", row)?,
            protocol: table.json("protocol", row)?,
            device: table.name("device", row)?,
            outcome: match table.maybe_text("failure", row)? {
                None => Outcome::Done,
                Some(reason) => Outcome::Failed { reason },
            },
            metrics: BTreeMap::new(),
            envelope: BTreeMap::new(),
            curves: BTreeMap::new(),
            history: Vec::new(),
            timings: Vec::new(),
            peak_memory: table.large("peak_memory", row)?,
            bytes_per_item: [table.float("image_bytes", row)?, table.float("text_bytes", row)?],
            queries: Vec::new(),
            values: BTreeMap::new(),
            unified: table.has("unified") && table.flag("unified", row)?,
            origin: match table.has("origin") && table.maybe_str("origin", row)?.is_some() {
                true => Some(table.json("origin", row)?),
                false => None,
            },
            kept: if table.has("kept") { table.maybe_text("kept", row)? } else { None },
        };
        let key = trial.key();
        if let Some(twin) = trials.insert(key, trial) {
            return Err(table.damaged("one row a trial", format!("two of {}", quoted(&twin.key()))));
        }
    }
    Ok(trials)
}

fn metrics(trials: &[&Trial]) -> DataFrame {
    let (mut key, mut metric, mut value, mut low, mut high) = (vec![], vec![], vec![], vec![], vec![]);
    for trial in trials {
        // A name may stand in either map alone.
        let names: std::collections::BTreeSet<&String> = trial.metrics.keys().chain(trial.envelope.keys()).collect();
        for name in names {
            key.push(trial.key());
            metric.push(name.clone());
            value.push(trial.metrics.get(name).copied());
            low.push(trial.envelope.get(name).map(|ends| ends[0]));
            high.push(trial.envelope.get(name).map(|ends| ends[1]));
        }
    }
    frame(vec![
        Column::new("key".into(), key),
        Column::new("metric".into(), metric),
        Column::new("value".into(), value),
        Column::new("pessimistic".into(), low),
        Column::new("optimistic".into(), high),
    ])
}

fn read_metrics(table: &Table, trials: &mut BTreeMap<String, Trial>) -> Result<()> {
    for row in 0..table.height() {
        if let Some(trial) = trials.get_mut(table.str("key", row)?) {
            let metric = table.name("metric", row)?;
            if let (Some(low), Some(high)) =
                (table.maybe_float("pessimistic", row)?, table.maybe_float("optimistic", row)?)
            {
                trial.envelope.insert(metric.clone(), [low, high]);
            }
            if let Some(value) = table.maybe_float("value", row)? {
                trial.metrics.insert(metric, value);
            }
        }
    }
    Ok(())
}

fn queries(trials: &[&Trial]) -> DataFrame {
    let rows: Vec<(String, &Query)> =
        trials.iter().flat_map(|trial| trial.queries.iter().map(|query| (trial.key(), query))).collect();
    let number = |name: &str, of: fn(&Query) -> u32| {
        Column::new(name.into(), rows.iter().map(|(_, q)| of(q)).collect::<Vec<_>>())
    };
    let mut columns = vec![
        Column::new("key".into(), rows.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>()),
        Column::new("direction".into(), rows.iter().map(|(_, query)| query.direction.to_string()).collect::<Vec<_>>()),
        number("query", |q| q.query),
        number("cluster", |q| q.cluster),
        number("better", |q| q.better),
        number("tied", |q| q.tied),
        number("own", |q| q.own),
        Column::new(
            "average_precision".into(),
            rows.iter().map(|(_, query)| query.average_precision).collect::<Vec<_>>(),
        ),
    ];
    let names: BTreeSet<&str> =
        trials.iter().flat_map(|trial| trial.values.keys()).filter_map(|name| Some(name.split_once(' ')?.1)).collect();
    columns.extend(names.into_iter().map(|name| {
        let cells: Vec<Option<f64>> = trials.iter().flat_map(|trial| cells(trial, name)).collect();
        Column::new(format!("{VALUE}{name}").into(), cells)
    }));
    frame(columns)
}

/// Columns of the queries that hold what a query contributes to a metric begin so.
const VALUE: &str = "value ";

/// What each query of a trial contributes to a metric, given without its direction; empty cells where that was not kept.
fn cells(trial: &Trial, metric: &str) -> Vec<Option<f64>> {
    let of = |direction: Direction| {
        trial.values.get(&format!("{direction} {metric}")).map(|values| values.iter().copied()).into_iter().flatten()
    };
    let (mut i2t, mut t2i) = (of(Direction::I2t), of(Direction::T2i));
    let next = |query: &Query| if query.direction == Direction::I2t { i2t.next() } else { t2i.next() };
    trial.queries.iter().map(next).collect()
}

fn read_queries(table: &Table, trials: &mut BTreeMap<String, Trial>) -> Result<()> {
    let columns = table.frame.get_column_names();
    let metrics: Vec<String> =
        columns.into_iter().filter_map(|name| Some(name.strip_prefix(VALUE)?.to_string())).collect();
    for row in 0..table.height() {
        if let Some(trial) = trials.get_mut(table.str("key", row)?) {
            trial.queries.push(Query {
                direction: match table.str("direction", row)? {
                    "i2t" => Direction::I2t,
                    "t2i" => Direction::T2i,
                    other => return Err(table.damaged("direction `i2t` or `t2i`", quoted(other))),
                },
                query: table.small("query", row)?,
                cluster: table.small("cluster", row)?,
                better: table.small("better", row)?,
                tied: table.small("tied", row)?,
                own: table.small("own", row)?,
                average_precision: table.float("average_precision", row)?,
            });
            for metric in &metrics {
                if let Some(value) = table.maybe_float(&format!("{VALUE}{metric}"), row)? {
                    let name = format!("{} {metric}", table.str("direction", row)?);
                    trial.values.entry(name).or_default().push(value);
                }
            }
        }
    }
    Ok(())
}

fn timings(trials: &[&Trial]) -> DataFrame {
    let (mut key, mut order, mut phase, mut items, mut seconds) = (vec![], vec![], vec![], vec![], vec![]);
    for trial in trials {
        for (position, timing) in trial.timings.iter().enumerate() {
            // A phase without samples keeps its place by one empty cell.
            let samples: Vec<Option<f64>> =
                if timing.seconds.is_empty() { vec![None] } else { timing.seconds.iter().copied().map(Some).collect() };
            for sample in samples {
                key.push(trial.key());
                order.push(position as u32);
                phase.push(timing.phase.clone());
                items.push(timing.items as u64);
                seconds.push(sample);
            }
        }
    }
    frame(vec![
        Column::new("key".into(), key),
        Column::new("order".into(), order),
        Column::new("phase".into(), phase),
        Column::new("items".into(), items),
        Column::new("seconds".into(), seconds),
    ])
}

fn read_timings(table: &Table, trials: &mut BTreeMap<String, Trial>) -> Result<()> {
    for row in 0..table.height() {
        if let Some(trial) = trials.get_mut(table.str("key", row)?) {
            if table.small("order", row)? as usize == trial.timings.len() {
                let (phase, items) = (table.name("phase", row)?, table.large("items", row)? as usize);
                trial.timings.push(Timing { phase, items, seconds: Vec::new() });
            }
            let last = trial.timings.last_mut().ok_or_else(|| table.damaged("order from 0", "another order".into()))?;
            last.seconds.extend(table.maybe_float("seconds", row)?);
        }
    }
    Ok(())
}

fn history(trials: &[&Trial]) -> DataFrame {
    let rows: Vec<(String, &Epoch)> =
        trials.iter().flat_map(|trial| trial.history.iter().map(|epoch| (trial.key(), epoch))).collect();
    frame(vec![
        Column::new("key".into(), rows.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>()),
        Column::new("epoch".into(), rows.iter().map(|(_, epoch)| epoch.epoch as u64).collect::<Vec<_>>()),
        Column::new("loss".into(), rows.iter().map(|(_, epoch)| epoch.loss).collect::<Vec<_>>()),
        Column::new("learning_rate".into(), rows.iter().map(|(_, epoch)| epoch.learning_rate).collect::<Vec<_>>()),
        Column::new("validation".into(), rows.iter().map(|(_, epoch)| epoch.validation).collect::<Vec<_>>()),
        Column::new("seconds".into(), rows.iter().map(|(_, epoch)| epoch.seconds).collect::<Vec<_>>()),
        Column::new("pairs".into(), rows.iter().map(|(_, epoch)| epoch.pairs as u64).collect::<Vec<_>>()),
    ])
}

fn read_history(table: &Table, trials: &mut BTreeMap<String, Trial>) -> Result<()> {
    for row in 0..table.height() {
        if let Some(trial) = trials.get_mut(table.str("key", row)?) {
            trial.history.push(Epoch {
                epoch: table.large("epoch", row)? as usize,
                loss: table.float("loss", row)?,
                learning_rate: table.float("learning_rate", row)?,
                validation: table.maybe_float("validation", row)?,
                seconds: table.float("seconds", row)?,
                // Recordings of earlier versions lack this column.
                pairs: if table.has("pairs") { table.large("pairs", row)? as usize } else { 0 },
            });
        }
    }
    Ok(())
}

fn curves(trials: &[&Trial]) -> DataFrame {
    let (mut key, mut curve, mut x, mut y) = (vec![], vec![], vec![], vec![]);
    for trial in trials {
        for (name, points) in &trial.curves {
            let points: Vec<[Option<f64>; 2]> =
                if points.is_empty() { vec![[None; 2]] } else { points.iter().map(|point| point.map(Some)).collect() };
            for point in points {
                key.push(trial.key());
                curve.push(name.clone());
                x.push(point[0]);
                y.push(point[1]);
            }
        }
    }
    frame(vec![
        Column::new("key".into(), key),
        Column::new("curve".into(), curve),
        Column::new("x".into(), x),
        Column::new("y".into(), y),
    ])
}

fn read_curves(table: &Table, trials: &mut BTreeMap<String, Trial>) -> Result<()> {
    for row in 0..table.height() {
        if let Some(trial) = trials.get_mut(table.str("key", row)?) {
            let points = trial.curves.entry(table.name("curve", row)?).or_default();
            if let (Some(x), Some(y)) = (table.maybe_float("x", row)?, table.maybe_float("y", row)?) {
                points.push([x, y]);
            }
        }
    }
    Ok(())
}

/// A table that was read, and the file's name for messages.
pub struct Table {
    path: PathBuf,
    frame: DataFrame,
}

impl Table {
    fn open(folder: &Path, name: &str, promised: &Checksums) -> Result<Self> {
        let known = promised.get(name).map(Vec::as_slice).unwrap_or_default();
        Self::of(path(folder, name), name, (!promised.is_empty()).then_some(("manifest", known)))
    }

    /// The table in a file, which has one of the `promised` checksums where there are any; of whom they are, is for messages.
    ///
    /// # Errors
    /// If it is absent or damaged.
    pub fn of(path: PathBuf, name: &str, promised: Option<(&str, &[String])>) -> Result<Self> {
        let damaged =
            |expected: String, found: String| Error::Damaged { path: path.clone(), expected, found, next: NEXT };
        let table = || format!("the table `{name}` as Parquet");
        let bytes = files::read(&path, LONGEST)?;
        if let Some((whose, known)) = promised {
            let digest = digest_of(&bytes);
            if !known.contains(&digest) {
                let expected = match known.last() {
                    Some(known) => format!("the SHA-256 of the {whose}, {}", quoted(known)),
                    None => format!("a SHA-256 in the {whose}"),
                };
                return Err(damaged(expected, digest));
            }
        }
        // What the walk over the pages let through may still make the reader panic.
        let read = std::panic::catch_unwind(|| {
            let mut reader = ParquetReader::new(std::io::Cursor::new(&bytes));
            if let Err(broken) = pages::check(&bytes, reader.get_metadata()?) {
                return Ok(Err(broken));
            }
            reader.finish().map(Ok)
        });
        let read: PolarsResult<_> = read.map_err(|_| damaged(table(), "unreadable pages".into()))?;
        let read = read.map_err(|error| damaged(table(), first_line(&error)))?;
        let mut frame = read.map_err(|(expected, found)| damaged(expected, found))?;
        let height = frame.height();
        if let Some(column) = frame.columns().iter().find(|column| column.len() != height) {
            return Err(damaged(
                format!("{height} rows in column {}", quoted(column.name())),
                column.len().to_string(),
            ));
        }
        frame.rechunk_mut();
        Ok(Self { path, frame })
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.frame.height()
    }

    /// The error of a value that cannot be.
    pub fn damaged(&self, expected: &str, found: String) -> Error {
        Error::Damaged { path: self.path.clone(), expected: expected.into(), found, next: NEXT }
    }

    /// A column.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn column(&self, name: &str) -> Result<&Column> {
        self.frame.column(name).map_err(|error| self.damaged(&format!("a column `{name}`"), first_line(&error)))
    }

    fn has(&self, name: &str) -> bool {
        self.frame.column(name).is_ok()
    }

    fn some<T>(&self, name: &str, row: usize, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.damaged(&format!("a value in column `{name}`, row {row}"), "an empty cell".into()))
    }

    fn maybe_str(&self, name: &str, row: usize) -> Result<Option<&str>> {
        let column = self.column(name)?.str().map_err(|error| self.damaged("text", first_line(&error)))?;
        Ok(column.get(row))
    }

    fn str(&self, name: &str, row: usize) -> Result<&str> {
        self.some(name, row, self.maybe_str(name, row)?)
    }

    fn maybe_text(&self, name: &str, row: usize) -> Result<Option<String>> {
        Ok(self.maybe_str(name, row)?.map(str::to_string))
    }

    fn text(&self, name: &str, row: usize) -> Result<String> {
        self.str(name, row).map(str::to_string)
    }

    /// A text that is a name.
    fn name(&self, name: &str, row: usize) -> Result<String> {
        let text = self.str(name, row)?;
        check::name(&format!("a name in column `{name}`, row {row}"), text)
            .map_err(|wrong| self.damaged(&wrong.expected, wrong.found))?;
        Ok(text.to_string())
    }

    fn json<T: serde::de::DeserializeOwned>(&self, name: &str, row: usize) -> Result<T> {
        serde_json::from_str(self.str(name, row)?).map_err(|error| {
            self.damaged(
                &format!("JSON in column `{name}`, row {row}"),
                short(&plain(&error.to_string()), 300).into_owned(),
            )
        })
    }

    fn small(&self, name: &str, row: usize) -> Result<u32> {
        let column = self.column(name)?.u32().map_err(|error| self.damaged("whole numbers", first_line(&error)))?;
        self.some(name, row, column.get(row))
    }

    fn large(&self, name: &str, row: usize) -> Result<u64> {
        let column = self.column(name)?.u64().map_err(|error| self.damaged("whole numbers", first_line(&error)))?;
        self.some(name, row, column.get(row))
    }

    fn flag(&self, name: &str, row: usize) -> Result<bool> {
        let column = self.column(name)?.bool().map_err(|error| self.damaged("true or false", first_line(&error)))?;
        self.some(name, row, column.get(row))
    }

    fn maybe_float(&self, name: &str, row: usize) -> Result<Option<f64>> {
        let column = self.column(name)?.f64().map_err(|error| self.damaged("numbers", first_line(&error)))?;
        Ok(column.get(row))
    }

    fn float(&self, name: &str, row: usize) -> Result<f64> {
        self.some(name, row, self.maybe_float(name, row)?)
    }
}

fn first_line(error: &PolarsError) -> String {
    short(&plain(error.to_string().lines().next().unwrap_or_default()), 300).into_owned()
}
