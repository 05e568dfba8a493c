use std::sync::{Arc, atomic::AtomicBool};

use xmbench_datasets::{Collection, Pairs, Subset, random::Seed};

use super::*;
use crate::method::Silent;

const BITS: usize = 7;
const WIDTH: usize = 12;
const FRAGMENTS: usize = 3;

/// Images that are noisy mixtures of seven signs, two texts each that name the signs in random order, some left out.
fn planted(label: &str, items: usize) -> Collection {
    let mixing: Vec<f32> = {
        let mut stream = Seed(4).stream(&["mixing"]);
        (0..BITS * WIDTH).map(|_| stream.normal() as f32).collect()
    };
    let mut stream = Seed(4).stream(&[label]);
    let mut fragments = Matrix::zeros(items, FRAGMENTS * WIDTH);
    let (mut tokens, mut pairs) = (Vec::new(), Vec::new());
    for i in 0..items {
        let signs: Vec<bool> = (0..BITS).map(|_| stream.unit() < 0.5).collect();
        for (at, value) in fragments.row_mut(i).iter_mut().enumerate() {
            let clean: f32 =
                signs.iter().enumerate().map(|(b, &s)| mixing[b * WIDTH + at % WIDTH] * if s { 1.0 } else { -1.0 }).sum();
            *value = clean + 0.3 * stream.normal() as f32;
        }
        for _ in 0..2 {
            let mut order = stream.permutation(BITS);
            order.truncate(BITS - stream.below(2));
            let words = order.into_iter().map(|b| 2 + 2 * b as u32 + u32::from(signs[b]));
            pairs.push((i as u32, tokens.len() as u32));
            tokens.push(std::iter::once(0).chain(words).chain([1]).collect::<Vec<u32>>());
        }
    }
    let ids = |n: usize| (0..n).map(|i| i.to_string()).collect();
    let global = Matrix { rows: items, cols: WIDTH, data: (0..items).flat_map(|i| fragments.row(i)[..WIDTH].to_vec()).collect() };
    Collection {
        images: Images {
            ids: ids(items),
            global: Some(Arc::new(global)),
            fragments: Some(Arc::new(Subset::fragments_of(fragments, FRAGMENTS))),
            ..Images::default()
        },
        texts: Texts { ids: ids(tokens.len()), tokens: Some(tokens), ..Texts::default() },
        pairs: Pairs::new(items, 2 * items, pairs),
    }
}

fn view(train: &Collection) -> Training<'_> {
    Training { dataset: "planted", train, val: None, vocabulary: 2 + 2 * BITS, classes: 0 }
}

fn fit(train: &Collection, options: toml::Table) -> Result<Box<dyn Matcher>> {
    let mut table = toml::toml! { embedding = 32 word = 16 epochs = 12 batch = 32 learning_rate = 0.01 decay_every = 8 };
    table.extend(options);
    let (stop, mut silent) = (AtomicBool::new(false), Silent);
    let mut run = Run {
        seed: Seed(2),
        device: Device::Cpu,
        judge: None,
        checkpoints: None,
        observer: &mut silent,
        stop: &stop,
        history: Vec::new(),
    };
    Vse.fit(&view(train), &table, &mut run)
}

fn scores(matcher: &dyn Matcher, test: &Collection) -> Vec<Vec<f32>> {
    let (images, texts) = (matcher.encode_images(&test.images).unwrap(), matcher.encode_texts(&test.texts).unwrap());
    let (Codes::Dense(v), Codes::Dense(t)) = (&images, &texts) else { panic!("codes are dense") };
    (0..v.rows)
        .map(|i| match matcher.similarity() {
            Similarity::Pairwise(scorer) => {
                let mut row = vec![0.0; t.rows];
                scorer.score(&images, i..i + 1, &texts, 0..t.rows, &mut row).unwrap();
                row
            }
            _ => (0..t.rows).map(|j| v.row(i).iter().zip(t.row(j)).map(|(a, b)| a * b).sum()).collect(),
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

#[test]
fn every_variant_learns_the_planted_signs() {
    let (train, test) = (planted("train", 160), planted("test", 40));
    for options in [
        toml::Table::new(),
        toml::toml! { max_violation = false normalise_images = false },
        toml::toml! { text_encoder = "bigru" text_pooling = "mean" image = "fragments" },
        toml::toml! { text_encoder = "bigru" text_pooling = "gpo" image_pooling = "gpo" mask_same_image = true },
        toml::toml! { measure = "order" absolute = true margin = 0.05 max_violation = false epochs = 40 },
        toml::toml! { text_encoder = "bigru" layers = 2 epochs = 20 },
        toml::toml! { text_pooling = "mean" normalise_features = true },
    ] {
        let label = options.to_string();
        let matcher = fit(&train, options).unwrap();
        // Two images of 40 share their seven signs now and then; chance is 0.025.
        let recall = recall(&*matcher, &test);
        assert!(recall > 0.4, "{label}: recall at 1 {recall}");
    }
}

#[test]
fn a_saved_matcher_and_a_second_fit_have_the_same_bits() {
    let (train, test) = (planted("train", 60), planted("test", 300));
    for options in [toml::toml! { epochs = 2 }, toml::toml! { epochs = 1 text_pooling = "gpo" image_pooling = "gpo" measure = "order" }] {
        let matcher = fit(&train, options.clone()).unwrap();
        let codes = |m: &dyn Matcher| (m.encode_images(&test.images).unwrap(), m.encode_texts(&test.texts).unwrap());
        let before = codes(&*matcher);
        assert!(codes(&*fit(&train, options).unwrap()) == before);
        let folder = tempfile::tempdir().unwrap();
        matcher.save(folder.path()).unwrap();
        assert!(codes(&*Vse.load(folder.path(), &Device::Cpu).unwrap()) == before);
    }
}

#[test]
fn threads_change_no_bit_of_a_fit() {
    let train = planted("train", 60);
    let compute = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        // The training thread leaves the pool, so the step itself is repeated inside of it.
        pool.install(|| {
            let params = Params { embedding: 48, word: 16, ..Params::default() };
            let shape = Shape::of(&view(&train), &params).unwrap();
            let model = Embedding::new(Weights::new(Seed(1), &Device::Cpu), params, shape).unwrap();
            let mut step = Step { epoch: 0, step: 0, stream: Seed(1).stream(&["step"]) };
            let loss = model.loss(&view(&train), &train.pairs.all()[..64], &mut step).unwrap();
            let grads = loss.backward().unwrap();
            let all: Vec<Vec<f32>> =
                model.weights.iter().map(|(_, var)| grads.get(var).unwrap().flatten_all().unwrap().to_vec1().unwrap()).collect();
            (loss.to_scalar::<f32>().unwrap(), all)
        })
    };
    let one = compute(1);
    assert!(compute(2) == one && compute(4) == one);
}

#[test]
fn company_does_not_change_a_code() {
    let (train, test) = (planted("train", 60), planted("test", 50));
    let matcher = fit(&train, toml::toml! { epochs = 1 text_encoder = "bigru" text_pooling = "gpo" }).unwrap();
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
fn siblings_are_left_out_when_asked() {
    let train = planted("train", 1);
    let loss = |mask| {
        let params = Params { embedding: 8, word: 4, mask_same_image: mask, ..Params::default() };
        let shape = Shape::of(&view(&train), &params).unwrap();
        let model = Embedding::new(Weights::new(Seed(1), &Device::Cpu), params, shape).unwrap();
        let mut step = Step { epoch: 0, step: 0, stream: Seed(1).stream(&["step"]) };
        model.loss(&view(&train), &[(0, 0), (0, 1)], &mut step).unwrap().to_scalar::<f32>().unwrap()
    };
    // Both pairs share the image: unmasked, the two images' terms are the margin each, whatever the weights.
    assert!(loss(false) >= 0.4 - 1e-6);
    assert_eq!(loss(true), 0.0);
}

#[test]
fn bad_input_is_named() {
    let train = planted("train", 40);
    let matcher = fit(&train, toml::toml! { epochs = 1 }).unwrap();
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
    let message = fit(&bare, toml::Table::new()).err().unwrap().to_string();
    assert!(message.contains("texts.tokens") && message.contains("planted"), "{message}");
    for (table, key) in [
        (toml::toml! { margin = -1 }, "margin"),
        (toml::toml! { embedding = 0 }, "embedding"),
        (toml::toml! { batch = 0 }, "batch"),
        (toml::toml! { measure = "euclid" }, "measure"),
    ] {
        let message = Params::read(&table).unwrap_err().to_string();
        assert!(message.contains(&format!("`{key}`")), "{message}");
    }
}
