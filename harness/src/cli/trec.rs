//! `xmbench trec`: runs and judgements as the tools of TREC read and write them.

use std::{
    collections::BTreeMap,
    fmt::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde_json::json;
use xmbench_datasets::trec::{self, Found, Judged};

use super::{Status, report::newest, table};
use crate::{
    output::{answer, json as to_json, quoted, tell},
    protocol::{Denominator, Direction, Ranking, Standing, Task, Ties},
    record::{Control, Stem, Trial, files::replace_with_unsynced, kept, store, words},
    run::nearest,
};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Write the best items of each query of a recording as runs, and the pairs of a dataset as judgements
    Write {
        /// The recording's folder; the newest under results/ when absent
        recording: Option<PathBuf>,
        /// Of this row alone, as tables name it; may be given again
        #[arg(long = "row", value_name = "ROW")]
        rows: Vec<String>,
        /// Where they go
        #[arg(long, value_name = "DIR", default_value = "reports/trec")]
        out: PathBuf,
        /// Print one JSON object on stdout
        #[arg(long)]
        json: bool,
    },
    /// Print the metrics of a run against judgements
    Eval {
        /// Lines of QUERY Q0 ITEM RANK SCORE TAG
        run: PathBuf,
        /// Lines of QUERY 0 ITEM RELEVANCE
        qrels: PathBuf,
        /// Cutoffs of R@K and nDCG@K
        #[arg(long, value_name = "K,..", value_delimiter = ',', default_values_t = [1, 5, 10], value_parser = cutoff)]
        cutoffs: Vec<usize>,
        /// Print one JSON object on stdout
        #[arg(long)]
        json: bool,
    },
}

/// The largest cutoff; no run is as long.
const LARGEST: usize = 1 << 20;

fn cutoff(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|k| (1..=LARGEST).contains(k));
    number.ok_or_else(|| format!("expected a number from 1 to {LARGEST}"))
}

pub fn run(args: &Args) -> Result<Status> {
    match &args.command {
        Command::Write { recording, rows, out, json } => write(recording.clone(), rows, out, *json),
        Command::Eval { run, qrels, cutoffs, json } => eval(run, qrels, cutoffs, *json),
    }
}

fn write(recording: Option<PathBuf>, rows: &[String], out: &Path, json: bool) -> Result<Status> {
    let folder = recording.map_or_else(newest, Ok)?;
    let recording = store::read(&folder)?;
    let has_lists = |trial: &&Trial| trial.kept.is_some() && trial.control == Control::None;
    let known: Vec<&Trial> = recording.trials.iter().filter(has_lists).collect();
    if known.is_empty() {
        bail!(
            "the recording {} keeps no best items; run it again without --lean, which keeps them for one seed a row",
            folder.display()
        );
    }
    if let Some(unknown) = rows.iter().find(|row| !known.iter().any(|trial| words::row(trial) == **row)) {
        let names: Vec<String> = known.iter().map(|trial| words::row(trial)).collect();
        let hint = nearest(unknown, names.iter().map(String::as_str));
        bail!("no row {} with best items in {}{hint}", quoted(unknown), folder.display());
    }
    std::fs::create_dir_all(out).with_context(|| format!("cannot make the folder {}", out.display()))?;
    let mut files = BTreeMap::new();
    let mut without = 0;
    for trial in known.into_iter().filter(|trial| rows.is_empty() || rows.contains(&words::row(trial))) {
        let found = kept::read(&folder, trial)?.unwrap_or_default();
        let stem = Stem::of(&format!("{}-{}", trial.experiment, trial.dataset));
        let own = stem.with(&words::row(trial)).with(&format!("s{}", trial.seed));
        without += usize::from(!matches!(trial.protocol.task, Task::Pairs { .. }));
        for direction in [Direction::I2t, Direction::T2i] {
            let (lists, judged) = of_direction(trial, &found, direction);
            files.insert(own.with(&direction.to_string()).file("run"), lists);
            if !judged.is_empty() {
                files.insert(stem.with(&direction.to_string()).file("qrels"), judged);
            }
        }
    }
    for (name, text) in &files {
        let path = out.join(name);
        replace_with_unsynced(&path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if json {
        let paths: Vec<PathBuf> = files.keys().map(|name| out.join(name)).collect();
        answer(&to_json(&json!({ "files": paths, "best": kept::BEST })))?;
    } else {
        tell(&format!(
            "{} in {}: the {} best items of each query; images are i0, i1, .. and texts t0, t1, .. by their position in the split",
            words::counted(files.len(), "file"),
            out.display(),
            kept::BEST
        ));
        if without > 0 {
            tell(&format!(
                "{} where a shared class is relevant: their runs have no judgements beside them",
                words::counted(without, "row")
            ));
        }
    }
    Ok(Status::Done)
}

/// A run, and the judgements where pairs are what is relevant: then every own item was kept.
fn of_direction(trial: &Trial, found: &[crate::protocol::Found], direction: Direction) -> (String, String) {
    let [asks, answers] = if direction == Direction::I2t { ["i", "t"] } else { ["t", "i"] };
    let tag = words::row(trial).replace(char::is_whitespace, "_");
    let (mut lists, mut judged) = (String::new(), String::new());
    let mut place = (None, 0);
    for it in found.iter().filter(|it| it.direction == direction) {
        place = if place.0 == Some(it.query) { (place.0, place.1 + 1) } else { (Some(it.query), 1) };
        // Behind the best stand own items, wherever their rank is.
        if place.1 <= kept::BEST {
            let _ = writeln!(lists, "{asks}{} Q0 {answers}{} {} {} {tag}", it.query, it.item, place.1, it.score);
        }
        if it.own && matches!(trial.protocol.task, Task::Pairs { .. }) {
            let _ = writeln!(judged, "{asks}{} 0 {answers}{} 1", it.query, it.item);
        }
    }
    (lists, judged)
}

fn eval(run: &Path, qrels: &Path, cutoffs: &[usize], json: bool) -> Result<Status> {
    let (found, judged) = (trec::run(run)?, trec::qrels(qrels)?);
    let asked = judged.values().filter(|items| !items.is_empty()).count();
    if asked == 0 {
        bail!("{}: expected a query with a relevant item, found none", qrels.display());
    }
    let metrics = metrics(&found, &judged, cutoffs);
    let absent =
        judged.iter().filter(|(query, items)| !items.is_empty() && !found.queries.contains_key(*query)).count();
    let unjudged = found.queries.keys().filter(|query| judged.get(*query).is_none_or(|items| items.is_empty())).count();
    if json {
        let metrics: serde_json::Map<String, serde_json::Value> =
            metrics.into_iter().map(|(name, value)| (name, json!(value))).collect();
        let object = json!({
            "tag": found.tag, "queries": asked, "not_in_run": absent, "without_relevant": unjudged, "metrics": metrics,
        });
        answer(&to_json(&object))?;
        return Ok(Status::Done);
    }
    let rows: Vec<Vec<String>> = metrics
        .into_iter()
        .map(|(name, value)| {
            let text = if name.starts_with("R@") { format!("{value:.1} %") } else { format!("{value:.4}") };
            vec![name, text]
        })
        .collect();
    answer(&table(&rows))?;
    tell(&format!(
        "means over {asked} queries that have a relevant item; equal scores by their expectation; what a run does not list is not found"
    ));
    if absent > 0 {
        tell(&format!("{} of them not in the run: they found nothing", words::counted(absent, "query")));
    }
    if unjudged > 0 {
        tell(&format!("{} of the run without a relevant item: left out", words::counted(unjudged, "query")));
    }
    Ok(Status::Done)
}

/// R@K in percent, the share of queries with a relevant item among the first K; MAP of the listed items over all relevant ones; nDCG@K
/// with binary gains.
fn metrics(found: &Found, judged: &Judged, cutoffs: &[usize]) -> Vec<(String, f64)> {
    let none = Vec::new();
    let rankings: Vec<(usize, Ranking)> = judged
        .iter()
        .filter(|(_, items)| !items.is_empty())
        .map(|(query, relevant)| {
            let list = found.queries.get(query).unwrap_or(&none);
            let scores: Vec<f32> = list.iter().map(|(_, score)| *score).collect();
            let hits: Vec<bool> = list.iter().map(|(item, _)| relevant.contains(item)).collect();
            let missing = relevant.len() - hits.iter().filter(|hit| **hit).count();
            (list.len(), Ranking::of_scores(&scores, &hits).with_unlisted(missing))
        })
        .collect();
    let mean =
        |value: &dyn Fn(&(usize, Ranking)) -> f64| rankings.iter().map(value).sum::<f64>() / rankings.len() as f64;
    let hit = |(listed, ranking): &(usize, Ranking), k: usize| {
        let (better, tied, own) = ranking.first_relevant();
        if better >= *listed { 0.0 } else { Standing { better, tied, own }.hit(k, Ties::Expected) }
    };
    let mut out: Vec<(String, f64)> =
        cutoffs.iter().map(|&k| (format!("R@{k}"), 100.0 * mean(&|it| hit(it, k)))).collect();
    out.push(("MAP".into(), mean(&|(listed, it)| it.average_precision_at(*listed, Denominator::Relevant))));
    out.extend(cutoffs.iter().map(|&k| (format!("nDCG@{k}"), mean(&|(_, it)| it.ndcg_at(k)))));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(run: &str, qrels: &str) -> BTreeMap<String, f64> {
        let found = trec::parse_run(Path::new("run"), run.as_bytes()).unwrap();
        let judged = trec::parse_qrels(Path::new("qrels"), qrels.as_bytes()).unwrap();
        metrics(&found, &judged, &[1, 2, 100]).into_iter().collect()
    }

    /// By hand, and as `trec_eval` has them: relevant items at 2 and 4 of five, of three; and a query that found nothing.
    #[test]
    fn metrics_are_those_of_trec_eval() {
        let run = "q Q0 a 1 5 t\nq Q0 b 2 4 t\nq Q0 c 3 3 t\nq Q0 d 4 2 t\nq Q0 e 5 1 t\n";
        let found = of(run, "q 0 b 1\nq 0 d 1\nq 0 z 1\nq 0 a 0\n");
        let gain = |place: f64| 1.0 / (place + 1.0).log2();
        let ideal = gain(1.0) + gain(2.0) + gain(3.0);
        for (name, value) in [
            ("R@1", 0.0),
            ("R@2", 100.0),
            ("R@100", 100.0),
            ("MAP", (0.5 + 0.5) / 3.0),
            ("nDCG@1", 0.0),
            ("nDCG@2", gain(2.0) / (gain(1.0) + gain(2.0))),
            ("nDCG@100", (gain(2.0) + gain(4.0)) / ideal),
        ] {
            assert!((found[name] - value).abs() < 1e-12, "{name}: {} and {value}", found[name]);
        }
        let halved = of(run, "q 0 b 1\nq 0 d 1\nq 0 z 1\np 0 a 1\n");
        assert!(found.iter().all(|(name, value)| (halved[name] - value / 2.0).abs() < 1e-12));
    }

    #[test]
    fn ties_count_by_their_expectation_and_the_order_of_lines_does_not() {
        let tied = of("q Q0 a 1 1 t\nq Q0 b 2 1 t\nq Q0 c 3 1 t\n", "q 0 c 1\n");
        assert!((tied["R@1"] - 100.0 / 3.0).abs() < 1e-12);
        assert!((tied["MAP"] - (1.0 + 0.5 + 1.0 / 3.0) / 3.0).abs() < 1e-12);
        assert_eq!(tied["R@100"], 100.0);
        // What is not listed is not found, however far one looks.
        assert_eq!(of("q Q0 a 1 1 t\n", "q 0 c 1\n").values().sum::<f64>(), 0.0);
    }
}
