//! The golden operations of the losses.

mod metric;

use candle_core::{DType, Tensor, Var};

use super::{
    CanonicalCorrelation, Objective, Relations, canonical::matrix, canonical_correlation, hinge, order_scores,
};
use crate::{
    Result,
    golden::{Answer, Case, Operation},
};

pub(super) fn operations() -> Vec<Operation> {
    let mut operations = vec![
        Operation { name: "loss.vse_sum", run: |case| vse(case, false), ignored: &[] },
        Operation { name: "loss.vse_max", run: |case| vse(case, true), ignored: &[] },
        Operation { name: "loss.dcca", run: dcca, ignored: &[] },
    ];
    operations.extend(metric::operations());
    operations
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
    let loss = hinge(&scores, case.config("margin")?, hardest, &Relations::diagonal(scores.dim(0)?))?;
    let grads = loss.backward()?;
    let mut answer = Answer::default().with("out.loss", values(&loss)?).with("out.scores", values(&scores)?);
    for (name, var) in [("grad.im", &images), ("grad.s", &texts)] {
        if let Some(grad) = grads.get(var) {
            answer = answer.with(name, values(grad)?);
        }
    }
    Ok(answer)
}

/// The paper's objective, and that of Michaelvll/DeepCCA@63186ba beside it. With all singular values the latter takes an
/// element-wise root of `TᵀT`, which leaves the sum of the lengths of the columns of `T`; it has no gradient there.
fn dcca(case: &Case) -> Result<Answer> {
    case.only(&["eps", "k", "r1", "r2", "use_all"])?;
    let all = case.config::<bool>("use_all")?;
    let top = if all { None } else { Some(case.config("k")?) };
    let (ridge, epsilon) = ([case.config("r1")?, case.config("r2")?], case.config("eps")?);
    let first = Var::from_tensor(&case.get("in.h1")?.tensor(DType::F64)?)?;
    let second = Var::from_tensor(&case.get("in.h2")?.tensor(DType::F64)?)?;
    let mut answer = Answer::default();
    for (objective, name, grads) in [
        (Objective::Paper, "out.loss_paper", ["grad.h1", "grad.h2"]),
        (Objective::Released, "out.loss_repo", ["grad.repo_h1", "grad.repo_h2"]),
    ] {
        let settings = CanonicalCorrelation { top, ridge, epsilon, objective };
        if all && objective == Objective::Released {
            let whitened = settings.solve(matrix(&first)?.as_ref(), matrix(&second)?.as_ref())?.whitened;
            let lengths = (0..whitened.ncols()).map(|j| whitened.col(j).norm_l2());
            answer = answer.with(name, [-lengths.sum::<f64>()]);
            continue;
        }
        let loss = canonical_correlation(&settings, &first, &second)?.neg()?;
        answer = answer.with(name, values(&loss)?);
        let gradients = loss.backward()?;
        for (name, var) in grads.into_iter().zip([&first, &second]) {
            if let Some(grad) = gradients.get(var) {
                answer = answer.with(name, values(grad)?);
            }
        }
    }
    let settings = CanonicalCorrelation { top: None, ridge, epsilon, objective: Objective::Paper };
    let solved = settings.solve(matrix(&first)?.as_ref(), matrix(&second)?.as_ref())?;
    Ok(answer.with("out.singular_values", solved.singular_values))
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_file_passes() {
        crate::golden::assert_files(&super::operations());
    }
}
