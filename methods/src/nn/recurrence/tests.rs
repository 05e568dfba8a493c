//! What holds of units of either kind.

use candle_core::{DType, Device, Var};
use xmbench_datasets::random::Seed;

use super::*;
use crate::nn::{
    Weights,
    checks::{distance, draw, draw_f32, flat, follows_differences, on_threads},
    gru,
    layers::Layers,
    lstm,
};

/// The argument `x [total, input]`, then the weights of units with states of length `h`.
fn shapes<C: Cell>(total: usize, input: usize, h: usize) -> [(&'static str, Vec<usize>); 5] {
    let gates = C::GATES * h;
    [
        ("x", vec![total, input]),
        ("w_ih", vec![input, gates]),
        ("w_hh", vec![h, gates]),
        ("b_ih", vec![gates]),
        ("b_hh", vec![gates]),
    ]
}

fn weights(arguments: &[Var]) -> [Tensor; 4] {
    [1, 2, 3, 4].map(|i: usize| arguments[i].as_tensor().clone())
}

fn gradients<C: Cell>() {
    let lengths = Lengths::new([3, 1, 5, 3]).unwrap();
    let (input, h, total) = (2, 4, lengths.total());
    let arguments = shapes::<C>(total, input, h).map(|(label, shape)| draw(label, &shape));
    let cotangent = draw("cotangent", &[total, h]).as_detached_tensor();
    let weigh = |y: &Tensor| (y * &cotangent).unwrap().sum_all().unwrap();
    for reverse in [false, true] {
        let fused = |a: &[Var]| states::<C>(&a[0], &weights(a), &lengths, reverse).unwrap();
        let plain = composed::<C>(&arguments[0], &weights(&arguments), &lengths, reverse).unwrap();
        assert!(distance(&fused(&arguments), &plain) < 1e-14);
        let grads = weigh(&fused(&arguments)).backward().unwrap();
        let plain_grads = weigh(&plain).backward().unwrap();
        for argument in &arguments {
            assert!(distance(grads.get(argument).unwrap(), plain_grads.get(argument).unwrap()) < 1e-12);
        }
        follows_differences(&arguments, |a| weigh(&fused(a)));
    }
}

#[test]
fn gradients_are_those_of_finite_differences_and_of_candle() {
    gradients::<gru::Unit>();
    gradients::<lstm::Unit>();
}

fn precision<C: Cell>() {
    let lengths = Lengths::new((0..150).map(|i| 1 + i * 7 % 12)).unwrap();
    let (input, h, total) = (20, 33, lengths.total());
    let [x, rest @ ..] = shapes::<C>(total, input, h).map(|(label, shape)| draw(label, &shape).as_detached_tensor());
    // About the size that initial values have.
    let weights = rest.map(|weight| (weight * 0.3).unwrap());
    let narrow = |t: &Tensor| t.to_dtype(DType::F32).unwrap();
    let exact = states::<C>(&x, &weights, &lengths, true).unwrap();
    let plain = composed::<C>(&x, &weights, &lengths, true).unwrap();
    assert!(distance(&exact, &plain) < 1e-12);
    let weights = weights.each_ref().map(narrow);
    let detached = states::<C>(&narrow(&x), &weights, &lengths, true).unwrap();
    assert!(distance(&exact, &detached) < 2e-5);
    let tracked = Var::from_tensor(&narrow(&x)).unwrap();
    let kept = states::<C>(&tracked, &weights, &lengths, true).unwrap();
    assert_eq!(distance(&kept, &detached), 0.0);
}

#[test]
fn f32_follows_f64_and_what_is_kept_does_not_change_the_states() {
    precision::<gru::Unit>();
    precision::<lstm::Unit>();
}

fn padding<C: Cell>() {
    let mut weights = Weights::new(Seed(1), &Device::Cpu);
    let layers = Layers::<C>::new(&mut weights, "layers", 6, 8, 2, true).unwrap();
    let x = draw_f32("x", &[3, 5, 6]);
    let all = layers.forward(&x, &Lengths::new([2, 5, 3]).unwrap()).unwrap();
    assert_eq!(all.dims(), [3, 5, 16]);
    for (b, &length) in [2, 5, 3].iter().enumerate() {
        let alone = x.narrow(0, b, 1).unwrap().narrow(1, 0, length).unwrap().contiguous().unwrap();
        let alone = layers.forward(&alone, &Lengths::new([length]).unwrap()).unwrap();
        let row = all.narrow(0, b, 1).unwrap();
        assert!(distance(&row.narrow(1, 0, length).unwrap(), &alone) < 1e-6);
        assert!(flat(&row.narrow(1, length, 5 - length).unwrap()).iter().all(|&x| x == 0.0));
        // What stands in the padding is never read.
        let noise = Tensor::cat(
            &[x.narrow(1, 0, length).unwrap(), draw_f32("noise", &[3, 5, 6]).narrow(1, length, 5 - length).unwrap()],
            1,
        );
        let noisy = layers.forward(&noise.unwrap(), &Lengths::new([length; 3]).unwrap()).unwrap();
        let plain = layers.forward(&x, &Lengths::new([length; 3]).unwrap()).unwrap();
        assert_eq!(distance(&noisy, &plain), 0.0);
    }
}

#[test]
fn padding_and_company_change_no_bit() {
    padding::<gru::Unit>();
    padding::<lstm::Unit>();
}

fn threads<C: Cell>() {
    let lengths = Lengths::new((0..140).map(|i| 1 + i * 5 % 9)).unwrap();
    let (input, h, total) = (30, 64, lengths.total());
    let a = shapes::<C>(total, input, h).map(|(label, shape)| draw_f32(label, &shape));
    let weights = weights(&a);
    let compute = |threads| {
        on_threads(threads, || {
            let out = states::<C>(&a[0], &weights, &lengths, false).unwrap();
            let grads = out.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            a.iter().map(|v| flat(grads.get(v).unwrap())).collect::<Vec<_>>()
        })
    };
    let one = compute(1);
    assert!(compute(2) == one && compute(4) == one);
}

#[test]
fn threads_change_no_bit() {
    threads::<gru::Unit>();
    threads::<lstm::Unit>();
}
