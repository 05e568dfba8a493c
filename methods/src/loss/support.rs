//! What the tests of the losses share.

use candle_core::{DType, Device, Tensor, Var};
use xmbench_datasets::random::Seed;

/// Standard normal numbers `[rows, columns]` in f64.
pub(crate) fn normal(label: &str, rows: usize, columns: usize) -> Tensor {
    let mut stream = Seed(3).stream(&["loss", label]);
    let values: Vec<f64> = (0..rows * columns).map(|_| stream.normal()).collect();
    Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap()
}

/// The value of a scalar.
pub(crate) fn scalar(x: &Tensor) -> f64 {
    x.to_dtype(DType::F64).unwrap().to_scalar().unwrap()
}

/// The values of a tensor.
pub(crate) fn values(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The gradients of a scalar function at a point, one for each input.
pub(crate) fn gradients(at: &[Tensor], f: impl Fn(&[Tensor]) -> Tensor) -> Vec<Vec<f64>> {
    let vars: Vec<Var> = at.iter().map(|x| Var::from_tensor(x).unwrap()).collect();
    let inputs: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let grads = f(&inputs).backward().unwrap();
    vars.iter().map(|var| values(grads.get(var).unwrap())).collect()
}

/// Asserts that the gradients of a scalar function in f64 are its central differences, and that they are not all zero.
pub(crate) fn assert_gradients(at: &[Tensor], f: impl Fn(&[Tensor]) -> Tensor) {
    for (k, gradient) in gradients(at, &f).iter().enumerate() {
        assert!(gradient.iter().any(|&g| g != 0.0), "no gradient of input {k}");
        let start = values(&at[k]);
        for (i, g) in gradient.iter().enumerate() {
            let moved = |by: f64| {
                let (mut moved, mut inputs) = (start.clone(), at.to_vec());
                moved[i] += by;
                inputs[k] = Tensor::from_vec(moved, at[k].shape(), &Device::Cpu).unwrap();
                scalar(&f(&inputs))
            };
            let difference = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((g - difference).abs() < 1e-8 * (1.0 + g.abs()), "input {k}, value {i}: {g}, {difference}");
        }
    }
}
