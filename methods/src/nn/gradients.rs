//! Gradients of weights as the operations give them. Candle's backward pass makes zeros for every tensor it meets and adds its
//! gradient to them: three passes over memory that a matrix of weights does not need, which most often has one gradient. An
//! operation that has one of a weight hands it over here instead, and [`backward`] puts it among the others.

use std::cell::RefCell;

use candle_core::{Tensor, TensorId, backprop::GradStore};

use crate::Result;

thread_local! {
    /// What the backward pass that runs on this thread was handed; none while none runs.
    static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
}

type Held = Vec<(TensorId, Tensor)>;

/// Takes the place of what another backward pass on this thread was handed, and gives it back when dropped.
struct Pass(Option<Held>);

impl Pass {
    fn begin() -> Self {
        Self(HELD.replace(Some(Held::new())))
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        HELD.set(self.0.take());
    }
}

/// Gradients of a scalar for every variable that it depends on; those of [`Tensor::backward`], to the last bit where a weight has
/// one or two of them. An operation's own backward pass differentiates with this one as well: what that hands over would
/// otherwise be taken for the gradient of the pass around it.
///
/// # Errors
/// As [`Tensor::backward`].
pub fn backward(loss: &Tensor) -> Result<GradStore> {
    let _pass = Pass::begin();
    let mut grads = loss.backward()?;
    for (weight, grad) in HELD.take().unwrap_or_default() {
        let sum = match grads.get_id(weight) {
            Some(other) => (other + grad)?,
            None => grad,
        };
        grads.insert_id(weight, sum);
    }
    Ok(grads)
}

/// Hands the gradient of a weight over. It comes back where candle itself has to add it up: for what is no variable, and in a
/// backward pass that is none of [`backward`].
pub(super) fn hand_over(weight: &Tensor, grad: Tensor) -> Option<Tensor> {
    HELD.with_borrow_mut(|held| match held {
        Some(held) if weight.is_variable() => {
            held.push((weight.id(), grad));
            None
        }
        _ => Some(grad),
    })
}

#[cfg(test)]
mod tests {
    use candle_core::{CpuStorage, CustomOp1, Device, Layout, Shape, Var};

    use super::*;
    use crate::nn::{Activation, checks::flat, dense::dense};

    fn var(values: &[[f32; 2]; 2]) -> Var {
        Var::new(values, &Device::Cpu).unwrap()
    }

    fn layer(x: &Tensor, weight: &Tensor) -> Tensor {
        dense(x, weight, &weight.get(0).unwrap(), Activation::Tanh).unwrap()
    }

    #[test]
    fn gradients_are_those_of_candle() {
        let (x, v, w) =
            (var(&[[0.1, -0.7], [0.4, 0.3]]), var(&[[0.5, -1.0], [0.2, 0.8]]), var(&[[1.5, 0.3], [-0.6, 0.9]]));
        let plain = var(&[[0.3, 0.2], [-0.4, 0.6]]);
        // One weight twice and in an operation of candle's besides, one once, one never, one whose bias is a part of it.
        let y = layer(&layer(&layer(&x, &v), &v), &w);
        let loss = (y.sqr().unwrap().sum_all().unwrap() + v.sqr().unwrap().sum_all().unwrap()).unwrap();
        let (ours, theirs) = (backward(&loss).unwrap(), loss.backward().unwrap());
        for var in [&x, &v, &w] {
            let (a, b) = (flat(ours.get(var).unwrap()), flat(theirs.get(var).unwrap()));
            assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-6), "{a:?} {b:?}");
        }
        assert!(ours.get(&plain).is_none());
    }

    /// Whose backward pass differentiates another graph of the same weight.
    struct Nested(Tensor);

    impl CustomOp1 for Nested {
        fn name(&self) -> &'static str {
            "nested"
        }

        fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
            let CpuStorage::F32(values) = x else { candle_core::bail!("f32") };
            Ok((CpuStorage::F32(values.clone()), layout.shape().clone()))
        }

        fn bwd(&self, x: &Tensor, _: &Tensor, _: &Tensor) -> candle_core::Result<Option<Tensor>> {
            let inner = backward(&layer(&x.detach(), &self.0).sum_all()?).map_err(candle_core::Error::wrap)?;
            Ok(inner.get(&self.0).cloned())
        }
    }

    #[test]
    fn a_backward_pass_within_another_keeps_its_gradients_to_itself() {
        let (x, w) = (var(&[[0.1, -0.7], [0.4, 0.3]]), var(&[[0.5, -1.0], [0.2, 0.8]]));
        let y = layer(&x.apply_op1(Nested(w.as_tensor().clone())).unwrap(), &w);
        let grads = backward(&y.sum_all().unwrap()).unwrap();
        let alone = backward(&layer(&x.detach(), &w).sum_all().unwrap()).unwrap();
        // The operation gave the weight's gradient for its argument's, and the weight has that of the outer graph once.
        assert_eq!(flat(grads.get(&x).unwrap()), flat(alone.get(&w).unwrap()));
        assert_eq!(flat(grads.get(&w).unwrap()), flat(alone.get(&w).unwrap()));
        assert!(HELD.with_borrow(Option::is_none));
    }
}
