use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicBool},
};

use candle_core::{DType, Device, Var};
use xmbench_datasets::{Collection, Images, Matrix, Pairs, SparseRows, Texts, random::Seed};

use super::*;
use crate::{Bits, Codes, Matcher, Method, Run, Training, method::Silent};

/// 8 clusters; an image is a noisy indicator, its text three words of the cluster.
fn toy(n: usize, label: &str) -> Collection {
    let mut stream = Seed(9).stream(&["toy", label]);
    let mut global = Matrix::zeros(n, 16);
    let mut rows = Vec::new();
    for i in 0..n {
        let cluster = i % 8;
        for (j, value) in global.row_mut(i).iter_mut().enumerate() {
            *value = (if j / 2 == cluster { 1.0 } else { 0.1 } + 0.1 * stream.unit()) as f32;
        }
        let words: BTreeSet<u32> = (0..3).map(|_| (cluster * 6 + stream.below(6)) as u32).collect();
        rows.push(words.into_iter().map(|word| (word, 1.0)).collect());
    }
    let ids: Vec<String> = (0..n).map(|i| i.to_string()).collect();
    Collection {
        images: Images { ids: ids.clone(), global: Some(Arc::new(global)), ..Images::default() },
        texts: Texts { ids, bow: Some(SparseRows { cols: 48, rows }), ..Texts::default() },
        pairs: Pairs::new(n, n, (0..n as u32).map(|i| (i, i)).collect()),
    }
}

fn small() -> toml::Table {
    toml::toml! { bits = 32 text_hidden = 64 epochs = 15 batch = 20 learning_rate = 0.05 lambda1 = 0.3 }
}

fn fitted(train: &Collection, table: &toml::Table, seed: u64) -> Result<Box<dyn Matcher>> {
    let training = Training { dataset: "toy", train, val: None, vocabulary: 0, classes: 0 };
    let (stop, mut silent) = (AtomicBool::new(false), Silent);
    let mut run = Run::new(Seed(seed), &mut silent, &stop);
    DJSRH.fit(&training, table, &mut run)
}

fn bits(codes: Codes) -> Bits {
    match codes {
        Codes::Binary(bits) => bits,
        _ => panic!("binary codes"),
    }
}

#[test]
fn codes_of_a_cluster_lie_close() {
    let (train, test) = (toy(240, "train"), toy(80, "test"));
    for special in [toml::Table::new(), toml::toml! { affinity_centre = true image_hidden = 32 }] {
        let table = toml::Table::from_iter(small().into_iter().chain(special));
        let matcher = fitted(&train, &table, 1).unwrap();
        let (images, texts) =
            (bits(matcher.encode_images(&test.images).unwrap()), bits(matcher.encode_texts(&test.texts).unwrap()));
        let distance = |i: usize, t: usize| (images.item(i)[0] ^ texts.item(t)[0]).count_ones();
        let (mut within, mut across, mut inside, mut outside) = (0u32, 0u32, 0u32, 0u32);
        for i in 0..80 {
            for t in 0..80 {
                if i % 8 == t % 8 {
                    within += distance(i, t);
                    inside += 1;
                } else {
                    across += distance(i, t);
                    outside += 1;
                }
            }
        }
        let (within, across) = (f64::from(within) / f64::from(inside), f64::from(across) / f64::from(outside));
        assert!(within < 0.6 * across, "mean distance {within} within a cluster, {across} across");
    }
}

#[test]
fn the_seed_decides_every_bit_and_saving_keeps_them() {
    let train = toy(100, "train");
    let codes = |matcher: &dyn Matcher| {
        (bits(matcher.encode_images(&train.images).unwrap()), bits(matcher.encode_texts(&train.texts).unwrap()))
    };
    let table = toml::Table::from_iter(small().into_iter().chain(toml::toml! { epochs = 2 }));
    let matcher = fitted(&train, &table, 3).unwrap();
    assert_eq!(codes(&*matcher), codes(&*fitted(&train, &table, 3).unwrap()));
    assert_ne!(codes(&*matcher), codes(&*fitted(&train, &table, 4).unwrap()));
    let folder = tempfile::tempdir().unwrap();
    matcher.save(folder.path()).unwrap();
    assert_eq!(codes(&*matcher), codes(&*DJSRH.load(folder.path(), &Device::Cpu).unwrap()));
    let narrow = Images { ids: vec!["a".into()], global: Some(Arc::new(Matrix::zeros(1, 3))), ..Images::default() };
    assert!(matcher.encode_images(&narrow).unwrap_err().to_string().contains("expected vectors of 16 values"));
}

#[test]
fn identical_pairs_ask_for_the_scale() {
    // All cosines 1: S~ = 1 everywhere, S~ S~ᵀ / m = 1, so S = mu.
    let rows = Tensor::ones((4, 3), DType::F64, &Device::Cpu).unwrap();
    let (mixed, target) = affinity(&rows, &rows, 0.3, 0.4, 1.5, 4).unwrap();
    for (tensor, expected) in [(mixed, 1.0), (target, 1.5)] {
        for value in tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap() {
            assert!((value - expected).abs() < 1e-12);
        }
    }
}

#[test]
fn a_zero_code_has_a_finite_gradient() {
    let codes = Var::zeros((3, 4), DType::F32, &Device::Cpu).unwrap();
    let target = Tensor::ones((3, 3), DType::F32, &Device::Cpu).unwrap();
    let parts = Cosines::of(&codes, &codes).unwrap().reconstruct(&target).unwrap();
    let gradients = parts.total(0.1, 0.1).unwrap().backward().unwrap();
    let gradient = gradients.get(&codes).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(gradient.iter().all(|value| value.is_finite()));
}

#[test]
fn wrong_parameters_and_inputs_are_named() {
    let mut train = toy(40, "train");
    let error = |train: &Collection, table: toml::Table| fitted(train, &table, 1).err().unwrap().to_string();
    assert!(error(&train, toml::toml! { bits = 0 }).contains("`bits`: expected 1 to 4096, found 0"));
    assert!(error(&train, toml::toml! { beta = 1.5 }).contains("[0, 1], found 1.5"));
    assert!(error(&train, toml::toml! { bitz = 8 }).contains("did you mean `bits`?"));
    assert!(error(&train, toml::toml! { text = "global" }).contains("needs texts.global"));
    let mut global = train.images.global.as_ref().unwrap().all().unwrap();
    global.row_mut(7)[2] = f32::INFINITY;
    train.images.global = Some(Arc::new(global));
    assert!(error(&train, toml::Table::new()).contains("inf in item 7, column 2"));
}

#[test]
fn golden_files_agree() {
    crate::golden::assert_files(&DJSRH.operations());
}
