//! The emoji: pictures and captions that are inside the program.
//!
//! An image is a Twemoji picture of 72 x 72 pixels on white; its captions are its Unicode name, its shortcodes and its English
//! keywords. The images' global vector is the ink of the picture at 32 x 32 (3072 values in `[0, 1]`), the fragments are 36 windows
//! of it. Classes are Unicode's 9 groups or, by option, its 98 subgroups, which the youngest emoji lack.
//!
//! Many emoji come in near twins (man, woman and person; the hours of a clock; the flags), so that a split by item would test on
//! what was trained on. Therefore a split keeps a series together; `split = "random"` does not.

mod item;
mod pixels;
mod series;

use std::{path::Path, sync::Arc};

use crate::{
    Dataset, Hasher, Images, Labels, Notice, OptionSpec, OptionValue, Result, Source, draft::Draft, options::Options,
    random::Stream, source::BUILT_IN,
};
use item::Item;

pub(crate) const SOURCE: Source = Source {
    name: "emoji",
    doc: "1914 emoji with their names, shortcodes and keywords",
    options: &[
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
        "text labels",
    ],
    get: BUILT_IN,
    load,
};

/// Changed whenever captions, pixels or windows are computed in another way: it is part of the checksum.
const VERSION: &[u8] = b"2";

fn load(options: &Options, _root: Option<&Path>) -> Result<Dataset> {
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
    let images = Images {
        ids: items.iter().map(|item| item.emoji.as_str().to_owned()).collect(),
        global: Some(Arc::new(small)),
        fragments: Some(Arc::new(pixels::Windows::new(pictures, items.len()))),
        boxes: Some(items.iter().flat_map(|_| pixels::boxes()).collect()),
        labels: Some(labels),
        pictures: Some(Arc::new(move |item| draw.picture(item))),
    };
    let mut hasher = Hasher::default();
    hasher.add("version", VERSION).add("options", options.canonical().as_bytes());
    for (item, captions) in items.iter().zip(&captions) {
        hasher.add("png", item.png).add("captions", captions.join("\n").as_bytes());
    }
    let [train, val, test] = split(&series, &mut stream);
    let draft = Draft { images, captions, text_global: None };
    let vocabulary = draft.vocabulary(&train, min_count);
    Ok(Dataset {
        name: SOURCE.name.into(),
        variant: options.variant(),
        checksum: hasher.finish(),
        notice: notice(),
        words: vocabulary.words().clone(),
        classes,
        train: draft.cut(&train, &vocabulary),
        val: Some(draft.cut(&val, &vocabulary)),
        test: draft.cut(&test, &vocabulary),
        database: None,
    })
}

fn notice() -> Notice {
    Notice {
        title: "Emoji: Twemoji 17.0.2 pictures; names, shortcodes and keywords of Unicode and gemoji".into(),
        licence: "pictures CC-BY 4.0; names and keywords under the Unicode licence".into(),
        attribution: "Twemoji graphics, copyright Twitter, Inc and other contributors, CC-BY 4.0 \
                      (creativecommons.org/licenses/by/4.0), laid on white and resized"
            .into(),
        caveat: "drawn pictograms with short captions, pixels as features: no yardstick for photographs".into(),
    }
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

/// Items of the training (70 %), validation (10 %) and test (20 %) split, ascending, every series inside one of them.
///
/// The series come in random order; each goes to one of the splits that have room for it, with a probability
/// proportional to the room. A series of more than a hundredth of all items goes to training: it would be most of a
/// test gallery otherwise.
fn split(series: &[usize], stream: &mut Stream) -> [Vec<usize>; 3] {
    let mut groups = std::collections::BTreeMap::<usize, Vec<usize>>::new();
    for (item, &name) in series.iter().enumerate() {
        groups.entry(name).or_default().push(item);
    }
    let n = series.len();
    let (val, test) = (n / 10, n / 5);
    let mut room = [n - val - test, val, test];
    let mut out = [const { Vec::new() }; 3];
    let (large, mut small): (Vec<_>, Vec<_>) = groups.into_values().partition(|group| group.len() * 100 > n);
    stream.shuffle(&mut small);
    for group in large.iter().chain(&small) {
        let fits = room.map(|room| if room >= group.len() { room } else { 0 });
        let choice = match (group.len() * 100 > n, fits.iter().sum()) {
            (true, _) | (_, 0) => 0,
            (_, total) => {
                let drawn = stream.below(total);
                if drawn < fits[0] {
                    0
                } else if drawn < fits[0] + fits[1] {
                    1
                } else {
                    2
                }
            }
        };
        room[choice] = room[choice].saturating_sub(group.len());
        out[choice].extend(group);
    }
    out.iter_mut().for_each(|items| items.sort_unstable());
    out
}

#[cfg(test)]
mod tests;
