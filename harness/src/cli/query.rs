//! `xmbench query`: one query, answered by rows of a recording.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use candle_core::Device;
use serde_json::json;
use xmbench_datasets::{
    Collection, Dataset, Images, Texts,
    text::{UNKNOWN, Vocabulary, words as words_of},
};
use xmbench_methods::{Codes, Matcher};

use super::{Status, report::newest};
use crate::{
    output::{answer, json as to_json, quoted, tell},
    protocol::{Direction, Found},
    record::{Control, Outcome, Recording, Trial, files, kept, store, words},
    report::explore::{
        answer::{Answered, Item, Page, Query},
        items,
    },
    retrieval::index,
    run::{Methods, nearest},
};

#[derive(clap::Args)]
pub struct Args {
    /// What to look for: words of a test caption, or any words where the recording keeps matchers
    #[arg(required_unless_present = "image")]
    text: Option<String>,
    /// An image of the test split that looks for texts: its identifier, or its position from 0
    #[arg(long, value_name = "ID", conflicts_with = "text")]
    image: Option<String>,
    /// Rows as tables name them, with commas between; the first two that can answer when absent
    #[arg(long, value_name = "ROW,..")]
    rows: Option<String>,
    /// The recording's folder; the newest under results/ when absent
    #[arg(long, value_name = "DIR")]
    recording: Option<PathBuf>,
    /// The dataset, as tables call it; the first that has the rows when absent
    #[arg(long, value_name = "LABEL")]
    dataset: Option<String>,
    /// Of this experiment alone
    #[arg(long, value_name = "NAME")]
    experiment: Option<String>,
    /// Where datasets lie that are not built in; the variable XMBENCH_DATA when absent
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Items a row
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=kept::BEST as i64))]
    top: u16,
    /// Write the answer as a page with pictures
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, methods: &Methods) -> Result<Status> {
    let folder = args.recording.clone().map_or_else(newest, Ok)?;
    let recording = store::read(&folder)?;
    let rows = args.chosen(&recording)?;
    let data = super::data_folder(args.data_dir.clone());
    let dataset = items::open(&recording, rows[0], data.as_deref()).map_err(|reason| {
        anyhow::anyhow!("the captions of dataset {} are not at hand: {reason}", quoted(&rows[0].dataset))
    })?;
    let split = |split| dataset.split(split).with_context(|| format!("the dataset has no split `{split}`"));
    let (asked, searched) = (split(rows[0].protocol.split)?, split(rows[0].protocol.gallery())?);
    let place = Place { folder: &folder, dataset: &dataset, asked, searched, top: args.top.into() };
    let page = match (&args.image, &args.text) {
        (Some(image), _) => place.recorded(Direction::I2t, image_of(asked, image)?, &rows, &[])?,
        (None, text) => {
            let text = text.as_deref().unwrap_or_default();
            match texts_of(asked, text).split_first() {
                Some((&first, others)) => place.recorded(Direction::T2i, first, &rows, others)?,
                None => place.in_words(text, &rows, methods)?,
            }
        }
    };
    if args.json {
        answer(&to_json(&page.json()))?;
    } else {
        answer(&page.text())?;
    }
    if let Some(file) = &args.html {
        files::replace_with_unsynced(file, page.html(searched, asked)?.as_bytes())
            .with_context(|| format!("cannot write {}", file.display()))?;
        if !args.json {
            tell(&format!("page: {}", file.display()));
        }
    }
    Ok(if page.rows.iter().any(|row| row.outcome.is_ok()) { Status::Done } else { Status::Failed })
}

impl Args {
    /// One trial a row, all on one dataset under one protocol.
    fn chosen<'a>(&self, recording: &'a Recording) -> Result<Vec<&'a Trial>> {
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        let of = |trial: &&Trial| {
            is(&self.dataset, &trial.dataset)
                && is(&self.experiment, &trial.experiment)
                && trial.control == Control::None
                && trial.outcome == Outcome::Done
        };
        let all: Vec<&Trial> = recording.trials.iter().filter(of).collect();
        if all.is_empty() {
            let known = recording.trials.iter().flat_map(|trial| [trial.dataset.as_str(), &trial.experiment]);
            let asked = self.dataset.as_deref().or(self.experiment.as_deref()).unwrap_or_default();
            bail!("the recording has no row of these{}", nearest(asked, known));
        }
        let trials: Vec<&Trial> = all.iter().copied().filter(|trial| trial.kept.is_some()).collect();
        if trials.is_empty() {
            bail!(
                "no row of these keeps its best items: an earlier version recorded them, or `--lean` was given; run them anew into \
                 another folder"
            );
        }
        let Some(wanted) = &self.rows else {
            let first = trials[0];
            let mut rows: Vec<&Trial> = trials.iter().copied().filter(|it| together(first, it)).collect();
            rows.dedup_by_key(|trial| words::row(trial));
            rows.truncate(2);
            return Ok(rows);
        };
        let names: Vec<String> = trials.iter().map(|trial| words::row(trial)).collect();
        let wanted = cut(wanted, &names)?;
        // The first experiment and dataset that have all of them.
        let rows = trials.iter().find_map(|first| {
            let of = |name: &String| trials.iter().copied().find(|it| together(first, it) && words::row(it) == *name);
            wanted.iter().map(of).collect::<Option<Vec<&Trial>>>()
        });
        rows.context("no experiment of the recording has all of these rows on one dataset; name fewer with --rows")
    }
}

/// Whether two trials answer the same queries from the same gallery.
fn together(a: &Trial, b: &Trial) -> bool {
    let same = |a: &Trial| (a.experiment.clone(), a.checksum.clone(), a.protocol.split, a.protocol.gallery());
    same(a) == same(b)
}

/// Names between commas, some of which hold commas themselves.
fn cut(text: &str, names: &[String]) -> Result<Vec<String>> {
    let parts: Vec<&str> = text.split(',').collect();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < parts.len() {
        let longest = (at + 1..=parts.len()).rev().find_map(|end| {
            let name = parts[at..end].join(",").trim().to_string();
            names.contains(&name).then_some((end, name))
        });
        let Some((end, name)) = longest else {
            let part = parts[at].trim();
            bail!(
                "the recording keeps best items of no row {}{}",
                quoted(part),
                nearest(part, names.iter().map(String::as_str))
            );
        };
        found.push(name);
        at = end;
    }
    Ok(found)
}

/// The position of an image in its split.
fn image_of(asked: &Collection, wanted: &str) -> Result<usize> {
    let ids = &asked.images.ids;
    if let Some(at) = ids.iter().position(|id| id == wanted) {
        return Ok(at);
    }
    if let Some(at) = wanted.parse().ok().filter(|at| *at < ids.len()) {
        return Ok(at);
    }
    let hint = nearest(wanted, ids.iter().map(String::as_str));
    bail!("no image {}: expected an identifier, or a position from 0 to {}{hint}", quoted(wanted), ids.len() - 1)
}

/// Positions of the texts that are these words, or hold them, the shortest first.
fn texts_of(asked: &Collection, wanted: &str) -> Vec<usize> {
    let wanted = words_of(wanted).join(" ");
    let holds =
        |at: &usize| format!(" {} ", words_of(&items::text(asked, *at)).join(" ")).contains(&format!(" {wanted} "));
    let mut found: Vec<usize> = (0..asked.texts.len()).filter(holds).collect();
    found.sort_by_key(|&at| items::text(asked, at).chars().count());
    found
}

/// Where answers come from.
struct Place<'a> {
    folder: &'a Path,
    dataset: &'a Dataset,
    asked: &'a Collection,
    searched: &'a Collection,
    top: usize,
}

impl Place<'_> {
    fn item(&self, direction: Direction, found: &Found) -> Item {
        let at = found.item as usize;
        Item {
            place: 0,
            rank: found.rank,
            item: at,
            name: match direction {
                Direction::I2t => items::text(self.searched, at),
                Direction::T2i => items::image(self.searched, at),
            },
            caption: match direction {
                Direction::I2t => String::new(),
                Direction::T2i => self.captions(self.searched, at),
            },
            score: found.score,
            own: Some(found.own),
        }
    }

    /// What the texts of an image say.
    fn captions(&self, collection: &Collection, image: usize) -> String {
        if image >= collection.images.len() {
            return String::new();
        }
        let texts = collection.pairs.texts_of(image).iter().map(|&text| items::text(collection, text as usize));
        texts.collect::<Vec<_>>().join(" / ")
    }

    /// A query of the test split, from what was kept.
    fn recorded(&self, direction: Direction, query: usize, rows: &[&Trial], others: &[usize]) -> Result<Page> {
        let (said, kind) = match direction {
            Direction::I2t => (items::image(self.asked, query), "image"),
            Direction::T2i => (items::text(self.asked, query), "text"),
        };
        let mut notes = Vec::new();
        if !others.is_empty() {
            let shown: Vec<String> =
                others.iter().take(3).map(|&at| format!("“{}”", items::text(self.asked, at))).collect();
            notes.push(format!("{} more test captions hold these words: {}", others.len(), shown.join(", ")));
        }
        if direction == Direction::I2t {
            notes.push(format!("its captions: {}", self.captions(self.asked, query)));
        }
        let mut answered = Vec::new();
        for trial in rows {
            let found = kept::read(self.folder, trial)?.unwrap_or_default();
            let of: Vec<&Found> =
                found.iter().filter(|it| it.direction == direction && it.query as usize == query).collect();
            let gallery = match direction {
                Direction::I2t => self.searched.texts.len(),
                Direction::T2i => self.searched.images.len(),
            };
            if let Some(beyond) = of.iter().find(|it| it.item as usize >= gallery) {
                bail!(
                    "row {}: item {} of a gallery of {gallery}; `xmbench check` says more",
                    words::row(trial),
                    beyond.item
                );
            }
            let best = of.iter().take(self.top.min(kept::BEST)).enumerate();
            let items = best.map(|(at, it)| Item { place: at + 1, ..self.item(direction, it) }).collect();
            let own = of.iter().filter(|it| it.own).map(|it| self.item(direction, it)).collect();
            let rank = trial.queries.iter().find(|it| it.direction == direction && it.query as usize == query);
            let rank = rank.map(|it| {
                let standing = crate::protocol::Standing {
                    better: it.better as usize,
                    tied: it.tied as usize,
                    own: it.own as usize,
                };
                standing.rank(trial.protocol.ties) + 1.0
            });
            let outcome = if of.is_empty() { Err("it kept nothing of this query".into()) } else { Ok(items) };
            answered.push(Answered { row: name(trial), gallery, outcome, own, rank });
        }
        let query = Query { direction, at: Some(query), said, what: format!("{kind} {query} of the split that asks") };
        Ok(Page { dataset: self.dataset.name.clone(), query, notes, rows: answered, attribution: self.attribution() })
    }

    /// Words of one's own, through the matchers.
    fn in_words(&self, text: &str, rows: &[&Trial], methods: &Methods) -> Result<Page> {
        let vocabulary = Vocabulary::of(self.dataset)
            .with_context(|| format!("no test caption holds {}, and the dataset has no vocabulary", quoted(text)))?;
        let words = words_of(text);
        if words.is_empty() {
            bail!("there is no word in {}", quoted(text));
        }
        let mut texts = vocabulary.texts(vec!["query".into()], vec![text.into()]);
        texts.word_vectors.clone_from(&self.asked.texts.word_vectors);
        let numbers = texts.tokens.iter().flatten().flatten().skip(1);
        let unknown: Vec<String> =
            words.iter().zip(numbers).filter(|(_, number)| **number == UNKNOWN).map(|(word, _)| quoted(word)).collect();
        let mut notes = vec!["no test caption holds these words: the rows' matchers are asked".to_string()];
        if unknown.len() == words.len() {
            bail!("no training caption holds {}: the methods have not learnt these words", unknown.join(", "));
        }
        if !unknown.is_empty() {
            notes.push(format!("unknown, no training caption holds them: {}", unknown.join(", ")));
        }
        let answered = rows.iter().map(|trial| {
            let outcome = self.asked_in_words(trial, &texts, methods).map_err(|error| format!("{error:#}"));
            Answered { row: name(trial), gallery: self.searched.images.len(), outcome, own: Vec::new(), rank: None }
        });
        let query = Query {
            direction: Direction::T2i,
            at: None,
            said: text.into(),
            what: "words of your own; nothing belongs to them".into(),
        };
        let rows = answered.collect();
        Ok(Page { dataset: self.dataset.name.clone(), query, notes, rows, attribution: self.attribution() })
    }

    fn asked_in_words(&self, trial: &Trial, texts: &Texts, methods: &Methods) -> Result<Vec<Item>> {
        if trial.is_made_of_others() {
            bail!("it is made of other rows: ask those");
        }
        let folder = store::matcher(self.folder, &trial.id);
        files::no_link(folder.parent().unwrap_or(self.folder))?;
        files::no_link(&folder)?;
        if !folder.is_dir() {
            bail!(
                "its matcher is not in the recording (`--lean`, a method that reads no words, or one too large): name words of a test caption"
            );
        }
        let method = methods.find(&trial.method)?;
        if method.card().runs_programs {
            bail!("it runs a program: name words of a test caption");
        }
        let matcher = method.load(&folder, &Device::Cpu)?;
        let (query, gallery) = codes(&*matcher, texts, &self.searched.images)?;
        let search = index(&gallery, matcher.similarity(), Direction::T2i)?;
        let found = search.search(&query, 0..1, self.top)?;
        let item = |(at, (&item, &score)): (usize, (&u32, &f32))| {
            let rank = (at + 1) as f64;
            let found = Found { direction: Direction::T2i, query: 0, item, score, rank, own: false };
            Item { place: at + 1, own: None, ..self.item(Direction::T2i, &found) }
        };
        Ok(found.items.iter().zip(&found.scores).enumerate().map(item).collect())
    }

    fn attribution(&self) -> String {
        self.dataset.notice.attribution.clone()
    }
}

fn codes(matcher: &dyn Matcher, texts: &Texts, images: &Images) -> Result<(Codes, Codes)> {
    Ok((matcher.encode_texts(texts)?, matcher.encode_images(images)?))
}

fn name(trial: &Trial) -> String {
    format!("{} ({}, seed {})", words::row(trial), trial.experiment, trial.seed)
}

impl Page {
    /// The answer for a terminal.
    fn text(&self) -> String {
        let mut lines = vec![format!("“{}”: {}, dataset {}", self.query.said, self.query.what, self.dataset)];
        lines.extend(self.notes.iter().cloned());
        for row in &self.rows {
            lines.push(String::new());
            lines.push(format!("{}: {}", row.row, row.summary()));
            let Ok(items) = &row.outcome else { continue };
            let heads = if self.query.direction == Direction::T2i {
                ["", "RANK", "SCORE", "IMAGE", "CAPTIONS"].to_vec()
            } else {
                ["", "RANK", "SCORE", "TEXT"].to_vec()
            };
            let mut table = vec![heads.into_iter().map(str::to_string).collect::<Vec<_>>()];
            for item in items {
                let sign = if item.own == Some(true) { "*" } else { "" };
                let cut = |text: &str| crate::output::short(text, 100).into_owned();
                let mut cells = vec![sign.into(), item.ranked(), format!("{:.4}", item.score), cut(&item.name)];
                if self.query.direction == Direction::T2i {
                    cells.push(cut(&item.caption));
                }
                table.push(cells);
            }
            lines.push(super::table(&table));
        }
        if self
            .rows
            .iter()
            .any(|row| row.outcome.as_ref().is_ok_and(|items| items.iter().any(|it| it.own == Some(true))))
        {
            lines.push("\n* belongs to the query".into());
        }
        lines.join("\n")
    }

    fn json(&self) -> serde_json::Value {
        let item = |it: &Item| {
            json!({
                "place": it.place, "rank": it.rank, "item": it.item, "name": it.name, "captions": it.caption, "score": it.score,
                "own": it.own,
            })
        };
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| match &row.outcome {
                Ok(items) => json!({
                    "row": row.row, "gallery": row.gallery, "rank": row.rank, "items": items.iter().map(item).collect::<Vec<_>>(),
                    "own": row.own.iter().map(|it| json!({ "item": it.item, "name": it.name, "rank": it.rank })).collect::<Vec<_>>(),
                }),
                Err(reason) => json!({ "row": row.row, "reason": reason }),
            })
            .collect();
        json!({
            "dataset": self.dataset, "query": self.query.said, "position": self.query.at, "direction": self.query.direction,
            "notes": self.notes, "rows": rows,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_commas() {
        let names = ["SCAN t2i", "SCAN, both directions", "VSE++"].map(String::from);
        assert_eq!(cut("SCAN, both directions, VSE++", &names).unwrap(), ["SCAN, both directions", "VSE++"]);
        let error = cut("VSE++,SCAN t2", &names).unwrap_err().to_string();
        assert!(error.contains("no row `SCAN t2`; did you mean `SCAN t2i`?"), "{error}");
    }
}
