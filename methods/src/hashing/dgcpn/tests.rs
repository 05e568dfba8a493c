use std::sync::atomic::AtomicBool;

use candle_core::Device;
use xmbench_datasets::random::Seed;

use super::*;
use crate::{
    Method, Run,
    loss::support::{assert_gradients, normal, scalar},
    method::Silent,
    trained::planted::{fit, planted, recall, small, view},
};

#[test]
fn golden_files_agree() {
    crate::golden::assert_files(&DGCPN.operations());
}

#[test]
fn terms_by_hand() {
    // Images on the axes, texts on the first: C_II = I, C_TT = 1, C_IT = [[1, 1], [0, 0]].
    let matrix = |rows: [[f64; 2]; 2]| Tensor::new(&rows, &Device::Cpu).unwrap();
    let codes = Cosines::of(&matrix([[1.0, 0.0], [0.0, 1.0]]), &matrix([[2.0, 0.0], [1.0, 0.0]])).unwrap();
    let parts = Params::default().parts(&codes, &matrix([[9.0, 1.0], [1.0, 9.0]])).unwrap();
    // Diagonals do not count, and the mean is over all four.
    let found = [&parts.pair, &parts.image_image, &parts.image_text, &parts.text_text].map(scalar);
    assert_eq!(found, [(0.25 + 2.25) / 2.0, 0.5, 0.25, 0.0]);
    // IT - II = [[0, 1], [0, -1]], IT - TT = [[0, 0], [-1, -1]], II - TT = -[[0, 1], [1, 0]], IT - ITᵀ = [[0, 1], [-1, 0]].
    assert_eq!(scalar(&parts.consistency), 2.0);
    let params = Params { dw: 2.0, cw: 0.5, ..Params::default() };
    assert_eq!(scalar(&parts.total(&params).unwrap()), 1.25 + 1.5 + 1.0);
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let target = normal("target", 4, 4);
    let params = Params { dw: 0.7, cw: 0.3, ..Params::default() };
    assert_gradients(&[normal("a", 4, 3), normal("b", 4, 3)], |at| {
        params.parts(&Cosines::of(&at[0], &at[1]).unwrap(), &target).unwrap().total(&params).unwrap()
    });
}

#[test]
fn a_batch_makes_three_steps_of_which_each_moves_its_own() {
    let phases = Params::default().phases();
    let moved = |weight: &str| phases.iter().filter(|phase| phase.weights.hold(weight)).count();
    assert_eq!((phases.len(), moved("image.0.weight"), moved("text.1.bias")), (3, 2, 2));
    assert_eq!(Params { half_binary: false, ..Params::default() }.phases().len(), 1);
}

#[test]
fn planted_pairs_find_each_other_with_the_whole_affinity_and_with_some_of_it() {
    let (train, test) = (planted("train", 150), planted("test", 40));
    for options in [toml::Table::new(), toml::toml! { affinity_rows = 60 }, toml::toml! { half_binary = false }] {
        let common = toml::toml! { image_hidden = 32 dropout = 0.1 epochs = 15 learning_rate = 0.05 a1 = 0.5 affinity_centre = true };
        let options = toml::Table::from_iter(common.into_iter().chain(options));
        let found = recall(&*fit(&DGCPN, &train, options.clone()).unwrap(), &test);
        assert!(found > 4.0 / 40.0, "{options:?}: {found}, chance is 1 in 40 for each of two texts");
    }
    let batches_of_two = toml::toml! { image_hidden = 8 batch = 2 epochs = 1 };
    assert!(fit(&DGCPN, &train, batches_of_two).is_ok());
}

#[test]
fn a_batch_has_its_part_of_the_affinity() {
    // Both texts of every image, in another order than that of the pairs.
    let train = planted("train", 30);
    let settings: crate::trained::Settings<Params> =
        crate::trained::Settings::read(&small(&DGCPN, toml::toml! { image_hidden = 8 })).unwrap();
    let (stop, mut silent) = (AtomicBool::new(false), Silent);
    let run = Run::new(Seed(1), &mut silent, &stop);
    let mut weights = crate::nn::Weights::new(Seed(1), &Device::Cpu);
    let training = view(&train);
    let body =
        <Networks as crate::trained::Body>::fit(NAME, &settings.shared.options, (), &training, &run, &mut weights)
            .unwrap();
    let graph = Graph::new(&settings.loss, &body, &training).unwrap();
    let Graph::Whole { at, affinity } = &graph else { panic!("few pairs") };
    assert_eq!((at.len(), affinity.dims()), (60, &[60, 60][..]));
    let pairs = train.pairs.all();
    assert!(pairs.iter().enumerate().all(|(row, pair)| at[pair] as usize == row));
    let rows = affinity.to_vec2::<f32>().unwrap();
    assert!((0..60).all(|i| (0..60).all(|j| (rows[i][j] - rows[j][i]).abs() < 1e-5)));
}

#[test]
fn wrong_parameters_are_named() {
    let error = |table: toml::Table| DGCPN.resolve(&table).unwrap_err().to_string();
    assert!(error(toml::toml! { neighbours = 0 }).contains("above 0 and at most 1, found 0"));
    assert!(error(toml::toml! { a2 = 2 }).contains("`a2`: expected a number in [0, 1], found 2"));
    assert!(error(toml::toml! { affinity_rows = 100000 }).contains("2 to 50000"));
}
