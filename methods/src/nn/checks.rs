//! What the tests of sequence layers share.

use candle_core::{DType, Device, Tensor, Var};
use xmbench_datasets::random::Seed;

use super::Weights;

/// Random values in f64.
pub(crate) fn draw(label: &str, shape: &[usize]) -> Var {
    let mut stream = Seed(5).stream(&["gru", label]);
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| 0.7 * stream.normal()).collect();
    Var::from_vec(values, shape, &Device::Cpu).unwrap()
}

pub(super) fn draw_f32(label: &str, shape: &[usize]) -> Var {
    Var::from_tensor(&draw(label, shape).to_dtype(DType::F32).unwrap()).unwrap()
}

/// Values in f64.
pub(crate) fn flat(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Largest difference of two tensors.
pub(crate) fn distance(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (flat(a), flat(b));
    assert_eq!(a.len(), b.len());
    a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// Compares the gradient of a scalar by every fifth value of its arguments with finite differences.
pub(crate) fn follows_differences(arguments: &[Var], loss: impl Fn(&[Var]) -> Tensor) {
    let grads = loss(arguments).backward().unwrap();
    for (which, argument) in arguments.iter().enumerate() {
        let (values, grad) = (flat(argument), flat(grads.get(argument).unwrap()));
        for i in (0..values.len()).step_by(5) {
            let at = |shift: f64| {
                let mut moved = values.clone();
                moved[i] += shift;
                let mut a = arguments.to_vec();
                a[which] = Var::from_vec(moved, argument.dims(), &Device::Cpu).unwrap();
                loss(&a).to_scalar::<f64>().unwrap()
            };
            let difference = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!((difference - grad[i]).abs() < 1e-8, "argument {which}, value {i}: {difference} {}", grad[i]);
        }
    }
}

/// The values `((37 i + 11 n + 5) mod 41 - 20) / divisor`, which another program can make too.
pub(super) fn counted(n: usize, shape: &[usize], divisor: f64) -> Tensor {
    let value = |i: usize| (((37 * i + 11 * n + 5) % 41) as f64 - 20.0) / divisor;
    let values: Vec<f32> = (0..shape.iter().product()).map(|i| value(i) as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Gives the `n`-th weight by name the values `counted(n, .., 25)`.
pub(super) fn fill(weights: &Weights) {
    let values = weights.iter().enumerate().map(|(n, (name, var))| (name.to_string(), counted(n, var.dims(), 25.0)));
    weights.restore(&values.collect()).unwrap();
}

/// Runs on that many threads.
pub(crate) fn on_threads<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
}
