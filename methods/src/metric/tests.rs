//! Every method of the family on planted pairs.

use std::sync::{Arc, atomic::AtomicBool};

use candle_core::Device;
use xmbench_datasets::{Collection, Images, Labels, Matrix, Pairs, SparseRows, Subset, Texts, random::Seed};

use super::{
    contrastive::Contrastive, info_nce::InfoNce, joint_embedding::JointEmbedding, n_pair::NPair,
    structure_preserving::StructurePreserving, triplet_center::TripletCenter, vse::Vse,
};
use crate::{Codes, Matcher, Method, Result, Run, Similarity, Training, method::Silent};

const BITS: usize = 7;
const WIDTH: usize = 12;
const FRAGMENTS: usize = 3;
const CLASSES: usize = 4;

/// Images that are noisy mixtures of seven signs, two texts each that name the signs in random order, some left out; the first two
/// signs are the class.
fn planted(label: &str, items: usize) -> Collection {
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

pub(super) fn view(train: &Collection) -> Training<'_> {
    Training { dataset: "planted", train, val: None, vocabulary: 2 + 2 * BITS, classes: CLASSES }
}

fn fit(method: &dyn Method, train: &Collection, options: toml::Table) -> Result<Box<dyn Matcher>> {
    fit_as(method, train, options, false).map(|(matcher, _)| matcher)
}

/// The matcher, and the loss of each epoch.
fn fit_as(
    method: &dyn Method,
    train: &Collection,
    options: toml::Table,
    control: bool,
) -> Result<(Box<dyn Matcher>, Vec<f64>)> {
    let mut table =
        toml::toml! { embedding = 32 word = 16 epochs = 12 batch = 32 learning_rate = 0.01 decay_every = 8 };
    table.extend(options);
    let (stop, mut silent) = (AtomicBool::new(false), Silent);
    let mut run = Run { control, ..Run::new(Seed(2), &mut silent, &stop) };
    let matcher = method.fit(&view(train), &table, &mut run)?;
    Ok((matcher, run.history.iter().map(|epoch| epoch.loss).collect()))
}

fn scores(matcher: &dyn Matcher, test: &Collection) -> Vec<Vec<f32>> {
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
            _ => panic!("codes are dense"),
        })
        .collect()
}

/// Fraction of images whose best text is one of their own.
fn recall(matcher: &dyn Matcher, test: &Collection) -> f64 {
    let hits = scores(matcher, test).into_iter().enumerate().filter(|(i, row)| {
        let best = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
        test.pairs.texts_of(*i).contains(&(best as u32))
    });
    hits.count() as f64 / test.images.len() as f64
}

/// Every method with options that reach each of its branches.
fn variants() -> Vec<(&'static dyn Method, toml::Table)> {
    vec![
        (&Vse, toml::Table::new()),
        (&Vse, toml::toml! { max_violation = false normalise_images = false negatives = "paper" }),
        (&Vse, toml::toml! { text_encoder = "bigru" text_pooling = "mean" image = "fragments" intra_modal = 0.5 }),
        (&Vse, toml::toml! { text_encoder = "bigru" text_pooling = "gpo" image_pooling = "gpo" }),
        (&Vse, toml::toml! { measure = "order" absolute = true margin = 0.05 max_violation = false epochs = 40 }),
        (&Vse, toml::toml! { text_encoder = "bigru" layers = 2 epochs = 20 }),
        (&Vse, toml::toml! { text_pooling = "mean" normalise_features = true }),
        (&Contrastive, toml::toml! { epochs = 20 }),
        (&Contrastive, toml::toml! { form = "linear" positive_margin = 0.1 reduction = "nonzero" epochs = 20 }),
        (&NPair, toml::Table::new()),
        (&NPair, toml::toml! { form = "ovo" symmetric = false text_encoder = "bilstm" text_pooling = "max" }),
        (&InfoNce, toml::Table::new()),
        (
            &InfoNce,
            toml::toml! { learn_temperature = false temperature = 0.2 standardise = true text_encoder = "vectors" },
        ),
        (&StructurePreserving, toml::toml! { hidden = 64 margin = 0.2 text_components = 0 epochs = 40 }),
        (
            &StructurePreserving,
            toml::toml! { hidden = 0 dropout = 0.0 image_structure = 0.2 margin = 0.2 text_encoder = "gru" },
        ),
        (&JointEmbedding, toml::Table::new()),
        (
            &JointEmbedding,
            toml::toml! { mining = "hardest" text_encoder = "transformer" warmup = 6 epochs = 24 learning_rate = 0.003 },
        ),
        (&JointEmbedding, toml::toml! { attention = true text_encoder = "bigru" class_weight = 0.1 epochs = 20 }),
        (&JointEmbedding, toml::toml! { mining = "semi_hard" class_weight = 0.1 epochs = 20 }),
        (
            &JointEmbedding,
            toml::toml! { mining = "distance_weighted" class_weight = 0.1 shared_classifier = false epochs = 20 },
        ),
    ]
}

#[test]
fn every_variant_learns_the_planted_signs() {
    let (train, test) = (planted("train", 160), planted("test", 40));
    for (method, options) in variants() {
        let label = format!("{} {options}", method.card().name);
        let matcher = fit(method, &train, options).unwrap_or_else(|error| panic!("{label}: {error}"));
        // Two images of 40 share their seven signs now and then; chance is 0.025.
        let recall = recall(&*matcher, &test);
        assert!(recall > 0.4, "{label}: recall at 1 {recall}");
    }
}

/// Fraction of images whose best text is of their class.
fn class_recall(matcher: &dyn Matcher, test: &Collection) -> f64 {
    let (images, texts) = (test.images.labels.as_ref().unwrap(), test.texts.labels.as_ref().unwrap());
    let hits = scores(matcher, test).into_iter().enumerate().filter(|(i, row)| {
        let best = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
        images.of[*i] == texts.of[best]
    });
    hits.count() as f64 / test.images.len() as f64
}

#[test]
fn classes_gather_around_their_centres() {
    let (train, test) = (planted("train", 160), planted("test", 40));
    for (method, options) in [
        (&TripletCenter as &dyn Method, toml::toml! { text_pooling = "mean" }),
        (
            &TripletCenter,
            toml::toml! { softmax_weight = 0 lambda = 1 normalise = true margin = 0.5 text_pooling = "mean" epochs = 20 },
        ),
        (&TripletCenter, toml::toml! { form = "released" text_pooling = "mean" }),
        (&TripletCenter, toml::toml! { lambda = 0 text_pooling = "mean" }),
        (&Contrastive, toml::toml! { positives = "classes" epochs = 20 }),
        (&InfoNce, toml::toml! { negatives = "classes" }),
    ] {
        let label = format!("{} {options}", method.card().name);
        let recall = class_recall(&*fit(method, &train, options).unwrap(), &test);
        // Four classes: chance is 0.25.
        assert!(recall > 0.8, "{label}: {recall}");
    }
}

#[test]
fn a_saved_matcher_and_a_second_fit_have_the_same_bits() {
    let (train, test) = (planted("train", 60), planted("test", 300));
    for (method, mut options) in variants() {
        options.insert("epochs".into(), 1.into());
        options.remove("warmup");
        let label = format!("{} {options}", method.card().name);
        let matcher = fit(method, &train, options.clone()).unwrap();
        let codes = |m: &dyn Matcher| (m.encode_images(&test.images).unwrap(), m.encode_texts(&test.texts).unwrap());
        let before = codes(&*matcher);
        assert!(codes(&*fit(method, &train, options).unwrap()) == before, "{label}");
        let folder = tempfile::tempdir().unwrap();
        matcher.save(folder.path()).unwrap();
        assert!(codes(&*method.load(folder.path(), &Device::Cpu).unwrap()) == before, "{label}");
    }
}

#[test]
fn a_collapsed_model_stops_and_says_what_to_change() {
    let train = planted("train", 60);
    // A rate of next to nothing and features of next to nothing: every score stays what it was.
    let mut flat = train.clone();
    flat.images.global = Some(Arc::new(Matrix { rows: 60, cols: WIDTH, data: vec![1.0; 60 * WIDTH] }));
    flat.texts.tokens = Some(vec![vec![0, 1]; 120]);
    let stuck = toml::toml! { learning_rate = 1e-9 collapse_steps = 20 epochs = 20 };
    let message = fit(&Vse, &flat, stuck.clone()).err().unwrap().to_string();
    // 2 x 32 x 0.2.
    assert!(message.contains("collapsed") && message.contains("12.8") && message.contains("`warmup`"), "{message}");
    assert!(fit(&JointEmbedding, &flat, stuck.clone()).is_ok(), "the sum of hinges has no trap");
    assert!(fit_as(&Vse, &flat, stuck.clone(), true).is_ok(), "on shuffled pairs there is nothing to learn");
    let mut going_on = stuck;
    going_on.insert("collapse_steps".into(), 0.into());
    assert!(fit(&Vse, &flat, going_on).is_ok());
}

#[test]
fn siblings_are_no_negatives_unless_asked_for() {
    let train = planted("train", 1);
    let last_loss = |negatives: &str| {
        let mut table = toml::toml! { embedding = 8 word = 4 epochs = 1 batch = 2 learning_rate = 1e-9 };
        table.insert("negatives".into(), negatives.into());
        fit_as(&Vse, &train, table, false).unwrap().1[0]
    };
    // Both pairs share the image: as negatives of each other they cost the margin in the direction of images, whatever the weights.
    assert!(last_loss("paper") >= 0.4 - 1e-6);
    assert_eq!(last_loss("others"), 0.0);
    assert_eq!(last_loss("classes"), 0.0);
    assert!(Vse.remark(&toml::toml! { negatives = "paper" }).is_some() && Vse.remark(&toml::Table::new()).is_none());
}

#[test]
fn company_does_not_change_a_code() {
    let (train, test) = (planted("train", 60), planted("test", 50));
    let matcher = fit(&Vse, &train, toml::toml! { epochs = 1 text_encoder = "bigru" text_pooling = "gpo" }).unwrap();
    let Codes::Dense(all) = matcher.encode_texts(&test.texts).unwrap() else { panic!("codes are dense") };
    for item in [0, 7, 99] {
        let tokens = vec![test.texts.tokens.as_ref().unwrap()[item].clone()];
        let alone = Texts { ids: vec!["one".into()], tokens: Some(tokens), ..Texts::default() };
        let Codes::Dense(alone) = matcher.encode_texts(&alone).unwrap() else { panic!("codes are dense") };
        for (a, b) in alone.row(0).iter().zip(all.row(item)) {
            assert!((a - b).abs() < 1e-6);
        }
    }
    let nothing = Texts { tokens: Some(Vec::new()), ..Texts::default() };
    assert!(matcher.encode_texts(&nothing).unwrap().is_empty());
}

#[test]
fn bad_input_is_named() {
    let train = planted("train", 40);
    let matcher = fit(&Vse, &train, toml::toml! { epochs = 1 }).unwrap();
    let texts = |tokens: Vec<u32>| Texts { ids: vec!["t7".into()], tokens: Some(vec![tokens]), ..Texts::default() };
    let message = matcher.encode_texts(&texts(vec![0, 99])).unwrap_err().to_string();
    assert!(message.contains("token 99") && message.contains("16 words"), "{message}");
    let message = matcher.encode_texts(&texts(vec![])).unwrap_err().to_string();
    assert!(message.contains("t7") && message.contains("no tokens"), "{message}");
    let images = |data: Vec<f32>| Images {
        ids: vec!["i".into()],
        global: Some(Arc::new(Matrix { rows: 1, cols: data.len(), data })),
        ..Images::default()
    };
    let message = matcher.encode_images(&images(vec![0.0; 5])).unwrap_err().to_string();
    assert!(message.contains("length 12") && message.contains("length 5"), "{message}");
    let message = matcher.encode_images(&images(vec![f32::NAN; WIDTH])).unwrap_err().to_string();
    assert!(message.contains("image 0, column 0"), "{message}");
    let mut bare = planted("train", 40);
    bare.texts.tokens = None;
    let message = fit(&Vse, &bare, toml::Table::new()).err().unwrap().to_string();
    assert!(message.contains("texts.tokens") && message.contains("planted"), "{message}");
    for (table, key) in [
        (toml::toml! { margin = -1 }, "margin"),
        (toml::toml! { embedding = 0 }, "embedding"),
        (toml::toml! { batch = 0 }, "batch"),
        (toml::toml! { measure = "euclid" }, "measure"),
        (toml::toml! { dropout = 0.5 }, "dropout"),
        (toml::toml! { measure = "order" intra_modal = 0.5 }, "intra_modal"),
    ] {
        let message = Vse.resolve(&table).unwrap_err().to_string();
        assert!(message.contains(&format!("`{key}`")), "{message}");
    }
}

#[test]
fn labels_are_asked_for_where_they_are_needed() {
    let mut bare = planted("train", 40);
    bare.texts.labels = None;
    let message = fit(&TripletCenter, &bare, toml::toml! { epochs = 1 }).err().unwrap().to_string();
    assert!(message.contains("texts.labels") && message.contains("triplet_center"), "{message}");
    let mut odd = planted("train", 40);
    odd.images.labels.as_mut().unwrap().of[3] = vec![];
    let message =
        fit(&JointEmbedding, &odd, toml::toml! { class_weight = 1 epochs = 1 batch = 20 }).err().unwrap().to_string();
    assert!(message.contains("one class an item") && message.contains("image 3"), "{message}");
    odd.images.labels.as_mut().unwrap().of[3] = vec![0, 1];
    assert!(fit(&JointEmbedding, &odd, toml::toml! { class_weight = 1 epochs = 1 batch = 20 }).is_ok());
}
