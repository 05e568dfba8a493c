use std::{collections::BTreeMap, sync::Arc};

use candle_core::{DType, Device};
use xmbench_datasets::{Images, Matrix, Subset, Texts, random::Seed};

use super::*;
use crate::{
    Codes, Matcher, Method,
    nn::{Lengths, Weights, cross::Interaction, cross::Pairing, cross::Side},
    trained::planted::{FRAGMENTS, WIDTH, fit, planted, recall, scores, view},
};

const SIZES: Sizes = Sizes {
    context: 6,
    hidden: 5,
    word: 4,
    attention: 3,
    vocabulary: 9,
    activation: Activation::Tanh,
    start: Activation::Tanh,
    selector: Selector::Scalar,
    output: Output::Deep,
};

/// Each kind of every part.
fn kinds() -> [Sizes; 4] {
    [
        SIZES,
        Sizes { selector: Selector::Vector, ..SIZES },
        Sizes { output: Output::Linear, activation: Activation::Relu, ..SIZES },
        Sizes { selector: Selector::Vector, output: Output::Linear, start: Activation::Identity, ..SIZES },
    ]
}

fn drawn(label: &str, shape: &[usize]) -> Tensor {
    let mut stream = Seed(9).stream(&["tell", label]);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| stream.normal() as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn decoder(sizes: Sizes) -> (Weights, Decoder) {
    let mut weights = Weights::new(Seed(4), &Device::Cpu);
    let decoder = Decoder::new(&mut weights, sizes).unwrap();
    for (name, var) in weights.iter() {
        var.set(&drawn(name, var.dims())).unwrap();
    }
    (weights, decoder)
}

fn set(weights: &Weights, name: &str, values: &[f32]) {
    let var = weights.var(name).unwrap();
    var.set(&Tensor::from_slice(values, var.shape(), &Device::Cpu).unwrap()).unwrap();
}

/// Texts as codes are padded, with junk behind their ends.
fn padded(texts: &[&[u32]], steps: usize, junk: f32) -> Padded {
    let row = |text: &&[u32]| {
        let mut row: Vec<f32> = text.iter().map(|&token| token as f32).collect();
        row.resize(steps, junk);
        row
    };
    let rows: Vec<f32> = texts.iter().flat_map(row).collect();
    let vectors = Tensor::from_vec(rows, (texts.len(), steps, 1), &Device::Cpu).unwrap();
    Padded::new(&vectors, &Lengths::new(texts.iter().map(|text| text.len())).unwrap()).unwrap()
}

fn told_scores(teller: &Teller, images: &Padded, texts: &Padded, pairing: Pairing) -> Vec<f32> {
    let images = Side::images(teller, images.clone()).unwrap();
    let texts = Side::texts(teller, texts.clone()).unwrap();
    teller.scores(&images, &texts, pairing).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn near(a: &[f32], b: &[f32], by: f32) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= by)
}

const TEXTS: [&[u32]; 4] = [&[1, 5, 6, 2], &[1, 2], &[1, 7, 8, 3, 4, 2], &[1, 6, 2]];

#[test]
fn every_golden_file_of_the_authors_holds() {
    crate::golden::assert_files(&SHOW_ATTEND_TELL.operations());
}

#[test]
fn likelihood_by_hand() {
    let sizes = Sizes { context: 1, hidden: 1, word: 1, attention: 1, vocabulary: 2, ..SIZES };
    let mut weights = Weights::new(Seed(4), &Device::Cpu);
    let decoder = Decoder::new(&mut weights, Sizes { output: Output::Linear, ..sizes }).unwrap();
    let zeros: BTreeMap<String, Tensor> =
        weights.iter().map(|(name, var)| (name.into(), var.zeros_like().unwrap())).collect();
    weights.restore(&zeros).unwrap();
    let tell = |images: &[f32], texts: &[&[u32]]| {
        let images = Tensor::from_slice(images, (texts.len(), 2, 1), &Device::Cpu).unwrap();
        told(&decoder, &Padded::full(&images).unwrap(), texts, &mut |x| Ok(x)).unwrap()
    };
    // Nothing but a bias: the second word has probability 3/4 whatever was before.
    set(&weights, "decoder.output.bias", &[0.0, 3f32.ln()]);
    let told = tell(&[1.0, 2.0, 3.0, 4.0], &[&[0, 1, 1], &[0, 0, 1, 0, 1]]);
    let log = told.log_likelihood.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(near(&log, &[2.0 * 0.75f32.ln(), 2.0 * 0.75f32.ln() + 2.0 * 0.25f32.ln()], 1e-6), "{log:?}");
    // Two regions are looked at alike, 1/2 a step.
    let looked = told.looked.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(near(&looked, &[1.0, 1.0, 2.0, 2.0], 1e-6), "{looked:?}");
    // Logits of attention tanh(100) and tanh(0), times ln 3: weights 3/4 and 1/4. What is seen, 75, is halved by the selector and
    // opens g and o: i = f = 1/2 at zero, c_1 = 1/2 tanh(37.5) = 1/2, h_1 = sigmoid(37.5) tanh(1/2).
    set(&weights, "decoder.attention.region.weight", &[1.0]);
    set(&weights, "decoder.attention.score", &[3f32.ln()]);
    set(&weights, "decoder.gates.seen", &[0.0, 0.0, 1.0, 1.0]);
    set(&weights, "decoder.output.weight", &[0.0, 1.0]);
    set(&weights, "decoder.output.bias", &[0.0, 0.0]);
    let told = tell(&[100.0, 0.0], &[&[0, 1]]);
    let looked = told.looked.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(near(&looked, &[0.75, 0.25], 1e-6), "{looked:?}");
    // tanh(1/2) = 0.462117; log(1 / (1 + e^-0.462117)) = -0.488548.
    let log = told.log_likelihood.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(near(&log, &[-0.488_548], 1e-5), "{log:?}");
}

#[test]
fn the_doubly_stochastic_term_by_hand() {
    // Squares 0, 1, 4 and 1, 0, 0.25.
    let looked = Tensor::new(&[[1f32, 2.0, 3.0], [0.0, 1.0, 1.5]], &Device::Cpu).unwrap();
    for (mode, expected) in [
        (DsMode::Paper, (5.0 + 1.25) / 2.0),
        (DsMode::Arctic, (5.0 + 1.25) / 3.0),
        (DsMode::Tutorial, (5.0 + 1.25) / 6.0),
    ] {
        let value = mode.of(&looked).unwrap().to_scalar::<f32>().unwrap();
        assert!((value - expected).abs() < 1e-6, "{mode:?}: {value}");
    }
}

#[test]
fn every_pair_and_matching_pairs_are_told_alike_in_any_company() {
    for sizes in kinds() {
        let (_, decoder) = decoder(sizes);
        let mean = drawn("mean", &[1, 1, 6]);
        for prior in [None, Some((0.5, mean.clone()))] {
            let teller = Teller::new(decoder.clone(), prior);
            let (images, texts) = (Padded::full(&drawn("images", &[4, 3, 6])).unwrap(), padded(&TEXTS, 6, 0.0));
            let every = told_scores(&teller, &images, &texts, Pairing::Every);
            assert_eq!(every.len(), 16);
            let diagonal: Vec<f32> = (0..4).map(|i| every[5 * i]).collect();
            assert!(near(&told_scores(&teller, &images, &texts, Pairing::Matching), &diagonal, 1e-5), "{sizes:?}");
            // Junk behind the ends, a limit that takes pairs one by one, and every text by itself.
            let junk = padded(&TEXTS, 9, f32::NAN);
            assert!(near(&told_scores(&teller, &images, &junk, Pairing::Every), &every, 1e-5));
            for limit in [1, 50, 160] {
                let narrow = Teller { limit, ..teller.clone() };
                assert!(near(&told_scores(&narrow, &images, &texts, Pairing::Every), &every, 1e-5));
                assert!(near(&told_scores(&narrow, &images, &texts, Pairing::Matching), &diagonal, 1e-5));
            }
            for (j, text) in TEXTS.iter().enumerate() {
                let alone = told_scores(&teller, &images, &padded(&[text], text.len(), 0.0), Pairing::Every);
                let column: Vec<f32> = (0..4).map(|i| every[4 * i + j]).collect();
                assert!(near(&alone, &column, 1e-5));
            }
            // Regions behind an image's end.
            let mut values = drawn("images", &[4, 3, 6]).to_vec3::<f32>().unwrap();
            values[1][2] = vec![f32::NAN; 6];
            let values: Vec<f32> = values.into_iter().flatten().flatten().collect();
            let some = Tensor::from_vec(values, (4, 3, 6), &Device::Cpu).unwrap();
            let some = Padded::new(&some, &Lengths::new([3, 2, 3, 3]).unwrap()).unwrap();
            let found = told_scores(&teller, &some, &texts, Pairing::Every);
            let two = drawn("images", &[4, 3, 6]).narrow(0, 1, 1).unwrap().narrow(1, 0, 2).unwrap();
            let two = told_scores(&teller, &Padded::full(&two.contiguous().unwrap()).unwrap(), &texts, Pairing::Every);
            assert!(near(&found[4..8], &two, 1e-5) && near(&found[..4], &every[..4], 1e-5));
        }
    }
}

#[test]
fn scores_are_means_over_steps_less_what_the_mean_image_would_tell() {
    let (_, decoder) = decoder(SIZES);
    let images = Padded::full(&drawn("images", &[3, 2, 6])).unwrap();
    let texts = padded(&TEXTS, 6, 0.0);
    let plain = told_scores(&Teller::new(decoder.clone(), None), &images, &texts, Pairing::Every);
    // One step after the other: log p of a text is the sum of what each token adds.
    let prefixes: Vec<&[u32]> = (2..=6).map(|n| &TEXTS[2][..n]).collect();
    let every = told_scores(&Teller::new(decoder.clone(), None), &images, &padded(&prefixes, 6, 0.0), Pairing::Every);
    let sums: Vec<f32> = (0..5).map(|n| every[n] * (n + 1) as f32).collect();
    assert!(sums.windows(2).all(|pair| pair[1] < pair[0]), "a likelihood grew: {sums:?}");
    assert!((plain[2] - sums[4] / 5.0).abs() < 1e-6);
    // Images are ordered alike for a text by mean and by sum, texts for an image need not be.
    let order = |scores: &[f32]| {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        order
    };
    for (j, text) in TEXTS.iter().enumerate() {
        let means: Vec<f32> = (0..3).map(|i| plain[4 * i + j]).collect();
        let sums: Vec<f32> = means.iter().map(|mean| mean * (text.len() - 1) as f32).collect();
        assert_eq!(order(&means), order(&sums));
    }
    // Against an image that is the mean image itself, a share of 1 leaves nothing, and a half leaves half.
    let mean = drawn("images", &[3, 2, 6]).narrow(0, 0, 1).unwrap().narrow(1, 0, 1).unwrap().contiguous().unwrap();
    let only = Padded::full(&mean).unwrap();
    let plain = told_scores(&Teller::new(decoder.clone(), None), &only, &texts, Pairing::Every);
    for beta in [0.5, 1.0] {
        let teller = Teller::new(decoder.clone(), Some((beta, mean.clone())));
        let left: Vec<f32> = plain.iter().map(|score| score * (1.0 - beta as f32)).collect();
        assert!(near(&told_scores(&teller, &only, &texts, Pairing::Every), &left, 1e-5));
    }
}

#[test]
fn gradients_follow_differences() {
    for sizes in kinds() {
        let (weights, decoder) = decoder(sizes);
        let images = Padded::full(&drawn("images", &[4, 3, 6])).unwrap();
        let loss = || {
            let told = told(&decoder, &images, &TEXTS, &mut |x| Ok(x)).unwrap();
            let ds = DsMode::Paper.of(&told.looked.squeeze(1).unwrap()).unwrap();
            ((told.log_likelihood.sum_all().unwrap() * -0.25).unwrap() + ds).unwrap()
        };
        let grads = loss().backward().unwrap();
        for (name, var) in weights.iter() {
            let grad = grads.get(var).unwrap_or_else(|| panic!("{name} has no gradient")).clone();
            let norm = grad.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
            assert!(norm > 1e-6, "{sizes:?}: {name} has a gradient of 0");
            // Along the gradient itself the loss rises by its norm.
            let (before, way) = (var.as_tensor().copy().unwrap(), (grad / f64::from(norm)).unwrap());
            let at = |by: f64| {
                var.set(&(&before + (&way * by).unwrap()).unwrap()).unwrap();
                f64::from(loss().to_scalar::<f32>().unwrap())
            };
            let rise = (at(1e-2) - at(-1e-2)) / 2e-2;
            var.set(&before).unwrap();
            assert!((rise - f64::from(norm)).abs() < 0.02 * f64::from(norm) + 2e-3, "{name}: {rise} {norm}");
        }
    }
}

fn small(options: toml::Table) -> toml::Table {
    let sizes = toml::toml! { embedding = 16 hidden = 24 attention_width = 12 batch = 20 dropout = 0.1 };
    sizes.into_iter().chain(options).collect()
}

#[test]
fn captions_are_learnt_and_survive_the_disk() {
    let (train, test) = (planted("train", 200), planted("test", 40));
    for (options, least) in [
        (toml::toml! { epochs = 16 pmi = 1 }, 0.2),
        (toml::toml! { epochs = 16 attention = "relu" selector = "vector" start = "identity" output = "linear" }, 0.1),
    ] {
        let matcher = fit(&SHOW_ATTEND_TELL, &train, small(options)).unwrap();
        let recall = recall(&*matcher, &test);
        println!("R@1 {recall}");
        // Chance is 1/40.
        assert!(recall > least, "{recall}");
        let folder = tempfile::tempdir().unwrap();
        matcher.save(folder.path()).unwrap();
        let loaded = SHOW_ATTEND_TELL.load(folder.path(), &Device::Cpu).unwrap();
        assert!(matcher.encode_images(&test.images).unwrap() == loaded.encode_images(&test.images).unwrap());
        assert!(matcher.encode_texts(&test.texts).unwrap() == loaded.encode_texts(&test.texts).unwrap());
        assert_eq!(scores(&*matcher, &test), scores(&*loaded, &test));
        unusual_items_have_scores(&*matcher);
    }
}

/// One word and many, nothing between start and end, zero regions, one region.
fn unusual_items_have_scores(matcher: &dyn Matcher) {
    let texts = Texts {
        ids: ["one", "none", "long"].map(str::to_string).into(),
        tokens: Some(vec![vec![0, 5, 1], vec![0, 1], (0..60).map(|i| i % 16).collect()]),
        ..Texts::default()
    };
    let texts = matcher.encode_texts(&texts).unwrap();
    let Similarity::Pairwise(scorer) = matcher.similarity() else { panic!("captioners score pairs") };
    for regions in [FRAGMENTS, 1] {
        let mut features = Matrix::zeros(2, regions * WIDTH);
        features.row_mut(1).iter_mut().enumerate().for_each(|(at, value)| *value = (at as f32).sin());
        let images = Images {
            ids: ["zero", "waves"].map(str::to_string).into(),
            fragments: Some(Arc::new(Subset::fragments_of(features, regions))),
            ..Images::default()
        };
        let images = matcher.encode_images(&images).unwrap();
        let mut all = vec![f32::NAN; 6];
        scorer.score(&images, 0..2, &texts, 0..3, &mut all).unwrap();
        assert!(all.iter().all(|score| score.is_finite()), "{all:?}");
    }
    let empty = Texts { ids: vec!["a".into()], tokens: Some(vec![vec![0]]), ..Texts::default() };
    assert!(matcher.encode_texts(&empty).unwrap_err().to_string().contains("has 1 tokens"));
    let unknown = Texts { ids: vec!["a".into()], tokens: Some(vec![vec![0, 99]]), ..Texts::default() };
    assert!(matcher.encode_texts(&unknown).unwrap_err().to_string().contains("token 99"));
    let Codes::Fragments(mut wrong) = texts else { panic!("fragments") };
    wrong.data[1] = 0.5;
    let zero = Matrix::zeros(1, WIDTH);
    let images =
        Images { ids: vec!["a".into()], fragments: Some(Arc::new(Subset::fragments_of(zero, 1))), ..Images::default() };
    let images = matcher.encode_images(&images).unwrap();
    let error = scorer.score(&images, 0..1, &Codes::Fragments(wrong), 0..1, &mut [0.0]).unwrap_err().to_string();
    assert!(error.contains("token numbers below 16, found 0.5"), "{error}");
}

/// The mean over training pairs of `sum_i (1 - sum_t alpha_ti)^2` of what a fit leaves.
fn unattended(alpha_c: f64) -> f64 {
    let train = planted("train", 60);
    let mut options = small(toml::toml! { epochs = 6 });
    options.insert("alpha_c".into(), alpha_c.into());
    let matcher = fit(&SHOW_ATTEND_TELL, &train, options).unwrap();
    let folder = tempfile::tempdir().unwrap();
    matcher.save(folder.path()).unwrap();
    let mut weights = Weights::open(&folder.path().join("weights.safetensors"), &Device::Cpu).unwrap();
    let sizes = Sizes { context: 16, hidden: 24, word: 16, attention: 12, vocabulary: 16, ..SIZES };
    let decoder = Decoder::new(&mut weights, sizes).unwrap();
    let Codes::Fragments(codes) = matcher.encode_images(&train.images).unwrap() else { panic!("fragments") };
    let images = Tensor::from_vec(codes.data, (60, FRAGMENTS, 16), &Device::Cpu).unwrap();
    let tokens = train.texts.tokens.as_ref().unwrap();
    let texts: Vec<&[u32]> = (0..60).map(|i| tokens[train.pairs.texts_of(i)[0] as usize].as_slice()).collect();
    let told = told(&decoder, &Padded::full(&images).unwrap(), &texts, &mut |x| Ok(x)).unwrap();
    let value = DsMode::Paper.of(&told.looked.squeeze(1).unwrap()).unwrap();
    f64::from(value.to_scalar::<f32>().unwrap())
}

#[test]
fn the_weight_of_the_doubly_stochastic_term_is_felt() {
    // Seven or eight steps that look at three regions leave 3 (7/3 - 1)^2 = 5.33 or 3 (8/3 - 1)^2 = 8.33 at best.
    let (without, with) = (unattended(0.0), unattended(5.0));
    println!("{without} without, {with} with");
    assert!(with < without - 0.02, "{without} without, {with} with");
}

#[test]
fn the_mean_image_is_that_of_the_training_features() {
    let train = planted("train", 40);
    let matcher = fit(&SHOW_ATTEND_TELL, &train, small(toml::toml! { epochs = 1 pmi = 0.5 })).unwrap();
    let folder = tempfile::tempdir().unwrap();
    matcher.save(folder.path()).unwrap();
    let saved = candle_core::safetensors::load(folder.path().join("weights.safetensors"), &Device::Cpu).unwrap();
    let found = saved["mean_features"].to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap();
    let all = train.images.fragments.as_ref().unwrap().all().unwrap();
    for (column, found) in found.iter().enumerate() {
        let values = all.data.iter().skip(column).step_by(WIDTH);
        let mean = values.map(|&x| f64::from(x)).sum::<f64>() / (40 * FRAGMENTS) as f64;
        assert!((found - mean).abs() < 1e-6, "column {column}: {found} {mean}");
    }
    let without = fit(&SHOW_ATTEND_TELL, &train, small(toml::toml! { epochs = 1 })).unwrap();
    assert_ne!(scores(&*matcher, &train), scores(&*without, &train));
    assert_eq!(view(&train).vocabulary, 16);
}

#[test]
fn wrong_parameters_are_named() {
    for (table, text) in [
        (toml::toml! { hidden = 0 }, "hidden"),
        (toml::toml! { attention_width = 0 }, "attention_width"),
        (toml::toml! { attention = "cubic" }, "tanh or relu"),
        (toml::toml! { start = "relu" }, "tanh or identity"),
        (toml::toml! { dropout = 1 }, "dropout"),
        (toml::toml! { alpha_c = -1 }, "alpha_c"),
        (toml::toml! { alpha_c = 0 ds_mode = "arctic" }, "ds_mode"),
        (toml::toml! { pmi = nan }, "pmi"),
        (toml::toml! { embedding = 0 }, "embedding"),
        (toml::toml! { selector = "none" }, "selector"),
        (toml::toml! { text_encoder = "gru" }, "text_encoder"),
    ] {
        let message = SHOW_ATTEND_TELL.resolve(&table).unwrap_err().to_string();
        assert!(message.contains(text), "{message}");
    }
}
