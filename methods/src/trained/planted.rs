//! Planted pairs that the tests of trained methods learn from.

use std::sync::{Arc, atomic::AtomicBool};

use xmbench_datasets::{Collection, Images, Labels, Matrix, Pairs, SparseRows, Subset, Texts, random::Seed};

use crate::{Codes, Matcher, Method, Result, Run, Similarity, Training, method::Silent};

pub const BITS: usize = 7;
pub const WIDTH: usize = 12;
pub const FRAGMENTS: usize = 3;
pub const CLASSES: usize = 4;

/// Images that are noisy mixtures of seven signs, two texts each that name the signs in random order, some left out; the first two
/// signs are the class.
pub fn planted(label: &str, items: usize) -> Collection {
    let mixing: Vec<f32> = {
        let mut stream = Seed(4).stream(&["mixing"]);
        (0..BITS * WIDTH).map(|_| stream.normal() as f32).collect()
    };
    let mut stream = Seed(4).stream(&[label]);
    let mut fragments = Matrix::zeros(items, FRAGMENTS * WIDTH);
    let (mut tokens, mut pairs) = (Vec::new(), Vec::new());
    let (mut image_classes, mut text_classes) = (Vec::new(), Vec::new());
    for i in 0..items {
        let signs: Vec<bool> = (0..BITS).map(|_| stream.unit() < 0.5).collect();
        for (at, value) in fragments.row_mut(i).iter_mut().enumerate() {
            let clean: f32 = signs
                .iter()
                .enumerate()
                .map(|(b, &s)| mixing[b * WIDTH + at % WIDTH] * if s { 1.0 } else { -1.0 })
                .sum();
            *value = clean + 0.3 * stream.normal() as f32;
        }
        let class = 2 * u32::from(signs[0]) + u32::from(signs[1]);
        image_classes.push(vec![class]);
        for _ in 0..2 {
            text_classes.push(vec![class]);
            let mut order = stream.permutation(BITS);
            order.truncate(BITS - stream.below(2));
            let words = order.into_iter().map(|b| 2 + 2 * b as u32 + u32::from(signs[b]));
            pairs.push((i as u32, tokens.len() as u32));
            tokens.push(std::iter::once(0).chain(words).chain([1]).collect::<Vec<u32>>());
        }
    }
    let ids = |n: usize| (0..n).map(|i| i.to_string()).collect();
    let global = Matrix {
        rows: items,
        cols: WIDTH,
        data: (0..items).flat_map(|i| fragments.row(i)[..WIDTH].to_vec()).collect(),
    };
    Collection {
        images: Images {
            ids: ids(items),
            global: Some(Arc::new(global)),
            fragments: Some(Arc::new(Subset::fragments_of(fragments, FRAGMENTS))),
            labels: Some(Labels { classes: CLASSES, of: image_classes }),
            ..Images::default()
        },
        texts: Texts {
            ids: ids(tokens.len()),
            bow: Some(bag(&tokens)),
            tokens: Some(tokens),
            labels: Some(Labels { classes: CLASSES, of: text_classes }),
            ..Texts::default()
        },
        pairs: Pairs::new(items, 2 * items, pairs),
    }
}

/// Words counted.
fn bag(tokens: &[Vec<u32>]) -> SparseRows {
    let row = |words: &Vec<u32>| {
        let mut words = words.clone();
        words.sort_unstable();
        words.into_iter().map(|word| (word, 1.0)).collect()
    };
    SparseRows { cols: 2 + 2 * BITS, rows: tokens.iter().map(row).collect() }
}

/// As a method sees it.
pub fn view(train: &Collection) -> Training<'_> {
    Training { dataset: "planted", train, val: None, vocabulary: 2 + 2 * BITS, classes: CLASSES }
}

/// A matcher of a small size.
pub fn fit(method: &dyn Method, train: &Collection, options: toml::Table) -> Result<Box<dyn Matcher>> {
    fit_as(method, train, options, false).map(|(matcher, _)| matcher)
}

/// The matcher, and the loss of each epoch.
pub fn fit_as(
    method: &dyn Method,
    train: &Collection,
    options: toml::Table,
    control: bool,
) -> Result<(Box<dyn Matcher>, Vec<f64>)> {
    let (stop, mut silent) = (AtomicBool::new(false), Silent);
    let mut run = Run::new(Seed(2), &mut silent, &stop);
    run.control = control;
    let matcher = method.fit(&view(train), &small(method, options), &mut run)?;
    Ok((matcher, run.history.iter().map(|epoch| epoch.loss).collect()))
}

/// Parameters that bring a method down to a size that fits within seconds, those of them that it has, and the given ones.
pub fn small(method: &dyn Method, options: toml::Table) -> toml::Table {
    let sizes = toml::toml! {
        embedding = 32 word = 16 bits = 32 text_hidden = 32 epochs = 12 batch = 32 learning_rate = 0.01 decay_every = 8
    };
    let known = method.resolve(&toml::Table::new()).expect("defaults are valid");
    sizes.into_iter().filter(|(key, _)| known.contains_key(key)).chain(options).collect()
}

/// Scores of all test images with all test texts.
pub fn scores(matcher: &dyn Matcher, test: &Collection) -> Vec<Vec<f32>> {
    let (images, texts) = (matcher.encode_images(&test.images).unwrap(), matcher.encode_texts(&test.texts).unwrap());
    (0..images.len())
        .map(|i| match (matcher.similarity(), &images, &texts) {
            (Similarity::Pairwise(scorer), _, _) => {
                let mut row = vec![0.0; texts.len()];
                scorer.score(&images, i..i + 1, &texts, 0..texts.len(), &mut row).unwrap();
                row
            }
            (_, Codes::Dense(v), Codes::Dense(t)) => {
                (0..t.rows).map(|j| v.row(i).iter().zip(t.row(j)).map(|(a, b)| a * b).sum()).collect()
            }
            (_, Codes::Binary(v), Codes::Binary(t)) => {
                let distance =
                    |j: usize| v.item(i).iter().zip(t.item(j)).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
                (0..t.len()).map(|j| -(distance(j) as f32)).collect()
            }
            _ => panic!("both codes are of one kind"),
        })
        .collect()
}

/// Fraction of images whose best text is one of their own.
pub fn recall(matcher: &dyn Matcher, test: &Collection) -> f64 {
    let hits = scores(matcher, test).into_iter().enumerate().filter(|(i, row)| {
        let best = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
        test.pairs.texts_of(*i).contains(&(best as u32))
    });
    hits.count() as f64 / test.images.len() as f64
}

/// Texts of forty words and of one, which no training had.
pub fn longer_texts_score_alone_as_together(matcher: &dyn Matcher, images: &Images) {
    let texts = Texts {
        ids: vec!["long".into(), "short".into()],
        tokens: Some(vec![(0..40).map(|i| 2 + i % 14).collect(), vec![3]]),
        ..Texts::default()
    };
    let (images, texts) = (matcher.encode_images(images).unwrap(), matcher.encode_texts(&texts).unwrap());
    let Similarity::Pairwise(scorer) = matcher.similarity() else { panic!("scores pairs") };
    let score = |columns: std::ops::Range<usize>| {
        let mut out = vec![0.0; 3 * columns.len()];
        scorer.score(&images, 0..3, &texts, columns, &mut out).unwrap();
        out
    };
    let (both, long, short) = (score(0..2), score(0..1), score(1..2));
    for i in 0..3 {
        assert!(both[2 * i].is_finite() && (both[2 * i] - long[i]).abs() < 1e-5);
        assert!(both[2 * i + 1].is_finite() && (both[2 * i + 1] - short[i]).abs() < 1e-5);
    }
}
