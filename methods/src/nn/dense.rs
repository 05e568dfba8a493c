//! A fully connected layer and its nonlinearity as one operation, `y = a(x W + b)`, and the nonlinearities `a`:
//!
//! ```text
//! relu    y = max(x, 0)             a'(x) = 1 if y > 0, else 0
//! tanh    y = tanh(x)               a'(x) = 1 - y^2
//! cubic   y^3 / 3 + y = x           a'(x) = 1 / (y^2 + 1)
//! ```
//!
//! The cubic one is the non-saturating sigmoid of Andrew et al. (ICML 2013): near 0 it is the identity, far out it grows as a cube
//! root, so that its derivative never vanishes. Newton's iteration solves for it. Each derivative is a function of `y`, so the
//! operation keeps nothing beyond its inputs and its output.

use std::borrow::Cow;

use candle_core::{CpuStorage, CustomOp3, Layout, Shape, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    Init, Weights,
    gradients::hand_over,
    real::{Real, column_sums, contiguous, dispatch, with, zipped},
};
use crate::{
    Result,
    linalg::gemm::{Mat, MatMut, gemm},
};

/// Newton steps; from the start below, the sixth changes nothing in f64.
const NEWTON: usize = 7;
/// Values a task takes.
const CHUNK: usize = 1 << 14;

/// A nonlinearity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// None.
    Identity,
    /// `max(x, 0)`.
    Relu,
    /// Hyperbolic tangent.
    Tanh,
    /// The inverse of `y^3 / 3 + y`.
    Cubic,
}

impl Activation {
    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        match self {
            Self::Identity => x,
            // Written so that NaN is not lost.
            Self::Relu => {
                if x <= T::ZERO {
                    T::ZERO
                } else {
                    x
                }
            }
            Self::Tanh => x.tanh(),
            Self::Cubic => cubic(x),
        }
    }

    /// The derivative where the value is `y`.
    #[inline(always)]
    fn slope<T: Real>(self, y: T) -> T {
        match self {
            Self::Identity => T::ONE,
            Self::Relu => {
                if y > T::ZERO {
                    T::ONE
                } else {
                    T::ZERO
                }
            }
            Self::Tanh => T::ONE - y * y,
            Self::Cubic => T::ONE / (y * y + T::ONE),
        }
    }

    /// Applies it to every entry of a tensor on any device; made of tensor operations.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Identity => x.clone(),
            Self::Relu => x.relu()?,
            Self::Tanh => x.tanh()?,
            Self::Cubic => {
                // A last step from the constant solution has the value of the solution and its derivative 1 / (y^2 + 1).
                let constant = x.detach();
                let size = constant.abs()?;
                let mut y = size.minimum(&(&size * 3.0)?.powf(1.0 / 3.0)?)?;
                for _ in 0..NEWTON {
                    y = newton(&y, &size)?;
                }
                newton(&(y * constant.sign()?)?.detach(), x)?
            }
        })
    }
}

/// `(2/3 y^3 + x) / (y^2 + 1)`, grouped so that `y^3` cannot overflow.
fn newton(y: &Tensor, x: &Tensor) -> Result<Tensor> {
    let square = y.sqr()?;
    let rest = (&square + 1.0)?.recip()?;
    Ok((((y * (2.0 / 3.0))? * (square * &rest)?)? + (x * rest)?)?)
}

/// `y` of `y^3 / 3 + y = x`.
#[inline(always)]
fn cubic<T: Real>(x: T) -> T {
    let size = if x < T::ZERO { T::ZERO - x } else { x };
    // The solution is at most x and at most the cube root of 3 x; from above, Newton's steps cannot overshoot.
    let root = (size + size + size).rough_cube_root();
    let mut y = if root < size { root } else { size };
    let two_thirds = T::from_f64(2.0 / 3.0);
    for _ in 0..NEWTON {
        let square = y * y;
        let rest = T::ONE / (square + T::ONE);
        y = two_thirds * y * (square * rest) + size * rest;
    }
    if x < T::ZERO { T::ZERO - y } else { y }
}

/// `y = a(x W + b)`; weights `NAME.weight [in, out]` and `NAME.bias [out]`.
pub struct Dense {
    weight: Tensor,
    bias: Tensor,
    activation: Activation,
}

impl Dense {
    /// With [`Init::Xavier`].
    ///
    /// # Errors
    /// If a weight cannot be made.
    pub fn new(weights: &mut Weights, name: &str, input: usize, output: usize, activation: Activation) -> Result<Self> {
        let [weight, bias] = Init::Xavier.layer(weights, name, input, output)?;
        Ok(Self::from_parts(weight, bias, activation))
    }

    /// The layer with given weights.
    pub(super) fn from_parts(weight: Tensor, bias: Tensor, activation: Activation) -> Self {
        Self { weight, bias, activation }
    }

    /// `[n, in]` to `[n, out]`.
    ///
    /// # Errors
    /// Rows of another width.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        dense(x, &self.weight, &self.bias, self.activation)
    }
}

/// `a(x W + b)` for `x [n, in]`, `W [in, out]`, `b [out]`.
pub(super) fn dense(x: &Tensor, weight: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return activation.apply(&x.matmul(weight)?.broadcast_add(bias)?);
    }
    Ok(x.contiguous()?.apply_op3(weight, bias, Layer(activation))?)
}

struct Layer(Activation);

impl Layer {
    fn forward<T: Real>(&self, x: &[T], w: &[T], b: &[T], rows: usize) -> Vec<T> {
        let (input, output) = (w.len() / b.len().max(1), b.len());
        let mut y = vec![T::ZERO; rows * output];
        gemm(T::ONE, Mat::new(x, rows, input), Mat::new(w, input, output), T::ZERO, MatMut::new(&mut y, rows, output));
        // A match inside the loop would keep it from being vectorised.
        fn finish<T: Real>(y: &mut [T], b: &[T], f: impl Fn(T) -> T + Sync) {
            let rows = (CHUNK / b.len().max(1)).max(1);
            y.par_chunks_mut(rows * b.len().max(1)).for_each(|block| {
                for row in block.chunks_exact_mut(b.len()) {
                    row.iter_mut().zip(b).for_each(|(y, &b)| *y = f(*y + b));
                }
            });
        }
        match self.0 {
            Activation::Identity => finish(&mut y, b, |x| Activation::Identity.value(x)),
            Activation::Relu => finish(&mut y, b, |x| Activation::Relu.value(x)),
            Activation::Tanh => finish(&mut y, b, |x| Activation::Tanh.value(x)),
            Activation::Cubic => finish(&mut y, b, |x| Activation::Cubic.value(x)),
        }
        y
    }

    /// The gradient of `x W + b`.
    fn inner<'a, T: Real>(&self, y: &[T], grad: &'a [T]) -> Cow<'a, [T]> {
        // As above, the match stays outside the loop.
        match self.0 {
            Activation::Identity => Cow::Borrowed(grad),
            Activation::Relu => zipped(grad, y, |g, y| g * Activation::Relu.slope(y)).into(),
            Activation::Tanh => zipped(grad, y, |g, y| g * Activation::Tanh.slope(y)).into(),
            Activation::Cubic => zipped(grad, y, |g, y| g * Activation::Cubic.slope(y)).into(),
        }
    }

    /// Gradients of `x [rows, in]`, where it is asked for, of `W` and of `b`.
    fn backward<T: Real>(
        &self,
        [x, w, y, grad]: [&[T]; 4],
        [rows, input, output]: [usize; 3],
        asked: bool,
    ) -> (Option<Vec<T>>, Vec<T>, Vec<T>) {
        let dz = self.inner(y, grad);
        let dz_rows = Mat::new(&dz, rows, output);
        let mut dw = vec![T::ZERO; w.len()];
        gemm(T::ONE, Mat::new(x, rows, input).t(), dz_rows, T::ZERO, MatMut::new(&mut dw, input, output));
        let dx = asked.then(|| {
            let mut dx = vec![T::ZERO; x.len()];
            gemm(T::ONE, dz_rows, Mat::new(w, input, output).t(), T::ZERO, MatMut::new(&mut dx, rows, input));
            dx
        });
        (dx, dw, column_sums(&dz, output))
    }
}

impl CustomOp3 for Layer {
    fn name(&self) -> &'static str {
        "dense layer"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let ((rows, input), (from, output)) = (x_layout.shape().dims2()?, w_layout.shape().dims2()?);
        if input != from || b_layout.dims() != [output] {
            candle_core::bail!(
                "dense layer: expected rows of {from} values, found {input} (bias {:?} for {output} outputs)",
                b_layout.dims()
            );
        }
        let y = match (x, w, b) {
            (CpuStorage::F32(x), CpuStorage::F32(w), CpuStorage::F32(b)) => CpuStorage::F32(self.forward(
                contiguous(x, x_layout)?,
                contiguous(w, w_layout)?,
                contiguous(b, b_layout)?,
                rows,
            )),
            (CpuStorage::F64(x), CpuStorage::F64(w), CpuStorage::F64(b)) => CpuStorage::F64(self.forward(
                contiguous(x, x_layout)?,
                contiguous(w, w_layout)?,
                contiguous(b, b_layout)?,
                rows,
            )),
            _ => candle_core::bail!("dense layer: expected rows and weights of f32, or all of f64"),
        };
        Ok((y, Shape::from((rows, output))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        b: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (w, grad) = (weight.contiguous()?, grad.contiguous()?);
        let ((rows, input), output) = (x.dims2()?, b.dim(0)?);
        // The first layer's input is data: nobody asks for its gradient.
        let asked = x.track_op();
        dispatch!(grad.dtype(), T => {
            let backward = |values: [&[T]; 4]| Ok(self.backward(values, [rows, input, output], asked));
            let (dx, dw, db) = with(x, |x| with(&w, |w| with(y, |y| with(&grad, |grad| backward([x, w, y, grad])))))?;
            let tensor = |values: Vec<T>, like: &Tensor| Tensor::from_vec(values, like.shape(), like.device());
            let dx = dx.map(|dx| tensor(dx, x)).transpose()?;
            Ok((dx, hand_over(weight, tensor(dw, weight)?), hand_over(b, tensor(db, b)?)))
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};
    use xmbench_datasets::random::Seed;

    use super::*;

    const ALL: [Activation; 4] = [Activation::Identity, Activation::Relu, Activation::Tanh, Activation::Cubic];

    fn draw(label: &str, shape: &[usize]) -> Tensor {
        let mut stream = Seed(4).stream(&[label]);
        let values: Vec<f64> = (0..shape.iter().product()).map(|_| stream.normal()).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    #[test]
    fn the_cubic_sigmoid_solves_its_equation() {
        let mut worst = 0f64;
        for i in -4000i32..=4000 {
            // From 1e-10 to 1e10 on both sides of 0.
            let x = 10f64.powf(f64::from(i.abs()) / 200.0 - 10.0) * f64::from(i.signum());
            let y = cubic(x);
            worst = worst.max((y * y * y / 3.0 + y - x).abs() / x.abs().max(1e-300));
            let y = f64::from(cubic(x as f32));
            assert!((y - cubic(f64::from(x as f32))).abs() <= 3e-7 * y.abs(), "{x}: {y}");
        }
        assert!(worst < 1e-14, "{worst:e}");
        assert_eq!(cubic(0.0), 0.0);
        // y = 3: 27 / 3 + 3 = 12.
        assert!((cubic(12.0f64) - 3.0).abs() < 1e-15 && (cubic(-12.0f32) + 3.0).abs() < 1e-6);
        assert!(cubic(3e38f32).is_finite() && cubic(f64::NAN).is_nan());
    }

    #[test]
    fn one_operation_agrees_with_its_parts_and_with_finite_differences() {
        for activation in ALL {
            let x = Var::from_tensor(&draw("x", &[6, 5])).unwrap();
            let w = Var::from_tensor(&draw("w", &[5, 4])).unwrap();
            let b = Var::from_tensor(&draw("b", &[4])).unwrap();
            let cotangent = draw("cotangent", &[6, 4]);
            let weigh = |y: &Tensor| (y * &cotangent).unwrap().sum_all().unwrap();
            let fused = |x: &Tensor, w: &Tensor, b: &Tensor| weigh(&dense(x, w, b, activation).unwrap());
            let parts = weigh(&activation.apply(&x.matmul(&w).unwrap().broadcast_add(&b).unwrap()).unwrap());
            let loss = fused(&x, &w, &b);
            let value = |t: &Tensor| t.to_scalar::<f64>().unwrap();
            assert!((value(&loss) - value(&parts)).abs() < 1e-12, "{activation:?}");
            let (grads, others) = (loss.backward().unwrap(), parts.backward().unwrap());
            for (k, var) in [&x, &w, &b].into_iter().enumerate() {
                let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
                let (grad, other, at) = (flat(grads.get(var).unwrap()), flat(others.get(var).unwrap()), flat(var));
                for i in 0..grad.len() {
                    assert!((grad[i] - other[i]).abs() < 1e-11, "{activation:?}: {} {}", grad[i], other[i]);
                    let moved = |by: f64| {
                        let mut values = at.clone();
                        values[i] += by;
                        let moved = Tensor::from_vec(values, var.shape(), &Device::Cpu).unwrap();
                        let pick = |n: usize, var: &Var| if n == k { moved.clone() } else { var.as_detached_tensor() };
                        value(&fused(&pick(0, &x), &pick(1, &w), &pick(2, &b)))
                    };
                    let difference = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                    assert!((grad[i] - difference).abs() < 1e-8, "{activation:?}: {} {difference}", grad[i]);
                }
            }
        }
    }

    #[test]
    fn data_get_no_gradient_and_threads_change_no_bit() {
        let x = draw("x", &[700, 90]).to_dtype(DType::F32).unwrap();
        let w = Var::from_tensor(&draw("w", &[90, 40]).to_dtype(DType::F32).unwrap()).unwrap();
        let b = Var::from_tensor(&draw("b", &[40]).to_dtype(DType::F32).unwrap()).unwrap();
        let compute = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let y = dense(&x, &w, &b, Activation::Cubic).unwrap();
                let grads = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                assert!(grads.get(&x).is_none());
                let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                (flat(&y), flat(grads.get(&w).unwrap()), flat(grads.get(&b).unwrap()))
            })
        };
        let one = compute(1);
        assert!([2, 4].into_iter().all(|threads| compute(threads) == one));
        assert!(dense(&x, &w.t().unwrap(), &b, Activation::Relu).is_err());
    }
}
