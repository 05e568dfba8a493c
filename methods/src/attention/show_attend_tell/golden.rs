//! The golden operation `attn.sat`.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor, Var};
use xmbench_datasets::random::Seed;

use super::{
    Activation, Output, Selector,
    decoder::{Decoder, Scene, Sizes},
};
use crate::{
    Result,
    golden::{Answer, Case},
    nn::{
        Weights,
        cross::{Padded, golden::values},
        index,
    },
};

/// Our names of weights, and those of the files, which store matrices the other way round. The bias behind `full_att` moves all logits
/// alike, so the softmax has no use for it.
const NAMES: [(&str, &str); 16] = [
    ("attention.region.weight", "attention.encoder_att.weight"),
    ("attention.region.bias", "attention.encoder_att.bias"),
    ("attention.state", "attention.decoder_att.weight"),
    ("attention.score", "attention.full_att.weight"),
    ("start.h.weight", "init_h.weight"),
    ("start.h.bias", "init_h.bias"),
    ("start.c.weight", "init_c.weight"),
    ("start.c.bias", "init_c.bias"),
    ("selector.weight", "f_beta.weight"),
    ("selector.bias", "f_beta.bias"),
    ("gates.state.weight", "decode_step.weight_hh"),
    ("gates.state.bias", "decode_step.bias_hh"),
    ("gates.word", "decode_step.weight_ih"),
    ("gates.seen", "decode_step.weight_ih"),
    ("output.weight", "fc.weight"),
    ("output.bias", "fc.bias"),
];

/// The decoder of a file.
fn decoder(case: &Case) -> Result<(Weights, Decoder)> {
    let sizes = Sizes {
        context: case.config("encoder_dim")?,
        hidden: case.config("decoder_dim")?,
        word: case.config("embed_dim")?,
        attention: case.config("attention_dim")?,
        vocabulary: case.config("vocab_size")?,
        activation: Activation::Relu,
        start: Activation::Identity,
        selector: Selector::Vector,
        output: Output::Linear,
    };
    let mut weights = Weights::new(Seed(0), case.device());
    let decoder = Decoder::new(&mut weights, sizes)?;
    let read = |name: &str| case.get(&format!("param.{name}"))?.tensor(DType::F32);
    let mut filled = BTreeMap::from([("decoder.words".to_string(), read("embedding.weight")?)]);
    for (ours, theirs) in NAMES {
        let value = read(theirs)?;
        let value = if value.rank() == 2 { value.t()?.contiguous()? } else { value };
        let value = match ours {
            "gates.word" => value.narrow(0, 0, sizes.word)?.contiguous()?,
            "gates.seen" => value.narrow(0, sizes.word, sizes.context)?.contiguous()?,
            // Both biases of the file stand in one place, and both of the attention.
            "gates.state.bias" => (value + read("decode_step.bias_ih")?)?,
            "attention.region.bias" => (value + read("attention.decoder_att.bias")?)?,
            _ => value,
        };
        filled.insert(format!("decoder.{ours}"), value);
    }
    weights.restore(&filled)?;
    Ok((weights, decoder))
}

/// A step of attention with its gradients, and every step of the decoder, without dropout.
pub(super) fn run(case: &Case) -> Result<Answer> {
    case.only(&["attention_dim", "decoder_dim", "dropout", "embed_dim", "encoder_dim", "vocab_size"])?;
    let (_weights, decoder) = decoder(case)?;
    let read = |name: &str| Ok::<_, crate::Error>(Var::from_tensor(&case.get(name)?.tensor(DType::F32)?)?);
    let (images, hidden) = (read("in.encoder_out")?, read("in.decoder_hidden")?);
    let (items, regions, width) = match *images.dims() {
        [items, regions, width] => (items, regions, width),
        [items, .., width] => (items, images.elem_count() / (items * width).max(1), width),
        _ => return Err(case.unsupported("encoder_dim", "that of [images, .., encoder_dim]")),
    };
    let flat = images.reshape((items, regions, width))?;
    let scene = |images: &Tensor| -> Result<Scene> {
        let [keys, values, h, c] = decoder.prepared(&Padded::full(images)?)?;
        let start = [h.unsqueeze(1)?, c.unsqueeze(1)?];
        Ok(Scene { keys: keys.unsqueeze(1)?, values: values.unsqueeze(1)?, real: None, start })
    };
    let [alpha, context] = decoder.look(&scene(&flat)?, &hidden.unsqueeze(1)?)?;
    let mut answer = Answer::default().with("out.alpha", values(&alpha)?).with("out.context", values(&context)?);
    if case.has("in.cotangent") {
        let cotangent = case.get("in.cotangent")?.tensor(DType::F32)?.reshape(context.shape())?;
        let grads = (&context * cotangent)?.sum_all()?.backward()?;
        for (name, var) in [("grad.encoder_out", &images), ("grad.decoder_hidden", &hidden)] {
            let grad = grads.get(var.as_tensor()).map_or_else(|| var.zeros_like(), |grad| Ok(grad.clone()))?;
            answer = answer.with(name, values(&grad)?);
        }
    }

    let lengths = case.get("in.caption_lengths")?.indices();
    let captions = case.get("in.captions")?;
    let tokens = captions.indices();
    let longest = captions.shape.get(1).copied().unwrap_or(0);
    if let Some(other) = tokens.iter().find(|&&token| token >= decoder.sizes.vocabulary) {
        return Err(case.unsupported("vocab_size", &format!("above the token {other}")));
    }
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&text| std::cmp::Reverse(lengths[text]));
    let steps: Vec<usize> = order.iter().map(|&text| lengths[text].saturating_sub(1)).collect();
    let most = steps.first().copied().unwrap_or(0);
    let sorted = scene(&flat.index_select(&index(order.iter().copied(), case.device())?, 0)?)?;
    let [mut h, mut c] = sorted.start.clone();
    let vocabulary = decoder.sizes.vocabulary;
    let (mut predictions, mut alphas) = (vec![0f64; items * most * vocabulary], vec![0f64; items * most * regions]);
    for t in 0..most {
        let m = steps.iter().filter(|&&steps| steps > t).count();
        let before: Vec<u32> = order[..m].iter().map(|&text| tokens[text * longest + t] as u32).collect();
        let first = |x: &Tensor| x.narrow(0, 0, m)?.contiguous();
        let now = Scene {
            keys: first(&sorted.keys)?,
            values: first(&sorted.values)?,
            real: None,
            start: sorted.start.clone(),
        };
        let step = decoder.step(&now, &before, [&first(&h)?, &first(&c)?])?;
        let logits = values(&decoder.logits(&step, &mut |x| Ok(x))?)?;
        let looked = values(&step.alpha)?;
        for row in 0..m {
            let at = row * most + t;
            predictions[at * vocabulary..][..vocabulary].copy_from_slice(&logits[row * vocabulary..][..vocabulary]);
            alphas[at * regions..][..regions].copy_from_slice(&looked[row * regions..][..regions]);
        }
        [h, c] = step.states;
    }
    Ok(answer
        .with("out.predictions", predictions)
        .with("out.alphas", alphas)
        .with("out.decode_lengths", steps.into_iter().map(|steps| steps as f64))
        .with("out.sort_ind", order.into_iter().map(|text| text as f64)))
}
