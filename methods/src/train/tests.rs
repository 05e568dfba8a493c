use std::{
    cell::RefCell,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use candle_core::{Device, Var};
use xmbench_datasets::{Collection, Images, Pairs, Texts};

use super::*;
use crate::{
    Codes, Similarity,
    method::{Observer, Silent},
};

/// Twenty pairs and no representation.
fn collection() -> Collection {
    let ids = |n: usize| (0..n).map(|i| i.to_string()).collect();
    Collection {
        images: Images { ids: ids(20), ..Images::default() },
        texts: Texts { ids: ids(20), ..Texts::default() },
        pairs: Pairs::new(20, 20, (0..20).map(|i| (i, i)).collect()),
    }
}

fn training(train: &Collection) -> Training<'_> {
    Training { dataset: "d", train, val: None, vocabulary: 0, classes: 0 }
}

/// Minimises `|w - mean of the batch's image numbers|^2`, with noise from the step's stream.
struct Toy {
    weights: Weights,
    w: Tensor,
    factor: f64,
}

impl Toy {
    fn new(seed: Seed) -> Self {
        let mut weights = Weights::new(seed, &Device::Cpu);
        let w = weights.uniform("w", &[3], 1.0).unwrap();
        Self { weights, w, factor: 1.0 }
    }
}

struct Value(f32);

impl Matcher for Value {
    fn encode_images(&self, _: &Images) -> Result<Codes> {
        Ok(Codes::Dense(xmbench_datasets::Matrix { rows: 1, cols: 1, data: vec![self.0] }))
    }
    fn encode_texts(&self, _: &Texts) -> Result<Codes> {
        unreachable!("the test's judge looks at images only")
    }
    fn similarity(&self) -> Similarity<'_> {
        Similarity::Cosine
    }
    fn save(&self, _: &Path) -> Result<()> {
        Ok(())
    }
}

impl Model for Toy {
    fn weights(&self) -> &Weights {
        &self.weights
    }
    fn loss(&self, _: &Training<'_>, batch: &[(u32, u32)], step: &mut Step) -> Result<Tensor> {
        let mean = batch.iter().map(|p| f64::from(p.0)).sum::<f64>() / batch.len() as f64 + step.stream.normal();
        Ok((((&self.w - mean)? * self.factor)?.sqr()?).sum_all()?)
    }
    fn matcher(&self) -> Result<Box<dyn Matcher>> {
        Ok(Box::new(Value(self.w.to_vec1::<f32>()?[0])))
    }
}

/// Stops the run after so many epochs.
struct StopAfter<'a>(usize, &'a AtomicBool);

impl Observer for StopAfter<'_> {
    fn step(&mut self, _: usize, _: usize, _: f64) {}
    fn epoch(&mut self, epoch: &Epoch) {
        if epoch.epoch >= self.0 {
            self.1.store(true, Ordering::Relaxed);
        }
    }
}

fn run<'a>(observer: &'a mut (dyn Observer + Send), stop: &'a AtomicBool) -> Run<'a> {
    Run::new(Seed(9), observer, stop)
}

fn schedule() -> Schedule {
    Schedule { epochs: 4, batch: 6, learning_rate: 0.1, decay_every: 2, clip: 0.0, ..Schedule::default() }
}

fn judge_first(matcher: &dyn Matcher) -> Result<f64> {
    match matcher.encode_images(&Images::default())? {
        Codes::Dense(matrix) => Ok(f64::from(matrix.data[0])),
        _ => unreachable!("the test's matcher is dense"),
    }
}

#[test]
fn a_resumed_training_ends_on_the_same_bits() {
    let data = collection();
    let judged = |folder: Option<&Path>, stop_after: usize, model: &mut Toy| {
        let stop = AtomicBool::new(false);
        let mut observer = StopAfter(stop_after, &stop);
        let mut run = run(&mut observer, &stop);
        // The best weights are those of the first epoch: the judge likes them small.
        let judge = |m: &dyn Matcher| judge_first(m).map(|w| -w);
        run.judge = Some(&judge);
        run.checkpoints = folder.map(Path::to_path_buf);
        let result = train(model, &training(&data), &schedule(), &mut run);
        (result, run.history.iter().map(|e| (e.epoch, e.loss, e.learning_rate, e.validation)).collect::<Vec<_>>())
    };
    let folder = tempfile::tempdir().unwrap();
    let (mut straight, mut resumed) = (Toy::new(Seed(9)), Toy::new(Seed(9)));
    let (result, history) = judged(None, 99, &mut straight);
    result.unwrap();
    let (result, _) = judged(Some(folder.path()), 2, &mut resumed);
    assert!(matches!(result, Err(Error::Interrupted)));
    let mut again = Toy::new(Seed(9));
    let (result, resumed_history) = judged(Some(folder.path()), 99, &mut again);
    result.unwrap();
    assert_eq!(history.len(), 4);
    assert_eq!(resumed_history, history);
    assert_eq!(again.w.to_vec1::<f32>().unwrap(), straight.w.to_vec1::<f32>().unwrap());
    let (result, finished) = judged(Some(folder.path()), 99, &mut Toy::new(Seed(9)));
    result.unwrap();
    assert_eq!(finished, history);
}

#[test]
fn a_checkpoint_of_another_training_is_refused() {
    let (data, folder, stop) = (collection(), tempfile::tempdir().unwrap(), AtomicBool::new(false));
    let fit = |schedule: &Schedule| {
        let mut silent = Silent;
        let mut run = run(&mut silent, &stop);
        run.checkpoints = Some(folder.path().into());
        train(&mut Toy::new(Seed(9)), &training(&data), schedule, &mut run)
    };
    fit(&schedule()).unwrap();
    let error = fit(&Schedule { learning_rate: 0.2, ..schedule() }).unwrap_err().to_string();
    assert!(error.contains("training.safetensors") && error.contains("delete the file"), "{error}");
    let path = folder.path().join("training.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
    assert!(fit(&schedule()).unwrap_err().to_string().contains("expected a safetensors file"));
}

#[test]
fn the_best_weights_are_kept_and_patience_ends_the_training() {
    let data = collection();
    for (patience, epochs) in [(0, 4), (1, 2), (2, 3)] {
        let (stop, mut silent, mut model) = (AtomicBool::new(false), Silent, Toy::new(Seed(9)));
        let mut run = run(&mut silent, &stop);
        // Weights grow towards the mean image number, so the first epoch has the best score.
        let judge = |m: &dyn Matcher| judge_first(m).map(|w| -w);
        run.judge = Some(&judge);
        train(&mut model, &training(&data), &Schedule { patience, ..schedule() }, &mut run).unwrap();
        assert_eq!(run.history.len(), epochs);
        let first = run.history[0].validation.unwrap();
        assert!(run.history[1].validation.unwrap() < first);
        assert_eq!(-f64::from(model.w.to_vec1::<f32>().unwrap()[0]), first);
    }
}

#[test]
fn what_is_never_due_is_not_judged_and_the_last_epoch_is_kept() {
    let data = collection();
    let epochs = schedule().epochs;
    for (validate_every, judged) in [(epochs, 1), (epochs + 1, 0)] {
        let (stop, mut silent, mut model) = (AtomicBool::new(false), Silent, Toy::new(Seed(9)));
        let mut run = run(&mut silent, &stop);
        run.judge = Some(&judge_first);
        train(&mut model, &training(&data), &Schedule { validate_every, ..schedule() }, &mut run).unwrap();
        assert_eq!(run.history.len(), epochs);
        assert_eq!(run.history.iter().filter(|epoch| epoch.validation.is_some()).count(), judged);
    }
}

#[test]
fn rates_decay_by_steps_and_incomplete_batches_are_dropped() {
    let (data, stop) = (collection(), AtomicBool::new(false));
    struct Steps(Vec<(usize, usize)>);
    impl Observer for Steps {
        fn step(&mut self, done: usize, total: usize, _: f64) {
            self.0.push((done, total));
        }
        fn epoch(&mut self, _: &Epoch) {}
    }
    for (batch, steps) in [(6, 3), (20, 1), (500, 1)] {
        let mut observer = Steps(Vec::new());
        let mut run = run(&mut observer, &stop);
        train(&mut Toy::new(Seed(9)), &training(&data), &Schedule { batch, ..schedule() }, &mut run).unwrap();
        let rates: Vec<f64> = run.history.iter().map(|e| e.learning_rate).collect();
        for (rate, expected) in rates.iter().zip([0.1, 0.1, 0.01, 0.01]) {
            assert!((rate - expected).abs() < 1e-15);
        }
        assert!(run.history.iter().all(|epoch| epoch.pairs == batch.min(20)));
        assert_eq!(observer.0, (1..=4 * steps).map(|i| (i, 4 * steps)).collect::<Vec<_>>());
    }
    assert_eq!(Schedule { decay_every: 0, ..schedule() }.rate(1000), 0.1);
}

#[test]
fn a_loss_that_is_not_finite_names_epoch_step_and_remedy() {
    let (data, stop, mut silent) = (collection(), AtomicBool::new(false), Silent);
    let mut model = Toy::new(Seed(9));
    model.factor = 1e30;
    let error = train(&mut model, &training(&data), &schedule(), &mut run(&mut silent, &stop)).unwrap_err().to_string();
    assert!(error.contains("epoch 1, step 1 of 3") && error.contains("learning_rate"), "{error}");
}

/// An image part and a text part in two phases, a slow copy of the image part and a queue of its first value, batches of two
/// groups.
struct Parts {
    weights: Weights,
    image: Tensor,
    text: Tensor,
    slow: Var,
    queue: Var,
    phases: Vec<Phase>,
    /// Step, phase, a draw and the batch of each loss.
    seen: RefCell<Vec<(usize, usize, u64, Vec<u32>)>>,
}

impl Parts {
    /// The text part takes part from the second epoch on.
    fn new() -> Self {
        let mut weights = Weights::new(Seed(9), &Device::Cpu);
        let (image, text) =
            (weights.uniform("image.w", &[2], 1.0).unwrap(), weights.uniform("text.w", &[2], 1.0).unwrap());
        let mut state =
            |name, size: usize| weights.state(name, Tensor::zeros(size, DType::F32, &Device::Cpu).unwrap()).unwrap();
        let (slow, queue) = (state("slow.image.w", 2), state("queue", 3));
        let under = |start: &str| Moves::Under(vec![start.into()]);
        let phases = vec![
            Phase { weights: under("image."), ..Phase::default() },
            Phase { weights: under("text."), rate: 0.5, epochs: 1..usize::MAX },
        ];
        Self { weights, image, text, slow, queue, phases, seen: RefCell::default() }
    }
}

impl Model for Parts {
    fn weights(&self) -> &Weights {
        &self.weights
    }
    fn phases(&self) -> Vec<Phase> {
        self.phases.clone()
    }
    /// Groups of 7, 7 and 6 pairs.
    fn sampler(&self, training: &Training<'_>, _: usize) -> Result<Sampler> {
        Ok(Sampler::Groups { of: training.train.pairs.all().iter().map(|pair| pair.0 % 3).collect(), each: 3 })
    }
    fn loss(&self, _: &Training<'_>, batch: &[(u32, u32)], step: &mut Step) -> Result<Tensor> {
        let draw = step.stream.clone().bits();
        self.seen.borrow_mut().push((step.step, step.phase, draw, batch.iter().map(|pair| pair.0).collect()));
        let mean = batch.iter().map(|p| f64::from(p.0)).sum::<f64>() / batch.len() as f64 + step.stream.normal();
        let (slow, queue) = (self.slow.as_detached_tensor(), self.queue.as_detached_tensor());
        let far = match step.phase {
            0 => ((&self.image - mean)?.sqr()? + (&self.image - slow)?.sqr()?)?,
            _ => (&self.text - &self.image)?.broadcast_add(&queue.mean(0)?)?.sqr()?,
        };
        Ok(far.sum_all()?)
    }
    fn after(&self, step: &Step) -> Result<()> {
        if step.phase == 0 {
            let image = self.image.detach();
            self.slow.set(&((self.slow.as_detached_tensor() * 0.9)? + (&image * 0.1)?)?)?;
            let queue = self.queue.as_detached_tensor();
            self.queue.set(&Tensor::cat(&[&queue.narrow(0, 1, 2)?, &image.narrow(0, 0, 1)?], 0)?)?;
        }
        Ok(())
    }
    fn matcher(&self) -> Result<Box<dyn Matcher>> {
        Ok(Box::new(Value(self.image.to_vec1::<f32>()?[0])))
    }
}

/// Weights and state by name, and the history.
type Outcome = (Vec<(String, Vec<f32>)>, Vec<(usize, f64, usize)>);

#[test]
fn phases_and_what_comes_after_steps_resume_on_the_same_bits() {
    let data = collection();
    let fit = |folder: Option<&Path>, stop_after: usize| -> (Result<Outcome>, Parts) {
        let stop = AtomicBool::new(false);
        let mut observer = StopAfter(stop_after, &stop);
        let mut run = run(&mut observer, &stop);
        run.checkpoints = folder.map(Path::to_path_buf);
        let mut model = Parts::new();
        let result = train(&mut model, &training(&data), &schedule(), &mut run);
        let values = model.weights.iter().map(|(name, var)| (name.to_string(), var.to_vec1().unwrap())).collect();
        let history = run.history.iter().map(|epoch| (epoch.epoch, epoch.loss, epoch.pairs)).collect();
        (result.map(|()| (values, history)), model)
    };
    let (straight, model) = fit(None, 99);
    let straight = straight.unwrap();
    // Two portions of 3 of each of three groups: 3 batches of two groups. The second phase is absent from the first epoch.
    let seen = model.seen.borrow();
    let steps: Vec<(usize, usize)> = seen.iter().map(|(step, phase, ..)| (*step, *phase)).collect();
    let expected: Vec<(usize, usize)> =
        (0..3).map(|step| (step, 0)).chain((3..12).flat_map(|step| [(step, 0), (step, 1)])).collect();
    assert_eq!(steps, expected);
    for (step, phase, draw, batch) in seen.iter() {
        let labels: &[&str] = if *phase == 0 { &["step"] } else { &["step", "phase", "1"] };
        let step = step.to_string();
        let labels: Vec<&str> = [&labels[..1], &[&step], &labels[1..]].concat();
        assert_eq!(*draw, Seed(9).stream(&labels).bits(), "{labels:?}");
        let groups: Vec<u32> = batch.iter().map(|image| image % 3).collect();
        assert!(
            groups[..3].iter().all(|g| *g == groups[0]) && groups[3..].iter().all(|g| *g == groups[3]),
            "{groups:?}"
        );
        assert!(groups.len() == 6 && groups[0] != groups[3]);
    }
    assert!(straight.1.iter().all(|(.., pairs)| *pairs == 6));
    let queue = &straight.0.iter().find(|(name, _)| name == "queue").unwrap().1;
    assert!(queue.iter().all(|value| *value != 0.0) && queue[0] != queue[1] && queue[1] != queue[2]);
    for epochs in [1, 2, 3] {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(fit(Some(folder.path()), epochs).0, Err(Error::Interrupted)));
        let (resumed, model) = fit(Some(folder.path()), 99);
        assert_eq!(resumed.unwrap(), straight);
        assert_eq!(model.seen.borrow()[..], seen[seen.len() - model.seen.borrow().len()..]);
    }
}

#[test]
fn a_gradient_of_what_a_phase_does_not_move_is_dropped() {
    let (data, stop) = (collection(), AtomicBool::new(false));
    let values = |tensor: &Tensor| tensor.to_vec1::<f32>().unwrap();
    let start = Parts::new();
    // The first phase's loss is one of the image part.
    for (under, moves) in [("image.", true), ("text.", false)] {
        let (mut model, mut silent) = (Parts::new(), Silent);
        model.phases = vec![Phase { weights: Moves::Under(vec![under.into()]), ..Phase::default() }];
        train(&mut model, &training(&data), &schedule(), &mut run(&mut silent, &stop)).unwrap();
        assert_eq!(values(&model.image) != values(&start.image), moves);
        assert_eq!(values(&model.text), values(&start.text));
    }
}

#[test]
fn phases_that_leave_an_epoch_or_move_nothing_are_named_before_training() {
    let (data, stop) = (collection(), AtomicBool::new(false));
    let error = |phases: Vec<Phase>| {
        let (mut silent, mut model) = (Silent, Parts::new());
        model.phases = phases;
        let mut run = run(&mut silent, &stop);
        let error = train(&mut model, &training(&data), &schedule(), &mut run).unwrap_err().to_string();
        assert!(run.history.is_empty() && model.seen.borrow().is_empty());
        error
    };
    let during = |epochs| Phase { epochs, ..Phase::default() };
    let gap = error(vec![during(0..2), during(3..9)]);
    assert!(gap.contains("each of the 4 epochs") && gap.contains("none in epoch 3"), "{gap}");
    assert!(error(Vec::new()).contains("none in epoch 1"));
    let under = |start: &str| Phase { weights: Moves::Under(vec!["image.".into(), start.into()]), ..Phase::default() };
    let typo = error(vec![under("txt.")]);
    assert!(
        typo.contains("`weights`: expected weights under \"txt.\" in phase 0") && typo.contains("text.w"),
        "{typo}"
    );
    assert!(error(vec![Phase { weights: Moves::Under(Vec::new()), ..Phase::default() }]).contains("`weights`"));
    assert!(
        error(vec![Phase { rate: 0.0, ..Phase::default() }]).contains("`rate`: expected a number above 0 in phase 0")
    );
}

/// Has the loss of a collapsed model in every step.
struct Stuck(Toy);

impl Model for Stuck {
    fn weights(&self) -> &Weights {
        &self.0.weights
    }
    fn loss(&self, _: &Training<'_>, _: &[(u32, u32)], _: &mut Step) -> Result<Tensor> {
        Ok(((&self.0.w * 0.0)?.sum_all()? + 0.5)?)
    }
    fn collapsed(&self, _: usize, _: usize) -> Option<f64> {
        Some(0.5)
    }
    fn matcher(&self) -> Result<Box<dyn Matcher>> {
        self.0.matcher()
    }
}

#[test]
fn steps_near_a_collapse_are_counted_across_a_resume() {
    let (data, folder) = (collection(), tempfile::tempdir().unwrap());
    let fit = |stop_after: usize| {
        let stop = AtomicBool::new(false);
        let mut observer = StopAfter(stop_after, &stop);
        let mut run = run(&mut observer, &stop);
        run.checkpoints = Some(folder.path().into());
        let schedule = Schedule { collapse_steps: 8, ..schedule() };
        train(&mut Stuck(Toy::new(Seed(9))), &training(&data), &schedule, &mut run).unwrap_err()
    };
    // Three steps an epoch: the eighth is in the third.
    assert!(matches!(fit(2), Error::Interrupted));
    let error = fit(99).to_string();
    assert!(error.contains("for 8 steps, up to epoch 3,"), "{error}");
}

#[test]
fn a_checkpoint_without_what_a_training_needs_is_refused() {
    let (data, folder, stop) = (collection(), tempfile::tempdir().unwrap(), AtomicBool::new(false));
    let fit = || {
        let mut silent = Silent;
        let mut run = run(&mut silent, &stop);
        run.checkpoints = Some(folder.path().into());
        train(&mut Toy::new(Seed(9)), &training(&data), &schedule(), &mut run)
    };
    fit().unwrap();
    let path = folder.path().join("training.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
    for (key, expected) in [
        ("moved", "the optimiser steps of each weight"),
        ("collapse", "a number `collapse`"),
        ("steps", "a number `steps`"),
    ] {
        let mut meta = header.metadata().clone().unwrap();
        meta.remove(key).unwrap();
        safetensors::serialize_to_file(&tensors, Some(meta), &path).unwrap();
        let error = fit().unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("delete the file to start anew"), "{error}");
    }
}
