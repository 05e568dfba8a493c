use candle_core::Device;

use super::{mining::Mined, *};
use crate::{
    Codes, Fragments, Method, PairScorer,
    nn::{
        checks::{draw, flat, follows_differences},
        cross::known,
    },
    trained::planted::{fit, longer_texts_score_alone_as_together, planted, recall, scores, small},
};

const WORDS: [usize; 4] = [3, 1, 5, 2];

fn lengths() -> Lengths {
    Lengths::new(WORDS).unwrap()
}

fn at(threshold: f64) -> NegativeAware {
    NegativeAware { lambda_softmax: 20.0, threshold: Threshold::Of(threshold) }
}

const TRAINING: NegativeAware = NegativeAware { lambda_softmax: 20.0, threshold: Threshold::OfWords };

/// Vectors of unit length.
fn unit(label: &str, shape: &[usize]) -> Var {
    Var::from_tensor(&crate::nn::unit(&draw(label, shape)).unwrap()).unwrap()
}

#[test]
fn scores_are_those_of_an_independent_reference() {
    // Threshold, score of training and score at test, from another program.
    let known = [
        (0.0, 0.6407814348608525, 0.6407814348608525),
        (0.1, 0.6192688546642788, 0.627000430159281),
        (0.3, 0.45926885419582797, 0.45926885419582797),
        (0.9, -0.2620847357946743, -0.2620847357946743),
    ];
    for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-5)] {
        let [image, text] = known::items(dtype);
        let words = text.vectors().squeeze(0).unwrap();
        let lengths = Lengths::new([5]).unwrap();
        for (threshold, training, test) in known {
            let marked = with_thresholds(&words, &lengths, &[threshold]).unwrap();
            let found = interact(&TRAINING, image.vectors(), &marked, &lengths).unwrap();
            assert!((flat(&found)[0] - training).abs() < tolerance, "{threshold}: {training} {found}");
            let found = interact(&at(threshold), image.vectors(), &words, &lengths).unwrap();
            assert!((flat(&found)[0] - test).abs() < tolerance, "{threshold}: {test} {found}");
        }
    }
}

#[test]
fn every_golden_file_of_the_authors_holds() {
    crate::golden::assert_files(&NAAF.operations());
}

#[test]
fn gradients_follow_differences() {
    let cotangent = draw("cotangent", &[4, 4]);
    let weighted = |scores: Tensor| (scores * cotangent.as_tensor()).unwrap().sum_all().unwrap();
    let inputs = [unit("images", &[4, 3, 6]), unit("words", &[11, 6])];
    follows_differences(&inputs, |x| weighted(interact(&at(0.15), &x[0], &x[1], &lengths()).unwrap()));
    follows_differences(&inputs, |x| {
        let words = with_thresholds(&x[1], &lengths(), &[0.1, 0.0, 0.2, 0.3]).unwrap();
        weighted(interact(&TRAINING, &x[0], &words, &lengths()).unwrap())
    });
}

#[test]
fn padding_company_and_zeros_change_nothing() {
    let (images, words) = (unit("images", &[4, 3, 6]), unit("words", &[11, 6]));
    let thresholds = [0.1, 0.0, 0.2, 0.3];
    let marked = with_thresholds(&words, &lengths(), &thresholds).unwrap();
    for (interaction, words) in [(at(0.15), words.as_tensor()), (TRAINING, &marked)] {
        let width = words.dim(1).unwrap();
        let together = flat(&interact(&interaction, &images, words, &lengths()).unwrap());
        let real = lengths().mask(9, &Device::Cpu).unwrap().unsqueeze(2).unwrap();
        let real = real.broadcast_as((4, 9, width)).unwrap();
        let junk = Tensor::full(f64::NAN, (4, 9, width), &Device::Cpu).unwrap();
        let padded = real.where_cond(&lengths().pad(words, 9).unwrap(), &junk).unwrap();
        let padded = Var::from_tensor(&padded).unwrap();
        let sides = [
            Side::images(&interaction, Padded::full(&images).unwrap()).unwrap(),
            Side::texts(&interaction, Padded::new(&padded, &lengths()).unwrap()).unwrap(),
        ];
        let scores = interaction.scores(&sides[0], &sides[1], Pairing::Every).unwrap();
        assert!(flat(&scores).iter().zip(&together).all(|(a, b)| (a - b).abs() < 1e-12));
        let behind = flat(scores.sum_all().unwrap().backward().unwrap().get(padded.as_tensor()).unwrap());
        let real = flat(&real);
        assert!(behind.iter().zip(&real).all(|(g, &real)| if real > 0.0 { g.is_finite() } else { *g == 0.0 }));
        // One image of one region against a text alone.
        let region = images.narrow(0, 1, 1).unwrap().narrow(1, 0, 1).unwrap();
        let one = Lengths::new([1]).unwrap();
        let word = words.narrow(0, 3, 1).unwrap();
        let alone = flat(&interact(&interaction, &region, &word, &one).unwrap())[0];
        // By hand: a word that exceeds the threshold sees the region, and all three terms depend on their product alone.
        let s = flat(&region).iter().zip(flat(&word)).map(|(a, b)| a * b).sum::<f64>();
        let t = if interaction == TRAINING { thresholds[1] } else { 0.15 };
        let expected = if s > t { 2.0 * s } else { s - t + s };
        assert!((alone - expected).abs() < 1e-9, "{alone} {expected}");
        // Regions of zeros say nothing: each word lacks the threshold.
        let none = Var::from_tensor(&images.zeros_like().unwrap()).unwrap();
        let scores = interact(&interaction, &none, words, &lengths()).unwrap();
        let row = if interaction == TRAINING { [-0.1, 0.0, -0.2, -0.3] } else { [-0.15; 4] };
        assert!(flat(&scores).chunks(4).all(|found| found.iter().zip(row).all(|(a, b)| (a - b).abs() < 1e-12)));
        let grads = scores.sum_all().unwrap().backward().unwrap();
        assert!(flat(grads.get(&none).unwrap()).iter().all(|x| x.is_finite()));
    }
}

#[test]
fn a_large_factor_does_not_overflow() {
    let images = Var::from_tensor(&unit("images", &[4, 3, 6]).to_dtype(DType::F32).unwrap()).unwrap();
    let words = unit("words", &[11, 6]).to_dtype(DType::F32).unwrap();
    let sharp = NegativeAware { lambda_softmax: 500.0, threshold: Threshold::Of(0.05) };
    let scores = interact(&sharp, &images, &words, &lengths()).unwrap();
    assert!(flat(&scores).iter().all(|x| x.is_finite()));
    let grads = scores.sum_all().unwrap().backward().unwrap();
    assert!(flat(grads.get(&images).unwrap()).iter().all(|x| x.is_finite()));
}

/// Images and texts that are the same vectors: each text ranks its own image first.
fn alike() -> (Tensor, Tensor, Lengths) {
    let words = unit("alike", &[12, 6]).as_detached_tensor();
    (words.reshape((4, 3, 6)).unwrap(), words, Lengths::new([3; 4]).unwrap())
}

#[test]
fn thresholds_move_once_there_are_samples_and_go_back_otherwise() {
    let (images, words, lengths) = alike();
    let start = Boundaries { training: 0.2, safe: 0.1 };
    let run = |mining: Mining| mining.run(&TRAINING, &images, &words, &lengths, &[2, 0, 1, 3], start).unwrap();
    // Twelve words are too few: only the text that came first saw the threshold.
    let few = run(Mining::default());
    assert_eq!(few, Mined { of_texts: vec![0.0, 0.0, 0.2, 0.0], end: Boundaries::default(), samples: None });
    let kept = run(Mining { reset: false, ..Mining::default() });
    assert_eq!((kept.of_texts, kept.end), (vec![0.2; 4], start));
    // More than eight: after the third text, in the order given, and after the fourth.
    let mined = run(Mining { threshold_samples: 8, reset: false, ..Mining::default() });
    assert_eq!((mined.of_texts[2], mined.of_texts[0], mined.of_texts[1]), (0.2, 0.2, 0.2));
    let [matching, others] = mined.samples.unwrap();
    // Every word's best region is itself.
    assert_eq!((matching.count, others.count), (12.0, 12.0));
    assert!((matching.mean - 1.0).abs() < 1e-12 && matching.deviation() < 1e-7 && others.mean < 0.95);
    // m+ - 3 d+ is 1, of which a share of 0.7 is taken twice if it does not exceed 1 by its rounding, where it becomes 0.
    let safe = mined.end.safe;
    let possible = [0.7 + 0.3 * (0.7 + 0.3 * 0.1), 0.7 + 0.3 * 0.03, 0.3 * (0.7 + 0.03), 0.3 * 0.03];
    assert!(possible.iter().any(|x| (x - safe).abs() < 1e-6) || (safe - 0.1).abs() < 1e-12, "{safe}");
}

#[test]
fn planted_pairs_are_learnt_and_survive_the_disk() {
    let (train, test) = (planted("train", 160), planted("test", 40));
    let options = toml::toml! { threshold_samples = 60 };
    let matcher = fit(&NAAF, &train, options.clone()).unwrap();
    let found = recall(&*matcher, &test);
    println!("recall at 1 {found}");
    // Chance is 0.025.
    assert!(found > 0.3, "recall at 1 {found}");
    let folder = tempfile::tempdir().unwrap();
    matcher.save(folder.path()).unwrap();
    let loaded = NAAF.load(folder.path(), &Device::Cpu).unwrap();
    let before = scores(&*matcher, &test);
    assert!(before == scores(&*loaded, &test), "other bits after save and load");
    // The threshold is one of them, and the scores need it.
    let path = folder.path().join("weights.safetensors");
    let mut weights = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    let boundaries = weights["boundaries"].to_vec1::<f32>().unwrap();
    println!("boundaries {boundaries:?}");
    assert!(boundaries.iter().all(|&x| x > 0.0 && x < 1.0), "{boundaries:?}");
    weights.insert("boundaries".into(), Tensor::new(&[0f32, 0.0], &Device::Cpu).unwrap());
    candle_core::safetensors::save(&weights, &path).unwrap();
    assert!(before != scores(&*NAAF.load(folder.path(), &Device::Cpu).unwrap(), &test));
    longer_texts_score_alone_as_together(&*matcher, &test.images);
}

#[test]
fn scorers_take_items_of_any_number_of_vectors() {
    let side = |label: &str, counts: &[usize]| {
        let mut offsets = vec![0];
        counts.iter().for_each(|count| offsets.push(offsets[offsets.len() - 1] + count));
        let data = flat(&unit(label, &[offsets[counts.len()], 6])).into_iter().map(|x| x as f32).collect();
        Codes::Fragments(Fragments { dim: 6, offsets, data })
    };
    let (images, texts) = (side("images", &[3, 1, 4]), side("words", &[1, 6, 2, 2]));
    let scorer = InteractionScorer { interaction: at(0.1), device: Device::Cpu };
    let mut whole = [0.0; 12];
    scorer.score(&images, 0..3, &texts, 0..4, &mut whole).unwrap();
    for (i, j) in [(0, 0), (1, 1), (2, 3)] {
        let mut one = [0.0];
        scorer.score(&images, i..i + 1, &texts, j..j + 1, &mut one).unwrap();
        assert!((one[0] - whole[4 * i + j]).abs() < 1e-6);
    }
}

#[test]
fn wrong_parameters_are_named() {
    for (table, text) in [
        (toml::toml! { lambda_softmax = 0 }, "lambda_softmax"),
        (toml::toml! { alpha = -1 }, "alpha"),
        (toml::toml! { threshold_rate = 1.5 }, "threshold_rate"),
        (toml::toml! { threshold_samples = 0 }, "threshold_samples"),
        (toml::toml! { batch = 1 }, "batch"),
        (toml::toml! { margin = nan }, "margin"),
    ] {
        let message = NAAF.resolve(&table).unwrap_err().to_string();
        assert!(message.contains(text), "{message}");
    }
    let resolved = NAAF.resolve(&small(&NAAF, toml::Table::new())).unwrap();
    assert_eq!(resolved["threshold_samples"].as_integer(), Some(200));
}
