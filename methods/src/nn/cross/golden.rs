//! The golden operations of stacked cross attention.

use candle_core::{DType, Tensor, Var};

use super::{Attention, CrossAttention, Direction, Relevance, Stack, attention, batch_scores};
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
pub(super) fn settings(case: &Case, direction: Direction) -> Result<CrossAttention> {
    Ok(CrossAttention {
        direction,
        attention: Attention { norm: case.config("raw_feature_norm")?, lambda_softmax: case.config("lambda_softmax")? },
        relevance: Relevance { aggregation: case.config("agg_func")?, lambda_lse: case.config("lambda_lse")? },
    })
}

/// Inputs of a case that gradients are taken of, and the scores of every image against every caption.
pub(crate) struct Scored {
    settings: CrossAttention,
    images: Var,
    captions: Var,
    lengths: Lengths,
    /// `[images, captions]`.
    pub scores: Tensor,
}

impl Scored {
    /// Scores the inputs of a case.
    pub fn new(case: &Case, direction: Direction) -> Result<Self> {
        let settings = settings(case, direction)?;
        let lambdas = (settings.attention.lambda_softmax, settings.relevance.lambda_lse);
        for (key, value) in [("lambda_softmax", lambdas.0), ("lambda_lse", lambdas.1)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(case.unsupported(key, "a number above 0"));
            }
        }
        let images = Var::from_tensor(&case.get("in.images")?.tensor(DType::F32)?)?;
        let captions = Var::from_tensor(&case.get("in.captions")?.tensor(DType::F32)?)?;
        let lengths = Lengths::new(case.get("in.cap_lens")?.indices())?;
        let scores = batch_scores(&settings, &images, &lengths.unpad(&captions)?, &lengths)?;
        Ok(Self { settings, images, captions, lengths, scores })
    }

    /// An answer with the gradients of `loss` besides.
    pub fn with_gradients(&self, loss: &Tensor, mut answer: Answer) -> Result<Answer> {
        let grads = loss.backward()?;
        for (name, var) in [("grad.images", &self.images), ("grad.captions", &self.captions)] {
            let grad = grads.get(var.as_tensor()).map_or_else(|| var.zeros_like(), |grad| Ok(grad.clone()))?;
            answer = answer.with(name, values(&grad)?);
        }
        Ok(answer)
    }
}

/// A tensor as f64 values.
pub(crate) fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

fn run(case: &Case, direction: Direction) -> Result<Answer> {
    case.only(&["agg_func", "direction", "lambda_lse", "lambda_softmax", "raw_feature_norm"])?;
    let scored = Scored::new(case, direction)?;
    let mut answer = Answer::default().with("out.scores", values(&scored.scores)?);
    if case.has("out.cap0_attention") {
        let length = scored.lengths.as_slice()[0];
        let (attention, attended) = first_caption(&scored.settings, &scored.images, &scored.captions, length)?;
        answer = answer.with("out.cap0_attention", attention).with("out.cap0_attended", attended);
    }
    if case.has("in.cotangent") {
        let cotangent = case.get("in.cotangent")?.tensor(DType::F32)?;
        answer = scored.with_gradients(&(&scored.scores * cotangent)?.sum_all()?, answer)?;
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
            Direction::T2i => attention(&settings.attention, image, text),
            Direction::I2t => attention(&settings.attention, text, image),
        };
        all.extend(weights.into_iter().map(f64::from));
        seen.extend(attended.into_iter().map(f64::from));
    }
    Ok((all, seen))
}
