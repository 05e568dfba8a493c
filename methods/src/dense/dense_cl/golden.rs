//! The golden operation: tensors are stored with channels before places.

use candle_core::{DType, Tensor, Var};

use super::{
    queue::enqueue,
    terms::{dense, matches},
};
use crate::{
    Result,
    dense::nce,
    golden::{Answer, Case, Operation},
    loss::matching,
    nn::{Lengths, unit},
};

pub(super) fn operations() -> Vec<Operation> {
    vec![Operation { name: "dense.densecl", run: densecl, ignored: &[] }]
}

fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

/// Places as rows: `[n, channels, ..]` to `[n places, channels]`.
fn rows(x: &Tensor) -> Result<Tensor> {
    let x = x.flatten_from(2)?.transpose(1, 2)?.contiguous()?;
    let (n, places, channels) = x.dims3()?;
    Ok(x.reshape((n * places, channels))?)
}

fn densecl(case: &Case) -> Result<Answer> {
    case.only(&["loss_lambda", "queue_len_used", "temperature"])?;
    let get = |name: &str| case.get(name)?.tensor(DType::F64);
    let (q, q_grid) = (Var::from_tensor(&get("in.q")?)?, Var::from_tensor(&get("in.q_grid")?)?);
    let (k, k2) = (unit(&get("in.k")?)?, unit(&get("in.k2")?)?);
    let queues = [get("in.queue")?.t()?.contiguous()?, get("in.queue2")?.t()?.contiguous()?];
    if case.config::<usize>("queue_len_used")? != queues[0].dim(0)? {
        return Err(case.unsupported("queue_len_used", &format!("the {} columns of `in.queue`", queues[0].dim(0)?)));
    }
    let (lambda, temperature): (f64, f64) = (case.config("loss_lambda")?, case.config("temperature")?);
    let single = nce::common([&unit(&q)?, &k, &queues[0]], temperature, |_, _| true)?;
    let (n, places) = (q_grid.dim(0)?, q_grid.dim(2)?);
    let lengths = |places: usize| Lengths::new(std::iter::repeat_n(places, n));
    let keys = rows(&get("in.k_grid")?)?;
    let (of, to) = (lengths(places)?, lengths(keys.dim(0)? / n)?);
    let space = [unit(&rows(&get("in.q_backbone")?)?)?, unit(&rows(&get("in.k_backbone")?)?)?];
    let matched = matches(&matching::within(&space[0], &of, &space[1], &to)?, &of, &to);
    let queries = unit(&rows(&q_grid)?)?;
    let parts = dense(&queries, &unit(&keys)?, &matched, &queues[1], temperature, |_, _| true)?;
    let (single, parts) = ((single * (1.0 - lambda))?, (parts * lambda)?);
    let loss = (&single + &parts)?;
    let grads = loss.backward()?;
    let within = matched.iter().enumerate().map(|(r, &row)| (row - to.range(r / places).start) as f64);
    let mut answer = Answer::default()
        .with("out.loss", values(&loss)?)
        .with("out.loss_single", values(&single)?)
        .with("out.loss_dense", values(&parts)?)
        .with("out.match_index", within);
    for (name, queue, keys) in [("out.queue_after", &queues[0], &k), ("out.queue2_after", &queues[1], &k2)] {
        answer = answer.with(name, values(&enqueue(queue, keys, 0)?.0.t()?)?);
    }
    for (name, var) in [("grad.q", &q), ("grad.q_grid", &q_grid)] {
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
