use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use candle_core::Device;
use xmbench_datasets::{Collection, Images, Matrix, Pairs, Texts, random::Seed};
use xmbench_methods::{
    Error, Method, Run, Training,
    method::{Epoch, Observer},
    metric::vse::VSE,
};

use super::{Row, Sizes};
use crate::run::timing::Effort;

/// Words of every text.
const WORDS: usize = 20;

/// Steps that are not counted at least: the first pays for fresh memory, and on a GPU for loading its kernels.
const WARM_UP: usize = 3;

/// Epochs that no measurement reaches.
const FOREVER: usize = 1 << 30;

/// A training step of VSE++ with bidirectional recurrent units over 20 words: features gathered and uploaded, loss, gradients,
/// optimiser. Every epoch of the training is one step.
pub fn step((device, name): (&Device, &str), sizes: &Sizes, width: usize, effort: Effort) -> Result<Row> {
    let data = batch(sizes);
    let training = Training { dataset: "speed", train: &data, val: None, vocabulary: sizes.vocabulary, classes: 0 };
    let mut table = toml::toml! { decay_every = 0 collapse_steps = 0 text_pooling = "mean" text_encoder = "bigru" };
    for (key, value) in [("embedding", width), ("batch", sizes.batch), ("epochs", FOREVER)] {
        table.insert(key.into(), toml::Value::Integer(i64::try_from(value)?));
    }
    let (stop, now) = (AtomicBool::new(false), Instant::now());
    let mut clock = Clock { device, effort, stop: &stop, begun: now, last: now, steps: 0, samples: Vec::new() };
    let mut run = Run::new(Seed(1), &mut clock, &stop);
    run.device = device.clone();
    match VSE.fit(&training, &table, &mut run) {
        // The clock has stopped the training.
        Ok(_) | Err(Error::Interrupted) => {}
        Err(error) => return Err(error.into()),
    }
    let work = format!("VSE++ training step, {} pairs, BiGRU, d = {width}", sizes.batch);
    Ok(Row::new(work, name, (sizes.batch, "pairs"), clock.samples))
}

/// One batch of pairs with features and tokens drawn at random.
fn batch(sizes: &Sizes) -> Collection {
    let mut stream = Seed(1).stream(&["speed", "batch"]);
    let n = sizes.batch;
    let data = (0..n * sizes.features).map(|_| stream.normal() as f32).collect();
    let features = Matrix { rows: n, cols: sizes.features, data };
    let tokens = (0..n).map(|_| (0..WORDS).map(|_| stream.below(sizes.vocabulary) as u32).collect()).collect();
    let ids: Vec<String> = (0..n).map(|i| i.to_string()).collect();
    Collection {
        images: Images { ids: ids.clone(), global: Some(Arc::new(features)), ..Images::default() },
        texts: Texts { ids, tokens: Some(tokens), ..Texts::default() },
        pairs: Pairs::new(n, n, (0..n as u32).map(|i| (i, i)).collect()),
    }
}

/// Takes the time from the end of one step to the end of the next, each once the device has finished.
struct Clock<'a> {
    device: &'a Device,
    effort: Effort,
    stop: &'a AtomicBool,
    begun: Instant,
    last: Instant,
    steps: usize,
    samples: Vec<f64>,
}

impl Observer for Clock<'_> {
    fn step(&mut self, _done: usize, _total: usize, _loss: f64) {}

    fn epoch(&mut self, _epoch: &Epoch) {
        // A device that fails here fails in the next step, too, which says why.
        let _ = self.device.synchronize();
        let now = Instant::now();
        let taken = now - std::mem::replace(&mut self.last, now);
        self.steps += 1;
        let cold = self.steps <= WARM_UP || now - self.begun < self.effort.warm_up;
        if self.samples.is_empty() && cold {
            return;
        }
        self.samples.push(taken.as_secs_f64());
        let spent = Duration::from_secs_f64(self.samples.iter().sum());
        if self.samples.len() >= self.effort.samples || spent >= self.effort.budget {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}
