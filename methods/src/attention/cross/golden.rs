//! The golden operations of stacked cross attention.

use candle_core::{DType, Tensor, Var};

use super::{CrossAttention, Direction, Stack, attention, batch_scores};
use crate::{
    Result,
    golden::{Answer, Case, Operation},
    nn::Lengths,
};

/// `attn.scan_t2i` and `attn.scan_i2t`.
pub fn operations() -> Vec<Operation> {
    vec![
        Operation { name: "attn.scan_t2i", run: |case| run(case, Direction::T2i), ignored: &[] },
        Operation { name: "attn.scan_i2t", run: |case| run(case, Direction::I2t), ignored: &[] },
    ]
}

/// The settings of a case.
pub(in crate::attention) fn settings(case: &Case, direction: Direction) -> Result<CrossAttention> {
    Ok(CrossAttention {
        direction,
        norm: case.config("raw_feature_norm")?,
        aggregation: case.config("agg_func")?,
        lambda_softmax: case.config("lambda_softmax")?,
        lambda_lse: case.config("lambda_lse")?,
    })
}

/// A tensor as f64 values.
pub(in crate::attention) fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

fn run(case: &Case, direction: Direction) -> Result<Answer> {
    let settings = settings(case, direction)?;
    let images = Var::from_tensor(&case.get("in.images")?.tensor(DType::F32)?)?;
    let words = Var::from_tensor(&case.get("in.captions")?.tensor(DType::F32)?)?;
    let lengths = Lengths::new(case.get("in.cap_lens")?.indices())?;
    let scores = batch_scores(&settings, &images, &lengths.unpad(&words)?, &lengths)?;
    let mut answer = Answer::default().with("out.scores", values(&scores)?);
    if case.has("out.cap0_attention") {
        let (attention, attended) = first_caption(&settings, &images, &words, lengths.as_slice()[0])?;
        answer = answer.with("out.cap0_attention", attention).with("out.cap0_attended", attended);
    }
    if case.has("in.cotangent") {
        let cotangent = case.get("in.cotangent")?.tensor(DType::F32)?;
        let grads = (scores * cotangent)?.sum_all()?.backward()?;
        for (name, var) in [("grad.images", &images), ("grad.captions", &words)] {
            let grad = grads.get(var.as_tensor()).map(Tensor::clone).map_or_else(|| var.zeros_like(), Ok)?;
            answer = answer.with(name, values(&grad)?);
        }
    }
    Ok(answer)
}

/// Attention `[images, context, query]` and attended vectors `[images, query, d]` of caption 0.
fn first_caption(
    settings: &CrossAttention,
    images: &Tensor,
    words: &Tensor,
    length: usize,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let (items, regions, dim) = images.dims3()?;
    let images = images.flatten_all()?.to_vec1::<f32>()?;
    let words = words.get(0)?.narrow(0, 0, length)?.flatten_all()?.to_vec1::<f32>()?;
    let (one_image, one_text) = ([0, regions], [0, length]);
    let text = Stack { dim, offsets: &one_text, data: &words };
    let (mut all, mut seen) = (Vec::new(), Vec::new());
    for i in 0..items {
        let image = Stack { dim, offsets: &one_image, data: &images[i * regions * dim..(i + 1) * regions * dim] };
        let (weights, attended) = match settings.direction {
            Direction::T2i => attention(settings, image, text),
            Direction::I2t => attention(settings, text, image),
        };
        all.extend(weights.into_iter().map(f64::from));
        seen.extend(attended.into_iter().map(f64::from));
    }
    Ok((all, seen))
}
