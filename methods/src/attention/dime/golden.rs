//! The golden operation `attn.dime`.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor, Var};
use xmbench_datasets::random::Seed;

use super::{
    Regulariser,
    cells::{Locals, Sizes},
    network::Dime,
};
use crate::{
    Result,
    golden::{Answer, Case},
    nn::{
        Lengths, Weights,
        cross::{Attention, Direction, Padded, Pairing, Side, golden::values},
    },
};

/// Our names of a layer's weights, and those of the files.
const PARTS: [(&str, &str); 12] = [
    ("guidance.map", "glgc.fc_1"),
    ("reasoning.query", "imrc.sa.att_layer.linears.0"),
    ("reasoning.key", "imrc.sa.att_layer.linears.1"),
    ("reasoning.value", "imrc.sa.att_layer.linears.2"),
    ("reasoning.wide", "imrc.sa.feed_forward_layer.fc1"),
    ("reasoning.narrow", "imrc.sa.feed_forward_layer.fc2"),
    ("refinement.scale", "cmrc.refine.fc_scale"),
    ("refinement.shift", "cmrc.refine.fc_shift"),
    ("refinement.inner", "cmrc.refine.fc_1"),
    ("refinement.outer", "cmrc.refine.fc_2"),
    ("router.hidden", "router.mlp.0"),
    ("router.gate", "router.mlp.2"),
];
/// Our names of the cells, and those of the files, in their order.
const CELLS: [(&str, &str); 4] =
    [("identity", "ric"), ("guidance", "glgc"), ("reasoning", "imrc"), ("refinement", "cmrc")];
/// What the normalisation keeps.
const NORM: [(&str, &str); 4] =
    [("gamma", "weight"), ("beta", "bias"), ("running_mean", "running_mean"), ("running_variance", "running_var")];

/// The name of one of our weights in a file.
fn theirs(ours: &str) -> String {
    let renamed = |name: &str, names: &[(&str, &str)]| {
        let found = names.iter().find_map(|(ours, theirs)| Some(format!("{theirs}{}", name.strip_prefix(ours)?)));
        found.unwrap_or_else(|| name.to_string())
    };
    if let Some(rest) = ours.strip_prefix("dime.norm.") {
        return format!("bn.{}", renamed(rest, &NORM));
    }
    match ours.strip_prefix("dime.").and_then(|rest| rest.split_once('.')) {
        Some((layer, part)) => match part.split_once(".router.") {
            Some((cell, gate)) => {
                let gate = renamed(&format!("router.{gate}"), &PARTS);
                format!("dynamic_itr_l{layer}.{}.{gate}", renamed(cell, &CELLS))
            }
            None => format!("dynamic_itr_l{layer}.{}", renamed(part, &PARTS)),
        },
        None => ours.replace("paths.", "path_mapping."),
    }
}

/// Gives every weight the values of the file, matrices turned round.
fn fill(case: &Case, weights: &Weights) -> Result<()> {
    let value = |(name, var): (&str, &Var)| -> Result<(String, Tensor)> {
        let value = case.get(&format!("param.{}", theirs(name)))?.tensor(DType::F32)?;
        Ok((name.into(), if var.rank() == 2 { value.t()?.contiguous()? } else { value }))
    };
    weights.restore(&weights.iter().map(value).collect::<Result<BTreeMap<_, _>>>()?)
}

/// All outputs and gradients. Where words are refined, those behind a caption's end are refined too and attend to each other, as in the
/// released code; where they answer, they do not.
pub(super) fn run(case: &Case) -> Result<Answer> {
    case.only(&[
        "direction",
        "hid_IMRC",
        "hid_router",
        "lambda_softmax_CMRC",
        "num_head_IMRC",
        "path_hid",
        "raw_feature_norm_CMRC",
        "training",
    ])?;
    let direction: Direction = case.config("direction")?;
    let training: bool = case.config("training")?;
    let read = |name: &str| Ok::<_, crate::Error>(Var::from_tensor(&case.get(name)?.tensor(DType::F32)?)?);
    let (regions, image, words, sentence) = (read("in.rgn")?, read("in.img")?, read("in.wrd")?, read("in.stc")?);
    let width = regions.dim(2)?;
    let heads: usize = case.config("num_head_IMRC")?;
    if heads == 0 || !width.is_multiple_of(heads) {
        return Err(case.unsupported("num_head_IMRC", &format!("a divisor of {width}")));
    }
    let sizes = Sizes { width, heads, reasoning: case.config("hid_IMRC")?, router: case.config("hid_router")? };
    let attention =
        Attention { norm: case.config("raw_feature_norm_CMRC")?, lambda_softmax: case.config("lambda_softmax_CMRC")? };
    let mut weights = Weights::new(Seed(0), case.device());
    let dime = Dime::new(&mut weights, direction, sizes, attention)?;
    let regulariser = Regulariser::new(&mut weights, case.config("path_hid")?)?;
    fill(case, &weights)?;

    let lengths = case.get("in.stc_lens")?.indices();
    let (images, texts) = match direction {
        Direction::I2t => {
            let texts = Tensor::cat(&[&sentence.unsqueeze(1)?, words.as_tensor()], 1)?;
            (Padded::full(&regions)?, Padded::new(&texts, &Lengths::new(lengths.iter().map(|length| length + 1))?)?)
        }
        Direction::T2i => {
            let images = Tensor::cat(&[&image.unsqueeze(1)?, regions.as_tensor()], 1)?;
            (Padded::full(&images)?, Padded::full(&words)?)
        }
    };
    let (images, texts) = (Side::images(&dime, images)?, Side::texts(&dime, texts)?);
    let refined = dime.refine(&images, &texts, Pairing::Every)?;
    let scores = dime.turned(&dime.compare(&refined, training)?)?;

    // Axes of contexts and queries as axes of images and captions.
    let turned = |x: &Tensor| -> Result<Tensor> {
        Ok(if direction == Direction::I2t { x.transpose(0, 1)?.contiguous()? } else { x.clone() })
    };
    let [first, second, third] = &refined.paths;
    let mut answer = first_layer(&dime, &images, &texts, turned)?
        .with("out.scores", values(&scores)?)
        .with("out.final_embedding", values(&turned(&refined.locals.vectors)?)?)
        .with("out.paths_l0", values(&first.squeeze(0)?)?)
        .with("out.paths_l1", values(&turned(second)?)?)
        .with("out.paths_l2", values(&turned(third)?)?);
    if training {
        answer = answer.with("out.sim_paths", values(&regulariser.similarities(&refined.paths)?)?);
    }
    if case.has("in.cotangent") {
        let grads = (&scores * case.get("in.cotangent")?.tensor(DType::F32)?)?.sum_all()?.backward()?;
        for (name, var) in [("grad.rgn", &regions), ("grad.img", &image), ("grad.wrd", &words), ("grad.stc", &sentence)]
        {
            // The refined side's global vector takes no part.
            let grad = grads.get(var.as_tensor()).map_or_else(|| var.zeros_like(), |grad| Ok(grad.clone()))?;
            answer = answer.with(name, values(&grad)?);
        }
        for (name, var) in weights.iter() {
            if let Some(grad) = grads.get(var) {
                let grad = if var.rank() == 2 { grad.t()? } else { grad.clone() };
                answer = answer.with(&format!("grad.param_{}", theirs(name)), values(&grad)?);
            }
        }
    }
    Ok(answer)
}

/// The cells of the first layer and their gates.
fn first_layer(dime: &Dime, images: &Side, texts: &Side, turned: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Answer> {
    let (asking, answering) = match dime.direction {
        Direction::I2t => (&images.items, texts),
        Direction::T2i => (&texts.items, images),
    };
    let (global, contexts) = answering.items.parted()?;
    let seen = contexts.seen()?;
    let context = super::cells::Context { items: &contexts, seen: seen.as_ref(), global: &global };
    let locals = Locals { vectors: asking.vectors().unsqueeze(0)?, real: None };
    let inputs = std::array::from_fn(|_| locals.clone());
    let (cells, gates) = dime.layers()[0].forward(&inputs, &context, [&answering.made[0], &answering.made[1]])?;
    let mut answer = Answer::default();
    for (((_, name), cell), gates) in CELLS.iter().zip(&cells).zip(&gates) {
        // Two of the cells do not know the other side.
        let cell = if cell.dim(0)? == 1 && matches!(*name, "ric" | "imrc") { cell.squeeze(0)? } else { turned(cell)? };
        answer = answer.with(&format!("out.{name}_l0"), values(&cell)?);
        answer = answer.with(&format!("out.{name}_l0_prob"), values(&gates.squeeze(0)?)?);
    }
    Ok(answer)
}
