use std::collections::BTreeMap;

use candle_core::{DType, Device, Var};
use xmbench_datasets::random::Seed;

use super::*;
use crate::nn::checks::{distance, draw, draw_f32, flat, follows_differences, on_threads};

/// The layer with its weights in f64, as variables in the order of their names, after the input and, if asked for, relations.
fn wide(lengths: Lengths, related: bool, dropout: f64) -> (Vec<Var>, impl Fn(&[Var]) -> Tensor) {
    let mut weights = Weights::new(Seed(3), &Device::Cpu);
    RelatingLayer::new(&mut weights, "t", Relating { width: 6, heads: 3, hidden: 5, dropout }).unwrap();
    let names: Vec<String> = weights.iter().map(|(name, _)| name.to_string()).collect();
    let total = lengths.total();
    let to_f64 = |t: &Tensor| Var::from_tensor(&t.to_dtype(DType::F64).unwrap()).unwrap();
    let inputs = [draw("x", &[total, 6])].into_iter().chain(related.then(|| draw("r", &[total, total])));
    let arguments = inputs.chain(weights.iter().map(|(_, var)| to_f64(var))).collect();
    let loss = move |a: &[Var]| {
        let from = 1 + usize::from(related);
        let at: BTreeMap<&str, Tensor> =
            names.iter().map(String::as_str).zip(a[from..].iter().map(|v| v.as_tensor().clone())).collect();
        let dense = |part: &str, activation| {
            let of = |what: &str| at[&format!("t.{part}.{what}")[..]].clone();
            Dense::from_parts(of("weight"), of("bias"), activation)
        };
        let norm = |part: &str| {
            let of = |what: &str| at[&format!("t.{part}.{what}")[..]].clone();
            ResidualNorm::from_parts(of("scale"), of("shift"))
        };
        let layer = RelatingLayer {
            attention: dense("attention", Activation::Identity),
            output: dense("output", Activation::Identity),
            wide: dense("wide", Activation::Relu),
            narrow: dense("narrow", Activation::Identity),
            norms: [norm("norm_1"), norm("norm_2")],
            width: 6,
            heads: 3,
            dropout,
        };
        let hidden = related.then(|| {
            // Row 0 does not see row 1.
            let mut open = vec![1u8; total * total];
            open[1] = 0;
            let open = Tensor::from_vec(open, (total, total), &Device::Cpu).unwrap();
            let closed = Tensor::full(f64::NEG_INFINITY, (total, total), &Device::Cpu).unwrap();
            open.where_cond(&a[1], &closed).unwrap()
        });
        let mut stream = Seed(8).stream(&["drop"]);
        let training = (dropout > 0.0).then_some(&mut stream);
        let z = layer.forward(&a[0], &lengths, hidden.as_ref(), training).unwrap();
        // Small, as the error of a central difference grows with the gradient.
        (z.powf(3.0).unwrap().sum_all().unwrap() * 0.02).unwrap()
    };
    (arguments, loss)
}

#[test]
fn gradients_are_those_of_finite_differences() {
    for dropout in [0.0, 0.3] {
        let (arguments, loss) = wide(Lengths::new([3, 1, 2]).unwrap(), false, dropout);
        follows_differences(&arguments, loss);
        let (arguments, loss) = wide(Lengths::new([5]).unwrap(), true, dropout);
        follows_differences(&arguments, loss);
    }
}

#[test]
fn the_fused_attention_agrees_with_its_parts() {
    let lengths = Lengths::new([4, 1, 7]).unwrap();
    let qkv = draw("qkv", &[12, 24]);
    let relation = draw("relation", &[12, 12]);
    let one = Lengths::new([12]).unwrap();
    for share in [0.0, 0.4] {
        for (lengths, relation) in [(&lengths, None), (&one, Some(relation.as_tensor()))] {
            let mut stream = Seed(2).stream(&["drop"]);
            let fused = attend(&qkv, lengths, 4, relation, share, Some(&mut stream)).unwrap();
            let squares = lengths.as_slice().iter().map(|n| n * n).sum::<usize>();
            let mut stream = Seed(2).stream(&["drop"]);
            let kept = (share > 0.0).then(|| super::super::dropped::Kept::draw(4 * squares, share, &mut stream));
            let parts = super::super::attend::composed(&qkv, lengths, 4, relation, kept.as_ref()).unwrap();
            // The factors of dropout are f32 in the one and f64 in the other.
            assert!(distance(&fused, &parts) < 1e-6);
            let [a, b] = [fused, parts].map(|y| y.powf(3.0).unwrap().sum_all().unwrap().backward().unwrap());
            assert!(distance(a.get(&qkv).unwrap(), b.get(&qkv).unwrap()) < 1e-5);
            if let Some(relation) = relation {
                assert!(distance(a.get(relation).unwrap(), b.get(relation).unwrap()) < 1e-5);
            }
        }
    }
}

#[test]
fn what_is_hidden_is_not_seen_and_what_is_equal_is_averaged() {
    // Equal keys: weights are those of the relations alone, exp 0, exp ln 3 and nothing.
    let x = Tensor::new(&[[0f32, 0.0, 1.0], [0.0, 0.0, 5.0], [0.0, 0.0, f32::MAX]], &Device::Cpu).unwrap();
    let relation = Tensor::new(
        &[
            [0f32, 3f32.ln(), f32::NEG_INFINITY],
            [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY],
            [0.0, 0.0, f32::NEG_INFINITY],
        ],
        &Device::Cpu,
    )
    .unwrap();
    let y = attend(&x, &Lengths::new([3]).unwrap(), 1, Some(&relation), 0.0, None).unwrap();
    let found = flat(&y);
    for (found, expected) in found.iter().zip([4.0, 5.0, 3.0]) {
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }
}

#[test]
fn company_and_threads_change_nothing() {
    let mut weights = Weights::new(Seed(1), &Device::Cpu);
    let shape = Relating { width: 128, heads: 4, hidden: 96, dropout: 0.2 };
    let layer = RelatingLayer::new(&mut weights, "t", shape).unwrap();
    let lengths = Lengths::new([2, 9, 140]).unwrap();
    let x = draw_f32("x", &[151, 128]);
    let compute = |threads, train: bool| {
        on_threads(threads, || {
            let mut stream = Seed(4).stream(&["drop"]);
            let y = layer.forward(&x, &lengths, None, train.then_some(&mut stream)).unwrap();
            let grads = y.powf(3.0).unwrap().sum_all().unwrap().backward().unwrap();
            let all: Vec<f64> = weights.iter().flat_map(|(_, var)| flat(grads.get(var).unwrap())).collect();
            (flat(&y), flat(grads.get(&x).unwrap()), all)
        })
    };
    for train in [false, true] {
        let one = compute(1, train);
        assert!(compute(2, train) == one && compute(4, train) == one);
    }
    let all = layer.forward(&x, &lengths, None, None).unwrap();
    for b in 0..3 {
        let range = lengths.range(b);
        let rows = |t: &Tensor| t.narrow(0, range.start, range.len()).unwrap();
        let alone = layer.forward(&rows(&x), &Lengths::new([range.len()]).unwrap(), None, None).unwrap();
        assert!(distance(&rows(&all), &alone) < 2e-6);
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let mut weights = Weights::new(Seed(1), &Device::Cpu);
    for heads in [0, 3] {
        let shape = Relating { width: 8, heads, hidden: 8, dropout: 0.0 };
        let error = RelatingLayer::new(&mut weights, "t", shape).err().unwrap().to_string();
        assert!(error.contains(&format!("divides the width 8, found {heads}")), "{error}");
    }
    let shape = Relating { width: 8, heads: 2, hidden: 8, dropout: 0.0 };
    let layer = RelatingLayer::new(&mut weights, "t", shape).unwrap();
    let x = draw_f32("x", &[3, 8]);
    let error = |x: &Tensor, lengths: &[usize], relations: Option<&Tensor>| {
        layer.forward(x, &Lengths::new(lengths.iter().copied()).unwrap(), relations, None).unwrap_err().to_string()
    };
    assert!(error(&draw_f32("x", &[3, 6]), &[3], None).contains("expected rows [3, 8], found [3, 6]"));
    let relations = draw_f32("r", &[3, 3]);
    assert!(error(&x, &[1, 2], Some(&relations)).contains("of one sequence, found [3, 3] for 2"));
    assert!(error(&x, &[3], Some(&x)).contains("expected a relation [3, 3]"));
}
