//! The table of metrics.

use std::collections::{BTreeMap, BTreeSet};

use xmbench_datasets::Split;
use xmbench_methods::card::Evidence;

use super::score::{Score, Scores, Standing};
use super::table::{Cell, Column, Head, Mark, Note, Raw, Row, RowKind, Table, Verdict};
use crate::protocol::{Direction, Task};
use crate::record::{
    Control, Expected, Manifest, Origin, SELECTION,
    section::{Row as Trials, Section},
    words,
};
use crate::run::Profile;
use crate::stats::{Interval, budget::Budget, metric::Metric};

/// The metrics of a section.
pub fn table(section: &Section<'_>, scores: &mut Scores<'_>, manifest: &Manifest) -> Table {
    let mut metrics: Vec<Metric> = section.columns().iter().map(|name| Metric::parse(name)).collect();
    let groups: Vec<&str> = metrics.iter().map(Metric::group).collect();
    metrics.sort_by_key(|metric| groups.iter().position(|group| *group == metric.group()));
    let columns: Vec<Vec<Option<Score>>> = metrics.iter().map(|metric| scores.of(metric).to_vec()).collect();
    let mut reasons = Vec::new();
    let mut rows = Vec::new();
    for (at, trials) in section.rows.iter().enumerate() {
        let own: Vec<Option<&Score>> = columns.iter().map(|scores| scores[at].as_ref()).collect();
        let mut row = result(section, trials, &metrics, &own, &mut reasons);
        if trials.control == Control::Shuffled && !trials.trials.is_empty() {
            let chance = section.rows.iter().position(|row| row.control == Control::Chance);
            let chance = |column: usize| columns[column][chance?].as_ref().map(|score| score.mean);
            row.marks.extend(judged(&metrics, &own, chance).map(|text| number(&mut reasons, text)));
        }
        rows.push(row);
        rows.extend(ties(&metrics, &own));
        rows.extend(stated(section, trials, &metrics, &own, &mut reasons));
    }
    let columns = metrics
        .iter()
        .map(|metric| Column {
            group: metric.group().to_string(),
            title: metric.short().to_string(),
            name: metric.name.clone(),
        })
        .collect();
    let mut table = Table {
        name: section.stem.clone(),
        title: format!("{} ({})", section.title(), section.dataset),
        context: context(section, manifest),
        stub: "method",
        columns,
        rows,
        notes: Vec::new(),
    };
    table.notes = notes(section, &table, scores, manifest, &reasons);
    table
}

/// Whether a row that was fitted on shuffled pairs finds more than a random order would; `None` where nothing can be told.
fn judged(metrics: &[Metric], own: &[Option<&Score>], chance: impl Fn(usize) -> Option<f64>) -> Option<String> {
    let mut told = 0;
    let mut above = Vec::new();
    for (at, metric) in metrics.iter().enumerate().filter(|(_, metric)| metric.is_contested()) {
        let (Some(interval), Some(chance)) = (own[at].and_then(|score| score.interval), chance(at)) else { continue };
        told += 1;
        let beyond = if metric.less_is_better() { interval.high < chance } else { interval.low > chance };
        above.extend(beyond.then(|| metric.name.clone()));
    }
    match (told, above.as_slice()) {
        (0, _) => None,
        (_, []) => Some("PASS: no 95 % interval lies above chance".into()),
        (_, above) => Some(format!(
            "ABOVE CHANCE by its 95 % interval in {}: what these pairs, shuffled, still give is the level to compare with",
            above.join(", ")
        )),
    }
}

/// What every row shares.
pub fn context(section: &Section<'_>, manifest: &Manifest) -> Vec<(&'static str, String)> {
    vec![
        ("experiment", section.experiment.to_string()),
        ("dataset", section.dataset.to_string()),
        ("checksum", section.checksums.join(", ")),
        ("profile", manifest.profile.clone()),
        ("protocol", section.describe(section.protocol)),
    ]
}

fn result(
    section: &Section<'_>,
    trials: &Trials<'_>,
    metrics: &[Metric],
    scores: &[Option<&Score>],
    reasons: &mut Vec<String>,
) -> Row {
    let fixed = trials.trials.len() > 1 && scores.iter().flatten().all(|score| score.deviation == Some(0.0));
    let cell = |(metric, score): (&Metric, &Option<&Score>)| {
        let Some(score) = score else { return Cell::default() };
        Cell {
            text: metric.format(score.mean),
            spread: score.deviation.filter(|_| !fixed).map(|it| metric.format(it)).unwrap_or_default(),
            bold: score.standing == Standing::Best,
            marks: if score.standing == Standing::Alike { vec![Mark::Alike] } else { Vec::new() },
            raw: score.raw(),
            ..Cell::default()
        }
    };
    let mut marks = caveats(trials);
    let mut remark = |text: String| marks.push(number(reasons, text));
    let remarks: BTreeSet<&str> = trials.trials.iter().map(|trial| trial.remark.trim()).collect();
    remarks.into_iter().filter(|text| !text.is_empty()).for_each(|text| remark(text.to_string()));
    selected(trials).into_iter().for_each(&mut remark);
    if fixed && scores.iter().any(Option::is_some) {
        remark("deterministic: the same under every seed".into());
    }
    let mut by_reason: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (seed, reason) in &trials.failures {
        by_reason.entry(reason).or_default().push(*seed);
    }
    for (reason, seeds) in by_reason {
        let plural = if seeds.len() > 1 { "s" } else { "" };
        remark(format!("failed for seed{plural} {}: {}", words::seeds(&seeds), reason.trim()));
    }
    let ran: Vec<u64> = trials.trials.iter().map(|trial| trial.seed).collect();
    if !ran.is_empty() && ran != section.seeds && trials.control != Control::Chance {
        let plural = if ran.len() > 1 { "s" } else { "" };
        remark(format!("n = {}: over seed{plural} {}", ran.len(), words::seeds(&ran)));
    }
    let kind = match trials.control {
        Control::None if trials.trials.is_empty() => RowKind::Failed,
        Control::None => RowKind::Result,
        _ => RowKind::Control,
    };
    Row { kind, name: trials.name.clone(), marks, cells: metrics.iter().zip(scores).map(cell).collect() }
}

/// The marks of a row that competes under other conditions than its neighbours.
pub fn caveats(trials: &Trials<'_>) -> Vec<Mark> {
    let cut_short = trials.trials.iter().any(|trial| trial.cut_short());
    [(trials.dagger, Mark::Dagger), (cut_short, Mark::CutShort)]
        .into_iter()
        .filter_map(|(holds, mark)| holds.then_some(mark))
        .collect()
}

/// What the marks mean that a table uses, numbers aside.
pub fn legend(table: &Table) -> impl Iterator<Item = Note> {
    let all = [
        (Mark::Dagger, "selected on the test split, as the paper did; does not compete"),
        (
            Mark::CutShort,
            "cut short: under some seed validation was best at the last epoch, so that more might have helped",
        ),
        (Mark::Recalled, "from memory, not seen in the source"),
        (Mark::Measured, "from a small independent re-run"),
    ];
    all.into_iter().filter(|(mark, _)| table.uses(*mark)).map(|(mark, text)| Note::mark(mark, text))
}

/// Which setting each seed of a row took, where the row selected among some.
fn selected(trials: &Trials<'_>) -> Option<String> {
    let mut taken: Vec<(String, Vec<u64>)> = Vec::new();
    for trial in &trials.trials {
        let text = match trial.curves.get(SELECTION) {
            _ if !trial.selected.is_empty() => words::settings(&trial.selected),
            // Recorded before settings were named.
            Some(scores) => format!("setting {} of {}", first_best(scores), scores.len()),
            None => continue,
        };
        match taken.iter_mut().find(|(other, _)| *other == text) {
            Some((_, seeds)) => seeds.push(trial.seed),
            None => taken.push((text, vec![trial.seed])),
        }
    }
    let on = &trials.trials.first()?.protocol.select_on;
    let one = |(text, seeds): &(String, Vec<u64>)| {
        format!("{text} (seed{} {})", if seeds.len() > 1 { "s" } else { "" }, words::seeds(seeds))
    };
    let all: Vec<String> = taken.iter().map(one).collect();
    (!all.is_empty()).then(|| format!("selected on {on}: {}", all.join("; ")))
}

/// Position, from 1, of the first of the best scores.
fn first_best(scores: &[[f64; 2]]) -> usize {
    let best = scores.iter().filter(|score| !score[1].is_nan()).fold(None, |best: Option<&[f64; 2]>, score| {
        if best.is_none_or(|best| score[1] > best[1]) { Some(score) } else { best }
    });
    best.map_or(1, |score| score[0] as usize)
}

/// What the trained rows were trained for: once if they share it, else for each group that does.
fn budget(section: &Section<'_>) -> Option<String> {
    let learned = section.rows.iter().filter(|row| row.control == Control::None);
    let trained = learned.filter_map(|row| {
        let budget = Budget::of(&row.trials);
        budget.is_trained().then(|| (row, budget.to_string()))
    });
    let trained: Vec<(&Trials<'_>, String)> = trained.collect();
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for (row, text) in &trained {
        // A label stands for the rows of its sweep, if they have it in common.
        let alike = trained.iter().all(|(other, of)| other.label != row.label || of == text);
        let name = if alike { row.label } else { &row.name };
        match groups.iter_mut().find(|(other, _)| *other == text) {
            Some((_, names)) if names.contains(&name) => {}
            Some((_, names)) => names.push(name),
            None => groups.push((text, vec![name])),
        }
    }
    let group = |(text, names): &(&str, Vec<&str>)| format!("{}: {text}", names.join(", "));
    match groups.as_slice() {
        [] => None,
        [(text, _)] => Some(format!("trained rows: {text}")),
        several => Some(several.iter().map(group).collect::<Vec<_>>().join("; ")),
    }
}

/// The mark of a numbered note, which equal texts share.
pub fn number(notes: &mut Vec<String>, text: String) -> Mark {
    let at = notes.iter().position(|note| *note == text).unwrap_or_else(|| {
        notes.push(text);
        notes.len() - 1
    });
    Mark::Number(at + 1)
}

/// The span that ties leave, if they leave one anywhere.
fn ties(metrics: &[Metric], scores: &[Option<&Score>]) -> Option<Row> {
    let cell = |(metric, score): (&Metric, &Option<&Score>)| match score.and_then(|score| score.ties) {
        Some([low, high]) => Cell {
            text: format!("{}–{}", metric.format(low.min(high)), metric.format(low.max(high))),
            raw: Raw { interval: Some(Interval { low: low.min(high), high: low.max(high) }), ..Raw::default() },
            ..Cell::default()
        },
        None => Cell::default(),
    };
    let cells: Vec<Cell> = metrics.iter().zip(scores).map(cell).collect();
    let row = Row { kind: RowKind::Ties, name: "ties".to_string(), marks: Vec::new(), cells };
    row.cells.iter().any(|cell| !cell.text.is_empty()).then_some(row)
}

/// One row a source that stated values for this row in advance.
fn stated(
    section: &Section<'_>,
    trials: &Trials<'_>,
    metrics: &[Metric],
    scores: &[Option<&Score>],
    notes: &mut Vec<String>,
) -> Vec<Row> {
    let learned = |row: &&Trials<'_>| row.label == trials.label && row.control == Control::None;
    let alone = trials.control == Control::None && section.rows.iter().filter(learned).count() == 1;
    let named = |value: &Expected| value.label == trials.name || (alone && value.label == trials.label);
    let here = |value: &&Expected| named(value) && (value.dataset.is_empty() || value.dataset == section.dataset);
    let values: Vec<&Expected> = section.note.expected.iter().filter(here).collect();
    let mut sources: Vec<&str> = Vec::new();
    for value in &values {
        if !sources.contains(&value.source.as_str()) {
            sources.push(&value.source);
        }
    }
    let row = |source: &str| {
        let cell = |(metric, score): (&Metric, &Option<&Score>)| {
            let Some(value) = values.iter().find(|value| value.source == source && value.metric == metric.name) else {
                return Cell::default();
            };
            Cell {
                text: metric.format(value.value),
                marks: evidence(value.evidence).into_iter().collect(),
                verdict: value.tolerance.map(|tolerance| verdict(value.value, tolerance, *score)),
                raw: Raw { mean: Some(value.value), ..Raw::default() },
                ..Cell::default()
            }
        };
        let cells: Vec<Cell> = metrics.iter().zip(scores).map(cell).collect();
        let marks = vec![number(notes, source.trim().to_string())];
        Row { kind: RowKind::Stated, name: "stated".to_string(), marks, cells }
    };
    // Values of metrics that the table does not show need no row.
    let shown = |source: &&str| {
        values.iter().any(|value| value.source == *source && metrics.iter().any(|metric| metric.name == value.metric))
    };
    sources.into_iter().filter(shown).map(row).collect()
}

fn verdict(stated: f64, tolerance: f64, score: Option<&Score>) -> Verdict {
    match score {
        None => Verdict::NotRun,
        // The last bit of a decimal that is not a binary number must not decide.
        Some(score) if (score.mean - stated).abs() <= tolerance + 1e-9 => Verdict::Ok,
        Some(_) => Verdict::Off,
    }
}

/// The mark of a grade of evidence; what was verified needs none.
pub fn evidence(evidence: Evidence) -> Option<Mark> {
    match evidence {
        Evidence::Verified => None,
        Evidence::Recalled => Some(Mark::Recalled),
        Evidence::Measured => Some(Mark::Measured),
    }
}

fn notes(
    section: &Section<'_>,
    table: &Table,
    scores: &Scores<'_>,
    manifest: &Manifest,
    reasons: &[String],
) -> Vec<Note> {
    let mut notes = vec![Note::word("Protocol", section.describe(section.protocol)), Note::word("Data", data(section))];
    notes.push(Note::word("Seeds", seeds(section)));
    notes.extend(gallery_codes(section).map(|text| Note::word("Gallery codes", text)));
    notes.extend(budget(section).map(|text| Note::word("Budget", text)));
    notes.push(Note::word("Made by", made_by(manifest)));
    notes.extend(origins(section).map(|text| Note::word("Runs", text)));
    if table.rows.iter().any(|row| row.cells.iter().any(|cell| cell.bold)) {
        let lengths = section.rows.iter().any(|row| row.length().is_some());
        let among = if lengths { " among codes of its length" } else { "" };
        notes.push(Note { head: Head::Bold, text: format!("the best mean of the column{among}") });
        let text = "not told from the best: the 95 % interval of the paired difference (bootstrap over images and seeds, or Student's over \
                    seeds where a metric is no mean over queries) holds zero";
        notes.extend(table.uses(Mark::Alike).then(|| Note::mark(Mark::Alike, text)));
    }
    if table.rows.iter().any(|row| row.kind == RowKind::Ties) {
        let text = "span of the value if every tie went against or for the query, where that is more than half a point";
        notes.push(Note::word("Ties", text));
    }
    if table.rows.iter().any(|row| row.kind == RowKind::Stated) {
        let mut text =
            "values that a paper or another program gave in advance; the number names the source".to_string();
        if table.rows.iter().any(|row| row.cells.iter().any(|cell| cell.verdict.is_some())) {
            text += "; OK / OFF: our value is within / outside the stated tolerance";
            if Profile::is_shortened(&manifest.profile) {
                text += &format!(", which is meant for the full profile and not for {}", manifest.profile);
            }
        }
        notes.push(Note::word("Stated", text));
    }
    if table.rows.iter().any(|row| row.kind == RowKind::Control) {
        notes.push(Note::word("Controls", "rows below the rule learn nothing about pairs and do not compete"));
    }
    notes.extend(legend(table));
    for (metric, row) in &scores.inconsistent {
        let text = format!("{metric}: no bootstrap, because the stored queries of {row} do not give its stored value");
        notes.push(Note::word("Interval", text));
    }
    notes.extend(reasons.iter().enumerate().map(|(i, reason)| Note::mark(Mark::Number(i + 1), reason)));
    notes
}

/// Dataset, sizes, terms.
pub fn data(section: &Section<'_>) -> String {
    let data = &section.data;
    let title = if data.title.is_empty() { section.dataset } else { &data.title };
    let variant = if data.variant.is_empty() { String::new() } else { format!(" [{}]", data.variant) };
    let checksums: Vec<String> = section.checksums.iter().map(|checksum| words::checksum(checksum)).collect();
    let mut parts = vec![format!("{title}{variant}"), sizes(section), format!("SHA-256 {}", checksums.join(", "))];
    if section.is_over_splits() {
        parts.push(format!(
            "{} splits of it, a seed each; options and numbers of items are the first one's",
            section.checksums.len()
        ));
    }
    parts.extend([data.attribution.clone(), data.caveat.clone()]);
    let parts = parts.iter().map(|part| part.trim().trim_end_matches('.')).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join(". ")
}

/// Number of queries and of gallery items.
pub fn sizes(section: &Section<'_>) -> String {
    let protocol = section.protocol;
    let size = |split: Split| {
        // A dataset without a database is searched in its training split.
        let fallback = (split == Split::Database).then_some(Split::Train);
        [Some(split), fallback].into_iter().flatten().find_map(|split| section.data.sizes.get(&split.to_string()))
    };
    let gallery = match protocol.task {
        Task::Pairs { .. } => protocol.split,
        Task::Category { gallery, .. } => gallery,
        Task::Correlation { .. } => {
            return size(protocol.split).map(|[i, t]| format!("{i} images and {t} texts")).unwrap_or_default();
        }
    };
    let counted = section.asked().map(|trial| {
        let of = |direction: Direction| {
            let asked = trial.queries.iter().filter(|query| query.direction == direction);
            asked.map(|query| query.query).collect::<BTreeSet<_>>().len()
        };
        [of(Direction::I2t), of(Direction::T2i)]
    });
    let queries = counted.or(size(protocol.split).copied());
    let queries = queries.map(|[i, t]| format!("{i} image and {t} text queries"));
    let gallery = size(gallery).map(|[i, t]| format!("gallery of {i} images and {t} texts"));
    words::join(&[queries.unwrap_or_default(), gallery.unwrap_or_default()])
}

/// Of what the codes that are searched were made, where classes decide and a gallery may hold items that were trained on.
fn gallery_codes(section: &Section<'_>) -> Option<String> {
    let Task::Category { gallery, .. } = section.protocol.task else { return None };
    let rows = section.rows.iter().filter(|row| row.control == Control::None && !row.trials.is_empty());
    let (unified, others): (Vec<_>, Vec<_>) = rows.partition(|row| row.trials.iter().any(|trial| trial.unified));
    let names: BTreeSet<&str> = unified.iter().map(|row| row.label).collect();
    let names = names.into_iter().collect::<Vec<_>>().join(", ");
    Some(match (gallery == section.protocol.split, unified.is_empty(), others.is_empty()) {
        (_, true, true) => return None,
        (true, ..) | (_, true, _) => "each made of its item's own modality alone".into(),
        (_, _, true) => "unified: training items have one code, made of their image and their text".into(),
        _ => format!(
            "of both kinds, which do not compare: unified for {names} (training items have one code, made of their image and their \
             text), of an item's own modality alone for all others"
        ),
    })
}

fn seeds(section: &Section<'_>) -> String {
    let mut text = match section.seeds.as_slice() {
        [] => "no seed was run by every row: means are over each row's own seeds".to_string(),
        [seed] => format!("one seed, {seed}"),
        seeds if section.is_over_splits() => format!(
            "means over seeds {} ± standard deviation, each with a split of its own; intervals by Student's t over splits, widened for \
             what they share (Nadeau and Bengio 2003)",
            words::seeds(seeds)
        ),
        seeds => format!("means over seeds {} ± standard deviation", words::seeds(seeds)),
    };
    if !section.left_out.is_empty() && !section.seeds.is_empty() {
        text += &format!("; left out because not every row ran them: {}", words::seeds(&section.left_out));
    }
    text
}

/// In what the runs differ that the rows are from, where they do.
fn origins(section: &Section<'_>) -> Option<String> {
    let trials = section.rows.iter().flat_map(|row| &row.trials);
    let known = trials.filter_map(|trial| trial.origin.as_ref());
    let origins: BTreeSet<Origin> = known
        .map(|origin| {
            let (time, command) = (String::new(), String::new());
            Origin { time, command, load: None, fit_threads: None, ..origin.clone() }
        })
        .collect();
    let first = origins.first()?;
    let differences: BTreeSet<String> = origins.iter().skip(1).flat_map(|other| first.differences(other)).collect();
    let text = differences.into_iter().collect::<Vec<_>>().join("; ");
    (!text.is_empty()).then(|| format!("rows are from {} programs or machines that differ in {text}", origins.len()))
}

/// Program, command, profile, machine, date; of the last run.
pub fn made_by(manifest: &Manifest) -> String {
    let command = if manifest.command.is_empty() { String::new() } else { format!("`{}`", manifest.command) };
    words::join(&[
        words::program(manifest),
        command,
        format!("profile {}", manifest.profile),
        words::machine(manifest),
        manifest.started.clone(),
    ])
}
