//! `explore.html`: single queries, answered by two rows side by side, in one file that needs no network.
//!
//! The page's data are one block of JSON. What stands first for each query is packed: item numbers, scores as steps between a row's
//! lowest and highest, and ranks, little-endian in base64. `explore.js` draws everything from it; it makes elements and text nodes, and
//! reads no markup.

pub mod answer;
pub mod items;
mod looks;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::Result;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use xmbench_datasets::{Collection, Dataset, Labels, Split};
use xmbench_methods::card::Card;

use self::looks::Sample;
use super::export::escape;
use crate::{
    output::{plain, short},
    protocol::{Direction, Found, Standing, Task},
    record::{Control, Outcome, Recording, Trial, kept, words},
};

/// Items that are shown of a query.
const SHOWN: usize = 8;

/// Bytes that the page has at most; rows that would go beyond are left out and named.
const MOST: usize = 9_500_000;

/// What the page is made of beside the recording's numbers.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The recording's folder, which has the best items.
    pub folder: &'a Path,
    /// Where datasets lie that are not built in.
    pub data: Option<&'a Path>,
}

/// Rows that answer the same queries from the same gallery.
struct Set<'a> {
    experiment: &'a str,
    dataset: &'a str,
    trials: Vec<&'a Trial>,
}

/// The page, or nothing where the recording keeps no best items.
///
/// # Errors
/// If what was kept is damaged, or a picture cannot be encoded.
pub fn page(recording: &Recording, source: Source<'_>) -> Result<Option<String>> {
    let sets = sets(recording);
    if sets.is_empty() {
        return Ok(None);
    }
    let mut collections = Collections::default();
    // All captions and pictures first, so that rows fill what is left.
    let mut shown = Vec::new();
    for set in &sets {
        let first = set.trials[0];
        let opened = collections.dataset(recording, first, source.data);
        let mut add = |split: Split| collections.add(first, split, opened.as_ref().as_ref().ok());
        let places = [add(first.protocol.split)?, add(first.protocol.gallery())?];
        shown.push((opened, places));
    }
    let mut out = Vec::new();
    let mut used = 0;
    let mut left_out = Vec::new();
    for (set, (opened, [asked, searched])) in sets.iter().zip(&shown) {
        let first = set.trials[0];
        let (dataset, absent) = match &**opened {
            Ok(dataset) => (Some(dataset), None),
            Err(reason) => (None, Some(reason.as_str())),
        };
        let (queries, gallery) = sizes(recording, first, dataset);
        let pairs = matches!(first.protocol.task, Task::Pairs { .. });
        let asking = dataset.and_then(|dataset| Some((dataset, dataset.split(first.protocol.split)?)));
        let sample = asking.filter(|_| pairs).and_then(|(dataset, asked)| Sample::of(dataset, asked));
        used += sample.as_ref().map_or(0, |sample| sample.value().to_string().len());
        let mut rows = Vec::new();
        let mut own = Value::Null;
        for trial in &set.trials {
            let found = kept::read(source.folder, trial)?.unwrap_or_default();
            // The positions of a stranger's recording may lead beyond what is there.
            let within = |it: &Found| {
                let side = usize::from(it.direction == Direction::T2i);
                (it.query as usize) < queries[side] && (it.item as usize) < gallery[1 - side]
            };
            let found: Vec<Found> = found.into_iter().filter(within).collect();
            let belongs = own_items(&found, queries);
            let mut row = row(trial, &found, pairs.then_some(&belongs), (queries, gallery));
            row["looks"] = match sample.as_ref().map(|sample| sample.row(trial, source.folder)) {
                Some(Ok(Some(looks))) => looks,
                // A stranger's recording, or one of another version: the rest of the page does without.
                Some(Err(reason)) => json!({ "absent": short(&plain(&format!("{reason:#}")), 300) }),
                Some(Ok(None)) | None => Value::Null,
            };
            let size = row.to_string().len();
            if used + collections.bytes + size > MOST {
                left_out.push(format!("{} ({}, {})", words::row(trial), trial.experiment, trial.dataset));
                continue;
            }
            used += size;
            if pairs && own.is_null() {
                own = json!(belongs.map(|lists| packed_lists(&lists)));
                used += own.to_string().len();
            }
            rows.push(row);
        }
        if rows.is_empty() {
            continue;
        }
        let note = recording.manifest.experiments.get(set.experiment);
        let title = note.map(|note| note.title.clone()).filter(|title| !title.is_empty());
        let data = recording.manifest.datasets.get(set.dataset).filter(|note| note.checksum == first.checksum);
        out.push(json!({
            "title": plain(&title.unwrap_or_else(|| set.experiment.to_string())),
            "experiment": plain(set.experiment),
            "dataset": plain(set.dataset),
            "absent": absent,
            "attribution": data.map(|note| plain(&note.attribution)),
            "caveat": data.map(|note| plain(&note.caveat)),
            "classes": dataset.map(|dataset| dataset.classes.iter().map(|name| plain(name).into_owned()).collect::<Vec<_>>()).unwrap_or_default(),
            "task": if pairs { "pairs" } else { "category" },
            "sample": sample.as_ref().map(Sample::value),
            "asked": asked, "searched": searched,
            "queries": queries, "gallery": gallery, "own": own, "rows": rows,
        }));
    }
    if out.is_empty() {
        return Ok(None);
    }
    let cards = cards(&sets);
    let data = json!({
        "shown": SHOWN, "side": items::SIDE, "columns": items::COLUMNS,
        "profile": plain(&recording.manifest.profile), "started": plain(&recording.manifest.started),
        "collections": collections.out, "cards": cards, "sets": out, "leftOut": left_out,
    });
    Ok(Some(html(&data)))
}

/// Every row that keeps best items, with one seed each, gathered by what it answers.
fn sets(recording: &Recording) -> Vec<Set<'_>> {
    let mut sets: Vec<Set<'_>> = Vec::new();
    let looked_at =
        |trial: &&Trial| trial.kept.is_some() && trial.control == Control::None && trial.outcome == Outcome::Done;
    for trial in recording.trials.iter().filter(looked_at) {
        let same = |set: &&mut Set<'_>| {
            let first = set.trials[0];
            let key = |it: &Trial| (it.checksum.clone(), it.protocol.split, it.protocol.gallery(), it.protocol.ties);
            (set.experiment, set.dataset) == (&trial.experiment, &trial.dataset) && key(first) == key(trial)
        };
        match sets.iter_mut().find(same) {
            // Seeds of a row lie behind each other, the smallest first.
            Some(set) if set.trials.iter().any(|it| words::row(it) == words::row(trial)) => {}
            Some(set) => set.trials.push(trial),
            None => sets.push(Set { experiment: &trial.experiment, dataset: &trial.dataset, trials: vec![trial] }),
        }
    }
    sets
}

/// Images and texts that ask, and that are searched.
fn sizes(recording: &Recording, trial: &Trial, dataset: Option<&Dataset>) -> ([usize; 2], [usize; 2]) {
    let note = recording.manifest.datasets.get(&trial.dataset).filter(|note| note.checksum == trial.checksum);
    let of = |split: Split| match dataset.and_then(|dataset| dataset.split(split)) {
        Some(collection) => [collection.images.len(), collection.texts.len()],
        None => note.and_then(|note| note.sizes.get(&split.to_string())).copied().unwrap_or_default(),
    };
    // Where nothing is known of the data, what the recording itself has of queries bounds them.
    let asked = of(trial.protocol.split);
    let most = trial.queries.len();
    (asked.map(|size| size.min(most)), of(trial.protocol.gallery()))
}

/// The items of each split that is shown, once.
#[derive(Default)]
struct Collections {
    out: Vec<Value>,
    places: BTreeMap<(String, Split), usize>,
    datasets: BTreeMap<String, std::rc::Rc<Result<Dataset, String>>>,
    bytes: usize,
}

impl Collections {
    fn dataset(
        &mut self,
        recording: &Recording,
        trial: &Trial,
        data: Option<&Path>,
    ) -> std::rc::Rc<Result<Dataset, String>> {
        let open = || std::rc::Rc::new(items::open(recording, trial, data));
        self.datasets.entry(trial.checksum.clone()).or_insert_with(open).clone()
    }

    /// The place of a split among the collections; nothing where the data are not at hand.
    fn add(&mut self, trial: &Trial, split: Split, dataset: Option<&Dataset>) -> Result<Option<usize>> {
        let Some(collection) = dataset.and_then(|dataset| dataset.split(split)) else { return Ok(None) };
        let key = (trial.checksum.clone(), split);
        if let Some(place) = self.places.get(&key) {
            return Ok(Some(*place));
        }
        let mut one = collection_of(collection);
        let all: Vec<usize> = (0..collection.images.len()).collect();
        if let Some(png) = items::sprite(collection, &all)?
            && self.bytes + png.len() * 4 / 3 < MOST / 2
        {
            one["pictures"] = format!("data:image/png;base64,{}", STANDARD.encode(png)).into();
        }
        self.bytes += one.to_string().len();
        self.places.insert(key, self.out.len());
        self.out.push(one);
        Ok(Some(self.out.len() - 1))
    }
}

fn collection_of(collection: &Collection) -> Value {
    let classes = |labels: &Option<Labels>| labels.as_ref().map(|labels| labels.of.clone());
    json!({
        "images": (0..collection.images.len()).map(|at| items::image(collection, at)).collect::<Vec<_>>(),
        "texts": (0..collection.texts.len()).map(|at| items::text(collection, at)).collect::<Vec<_>>(),
        "textsOf": (0..collection.images.len()).map(|at| collection.pairs.texts_of(at)).collect::<Vec<_>>(),
        "classes": [classes(&collection.images.labels), classes(&collection.texts.labels)],
        "pictures": null,
    })
}

/// The kept own items of each query, images first, by position.
fn own_items(found: &[Found], queries: [usize; 2]) -> [Vec<Vec<u32>>; 2] {
    let mut lists = queries.map(|queries| vec![Vec::new(); queries]);
    for it in found.iter().filter(|it| it.own) {
        lists[usize::from(it.direction == Direction::T2i)][it.query as usize].push(it.item);
    }
    lists.iter_mut().flatten().for_each(|list| list.sort_unstable());
    lists
}

/// Lists as where each begins and what is in them.
fn packed_lists(lists: &[Vec<u32>]) -> Value {
    let ends = lists.iter().scan(0, |sum, list| {
        *sum += list.len() as u32;
        Some(*sum)
    });
    let starts: Vec<u32> = std::iter::once(0).chain(ends).collect();
    json!({ "starts": pack(starts), "items": pack(lists.iter().flatten().copied()) })
}

fn pack(values: impl IntoIterator<Item = u32>) -> String {
    STANDARD.encode(values.into_iter().flat_map(u32::to_le_bytes).collect::<Vec<u8>>())
}

fn pack_short(values: impl IntoIterator<Item = u16>) -> String {
    STANDARD.encode(values.into_iter().flat_map(u16::to_le_bytes).collect::<Vec<u8>>())
}

fn pack_real(values: impl IntoIterator<Item = f32>) -> String {
    STANDARD.encode(values.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>())
}

/// A row of the page: packed lists of both directions.
fn row(
    trial: &Trial,
    found: &[Found],
    own: Option<&[Vec<Vec<u32>>; 2]>,
    (queries, gallery): ([usize; 2], [usize; 2]),
) -> Value {
    let side = |direction: Direction| {
        let (asks, other) = if direction == Direction::I2t { (0, 1) } else { (1, 0) };
        let shown = SHOWN.min(gallery[other]);
        let count = queries[asks];
        let mut lists: Vec<Vec<&Found>> = vec![Vec::new(); count];
        for it in found.iter().filter(|it| it.direction == direction) {
            lists[it.query as usize].push(it);
        }
        let best = || lists.iter().flat_map(|list| (0..shown).map(move |at| list.get(at).copied()));
        let finite = || best().flatten().map(|it| it.score).filter(|score| score.is_finite());
        let (low, high) =
            finite().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), it| (low.min(it), high.max(it)));
        let span = if high > low { f64::from(high) - f64::from(low) } else { 1.0 };
        let step =
            |score: f32| ((f64::from(score) - f64::from(low)) / span * 65535.0).round().clamp(0.0, 65535.0) as u16;
        let item = |it: Option<&Found>| it.map_or(u32::MAX, |it| it.item);
        let narrow = gallery[other] < usize::from(u16::MAX);
        let items = match narrow {
            true => pack_short(best().map(|it| u16::try_from(item(it)).unwrap_or(u16::MAX))),
            false => pack(best().map(item)),
        };
        let marks: Vec<u8> = lists
            .iter()
            .map(|list| {
                list.iter().take(shown).enumerate().filter(|(_, it)| it.own).fold(0, |bits, (at, _)| bits | 1 << at)
            })
            .collect();
        let mut ranks = vec![0.0; count];
        for query in trial.queries.iter().filter(|query| query.direction == direction) {
            if let Some(rank) = ranks.get_mut(query.query as usize) {
                let standing =
                    Standing { better: query.better as usize, tied: query.tied as usize, own: query.own as usize };
                // A query without own items finds none.
                *rank = if query.own == 0 { 0.0 } else { (standing.rank(trial.protocol.ties) + 1.0) as f32 };
            }
        }
        let each = own.map(|own| {
            let rank = |(query, item): (usize, u32)| {
                lists[query].iter().find(|it| it.own && it.item == item).map_or(0.0, |it| it.rank as f32)
            };
            let all =
                own[asks].iter().enumerate().flat_map(|(query, list)| list.iter().map(move |&item| (query, item)));
            pack_real(all.map(rank))
        });
        json!({
            "shown": shown, "narrow": narrow, "items": items, "scores": pack_short(best().map(|it| it.map_or(0, |it| step(it.score)))),
            "low": if low.is_finite() { low } else { 0.0 }, "high": if high.is_finite() { high } else { 0.0 },
            "marks": STANDARD.encode(marks), "ranks": pack_real(ranks), "each": each,
        })
    };
    json!({
        "name": plain(&words::row(trial)), "method": plain(&trial.method), "seed": trial.seed,
        "remark": plain(&trial.remark), "sides": [side(Direction::I2t), side(Direction::T2i)],
    })
}

include!(concat!(env!("OUT_DIR"), "/equations.rs"));

/// What stands under a row of each method: paper, code, and the equations at the head of its source.
fn cards(sets: &[Set<'_>]) -> BTreeMap<String, Value> {
    let names: BTreeSet<&str> =
        sets.iter().flat_map(|set| set.trials.iter().map(|trial| trial.method.as_str())).collect();
    let known = names.into_iter().filter_map(|name| Some((name, xmbench_methods::registry::find(name)?.card())));
    known.map(|(name, card)| (name.to_string(), card_of(card))).collect()
}

fn card_of(card: &Card) -> Value {
    let source = EQUATIONS.iter().find(|(name, ..)| *name == card.name);
    let code: Vec<Value> =
        card.code.iter().map(|code| json!({ "name": code.short(), "address": code.address() })).collect();
    let paper = match card.identifier.as_str() {
        doi if doi.starts_with("10.") => format!("https://doi.org/{doi}"),
        arxiv => arxiv.strip_prefix("arXiv:").map(|id| format!("https://arxiv.org/abs/{id}")).unwrap_or_default(),
    };
    json!({
        "label": card.label, "cited": format!("{}. {}. {}, {}.", card.authors, card.title, card.venue, card.year),
        "paper": paper, "identifier": card.identifier, "code": code,
        "path": source.map(|(_, path, ..)| *path), "line": source.map(|(_, _, line, _)| *line),
        "equations": source.map(|(.., text)| *text),
    })
}

/// JSON that stands in a page: nothing in it ends the block or begins markup.
fn block(data: &Value) -> String {
    data.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

fn html(data: &Value) -> String {
    let style = format!("{}{}", include_str!("../page.css"), include_str!("explore.css"));
    let script = include_str!("explore.js");
    let hash = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text.as_bytes())));
    // Nothing but this style and this script, and no address to ask for anything.
    let policy = format!(
        "default-src 'none'; img-src data:; style-src {}; script-src {}; base-uri 'none'; form-action 'none'",
        hash(&style),
        hash(script)
    );
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta http-equiv=\"Content-Security-Policy\" content=\"{}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>xmbench: query by query</title>\n\
         <style>{style}</style>\n</head>\n<body class=\"explore\">\n{}<script type=\"application/json\" id=\"data\">{}</script>\n\
         <script>{script}</script>\n</body>\n</html>\n",
        escape(&policy),
        include_str!("explore.html"),
        block(data)
    )
}

#[cfg(test)]
mod tests;
