use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use candle_core::Device;
use xmbench_datasets::{Collection, Images, Pairs, Texts, random::Seed};

use super::*;
use crate::{
    Codes, Similarity,
    method::{Observer, Silent},
    params,
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

#[test]
fn a_schedule_is_flattened_into_parameters() {
    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Params {
        margin: f64,
        #[serde(flatten)]
        schedule: Schedule,
    }
    let parsed: Params =
        params::parse("m", &toml::toml! { margin = 1 epochs = 3 learning_rate = 1 optimiser = "sgd" }).unwrap();
    let expected = Schedule { epochs: 3, learning_rate: 1.0, optimiser: Optimiser::Sgd, ..Schedule::default() };
    assert_eq!(parsed, Params { margin: 1.0, schedule: expected });
    let error = params::parse::<Params>("m", &toml::toml! { epoch = 3 }).unwrap_err().to_string();
    assert!(error.contains("did you mean `epochs`?"), "{error}");
    for table in [toml::toml! { epochs = -1 }, toml::toml! { optimiser = "adamw" }, toml::toml! { clip = "no" }] {
        let error = params::parse::<Params>("m", &table).unwrap_err().to_string();
        assert!(error.contains(table.keys().next().unwrap()), "{error}");
    }
    assert_eq!(params::to_table(&Params::default()).len(), 12);
}

#[test]
fn schedules_out_of_range_are_refused() {
    for (key, schedule) in [
        ("epochs", Schedule { epochs: 0, ..schedule() }),
        ("batch", Schedule { batch: 0, ..schedule() }),
        ("validate_every", Schedule { validate_every: 0, ..schedule() }),
        ("learning_rate", Schedule { learning_rate: f64::NAN, ..schedule() }),
        ("decay", Schedule { decay: 0.0, ..schedule() }),
        ("clip", Schedule { clip: -1.0, ..schedule() }),
        ("weight_decay", Schedule { weight_decay: f64::INFINITY, ..schedule() }),
    ] {
        let error = schedule.check("m").unwrap_err().to_string();
        assert!(error.contains(&format!("`{key}`")), "{error}");
    }
}
