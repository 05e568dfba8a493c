use candle_core::{DType, Device};
use xmbench_datasets::random::Seed;

use super::*;
use crate::{
    Method,
    loss::{
        known,
        support::{assert_gradients, normal, scalar, values},
    },
    trained::planted::{fit, planted, recall},
};

#[test]
fn the_fused_affinity_by_hand_in_both_normalisations() {
    // Cosines 1 and 0: S_I = [[1, -1], [-1, 1]]; the texts are alike: S_T = 1 everywhere.
    let images = Tensor::new(&[[2f64, 0.0], [0.0, 1.0]], &Device::Cpu).unwrap();
    let texts = Tensor::new(&[[1f64], [3.0]], &Device::Cpu).unwrap();
    for product in [Product::Normalised, Product::Scaled] {
        let params = Params { beta: 0.5, gamma: 0.25, eta: 2.0, mu: 2.0, product, ..Params::default() };
        // The rows of S_I are orthogonal to those of S_T, either way.
        assert_eq!(values(&params.affinity(&images, &texts).unwrap()), [1.5, -0.5, -0.5, 1.5]);
        // Of S_I with itself: [[2, -2], [-2, 2]] over the norms' product 2, or over m = 2: the same.
        let params = Params { gamma: 0.0, ..params };
        let found = params.affinity(&images, &images).unwrap();
        let expected = [5.0, -5.0, -5.0, 5.0];
        assert!(values(&found).iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found}");
    }
}

#[test]
fn with_weights_of_jdsh_the_affinity_is_that_of_jdsh() {
    let file = known::Known::read();
    let [images, texts] = file.features();
    let found = Params { mu: 1.0, ..Params::default() }.affinity(&images, &texts).unwrap();
    known::assert_known(&file, "jdsh_mirflickr_unweighted", &found);
}

fn decoders(hidden: usize) -> (Weights, Decoders) {
    let mut weights = Weights::new(Seed(1), &Device::Cpu);
    let decoders = Decoders::new(&mut weights, 2, hidden, [3, 1]).unwrap();
    (weights, decoders)
}

#[test]
fn a_linear_decoder_reconstructs_by_hand() {
    let (weights, decoders) = decoders(0);
    let set = |name: &str, rows: &[f32]| {
        let var = weights.var(name).unwrap();
        var.set(&Tensor::from_slice(rows, var.shape(), &Device::Cpu).unwrap()).unwrap();
    };
    set("decoder.image.0.weight", &[1.0, 0.0, 2.0, 0.0, 1.0, 0.0]);
    set("decoder.image.0.bias", &[0.0, 0.0, 0.5]);
    set("decoder.text.0.weight", &[1.0, -1.0]);
    set("decoder.text.0.bias", &[0.0]);
    let row = |values: &[f32]| Tensor::from_slice(values, (1, values.len()), &Device::Cpu).unwrap();
    let (codes, inputs) = ([row(&[1.0, -1.0]), row(&[1.0, -1.0])], [row(&[1.0, -1.0, 1.0]), row(&[0.0])]);
    // (1, -1, 2.5) against (1, -1, 1): 2.25 / 3; and 2 against 0.
    assert!((scalar(&decoders.loss(&codes, &inputs).unwrap()) - 4.75).abs() < 1e-6);
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let target = normal("target", 4, 4);
    let params = Params { intra: 0.3, cross: 0.7, ..Params::default() };
    assert_gradients(&[normal("a", 4, 3), normal("b", 4, 3)], |at| {
        params.affinity_loss(&Cosines::of(&at[0], &at[1]).unwrap(), &target).unwrap()
    });
    // Through the decoders to the codes: the coder learns from equation (5).
    let (_weights, decoders) = decoders(4);
    let code = candle_core::Var::from_tensor(&normal("c", 5, 2).to_dtype(DType::F32).unwrap()).unwrap();
    let inputs = [normal("x", 5, 3), normal("y", 5, 1)].map(|x| x.to_dtype(DType::F32).unwrap());
    let codes = [code.as_tensor().clone(), code.as_tensor().clone()];
    let gradients = decoders.loss(&codes, &inputs).unwrap().backward().unwrap();
    let gradient = values(gradients.get(&code).unwrap());
    let start = values(&code);
    for (i, slope) in gradient.iter().enumerate() {
        let at = |by: f64| {
            let mut moved = start.clone();
            moved[i] += by;
            let code = Tensor::from_vec(moved, (5, 2), &Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
            scalar(&decoders.loss(&[code.clone(), code], &inputs).unwrap())
        };
        assert!((slope - (at(1e-2) - at(-1e-2)) / 2e-2).abs() < 2e-3, "{i}: {slope}");
    }
}

#[test]
fn codes_that_reconstruct_the_affinity_have_no_loss() {
    // Codes of two groups, opposite to each other, and an affinity of 1 within and -1 across.
    let codes = Tensor::new(&[[1f64, 1.0], [-1.0, -1.0], [1.0, 1.0]], &Device::Cpu).unwrap();
    let target = Tensor::new(&[[1f64, -1.0, 1.0], [-1.0, 1.0, -1.0], [1.0, -1.0, 1.0]], &Device::Cpu).unwrap();
    let loss = Params::default().affinity_loss(&Cosines::of(&codes, &codes).unwrap(), &target).unwrap();
    assert!(scalar(&loss).abs() < 1e-12);
}

#[test]
fn planted_pairs_find_each_other_with_and_without_decoders() {
    let (train, test) = (planted("train", 200), planted("test", 40));
    for options in [
        toml::toml! { image_hidden = 32 decoder_hidden = 16 },
        toml::toml! { image_hidden = 32 reconstruction = 0 },
        toml::toml! { product = "scaled" eta = 2 image_hidden = 0 },
    ] {
        let options =
            toml::Table::from_iter(options.into_iter().chain(toml::toml! { epochs = 20 learning_rate = 0.05 }));
        let matcher = fit(&CFRH, &train, options.clone()).unwrap();
        let found = recall(&*matcher, &test);
        assert!(found > 4.0 / 40.0, "{options:?}: {found}, chance is 1 in 40 for each of two texts");
        let folder = tempfile::tempdir().unwrap();
        matcher.save(folder.path()).unwrap();
        assert!(CFRH.load(folder.path(), &Device::Cpu).is_ok());
    }
}

#[test]
fn batches_of_two_train_and_wrong_parameters_are_named() {
    let train = planted("train", 40);
    assert!(fit(&CFRH, &train, toml::toml! { batch = 2 epochs = 1 image_hidden = 8 }).is_ok());
    let error = |table: toml::Table| CFRH.resolve(&table).unwrap_err().to_string();
    assert!(error(toml::toml! { eta = -1 }).contains("`eta`: expected a number of at least 0, found -1"));
    assert!(error(toml::toml! { reconstruction = 0 decoder_hidden = 8 }).contains("there are no decoders"));
}
