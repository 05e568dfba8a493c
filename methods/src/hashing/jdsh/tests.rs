use candle_core::{DType, Device};
use xmbench_datasets::random::Seed;

use super::*;
use crate::{
    Method,
    loss::{
        known,
        support::{assert_gradients, normal},
    },
    trained::planted::{fit, planted, recall},
};

#[test]
fn golden_files_agree() {
    crate::golden::assert_files(&JDSH.operations());
}

#[test]
fn an_independent_reference_gives_the_same_affinity() {
    let file = known::Known::read();
    let mut weights = crate::nn::Weights::new(Seed(1), &Device::Cpu);
    let weighting = WeightingSource::MirFlickr.resolve(None, &mut weights).unwrap();
    let [images, texts] = file.features();
    let found = Params::default().affinity(&images, &texts, weighting.as_ref()).unwrap();
    known::assert_known(&file, "jdsh_mirflickr_final", &found);
}

#[test]
fn a_known_distribution_is_found_again() {
    // Half of a Gaussian of deviation 0.05 left of -0.4, half of a Laplacian of scale 0.1 right of it, of one height in the
    // middle: areas are as 0.05 sqrt(pi / 2) to 0.1.
    let mut stream = Seed(5).stream(&["distribution"]);
    let left = 0.05 * (std::f64::consts::PI / 2.0).sqrt();
    let entries: Vec<f64> = (0..60_000)
        .map(|_| match stream.unit() < left / (left + 0.1) {
            true => -0.4 - 0.05 * stream.normal().abs(),
            false => -0.4 - 0.1 * (1.0 - stream.unit()).ln(),
        })
        .collect();
    let found = Weighting::of(&entries);
    assert!((found.loc_left + 0.4).abs() < 0.03 && found.loc_left == found.loc_right, "{found:?}");
    assert!((found.scale_left - 0.05).abs() < 0.015 && (found.scale_right - 0.1).abs() < 0.02, "{found:?}");
    assert!(entries.iter().all(|&value| value >= found.min && value <= found.max));
}

#[test]
fn by_hand_and_where_all_are_equal() {
    let weighting = Weighting { loc_left: 0.0, scale_left: 0.1, loc_right: 0.0, scale_right: 0.1, min: -1.0, max: 1.0 };
    assert_eq!(weighting.thresholds([2.0, 4.0]), [-0.2, 0.4]);
    let s = Tensor::new(&[[-1f64, -0.1], [0.3, 1.0]], &Device::Cpu).unwrap();
    let found = weighting.apply(&s, [2.0, 4.0], [0.5, 0.25]).unwrap().to_vec2::<f64>().unwrap();
    // exp(0) at both ends.
    assert_eq!(found, [[-1.5, -0.1], [0.3, 1.25]]);
    let flat = Weighting::of(&[0.7; 5]);
    assert_eq!(flat.values(), [0.7, 0.0, 0.7, 0.0, 0.7, 0.7]);
    let same = Tensor::full(0.7f64, (2, 2), &Device::Cpu).unwrap();
    assert_eq!(flat.apply(&same, [2.0, 4.0], [0.5, 0.5]).unwrap().to_vec2::<f64>().unwrap(), [[0.7; 2]; 2]);
}

#[test]
fn constants_are_those_of_the_batches_and_stay_with_the_matcher() {
    let train = planted("train", 60);
    let matcher = fit(&JDSH, &train, toml::toml! { epochs = 1 }).unwrap();
    let folder = tempfile::tempdir().unwrap();
    matcher.save(folder.path()).unwrap();
    let file = folder.path().join("weights.safetensors");
    let kept = candle_core::safetensors::load(file, &Device::Cpu).unwrap()["weighting"].to_vec1::<f32>().unwrap();
    let [loc, scale_left, _, scale_right, min, max] = kept[..] else { panic!("six constants") };
    // Cosines of -1 make (0.5 + 0.1) (-3) - 0.4.
    assert!(min < loc && loc < max && min >= -2.2 && max <= 1.0 + 1e-6, "{kept:?}");
    assert!(scale_left > 0.0 && scale_right > 0.0);
    JDSH.load(folder.path(), &Device::Cpu).unwrap();
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let target = normal("target", 4, 4);
    assert_gradients(&[normal("a", 4, 3), normal("b", 4, 3)], |at| {
        loss(&Cosines::of(&at[0], &at[1]).unwrap(), &target, 0.1).unwrap()
    });
}

#[test]
fn equal_codes_and_batches_of_two_are_no_trap() {
    let codes = candle_core::Var::ones((3, 4), DType::F64, &Device::Cpu).unwrap();
    let target = Tensor::ones((3, 3), DType::F64, &Device::Cpu).unwrap();
    let value = loss(&Cosines::of(&codes, &codes).unwrap(), &target, 0.1).unwrap();
    // Nothing to reconstruct, and every pair's cosine is 1.
    assert!((value.to_scalar::<f64>().unwrap() + 1.0).abs() < 1e-12);
    let gradients = value.backward().unwrap();
    let gradient = gradients.get(&codes).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    assert!(gradient.iter().all(|value| value.abs() < 1e-12));
    let (train, test) = (planted("train", 40), planted("test", 20));
    let matcher = fit(&JDSH, &train, toml::toml! { batch = 2 epochs = 1 }).unwrap();
    assert!(recall(&*matcher, &test).is_finite());
    let error = fit(&JDSH, &train, toml::toml! { batch = 1 }).err().unwrap().to_string();
    assert!(error.contains("at least 2 pairs"), "{error}");
}

#[test]
fn planted_pairs_find_each_other() {
    let (train, test) = (planted("train", 200), planted("test", 40));
    let found = recall(&*fit(&JDSH, &train, toml::toml! { epochs = 20 learning_rate = 0.05 }).unwrap(), &test);
    assert!(found > 4.0 / 40.0, "{found}, chance is 1 in 40 for each of two texts");
}

#[test]
fn wrong_parameters_are_named() {
    let error = |table: toml::Table| JDSH.resolve(&table).unwrap_err().to_string();
    assert!(error(toml::toml! { mu = -1 }).contains("`mu`: expected a number of at least 0, found -1"));
    assert!(error(toml::toml! { weighting = "some" }).contains("weighting"));
}
