//! `xmbench compare A B`: two recordings, or two rows of one, with a paired interval for every difference.

mod devices;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::{Status, report::newest, table};
use crate::{
    output::{answer, json as to_json},
    protocol,
    record::{
        Control, Recording, Trial,
        section::{Section, whole_sections},
        store,
    },
    stats::{
        Interval,
        metric::Metric,
        paired::{Basis, Cache, Paired},
    },
};

#[derive(clap::Args)]
pub struct Args {
    /// A recording's folder, or the label of a row: "VSE++", "DJSRH bits=64"
    a: String,
    /// What to set beside it, of the same kind
    b: String,
    /// Where the rows are recorded; the newest under results/ when absent
    #[arg(long, value_name = "DIR")]
    recording: Option<PathBuf>,
    /// Only this experiment
    #[arg(long)]
    experiment: Option<String>,
    /// Only this metric: "i2t R@1"
    #[arg(long)]
    metric: Option<String>,
    /// The recordings are one program's on two devices: say where they differ by more than rounding explains
    #[arg(long, conflicts_with = "metric")]
    devices: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The trials of one row of a table.
struct Row<'a> {
    experiment: &'a str,
    dataset: &'a str,
    name: String,
    trials: Vec<&'a Trial>,
    /// See [`Section::overlap`].
    overlap: f64,
}

/// One metric of two rows.
struct Difference {
    experiment: String,
    dataset: String,
    row: String,
    metric: Metric,
    a: f64,
    b: f64,
    interval: Option<Interval>,
}

pub fn run(args: &Args) -> Result<Status> {
    let folders = [Path::new(&args.a).is_dir(), Path::new(&args.b).is_dir()];
    let differences = match folders {
        [true, true] => {
            let (a, b) = (store::read(Path::new(&args.a))?, store::read(Path::new(&args.b))?);
            let (rows_a, rows_b) = (rows(&a, args), rows(&b, args));
            if args.devices {
                return Ok(if devices::run(&rows_a, &rows_b, args.json)? { Status::Done } else { Status::Failed });
            }
            let place = |row: &Row<'_>| (row.experiment.to_string(), row.dataset.to_string(), row.name.clone());
            let others: BTreeMap<_, &Row<'_>> = rows_b.iter().map(|row| (place(row), row)).collect();
            let both = rows_a.iter().filter_map(|row| Some((row, *others.get(&place(row))?)));
            compare(both.collect(), &a, args)?
        }
        _ if args.devices => {
            bail!("--devices compares two folders of recordings: `{}` and `{}` are not two", args.a, args.b)
        }
        [false, false] => {
            let folder = args.recording.clone().map_or_else(newest, Ok)?;
            let recording = store::read(&folder)?;
            let rows = rows(&recording, args);
            for name in [&args.a, &args.b] {
                if !rows.iter().any(|row| row.name == *name) {
                    let known: BTreeSet<&str> = rows.iter().map(|row| row.name.as_str()).collect();
                    let hint = crate::run::nearest(name, known.iter().copied());
                    bail!("{} has no row `{name}`{hint}; its rows are {}", folder.display(), join(known));
                }
            }
            let of = |name: &String| rows.iter().filter(|row| row.name == *name).collect::<Vec<_>>();
            let (left, right) = (of(&args.a), of(&args.b));
            let place = |row: &Row<'_>| (row.experiment.to_string(), row.dataset.to_string());
            let beside = |a| right.iter().find(|b| place(b) == place(a)).map(|b| (a, *b));
            compare(left.into_iter().filter_map(beside).collect(), &recording, args)?
        }
        _ => bail!(
            "`{}` and `{}` are not of one kind: name two folders of recordings, or two rows of one",
            args.a,
            args.b
        ),
    };
    if differences.is_empty() {
        bail!("nothing to compare: `{}` and `{}` have no row, seed and metric in common", args.a, args.b);
    }
    answer(&if args.json { as_json(&differences) } else { as_table(&differences) })?;
    Ok(Status::Done)
}

fn join<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The rows of a recording, table by table.
fn rows<'a>(recording: &'a Recording, args: &Args) -> Vec<Row<'a>> {
    let chosen = |section: &Section<'_>| args.experiment.as_ref().is_none_or(|only| only == section.experiment);
    let mut rows = Vec::new();
    for section in whole_sections(recording).into_iter().filter(chosen) {
        let overlap = section.overlap();
        let learned = section.rows.into_iter().filter(|row| row.control != Control::Chance && !row.trials.is_empty());
        rows.extend(learned.map(|row| {
            let swept: String = row.swept.iter().map(|(key, value)| format!(" {key}={value}")).collect();
            let control = if row.control == Control::Shuffled { " (shuffled)" } else { "" };
            let name = format!("{}{swept}{control}", row.label);
            Row { experiment: section.experiment, dataset: section.dataset, name, trials: row.trials, overlap }
        }));
    }
    rows
}

/// Every metric of every two rows that belong together, over the seeds that both ran.
fn compare<'a>(both: Vec<(&Row<'a>, &Row<'a>)>, recording: &Recording, args: &Args) -> Result<Vec<Difference>> {
    let (mut all, mut draws) = (Vec::new(), Cache::new());
    for (a, b) in both {
        let place = format!("{} on {}, `{}` and `{}`", a.experiment, a.dataset, a.name, b.name);
        let seeds = |row: &Row<'_>| row.trials.iter().map(|trial| trial.seed).collect::<BTreeSet<_>>();
        let common: BTreeSet<u64> = seeds(a).intersection(&seeds(b)).copied().collect();
        let chosen = |row: &Row<'a>| {
            let mut trials: Vec<&'a Trial> = row.trials.clone();
            trials.retain(|trial| common.contains(&trial.seed));
            trials.sort_by_key(|trial| trial.seed);
            trials
        };
        let (trials_a, trials_b) = (chosen(a), chosen(b));
        trials_a.iter().zip(&trials_b).try_for_each(|(a, b)| comparable(&place, a, b))?;
        let columns = recording.manifest.experiments.get(a.experiment).map(|note| note.columns.clone());
        let columns = columns
            .filter(|columns| !columns.is_empty())
            .unwrap_or_else(|| a.trials[0].metrics.keys().cloned().collect());
        let columns = args.metric.clone().map_or(columns, |only| vec![only]);
        for column in columns {
            let metric = Metric::parse(&column);
            let Some(paired) = Paired::of(&metric, [&trials_a, &trials_b], a.overlap, &mut draws) else { continue };
            // A verdict is given here only where queries or splits tell it.
            let interval = paired.interval.filter(|_| matches!(paired.basis, Basis::Images | Basis::Splits));
            let row = if a.name == b.name { a.name.clone() } else { format!("{} - {}", a.name, b.name) };
            let (experiment, dataset) = (a.experiment.into(), a.dataset.into());
            all.push(Difference { experiment, dataset, row, metric, a: paired.a, b: paired.b, interval });
        }
    }
    Ok(all)
}

/// Two numbers compare only under one protocol on one dataset.
fn comparable(place: &str, a: &Trial, b: &Trial) -> Result<()> {
    let fields = protocol::differences(&a.protocol, &b.protocol);
    if !fields.is_empty() {
        bail!("{place} are not comparable, their protocols differ: {}", fields.join("; "));
    }
    if a.checksum != b.checksum {
        let short = |checksum: &str| checksum.chars().take(12).collect::<String>();
        bail!(
            "{place} are not comparable: the dataset's checksum is {} there and {} here",
            short(&a.checksum),
            short(&b.checksum)
        );
    }
    Ok(())
}

impl Difference {
    /// Whether the two are the same in every bit.
    fn is_none(&self) -> bool {
        self.a.to_bits() == self.b.to_bits() && self.interval.is_none_or(|it| it.low == 0.0 && it.high == 0.0)
    }

    fn verdict(&self) -> &'static str {
        match self.interval {
            _ if self.is_none() => "identical",
            None => "no interval",
            Some(interval) if interval.contains(0.0) => "no difference found",
            Some(interval) if (interval.low > 0.0) == self.metric.less_is_better() => "B is better",
            Some(_) => "A is better",
        }
    }
}

/// What differs, and how much does not.
fn as_table(differences: &[Difference]) -> String {
    let (same, other): (Vec<&Difference>, Vec<&Difference>) = differences.iter().partition(|it| it.is_none());
    let counted = match (same.len(), other.len()) {
        (0, _) => String::new(),
        (same, 0) => return format!("identical: all {same} numbers, in every bit"),
        (same, differ) => format!("\n\n{same} numbers are identical in every bit and left out, {differ} differ"),
    };
    let heading = ["EXPERIMENT", "DATASET", "ROW", "METRIC", "A", "B", "A - B", "95% INTERVAL", "VERDICT"];
    let mut rows = vec![heading.map(str::to_string).to_vec()];
    rows.extend(other.into_iter().map(|difference| {
        let format = |value: f64| difference.metric.format(value);
        let interval = difference.interval.map_or("-".into(), |i| format!("[{}, {}]", format(i.low), format(i.high)));
        vec![
            difference.experiment.clone(),
            difference.dataset.clone(),
            difference.row.clone(),
            difference.metric.name.clone(),
            format(difference.a),
            format(difference.b),
            format(difference.a - difference.b),
            interval,
            difference.verdict().into(),
        ]
    }));
    table(&rows) + &counted
}

fn as_json(differences: &[Difference]) -> String {
    let objects = differences.iter().map(|difference| {
        json!({
            "experiment": difference.experiment, "dataset": difference.dataset, "row": difference.row,
            "metric": difference.metric.name, "a": difference.a, "b": difference.b, "difference": difference.a - difference.b,
            "interval": difference.interval.map(|interval| [interval.low, interval.high]), "verdict": difference.verdict(),
        })
    });
    to_json(&Value::Array(objects.collect()))
}
