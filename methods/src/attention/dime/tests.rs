use candle_core::{DType, Device};
use xmbench_datasets::{Collection, Images, Matrix, Subset, Texts, random::Seed};

use super::*;
use crate::{
    Matcher, Method,
    nn::cross::Interaction,
    trained::planted::{FRAGMENTS, WIDTH, fit, fit_as, planted, recall, scores},
};

const SIZES: Sizes = Sizes { width: 8, heads: 2, reasoning: 6, router: 5 };
const ATTENTION: Attention = Attention { norm: Norm::ClippedL2norm, lambda_softmax: 4.0 };
const BOTH: [Direction; 2] = [Direction::I2t, Direction::T2i];

fn network(direction: Direction) -> (Weights, Dime) {
    let mut weights = Weights::new(Seed(3), &Device::Cpu);
    let dime = Dime::new(&mut weights, direction, SIZES, ATTENTION).unwrap();
    (weights, dime)
}

fn drawn(label: &str, shape: &[usize]) -> Tensor {
    let mut stream = Seed(8).stream(&["dime", label]);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| stream.normal() as f32).collect();
    unit(&Tensor::from_vec(values, shape, &Device::Cpu).unwrap()).unwrap()
}

/// Some images and texts as a direction takes them: a global vector stands before the side that answers.
fn sides(dime: &Dime, images: usize, lengths: &[usize], steps: usize, junk: f32) -> (Side, Side) {
    let answers = |direction: Direction| usize::from(dime.direction == direction);
    let regions = drawn("regions", &[images, 4 + answers(Direction::T2i), 8]);
    let lengths: Vec<usize> = lengths.iter().map(|length| length + answers(Direction::I2t)).collect();
    let steps = steps + answers(Direction::I2t);
    // The same words however many steps there are.
    let words = drawn("words", &[lengths.len(), 16, 8]).narrow(1, 0, steps).unwrap().contiguous().unwrap();
    let lengths = Lengths::new(lengths).unwrap();
    let mask = lengths.mask(steps, &Device::Cpu).unwrap().unsqueeze(2).unwrap().broadcast_as(words.shape()).unwrap();
    let junk = Tensor::full(junk, words.shape(), &Device::Cpu).unwrap();
    let texts = Padded::new(&mask.where_cond(&words, &junk).unwrap(), &lengths).unwrap();
    (Side::images(dime, Padded::full(&regions).unwrap()).unwrap(), Side::texts(dime, texts).unwrap())
}

fn flat(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn apart(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let (a, b) = (flat(a), flat(b));
    a.iter().zip(&b).map(|(a, b)| if a.is_nan() || b.is_nan() { f32::NAN } else { (a - b).abs() }).fold(0.0, f32::max)
}

fn small() -> toml::Table {
    toml::toml! { embedding = 16 batch = 16 heads = 4 reasoning_width = 24 router_width = 12 path_width = 8 }
}

fn fitted(direction: &str, train: &Collection) -> Box<dyn Matcher> {
    let mut options = small();
    options.insert("direction".into(), direction.into());
    options.insert("epochs".into(), 6.into());
    fit(&DIME, train, options).unwrap()
}

#[test]
fn every_golden_file_of_the_authors_holds() {
    crate::golden::assert_files(&DIME.operations());
}

#[test]
fn signs_are_learnt_in_both_directions_and_survive_the_disk() {
    let (train, test) = (planted("train", 200), planted("test", 40));
    for direction in ["i2t", "t2i"] {
        let matcher = fitted(direction, &train);
        let recall = recall(&*matcher, &test);
        println!("{direction}: R@1 {recall}");
        // Chance is 1/40.
        assert!(recall > 0.3, "{direction}: {recall}");
        let folder = tempfile::tempdir().unwrap();
        matcher.save(folder.path()).unwrap();
        let loaded = DIME.load(folder.path(), &Device::Cpu).unwrap();
        assert!(matcher.encode_images(&test.images).unwrap() == loaded.encode_images(&test.images).unwrap());
        assert!(matcher.encode_texts(&test.texts).unwrap() == loaded.encode_texts(&test.texts).unwrap());
        assert_eq!(scores(&*matcher, &test), scores(&*loaded, &test));
        unusual_items_have_scores(&*matcher, direction);
    }
}

/// One word and many, zero regions, one region; each pair by itself and in company.
fn unusual_items_have_scores(matcher: &dyn Matcher, direction: &str) {
    let texts = Texts {
        ids: ["short", "one", "long"].map(str::to_string).into(),
        tokens: Some(vec![vec![0, 5, 1], vec![4], (0..60).map(|i| i % 16).collect()]),
        ..Texts::default()
    };
    let texts = matcher.encode_texts(&texts).unwrap();
    let Similarity::Pairwise(scorer) = matcher.similarity() else { panic!("dime scores pairs") };
    for regions in [FRAGMENTS, 1] {
        let mut features = Matrix::zeros(3, regions * WIDTH);
        features.row_mut(1).fill(1.5);
        features.row_mut(2).iter_mut().enumerate().for_each(|(at, value)| *value = (at as f32).sin());
        let images = Images {
            ids: ["zero", "constant", "waves"].map(str::to_string).into(),
            fragments: Some(std::sync::Arc::new(Subset::fragments_of(features, regions))),
            ..Images::default()
        };
        let images = matcher.encode_images(&images).unwrap();
        let mut all = vec![f32::NAN; 9];
        scorer.score(&images, 0..3, &texts, 0..3, &mut all).unwrap();
        for (at, &score) in all.iter().enumerate() {
            assert!(score.is_finite() && score.abs() < 1.0 + 1e-5, "{direction}, {regions} regions: {all:?}");
            let mut alone = [f32::NAN];
            scorer.score(&images, at / 3..at / 3 + 1, &texts, at % 3..at % 3 + 1, &mut alone).unwrap();
            assert!((alone[0] - score).abs() < 1e-5, "{direction}, pair {at}: {} in a shard, {score}", alone[0]);
        }
    }
}

#[test]
fn released_padding_takes_part_and_long_texts_are_cut() {
    let (train, test) = (planted("train", 200), planted("test", 40));
    for (direction, vectors) in [("i2t", None), ("t2i", Some(12))] {
        let mut options = small();
        options.insert("direction".into(), direction.into());
        options.insert("epochs".into(), 6.into());
        options.insert("positions".into(), 12.into());
        let matcher = fit(&DIME, &train, options).unwrap();
        let found = recall(&*matcher, &test);
        println!("{direction}, padded: R@1 {found}");
        assert!(found > 0.2, "{direction}: {found}");
        let Codes::Fragments(texts) = matcher.encode_texts(&test.texts).unwrap() else { panic!("fragments") };
        let tokens = test.texts.tokens.as_ref().unwrap();
        for (text, words) in tokens.iter().enumerate() {
            // A sentence stands before the words that are attended to, and they are those of the text.
            assert_eq!(texts.count(text), vectors.unwrap_or(words.len() + 1));
        }
        let folder = tempfile::tempdir().unwrap();
        matcher.save(folder.path()).unwrap();
        let before = scores(&*matcher, &test);
        assert!(before == scores(&*DIME.load(folder.path(), &Device::Cpu).unwrap(), &test));
        let path = folder.path().join("weights.safetensors");
        let mut weights = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        let other = (&weights["padding"] + 1.0).unwrap();
        weights.insert("padding".into(), other);
        candle_core::safetensors::save(&weights, &path).unwrap();
        assert!(before != scores(&*DIME.load(folder.path(), &Device::Cpu).unwrap(), &test));
        unusual_items_have_scores(&*matcher, direction);
    }
}

#[test]
fn padding_changes_nothing_whatever_stands_there() {
    for direction in BOTH {
        let (_, dime) = network(direction);
        let lengths = [3, 1, 6];
        let expected = {
            let (images, texts) = sides(&dime, 4, &lengths, 6, 0.0);
            [false, true]
                .map(|training| dime.compare(&dime.refine(&images, &texts, Pairing::Every).unwrap(), training).unwrap())
        };
        let (_, dime) = network(direction);
        let (images, texts) = sides(&dime, 4, &lengths, 11, f32::NAN);
        let refined = dime.refine(&images, &texts, Pairing::Every).unwrap();
        for (training, expected) in [false, true].into_iter().zip(&expected) {
            let found = dime.compare(&refined, training).unwrap();
            assert!(apart(&found, expected) < 1e-5, "{direction:?}, training {training}");
        }
        // A batch's moments are not the running ones.
        assert!(apart(&expected[0], &expected[1]) > 1e-3);
    }
}

#[test]
fn matching_pairs_are_the_diagonal_of_all() {
    for direction in BOTH {
        let (_, dime) = network(direction);
        let (images, texts) = sides(&dime, 3, &[2, 5, 1], 5, 0.0);
        let every = dime.scores(&images, &texts, Pairing::Every).unwrap().to_vec2::<f32>().unwrap();
        let pairs = dime.scores(&images, &texts, Pairing::Matching).unwrap().to_vec1::<f32>().unwrap();
        for (i, pair) in pairs.iter().enumerate() {
            assert!((pair - every[i][i]).abs() < 1e-6, "{direction:?}: {pair} {}", every[i][i]);
        }
        assert!((every[0][0] - every[0][1]).abs() > 1e-4);
    }
}

#[test]
fn closed_gates_leave_what_is_positive() {
    for direction in BOTH {
        let (weights, dime) = network(direction);
        for (name, var) in weights.iter().filter(|(name, _)| name.ends_with("gate.bias")) {
            var.set(&Tensor::full(-9f32, var.shape(), &Device::Cpu).unwrap()).expect(name);
        }
        let (images, texts) = sides(&dime, 2, &[5, 5], 5, 0.0);
        let refined = dime.refine(&images, &texts, Pairing::Every).unwrap();
        // Every output of a layer is relu of its input, and relu of relu is relu.
        let asking = if direction == Direction::I2t { &images } else { &texts };
        let expected = asking.items.vectors().relu().unwrap().unsqueeze(0).unwrap();
        let expected = expected.broadcast_as(refined.locals.vectors.shape()).unwrap();
        assert!(apart(&refined.locals.vectors, &expected) < 1e-6, "{direction:?}");
        for paths in &refined.paths {
            assert!(flat(paths).iter().all(|&share| share == 0.0));
        }
        // One open gate of layer 2 takes part beside three closed ones: Z = (p E + 3 Y) / (3 + p), where E = Y.
        let var = weights.var("dime.2.identity.router.gate.bias").unwrap();
        var.set(&Tensor::full(9f32, var.shape(), &Device::Cpu).unwrap()).unwrap();
        let refined = dime.refine(&images, &texts, Pairing::Every).unwrap();
        assert!(apart(&refined.locals.vectors, &expected) < 1e-6, "{direction:?}");
        assert!((flat(&refined.paths[2])[0] - 1.0).abs() < 1e-3);
    }
}

#[test]
fn the_path_term_by_hand() {
    let mut weights = Weights::new(Seed(1), &Device::Cpu);
    let regulariser = Regulariser::new(&mut weights, 2).unwrap();
    let zero = |name: &str| {
        let var = weights.var(name).unwrap();
        var.set(&var.zeros_like().unwrap()).unwrap();
        var.clone()
    };
    let (weight, bias) = (zero("paths.weight"), zero("paths.bias"));
    bias.set(&Tensor::new(&[3f32, 4.0], &Device::Cpu).unwrap()).unwrap();
    let ones = |shape: &[usize]| Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap();
    let captions = Tensor::new(&[[1f32, 0.0], [0.0, 1.0]], &Device::Cpu).unwrap();
    let paths = [ones(&[1, 2, 4, 4]), ones(&[3, 2, 4, 4]), ones(&[3, 2, 1, 4])];
    // All rows of P are (0.6, 0.8): the products are 1 where the captions' are 0 and 1, so two of four differ by 1, over 2 items.
    let loss = regulariser.loss(&paths, &captions).unwrap().to_scalar::<f32>().unwrap();
    assert!((loss - 1.0).abs() < 1e-6, "{loss}");
    // The last gate alone: 0 for the first item and 2 for the second, averaged over 3 items of the other side: 1 and (0, 0).
    let mut values = vec![0f32; 72];
    values[70] = 5.0;
    values[71] = 1.0;
    weight.set(&Tensor::from_vec(values, (36, 2), &Device::Cpu).unwrap()).unwrap();
    bias.set(&Tensor::new(&[0f32, 1.0], &Device::Cpu).unwrap()).unwrap();
    let last: Vec<f32> = (0..3).flat_map(|n| [0.0, 0.0, 0.0, 0.0, 9.0, 9.0, 9.0, 0.2 * n as f32]).collect();
    let last = Tensor::from_vec(last, (3, 2, 1, 4), &Device::Cpu).unwrap();
    let paths = [ones(&[1, 2, 4, 4]), ones(&[3, 2, 4, 4]), last];
    // Rows (0, 1) and unit (5 * 0.2, 1 + 0.2): their product is 1.2 / sqrt(2.44), twice off the captions' 0, over 2 items.
    let loss = regulariser.loss(&paths, &captions).unwrap().to_scalar::<f32>().unwrap();
    assert!((loss - 1.44 / 2.44).abs() < 1e-6, "{loss}");
}

#[test]
fn the_path_term_is_felt_and_only_where_it_has_a_weight() {
    let train = planted("train", 64);
    let losses = |weight: f64| {
        let mut options = small();
        options.insert("path_weight".into(), weight.into());
        options.insert("epochs".into(), 2.into());
        if weight == 0.0 {
            options.remove("path_width");
        }
        fit_as(&DIME, &train, options, false).unwrap().1
    };
    // Captions read by fresh weights are nearly alike, and so are their paths: the term is small at first.
    let (without, with) = (losses(0.0), losses(1e4));
    assert!(with[0] > without[0] + 0.1, "{with:?} {without:?}");
}

#[test]
fn defaults_follow_the_direction_and_wrong_parameters_are_named() {
    let lambda = |table: toml::Table| DIME.resolve(&table).unwrap()["lambda_softmax"].as_float();
    assert_eq!(lambda(toml::Table::new()), Some(4.0));
    assert_eq!(lambda(toml::toml! { direction = "t2i" }), Some(9.0));
    assert_eq!(lambda(toml::toml! { direction = "t2i" lambda_softmax = 7 }), Some(7.0));
    for (table, text) in [
        (toml::toml! { heads = 3 }, "divides `embedding`, 256"),
        (toml::toml! { heads = 0 }, "heads"),
        (toml::toml! { lambda_softmax = 0 }, "lambda_softmax"),
        (toml::toml! { path_weight = -1 }, "path_weight"),
        (toml::toml! { path_weight = 0 path_width = 7 }, "path_width"),
        (toml::toml! { router_width = 0 }, "router_width"),
        (toml::toml! { reasoning_width = 0 }, "reasoning_width"),
        (toml::toml! { batch = 1 }, "batch"),
        (toml::toml! { margin = nan }, "margin"),
        (toml::toml! { direction = "both" }, "direction"),
    ] {
        let message = DIME.resolve(&table).unwrap_err().to_string();
        assert!(message.contains(text), "{message}");
    }
}
