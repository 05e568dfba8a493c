//! The golden operations: files name weights as PyTorch does and store matrices `[out, in]`.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor, Var};
use xmbench_datasets::random::Seed;

use super::{
    Encoders, Interaction, Options, Params, Shape, TextModel, Triplet,
    graph::{Graph, Nodes, Settings},
    matching::Side,
};
use crate::{
    Error, Result,
    golden::{Answer, Case, Operation},
    loss::{DistanceWeighted, Relation, Relations, hinge, sampled_hinge},
    nn::{Lengths, Relating, Weights, k_max},
};

pub(super) fn operations() -> Vec<Operation> {
    [
        ("hrem.image_encoder", image_encoder as fn(&Case) -> Result<Answer>),
        ("hrem.graph_loss", graph_loss),
        ("hrem.triplet_dw", triplet_dw),
    ]
    .map(|(name, run)| Operation { name, run, ignored: &[] })
    .into()
}

fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

fn shape<const N: usize>(case: &Case, name: &str) -> Result<[usize; N]> {
    let shape = &case.get(name)?.shape;
    shape.as_slice().try_into().map_err(|_| Error::Format {
        file: case.file.clone(),
        expected: format!("`{name}` with {N} dimensions"),
        found: format!("{shape:?}"),
    })
}

/// Gives our weights (second) the values of a file's parameters (first); matrices are turned.
fn fill(case: &Case, weights: &Weights, names: &[(String, String)]) -> Result<()> {
    let mut values: BTreeMap<String, Tensor> = weights.snapshot()?;
    for (file, ours) in names {
        let value = case.get(&format!("param.{file}"))?.tensor(DType::F32)?;
        let value = if value.rank() == 2 { value.t()?.contiguous()? } else { value };
        values.insert(ours.clone(), value);
    }
    weights.restore(&values)
}

/// Parameters of a PyTorch `TransformerEncoderLayer`.
fn layer(file: &str, ours: &str) -> Vec<(String, String)> {
    let mut names = vec![
        (format!("{file}.self_attn.in_proj_weight"), format!("{ours}.attention.weight")),
        (format!("{file}.self_attn.in_proj_bias"), format!("{ours}.attention.bias")),
    ];
    for (theirs, part) in [("self_attn.out_proj", "output"), ("linear1", "wide"), ("linear2", "narrow")] {
        names.extend(dense(&format!("{file}.{theirs}"), &format!("{ours}.{part}")));
    }
    for n in [1, 2] {
        for (theirs, part) in [("weight", "scale"), ("bias", "shift")] {
            names.push((format!("{file}.norm{n}.{theirs}"), format!("{ours}.norm_{n}.{part}")));
        }
    }
    names
}

fn dense(file: &str, ours: &str) -> Vec<(String, String)> {
    ["weight", "bias"].map(|part| (format!("{file}.{part}"), format!("{ours}.{part}"))).into()
}

fn image_encoder(case: &Case) -> Result<Answer> {
    case.only(&["embed_size", "img_dim", "k", "nhead", "residual_weight"])?;
    let [items, steps, width] = shape::<3>(case, "in.images")?;
    let [hidden, _] = shape::<2>(case, "param.fc.mlp.layers.0.weight")?;
    if case.config::<usize>("img_dim")? != width {
        return Err(case.unsupported("img_dim", &width.to_string()));
    }
    let options = Options {
        embedding: case.config("embed_size")?,
        hidden,
        heads: case.config("nhead")?,
        k: case.config("k")?,
        pooled_share: case.config("residual_weight")?,
        text_encoder: TextModel::Words,
        ..Options::default()
    };
    let mut weights = Weights::new(Seed(0), case.device());
    let shape = Shape { image_width: width, vocabulary: 1 };
    let encoders = Encoders::new("hrem", &options, shape, None, &mut weights)?;
    let mut names = [dense("fc.fc", "image.fc"), layer("aggr.layers.0", "image.relating")].concat();
    for l in [0, 1] {
        names.extend(dense(&format!("fc.mlp.layers.{l}"), &format!("image.mlp.{l}")));
    }
    // The second normalisation of a file is never used.
    for (theirs, ours) in
        [("weight", "gamma"), ("bias", "beta"), ("running_mean", "running_mean"), ("running_var", "running_variance")]
    {
        names.push((format!("fc.mlp.bns.0.{theirs}"), format!("image.mlp.0.norm.{ours}")));
    }
    fill(case, &weights, &names)?;
    let images = Var::from_tensor(&case.get("in.images")?.tensor(DType::F32)?)?;
    let lengths = Lengths::new(case.get("in.lengths")?.indices())?;
    let all = encoders.regions(&images.reshape((items * steps, width))?, None)?;
    let padded = all.reshape((items, steps, options.embedding))?;
    let z = lengths.unpad(&padded)?;
    let pool = encoders.image_pool();
    let mut answer = Answer::default()
        .with("out.pre_pool", values(&all)?)
        .with("out.avg_pool", values(&lengths.mean(&z)?)?)
        .with("out.maxk_pool", values(&pool.base(&z, &lengths)?)?);
    if case.has("in.lengths_quirk") {
        let lengths = Lengths::new(case.get("in.lengths_quirk")?.indices())?;
        let z = lengths.unpad(&padded)?;
        answer = answer
            .with("out.maxk_pool_fixed", values(&pool.base(&z, &lengths)?)?)
            .with("out.maxk_pool_quirk", quirk(&z, &lengths, options.k)?);
    }
    let encoded = pool.forward(z, lengths, None)?;
    answer =
        answer.with("out.embedding_notnorm", values(&encoded.pooled)?).with("out.embedding", values(&encoded.unit)?);
    if case.has("in.cotangent") {
        let cotangent = case.get("in.cotangent")?.tensor(DType::F32)?;
        let grads = (&encoded.unit * cotangent)?.sum_all()?.backward()?;
        if let Some(grad) = grads.get(&images) {
            answer = answer.with("grad.images", values(grad)?);
        }
    }
    Ok(answer)
}

/// The released pooling, where an item that is shorter than `k` lowers it for all behind.
fn quirk(z: &Tensor, lengths: &Lengths, k: usize) -> Result<Vec<f64>> {
    let mut k = k;
    let mut pooled = Vec::new();
    for (item, &n) in lengths.as_slice().iter().enumerate() {
        k = k.min(n);
        let rows = z.narrow(0, lengths.range(item).start, n)?;
        pooled.extend(values(&k_max(&rows, &Lengths::new([n])?, k)?)?);
    }
    Ok(pooled)
}

/// Which pairs are of one image.
fn relations(ids: &[usize]) -> Relations {
    Relations::new(ids.len(), ids.len(), |i, j| match ids[i] == ids[j] {
        true => Relation::Positive,
        false => Relation::Negative,
    })
}

const GRAPH_KEYS: [&str; 19] = [
    "T",
    "base_loss",
    "cross_loss",
    "dataset",
    "dropout",
    "embed_size",
    "gnn_loss",
    "margin",
    "mask_repeat",
    "mask_weight",
    "max_violation",
    "nhead",
    "norm_input",
    "num_layers_enc",
    "reg_loss_weight",
    "sigma",
    "threshold",
    "topk",
    "warmup",
];

/// A number that says yes or no.
fn flag(case: &Case, key: &str) -> Result<bool> {
    match &case.config[key] {
        serde_json::Value::Bool(value) => Ok(*value),
        value if value.as_f64() == Some(0.0) => Ok(false),
        value if value.as_f64() == Some(1.0) => Ok(true),
        _ => Err(case.unsupported(key, "0 or 1")),
    }
}

fn graph_loss(case: &Case) -> Result<Answer> {
    case.only(&GRAPH_KEYS)?;
    for key in ["base_loss", "gnn_loss"] {
        if case.config::<String>(key)? != "vse" {
            return Err(case.unsupported(key, "vse, as the other draws at random"));
        }
    }
    if !["f30k", "coco"].contains(&&case.config::<String>("dataset")?[..]) {
        return Err(case.unsupported("dataset", "f30k or coco"));
    }
    for key in ["dropout", "warmup"] {
        if case.config::<f64>(key)? != 0.0 {
            return Err(case.unsupported(key, "0"));
        }
    }
    let [batch, width] = shape::<2>(case, "in.img_emb")?;
    if case.config::<usize>("embed_size")? != width {
        return Err(case.unsupported("embed_size", &width.to_string()));
    }
    let settings = Settings {
        interaction: Interaction::Fusion,
        layers: case.config("num_layers_enc")?,
        top: case.config("topk")?,
        connected: case.config("threshold")?,
        mask_weight: case.config("mask_weight")?,
        unit: flag(case, "norm_input")?,
        sigma: case.config("sigma")?,
        temperature: case.config("T")?,
    };
    let [hidden, _] = shape::<2>(case, "param.gnn.layers.0.linear1.weight")?;
    let relating = Relating { width, heads: case.config("nhead")?, hidden, dropout: 0.0 };
    let mut weights = Weights::new(Seed(0), case.device());
    let graph = Graph::new(&mut weights, settings, relating)?;
    let mut names = Vec::new();
    for side in ["t2i", "i2t"] {
        for (theirs, ours) in [(0, 0), (3, 1)] {
            let file = format!("adj_model.adj_learning.mlp_{side}.{theirs}");
            names.extend(dense(&file, &format!("graph.{side}.{ours}")));
        }
    }
    (0..settings.layers).for_each(|l| names.extend(layer(&format!("gnn.layers.{l}"), &format!("graph.fusion.{l}"))));
    fill(case, &weights, &names)?;

    let var = |name: &str| -> Result<Var> { Ok(Var::from_tensor(&case.get(name)?.tensor(DType::F32)?)?) };
    let inputs = [var("in.img_emb")?, var("in.cap_emb")?, var("in.img_emb_notnorm")?, var("in.cap_emb_notnorm")?];
    let [_, each, _] = shape::<3>(case, "in.img_regions")?;
    let regions = case.get("in.img_regions")?.tensor(DType::F32)?.reshape((batch * each, width))?;
    let all = Lengths::new(std::iter::repeat_n(each, batch))?;
    // Words with what stands behind them, as far as it takes part.
    let [_, steps, _] = shape::<3>(case, "in.cap_words")?;
    let real = case.get("in.cap_lens")?.indices();
    let rows = Lengths::new(real.iter().map(|&n| n.max(settings.top).min(steps)))?;
    let words = rows.unpad(&case.get("in.cap_words")?.tensor(DType::F32)?)?;
    let nodes = Nodes {
        unit: [&inputs[0], &inputs[1]],
        pooled: [&inputs[2], &inputs[3]],
        fragments: [Side { fragments: &regions, lengths: &all }, Side { fragments: &words, lengths: &rows }],
        real: &real,
    };
    let triplet = if case.config("max_violation")? { Triplet::Hardest } else { Triplet::Sum };
    let params = Params {
        margin: case.config("margin")?,
        consistency: flag(case, "cross_loss")?,
        relation_weight: case.config("reg_loss_weight")?,
        triplet,
        ..Params::default()
    };
    let relations = match case.config("mask_repeat")? {
        true => relations(&case.get("in.img_ids")?.indices()),
        false => Relations::diagonal(batch),
    };
    let links = graph.links(&nodes)?;
    let seen = graph.enhanced(&nodes, &links, None)?;
    let [base, loss] = params.total(&nodes, &links, &seen, &mut |v, t| {
        hinge(&v.matmul(&t.t()?)?, params.margin, params.triplet == Triplet::Hardest, &relations)
    })?;
    let mut answer = Answer::default()
        .with("out.base_loss", values(&base)?)
        .with("out.loss", values(&loss)?)
        .with("out.reg_loss", values(&links.regulariser)?)
        .with("out.relation", values(&links.relation)?)
        .with("out.connect", values(&links.connect)?)
        .with("out.enhanced", values(&Tensor::cat(&seen, 0)?)?);
    let grads = loss.backward()?;
    for (name, var) in ["img_emb", "cap_emb", "img_emb_notnorm", "cap_emb_notnorm"].into_iter().zip(&inputs) {
        let grad = grads.get(var).map_or_else(|| var.zeros_like(), |grad| Ok(grad.clone()))?;
        answer = answer.with(&format!("grad.{name}"), values(&grad)?);
    }
    Ok(answer)
}

/// Equation (17) where the likeliest negative takes the place of the one that is drawn.
fn triplet_dw(case: &Case) -> Result<Answer> {
    case.only(&["cut_off", "d", "margin", "nonzero_loss_cutoff"])?;
    let sampling = DistanceWeighted { nearest: case.config("cut_off")?, cutoff: case.config("nonzero_loss_cutoff")? };
    let width: usize = case.config("d")?;
    let (v, t) = (case.get("in.im")?.tensor(DType::F64)?, case.get("in.s")?.tensor(DType::F64)?);
    let scores = v.matmul(&t.t()?)?;
    let relations = relations(&case.get("in.img_ids")?.indices());
    let mut answer = Answer::default();
    // How many positives ask from each side, and whether one of them has nothing to choose.
    let mut sides = Vec::new();
    for (name, scores) in [("out.weights_im", scores.clone()), ("out.weights_s", scores.t()?)] {
        let (mut all, mut positives, mut stuck) = (Vec::new(), 0, false);
        for (query, row) in scores.to_vec2::<f64>()?.iter().enumerate() {
            let weights = shares(row, relations.row(query), &sampling, width);
            let asking = relations.row(query).iter().filter(|r| **r == Relation::Positive).count();
            positives += asking;
            stuck |= asking > 0 && weights.iter().all(|&weight| weight == 0.0);
            (0..asking).for_each(|_| all.extend(&weights));
        }
        answer = answer.with(name, all);
        sides.push((positives, stuck));
    }
    let mut asked = 0;
    let loss = sampled_hinge(&scores, &relations, case.config("margin")?, &mut |cosines| {
        let side = usize::from(asked >= sides[0].0);
        asked += 1;
        // The released code gives up a whole side.
        let weights = sampling.weights(cosines, width);
        let likeliest = (0..weights.len()).rev().max_by(|&a, &b| weights[a].total_cmp(&weights[b]))?;
        (!sides[side].1).then_some(likeliest)
    })?;
    Ok(answer.with("out.loss_argmax_negative", values(&loss)?))
}

/// The released weights of a row: ours but for a small number in the sum, which counts where an entry that cannot be drawn has the
/// largest logarithm.
fn shares(cosines: &[f64], relations: &[Relation], sampling: &DistanceWeighted, width: usize) -> Vec<f64> {
    let negative = |j: &usize| relations[*j] == Relation::Negative;
    let at: Vec<usize> = (0..cosines.len()).filter(negative).collect();
    let some: Vec<f64> = at.iter().map(|&j| cosines[j]).collect();
    let weights = sampling.weights(&some, width);
    let log = |cosine: f64| Some(sampling.log_weight(cosine, width)).filter(|log| log.is_finite()).unwrap_or(0.0);
    let reached = some.iter().filter(|&&c| sampling.reaches(c)).map(|&c| log(c)).fold(f64::NEG_INFINITY, f64::max);
    let all = (0..cosines.len()).map(|j| if negative(&j) { log(cosines[j]) } else { 0.0 });
    let most = all.fold(f64::NEG_INFINITY, f64::max);
    let total = weights.iter().sum::<f64>() + 1e-20 * (most - reached).exp();
    let mut shares = vec![0.0; cosines.len()];
    at.iter().zip(weights).for_each(|(&j, weight)| shares[j] = if weight > 0.0 { weight / total } else { 0.0 });
    shares
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_file_passes() {
        crate::golden::assert_files(&super::operations());
    }
}
