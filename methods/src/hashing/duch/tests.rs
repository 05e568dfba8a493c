use candle_core::Var;
use xmbench_datasets::random::Seed;

use super::*;
use crate::{
    Method,
    loss::support::{assert_gradients, normal, scalar, values as all},
    nn::Weights,
    trained::planted::{fit, planted, recall},
};

#[test]
fn golden_files_agree() {
    crate::golden::assert_files(&DUCH.operations());
}

fn four(at: &[Tensor]) -> Codes {
    Codes { images: [at[0].clone(), at[1].clone()], texts: [at[2].clone(), at[3].clone()] }
}

#[test]
fn signs_quantisation_and_balance_by_hand() {
    let row = |values: [f64; 2]| Tensor::new(&[values], &Device::Cpu).unwrap();
    let codes = four(&[row([0.5, -1.0]), row([0.5, 0.0]), row([-0.5, 0.0]), row([0.5, 0.0])]);
    let signs = codes.signs().unwrap();
    assert_eq!(all(&signs), [1.0, -1.0]);
    // 0.25 + 0, 0.25 + 1, 2.25 + 1, 0.25 + 1.
    assert_eq!(scalar(&codes.quantisation(&signs).unwrap()), 6.0);
    // Sums of bits -0.5, 0.5, -0.5, 0.5.
    assert_eq!(scalar(&codes.balance().unwrap()), 1.0);
}

#[test]
fn softplus_is_exact_and_far_out() {
    let x = Tensor::new(&[0f64, 1.0, -800.0, 800.0], &Device::Cpu).unwrap();
    let found = all(&softplus(&x).unwrap());
    let expected = [2f64.ln(), 1f64.exp().ln_1p(), 0.0, 800.0];
    assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
}

fn discriminator() -> (Weights, Discriminator) {
    let mut weights = Weights::new(Seed(1), &Device::Cpu);
    let first = Linear::new(&mut weights, "discriminator.0", 3, 5).unwrap();
    let second = Linear::new(&mut weights, "discriminator.1", 5, 1).unwrap();
    (weights, Discriminator([first, second]))
}

#[test]
fn a_blind_discriminator_costs_log_2_an_item() {
    let (weights, discriminator) = discriminator();
    for name in ["discriminator.1.weight", "discriminator.1.bias"] {
        let var = weights.var(name).unwrap();
        var.set(&var.zeros_like().unwrap()).unwrap();
    }
    let codes = four(&[0, 1, 2, 3].map(|i| normal(&i.to_string(), 6, 3).to_dtype(DType::F32).unwrap()));
    assert!((scalar(&codes.told_apart(&discriminator).unwrap()) - 24.0 * 2f64.ln()).abs() < 1e-4);
    assert!((scalar(&codes.adversary(&discriminator).unwrap()) - 12.0 * 2f64.ln()).abs() < 1e-4);
}

#[test]
fn telling_apart_moves_the_discriminator_alone_and_its_opposite_the_texts() {
    let (weights, discriminator) = discriminator();
    let vars: Vec<Var> = (0..4)
        .map(|i| Var::from_tensor(&normal(&i.to_string(), 6, 3).to_dtype(DType::F32).unwrap()).unwrap())
        .collect();
    let inputs: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let codes = four(&inputs);
    let gradients = codes.told_apart(&discriminator).unwrap().backward().unwrap();
    assert!(vars.iter().all(|var| gradients.get(var).is_none()));
    assert!(weights.iter().all(|(_, var)| gradients.get(var).is_some()));
    let gradients = codes.adversary(&discriminator).unwrap().backward().unwrap();
    let moved: Vec<bool> = vars.iter().map(|var| gradients.get(var).is_some()).collect();
    assert_eq!(moved, [false, false, true, true]);
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let signs = normal("b", 4, 3).sign().unwrap();
    let at = [0, 1, 2, 3].map(|i| normal(&i.to_string(), 4, 3));
    assert_gradients(&at, |at| {
        let codes = four(at);
        (codes.quantisation(&signs).unwrap() + codes.balance().unwrap()).unwrap()
    });
    assert_gradients(&at, |at| Params { quantisation: 0.0, ..Params::default() }.total(&four(at)).unwrap());
}

#[test]
fn planted_pairs_find_each_other_with_and_without_discriminator() {
    let (train, test) = (planted("train", 200), planted("test", 40));
    for options in [toml::Table::new(), toml::toml! { adversary = 0 contrast = "cross" }] {
        let common = toml::toml! { image_hidden = 64 text_hidden = 64 epochs = 15 learning_rate = 0.002 };
        let options = toml::Table::from_iter(common.into_iter().chain(options));
        let found = recall(&*fit(&DUCH, &train, options.clone()).unwrap(), &test);
        assert!(found > 8.0 / 40.0, "{options:?}: {found}, chance is 1 in 40 for each of two texts");
    }
    assert!(fit(&DUCH, &train, toml::toml! { image_hidden = 8 batch = 2 epochs = 1 }).is_ok());
}

#[test]
fn wrong_parameters_are_named() {
    let error = |table: toml::Table| DUCH.resolve(&table).unwrap_err().to_string();
    assert!(error(toml::toml! { temperature = 0 }).contains("from 0.02 up, found 0"));
    assert!(error(toml::toml! { view_drop = 1 }).contains("[0, 1), found 1"));
    assert!(error(toml::toml! { batch = 1 }).contains("at least 2"));
}
