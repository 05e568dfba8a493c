//! The emoji: pictures and captions that are inside the program.
//!
//! An image is a Twemoji picture of 72 x 72 pixels on white; its captions are its Unicode name, its shortcodes and its English
//! keywords. The images' global vector is the ink of the picture at 32 x 32 (3072 values in `[0, 1]`), the fragments are 36 windows
//! of it. With `features = "lite0"` they are what EfficientNet-Lite0 makes of the picture: its vector (1280 values), and 9 cells of
//! its last map (192 values), both kept as a byte a value. Classes are Unicode's 9 groups or, by option, its 98 subgroups, which the
//! youngest emoji lack.
//!
//! Many emoji come in near twins (man, woman and person; the hours of a clock; the flags), so that a split by item would test on
//! what was trained on. Therefore a split keeps a series together; `split = "random"` does not.

mod item;
mod pixels;
mod series;

use std::{path::Path, sync::Arc};

use crate::{
    Dataset, FeatureTable, Hasher, Images, Labels, Notice, OptionSpec, OptionValue, Result, Source, Subset,
    draft::Draft,
    options::Options,
    pack::{self, Quantised},
    series::{rooms, split},
    source::BUILT_IN,
    words::BUILT_IN_VECTORS,
};
use item::Item;

pub(crate) const SOURCE: Source = Source {
    name: "emoji",
    doc: "1914 emoji with their names, shortcodes and keywords",
    options: &[
        OptionSpec {
            name: "features",
            doc: "what stands for a picture: `pixels`, or `lite0`, the vectors of an EfficientNet-Lite0 trained on ImageNet",
            default: OptionValue::Text("pixels"),
        },
        OptionSpec {
            name: "labels",
            doc: "the classes: `group` (9) or `subgroup` (98)",
            default: OptionValue::Text("group"),
        },
        OptionSpec {
            name: "min_count",
            doc: "a word enters the vocabulary when the training captions hold it this often",
            default: OptionValue::Integer(1),
        },
        OptionSpec { name: "seed", doc: "seed of the split, a whole number", default: OptionValue::Integer(0) },
        OptionSpec {
            name: "split",
            doc: "70/10/20 by `series`, which keeps near twins together, or `random` by item",
            default: OptionValue::Text("series"),
        },
        BUILT_IN_VECTORS,
    ],
    representations: &[
        "image global",
        "image fragments",
        "image boxes",
        "image labels",
        "image pictures",
        "text raw",
        "text tokens",
        "text bow",
        "text word vectors",
        "text labels",
    ],
    get: BUILT_IN,
    load,
};

/// What `scripts/clipart` made of the pictures.
const IDS: &str = include_str!("../../data/emoji/ids.txt");
const GLOBAL: &[u8] = include_bytes!("../../data/emoji/global.bin");
const CELLS: &[u8] = include_bytes!("../../data/emoji/cells.bin");

/// Changed whenever captions, pixels or windows are computed in another way: it is part of the checksum.
const VERSION: &[u8] = b"2";

fn load(options: &Options, _root: Option<&Path>) -> Result<Dataset> {
    let encoded = options.text("features", &["pixels", "lite0"])? == "lite0";
    let by_subgroup = options.text("labels", &["group", "subgroup"])? == "subgroup";
    let by_series = options.text("split", &["series", "random"])? == "series";
    let min_count = options.integer("min_count", 1..=1_000_000)?;
    let mut stream = options.seed()?.stream(&["emoji", "split"]);
    let items = item::items();
    let captions: Vec<Vec<String>> = items.iter().map(Item::captions).collect();
    let (classes, labels) = labels(&items, by_subgroup);
    let pictures = pixels::Pictures::decode(&items);
    let draw = pictures.clone();
    let small = pictures.small(items.len());
    let series = match by_series {
        true => series::series(&items, &small),
        false => (0..items.len()).collect(),
    };
    let (global, fragments, boxes): (FeatureTable, FeatureTable, _) = match encoded {
        false => {
            let windows = pixels::Windows::new(pictures, items.len());
            (Arc::new(small), Arc::new(windows), pixels::boxes().to_vec())
        }
        true => {
            let rows = encoded_rows(&items);
            let table = |bytes| Arc::new(Subset::new(Arc::new(Quantised::new(bytes)), rows.clone())) as FeatureTable;
            (table(GLOBAL), table(CELLS), pack::boxes(3))
        }
    };
    let images = Images {
        ids: items.iter().map(|item| item.emoji.as_str().to_owned()).collect(),
        split: None,
        global: Some(global),
        fragments: Some(fragments),
        boxes: Some(items.iter().flat_map(|_| boxes.iter().copied()).collect()),
        labels: Some(labels),
        pictures: Some(Arc::new(move |item| draw.picture(item))),
    };
    let mut hasher = Hasher::default();
    if encoded {
        hasher.add("global", GLOBAL).add("cells", CELLS);
    }
    hasher.add("version", VERSION).add("options", options.canonical().as_bytes());
    for (item, captions) in items.iter().zip(&captions) {
        hasher.add("png", item.png).add("captions", captions.join("\n").as_bytes());
    }
    let [train, val, test] = split(&series, rooms(items.len()), items.len() / 100, &mut stream);
    let draft = Draft { images, captions, text_global: None };
    let vocabulary = draft.vocabulary(&train, min_count);
    Ok(Dataset {
        name: SOURCE.name.into(),
        variant: options.variant(),
        checksum: hasher.finish(),
        notice: notice(encoded),
        words: vocabulary.words().clone(),
        classes,
        train: draft.cut(&train, &vocabulary),
        val: Some(draft.cut(&val, &vocabulary)),
        test: draft.cut(&test, &vocabulary),
        database: None,
    })
}

fn notice(encoded: bool) -> Notice {
    Notice {
        title: "Emoji: Twemoji 17.0.2 pictures; names, shortcodes and keywords of Unicode and gemoji".into(),
        licence: "pictures CC-BY 4.0; names and keywords under the Unicode licence".into(),
        attribution: "Twemoji graphics, copyright Twitter, Inc and other contributors, CC-BY 4.0 \
                      (creativecommons.org/licenses/by/4.0), laid on white and resized"
            .into(),
        caveat: match encoded {
            false => "drawn pictograms with short captions, pixels as features: no yardstick for photographs",
            true => {
                "drawn pictograms with short captions, grid cells of EfficientNet-Lite0, not detector boxes: no yardstick for photographs"
            }
        }
        .into(),
    }
}

/// The row of each item in the tables of vectors, which go by the identifiers in `ids.txt`.
///
/// # Panics
/// If an emoji has no vectors: a test opens them all.
fn encoded_rows(items: &[Item]) -> Vec<usize> {
    let row = |id: &str| IDS.lines().position(|line| line == id).expect("every emoji inside the program has vectors");
    items.iter().map(|item| row(item.emoji.as_str())).collect()
}

fn labels(items: &[Item], by_subgroup: bool) -> (Vec<String>, Labels) {
    let name = |item: &Item| match by_subgroup {
        true => item.subgroup.map(str::to_owned),
        false => Some(group_name(item.emoji.group()).to_owned()),
    };
    let names: Vec<Option<String>> = items.iter().map(name).collect();
    let mut classes: Vec<String> = names.iter().flatten().cloned().collect();
    classes.sort();
    classes.dedup();
    let number = |name: &String| classes.binary_search(name).expect("every name is a class") as u32;
    let of = names.iter().map(|name| name.iter().map(number).collect()).collect();
    let count = classes.len();
    (classes, Labels { classes: count, of })
}

fn group_name(group: emojis::Group) -> &'static str {
    match group {
        emojis::Group::SmileysAndEmotion => "smileys and emotion",
        emojis::Group::PeopleAndBody => "people and body",
        emojis::Group::AnimalsAndNature => "animals and nature",
        emojis::Group::FoodAndDrink => "food and drink",
        emojis::Group::TravelAndPlaces => "travel and places",
        emojis::Group::Activities => "activities",
        emojis::Group::Objects => "objects",
        emojis::Group::Symbols => "symbols",
        emojis::Group::Flags => "flags",
    }
}

#[cfg(test)]
mod tests;
