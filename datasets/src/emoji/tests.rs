use super::*;
use crate::{Collection, Split};

fn open(table: toml::Table) -> Dataset {
    crate::open("emoji", &table, None).unwrap()
}

fn splits(dataset: &Dataset) -> [&Collection; 3] {
    [Split::Train, Split::Val, Split::Test].map(|split| dataset.split(split).unwrap())
}

#[test]
fn counts_are_those_of_the_packages() {
    let dataset = open(toml::Table::new());
    let sizes = splits(&dataset).map(|split| split.images.len());
    assert_eq!(sizes, [1341, 191, 382]);
    assert_eq!(emojis::iter().count(), 1923);
    let labels: Vec<u32> =
        splits(&dataset).iter().flat_map(|s| s.images.labels.as_ref().unwrap().of.concat()).collect();
    let count = |name: &str| {
        let class = dataset.classes.iter().position(|class| class == name).unwrap() as u32;
        labels.iter().filter(|&&label| label == class).count()
    };
    let names = ["people and body", "flags", "objects", "symbols", "travel and places", "smileys and emotion"];
    assert_eq!(names.map(count), [388, 270, 266, 224, 219, 171]);
    assert_eq!(["animals and nature", "food and drink", "activities"].map(count), [160, 131, 85]);
    let captions: usize = splits(&dataset).iter().map(|split| split.texts.len()).sum();
    let several = splits(&dataset)
        .iter()
        .map(|split| (0..split.images.len()).filter(|&i| split.pairs.texts_of(i).len() >= 2).count())
        .sum::<usize>();
    println!("{captions} captions, {several} images with several");
    assert!(captions as f64 / 1914.0 > 2.1 && several > 1700);
}

#[test]
fn subgroups_are_classes_too() {
    let dataset = open(toml::toml! { labels = "subgroup" });
    let labelled: usize = splits(&dataset).iter().map(|s| s.images.labels.as_ref().unwrap().of.concat().len()).sum();
    assert_eq!((dataset.classes.len(), labelled), (98, 1812));
    assert_eq!(dataset.variant, "labels=subgroup");
}

#[test]
fn a_known_emoji_is_what_it_should_be() {
    let items = item::items();
    let item = items.iter().find(|item| item.emoji.name() == "red heart").unwrap();
    assert_eq!(item.captions()[..2], ["red heart", "heart"]);
    let at = items.iter().position(|item| item.emoji.name() == "red square").unwrap();
    let pictures = pixels::Pictures::decode(&items[at..=at]);
    let picture = pictures.picture(0);
    assert_eq!((picture.width, picture.height, picture.rgb.len()), (72, 72, 3 * 72 * 72));
    // Twemoji's red is #DD2E44, the corner is outside of the rounded square and so white.
    let pixel = |x: usize, y: usize| &picture.rgb[3 * (72 * y + x)..][..3];
    assert_eq!((pixel(36, 36), pixel(0, 0)), ([0xdd, 0x2e, 0x44].as_slice(), [255; 3].as_slice()));
    let small = pictures.small(1);
    assert!((small.data[3 * (16 * 32 + 16)] - 34.0 / 255.0).abs() < 1e-6 && small.data[0] < 0.5);
}

#[test]
fn windows_see_ink_edges_and_place() {
    let items = item::items();
    let at = items.iter().position(|item| item.emoji.name() == "red square").unwrap();
    let windows = pixels::Windows::new(pixels::Pictures::decode(&items[at..=at]), 1);
    let mut all = vec![0.0; 36 * 327];
    crate::Features::read(&windows, 0, &mut all).unwrap();
    // The window of row 2, column 3 is inside the square: even colour, no edges.
    let inner = &all[(2 * 6 + 3) * 327..][..327];
    for cell in inner[..243].chunks(3) {
        let ink = [0xdd, 0x2e, 0x44].map(|value: u8| f32::from(255 - value) / 255.0);
        assert!(cell.iter().zip(ink).all(|(a, b)| (a - b).abs() < 1e-5));
    }
    assert!(inner[243..315].iter().all(|&edge| edge == 0.0));
    assert_eq!(inner[315..], [0., 0., 0., 1., 0., 0., 0., 0., 1., 0., 0., 0.]);
    // The square touches the left border, beyond which it is white: an upright edge, with the gradient along x.
    let left = &all[2 * 6 * 327 + 243..][..72];
    let along = |direction: usize| left.iter().skip(direction).step_by(8).sum::<f32>();
    assert!(along(0) > 0.5 && (1..7).all(|direction| along(direction) < 0.01));
    let boxes = pixels::boxes();
    assert_eq!((boxes[0], boxes[35]), ([0.0, 0.0, 0.375, 0.375], [0.625, 0.625, 1.0, 1.0]));
}

/// Recomputed from scratch: names with the person replaced, and pictures by brute force.
#[test]
fn no_near_twin_crosses_the_splits() {
    let dataset = open(toml::Table::new());
    let items = item::items();
    let split_of =
        |id: &str| splits(&dataset).iter().position(|s| s.images.ids.iter().any(|other| other == id)).unwrap();
    let of: Vec<usize> = items.iter().map(|item| split_of(item.emoji.as_str())).collect();
    let named = |name: &str| items.iter().position(|item| item.emoji.name() == name).map(|item| of[item]);
    let mut checked = 0;
    for item in &items {
        if let Some(rest) = item.emoji.name().strip_prefix("woman ") {
            for twin in [format!("man {rest}"), format!("person {rest}"), rest.to_owned()] {
                if let Some(split) = named(&twin) {
                    assert_eq!(Some(split), named(item.emoji.name()), "{twin}");
                    checked += 1;
                }
            }
        }
    }
    assert!(checked > 80, "{checked}");
    assert_eq!(named("red heart"), named("blue heart"));
    assert_eq!(named("one o\u{2019}clock"), named("six-thirty"));
    assert_eq!(named("flag: Norway"), named("flag: Bouvet Island"));
    let small = pixels::Pictures::decode(&items).small(items.len());
    for i in 0..items.len() {
        for j in (0..i).filter(|&j| of[i] != of[j]) {
            let pairs = || small.row(i).iter().zip(small.row(j));
            let (difference, ink) = pairs().fold((0.0, [0.0; 2]), |(d, [p, q]): (f32, [f32; 2]), (a, b)| {
                (d + (a - b).powi(2), [p + a.powi(2), q + b.powi(2)])
            });
            let relative = (difference / ink[0].max(ink[1])).sqrt();
            assert!(relative > series::LEAST_DIFFERENCE * 0.999, "{} {}", items[i].emoji, items[j].emoji);
        }
    }
}

#[test]
fn the_random_split_and_the_seed_change_the_split() {
    let ids = |table| open(table).test.images.ids;
    let default = ids(toml::Table::new());
    assert_eq!(default, ids(toml::toml! { seed = 0 }));
    assert_ne!(default, ids(toml::toml! { seed = 1 }));
    let random = open(toml::toml! { split = "random" });
    assert_eq!(splits(&random).map(|split| split.images.len()), [1341, 191, 382]);
    assert_ne!(default, random.test.images.ids);
    assert_ne!(random.checksum, open(toml::Table::new()).checksum);
}

#[test]
fn loading_is_fast() {
    let start = std::time::Instant::now();
    open(toml::Table::new());
    assert!(start.elapsed().as_secs_f64() < 5.0, "{:?}", start.elapsed());
    println!("loaded in {:?}", start.elapsed());
}

#[test]
fn encoded_pictures_stand_beside_the_same_captions_and_splits() {
    let (pixels, encoded) = (open(toml::Table::new()), open(toml::toml! { features = "lite0" }));
    assert_ne!(pixels.checksum, encoded.checksum);
    assert_eq!(encoded.variant, "features=lite0");
    for (a, b) in splits(&pixels).into_iter().zip(splits(&encoded)) {
        assert_eq!((&a.images.ids, &a.texts.raw), (&b.images.ids, &b.texts.raw));
        let (global, cells) = (b.images.global.as_ref().unwrap(), b.images.fragments.as_ref().unwrap());
        assert_eq!([global.items(), global.width(), cells.fragments(), cells.width()], [a.images.len(), 1280, 9, 192]);
        assert_eq!(b.images.boxes.as_ref().unwrap().len(), 9 * a.images.len());
    }
    // Each row belongs to its emoji: hearts are nearer to each other than to a pizza.
    let items = item::items();
    let rows = encoded_rows(&items);
    let table = Quantised::new(GLOBAL);
    let vector = |name: &str| {
        let at = items.iter().position(|item| item.emoji.name() == name).unwrap();
        let mut out = vec![0.0f32; 1280];
        crate::Features::read(&table, rows[at], &mut out).unwrap();
        out
    };
    let cosine = |a: &str, b: &str| {
        let (a, b) = (vector(a), vector(b));
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()
    };
    for other in ["pizza", "bicycle", "dog face"] {
        assert!(cosine("red heart", "blue heart") > cosine("red heart", other) + 0.1, "{other}");
    }
    let mut seen = rows.clone();
    seen.sort_unstable();
    assert_eq!(seen, (0..items.len()).collect::<Vec<_>>());
}
