//! `xmbench data`: what there is to read, how to get it, what is in a dataset. How one is made of pictures is in `extract`.

use std::{
    collections::BTreeMap,
    io::IsTerminal,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use xmbench_datasets::{
    Dataset, Severity, Source, Split,
    get::{Checked, Set, State, check, sets},
    sources,
};

use super::{Status, extract, list, table};
use crate::{
    output::{answer, json as to_json},
    record::words,
};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

/// What stands below the options of `get`.
const GET_HELP: &str = "\
nothing is downloaded. A file is held against its length and SHA-256 where these are known: of files that recorded numbers were made on.

exit codes: 0 done; 1 something in DIR is not what it should be or, with --data-dir, no form of the set is complete there; 2 wrong usage";

#[derive(Subcommand)]
enum Command {
    /// Show the datasets, with every option and its default
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say where a set is to be had, under which terms and which files are wanted, and check what is there
    #[command(after_help = GET_HELP)]
    Get {
        /// The set or dataset; all of them when absent
        name: Option<String>,
        /// The folder that is looked into; the variable XMBENCH_DATA when absent
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Open a dataset and show its splits, representations and terms
    Show(Named),
    /// Say what a file or folder is recognised as, and why
    Inspect {
        /// The file or folder
        path: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a dataset of a folder of pictures with captions: features by a frozen network
    #[command(after_help = extract::HELP)]
    Extract(Box<extract::Args>),
    /// Look for overlap, near duplicates, leaks and bad values; exit code 1 when something is wrong
    Audit {
        #[command(flatten)]
        named: Named,
        /// Number of images that a split must have: test=1000
        #[arg(long, value_name = "SPLIT=N")]
        expect: Vec<String>,
    },
}

/// A dataset with its options.
#[derive(clap::Args)]
struct Named {
    /// The dataset
    name: String,
    /// Options of the dataset: split=random
    #[arg(value_name = "KEY=VALUE")]
    options: Vec<String>,
    /// Where datasets lie that are not built in; the variable XMBENCH_DATA when absent
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// The threads that were asked for, of a command that computes over them.
    pub fn threads(&self) -> Option<Option<NonZeroUsize>> {
        match &self.command {
            Command::Extract(args) => Some(args.threads),
            _ => None,
        }
    }
}

pub fn run(args: &Args) -> Result<Status> {
    match &args.command {
        Command::List { json: true } => answer(&to_json(&list::datasets_json()))?,
        Command::List { json: false } => answer(&listing())?,
        Command::Get { name, data_dir, json } => return get(name.as_deref(), data_dir.clone(), *json),
        Command::Show(named) => show(&open(named)?, named.json)?,
        Command::Inspect { path, json } => inspect(path, *json)?,
        Command::Extract(args) => return extract::run(args),
        Command::Audit { named, expect } => return audit(named, expect),
    }
    Ok(Status::Done)
}

fn listing() -> String {
    let block = |source: &Source| {
        let mut rows: Vec<Vec<String>> = Vec::new();
        for option in source.options {
            let default = json!(option.default);
            let default = default.as_str().map_or_else(|| default.to_string(), str::to_string);
            rows.push(vec![format!("  {}", option.name), default, option.doc.to_string()]);
        }
        let offers = source.representations.join(", ");
        format!("{}: {}\n  offers {offers}\n{}", source.name, source.doc, table(&rows)).trim_end().to_string()
    };
    sources().iter().map(block).collect::<Vec<_>>().join("\n\n")
}

fn get(name: Option<&str>, asked: Option<PathBuf>, as_json: bool) -> Result<Status> {
    let set = name.and_then(|name| sets().into_iter().find(|set| set.name == name));
    let Some(set) = set else {
        answer(&how_to_get(name)?)?;
        return Ok(Status::Done);
    };
    let explicit = asked.is_some();
    let folder = super::data_folder(asked);
    let checked = folder.as_deref().map(|folder| check(&set, folder)).transpose()?;
    match as_json {
        true => answer(&to_json(&json!({ "set": set, "folder": folder, "found": checked })))?,
        false => answer(&described(&set, folder.as_deref(), checked.as_deref()))?,
    }
    let layouts = checked.unwrap_or_default();
    let wrong = layouts.iter().flat_map(|layout| &layout.files).any(|(_, state)| is_wrong(state));
    let complete = layouts.iter().any(|layout| layout.complete);
    Ok(if wrong || (explicit && !complete) { Status::Failed } else { Status::Done })
}

fn is_wrong(state: &State) -> bool {
    matches!(state, State::Length { .. } | State::Content { .. } | State::Unreadable(_))
}

/// A set in words: where it is from, and what of it is in a folder.
fn described(set: &Set, folder: Option<&Path>, checked: Option<&[Checked]>) -> String {
    let mut lines = vec![format!("{}: {}", set.name, set.title), format!("what: {}", set.what)];
    lines.extend(set.places.iter().map(|place| format!("where: {place}")));
    lines.push(format!("terms: {}", set.terms));
    for (number, layout) in set.layouts.iter().enumerate() {
        let folders = layout.folders.iter().map(|name| format!("{name}/")).collect::<Vec<_>>().join(" or ");
        lines.push(format!("\n{}, in the data folder or in {folders} there:", layout.title));
        let found = checked.map(|checked| &checked[number]);
        let mut rows = Vec::new();
        for (place, file) in layout.files.iter().enumerate() {
            let state = found.map_or(String::new(), |found| in_words(&found.files[place].1));
            let optional = if file.optional { " (optional)" } else { "" };
            rows.push(vec![format!("  {}", file.name), state, format!("{}{optional}", file.what)]);
            if let (Some(bytes), Some(digest), None) = (file.bytes, &file.sha256, found) {
                rows.push(vec!["  ".into(), String::new(), format!("{bytes} bytes, sha256 {digest}")]);
            }
        }
        if rows.is_empty() {
            lines.push(
                "  arrays of images, texts and labels, known by their names (`xmbench data inspect FILE` says which)"
                    .into(),
            );
        } else {
            lines.push(table(&rows));
        }
        if let Some(found) = found {
            lines.push(match &found.folder {
                None => format!("  nothing of it is in {}", folder.unwrap_or(Path::new("")).display()),
                Some(path) => {
                    let seen = found.recognised.as_ref().map(|seen| format!(" a {} ({})", seen.kind, seen.because));
                    let state = if found.complete { "complete" } else { "not complete" };
                    format!("  {}:{} {state}", path.display(), seen.map(|seen| seen + ",").unwrap_or_default())
                }
            });
        }
        lines.push(format!("  next: {}", found.map_or(&layout.next, |found| &found.next)));
    }
    lines.join("\n")
}

fn in_words(state: &State) -> String {
    match state {
        State::Right => "right: sha256 is the known one".into(),
        State::There => "there".into(),
        State::Missing => "missing".into(),
        State::Length { expected, found } => format!("WRONG: expected {expected} bytes, found {found}"),
        State::Content { expected, found } => format!("WRONG: expected sha256 {expected}, found {found}"),
        State::Unreadable(reason) => format!("WRONG: {reason}"),
    }
}

fn how_to_get(name: Option<&str>) -> Result<String> {
    // `nuswide` is the beginning of two.
    let wanted = |source: &&Source| name.is_none_or(|name| !name.is_empty() && source.name.starts_with(name));
    let exact: Vec<&Source> = sources().iter().filter(|source| name == Some(source.name)).collect();
    let chosen = if exact.is_empty() { sources().iter().filter(wanted).collect() } else { exact };
    if let (Some(name), true) = (name, chosen.is_empty()) {
        let sets = sets();
        let names: Vec<&str> = sets.iter().map(|set| set.name.as_str()).collect();
        let known = names.iter().copied().chain(sources().iter().map(|source| source.name));
        let hint = crate::run::nearest(name, known);
        let names = names.join(", ");
        bail!("no set `{name}`{hint}; sets are {names}; `xmbench data list` shows the datasets that are read");
    }
    let mut lines: Vec<String> = chosen.iter().map(|source| format!("{}: {}", source.name, source.get)).collect();
    if name.is_none() {
        lines.push("\npublic sets, of which `xmbench data get NAME` says where they are and what is wanted:".into());
        lines.extend(sets().iter().map(|set| format!("{}: {}", set.name, set.title)));
    }
    Ok(lines.join("\n"))
}

fn open(named: &Named) -> Result<Dataset> {
    let options = super::assignments(&named.options)?;
    let folder = super::data_folder(named.data_dir.clone());
    Ok(xmbench_datasets::open(&named.name, &options, folder.as_deref())?)
}

fn inspect(path: &Path, as_json: bool) -> Result<()> {
    let found = xmbench_datasets::inspect(path)?;
    if as_json {
        answer(&to_json(&found))?;
    } else {
        let mut lines = vec![format!("{}: {}\nbecause: {}", path.display(), found.kind, found.because)];
        lines.extend(found.content.iter().map(|line| format!("  {line}")));
        lines.push(format!("next: {}", found.next));
        answer(&lines.join("\n"))?;
    }
    Ok(())
}

fn audit(named: &Named, expect: &[String]) -> Result<Status> {
    let mut sizes = BTreeMap::new();
    for entry in expect {
        let parsed = entry.split_once('=').and_then(|(split, n)| {
            let split = serde_json::from_value::<Split>(json!(split)).ok()?;
            Some((split, n.parse::<usize>().ok()?))
        });
        let (split, n) =
            parsed.with_context(|| format!("`{entry}`: expected SPLIT=N with train, val, test or database"))?;
        sizes.insert(split, n);
    }
    let dataset = open(named)?;
    let shown = Shown::new();
    let findings = xmbench_datasets::audit_with(&dataset, &sizes, &|what, done, all| shown.show(what, done, all))?;
    shown.bar.finish_and_clear();
    if named.json {
        answer(&to_json(&findings))?;
    } else {
        for finding in &findings {
            let severity = json!(finding.severity).as_str().unwrap_or_default().to_string();
            answer(&format!("{severity}: {}: {}", finding.check, finding.message))?;
            finding.examples.iter().try_for_each(|example| answer(&format!("  {example}")))?;
        }
        let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
        let warnings = words::counted(findings.len() - errors, "warning");
        answer(&format!("{}: {}, {warnings}", dataset.name, words::counted(errors, "error")))?;
    }
    let wrong = findings.iter().any(|finding| finding.severity == Severity::Error);
    Ok(if wrong { Status::Failed } else { Status::Done })
}

/// How far an audit is: a bar on a terminal, and nothing elsewhere.
struct Shown {
    bar: ProgressBar,
    /// What the bar is of.
    what: Mutex<String>,
}

impl Shown {
    fn new() -> Self {
        let bar = match std::io::stderr().is_terminal() {
            true => ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()),
            false => ProgressBar::hidden(),
        };
        let style = "{bar:24} {pos}/{len} {msg}, {eta_precise} left";
        bar.set_style(ProgressStyle::with_template(style).expect("the template is well-formed"));
        Self { bar, what: Mutex::default() }
    }

    fn show(&self, what: &str, done: usize, all: usize) {
        // Bars are not worth a lock for every item.
        if !done.is_multiple_of(64) && done != all {
            return;
        }
        let mut known = self.what.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != what {
            *known = what.to_owned();
            self.bar.set_message(known.clone());
            self.bar.set_length(all as u64);
            self.bar.set_position(0);
        }
        self.bar.set_position(self.bar.position().max(done as u64));
    }
}

fn show(dataset: &Dataset, as_json: bool) -> Result<()> {
    let splits: Vec<_> = dataset.splits().collect();
    if as_json {
        let sizes: serde_json::Map<String, serde_json::Value> = splits
            .iter()
            .map(|(split, collection)| {
                let sizes = [collection.images.len(), collection.texts.len(), collection.pairs.all().len()];
                (split.to_string(), json!({"images": sizes[0], "texts": sizes[1], "pairs": sizes[2]}))
            })
            .collect();
        return Ok(answer(&to_json(&json!({
            "name": dataset.name, "variant": dataset.variant, "checksum": dataset.checksum, "splits": sizes,
            "words": dataset.words.len(), "classes": dataset.classes, "notice": dataset.notice,
        })))?);
    }
    let mut rows = vec![["SPLIT", "IMAGES", "TEXTS", "PAIRS", "REPRESENTATIONS"].map(str::to_string).to_vec()];
    for (split, collection) in &splits {
        let (images, texts) = (&collection.images, &collection.texts);
        let shape = |table: &xmbench_datasets::FeatureTable| match table.fragments() {
            1 => format!("{}", table.width()),
            fragments => format!("{fragments}x{}", table.width()),
        };
        let kinds = [
            images.global.as_ref().map(|table| format!("image global {}", shape(table))),
            images.fragments.as_ref().map(|table| format!("image fragments {}", shape(table))),
            texts.global.as_ref().map(|table| format!("text global {}", shape(table))),
            texts.tokens.as_ref().map(|_| format!("tokens of {} words", dataset.words.len())),
            texts.bow.as_ref().map(|bow| format!("bag of {} words", bow.cols)),
            images.labels.as_ref().map(|labels| format!("{} classes", labels.classes)),
        ];
        rows.push(vec![
            split.to_string(),
            images.len().to_string(),
            texts.len().to_string(),
            collection.pairs.all().len().to_string(),
            kinds.into_iter().flatten().collect::<Vec<_>>().join(", "),
        ]);
    }
    answer(&format!("{} {}\nchecksum {}", dataset.name, dataset.variant, dataset.checksum))?;
    answer(&table(&rows))?;
    let notice = &dataset.notice;
    for (what, text) in [
        ("title", &notice.title),
        ("licence", &notice.licence),
        ("attribution", &notice.attribution),
        ("caveat", &notice.caveat),
    ] {
        if !text.is_empty() {
            answer(&format!("{what}: {text}"))?;
        }
    }
    Ok(())
}
