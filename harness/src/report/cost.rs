//! The table of cost: time by phase, memory, size of a code.

use std::collections::BTreeSet;

use super::results;
use super::table::{Cell, Column, Mark, Note, Raw, Row, RowKind, Table};
use crate::record::{
    Control, Manifest, phase,
    section::{Row as Trials, Section},
    words,
};
use crate::stats::{self, time};

/// Interquartile range over median above which samples are too noisy to compare.
const NOISY: f64 = 0.25;
/// Fewest samples from which a percentile near the end is printed.
const FEWEST: [(f64, usize); 3] = [(0.5, 1), (0.95, 20), (0.99, 100)];

/// Where the seconds of rejected settings stand: behind those of the fit.
const REJECTED: usize = 1;
/// Where the columns of two stages stand: behind the queries.
const STAGES: usize = 10;

/// What a section cost; `None` where nothing was timed.
pub fn table(section: &Section<'_>, manifest: &Manifest) -> Option<Table> {
    let phased = |phase: &str| {
        let timings = section.rows.iter().flat_map(|row| &row.trials).flat_map(|trial| &trial.timings);
        timings.into_iter().any(|timing| timing.phase == phase)
    };
    let staged = phased(phase::FIRST_STAGE) || phased(phase::SECOND_STAGE);
    let mut heads = vec![
        ("training", "fit s", "fit s"),
        ("training", "step ms", "step ms"),
        ("encode items/s", "images", "encode images/s"),
        ("encode items/s", "texts", "encode texts/s"),
        ("", "index s", "index s"),
        ("single query ms", "p50", "query p50 ms"),
        ("single query ms", "p95", "query p95 ms"),
        ("single query ms", "p99", "query p99 ms"),
        ("single query ms", "p50 with its text", "query with text p50 ms"),
        ("queries at once", "queries/s", "batch queries/s"),
        ("queries at once", "pair ns", "batch pair ns"),
        ("bytes an item", "image", "bytes/image"),
        ("bytes an item", "text", "bytes/text"),
        ("", "memory added", "memory added"),
    ];
    if staged {
        let stages =
            [("stage ms a query", "first", "first stage ms"), ("stage ms a query", "second", "second stage ms")];
        heads.splice(STAGES..STAGES, stages);
    }
    let chosen = phased(phase::REJECTED);
    if chosen {
        heads.insert(REJECTED, ("training", "rejected settings s", "rejected settings s"));
    }
    // A control costs what its row costs.
    let timed = |row: &&Trials<'_>| row.control == Control::None && !row.trials.is_empty();
    let rows: Vec<Row> = section.rows.iter().filter(timed).map(|trials| row(trials, staged, chosen)).collect();
    let any = section.rows.iter().flat_map(|row| &row.trials).any(|trial| !trial.timings.is_empty());
    let mut table = Table {
        name: section.stem.with("cost"),
        title: format!("Cost of {} ({})", section.title(), section.dataset),
        context: results::context(section, manifest),
        stub: "method",
        columns: heads
            .into_iter()
            .map(|(group, title, name)| Column { group: group.into(), title: title.into(), name: name.into() })
            .collect(),
        rows,
        notes: vec![
            Note::word(
                "Time",
                "medians over all samples of all seeds shown; wall clock, device synchronised, after warm-up; a fit and its steps, of one \
                 batch each, leave validation out. Retrieval is clocked when all rows are fitted, each in turn, several times over; queries \
                 are texts that ask for images: at once all, or as many as there was time for; a pair is one of them with one image; \
                 with its text: the encoding of one text, its median, comes on top",
            ),
            Note::word(
                "Memory added",
                "the most that the trial held on the heap while it was fitted, encoded and scored, beside the dataset; on a GPU that of \
                 the host alone",
            ),
            Note::word("Made by", results::made_by(manifest)),
        ],
    };
    if table.uses(Mark::Noisy) {
        let text =
            format!("too noisy to compare: the interquartile range exceeds {:.0} % of the median", 100.0 * NOISY);
        table.notes.push(Note::mark(Mark::Noisy, text));
    }
    if section.rows.iter().flat_map(|row| row.trials.first()).any(|trial| trial.is_made_of_others()) {
        let mut text =
            "fitted in rows of their own, which say what that took; encoding and bytes an item are sums over these"
                .to_string();
        if staged {
            text += "; a query of two stages takes both, and the median of each stands apart";
        }
        table.notes.push(Note::word("Made of others", text));
    }
    if let Some(company) = company(section) {
        table.notes.push(Note::word("Fits", company));
    }
    if let Some(load) = load(section) {
        table.notes.push(Note::word("Load", load));
    }
    table.notes.push(Note::word(
        "Dash",
        "not timed, or too few samples: p95 asks for 20 and p99 for 100; where a measurement failed, a remark of the row says why",
    ));
    (any && !table.rows.is_empty()).then_some(table)
}

/// Which fits shared the machine with others.
fn company(section: &Section<'_>) -> Option<String> {
    let fitted = section.rows.iter().filter(|row| row.control == Control::None).flat_map(|row| &row.trials);
    let fitted = fitted.filter(|trial| !trial.is_made_of_others());
    let fitted: Vec<Option<[usize; 2]>> = fitted
        .map(|trial| trial.origin.as_ref().and_then(|origin| Some([origin.fit_threads?, origin.threads])))
        .collect();
    let shared: BTreeSet<[usize; 2]> = fitted.iter().flatten().copied().collect();
    let shares: Vec<String> = shared.iter().map(|[of, all]| format!("{of} of {all} threads")).collect();
    let alone = if fitted.contains(&None) { "; those of the other rows of all, one after another" } else { "" };
    (!shares.is_empty()).then(|| {
        format!(
            "the times of a fit and of a step are of {}, while other fits ran beside{alone}; `run --jobs 1` fits one after another",
            shares.join(" or ")
        )
    })
}

/// How busy the machine was while the clock ran.
fn load(section: &Section<'_>) -> Option<String> {
    let trials = section.rows.iter().flat_map(|row| &row.trials);
    let loads: Vec<u32> = trials.filter_map(|trial| trial.origin.as_ref()?.load).flatten().collect();
    let [low, high] = [*loads.iter().min()?, *loads.iter().max()?].map(|load| f64::from(load) / 100.0);
    Some(format!(
        "{low:.1} to {high:.1} processes ran or waited for a processor when the clock started and when it ended, this one among them"
    ))
}

fn row(trials: &Trials<'_>, staged: bool, chosen: bool) -> Row {
    let rate =
        |phase: &str| timed(&time::of_phase(&trials.trials, phase, |seconds, items| items as f64 / seconds), 0.5);
    let total = |phase: &str| timed(&time::of_phase(&trials.trials, phase, |seconds, _| seconds), 0.5);
    let milliseconds =
        |phase: &str| time::of_phase(&trials.trials, phase, |seconds, items| 1e3 * seconds / items.max(1) as f64);
    let single = time::queries(&trials.trials);
    let size = |i: usize| {
        let sizes: Vec<f64> =
            trials.trials.iter().map(|trial| trial.bytes_per_item[i]).filter(|size| *size > 0.0).collect();
        number(stats::mean(&sizes), words::count)
    };
    let peak = trials.trials.iter().map(|trial| trial.peak_memory).max().filter(|peak| *peak > 0);
    let mut cells = vec![
        total(phase::FIT),
        timed(&time::steps(&trials.trials), 0.5),
        rate(phase::ENCODE_IMAGES),
        rate(phase::ENCODE_TEXTS),
        total(phase::INDEX),
        timed(&single, 0.5),
        timed(&single, 0.95),
        timed(&single, 0.99),
        timed(&with_text(&single, trials), 0.5),
        rate(phase::QUERY_BATCH),
        timed(&pairs(trials), 0.5),
        size(0),
        size(1),
        number(peak.map(|peak| peak as f64), words::bytes),
    ];
    if staged {
        let stages = [phase::FIRST_STAGE, phase::SECOND_STAGE].map(|phase| timed(&milliseconds(phase), 0.5));
        cells.splice(STAGES..STAGES, stages);
    }
    if chosen {
        cells.insert(REJECTED, total(phase::REJECTED));
    }
    Row { kind: RowKind::Result, name: trials.name.clone(), marks: Vec::new(), cells }
}

/// Milliseconds of a query and of encoding its text, ascending.
fn with_text(queries: &[f64], trials: &Trials<'_>) -> Vec<f64> {
    let encoding = time::of_phase(&trials.trials, phase::ENCODE_TEXT, |seconds, _| 1e3 * seconds);
    let encoding = stats::quantile(&encoding, 0.5);
    encoding.map_or(Vec::new(), |encoding| queries.iter().map(|query| query + encoding).collect())
}

/// Nanoseconds of a pair of a text and an image, ascending; none where a first stage leaves most of them out.
fn pairs(trials: &Trials<'_>) -> Vec<f64> {
    let all = trials.trials.iter().flat_map(|trial| {
        let of = |phase| trial.timings.iter().find(move |timing| timing.phase == phase);
        let gallery = of(phase::INDEX).filter(|_| of(phase::FIRST_STAGE).is_none()).map(|timing| timing.items);
        let batch = gallery.and(of(phase::QUERY_BATCH));
        let samples = batch.into_iter().flat_map(|timing| timing.seconds.iter().map(|seconds| (timing.items, seconds)));
        samples.map(move |(queries, seconds)| 1e9 * seconds / (queries * gallery.unwrap_or(0)) as f64)
    });
    stats::sorted(&all.filter(|value| value.is_finite()).collect::<Vec<_>>())
}

fn timed(sorted: &[f64], q: f64) -> Cell {
    let enough = FEWEST.iter().all(|(point, fewest)| q < *point || sorted.len() >= *fewest);
    let quantile = |q| stats::quantile(sorted, q).unwrap_or(f64::NAN);
    let mut cell = number(stats::quantile(sorted, q).filter(|_| enough), words::digits);
    let noisy = sorted.len() >= 5 && quantile(0.75) - quantile(0.25) > NOISY * quantile(0.5);
    if noisy && q == 0.5 {
        cell.marks.push(Mark::Noisy);
    }
    cell.raw.count = cell.raw.mean.map(|_| sorted.len());
    cell
}

fn number(value: Option<f64>, format: impl Fn(f64) -> String) -> Cell {
    let text = value.map(format).unwrap_or_default();
    Cell { text, raw: Raw { mean: value, ..Raw::default() }, ..Cell::default() }
}
