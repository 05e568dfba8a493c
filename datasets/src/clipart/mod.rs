//! Clip art: drawings in the public domain with two and more captions each, and their features, inside the program.
//!
//! The drawings are those of openclipart 0.18 that are marked as public domain and say enough of themselves
//! (`scripts/clipart/README.md`). The captions of a drawing are its title or the name of its file, its description where there is one, and
//! its keywords; its class is the folder it lies in, one of 20. The global vector is that of EfficientNet-Lite0 (1280 values,
//! the mean of its last map), the fragments are a grid of 3 x 3 cells of that map, each projected to the 192 directions in which the
//! cells of 1,637 other drawings vary most; both are kept as a byte a value.
//!
//! Drawings that have a caption in common, word for word, or look alike are a series, and a split keeps a series together;
//! `split = "random"` does not. Both draw from every class in like shares.

use std::{path::Path, sync::Arc};

use crate::{
    Dataset, FeatureTable, Hasher, Images, Labels, Notice, OptionSpec, OptionValue, Picture, Result, Source,
    draft::Draft,
    options::Options,
    pack::{self, Quantised},
    random::Stream,
    series::{rooms, split},
    source::BUILT_IN,
    words::BUILT_IN_VECTORS,
};

pub(crate) const SOURCE: Source = Source {
    name: "clipart",
    doc: "3116 drawings in the public domain with two to four captions, 20 classes, and features of EfficientNet-Lite0",
    options: &[
        OptionSpec {
            name: "min_count",
            doc: "a word enters the vocabulary when the training captions hold it this often",
            default: OptionValue::Integer(1),
        },
        OptionSpec { name: "seed", doc: "seed of the split, a whole number", default: OptionValue::Integer(0) },
        OptionSpec {
            name: "split",
            doc: "70/10/20 by `series`, which keeps drawings that look alike or share a caption together, or `random` by item",
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

/// What `scripts/clipart` made of the packages.
const ITEMS: &str = include_str!("../../data/clipart/items.tsv");
const THUMBNAILS: &[u8] = include_bytes!("../../data/clipart/thumbnails.bin");
const GLOBAL: &[u8] = include_bytes!("../../data/clipart/global.bin");
const CELLS: &[u8] = include_bytes!("../../data/clipart/cells.bin");

/// Cells a side of the grid.
const GRID: usize = 3;

/// Pixels a side of a picture.
const SIDE: usize = 96;

/// A larger series is trained on.
const MOST: usize = 31;

/// A drawing as `items.tsv` has it: path, class, series, author and captions behind tabs.
struct Item {
    path: &'static str,
    class: &'static str,
    series: usize,
    author: &'static str,
    captions: Vec<&'static str>,
}

/// Every drawing, in the order of the tables.
///
/// # Panics
/// If the list inside the program is damaged: a test reads all of it.
fn items() -> Vec<Item> {
    let item = |line: &'static str| {
        let mut fields = line.split('\t');
        let mut next = || fields.next().expect("the list inside the program is whole");
        let (path, class, series, author) = (next(), next(), next(), next());
        let series = series.parse().expect("the list inside the program is whole");
        Item { path, class, series, author, captions: fields.collect() }
    };
    ITEMS.lines().skip(1).map(item).collect()
}

fn load(options: &Options, _root: Option<&Path>) -> Result<Dataset> {
    let by_series = options.text("split", &["series", "random"])? == "series";
    let min_count = options.integer("min_count", 1..=1_000_000)?;
    let mut stream = options.seed()?.stream(&["clipart", "split"]);
    let items = items();
    let mut classes: Vec<String> = items.iter().map(|item| item.class.to_owned()).collect();
    classes.sort();
    classes.dedup();
    let class = |item: &Item| classes.binary_search_by(|class| class.as_str().cmp(item.class)).unwrap_or_default();
    let of: Vec<usize> = items.iter().map(class).collect();
    let series: Vec<usize> = match by_series {
        true => items.iter().map(|item| item.series).collect(),
        false => (0..items.len()).collect(),
    };
    let [train, val, test] = shares(&of, classes.len(), &series, &mut stream);
    let (boxes, count) = (pack::boxes(GRID), items.len());
    let images = Images {
        ids: items.iter().map(|item| item.path.to_owned()).collect(),
        split: None,
        global: Some(Arc::new(Quantised::new(GLOBAL)) as FeatureTable),
        fragments: Some(Arc::new(Quantised::new(CELLS))),
        boxes: Some(items.iter().flat_map(|_| boxes.iter().copied()).collect()),
        labels: Some(Labels { classes: classes.len(), of: of.iter().map(|&class| vec![class as u32]).collect() }),
        pictures: Some(Arc::new(move |item| picture(item, count))),
    };
    let mut hasher = Hasher::default();
    hasher.add("name", SOURCE.name.as_bytes()).add("options", options.canonical().as_bytes());
    hasher.add("items", ITEMS.as_bytes()).add("thumbnails", THUMBNAILS).add("global", GLOBAL).add("cells", CELLS);
    let captions = items.iter().map(|item| item.captions.iter().map(|&caption| caption.to_owned()).collect()).collect();
    let draft = Draft { images, captions, text_global: None };
    let vocabulary = draft.vocabulary(&train, min_count);
    Ok(Dataset {
        name: SOURCE.name.into(),
        variant: options.variant(),
        checksum: hasher.finish(),
        notice: notice(&items),
        words: vocabulary.words().clone(),
        classes,
        train: draft.cut(&train, &vocabulary),
        val: Some(draft.cut(&val, &vocabulary)),
        test: draft.cut(&test, &vocabulary),
        database: None,
    })
}

/// The three splits, drawn class by class; a series counts to the class of its first drawing. What would be the one drawing of its
/// class in validation or test, which nothing there shares a class with, is trained on with its series.
fn shares(of: &[usize], classes: usize, series: &[usize], stream: &mut Stream) -> [Vec<usize>; 3] {
    let mut first = vec![usize::MAX; series.iter().max().map_or(0, |last| last + 1)];
    for (&series, &class) in series.iter().zip(of) {
        if first[series] == usize::MAX {
            first[series] = class;
        }
    }
    let mut out = [const { Vec::new() }; 3];
    for class in 0..classes {
        let members: Vec<usize> = (0..of.len()).filter(|&item| first[series[item]] == class).collect();
        let names: Vec<usize> = members.iter().map(|&item| series[item]).collect();
        let parts = split(&names, rooms(members.len()), MOST, stream);
        for (out, part) in out.iter_mut().zip(parts) {
            out.extend(part.into_iter().map(|place| members[place]));
        }
    }
    let [train, tests @ ..] = &mut out;
    for test in tests {
        while let Some(lonely) = lonely(of, test) {
            let (kin, others) = test.iter().partition(|&&item| series[item] == series[lonely]);
            *test = others;
            train.extend::<Vec<usize>>(kin);
        }
    }
    out.iter_mut().for_each(|items| items.sort_unstable());
    out
}

/// An item without another one of its class among `items`.
fn lonely(of: &[usize], items: &[usize]) -> Option<usize> {
    items.iter().copied().find(|&item| items.iter().filter(|&&other| of[other] == of[item]).count() == 1)
}

/// The thumbnail of a drawing, of `count`: behind the numbers at which they end, as u32, lie PNGs.
///
/// # Panics
/// If the pictures inside the program are damaged: a test decodes all of them.
fn picture(item: usize, count: usize) -> Picture {
    let ends = |i: usize| u32::from_le_bytes(THUMBNAILS[4 * i..4 * i + 4].try_into().expect("four bytes")) as usize;
    let pictures = &THUMBNAILS[4 * count..];
    let start = item.checked_sub(1).map_or(0, ends);
    let png = image::load_from_memory_with_format(&pictures[start..ends(item)], image::ImageFormat::Png);
    let rgb = png.expect("the pictures inside the program are whole").into_rgb8().into_raw();
    Picture { width: SIDE, height: SIDE, rgb }
}

fn notice(items: &[Item]) -> Notice {
    let mut authors: Vec<&str> = items.iter().map(|item| item.author).filter(|&author| author != "unknown").collect();
    authors.sort_unstable();
    authors.dedup();
    Notice {
        title: "Clip art: drawings of the Open Clip Art Library, release 0.18, with titles, descriptions and keywords".into(),
        licence: "public domain, by the dedication of each drawing's author".into(),
        attribution: format!(
            "{} authors, named drawing by drawing in datasets/data/clipart/items.tsv; features by EfficientNet-Lite0 (Apache-2.0)",
            authors.len()
        ),
        caveat: "drawings with short captions, grid cells of EfficientNet-Lite0, not detector boxes: no yardstick for photographs"
            .into(),
    }
}

#[cfg(test)]
mod tests;
