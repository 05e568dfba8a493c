//! Datasets drawn from a known model, whose best result is known beforehand.

use crate::{Collection, Dataset, Hasher, Notice, OptionSpec, OptionValue, Result, draft::Draft, options::Options};

pub mod clusters;
mod concepts;
pub mod fragments;
pub mod linear;
pub mod sequences;
mod truth;

pub use truth::{Shown, Truth};

const SEED: OptionSpec =
    OptionSpec { name: "seed", doc: "seed of the draw, a whole number", default: OptionValue::Integer(0) };
const TRAIN: OptionSpec =
    OptionSpec { name: "train", doc: "training images, from 2", default: OptionValue::Integer(240) };
const VAL: OptionSpec =
    OptionSpec { name: "val", doc: "validation images; 0 leaves the split out", default: OptionValue::Integer(60) };
const TEST: OptionSpec = OptionSpec { name: "test", doc: "test images, from 1", default: OptionValue::Integer(100) };

/// Words that stand for concepts.
const NOUNS: [&str; 48] = [
    "anchor", "apple", "barn", "bell", "boat", "bridge", "candle", "castle", "cloud", "coat", "crown", "desk", "door",
    "drum", "engine", "feather", "fence", "flute", "forest", "glove", "hammer", "harp", "island", "jar", "kettle",
    "kite", "ladder", "lamp", "lemon", "mirror", "mountain", "needle", "oven", "pearl", "piano", "pillow", "quilt",
    "ring", "river", "rope", "saddle", "shell", "spoon", "table", "tower", "violin", "wagon", "wheel",
];

/// Sizes of the training, validation and test splits.
fn sizes(options: &Options) -> Result<[usize; 3]> {
    let most = 1_000_000;
    Ok([options.integer("train", 2..=most)?, options.integer("val", 0..=most)?, options.integer("test", 1..=most)?])
}

/// The positions of each split: one run of positions after the other.
fn runs(sizes: [usize; 3]) -> [Vec<usize>; 3] {
    let [train, val, test] = sizes;
    [(0..train).collect(), (train..train + val).collect(), (train + val..train + val + test).collect()]
}

fn ids(items: &[usize]) -> Vec<String> {
    items.iter().map(|item| format!("item-{item}")).collect()
}

/// Mean of the vectors of `out.len()` values that `rows` holds one behind the other.
fn mean_rows(rows: &[f32], out: &mut [f32]) {
    let width = out.len();
    let count = (rows.len() / width) as f64;
    for (j, value) in out.iter_mut().enumerate() {
        let sum: f64 = rows.iter().skip(j).step_by(width).map(|&x| f64::from(x)).sum();
        *value = (sum / count) as f32;
    }
}

/// The splits of `draft` with a vocabulary of every training word.
fn cut(draft: &Draft, sizes: [usize; 3]) -> (std::sync::Arc<[String]>, [Collection; 3]) {
    let runs = runs(sizes);
    let vocabulary = draft.vocabulary(&runs[0], 1);
    (vocabulary.words().clone(), runs.map(|items| draft.cut(&items, &vocabulary)))
}

fn dataset(
    name: &str,
    options: &Options,
    words: std::sync::Arc<[String]>,
    classes: Vec<String>,
    [train, val, test]: [Collection; 3],
) -> Result<Dataset> {
    let mut hasher = Hasher::default();
    hasher.add("name", name.as_bytes()).add("options", options.canonical().as_bytes());
    for collection in [&train, &val, &test] {
        let (images, texts) = (&collection.images, &collection.texts);
        for table in [&images.global, &images.fragments, &texts.global].into_iter().flatten() {
            hasher.add("table", bytemuck::cast_slice(&table.all()?.data));
        }
        for sentence in texts.raw.iter().flatten() {
            hasher.add("text", sentence.as_bytes());
        }
    }
    Ok(Dataset {
        name: name.into(),
        variant: options.variant(),
        checksum: hasher.finish(),
        notice: Notice {
            title: format!("{name}, drawn by xmbench"),
            licence: "free of terms: it is computed".into(),
            attribution: String::new(),
            caveat: "artificial data: it shows whether a method works, not how well on pictures".into(),
        },
        words,
        classes,
        train,
        val: Some(val).filter(|val| !val.images.is_empty()),
        test,
        database: None,
    })
}
