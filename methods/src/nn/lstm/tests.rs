use candle_core::{Device, Tensor};
use xmbench_datasets::random::Seed;

use super::*;
use crate::nn::{
    Lengths, Weights,
    checks::{counted, fill, flat},
};

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
