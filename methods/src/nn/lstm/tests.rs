use std::sync::Arc;

use candle_core::{DType, Device, Var};
use xmbench_datasets::random::Seed;

use super::*;
use crate::nn::{
    checks::{counted, distance, draw, draw_f32, fill, flat, follows_differences, on_threads},
    recurrence::{composed, states},
    steps::Steps,
};

#[test]
fn gradients_are_those_of_finite_differences_and_of_candle() {
    let lengths = Lengths::new([3, 1, 5, 3]).unwrap();
    let (h, total) = (4, lengths.total());
    let arguments = [draw("gx", &[total, 4 * h]), draw("w", &[h, 4 * h]), draw("b", &[4 * h])];
    let weight = draw("cotangent", &[total, h]).as_detached_tensor();
    let weigh = |y: &Tensor| (y * &weight).unwrap().sum_all().unwrap();
    for reverse in [false, true] {
        let steps = Arc::new(Steps::new(&lengths, reverse));
        let fused = |a: &[Var]| states::<Unit>(&a[0], &a[1], &a[2], steps.clone()).unwrap();
        let plain = composed::<Unit>(&arguments[0], &arguments[1], &arguments[2], &steps).unwrap();
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
fn f32_follows_f64_and_what_is_kept_does_not_change_the_outputs() {
    let lengths = Lengths::new((0..40).map(|i| 1 + i * 7 % 12)).unwrap();
    let (h, total) = (33, lengths.total());
    let wide = [draw("gx", &[total, 4 * h]), draw("w", &[h, 4 * h]), draw("b", &[4 * h])];
    let narrow: Vec<Tensor> = wide.iter().map(|v| v.to_dtype(DType::F32).unwrap().detach()).collect();
    let steps = Arc::new(Steps::new(&lengths, true));
    let exact = states::<Unit>(&wide[0], &wide[1], &wide[2], steps.clone()).unwrap();
    let detached = states::<Unit>(&narrow[0], &narrow[1], &narrow[2], steps.clone()).unwrap();
    assert!(distance(&exact, &detached) < 2e-5);
    let tracked = Var::from_tensor(&narrow[0]).unwrap();
    let kept = states::<Unit>(&tracked, &narrow[1], &narrow[2], steps).unwrap();
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
    let lengths = Lengths::new((0..64).map(|i| 1 + i * 5 % 9)).unwrap();
    let (h, total) = (64, lengths.total());
    let a = [draw_f32("gx", &[total, 4 * h]), draw_f32("w", &[h, 4 * h]), draw_f32("b", &[4 * h])];
    let compute = |threads| {
        on_threads(threads, || {
            let out = states::<Unit>(&a[0], &a[1], &a[2], Arc::new(Steps::new(&lengths, false))).unwrap();
            let grads = out.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            a.iter().map(|v| flat(grads.get(v).unwrap())).collect::<Vec<_>>()
        })
    };
    let one = compute(1);
    assert!(compute(2) == one && compute(4) == one);
}
