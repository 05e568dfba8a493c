//! The golden operations of the losses.

use candle_core::{DType, Tensor, Var};

use super::{hinge, order_scores};
use crate::{
    Result,
    golden::{Answer, Case, Operation},
};

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation { name: "loss.vse_sum", run: |case| vse(case, false), ignored: &[] },
        Operation { name: "loss.vse_max", run: |case| vse(case, true), ignored: &[] },
    ]
}

fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

fn vse(case: &Case, hardest: bool) -> Result<Answer> {
    case.only(&["margin", "max_violation", "measure"])?;
    if case.config::<bool>("max_violation")? != hardest {
        return Err(case.unsupported("max_violation", &hardest.to_string()));
    }
    let images = Var::from_tensor(&case.get("in.im")?.tensor(DType::F32)?)?;
    let texts = Var::from_tensor(&case.get("in.s")?.tensor(DType::F32)?)?;
    let scores = match case.config::<String>("measure")?.as_str() {
        "cosine" => images.matmul(&texts.t()?)?,
        "order" => order_scores(&images, &texts)?,
        _ => return Err(case.unsupported("measure", "cosine or order")),
    };
    let loss = hinge(&scores, case.config("margin")?, hardest)?;
    let grads = loss.backward()?;
    let mut answer = Answer::default().with("out.loss", values(&loss)?).with("out.scores", values(&scores)?);
    for (name, var) in [("grad.im", &images), ("grad.s", &texts)] {
        if let Some(grad) = grads.get(var) {
            answer = answer.with(name, values(grad)?);
        }
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_file_passes() {
        crate::golden::assert_files(&super::operations());
    }
}
