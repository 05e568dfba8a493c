//! Fused operations against tensor operations, and their gradients against those and finite differences.

use candle_core::{DType, Device};

use super::super::{Padded, attended, attended_plus, project, similarities, soften, soften_positive};
use super::*;
use crate::nn::checks::{distance, draw, flat, follows_differences, on_threads};

const NORMS: [Norm; 7] =
    [Norm::Softmax, Norm::L2norm, Norm::L1norm, Norm::Clipped, Norm::ClippedL2norm, Norm::ClippedL1norm, Norm::NoNorm];
/// Contexts, queries' items, queries, context vectors.
const SHAPE: [usize; 4] = [2, 3, 4, 11];

fn of(norm: Norm) -> Attention {
    Attention { norm, lambda_softmax: 4.0 }
}

/// A mask that hides every `n`-th entry.
fn mask(shape: &[usize], n: usize) -> Tensor {
    let values: Vec<u8> = (0..shape.iter().product()).map(|at| u8::from(at % n != n / 2)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// No mask, and masks of every way to broadcast.
fn masks() -> Vec<[Option<Tensor>; 2]> {
    let mut all = vec![[None, None]];
    for asked in [&[1, 3, 4][..], &[2, 3, 4]] {
        for seen in [&[2, 1, 1, 11][..], &[1, 3, 1, 11], &[2, 3, 4, 11], &[1, 1, 4, 1]] {
            all.push([Some(mask(asked, 3)), Some(mask(seen, 4))]);
        }
    }
    all
}

fn weighted(y: &Tensor) -> Tensor {
    (y * draw("cotangent", y.dims()).as_tensor()).unwrap().sum_all().unwrap()
}

#[test]
fn weights_and_their_gradients_are_those_of_tensor_operations() {
    for norm in NORMS {
        for [asked, seen] in masks() {
            let s = draw("s", &SHAPE);
            let logits = (of(norm).normalise(&s, asked.as_ref()).unwrap() * 4.0).unwrap();
            let kept = super::super::keep(seen.as_ref(), &logits, -1e9).unwrap();
            let composed = candle_nn::ops::softmax(&kept, 3).unwrap();
            let composed = super::super::keep(seen.as_ref(), &composed, 0.0).unwrap();
            let found = of(norm).weights(&s, asked.as_ref(), seen.as_ref()).unwrap();
            let apart = distance(&found, &composed);
            assert!(apart < 1e-14, "{norm:?} {apart}");
            let single = of(norm).weights(&s.to_dtype(DType::F32).unwrap(), asked.as_ref(), seen.as_ref()).unwrap();
            assert!(distance(&single, &found) < 1e-6, "{norm:?} {}", distance(&single, &found));
            let [a, b] =
                [&found, &composed].map(|y| weighted(y).backward().unwrap().get(s.as_tensor()).unwrap().clone());
            // Relative to the largest: where a column is short, gradients are long.
            let largest = flat(&b).into_iter().fold(1.0, |a: f64, b| a.max(b.abs()));
            assert!(distance(&a, &b) < 1e-12 * largest, "{norm:?} {} of {largest}", distance(&a, &b));
        }
    }
}

#[test]
fn floored_and_positive_weights_are_those_of_their_formulas() {
    let (s, asked, seen) = (draw("s", &SHAPE), mask(&[1, 3, 4], 3), mask(&[2, 1, 1, 11], 4));
    let (values, asks, sees) = (flat(&s), flat(&asked), flat(&seen));
    let at = |n: usize, m: usize, q: usize, c: usize| ((n * 3 + m) * 4 + q) * 11 + c;
    let found = flat(&of(Norm::ClippedL2norm).floored_weights(&s, Some(&asked), Some(&seen)).unwrap());
    let positive = flat(&soften_positive(&s, Some(&seen)).unwrap());
    let clip = |x: f64| if x > 0.0 { x } else { 0.1 * x };
    for (n, m, q) in (0..24).map(|i| (i / 12, i / 4 % 3, i % 4)) {
        let length = |c: usize| {
            (0..4).filter(|q| asks[m * 4 + q] != 0.0).map(|q| clip(values[at(n, m, q, c)]).powi(2)).sum::<f64>().sqrt()
        };
        let term = |c: usize| (4.0 * clip(values[at(n, m, q, c)]) / length(c)).exp();
        let see = |c: &usize| sees[n * 11 + c] != 0.0;
        let total: f64 = (0..11).filter(see).map(term).sum();
        let above = |c: &usize| see(c) && values[at(n, m, q, *c)] > 0.0;
        let sum = 1e-8 + (0..11).filter(above).map(|c| values[at(n, m, q, c)].exp()).sum::<f64>();
        for c in 0..11 {
            let expected = if see(&c) { term(c) / total } else { 0.0 };
            assert!(asks[m * 4 + q] == 0.0 || (found[at(n, m, q, c)] - expected).abs() < 1e-14);
            let expected = if above(&c) { values[at(n, m, q, c)].exp() / sum } else { 0.0 };
            assert!((positive[at(n, m, q, c)] - expected).abs() < 1e-14);
        }
    }
    follows_differences(std::slice::from_ref(&s), |at| {
        weighted(&of(Norm::ClippedL2norm).floored_weights(&at[0], Some(&asked), Some(&seen)).unwrap())
    });
    follows_differences(&[s], |at| weighted(&soften_positive(&at[0], Some(&seen)).unwrap()));
    // Nothing above 0: no weight; and zeros have no direction.
    let zeros = candle_core::Var::zeros(SHAPE.as_slice(), DType::F64, &Device::Cpu).unwrap();
    assert!(flat(&soften_positive(&zeros, None).unwrap()).iter().all(|&w| w == 0.0));
    let w = of(Norm::L2norm).floored_weights(&zeros, None, None).unwrap();
    assert!(flat(&w).iter().all(|&w| (w - 1.0 / 11.0).abs() < 1e-15));
    let grads = weighted(&w).backward().unwrap();
    assert!(flat(grads.get(zeros.as_tensor()).unwrap()).iter().all(|&g| g == 0.0));
}

#[test]
fn lengths_and_attended_vectors_are_those_of_tensor_operations() {
    let (contexts, queries) = (draw("contexts", &[2, 11, 6]), draw("queries", &[3, 4, 6]));
    let weights = |contexts: &Tensor, queries: &Tensor| {
        let s = similarities(&Padded::full(contexts).unwrap(), queries).unwrap();
        (soften(&s, None).unwrap(), s)
    };
    let (w, s) = weights(&contexts, &queries);
    let built = attended(&w, &Padded::full(&contexts).unwrap()).unwrap();
    let [inner, square] = project(&s, &w, &Padded::full(&contexts).unwrap().grams().unwrap()).unwrap();
    let expected = built.broadcast_mul(&queries).unwrap().sum(3).unwrap();
    assert!(distance(&inner, &expected) < 1e-14 && inner.dims() == [2, 3, 4]);
    assert!(distance(&square, &built.sqr().unwrap().sum(3).unwrap()) < 1e-14);
    follows_differences(&[contexts.clone(), queries.clone()], |at| {
        let (w, s) = weights(&at[0], &at[1]);
        let [inner, square] = project(&s, &w, &Padded::full(&at[0]).unwrap().grams().unwrap()).unwrap();
        weighted(&(inner + (square * 0.3).unwrap()).unwrap())
    });
    for shape in [&[3, 4, 6][..], &[2, 3, 4, 6]] {
        let base = draw("base", shape);
        let expected = built.broadcast_add(&base).unwrap();
        assert!(distance(&attended_plus(&w, &contexts, &base).unwrap(), &expected) < 1e-14);
        follows_differences(&[draw("w", &SHAPE), contexts.clone(), base], |at| {
            weighted(&attended_plus(&at[0], &at[1], &at[2]).unwrap())
        });
    }
    assert!(attended_plus(&w, &contexts, &draw("base", &[3, 4, 5])).is_err());
    assert!(project(&s, &w, &draw("grams", &[2, 11, 10])).is_err());
}

#[test]
fn threads_do_not_change_a_bit() {
    let inputs = [draw("s", &[30, 20, 6, 36]), draw("grams", &[30, 36, 36]), draw("base", &[20, 6, 32])];
    let contexts = draw("contexts", &[30, 36, 32]);
    let run = |threads| {
        on_threads(threads, || {
            let w = of(Norm::ClippedL2norm).weights(&inputs[0], None, None).unwrap();
            let [inner, square] = project(&inputs[0], &w, &inputs[1]).unwrap();
            let y = attended_plus(&w, &contexts, &inputs[2]).unwrap().sqr().unwrap().sum(3).unwrap();
            let loss = weighted(&((inner + square).unwrap() + y).unwrap());
            let grads = loss.backward().unwrap();
            let grad = |var: &candle_core::Var| flat(grads.get(var.as_tensor()).unwrap());
            [flat(&loss), grad(&inputs[0]), grad(&inputs[1]), grad(&inputs[2]), grad(&contexts)]
        })
    };
    assert!(run(1) == run(3));
}
