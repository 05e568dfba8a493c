use candle_core::Device;
use toml::toml;

use super::*;
use crate::{
    Matcher, Method,
    dense::placed::{
        accuracy, all_equal, codes, copes, first_loss, fit_on, interrupted, one_word, open, options_are_felt, small,
    },
    trained::planted::{fit, planted, recall},
};

#[test]
fn planted_pairs_are_learnt_in_every_form() {
    let (train, test) = (planted("train", 160), planted("test", 40));
    for options in [
        toml::Table::new(),
        toml! { global_heads = false },
        toml! { queue = 64 momentum_heads = 0.9 },
        toml! { views = "image" },
        toml! { views = "image" queue = 64 epochs = 30 },
    ] {
        let matcher = fit(&DENSE_CL, &train, small(&DENSE_CL, options.clone())).unwrap();
        let recall = recall(&*matcher, &test);
        println!("{options:?}: recall at 1 {recall}");
        // Chance is 0.025.
        assert!(recall > 0.2, "{options:?}: recall at 1 {recall}");
    }
}

/// Regions are matched in the space of the global loss, and behind the dense heads.
#[test]
fn words_find_their_planted_regions() {
    let options = toml! { train = 400 val = 0 test = 60 };
    let (dataset, truth) = (open("planted-fragments", &options), xmbench_datasets::planted::fragments::truth(&options));
    let truth = truth.unwrap();
    let matcher = fit_on(&DENSE_CL, &dataset, toml! { epochs = 14 warmup = 4 });
    let (chance, optimum) = (truth.chance(6), truth.optimum(&dataset.test.images).unwrap());
    let found = [0, 1].map(|which| accuracy(&*matcher, &dataset, &truth, which));
    println!("chance {chance:.3}, global heads {:.3}, dense heads {:.3}, optimum {optimum:.3}", found[0], found[1]);
    assert!(optimum > 0.99 && (chance - 1.0 / 6.0).abs() < 1e-9);
    assert!(found.iter().all(|&found| found > 0.5), "{found:?}");
}

/// What (5) is of codes, in f64.
fn global(matcher: &dyn Matcher, items: &xmbench_datasets::Collection, temperature: f64) -> f64 {
    let [Codes::Dense(v), Codes::Dense(t)] = codes(matcher, items) else { panic!("dense") };
    let pairs = items.pairs.all();
    let score = |i: u32, j: u32| {
        let dot =
            v.row(i as usize).iter().zip(t.row(j as usize)).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
        (dot / temperature).exp()
    };
    let mut sum = 0.0;
    for &(i, j) in pairs {
        let others = pairs.iter().filter(|pair| pair.0 != i);
        let (mut texts, mut images) = (0.0, 0.0);
        others.for_each(|other| (texts, images) = (texts + score(i, other.1), images + score(other.0, j)));
        sum += (1.0 + texts / score(i, j)).ln() + (1.0 + images / score(i, j)).ln();
    }
    sum / (2 * pairs.len()) as f64
}

#[test]
fn without_the_dense_term_it_is_a_softmax_over_codes() {
    let train = planted("train", 12);
    for heads in [true, false] {
        let options = || toml! { lambda = 0.0 global_heads = heads };
        let loss = first_loss(&DENSE_CL, &train, options());
        let still = small(&DENSE_CL, options().into_iter().chain(toml! { learning_rate = 1e-12 epochs = 1 }).collect());
        let expected = global(&*fit(&DENSE_CL, &train, still).unwrap(), &train, 0.2);
        assert!((loss - expected).abs() < 1e-4 * expected, "{loss}, {expected}");
    }
}

#[test]
fn lambda_mixes_two_losses_after_the_warm_up() {
    let train = planted("train", 12);
    let at = |lambda: f64, warmup: i64| first_loss(&DENSE_CL, &train, toml! { lambda = lambda warmup = warmup });
    let [global, half, dense] = [0.0, 0.5, 1.0].map(|lambda| at(lambda, 0));
    assert!((global - dense).abs() > 1e-2 && (half - (global + dense) / 2.0).abs() < 1e-5, "{global} {half} {dense}");
    assert_eq!(at(0.5, 1), global);
    let view = |weight: f64, lambda: f64| {
        first_loss(&DENSE_CL, &train, toml! { views = "image" view_weight = weight lambda = lambda warmup = 0 })
    };
    // (8) in its weight, and in lambda.
    let [one, two, three] = [1.0, 2.0, 3.0].map(|weight| view(weight, 0.5));
    assert!(two - one > 0.1 && ((three - two) - (two - one)).abs() < 1e-4, "{one} {two} {three}");
    let [single, both, parts] = [0.0, 0.5, 1.0].map(|lambda| view(1.0, lambda));
    assert!((single - parts).abs() > 1e-3 && (both - (single + parts) / 2.0).abs() < 1e-5, "{single} {both} {parts}");
}

#[test]
fn every_option_is_felt() {
    let between = [
        toml! { temperature = 0.1 },
        toml! { queue = 32 },
        toml! { momentum_heads = 0.5 },
        toml! { negatives = "paper" },
        toml! { views = "image" },
    ];
    options_are_felt(&DENSE_CL, &toml! { epochs = 3 warmup = 0 }, between);
    let of_images = [
        toml! { view_window = 0.9 },
        toml! { view_noise = 0.5 },
        toml! { view_drop = 0.4 },
        toml! { negatives = "paper" },
        toml! { queue = 32 },
        toml! { momentum_heads = 0.5 },
    ];
    options_are_felt(&DENSE_CL, &toml! { epochs = 3 warmup = 0 views = "image" }, of_images);
    let queued = [toml! { momentum_heads = 0.5 }, toml! { negatives = "paper" }];
    options_are_felt(&DENSE_CL, &toml! { epochs = 3 warmup = 0 queue = 32 }, queued);
}

#[test]
fn queue_and_slow_heads_survive_an_interruption_and_stay_with_the_matcher() {
    let train = planted("train", 96);
    let options = toml! { epochs = 4 queue = 40 momentum_heads = 0.9 };
    let [whole, resumed] = interrupted(&DENSE_CL, &train, options).unwrap();
    assert!(codes(&*whole, &train) == codes(&*resumed, &train));
    let saved = |matcher: &dyn Matcher| {
        let folder = tempfile::tempdir().unwrap();
        matcher.save(folder.path()).unwrap();
        candle_core::safetensors::load(folder.path().join("weights.safetensors"), &Device::Cpu).unwrap()
    };
    let (whole, resumed) = (saved(&*whole), saved(&*resumed));
    let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    // 192 pairs, 6 steps of 32 an epoch: 768 keys, which end 8 places behind a multiple of 40.
    assert_eq!(flat(&whole["queue.next"]), [8.0]);
    assert!(flat(&whole["queue.ids"]).iter().all(|&id| id >= 0.0));
    for name in
        ["queue.image", "queue.text.dense", "queue.ids", "slow.head.image.0.weight", "slow.head.text.dense.1.bias"]
    {
        assert_eq!(flat(&whole[name]), flat(&resumed[name]), "{name}");
        if let Some(fast) = name.strip_prefix("slow.") {
            assert_ne!(flat(&whole[name]), flat(&whole[fast]), "{name}");
        }
    }
}

#[test]
fn small_batches_short_queues_and_poor_texts_are_coped_with() {
    let train = planted("train", 20);
    for options in [
        toml! { queue = 5 },
        toml! { queue = 5 views = "image" momentum_heads = 0.9 },
        toml! { batch = 2 },
        toml! { batch = 2 queue = 1 },
        toml! { batch = 2 views = "image" warmup = 0 },
    ] {
        copes(&DENSE_CL, &train, options);
    }
    copes(&DENSE_CL, &one_word(train.clone()), toml! { warmup = 0 });
    copes(&DENSE_CL, &all_equal(train), toml! { warmup = 0 });
}

#[test]
fn wrong_parameters_are_named() {
    for (table, text) in [
        (toml! { lambda = 1.5 }, "lambda"),
        (toml! { temperature = 0 }, "temperature"),
        (toml! { momentum_heads = 1.0 }, "momentum_heads"),
        (toml! { queue = 10 negatives = "classes" }, "negatives"),
        (toml! { view_noise = 0.2 }, "view_noise"),
        (toml! { views = "image" view_window = 0.0 }, "view_window"),
        (toml! { head_width = 0 }, "head_width"),
        (toml! { image = "global" }, "image"),
        (toml! { text_encoder = "vectors" }, "text_encoder"),
        (toml! { batch = 1 }, "batch"),
    ] {
        let message = DENSE_CL.resolve(&table).unwrap_err().to_string();
        assert!(message.contains(&format!("`{text}`")), "{message}");
    }
}
