//! The golden operation: padded sides `[b, steps, d]`. Words behind a caption's end take no part in (3); all locals do in (5).

use candle_core::{DType, Tensor, Var};

use super::align::{Concepts, Contrast};
use crate::{
    Result,
    golden::{Answer, Case, Operation},
    nn::{Lengths, unit},
};

pub(super) fn operations() -> Vec<Operation> {
    vec![Operation { name: "dense.selfalign", run: selfalign, ignored: &[] }]
}

fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

fn selfalign(case: &Case) -> Result<Answer> {
    case.only(&["cra_T", "epsilon", "neg_num", "prototypes", "sinkhorn_iterations", "student_temp"])?;
    let get = |name: &str| case.get(name)?.tensor(DType::F64);
    let prototypes = Var::from_tensor(&unit(&get("param.prototypes")?)?)?;
    if case.config::<usize>("prototypes")? != prototypes.dim(0)? {
        return Err(case.unsupported("prototypes", &format!("the {} rows of `param.prototypes`", prototypes.dim(0)?)));
    }
    let words = Var::from_tensor(&get("in.t_feats")?)?;
    let (b, regions, d) = get("in.v_feats")?.dims3()?;
    let all = |steps: usize| Lengths::new(std::iter::repeat_n(steps, b));
    let (x_lengths, y_lengths) = (all(regions)?, Lengths::new(case.get("in.t_lengths")?.indices())?);
    let concepts = Concepts {
        prototypes: &prototypes,
        epsilon: case.config("epsilon")?,
        iterations: case.config("sinkhorn_iterations")?,
        temperature: case.config("student_temp")?,
    };
    let x = get("in.v_feats")?.reshape((b * regions, d))?;
    let (loss, assigned) = concepts.loss((x, &x_lengths), (y_lengths.unpad(&words)?, &y_lengths))?;
    let mut answer = Answer::default().with("out.lca_loss", values(&loss)?).with("out.sinkhorn", values(&assigned)?);
    let grads = loss.backward()?;
    for (name, var) in [("grad.lca_prototypes_normalised", &prototypes), ("grad.lca_t_feats", &words)] {
        if let Some(grad) = grads.get(var) {
            answer = answer.with(name, values(grad)?);
        }
    }
    let (locals, globals) = (Var::from_tensor(&get("in.locals")?)?, Var::from_tensor(&get("in.globals")?)?);
    let (_, steps, d) = locals.dims3()?;
    let (rows, lengths) = (locals.reshape((b * steps, d))?, all(steps)?);
    let temperature = case.config("cra_T")?;
    for (name, kept) in [("out.cra_all", None), ("out.cra_topk", Some(case.config("neg_num")?))] {
        let loss = Contrast { temperature, kept }.loss(&rows, &lengths, &globals.squeeze(1)?, |b, c| b != c)?;
        answer = answer.with(name, values(&loss)?);
        if kept.is_some() {
            let grads = loss.backward()?;
            for (name, var) in [("grad.cra_topk_globals", &globals), ("grad.cra_topk_locals", &locals)] {
                if let Some(grad) = grads.get(var) {
                    answer = answer.with(name, values(grad)?);
                }
            }
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
