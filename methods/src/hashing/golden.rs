//! What the golden operations of this family share: their inputs and how answers are read off.

use candle_core::{DType, Tensor, Var, backprop::GradStore};

use crate::{
    Result,
    golden::{Answer, Case},
};

/// The codes that gradients are taken of, and the features of affinities.
pub(super) struct Inputs {
    pub codes: [Var; 2],
    pub features: [Tensor; 2],
}

impl Inputs {
    /// `in.code_image`, `in.code_text`, `in.feat_image` and `in.feat_text`.
    pub fn read(case: &Case) -> Result<Self> {
        let read = |name: &str| case.get(name)?.tensor(DType::F64);
        Ok(Self {
            codes: [variable(case, "in.code_image")?, variable(case, "in.code_text")?],
            features: [read("in.feat_image")?, read("in.feat_text")?],
        })
    }

    /// Adds `grad.code_image` and `grad.code_text` of a loss.
    pub fn with_gradients(&self, answer: Answer, loss: &Tensor) -> Result<Answer> {
        let gradients = loss.backward()?;
        let [images, texts] = &self.codes;
        Ok(answer
            .with("grad.code_image", gradient(&gradients, images)?)
            .with("grad.code_text", gradient(&gradients, texts)?))
    }
}

/// An input that gradients are taken of.
pub(super) fn variable(case: &Case, name: &str) -> Result<Var> {
    Ok(Var::from_tensor(&case.get(name)?.tensor(DType::F64)?)?)
}

/// All values.
pub(super) fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.flatten_all()?.to_vec1()?)
}

/// Of one input; zero where a loss does not see it.
pub(super) fn gradient(gradients: &GradStore, of: &Var) -> Result<Vec<f64>> {
    match gradients.get(of) {
        Some(gradient) => values(gradient),
        None => Ok(vec![0.0; of.elem_count()]),
    }
}
