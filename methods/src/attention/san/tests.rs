use candle_core::Device;
use xmbench_datasets::random::Seed;

use super::*;

const D: usize = 3;
const WIDTH: usize = 4;

fn drawn(label: &str, shape: &[usize]) -> Tensor {
    let mut stream = Seed(5).stream(&[label]);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| 3.0 * stream.normal() as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn stacked(form: Form, layers: usize, scale: f64) -> Stacked {
    let drawn = |label: String, shape: &[usize]| (drawn(&label, shape) * scale).unwrap();
    let layer = |l: usize| Layer {
        seen: drawn(format!("seen{l}"), &[D, WIDTH]),
        seen_bias: (form == Form::Theano).then(|| drawn(format!("a{l}"), &[WIDTH])),
        asked: [drawn(format!("asked{l}"), &[D, WIDTH]), drawn(format!("b{l}"), &[WIDTH])],
        logit: [drawn(format!("w{l}"), &[WIDTH, 1]), drawn(format!("c{l}"), &[1])],
    };
    Stacked { direction: Direction::T2i, form, layers: (0..layers).map(layer).collect(), compared: None }
}

/// Two images of three and two regions (a third is padding that is no number), one question.
fn items() -> (Padded, Tensor) {
    let data = vec![1f32, 0., 0., 0., 1., 0., 0., 1., 0., 0., 0., 1., 0.6, 0.8, 0., f32::NAN, f32::NAN, f32::NAN];
    let images = Tensor::from_vec(data, (2, 3, D), &Device::Cpu).unwrap();
    let question = Tensor::new(&[[[0f32, 1., 0.]]], &Device::Cpu).unwrap();
    (Padded::new(&images, &Lengths::new([3, 2]).unwrap()).unwrap(), question)
}

fn weights(of: &Stacked) -> Vec<Vec<f64>> {
    let (images, question) = items();
    let (images, texts) =
        (Side::images(of, images).unwrap(), Side::texts(of, Padded::full(&question).unwrap()).unwrap());
    let block = Block::new(Direction::T2i, &images, &texts, Pairing::Every).unwrap();
    of.attention(&block).unwrap().iter().map(|weights| values(weights).unwrap()).collect()
}

#[test]
fn without_weights_a_question_sees_the_mean() {
    let (images, question) = items();
    let blind = stacked(Form::Paper, 2, 0.0);
    for weights in weights(&blind) {
        let wanted = [1. / 3., 1. / 3., 1. / 3., 0.5, 0.5, 0.];
        assert!(weights.iter().zip(wanted).all(|(w, wanted)| (w - wanted).abs() < 1e-6), "{weights:?}");
    }
    let (images, texts) =
        (Side::images(&blind, images).unwrap(), Side::texts(&blind, Padded::full(&question).unwrap()).unwrap());
    let scores = values(&blind.scores(&images, &texts, Pairing::Every).unwrap()).unwrap();
    // Means (1, 2, 0) / 3 and (0.6, 0.8, 1) / 2 against (0, 1, 0).
    let wanted = [2.0 / 5f64.sqrt(), 0.8 / 2f64.sqrt()];
    assert!(scores.iter().zip(wanted).all(|(score, wanted)| (score - wanted).abs() < 1e-6), "{scores:?}");
}

#[test]
fn the_released_form_cannot_be_sharp() {
    let spread = |form: Form| {
        let weights = weights(&stacked(form, 1, 2.0)).remove(0);
        let first = &weights[..3];
        first.iter().copied().fold(0.0, f64::max) / first.iter().copied().fold(1.0, f64::min)
    };
    let most = std::f64::consts::E.powi(2) + 1e-3;
    assert!(spread(Form::Theano) <= most, "{}", spread(Form::Theano));
    assert!(spread(Form::Paper) > most, "{}", spread(Form::Paper));
}

#[test]
fn a_second_layer_asks_with_what_the_first_saw() {
    let [first, second] = <[Vec<f64>; 2]>::try_from(weights(&stacked(Form::Paper, 2, 0.5))).unwrap();
    assert_eq!(weights(&stacked(Form::Paper, 1, 0.5)), std::slice::from_ref(&first));
    assert!(first.iter().zip(&second).any(|(a, b)| (a - b).abs() > 0.01));
}

#[test]
fn both_directions_and_comparisons_learn_and_code_one_vector_for_what_asks() {
    let (train, test) = (crate::trained::planted::planted("train", 160), crate::trained::planted::planted("test", 40));
    for (direction, comparison) in [("t2i", "cosine"), ("i2t", "cosine"), ("t2i", "mlp")] {
        let params = toml::toml! { attention_width = 16 max_violation = false };
        let named = [("direction", direction), ("comparison", comparison)].map(|(k, v)| (k.to_string(), v.into()));
        let matcher = crate::trained::planted::fit(&SAN, &train, params.into_iter().chain(named).collect()).unwrap();
        let counts = |codes: Codes| match codes {
            Codes::Fragments(fragments) => (0..fragments.len()).map(|item| fragments.count(item)).max().unwrap(),
            _ => panic!("fragments"),
        };
        let (image, text) =
            (counts(matcher.encode_images(&test.images).unwrap()), counts(matcher.encode_texts(&test.texts).unwrap()));
        assert_eq!((image == 1, text == 1), (direction == "i2t", direction == "t2i"));
        let recall = crate::trained::planted::recall(&*matcher, &test);
        println!("{direction} {comparison}: recall at 1 {recall}");
        // Chance is 0.025.
        assert!(recall > 0.15, "{direction} {comparison}: {recall}");
    }
}
