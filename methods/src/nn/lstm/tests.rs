use candle_core::{DType, Device, Var};
use xmbench_datasets::random::Seed;

use super::*;
use crate::nn::{
    checks::{counted, distance, draw, draw_f32, fill, flat, follows_differences, on_threads},
    recurrence::{composed, states},
};

const G: usize = Unit::GATES;

#[test]
fn gradients_are_those_of_finite_differences_and_of_candle() {
    let lengths = Lengths::new([3, 1, 5, 3]).unwrap();
    let (input, h, total) = (2, 4, lengths.total());
    let arguments = [
        draw("x", &[total, input]),
        draw("w_ih", &[input, G * h]),
        draw("w_hh", &[h, G * h]),
        draw("b_ih", &[G * h]),
        draw("b_hh", &[G * h]),
    ];
    let weights = |a: &[Var]| [1, 2, 3, 4].map(|i: usize| a[i].as_tensor().clone());
    let cotangent = draw("cotangent", &[total, h]).as_detached_tensor();
    let weigh = |y: &Tensor| (y * &cotangent).unwrap().sum_all().unwrap();
    for reverse in [false, true] {
        let fused = |a: &[Var]| states::<Unit>(&a[0], &weights(a), &lengths, reverse).unwrap();
        let plain = composed::<Unit>(&arguments[0], &weights(&arguments), &lengths, reverse).unwrap();
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
fn outputs_are_those_of_pytorch() {
    let mut weights = Weights::new(Seed(0), &Device::Cpu);
    let lstm = Lstm::new(&mut weights, "lstm", 2, 3, 1, true).unwrap();
    fill(&weights);
    let outputs = lstm.directions(&counted(20, &[5, 2], 10.0), &Lengths::new([3, 2]).unwrap()).unwrap();
    // torch.nn.LSTM(2, 3, bidirectional=True) 2.15 in f64 on a packed sequence, matrices transposed.
    let expected = [
        [0.058686677, 0.029647751, 0.030537558, -0.453922772, 0.133699305, 0.077028292],
        [0.101902632, 0.040617868, 0.043666142, -0.403802334, -0.115698639, 0.087958219],
        [0.122200611, 0.031839977, 0.024309781, -0.298760907, -0.429187148, -0.348865477],
        [-0.009901983, -0.101912687, -0.440975412, 0.127666163, 0.342081885, 0.143644159],
        [-0.006866482, -0.11234442, -0.386197274, -0.051558536, 0.281207927, 0.094098885],
    ];
    let found = flat(&Tensor::cat(&outputs, 1).unwrap());
    for (found, expected) in found.iter().zip(expected.as_flattened()) {
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }
}

#[test]
fn f32_follows_f64_and_what_is_kept_does_not_change_the_states() {
    let lengths = Lengths::new((0..150).map(|i| 1 + i * 7 % 12)).unwrap();
    let (input, h, total) = (20, 33, lengths.total());
    let shapes = [("w_ih", vec![input, G * h]), ("w_hh", vec![h, G * h]), ("b_ih", vec![G * h]), ("b_hh", vec![G * h])];
    // About the size that initial values have.
    let weights = shapes.map(|(label, shape)| (draw(label, &shape).as_detached_tensor() * 0.3).unwrap());
    let x = draw("x", &[total, input]).as_detached_tensor();
    let narrow = |t: &Tensor| t.to_dtype(DType::F32).unwrap();
    let exact = states::<Unit>(&x, &weights, &lengths, true).unwrap();
    let plain = composed::<Unit>(&x, &weights, &lengths, true).unwrap();
    assert!(distance(&exact, &plain) < 1e-12);
    let weights = weights.each_ref().map(narrow);
    let detached = states::<Unit>(&narrow(&x), &weights, &lengths, true).unwrap();
    assert!(distance(&exact, &detached) < 2e-5);
    let tracked = Var::from_tensor(&narrow(&x)).unwrap();
    let kept = states::<Unit>(&tracked, &weights, &lengths, true).unwrap();
    assert_eq!(distance(&kept, &detached), 0.0);
}

#[test]
fn padding_and_company_change_no_bit() {
    let mut weights = Weights::new(Seed(1), &Device::Cpu);
    let lstm = Lstm::new(&mut weights, "lstm", 6, 8, 2, true).unwrap();
    let x = draw_f32("x", &[3, 5, 6]);
    let all = lstm.forward(&x, &Lengths::new([2, 5, 3]).unwrap()).unwrap();
    assert_eq!(all.dims(), [3, 5, 16]);
    for (b, &length) in [2, 5, 3].iter().enumerate() {
        let alone = x.narrow(0, b, 1).unwrap().narrow(1, 0, length).unwrap().contiguous().unwrap();
        let alone = lstm.forward(&alone, &Lengths::new([length]).unwrap()).unwrap();
        let row = all.narrow(0, b, 1).unwrap();
        assert!(distance(&row.narrow(1, 0, length).unwrap(), &alone) < 1e-6);
        assert!(flat(&row.narrow(1, length, 5 - length).unwrap()).iter().all(|&x| x == 0.0));
        // What stands in the padding is never read.
        let noise = Tensor::cat(
            &[x.narrow(1, 0, length).unwrap(), draw_f32("noise", &[3, 5, 6]).narrow(1, length, 5 - length).unwrap()],
            1,
        );
        let noisy = lstm.forward(&noise.unwrap(), &Lengths::new([length; 3]).unwrap()).unwrap();
        let plain = lstm.forward(&x, &Lengths::new([length; 3]).unwrap()).unwrap();
        assert_eq!(distance(&noisy, &plain), 0.0);
    }
}

#[test]
fn threads_change_no_bit() {
    let lengths = Lengths::new((0..140).map(|i| 1 + i * 5 % 9)).unwrap();
    let (input, h, total) = (30, 64, lengths.total());
    let a = [
        draw_f32("x", &[total, input]),
        draw_f32("w_ih", &[input, G * h]),
        draw_f32("w_hh", &[h, G * h]),
        draw_f32("b_ih", &[G * h]),
        draw_f32("b_hh", &[G * h]),
    ];
    let weights = [1, 2, 3, 4].map(|i: usize| a[i].as_tensor().clone());
    let compute = |threads| {
        on_threads(threads, || {
            let out = states::<Unit>(&a[0], &weights, &lengths, false).unwrap();
            let grads = out.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            a.iter().map(|v| flat(grads.get(v).unwrap())).collect::<Vec<_>>()
        })
    };
    let one = compute(1);
    assert!(compute(2) == one && compute(4) == one);
}
