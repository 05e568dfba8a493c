use std::sync::atomic::AtomicBool;

use xmbench_datasets::{Dataset, FeatureTable, Matrix, random::Seed};
use xmbench_methods::method::Silent;

use super::{
    fit::{Fit, Judged},
    *,
};
use crate::protocol::Protocol;

fn judged(dataset: Dataset, rungs: &[usize]) -> Vec<f64> {
    let (data, scratch) = (Development::of(dataset, "planted".into()).unwrap(), tempfile::tempdir().unwrap());
    let method = Methods::with(&[]).find("vse").unwrap();
    let params = method.resolve(&toml::toml! {
        text_encoder = "vectors"
        embedding = 8
        epochs = 6
        batch = 20
        learning_rate = 0.01
        validate_every = 2
    });
    let fit = Fit {
        method,
        params: &params.unwrap(),
        data: &data,
        protocol: &Protocol::pairs(),
        device: &Device::Cpu,
        threads: 1,
        seed: Seed(1),
        checkpoints: scratch.path().join("fit"),
        stop: &AtomicBool::new(false),
    };
    let score = |epochs: &usize| match fit.judge(*epochs, &[1, 3, 6], &mut Silent).unwrap() {
        (Judged::Score(score), _) => score,
        (Judged::Failed(reason), _) => panic!("{reason}"),
    };
    rungs.iter().map(score).collect()
}

fn planted() -> Dataset {
    xmbench_datasets::open("planted-linear", &toml::toml! { train = 80 val = 40 test = 40 }, None).unwrap()
}

#[test]
fn test_items_take_no_part() {
    let mut poisoned = planted();
    // Whoever reads one of these has NaN in whatever is made of it.
    let (rows, cols) = (poisoned.test.images.len(), 32);
    let bad: FeatureTable = std::sync::Arc::new(Matrix { rows, cols, data: vec![f32::NAN; rows * cols] });
    poisoned.test.images.global = Some(bad);
    assert_eq!(judged(poisoned, &[6]), judged(planted(), &[6]));
}

#[test]
fn a_fit_that_went_on_from_a_shorter_one_is_the_same_fit() {
    let steps = judged(planted(), &[1, 3, 6]);
    assert_eq!(steps[2], judged(planted(), &[6])[0]);
    assert_eq!(steps[..2], [judged(planted(), &[1])[0], judged(planted(), &[3])[0]]);
    assert!(steps[2] > 0.0 && steps[2] >= steps[0]);
}
