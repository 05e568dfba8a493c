use candle_core::{DType, Device, Var};
use xmbench_datasets::random::Seed;

use super::*;
use crate::{
    Method,
    loss::{
        known,
        support::{assert_gradients, normal, scalar, values},
    },
    nn::Weights,
    trained::planted::{fit, planted, recall},
};

#[test]
fn an_independent_reference_gives_the_same_affinity() {
    let file = known::Known::read();
    let [mixed, images, _] = Params::default().affinities(&file.features()).unwrap();
    known::assert_known(&file, "dsah_alpha0.9_K1.5", &mixed);
    let plain = (images / 1.5).unwrap();
    known::assert_known(&file, "S_I", &plain);
}

#[test]
fn each_term_by_hand() {
    // Images on the axes, texts on the first: C_II = I, C_TT = 1, C_IT = [[1, 1], [0, 0]].
    let matrix = |rows: [[f64; 2]; 2]| Tensor::new(&rows, &Device::Cpu).unwrap();
    let codes = Cosines::of(&matrix([[1.0, 0.0], [0.0, 1.0]]), &matrix([[2.0, 0.0], [1.0, 0.0]])).unwrap();
    let zero = matrix([[0.0; 2]; 2]);
    let affinities = [zero.clone(), zero.clone(), matrix([[1.0, 1.0], [1.0, 0.0]])];
    let loss = |symmetry, intra| {
        let params = Params { scale: 1.0, symmetry, intra, ..Params::default() };
        scalar(&params.alignment(&codes, &affinities).unwrap())
    };
    // 2/4 + 2/4 + 1, and the second pair's cosine is 0 where K is 1.
    assert!((loss(0.0, 0.0) - 2.5).abs() < 1e-12);
    // C_IT - C_ITᵀ = [[0, 1], [-1, 0]].
    assert!((loss(2.0, 0.0) - 3.5).abs() < 1e-12);
    // C_II against 0 and C_TT against a matrix that differs in one entry.
    assert!((loss(0.0, 4.0) - 2.5 - 4.0 * 0.75).abs() < 1e-12);
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let affinities = ["s", "i", "t"].map(|label| normal(label, 4, 4));
    assert_gradients(&[normal("a", 4, 3), normal("b", 4, 3)], |at| {
        Params::default().alignment(&Cosines::of(&at[0], &at[1]).unwrap(), &affinities).unwrap()
    });
}

#[test]
fn codes_learn_from_decoders_unless_a_sign_stands_between() {
    let mut weights = Weights::new(Seed(1), &Device::Cpu);
    let image = Linear::new(&mut weights, "decoder.image", 2, 4).unwrap();
    let decoders = Decoders { image, text: Linear::new(&mut weights, "decoder.text", 2, 3).unwrap() };
    let single = |x: Tensor| x.to_dtype(DType::F32).unwrap();
    let features = [single(normal("f", 5, 3)), single(normal("g", 5, 4))];
    let code = Var::from_tensor(&single(normal("c", 5, 2).tanh().unwrap())).unwrap();
    let gradient = |decode| {
        let codes = [code.as_tensor().clone(), code.as_tensor().clone()];
        let gradients = decoders.loss(&codes, &features, decode).unwrap().backward().unwrap();
        assert!(gradients.get(weights.var("decoder.text.weight").unwrap()).is_some());
        gradients.get(&code).map(values)
    };
    assert!(gradient(Decode::Sign).is_none_or(|gradient| gradient.iter().all(|&slope| slope == 0.0)));
    let (straight, relaxed) = (gradient(Decode::Straight).unwrap(), gradient(Decode::Relaxed).unwrap());
    assert!(straight.iter().any(|&slope| slope != 0.0) && straight != relaxed);
    // The value is that of the sign.
    let value = |decode: Decode| values(&decode.of(&code).unwrap());
    assert_eq!(value(Decode::Straight).iter().map(|x| x.round()).collect::<Vec<_>>(), value(Decode::Sign));
}

#[test]
fn planted_pairs_find_each_other_with_every_decoder() {
    let (train, test) = (planted("train", 200), planted("test", 40));
    for options in [toml::toml! { decode = "relaxed" }, toml::toml! { reconstruction = 0 }, toml::Table::new()] {
        let options =
            toml::Table::from_iter(options.into_iter().chain(toml::toml! { epochs = 20 learning_rate = 0.05 }));
        let found = recall(&*fit(&DSAH, &train, options.clone()).unwrap(), &test);
        assert!(found > 4.0 / 40.0, "{options:?}: {found}, chance is 1 in 40 for each of two texts");
    }
    assert!(fit(&DSAH, &train, toml::toml! { batch = 2 epochs = 1 }).is_ok());
    let error = DSAH.resolve(&toml::toml! { reconstruction = 0 decode = "sign" }).unwrap_err().to_string();
    assert!(error.contains("there are no decoders, found sign"), "{error}");
}
