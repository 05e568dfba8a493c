//! Training on all pairs at once by L-BFGS. The outputs of all pairs give the gradient of the objective in closed form; then each
//! block of pairs goes through the networks again and takes its part of it back to the weights, so that memory does not grow
//! with the data.

use std::{collections::VecDeque, path::Path, time::Instant};

use candle_core::{DType, Tensor};
use faer::Mat;

use super::{NAME, networks::Networks};
use crate::{
    Error, Result, Run, Training,
    linalg::{
        lbfgs::{Lbfgs, Options, Progress},
        store::Store,
    },
    method::Epoch,
    nn::backward,
    train::Model,
};

/// Pairs that go through the networks at once.
const BLOCK: usize = 2048;
/// Steps that L-BFGS remembers; each takes twice the weights in f64.
const MEMORY: usize = 5;
const FILE: &str = "lbfgs.safetensors";

/// The best validation score so far.
struct Best {
    score: f64,
    step: usize,
    x: Vec<f64>,
}

/// Takes `epochs` steps of L-BFGS and leaves the weights of the best validation score (of the last step without a judge). With
/// checkpoints, an interrupted training goes on after the last step that was validated.
///
/// # Errors
/// Numbers that are not finite, a stop from outside, or a checkpoint of another training.
pub(super) fn train(model: &Networks, training: &Training<'_>, run: &mut Run<'_>) -> Result<()> {
    let schedule = &model.params.schedule;
    let identity = serde_json::json!({
        "dataset": training.dataset, "pairs": model.pairs.len(), "params": model.params, "seed": run.seed,
    })
    .to_string();
    let file = run.checkpoints.as_ref().map(|folder| folder.join(FILE));
    let mut f = |x: &[f64], gradient: &mut [f64]| evaluate(model, x, gradient);
    let (mut start, mut pairs, mut best) = (pack(model)?, VecDeque::new(), None);
    if let Some(file) = file.as_ref().filter(|file| file.exists()) {
        (start, pairs, best, run.history) = read(file, &identity, model.pairs.len())?;
    }
    let options = Options { memory: MEMORY, tolerance: 0.0, ..Options::default() };
    let mut search = Lbfgs::new(start, pairs, options, &mut f)?;
    for step in run.history.len() + 1..=schedule.epochs {
        let stale = best.as_ref().is_some_and(|best: &Best| step - 1 - best.step >= schedule.patience);
        if schedule.patience > 0 && stale {
            break;
        }
        run.check_stop()?;
        let clock = Instant::now();
        let moved = search.step(&mut f)? == Progress::Moved;
        let seconds = clock.elapsed().as_secs_f64();
        unpack(model, &search.x)?;
        let last = !moved || step == schedule.epochs;
        let due = last || step % schedule.validate_every == 0;
        let mut validation = None;
        if let Some(judge) = run.judge.filter(|_| due) {
            let score = judge(&*model.matcher()?)?;
            if score.is_nan() {
                return Err(Error::Numeric(format!("{NAME}: the validation score is not a number after step {step}")));
            }
            if best.as_ref().is_none_or(|best| score > best.score) {
                best = Some(Best { score, step, x: search.x.clone() });
            }
            validation = Some(score);
        }
        let pairs = model.pairs.len();
        let epoch = Epoch { epoch: step, loss: search.value, learning_rate: 1.0, validation, seconds, pairs };
        run.observer.step(step, schedule.epochs, search.value);
        run.observer.epoch(&epoch);
        run.history.push(epoch);
        if let Some(file) = file.as_ref().filter(|_| due) {
            write(file, &identity, &search, best.as_ref(), &run.history)?;
        }
        if last {
            break;
        }
    }
    unpack(model, best.as_ref().map_or(&search.x, |best| &best.x))
}

/// Equation (1) or (5) over all pairs, with half the weight decay times the squared weights, and its gradient.
pub(super) fn evaluate(model: &Networks, x: &[f64], gradient: &mut [f64]) -> Result<f64> {
    unpack(model, x)?;
    let (n, outputs) = (model.pairs.len(), model.params.components);
    let mut all = [Mat::<f64>::zeros(n, outputs), Mat::<f64>::zeros(n, outputs)];
    for (block, pairs) in model.pairs.chunks(BLOCK).enumerate() {
        let found = model.forward(&model.gather(pairs)?)?;
        for (all, found) in all.iter_mut().zip(found) {
            for (i, row) in found.to_vec2::<f32>()?.into_iter().enumerate() {
                row.into_iter().enumerate().for_each(|(j, value)| all[(block * BLOCK + i, j)] = f64::from(value));
            }
        }
    }
    if (0..outputs).any(|j| all.iter().any(|all| all.col(j).iter().any(|value| !value.is_finite()))) {
        // The line search turns back from here.
        return Ok(f64::NAN);
    }
    let solved = model.objective().solve(all[0].as_ref(), all[1].as_ref())?;
    let gradients = solved.gradients();
    let decay = model.params.schedule.weight_decay;
    let mut value = -solved.value + 0.5 * decay * x.iter().map(|x| x * x).sum::<f64>();
    gradient.iter_mut().zip(x).for_each(|(g, x)| *g = decay * x);
    for (block, pairs) in model.pairs.chunks(BLOCK).enumerate() {
        let inputs = model.gather(pairs)?;
        let found = model.forward(&inputs)?;
        let mut parts = Vec::new();
        for (gradient, found) in gradients.iter().zip(&found) {
            let rows = (0..pairs.len()).map(|i| block * BLOCK + i);
            let towards = rows.flat_map(|i| (0..outputs).map(move |j| (i, j))).map(|at| -gradient[at] as f32).collect();
            let towards = Tensor::from_vec(towards, (pairs.len(), outputs), found.device())?;
            parts.push((found * towards)?.sum_all()?);
        }
        let mut part = (&parts[0] + &parts[1])?;
        if let Some(error) = model.reconstruction(&inputs, &found)? {
            let error = (error * (model.params.lambda / n as f64))?;
            value += error.to_dtype(DType::F64)?.to_scalar::<f64>()?;
            part = (part + error)?;
        }
        let found = backward(&part)?;
        let mut at = 0;
        for (_, var) in model.weights.iter() {
            if let Some(found) = found.get(var) {
                let found = found.flatten_all()?.to_vec1::<f32>()?;
                gradient[at..].iter_mut().zip(found).for_each(|(sum, g)| *sum += f64::from(g));
            }
            at += var.elem_count();
        }
    }
    Ok(value)
}

/// All weights, one after another.
pub(super) fn pack(model: &Networks) -> Result<Vec<f64>> {
    let mut x = Vec::new();
    for (_, var) in model.weights.iter() {
        x.extend(var.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f64::from));
    }
    Ok(x)
}

fn unpack(model: &Networks, x: &[f64]) -> Result<()> {
    let mut at = 0;
    for (_, var) in model.weights.iter() {
        let values: Vec<f32> = x[at..at + var.elem_count()].iter().map(|&value| value as f32).collect();
        var.set(&Tensor::from_vec(values, var.shape(), var.device())?)?;
        at += var.elem_count();
    }
    Ok(())
}

type State = (Vec<f64>, VecDeque<(Vec<f64>, Vec<f64>)>, Option<Best>, Vec<Epoch>);

/// Replaces the checkpoint: the new one is written beside the old one, then renamed over it.
fn write(file: &Path, identity: &str, search: &Lbfgs, best: Option<&Best>, history: &[Epoch]) -> Result<()> {
    let mut store = Store::default().with_text("training", identity).with_vector("x", &search.x);
    for (i, (s, y)) in search.pairs.iter().enumerate() {
        store = store.with_vector(&format!("s.{i}"), s).with_vector(&format!("y.{i}"), y);
    }
    if let Some(best) = best {
        store = store.with_vector("best", &[best.score, best.step as f64]).with_vector("best.x", &best.x);
    }
    let columns: [fn(&Epoch) -> f64; 3] = [|e| e.loss, |e| e.validation.unwrap_or(f64::NAN), |e| e.seconds];
    let rows = Mat::from_fn(history.len(), 3, |i, j| columns[j](&history[i]));
    let part = file.with_extension("part");
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    }
    store.with_matrix("history", rows.as_ref()).save(&part)?;
    std::fs::rename(&part, file).map_err(Error::io(file))
}

/// The state of an earlier run on `number` pairs.
fn read(file: &Path, identity: &str, number: usize) -> Result<State> {
    let store = Store::load(file)?;
    let found = store.text("training")?;
    if found != identity {
        return Err(Error::Format {
            file: file.display().to_string(),
            expected: format!("the checkpoint of the training {identity}; delete the file to start anew"),
            found: found.into(),
        });
    }
    let mut pairs = VecDeque::new();
    while store.has(&format!("s.{}", pairs.len())) {
        let i = pairs.len();
        pairs.push_back((store.vector(&format!("s.{i}"))?, store.vector(&format!("y.{i}"))?));
    }
    let best = match store.has("best") {
        true => match store.vector("best")?[..] {
            [score, step] => Some(Best { score, step: step as usize, x: store.vector("best.x")? }),
            _ => None,
        },
        false => None,
    };
    let rows = store.matrix("history")?;
    let history = (0..rows.nrows()).map(|i| Epoch {
        epoch: i + 1,
        loss: rows[(i, 0)],
        learning_rate: 1.0,
        validation: Some(rows[(i, 1)]).filter(|score| !score.is_nan()),
        seconds: rows[(i, 2)],
        pairs: number,
    });
    Ok((store.vector("x")?, pairs, best, history.collect()))
}
