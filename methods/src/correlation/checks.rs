//! What the tests of this family share.

use std::sync::atomic::AtomicBool;

use candle_core::Device;
use xmbench_datasets::{Collection, Matrix, random::Seed};

use crate::{
    Codes, Matcher, Method, Result, Run, Training,
    method::{Observer, Silent},
};

/// A run on the CPU without validation data or checkpoints.
pub(super) fn run<'a>(observer: &'a mut (dyn Observer + Send), stop: &'a AtomicBool, seed: u64) -> Run<'a> {
    Run::new(Seed(seed), observer, stop)
}

pub(super) fn training(train: &Collection, classes: usize) -> Training<'_> {
    Training { dataset: "toy", train, val: None, vocabulary: 0, classes }
}

pub(super) fn fit(
    method: &dyn Method,
    seed: u64,
    train: &Collection,
    classes: usize,
    table: &toml::Table,
) -> Result<Box<dyn Matcher>> {
    method.fit(&training(train, classes), table, &mut run(&mut Silent, &AtomicBool::new(false), seed))
}

/// The vectors of images and of texts.
pub(super) fn codes(matcher: &dyn Matcher, items: &Collection) -> [Matrix; 2] {
    [matcher.encode_images(&items.images), matcher.encode_texts(&items.texts)].map(|codes| match codes.unwrap() {
        Codes::Dense(matrix) => matrix,
        _ => panic!("dense codes"),
    })
}

pub(super) fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// What is saved and loaded, or fitted once more, encodes to the same bits.
pub(super) fn keeps_every_bit(method: &dyn Method, items: &Collection, fit: impl Fn() -> Result<Box<dyn Matcher>>) {
    let folder = tempfile::tempdir().unwrap();
    let matcher = fit().unwrap();
    matcher.save(folder.path()).unwrap();
    for other in [method.load(folder.path(), &Device::Cpu).unwrap(), fit().unwrap()] {
        assert_eq!(codes(&*matcher, items), codes(&*other, items));
    }
}
