use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{Collection, Severity, Split};

fn open(table: toml::Table) -> Dataset {
    crate::open("clipart", &table, None).unwrap()
}

fn splits(dataset: &Dataset) -> [&Collection; 3] {
    [Split::Train, Split::Val, Split::Test].map(|split| dataset.split(split).unwrap())
}

#[test]
fn the_pack_is_what_the_script_made() {
    let digest = |bytes: &[u8]| {
        let mut hasher = Hasher::default();
        hasher.add("", bytes);
        hasher.finish().0[..16].to_owned()
    };
    let found = [ITEMS.as_bytes(), THUMBNAILS, GLOBAL, CELLS].map(digest);
    assert_eq!(found, ["f6a7434d84d03a67", "27ee66be8727cece", "37ec0ea242978a9b", "e27855cd0829536c"]);
    let size = ITEMS.len() + THUMBNAILS.len() + GLOBAL.len() + CELLS.len();
    assert!(size < 16 << 20, "{size}");
}

#[test]
fn counts_are_those_of_the_packages() {
    let dataset = open(toml::Table::new());
    assert_eq!(splits(&dataset).map(|split| split.images.len()), [2219, 292, 605]);
    let items = items();
    let mut classes = BTreeMap::<&str, usize>::new();
    items.iter().for_each(|item| *classes.entry(item.class).or_default() += 1);
    assert_eq!((items.len(), classes.len(), dataset.classes.len()), (3116, 20, 20));
    assert_eq!(["animals", "food", "plants"].map(|class| classes[class]), [229, 321, 62]);
    let global = dataset.train.images.global.as_ref().unwrap();
    let cells = dataset.train.images.fragments.as_ref().unwrap();
    assert_eq!([global.fragments(), global.width(), cells.fragments(), cells.width()], [1, 1280, 9, 192]);
}

#[test]
fn every_drawing_has_captions_an_author_and_a_place() {
    let items = items();
    let mut paths = BTreeSet::new();
    for item in &items {
        assert!(paths.insert(item.path), "{}", item.path);
        assert!((2..=4).contains(&item.captions.len()), "{}", item.path);
        let distinct: BTreeSet<&&str> = item.captions.iter().collect();
        assert_eq!(distinct.len(), item.captions.len(), "{}", item.path);
        assert!(item.captions.iter().all(|caption| caption.len() > 1 && !caption.contains("hash(")), "{}", item.path);
        assert!(!item.author.is_empty() && item.path.starts_with(&format!("{}/", item.class)));
        // What was to be left out.
        assert!(!item.path.starts_with("shapes/stars/") && !item.path.contains("-theme/"), "{}", item.path);
    }
    assert!(items.iter().any(|item| item.author == "Nicu Buculei"));
    let notice = open(toml::Table::new()).notice;
    assert!(notice.licence.contains("public domain") && notice.attribution.contains("items.tsv"));
    assert!(notice.attribution.starts_with("4"), "{}", notice.attribution);
}

#[test]
fn every_picture_is_whole_and_has_ink() {
    let count = items().len();
    for item in 0..count {
        let Picture { width, height, rgb } = picture(item, count);
        assert_eq!((width, height, rgb.len()), (SIDE, SIDE, 3 * SIDE * SIDE));
        assert!(rgb.iter().any(|&value| value < 250), "{item}");
        // The margin of a sixteenth is white.
        assert!(rgb[..3 * SIDE * 5].iter().all(|&value| value > 247), "{item}");
    }
}

/// Captions by brute force, pictures by the cosine of their vectors.
#[test]
fn nothing_crosses_the_splits_whatever_the_seed() {
    for seed in 0..5 {
        let dataset = open(toml::toml! { seed = seed });
        let [train, val, test] = splits(&dataset);
        let captions = |split: &Collection| -> BTreeSet<String> { split.texts.raw.iter().flatten().cloned().collect() };
        for (a, b) in [(train, val), (train, test), (val, test)] {
            assert!(captions(a).is_disjoint(&captions(b)), "seed {seed}");
        }
        let sizes = [train, val, test].map(|split| split.images.len());
        assert_eq!(sizes.iter().sum::<usize>(), 3116);
        assert!(sizes[1].abs_diff(300) < 20 && sizes[2].abs_diff(610) < 20, "seed {seed}: {sizes:?}");
        for finding in crate::audit(&dataset, &BTreeMap::new()).unwrap() {
            // Words that no training caption has are what a test on new drawings meets.
            assert!(finding.severity == Severity::Warning && finding.check == "vocabulary", "seed {seed}: {finding:?}");
        }
    }
    let dataset = open(toml::Table::new());
    let [train, val, test] = splits(&dataset);
    let near = 0.95;
    for (left, right) in [(train, val), (train, test), (val, test)] {
        let table = |split: &Collection| split.images.global.clone().unwrap();
        // A byte a value moves a cosine by less than a thousandth.
        let twins = crate::twins::find(&table(left), &table(right), near + 1e-3, &|_| {}).unwrap();
        let names = |twins: &crate::twins::Twins| (&left.images.ids[twins.left], &right.images.ids[twins.right]);
        assert!(twins.is_empty(), "{:?}", twins.iter().map(names).collect::<Vec<_>>());
    }
}

#[test]
fn seeds_and_the_random_split_give_other_splits() {
    let ids = |table| open(table).test.images.ids;
    let default = ids(toml::Table::new());
    assert_eq!(default, ids(toml::toml! { seed = 0 }));
    assert_ne!(default, ids(toml::toml! { seed = 1 }));
    let random = open(toml::toml! { split = "random" });
    assert_ne!(default, random.test.images.ids);
    assert_ne!(random.checksum, open(toml::Table::new()).checksum);
    // By item a fifth of each class is tested on.
    let class = random.classes.iter().position(|class| class == "food").unwrap() as u32;
    let food = random.test.images.labels.as_ref().unwrap().of.iter().filter(|of| of[..] == [class]).count();
    assert_eq!(food, items().iter().filter(|item| item.class == "food").count() / 5);
}

#[test]
fn a_known_drawing_is_what_it_should_be() {
    let items = items();
    let at = items.iter().position(|item| item.path == "food/fruit/green_pear_01").unwrap();
    assert_eq!(items[at].captions, ["green pear", "food fruit pear"]);
    assert_eq!(items[at].author, "Jean-Victor Balin");
    let Picture { rgb, .. } = picture(at, items.len());
    let pixel = &rgb[3 * (56 * SIDE + 48)..][..3];
    assert!(pixel[1] > pixel[0] && pixel[1] > pixel[2], "the middle of a green pear is {pixel:?}");
}
