//! The golden operations of the metric-learning losses.

use candle_core::{D, DType, Tensor, Var};

use super::values;
use crate::{
    Error, Result,
    golden::{Answer, Case, Operation},
    loss::{
        CenterForm, Contrast, Margins, PairLoss, Reduction, Relation, Relations, Structure, contrastive,
        contrastive_pairs, info_nce, n_pair_rows, norm_penalty, nt_xent, own_center_nearest, squared_distances,
        structure_preserving, triplet_center,
    },
    nn::unit,
};

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation { name: "loss.contrastive_hadsell", run: hadsell, ignored: &[] },
        Operation { name: "loss.contrastive_pml", run: linear, ignored: &[] },
        Operation { name: "loss.npair", run: n_pair, ignored: &[] },
        Operation { name: "loss.triplet_center", run: center, ignored: &[] },
        Operation { name: "loss.structure_preserving", run: structure, ignored: &[] },
        Operation { name: "loss.infonce", run: contrast, ignored: &[] },
        Operation { name: "loss.duch_ntxent", run: two_views, ignored: &[] },
    ]
}

fn var(case: &Case, name: &str) -> Result<Var> {
    Ok(Var::from_tensor(&case.get(name)?.tensor(DType::F32)?)?)
}

/// Adds the gradients of a scalar by some inputs.
fn with_gradients(mut answer: Answer, loss: &Tensor, inputs: &[(&str, &Var)]) -> Result<Answer> {
    let gradients = loss.backward()?;
    for &(name, input) in inputs {
        // One pair has no gradient at all where its loss is a constant.
        let gradient = gradients.get(input).map_or_else(|| input.zeros_like(), |g| Ok(g.clone()))?;
        answer = answer.with(name, values(&gradient)?);
    }
    Ok(answer)
}

/// An error of a tensor whose values have no meaning.
fn odd(case: &Case, expected: &str, found: &dyn std::fmt::Display) -> Error {
    Error::Format { file: case.file.clone(), expected: expected.into(), found: found.to_string() }
}

fn hadsell(case: &Case) -> Result<Answer> {
    case.only(&["eps_in_sqrt", "margin", "reduction"])?;
    let (first, second) = (var(case, "in.x1")?, var(case, "in.x2")?);
    let target = &case.get("in.target")?.data;
    if let Some(label) = target.iter().find(|&&label| label != 0.0 && label != 1.0) {
        return Err(odd(case, "`in.target` of 0 and 1", label));
    }
    let similar: Vec<bool> = target.iter().map(|&label| label == 1.0).collect();
    let squared = (first.as_tensor() - second.as_tensor())?.sqr()?.sum(D::Minus1)?;
    let margin = case.config("margin")?;
    let formula = contrastive_pairs(&squared.detach(), &similar, margin, 0.0)?;
    let pairs = contrastive_pairs(&squared, &similar, margin, case.config("eps_in_sqrt")?)?;
    let loss = match case.config::<String>("reduction")?.as_str() {
        "mean" => pairs.mean_all()?,
        "sum" => pairs.sum_all()?,
        _ => return Err(case.unsupported("reduction", "mean or sum")),
    };
    let answer = Answer::default().with("out.loss", values(&loss)?).with("out.per_pair_formula", values(&formula)?);
    with_gradients(answer, &loss, &[("grad.x1", &first), ("grad.x2", &second)])
}

fn linear(case: &Case) -> Result<Answer> {
    case.only(&["neg_margin", "normalize", "pos_margin", "reducer"])?;
    let (embeddings, labels) = (var(case, "in.embeddings")?, &case.get("in.labels")?.data);
    let reduction = match case.config::<String>("reducer")?.as_str() {
        "mean" => Reduction::Mean,
        "avgnonzero" => Reduction::Nonzero,
        _ => return Err(case.unsupported("reducer", "mean or avgnonzero")),
    };
    let x = if case.config("normalize")? { unit(&embeddings)? } else { embeddings.as_tensor().clone() };
    let relations = Relations::new(labels.len(), labels.len(), |i, j| match labels[i] == labels[j] {
        _ if i == j => Relation::Ignored,
        true => Relation::Positive,
        false => Relation::Negative,
    });
    let margins = Margins { positive: case.config("pos_margin")?, negative: case.config("neg_margin")? };
    let squared = squared_distances(&x, &x)?;
    let loss = contrastive(&squared, &relations, PairLoss::Linear, margins, 0.0, reduction)?;
    with_gradients(Answer::default().with("out.loss", values(&loss)?), &loss, &[("grad.embeddings", &embeddings)])
}

fn n_pair(case: &Case) -> Result<Answer> {
    case.only(&["l2_reg", "normalize", "reduction"])?;
    if case.config::<bool>("normalize")? {
        return Err(case.unsupported("normalize", "false"));
    }
    if case.config::<String>("reduction")? != "mean" {
        return Err(case.unsupported("reduction", "mean"));
    }
    let (anchors, positives) = (var(case, "in.anchor")?, var(case, "in.positive")?);
    let logits = anchors.matmul(&positives.t()?)?;
    let pairs = Relations::diagonal(logits.dim(0)?);
    let rows = n_pair_rows(&logits, &pairs)?;
    let loss = rows.mean_all()?;
    let penalty = (norm_penalty(&anchors, &positives)? * case.config::<f64>("l2_reg")?)?;
    let answer = Answer::default()
        .with("out.per_anchor", values(&rows)?)
        .with("out.loss", values(&loss)?)
        .with("out.loss_reverse", values(&n_pair_rows(&logits.t()?, &pairs)?.mean_all()?)?)
        .with("out.loss_with_l2", values(&(&loss + penalty)?)?);
    with_gradients(answer, &loss, &[("grad.anchor", &anchors), ("grad.positive", &positives)])
}

/// The paper's form; the released code's where the file has it, since its centres must be as wide as there are classes.
fn center(case: &Case) -> Result<Answer> {
    case.only(&["margin", "num_classes"])?;
    let (features, centers) = (var(case, "in.features")?, var(case, "in.centers")?);
    if centers.dim(0)? != case.config::<usize>("num_classes")? {
        return Err(case.unsupported("num_classes", &format!("{}, the number of centres", centers.dim(0)?)));
    }
    let labels = &case.get("in.labels")?.data;
    if let Some(label) = labels.iter().find(|&&label| !(label >= 0.0 && label <= f64::from(u32::MAX))) {
        return Err(odd(case, "`in.labels` from 0", label));
    }
    let labels: Vec<u32> = labels.iter().map(|&label| label as u32).collect();
    let margin = case.config("margin")?;
    let rows = triplet_center(&features, &centers, &labels, margin, CenterForm::Paper)?;
    let sum = rows.sum_all()?;
    let answer = Answer::default()
        .with("out.per_sample_paper", values(&rows)?)
        .with("out.loss_paper_sum", values(&sum)?)
        .with("out.loss_paper_mean", values(&rows.mean_all()?)?);
    let inputs = [("grad.paper_sum_features", &features), ("grad.paper_sum_centers", &centers)];
    let answer = with_gradients(answer, &sum, &inputs)?;
    if !case.has("out.loss_repo") {
        return Ok(answer);
    }
    let mean = triplet_center(&features, &centers, &labels, margin, CenterForm::Released)?.mean_all()?;
    let precision = own_center_nearest(&features, &centers, &labels, CenterForm::Released)?;
    let answer = answer.with("out.loss_repo", values(&mean)?).with("out.precision_repo", [precision]);
    with_gradients(answer, &mean, &[("grad.repo_features", &features), ("grad.repo_centers", &centers)])
}

fn structure(case: &Case) -> Result<Answer> {
    case.only(&["batch_size", "im_loss_factor", "margin", "num_neg_sample", "sample_size", "sent_only_loss_factor"])?;
    let (images, sentences) = (var(case, "in.im_embeds")?, var(case, "in.sent_embeds")?);
    let each = case.config::<usize>("sample_size")?;
    if images.dim(0)? != case.config::<usize>("batch_size")? || images.dim(0)? * each != sentences.dim(0)? {
        let found = format!("{} and {}", images.dim(0)?, sentences.dim(0)?);
        return Err(odd(case, "batch_size images with sample_size sentences each", &found));
    }
    let owner: Vec<usize> = (0..sentences.dim(0)?).map(|sentence| sentence / each).collect();
    let labels = case.get("in.im_labels")?;
    for (row, &owner) in labels.data.chunks(images.dim(0)?).zip(&owner) {
        if row.iter().enumerate().any(|(image, &label)| (label != 0.0) != (image == owner)) {
            return Err(odd(case, "`in.im_labels` with sample_size sentences in turn for each image", &"others"));
        }
    }
    let settings = Structure {
        margin: case.config("margin")?,
        image_weight: case.config("im_loss_factor")?,
        sentence_weight: 1.0,
        image_structure: 0.0,
        sentence_structure: case.config("sent_only_loss_factor")?,
        top_k: case.config("num_neg_sample")?,
    };
    let terms = structure_preserving(&images, &sentences, &owner, None, &settings)?;
    let answer = Answer::default()
        .with("out.loss", values(&terms.loss)?)
        .with("out.im_loss", values(&terms.image)?)
        .with("out.sent_loss", values(&terms.sentence)?)
        .with("out.sent_only_loss", values(&terms.sentence_structure)?);
    with_gradients(answer, &terms.loss, &[("grad.im_embeds", &images), ("grad.sent_embeds", &sentences)])
}

fn contrast(case: &Case) -> Result<Answer> {
    case.only(&["temperature"])?;
    let (images, texts) = (var(case, "in.image")?, var(case, "in.text")?);
    let scale = case.get("in.logit_scale")?.data.first().copied().unwrap_or(f64::NAN);
    let temperature = case.config::<f64>("temperature")?;
    if (scale * temperature - 1.0).abs() > 1e-6 {
        return Err(case.unsupported("temperature", &format!("that of `in.logit_scale`, {scale}")));
    }
    let logits = (images.matmul(&texts.t()?)? * scale)?;
    let [loss, rows, columns] = info_nce(&logits, &Relations::diagonal(logits.dim(0)?))?;
    let answer = Answer::default()
        .with("out.loss", values(&loss)?)
        .with("out.loss_i2t", values(&rows)?)
        .with("out.loss_t2i", values(&columns)?);
    with_gradients(answer, &loss, &[("grad.image", &images), ("grad.text", &texts)])
}

fn two_views(case: &Case) -> Result<Answer> {
    case.only(&["eps", "temperature", "type"])?;
    let contrast = match case.config::<String>("type")?.as_str() {
        "orig" => Contrast::Orig,
        "cross" => Contrast::Cross,
        _ => return Err(case.unsupported("type", "orig or cross")),
    };
    let view = |name| Ok::<_, Error>(Var::from_tensor(&case.get(name)?.tensor(DType::F64)?)?);
    let (x, y) = (view("in.x1")?, view("in.x2")?);
    let loss = nt_xent(&x, &y, case.config("temperature")?, case.config("eps")?, contrast)?;
    with_gradients(Answer::default().with("out.loss", values(&loss)?), &loss, &[("grad.x1", &x), ("grad.x2", &y)])
}
