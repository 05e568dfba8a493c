use std::path::Path;

use candle_core::Device;

use super::*;
use crate::{
    Matcher, Method,
    trained::planted::{fit, longer_texts_score_alone_as_together, planted, recall, scores},
};

/// The threshold and the samples since the last estimate of a saved matcher.
fn state(folder: &Path) -> (f32, Vec<f32>) {
    let weights = candle_core::safetensors::load(folder.join("weights.safetensors"), &Device::Cpu).unwrap();
    let samples = weights["samples"].flatten_all().unwrap().to_vec1().unwrap();
    (weights["threshold"].to_vec1::<f32>().unwrap()[0], samples)
}

fn saved(matcher: &dyn Matcher) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    matcher.save(folder.path()).unwrap();
    folder
}

#[test]
fn planted_pairs_are_learnt_in_both_directions_and_survive_the_disk() {
    let (train, test) = (planted("train", 160), planted("test", 40));
    for direction in ["t2i", "i2t"] {
        // On the hardest negatives alone i2t collapses here, with and without masks.
        let mut options = toml::toml! { threshold_samples = 60 warmup = 3 };
        options.insert("direction".into(), direction.into());
        let matcher = fit(&UARDA, &train, options.clone()).unwrap();
        let found = recall(&*matcher, &test);
        let folder = saved(&*matcher);
        let (threshold, samples) = state(folder.path());
        println!("{direction}: recall at 1 {found}, threshold {threshold}, samples {samples:?}");
        // Chance is 0.025.
        assert!(found > 0.4, "{direction}: recall at 1 {found}");
        assert!(threshold > 0.0 && threshold < 1.0, "{direction}: threshold {threshold}");
        let before = scores(&*matcher, &test);
        let loaded = UARDA.load(folder.path(), &Device::Cpu).unwrap();
        assert!(before == scores(&*loaded, &test), "{direction}: other bits after save and load");
        assert_eq!(state(saved(&*loaded).path()), (threshold, samples));

        // The scores need the threshold.
        let path = folder.path().join("weights.safetensors");
        let mut weights = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        weights.insert("threshold".into(), Tensor::new(&[0.99f32], &Device::Cpu).unwrap());
        candle_core::safetensors::save(&weights, &path).unwrap();
        assert!(before != scores(&*UARDA.load(folder.path(), &Device::Cpu).unwrap(), &test));

        // The other form of scoring changes nothing but the rounding.
        let path = folder.path().join("shape.toml");
        matcher.save(folder.path()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("scoring = \"gram\""));
        std::fs::write(&path, text.replace("scoring = \"gram\"", "scoring = \"direct\"")).unwrap();
        let direct = scores(&*UARDA.load(folder.path(), &Device::Cpu).unwrap(), &test);
        for (a, b) in before.concat().into_iter().zip(direct.concat()) {
            assert!((a - b).abs() < 1e-5, "{direction}: {a} {b}");
        }
        longer_texts_score_alone_as_together(&*matcher, &test.images);
    }
}

#[test]
fn the_threshold_moves_from_batch_to_batch_and_samples_wait_for_enough() {
    let train = planted("train", 160);
    let after = |mut options: toml::Table| {
        options.insert("warmup".into(), 3.into());
        state(saved(&*fit(&UARDA, &train, options).unwrap()).path())
    };
    let (few, _) = after(toml::toml! { threshold_samples = 30 epochs = 4 });
    let (more, _) = after(toml::toml! { threshold_samples = 30 epochs = 5 });
    assert!(few > -1.0 && more > -1.0 && few != more, "{few} {more}");
    // 32 texts of at most nine words: no batch has so many samples, several do.
    let (threshold, samples) = after(toml::toml! { threshold_samples = 300 epochs = 6 });
    assert!(threshold > -1.0, "{threshold} {samples:?}");
    // 40 batches of them do not have these; all wait.
    let (threshold, samples) = after(toml::toml! { threshold_samples = 20000 epochs = 4 });
    assert!(threshold == -1.0 && samples[0] > 300.0 && samples[3] == samples[0], "{threshold} {samples:?}");
    // Samples of own images lie above those of others.
    assert!(samples[1] > samples[4], "{samples:?}");
    let (threshold, _) =
        after(toml::toml! { threshold_samples = 30 threshold_start = 0.1 threshold_rate = 0 epochs = 4 });
    assert_eq!(threshold, 0.1);
    let off = toml::toml! { threshold_samples = 30 content_mask = false query_mask = false epochs = 4 };
    assert_eq!(after(off), (-1.0, vec![0.0; 6]));
}

#[test]
fn an_estimate_lies_between_the_means_or_is_none() {
    let normal = |mean: f64, deviation: f64| Normal { count: 101.0, mean, squares: 100.0 * deviation * deviation };
    // Equal deviations d: the boundary is the middle and d² ln(alpha) / (m+ - m-) more.
    let found = estimate(&normal(0.6, 0.1), &normal(0.2, 0.1), 2.0).unwrap();
    assert!((found - (0.4 + 0.01 * 2f64.ln() / 0.4)).abs() < 1e-9, "{found}");
    // Hardly apart, it lies 3.4 deviations above both means: to accept nothing costs least.
    let near = [normal(0.32, 0.1), normal(0.3, 0.1)];
    let beyond = boundary(&near[0], &near[1], 2.0).unwrap();
    assert!(beyond > 0.6, "{beyond}");
    assert_eq!(estimate(&near[0], &near[1], 2.0), None);
    // The other way round, or with hardly a cost: below both.
    assert_eq!(estimate(&near[0], &near[1], 0.1), None);
    assert_eq!(estimate(&normal(0.2, 0.1), &normal(0.6, 0.2), 1.0), None);
    // No threshold is below 0.
    assert_eq!(estimate(&normal(0.0, 0.1), &normal(-0.6, 0.1), 1.0), Some(0.0));
}

#[test]
fn masks_may_wait_until_encoders_are_worth_masking() {
    let (train, test) = (planted("train", 160), planted("test", 40));
    let fixed = toml::toml! { threshold_start = 0.0 threshold_rate = 0.0 warmup = 3 };
    let after = |masks_from: i64| {
        let mut options = fixed.clone();
        options.insert("masks_from".into(), masks_from.into());
        let matcher = fit(&UARDA, &train, options).unwrap();
        assert_eq!(state(saved(&*matcher).path()).0, 0.0);
        // Chance is 0.025.
        assert!(recall(&*matcher, &test) > 0.4, "masks from epoch {masks_from} on");
        scores(&*matcher, &test)
    };
    let (at_once, later, never) = (after(0), after(3), after(1000));
    assert!(at_once != later && later != never && at_once != never);
}

#[test]
fn samples_are_of_items_that_rank_their_partner_first() {
    // Images along three axes with one region, texts of one or two words; text 2 prefers image 0.
    let images = Tensor::new(&[[[1f32, 0.0, 0.0]], [[0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]]], &Device::Cpu).unwrap();
    let words = [[0.9f32, 0.2, 0.1], [0.3, 0.8, 0.0], [0.0, 0.6, 0.4], [0.7, 0.0, 0.2]];
    let words = Tensor::new(&words, &Device::Cpu).unwrap();
    let lengths = Lengths::new([1, 2, 1]).unwrap();
    let scores = Tensor::new(&[[0.9f32, 0.15, 0.7], [0.2, 0.7, 0.0], [0.1, 0.2, 0.2]], &Device::Cpu).unwrap();
    let found =
        |direction, relations: &Relations| sample(direction, &scores, relations, &images, &words, &lengths).unwrap();
    let all = Relations::diagonal(3);
    // Texts 0 and 1 do: their words with images 0 and 1, and with images 2 and 0.
    let [matching, others] = found(Direction::T2i, &all);
    assert!(matching.count == 3.0 && (matching.mean - (0.9 + 0.8 + 0.6) / 3.0).abs() < 1e-6);
    assert!(others.count == 3.0 && (others.mean - (0.1 + 0.3 + 0.0) / 3.0).abs() < 1e-6);
    // All images do, image 2 beside an equal: with their texts, and with texts 1, 2 and 0.
    let [matching, others] = found(Direction::I2t, &all);
    assert!(matching.count == 3.0 && (matching.mean - (0.9 + 0.8 + 0.2) / 3.0).abs() < 1e-6);
    assert!(others.count == 3.0 && (others.mean - (0.3 + 0.0 + 0.1) / 3.0).abs() < 1e-6);
    // Where image 0 is no negative of text 2, this one counts: with image 2, and with image 1.
    let some = Relations::new(3, 3, |i, j| match (i, j) {
        (0, 2) => Relation::Ignored,
        _ => all.get(i, j),
    });
    let [matching, others] = found(Direction::T2i, &some);
    assert!(matching.count == 4.0 && (matching.mean - (0.9 + 0.8 + 0.6 + 0.2) / 4.0).abs() < 1e-6);
    assert!(others.count == 4.0 && (others.mean - (0.1 + 0.3 + 0.0 + 0.0) / 4.0).abs() < 1e-6);
    let none = Relations::new(3, 3, |i, j| if i == j { Relation::Positive } else { Relation::Ignored });
    assert_eq!(found(Direction::T2i, &none), [Normal::default(); 2]);
}

#[test]
fn wrong_parameters_are_named() {
    for (table, text) in [
        (toml::toml! { lambda_softmax = 0 }, "lambda_softmax"),
        (toml::toml! { alpha = inf }, "alpha"),
        (toml::toml! { threshold_rate = -0.1 }, "threshold_rate"),
        (toml::toml! { threshold_start = -1.5 }, "threshold_start"),
        (toml::toml! { threshold_samples = 0 }, "threshold_samples"),
        (toml::toml! { mean_over = "kept" query_mask = false }, "mean_over"),
        (toml::toml! { masks_from = 2 content_mask = false query_mask = false }, "masks_from"),
        (toml::toml! { mean_over = "all" }, "mean_over"),
        (toml::toml! { batch = 1 }, "batch"),
        (toml::toml! { direction = "both" }, "direction"),
    ] {
        let message = UARDA.resolve(&table).unwrap_err().to_string();
        assert!(message.contains(text), "{message}");
    }
    let resolved = UARDA.resolve(&toml::Table::new()).unwrap();
    assert_eq!(UARDA.remark(&resolved), None);
    let off = toml::toml! { content_mask = false query_mask = false };
    assert!(UARDA.remark(&UARDA.resolve(&off).unwrap()).unwrap().contains("without masks"));
}
