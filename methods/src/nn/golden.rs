//! The golden operations of encoders and pooling: files name weights as PyTorch does and store matrices `[out, in]`.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor, Var, backprop::GradStore};
use xmbench_datasets::random::Seed;

use super::{
    Gpo, ImageEncoder, Lengths, Linear, Scaling, TextEncoder, TextLayer, TextSettings, Tokens, Weights, WordSource,
    unit,
};
use crate::{
    Result,
    golden::{Answer, Case, Operation},
};

pub(super) fn operations() -> Vec<Operation> {
    [
        ("enc.bigru", bigru as fn(&Case) -> Result<Answer>),
        ("enc.gru_last", gru_last),
        ("enc.image_fc", image_fc),
        ("pool.gpo", gpo),
    ]
    .map(|(name, run)| Operation { name, run, ignored: &[] })
    .into()
}

/// Values of a tensor of any type, in f64.
fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

/// Which of our weights a parameter of a file is, and whether it is stored the other way round.
struct Names(Vec<(String, String, bool)>);

impl Names {
    /// Weights of one layer or more of recurrent units.
    fn gru(mut self, file: &str, ours: &str, layers: usize, bidirectional: bool) -> Self {
        for layer in 0..layers {
            for reverse in [false, true].into_iter().take(1 + usize::from(bidirectional)) {
                let (suffix, at) = if reverse { ("_reverse", ".reverse") } else { ("", "") };
                for (theirs, name, turned) in [
                    ("weight_ih", "w_ih", true),
                    ("weight_hh", "w_hh", true),
                    ("bias_ih", "b_ih", false),
                    ("bias_hh", "b_hh", false),
                ] {
                    self.0.push((
                        format!("{file}.{theirs}_l{layer}{suffix}"),
                        format!("{ours}.{layer}{at}.{name}"),
                        turned,
                    ));
                }
            }
        }
        self
    }

    fn with(mut self, file: &str, ours: &str, turned: bool) -> Self {
        self.0.push((file.into(), ours.into(), turned));
        self
    }

    /// Gives the weights the values of a file.
    fn fill(&self, case: &Case, weights: &Weights) -> Result<()> {
        let mut values = BTreeMap::new();
        for (file, ours, turned) in &self.0 {
            let value = case.get(&format!("param.{file}"))?.tensor(DType::F32)?;
            values.insert(ours.clone(), if *turned { value.t()?.contiguous()? } else { value });
        }
        weights.restore(&values)
    }

    /// The gradients that the file asks for, by the names of the file.
    fn gradients(&self, case: &Case, weights: &Weights, grads: &GradStore, mut answer: Answer) -> Result<Answer> {
        let vars: BTreeMap<&str, &Var> = weights.iter().collect();
        for (file, ours, turned) in &self.0 {
            let name = format!("grad.param_{file}");
            if let (true, Some(grad)) = (case.has(&name), grads.get(vars[ours.as_str()])) {
                answer = answer.with(&name, values(&if *turned { grad.t()? } else { grad.clone() })?);
            }
        }
        Ok(answer)
    }
}

/// A loss whose gradient is the file's: the output weighted by the cotangent.
fn weighted(case: &Case, output: &Tensor) -> Result<GradStore> {
    let cotangent = case.get("in.cotangent")?.tensor(output.dtype())?.reshape(output.shape())?;
    Ok((output * cotangent)?.sum_all()?.backward()?)
}

fn size(case: &Case, name: &str, dimension: usize) -> Result<usize> {
    case.get(name)?.shape.get(dimension).copied().ok_or_else(|| crate::Error::Format {
        file: case.file.clone(),
        expected: format!("`{name}` to have more than {dimension} dimensions"),
        found: "fewer".into(),
    })
}

/// The token numbers of a file, cut to the lengths.
fn tokens(case: &Case) -> Result<Tokens> {
    let (ids, steps) = (case.get("in.ids")?.indices(), size(case, "in.ids", 1)?);
    let lengths = case.get("in.lengths")?.indices();
    let rows: Vec<Vec<u32>> = ids
        .chunks(steps.max(1))
        .zip(&lengths)
        .map(|(row, &n)| row.iter().take(n).map(|&id| id as u32).collect())
        .collect();
    Tokens::new(rows.iter().map(Vec::as_slice), case.device())
}

fn text_encoder(case: &Case, layers: usize, bidirectional: bool) -> Result<(Weights, TextEncoder, Names)> {
    let (vocabulary, word) = (size(case, "param.embed.weight", 0)?, size(case, "param.embed.weight", 1)?);
    let hidden = size(case, "param.rnn.weight_hh_l0", 1)?;
    let mut weights = Weights::new(Seed(0), case.device());
    let layer = if bidirectional { TextLayer::Bigru } else { TextLayer::Gru };
    let settings = TextSettings { layer, word, hidden, layers, words: WordSource::Learned };
    let encoder = TextEncoder::new(&mut weights, "text", vocabulary, settings, None)?;
    let names =
        Names(Vec::new()).with("embed.weight", "text.embedding", false).gru("rnn", "text.gru", layers, bidirectional);
    names.fill(case, &weights)?;
    Ok((weights, encoder, names))
}

fn bigru(case: &Case) -> Result<Answer> {
    case.only(&["bidirectional", "embed_size", "no_txtnorm", "num_layers", "vocab", "word_dim"])?;
    let scaling = if case.config("no_txtnorm")? { Scaling::None } else { Scaling::L2n };
    let (weights, encoder, names) = text_encoder(case, case.config("num_layers")?, case.config("bidirectional")?)?;
    let tokens = tokens(case)?;
    let words = scaling.apply(&encoder.tokens(&tokens)?)?;
    let words = tokens.lengths.pad(&words, size(case, "in.ids", 1)?)?;
    let mut answer = Answer::default().with("out.words", values(&words)?);
    if case.has("in.cotangent") {
        let grads = weighted(case, &words)?;
        answer = names.gradients(case, &weights, &grads, answer)?;
        let embedding = weights.iter().find(|(name, _)| *name == "text.embedding").and_then(|(_, var)| grads.get(var));
        if let Some(grad) = embedding {
            answer = answer.with("grad.embedding", values(grad)?);
        }
    }
    Ok(answer)
}

fn gru_last(case: &Case) -> Result<Answer> {
    case.only(&["num_layers", "use_abs"])?;
    let (_, encoder, _) = text_encoder(case, case.config("num_layers")?, false)?;
    let sentence = unit(&encoder.last(&tokens(case)?)?)?;
    let sentence = if case.config("use_abs")? { sentence.abs()? } else { sentence };
    Ok(Answer::default().with("out.sentence", values(&sentence)?))
}

fn image_fc(case: &Case) -> Result<Answer> {
    case.only(&["kind", "use_abs"])?;
    let kind: String = case.config("kind")?;
    let images = Var::from_tensor(&case.get("in.images")?.tensor(DType::F32)?)?;
    let (input, output) = (images.dim(candle_core::D::Minus1)?, size(case, "param.fc.bias", 0)?);
    let mut weights = Weights::new(Seed(0), case.device());
    let bias = Names(Vec::new()).with("fc.bias", "fc.bias", false);
    let (layer, names) = match kind.as_str() {
        "scan_weightnorm" => (
            Linear::weight_normalised(&mut weights, "fc", input, output)?,
            bias.with("fc.weight_v", "fc.v", true).with("fc.weight_g", "fc.g", false),
        ),
        _ => (Linear::xavier(&mut weights, "fc", input, output)?, bias.with("fc.weight", "fc.weight", true)),
    };
    let scaling = match kind.as_str() {
        "scan_basic" | "scan_weightnorm" => Scaling::L2n,
        "scan_nonorm" => Scaling::None,
        "vsepp" => Scaling::Unit,
        _ => return Err(case.unsupported("kind", "scan_basic, scan_nonorm, scan_weightnorm or vsepp")),
    };
    names.fill(case, &weights)?;
    let embedding = ImageEncoder { layer, scaling, absolute: case.config("use_abs")? }.forward(&images)?;
    let answer = Answer::default().with("out.embedding", values(&embedding)?);
    let grads = weighted(case, &embedding)?;
    let answer = names.gradients(case, &weights, &grads, answer)?;
    Ok(match grads.get(&images) {
        Some(grad) => answer.with("grad.images", values(grad)?),
        None => answer,
    })
}

fn gpo(case: &Case) -> Result<Answer> {
    case.only(&["d_hidden", "d_pe", "temperature"])?;
    let temperature = case.config::<f64>("temperature")?;
    if !(temperature > 0.0 && temperature.is_finite()) {
        return Err(case.unsupported("temperature", "a number above 0"));
    }
    let mut weights = Weights::new(Seed(0), case.device());
    let pooling = Gpo::new(&mut weights, "pool", case.config("d_pe")?, case.config("d_hidden")?)?.at(temperature);
    let names = Names(Vec::new()).gru("gru", "pool.gru", 1, true).with("linear.weight", "pool.linear", true);
    names.fill(case, &weights)?;
    let features = Var::from_tensor(&case.get("in.features")?.tensor(DType::F32)?)?;
    let lengths = Lengths::new(case.get("in.lengths")?.indices())?;
    let (pooled, places) = pooling.forward(&lengths.unpad(&features)?, &lengths)?;
    let answer = Answer::default().with("out.pooled", values(&pooled)?).with("out.weights", values(&places)?);
    let grads = weighted(case, &pooled)?;
    let answer = names.gradients(case, &weights, &grads, answer)?;
    Ok(match grads.get(&features) {
        Some(grad) => answer.with("grad.features", values(grad)?),
        None => answer,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_file_passes() {
        crate::golden::assert_files(&super::operations());
    }
}
