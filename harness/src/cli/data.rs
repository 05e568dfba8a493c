//! `xmbench data`: what there is to read, how to get it, what is in a dataset.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use serde_json::json;
use xmbench_datasets::{Source, Split, sources};

use super::{Status, list, print, table};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the datasets, with every option and its default
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say how to get a dataset's files
    Get {
        /// The dataset; all of them when absent
        name: Option<String>,
    },
    /// Open a dataset and show its splits, representations and terms
    Show {
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
    },
}

pub fn run(args: &Args) -> Result<Status> {
    match &args.command {
        Command::List { json: true } => print(&list::datasets_json().to_string()),
        Command::List { json: false } => print(&listing()),
        Command::Get { name } => print(&how_to_get(name.as_deref())?),
        Command::Show { name, options, data_dir, json } => show(name, options, data_dir.clone(), *json)?,
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

fn how_to_get(name: Option<&str>) -> Result<String> {
    let chosen: Vec<&Source> = sources().iter().filter(|source| name.is_none_or(|name| source.name == name)).collect();
    if let (Some(name), true) = (name, chosen.is_empty()) {
        let hint = crate::run::nearest(name, sources().iter().map(|source| source.name));
        bail!("no dataset `{name}`{hint}; `xmbench data list` shows them all");
    }
    Ok(chosen.iter().map(|source| format!("{}: {}", source.name, source.get)).collect::<Vec<_>>().join("\n"))
}

fn show(name: &str, options: &[String], data_dir: Option<PathBuf>, as_json: bool) -> Result<()> {
    let mut table_of_options = toml::Table::new();
    for option in options {
        let (key, value) = option.split_once('=').with_context(|| format!("`{option}`: expected KEY=VALUE"))?;
        // What does not read as a TOML value is a plain word.
        let value = format!("value = {value}").parse::<toml::Table>().ok().and_then(|mut table| table.remove("value"));
        let word = option.split_once('=').map(|(_, word)| word.to_string()).unwrap_or_default();
        table_of_options.insert(key.into(), value.unwrap_or(toml::Value::String(word)));
    }
    let dataset = xmbench_datasets::open(name, &table_of_options, super::data_folder(data_dir).as_deref())?;
    let splits: Vec<_> = [Split::Train, Split::Val, Split::Test]
        .into_iter()
        .filter_map(|split| dataset.split(split).map(|collection| (split, collection)))
        .collect();
    if as_json {
        let sizes: serde_json::Map<String, serde_json::Value> = splits
            .iter()
            .map(|(split, collection)| {
                let sizes = [collection.images.len(), collection.texts.len(), collection.pairs.all().len()];
                (split.to_string(), json!({"images": sizes[0], "texts": sizes[1], "pairs": sizes[2]}))
            })
            .collect();
        print(
            &json!({
                "name": dataset.name, "variant": dataset.variant, "checksum": dataset.checksum, "splits": sizes,
                "words": dataset.words.len(), "classes": dataset.classes, "notice": dataset.notice,
            })
            .to_string(),
        );
        return Ok(());
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
    print(&format!("{} {}\nchecksum {}", dataset.name, dataset.variant, dataset.checksum));
    print(&table(&rows));
    let notice = &dataset.notice;
    for (what, text) in [
        ("title", &notice.title),
        ("licence", &notice.licence),
        ("attribution", &notice.attribution),
        ("caveat", &notice.caveat),
    ] {
        if !text.is_empty() {
            print(&format!("{what}: {text}"));
        }
    }
    Ok(())
}
