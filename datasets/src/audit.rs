//! What can make a dataset's numbers wrong: overlap and near duplicates between splits, leaks, bad values, wrong sizes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use rayon::prelude::*;
use serde::Serialize;

use crate::{
    Collection, Dataset, FeatureTable, Result, Split, text,
    twins::{self, Twins},
};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Numbers on this dataset are wrong.
    Error,
    /// Numbers may flatter; a reader must know.
    Warning,
}

/// Something that the audit found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The check: `overlap`, `near-duplicates`, `vocabulary`, `sizes`, `values`, `zero-rows`, `captions`, `labels`.
    pub check: &'static str,
    /// What was found, with counts.
    pub message: String,
    /// Up to five items.
    pub examples: Vec<String>,
}

/// Two vectors of different splits are near duplicates from this cosine on.
const NEAR: f32 = 0.9999;

/// Items that a finding names.
const EXAMPLES: usize = 5;

/// Every finding, errors first; `sizes` states the number of images that a split must have.
///
/// # Errors
/// A file that cannot be read. Values that are not finite are findings.
pub fn audit(dataset: &Dataset, sizes: &BTreeMap<Split, usize>) -> Result<Vec<Finding>> {
    audit_with(dataset, sizes, &|_, _, _| {})
}

/// What is told of an audit under way: what is done, how much of it, and of how much.
pub type Progress<'a> = &'a (dyn Fn(&str, usize, usize) + Sync);

/// As [`audit`], telling how far it is.
///
/// # Errors
/// As [`audit`].
pub fn audit_with(dataset: &Dataset, sizes: &BTreeMap<Split, usize>, progress: Progress<'_>) -> Result<Vec<Finding>> {
    let splits: Vec<(Split, &Collection)> = dataset.splits().collect();
    let mut found = Vec::new();
    for (split, collection) in &splits {
        let there = collection.images.len();
        if let Some(&expected) = sizes.get(split).filter(|&&expected| expected != there) {
            found.push(finding(Severity::Error, "sizes", format!("{split}: {there} images, expected {expected}"), []));
        }
        values(*split, collection, &mut found);
        captions(*split, collection, &mut found);
        labels(*split, collection, &mut found);
    }
    for (i, a) in splits.iter().enumerate() {
        for b in &splits[i + 1..] {
            // A database holds the training items; of the queries it holds none.
            if b.0 != Split::Database || a.0 == Split::Test {
                overlap(*a, *b, &mut found);
            }
            if b.0 != Split::Database {
                near_duplicates(*a, *b, progress, &mut found);
            }
        }
    }
    vocabulary(dataset, &mut found);
    found.sort_by_key(|finding| finding.severity);
    Ok(found)
}

fn finding(
    severity: Severity,
    check: &'static str,
    message: String,
    examples: impl IntoIterator<Item = String>,
) -> Finding {
    Finding { severity, check, message, examples: examples.into_iter().take(EXAMPLES).collect() }
}

/// Every feature table of a split with its name and its items' names.
fn tables(collection: &Collection) -> Vec<(&'static str, &FeatureTable, &[String])> {
    let (images, texts) = (&collection.images, &collection.texts);
    let all = [
        ("image vectors", &images.global, &images.ids),
        ("image fragments", &images.fragments, &images.ids),
        ("text vectors", &texts.global, &texts.ids),
    ];
    all.into_iter().filter_map(|(name, table, ids)| Some((name, table.as_ref()?, ids.as_slice()))).collect()
}

/// NaN, infinity, and items whose every value is zero.
fn values(split: Split, collection: &Collection, found: &mut Vec<Finding>) {
    for (name, table, ids) in tables(collection) {
        let width = table.fragments() * table.width();
        let check = |item: usize| {
            let mut row = vec![0.0; width];
            match table.read(item, &mut row) {
                Err(_) => (true, false),
                Ok(()) => (row.iter().any(|x| !x.is_finite()), row.iter().all(|&x| x == 0.0)),
            }
        };
        let state: Vec<(bool, bool)> = (0..table.items()).into_par_iter().map(check).collect();
        let named = |pick: fn(&(bool, bool)) -> bool| -> Vec<String> {
            state.iter().zip(ids).filter(|(s, _)| pick(s)).map(|(_, id)| id.clone()).collect()
        };
        let (bad, zero) = (named(|s| s.0), named(|s| s.1));
        if !bad.is_empty() {
            let message = format!("{split}: {} {name} with values that are not finite", bad.len());
            found.push(finding(Severity::Error, "values", message, bad));
        }
        if !zero.is_empty() {
            let message = format!("{split}: {} {name} of zeros only", zero.len());
            found.push(finding(Severity::Error, "zero-rows", message, zero));
        }
    }
}

/// Captions without a word, and images or texts without a partner.
fn captions(split: Split, collection: &Collection, found: &mut Vec<Finding>) {
    let (images, texts) = (&collection.images, &collection.texts);
    if let Some(raw) = &texts.raw {
        let empty: Vec<String> =
            raw.iter().zip(&texts.ids).filter(|(s, _)| !text::has_word(s)).map(|(_, id)| id.clone()).collect();
        if !empty.is_empty() {
            found.push(finding(
                Severity::Error,
                "captions",
                format!("{split}: {} captions without a word", empty.len()),
                empty,
            ));
        }
    }
    let lonely = (0..images.len()).filter(|&i| collection.pairs.texts_of(i).is_empty()).map(|i| images.ids[i].clone());
    let lonely: Vec<String> = lonely
        .chain((0..texts.len()).filter(|&t| collection.pairs.images_of(t).is_empty()).map(|t| texts.ids[t].clone()))
        .collect();
    if !lonely.is_empty() {
        found.push(finding(
            Severity::Error,
            "captions",
            format!("{split}: {} items without a partner", lonely.len()),
            lonely,
        ));
    }
}

/// Classes that only one image of a split has: they cannot be retrieved within it.
fn labels(split: Split, collection: &Collection, found: &mut Vec<Finding>) {
    if let Some(labels) = &collection.images.labels {
        let mut count = BTreeMap::<u32, usize>::new();
        labels.of.iter().flatten().for_each(|&class| *count.entry(class).or_default() += 1);
        let single: Vec<String> =
            count.iter().filter(|(_, n)| **n == 1).map(|(class, _)| format!("class {class}")).collect();
        if !single.is_empty() {
            found.push(finding(
                Severity::Warning,
                "labels",
                format!("{split}: {} classes with one image", single.len()),
                single,
            ));
        }
    }
}

/// Identifiers, and captions word for word, that two splits share.
fn overlap((a, left): (Split, &Collection), (b, right): (Split, &Collection), found: &mut Vec<Finding>) {
    let shared = |x: &[String], y: &[String]| -> Vec<String> {
        let x: BTreeSet<&String> = x.iter().collect();
        y.iter().filter(|id| x.contains(id)).cloned().collect::<BTreeSet<_>>().into_iter().collect()
    };
    let ids = shared(&left.images.ids, &right.images.ids);
    if !ids.is_empty() {
        found.push(finding(Severity::Error, "overlap", format!("{} images are in {a} and in {b}", ids.len()), ids));
    }
    if let (Some(x), Some(y)) = (&left.texts.raw, &right.texts.raw) {
        let captions = shared(x, y);
        if !captions.is_empty() {
            let message = format!("{} captions of {b} stand word for word in {a}", captions.len());
            found.push(finding(
                Severity::Warning,
                "overlap",
                message,
                captions.into_iter().map(|c| format!("\"{c}\"")),
            ));
        }
    }
}

/// Images of two splits whose global vectors point the same way: identical ones are errors.
fn near_duplicates(
    (a, left): (Split, &Collection),
    (b, right): (Split, &Collection),
    progress: Progress<'_>,
    found: &mut Vec<Finding>,
) {
    let (Some(x), Some(y)) = (&left.images.global, &right.images.global) else { return };
    if x.width() < 16 {
        return; // In a few dimensions different images do point the same way.
    }
    let step = format!("near duplicates of {a} in {b}");
    // What cannot be read is told by [`values`].
    let Ok(twins) = twins::find(x, y, NEAR, &|done| progress(&step, done, y.items())) else { return };
    for (same, severity, what) in [
        (true, Severity::Error, "the same vector as an image of"),
        (false, Severity::Warning, "nearly the vector of an image of"),
    ] {
        let name = |twins: &Twins| format!("{} and {}", left.images.ids[twins.left], right.images.ids[twins.right]);
        let names: Vec<String> = twins.iter().filter(|twins| twins.same == same).map(name).collect();
        if !names.is_empty() {
            found.push(finding(
                severity,
                "near-duplicates",
                format!("{} images of {b} have {what} {a}", names.len()),
                names,
            ));
        }
    }
}

/// Words of the vocabulary that no training caption has.
fn vocabulary(dataset: &Dataset, found: &mut Vec<Finding>) {
    let Some(raw) = &dataset.train.texts.raw else { return };
    let mut trained = HashSet::<String>::new();
    for caption in raw {
        text::each_word(caption, |word| {
            if !trained.contains(word) {
                trained.insert(word.to_owned());
            }
        });
    }
    let special: HashMap<&str, ()> = text::SPECIAL.iter().map(|word| (*word, ())).collect();
    let leaked: Vec<String> = dataset
        .words
        .iter()
        .filter(|word| !special.contains_key(word.as_str()) && !trained.contains(*word))
        .cloned()
        .collect();
    if !leaked.is_empty() {
        let message = format!("{} words of the vocabulary stand in no training caption", leaked.len());
        found.push(finding(Severity::Error, "vocabulary", message, leaked));
    }
    for (split, texts) in [(Split::Val, dataset.val.as_ref()), (Split::Test, Some(&dataset.test))]
        .into_iter()
        .filter_map(|(split, collection)| Some((split, &collection?.texts)))
    {
        let Some(bow) = &texts.bow else { continue };
        let unknown: Vec<String> =
            bow.rows.iter().zip(&texts.ids).filter(|(row, _)| row.is_empty()).map(|(_, id)| id.clone()).collect();
        if !unknown.is_empty() {
            let message =
                format!("{split}: {} of {} captions have no word of the vocabulary", unknown.len(), texts.len());
            found.push(finding(Severity::Warning, "vocabulary", message, unknown));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn planted() -> Dataset {
        crate::open("planted-fragments", &toml::toml! { train = 60 val = 20 test = 20 }, None).unwrap()
    }

    fn checks(dataset: &Dataset) -> Vec<(Severity, &'static str)> {
        audit(dataset, &BTreeMap::new()).unwrap().into_iter().map(|f| (f.severity, f.check)).collect()
    }

    #[test]
    fn a_sound_dataset_has_no_errors() {
        assert!(checks(&planted()).iter().all(|(severity, _)| *severity == Severity::Warning));
    }

    #[test]
    fn every_planted_fault_is_found() {
        let mut dataset = planted();
        let train = dataset.train.images.global.as_ref().unwrap().all().unwrap();
        let mut test = dataset.test.images.global.as_ref().unwrap().all().unwrap();
        test.row_mut(3).copy_from_slice(train.row(5));
        test.row_mut(4).fill(0.0);
        test.row_mut(6)[0] = f32::NAN;
        let mut clean = test.clone();
        clean.row_mut(6)[0] = 1.0;
        dataset.test.images.global = Some(Arc::new(test));
        dataset.test.images.ids[7] = dataset.train.images.ids[0].clone();
        dataset.test.texts.raw.as_mut().unwrap()[2] = "  ".into();
        dataset.words = dataset.words.iter().cloned().chain(["zebra".to_string()]).collect();
        let found = audit(&dataset, &[(Split::Test, 1000)].into()).unwrap();
        let of = |check: &str| {
            found.iter().find(|f| f.check == check && f.severity == Severity::Error).map(|f| f.message.as_str())
        };
        assert_eq!(of("sizes"), Some("test: 20 images, expected 1000"));
        assert_eq!(of("values"), Some("test: 1 image vectors with values that are not finite"));
        assert_eq!(of("zero-rows"), Some("test: 1 image vectors of zeros only"));
        assert_eq!(of("captions"), Some("test: 1 captions without a word"));
        assert_eq!(of("overlap"), Some("1 images are in train and in test"));
        assert_eq!(of("vocabulary"), Some("1 words of the vocabulary stand in no training caption"));
        dataset.test.images.global = Some(Arc::new(clean));
        let found = audit(&dataset, &BTreeMap::new()).unwrap();
        let twins = found.iter().find(|f| f.check == "near-duplicates" && f.severity == Severity::Error).unwrap();
        assert_eq!(twins.message, "1 images of test have the same vector as an image of train");
    }
}
