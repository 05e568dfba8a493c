use candle_core::Device;
use xmbench_datasets::random::Seed;

use super::*;
use crate::nn::cross::{CrossAttention, batch_scores, known as items_of};

#[path = "known.rs"]
mod known;

const D: usize = 6;

fn drawn(label: &str, shape: &[usize]) -> Tensor {
    let mut stream = Seed(3).stream(&[label]);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| stream.normal() as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn recurrent(mode: Mode, steps: usize) -> Recurrent {
    let memory = |side: &str| {
        let layer = |name: &str| [drawn(&format!("{name}{side}"), &[2 * D, D]), drawn(&format!("{name}{side}b"), &[D])];
        Memory { gate: layer("gate"), update: layer("update") }
    };
    let branch = |&direction: &Direction| Branch { direction, memory: Some(memory(&format!("{direction:?}"))) };
    Recurrent {
        attention: Attention { norm: Norm::ClippedL2norm, lambda_softmax: 9.0 },
        steps,
        memory_norm: false,
        extra_update: false,
        branches: mode.directions().iter().map(branch).collect(),
    }
}

fn items() -> (Tensor, Tensor, Lengths) {
    let lengths = Lengths::new([3, 1, 5, 2]).unwrap();
    (l2n(&drawn("images", &[4, 5, D])).unwrap(), l2n(&drawn("words", &[lengths.total(), D])).unwrap(), lengths)
}

fn scores(of: &Recurrent) -> Vec<f64> {
    let (images, words, lengths) = items();
    values(&interact(of, &images, &words, &lengths).unwrap()).unwrap()
}

fn apart(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn one_step_is_scan_with_the_mean_and_both_branches_add_up() {
    let (images, words, lengths) = items();
    let scan = |direction| {
        let settings = CrossAttention {
            direction,
            attention: Attention { norm: Norm::ClippedL2norm, lambda_softmax: 9.0 },
            relevance: Relevance { aggregation: Aggregation::Mean, lambda_lse: 1.0 },
        };
        values(&batch_scores(&settings, &images, &words, &lengths).unwrap()).unwrap()
    };
    let (text, image) = (scan(Direction::T2i), scan(Direction::I2t));
    assert!(apart(&scores(&recurrent(Mode::Text, 1)), &text) < 1e-6);
    assert!(apart(&scores(&recurrent(Mode::Image, 1)), &image) < 1e-6);
    let sum: Vec<f64> = text.iter().zip(&image).map(|(a, b)| a + b).collect();
    assert!(apart(&scores(&recurrent(Mode::Full, 1)), &sum) < 1e-6);
}

#[test]
fn later_steps_and_the_memory_s_length_are_felt_and_the_released_update_is_not() {
    let [one, two, three] = [1, 2, 3].map(|steps| scores(&recurrent(Mode::Full, steps)));
    assert!(apart(&one, &two) > 0.1 && apart(&two, &three) > 0.1);
    let scaled = scores(&Recurrent { memory_norm: true, ..recurrent(Mode::Full, 3) });
    assert!(apart(&scaled, &three) > 1e-3);
    assert_eq!(scores(&Recurrent { extra_update: true, ..recurrent(Mode::Full, 3) }), three);
}

#[test]
fn only_what_is_used_has_weights() {
    let weights = |params: toml::Table| {
        let params = params.into_iter().chain(toml::toml! { embedding = 8 word = 4 epochs = 1 batch = 16 }).collect();
        let train = crate::trained::planted::planted("train", 32);
        let matcher = crate::trained::planted::fit(&IMRAM, &train, params).unwrap();
        let folder = tempfile::tempdir().unwrap();
        matcher.save(folder.path()).unwrap();
        let file = std::fs::read(folder.path().join("weights.safetensors")).unwrap();
        let names = safetensors::SafeTensors::deserialize(&file).unwrap();
        names.names().iter().filter(|name| name.starts_with("gate") || name.starts_with("linear")).count()
    };
    assert_eq!(weights(toml::toml! { steps = 1 }), 0);
    assert_eq!(weights(toml::toml! { mode = "text" steps = 2 }), 4);
    assert_eq!(weights(toml::toml! { steps = 2 }), 8);
    let error = crate::Method::resolve(&IMRAM, &toml::toml! { steps = 0 }).unwrap_err().to_string();
    assert!(error.contains("`steps`") && error.contains("1 to 16"), "{error}");
}

#[test]
fn steps_are_those_of_an_independent_program_that_builds_what_is_seen() {
    for (dtype, most) in [(DType::F64, 1e-12), (DType::F32, 1e-6)] {
        let [image, text] = items_of::items(dtype);
        let tensor = |values: &[f64], shape: &[usize]| {
            Tensor::from_slice(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
        };
        let memory = Memory {
            gate: [tensor(&known::GATE, &[16, 8]), tensor(&known::GATE_BIAS, &[8])],
            update: [tensor(&known::UPDATE, &[16, 8]), tensor(&known::UPDATE_BIAS, &[8])],
        };
        for (direction, memory_norm, expected) in known::STEPS {
            let branches = vec![Branch { direction, memory: Some(memory.clone()) }];
            let one = Recurrent { memory_norm, branches, ..recurrent(Mode::Text, 3) };
            let images = Side::images(&one, image.clone()).unwrap();
            let texts = Side::texts(&one, text.clone()).unwrap();
            let steps = one.steps(0, &images, &texts, Pairing::Every).unwrap();
            for ([_, score], expected) in steps.iter().zip(expected) {
                let found = values(score).unwrap()[0];
                assert!((found - expected).abs() < most, "{direction:?} {memory_norm} {dtype:?}: {found}, {expected}");
            }
        }
    }
}
