use candle_core::{DType, Device};
use toml::toml;
use xmbench_datasets::{planted::fragments, random::Seed};

use super::{align::Contrast, *};
use crate::{
    Matcher, Method,
    dense::placed::{
        accuracy, all_equal, codes, copes, first_loss, fit_on, interrupted, one_word, open, options_are_felt, small,
        weights_are_felt,
    },
    trained::planted::{fit, planted, recall},
};

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

#[test]
fn planted_pairs_are_learnt_in_every_form() {
    let (train, test) = (planted("train", 160), planted("test", 40));
    for options in [
        toml::Table::new(),
        toml! { concept_weight = 0.0 },
        toml! { context_weight = 0.0 enlarged = false },
        toml! { concept_weight = 0.0 context_weight = 0.0 enlarged = false },
        toml! { fragment_norm = "channel" context_layers = 1 },
    ] {
        let options: toml::Table = options.into_iter().chain(toml! { warmup = 4 }).collect();
        let matcher = fit(&SELF_ALIGN, &train, small(&SELF_ALIGN, options.clone())).unwrap();
        let recall = recall(&*matcher, &test);
        println!("{options:?}: recall at 1 {recall}");
        // Chance is 0.025.
        assert!(recall > 0.2, "{options:?}: recall at 1 {recall}");
    }
}

#[test]
fn words_find_their_planted_regions() {
    let options = toml! { train = 400 val = 0 test = 60 };
    let (dataset, truth) = (open("planted-fragments", &options), fragments::truth(&options).unwrap());
    let matcher = fit_on(&SELF_ALIGN, &dataset, toml! { epochs = 10 warmup = 10 });
    let found = accuracy(&*matcher, &dataset, &truth, 0);
    let (chance, optimum) = (truth.chance(6), truth.optimum(&dataset.test.images).unwrap());
    println!("chance {chance:.3}, found {found:.3}, optimum {optimum:.3}");
    assert!(optimum > 0.99 && found > 0.5, "{found}");
}

/// (7): three parts side by side, whose products are the terms of the score.
#[test]
fn codes_are_three_parts() {
    let train = planted("train", 40);
    let matcher = fit(&SELF_ALIGN, &train, small(&SELF_ALIGN, toml! { epochs = 2 warmup = 2 })).unwrap();
    let [Codes::Dense(v), Codes::Dense(t)] = codes(&*matcher, &train) else { panic!("dense") };
    assert_eq!([v.cols, t.cols], [96, 96]);
    for i in 0..v.rows {
        let norms = [&v.row(i)[..32], &v.row(i)[32..64], &v.row(i)[64..]].map(|part| dot(part, part).sqrt());
        assert!((norms[0] - 1.0).abs() < 1e-5 && norms[1] <= 0.5 + 1e-5 && (norms[2] - 0.5).abs() < 1e-5, "{norms:?}");
        let norms = [&t.row(i)[..32], &t.row(i)[32..64], &t.row(i)[64..]].map(|part| dot(part, part).sqrt());
        assert!((norms[0] - 1.0).abs() < 1e-5 && (norms[1] - 1.0).abs() < 1e-5 && norms[2] <= 1.0 + 1e-5, "{norms:?}");
        // Locals are behind a ReLU.
        assert!(v.row(i)[32..64].iter().all(|&x| x >= 0.0));
    }
}

/// Without both losses and the wider vector the loss is the hinge of base vectors, that of VSE++.
#[test]
fn the_base_is_a_hinge_of_vectors() {
    let train = planted("train", 12);
    let base = || toml! { concept_weight = 0.0 context_weight = 0.0 enlarged = false };
    let loss = first_loss(&SELF_ALIGN, &train, base());
    let still = base().into_iter().chain(toml! { learning_rate = 1e-12 epochs = 1 }).collect();
    let matcher = fit(&SELF_ALIGN, &train, small(&SELF_ALIGN, still)).unwrap();
    let [Codes::Dense(v), Codes::Dense(t)] = codes(&*matcher, &train) else { panic!("dense") };
    let score = |i: u32, j: u32| dot(v.row(i as usize), t.row(j as usize));
    let (pairs, mut expected) = (train.pairs.all(), 0.0);
    for &(i, j) in pairs {
        let worst = |of: &dyn Fn(&(u32, u32)) -> f64| {
            pairs.iter().filter(|pair| pair.0 != i).map(|pair| of(pair) + 0.2 - score(i, j)).fold(0.0, f64::max)
        };
        expected += worst(&|other| score(i, other.1)) + worst(&|other| score(other.0, j));
    }
    assert!((loss - expected).abs() < 1e-4 * expected, "{loss}, {expected}");
}

#[test]
fn every_weight_is_felt_in_proportion() {
    weights_are_felt(&SELF_ALIGN, &["concept_weight", "context_weight"], &toml::Table::new());
}

#[test]
fn every_option_is_felt() {
    let alone = [
        toml! { enlarged = false },
        toml! { prototypes = 12 },
        toml! { prototype_freeze = 0 },
        toml! { epsilon = 0.2 },
        toml! { sinkhorn_iterations = 5 },
        toml! { student_temperature = 0.3 },
        toml! { context_temperature = 0.2 },
        toml! { negatives_kept = 4 },
        toml! { context_layers = 1 },
        toml! { fragment_norm = "fragment" },
        toml! { fragment_norm = "channel" },
        toml! { negatives = "paper" },
        toml! { margin = 0.1 },
        toml! { warmup = 2 },
    ];
    options_are_felt(&SELF_ALIGN, &toml! { epochs = 3 }, alone);
}

#[test]
fn prototypes_keep_unit_length_and_survive_an_interruption() {
    let train = planted("train", 96);
    let [whole, resumed] = interrupted(&SELF_ALIGN, &train, toml! { epochs = 4 prototype_freeze = 1 }).unwrap();
    assert!(codes(&*whole, &train) == codes(&*resumed, &train));
    let prototypes = |matcher: &dyn Matcher| {
        let folder = tempfile::tempdir().unwrap();
        matcher.save(folder.path()).unwrap();
        let saved = candle_core::safetensors::load(folder.path().join("weights.safetensors"), &Device::Cpu).unwrap();
        saved["prototypes"].to_vec2::<f32>().unwrap()
    };
    let trained = prototypes(&*whole);
    assert!(trained.len() == 24 && trained.iter().all(|row| (dot(row, row) - 1.0).abs() < 1e-5));
    assert_eq!(trained, prototypes(&*resumed));
    let at = |freeze: i64| {
        let options = small(&SELF_ALIGN, toml! { epochs = 1 prototype_freeze = freeze });
        prototypes(&*fit(&SELF_ALIGN, &train, options).unwrap())
    };
    // Drawn values are the same; frozen, they are still there after an epoch.
    let drawn = {
        let options = small(&SELF_ALIGN, toml! { epochs = 1 learning_rate = 1e-12 });
        prototypes(&*fit(&SELF_ALIGN, &train, options).unwrap())
    };
    let apart = |a: &[Vec<f32>], b: &[Vec<f32>]| {
        a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };
    assert!(apart(&at(1), &drawn) < 1e-6 && apart(&at(0), &drawn) > 1e-3);
}

#[test]
fn channels_or_fragments_are_scaled() {
    let regions = Tensor::new(&[[[3f32, 0.0], [4.0, 2.0]], [[0.0, 5.0], [0.0, 12.0]]], &Device::Cpu).unwrap();
    let flat = |norm: FragmentNorm| norm.apply(&regions).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let close = |found: Vec<f32>, wanted: [f32; 8]| found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6);
    assert!(close(flat(FragmentNorm::Channel), [0.6, 0.0, 0.8, 1.0, 0.0, 5.0 / 13.0, 0.0, 12.0 / 13.0]));
    let root = 20f32.sqrt();
    assert!(close(flat(FragmentNorm::Fragment), [1.0, 0.0, 4.0 / root, 2.0 / root, 0.0, 1.0, 0.0, 1.0]));
    assert!(close(flat(FragmentNorm::None), [3.0, 0.0, 4.0, 2.0, 0.0, 5.0, 0.0, 12.0]));
}

/// (5) of sides of different lengths with items that are no negatives of each other, summed one by one.
#[test]
fn the_context_loss_is_its_sum() {
    let drawn = |label: &str, rows: usize| {
        let mut stream = Seed(3).stream(&[label]);
        let values: Vec<f64> = (0..rows * 3).map(|_| stream.normal()).collect();
        Tensor::from_vec(values, (rows, 3), &Device::Cpu).unwrap()
    };
    let (locals, globals, lengths) = (drawn("l", 7), drawn("g", 3), Lengths::new([2, 4, 1]).unwrap());
    let (l, g) = (locals.to_vec2::<f64>().unwrap(), globals.to_vec2::<f64>().unwrap());
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / 0.7;
    let negative = |b: usize, c: usize| b != c && (b, c) != (0, 1);
    let of = [0, 0, 1, 1, 1, 1, 2];
    for kept in [None, Some(1), Some(3), Some(100)] {
        let mut expected = 0.0;
        for (i, &b) in of.iter().enumerate() {
            let mut others: Vec<f64> = (0..7)
                .filter(|&j| of[j] == b || negative(b, of[j]))
                .map(|j| if of[j] == b { -10.0 } else { product(&g[b], &l[j]) })
                .collect();
            others.sort_by(|a, b| b.total_cmp(a));
            others.truncate(kept.unwrap_or(7));
            let own = product(&l[i], &g[b]);
            expected += (1.0 + others.iter().map(|z| (z - own).exp()).sum::<f64>()).ln() / 7.0;
        }
        let loss = Contrast { temperature: 0.7, kept }.loss(&locals, &lengths, &globals, negative).unwrap();
        let found = loss.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap();
        assert!((found - expected).abs() < 1e-12, "{kept:?}: {found}, {expected}");
    }
}

#[test]
fn many_prototypes_small_batches_and_poor_texts_are_coped_with() {
    let train = planted("train", 20);
    // 6 regions a batch.
    copes(&SELF_ALIGN, &train, toml! { batch = 2 prototypes = 100 });
    copes(&SELF_ALIGN, &one_word(train.clone()), toml! { prototype_freeze = 0 });
    copes(&SELF_ALIGN, &all_equal(train), toml::Table::new());
}

#[test]
fn wrong_parameters_are_named() {
    for (table, text) in [
        (toml! { concept_weight = -1 }, "concept_weight"),
        (toml! { epsilon = 0 }, "epsilon"),
        (toml! { prototypes = 1 }, "prototypes"),
        (toml! { sinkhorn_iterations = 0 }, "sinkhorn_iterations"),
        (toml! { negatives_kept = 0 }, "negatives_kept"),
        (toml! { context_layers = 9 }, "context_layers"),
        (toml! { fragment_norm = "rows" }, "fragment_norm"),
        (toml! { text_encoder = "vectors" }, "text_encoder"),
        (toml! { margin = -0.1 }, "margin"),
        (toml! { batch = 1 }, "batch"),
    ] {
        let message = SELF_ALIGN.resolve(&table).unwrap_err().to_string();
        assert!(message.contains(&format!("`{text}`")), "{message}");
    }
}
