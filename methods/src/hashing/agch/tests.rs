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
fn an_independent_reference_gives_the_same_affinity() {
    let file = known::Known::read();
    let params = Params { image_weight: 2.0, text_weight: 0.3, ..Params::default() };
    let found = params.affinity(&file.features()).unwrap();
    known::assert_known(&file, "agch_gv2_gt0.3_rho4_raw", &found);
    known::assert_known(&file, "agch_2S-1", &found.affine(2.0, -1.0).unwrap());
}

#[test]
fn weights_enter_as_squares_plainly_or_as_shares() {
    // Images alike, texts on different axes, so that z differ by g_t sqrt(2).
    let images = Tensor::new(&[[1f64, 0.0], [2.0, 0.0]], &Device::Cpu).unwrap();
    let texts = Tensor::new(&[[1f64, 0.0], [0.0, 1.0]], &Device::Cpu).unwrap();
    let near = (-0.5 * 2f64.sqrt() / 4.0).exp();
    for (inner, own, across) in [(Inner::Squared, 4.25, 4.0), (Inner::Plain, 2.5, 2.0), (Inner::Unit, 1.0, 4.0 / 4.25)]
    {
        let params = Params { image_weight: 2.0, text_weight: 0.5, inner, ..Params::default() };
        let found = values(&params.affinity(&[images.clone(), texts.clone()]).unwrap());
        let expected = [own, across * near, across * near, own];
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{inner:?}: {found:?}");
    }
}

#[test]
fn adjacency_is_scaled_on_both_sides() {
    let affinity = Tensor::new(&[[1f64, 3.0, 0.0], [3.0, 6.0, -2.0], [0.0, -2.0, 0.0]], &Device::Cpu).unwrap();
    let found = values(&adjacency(&affinity).unwrap());
    // Row sums 4, 9 and none.
    let expected = [0.25, 0.5, 0.0, 0.5, 6.0 / 9.0, 0.0, 0.0, 0.0, 0.0];
    assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
}

#[test]
fn convolutions_without_edges_to_others_are_a_network_of_each_item() {
    let mut weights = crate::nn::Weights::new(Seed(1), &Device::Cpu);
    let graph = Convolutions::new(&mut weights, "graph.image", [4, 5, 3]).unwrap();
    let inputs = normal("x", 6, 4).to_dtype(DType::F32).unwrap();
    let eye = Tensor::eye(6, DType::F32, &Device::Cpu).unwrap();
    let all = values(&graph.forward(&eye, &inputs).unwrap());
    let one = Tensor::eye(1, DType::F32, &Device::Cpu).unwrap();
    let alone = values(&graph.forward(&one, &inputs.narrow(0, 2, 1).unwrap()).unwrap());
    assert!(all[6..9].iter().zip(&alone).all(|(a, b)| (a - b).abs() < 1e-6));
    // Equal edges to all make equal codes.
    let full = Tensor::full(1f32 / 6.0, (6, 6), &Device::Cpu).unwrap();
    let spread = values(&graph.forward(&full, &inputs).unwrap());
    assert!((0..18).all(|at| (spread[at] - spread[at % 3]).abs() < 1e-6));
}

#[test]
fn codes_that_agree_and_reconstruct_have_no_loss() {
    let codes = Tensor::new(&[[1f64, 1.0], [-2.0, -2.0]], &Device::Cpu).unwrap();
    let target = Tensor::new(&[[1f64, -1.0], [-1.0, 1.0]], &Device::Cpu).unwrap();
    let both = [codes.clone(), codes.clone()];
    let loss = |fused: &Tensor| scalar(&Params::default().total(&both, fused, Some(&both), &target).unwrap());
    assert!(loss(&codes).abs() < 1e-12);
    // The fused code turned around: cosines with itself are right; those with the codes are 2 off, |h - (-h)|² is 4.
    assert!((loss(&codes.neg().unwrap()) - 2.0 * (0.3 * 4.0 + 5.0 * 4.0)).abs() < 1e-12);
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let target = normal("target", 4, 4);
    let at = ["a", "b", "h", "g", "k"].map(|label| normal(label, 4, 3));
    let params = Params { delta: 0.5, ..Params::default() };
    assert_gradients(&at, |at| {
        let graph = [at[3].clone(), at[4].clone()];
        params.total(&[at[0].clone(), at[1].clone()], &at[2], Some(&graph), &target).unwrap()
    });
}

#[test]
fn planted_pairs_find_each_other_with_and_without_graph() {
    let (train, test) = (planted("train", 200), planted("test", 40));
    for options in [toml::toml! { delta = 0 }, toml::toml! { delta = 0.1 }] {
        let common =
            toml::toml! { graph_hidden = 16 epochs = 20 learning_rate = 0.02 inner = "unit" affinity_centre = true };
        let options = toml::Table::from_iter(common.into_iter().chain(options));
        let found = recall(&*fit(&AGCH, &train, options.clone()).unwrap(), &test);
        assert!(found > 4.0 / 40.0, "{options:?}: {found}, chance is 1 in 40 for each of two texts");
    }
    assert!(fit(&AGCH, &train, toml::toml! { graph_hidden = 8 batch = 2 epochs = 1 }).is_ok());
    let error = |table: toml::Table| AGCH.resolve(&table).unwrap_err().to_string();
    assert!(error(toml::toml! { rho = 0 }).contains("`rho`: expected a number above 0, found 0"));
    assert!(error(toml::toml! { image_weight = 0 text_weight = 0 }).contains("above 0 where `text_weight` is 0"));
}
