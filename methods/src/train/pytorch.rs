//! Optimisers, rate schedules and phases against PyTorch 2.15, run in f64 on a quadratic problem in five numbers.
//!
//! ```text
//! whole(a, b) = (a1^2 + 2 a2^2 + a3^2 / 2 + (sum(a) - 1)^2) / 2 + (1.5 b1^2 + b2^2 / 4) / 2 + sum(a) sum(b)
//! from a = (1, -2, 1/2), b = (3/4, -1/4)
//! ```
//!
//! Every even step leaves the terms with `b` out, so that `b` has no gradient there: its count of steps is its own.

use std::sync::atomic::AtomicBool;

use candle_core::Device;
use xmbench_datasets::{Collection, Images, Pairs, Texts};

use super::*;
use crate::method::Silent;

struct Problem {
    weights: Weights,
    a: Tensor,
    b: Tensor,
    phases: Vec<Phase>,
}

impl Problem {
    fn new(phases: Vec<Phase>) -> Self {
        let mut weights = Weights::new(Seed(0), &Device::Cpu);
        let mut weight =
            |name, values: &[f32]| weights.insert(name, Tensor::new(values, &Device::Cpu).unwrap()).unwrap();
        let (a, b) = (weight("a", &[1.0, -2.0, 0.5]), weight("b", &[0.75, -0.25]));
        Self { weights, a, b, phases }
    }

    fn value(&self, with_b: bool) -> Result<Tensor> {
        let quadratic = |w: &Tensor, factors: &[f32]| (w.sqr()? * Tensor::new(factors, &Device::Cpu)?)?.sum_all();
        let sum = self.a.sum_all()?;
        let alone = ((quadratic(&self.a, &[1.0, 2.0, 0.5])? + (&sum - 1.0)?.sqr()?)? / 2.0)?;
        match with_b {
            true => Ok(((alone + (quadratic(&self.b, &[1.5, 0.25])? / 2.0)?)? + (sum * self.b.sum_all()?)?)?),
            false => Ok(alone),
        }
    }

    fn end(&self) -> Vec<f32> {
        [&self.a, &self.b].iter().flat_map(|w| w.to_vec1().unwrap()).collect()
    }
}

impl Model for Problem {
    fn weights(&self) -> &Weights {
        &self.weights
    }
    fn phases(&self) -> Vec<Phase> {
        self.phases.clone()
    }
    fn loss(&self, _: &Training<'_>, _: &[(u32, u32)], step: &mut Step) -> Result<Tensor> {
        self.value(self.phases.len() > 1 || step.step % 2 == 1)
    }
    fn matcher(&self) -> Result<Box<dyn Matcher>> {
        unreachable!("nobody judges")
    }
}

fn close(what: &str, found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((f64::from(*a) - b).abs() < 2e-6, "{what}: {found:?}, PyTorch {expected:?}");
    }
}

/// Trains in steps of one of three pairs and returns the history.
fn trained(problem: &mut Problem, schedule: &Schedule) -> Vec<Epoch> {
    let ids: Vec<String> = (0..3).map(|i| i.to_string()).collect();
    let train_on = Collection {
        images: Images { ids: ids.clone(), ..Images::default() },
        texts: Texts { ids, ..Texts::default() },
        pairs: Pairs::new(3, 3, (0..3).map(|i| (i, i)).collect()),
    };
    let training = Training { dataset: "quadratic", train: &train_on, val: None, vocabulary: 0, classes: 0 };
    let (stop, mut silent) = (AtomicBool::new(false), Silent);
    let mut run = Run::new(Seed(0), &mut silent, &stop);
    train(problem, &training, schedule, &mut run).unwrap();
    run.history
}

fn base(optimiser: Optimiser) -> Schedule {
    let learning_rate = if optimiser.adaptive() { 0.1 } else { 0.05 };
    Schedule { optimiser, learning_rate, batch: 1, decay_every: 0, clip: 0.0, ..Schedule::default() }
}

#[test]
fn ten_steps_of_each_optimiser() {
    use Optimiser::{Adam, AdamW, Nesterov, Sgd};
    let betas = |optimiser| Schedule { beta1: 0.5, beta2: 0.9, ..base(optimiser) };
    let cases: [(Schedule, [f64; 5]); 12] = [
        (
            Schedule { weight_decay: 0.01, ..base(Adam) },
            [0.605971955, -1.039878709, 1.059599047, 0.248881822, -0.296964084],
        ),
        (betas(Adam), [0.590074143, -1.092058376, 0.983310900, 0.248006628, -0.382397338]),
        (Schedule { clip: 0.5, ..base(Adam) }, [0.562421572, -1.002177591, 1.048959135, 0.250517687, -0.321933279]),
        (
            Schedule { weight_decay: 0.1, ..base(AdamW) },
            [0.539787113, -0.897869530, 0.995062768, 0.222155784, -0.300974861],
        ),
        (
            Schedule { weight_decay: 0.05, ..betas(AdamW) },
            [0.566987991, -1.022227509, 0.952594128, 0.234965034, -0.383420990],
        ),
        (
            Schedule { weight_decay: 0.01, ..base(Sgd) },
            [-0.499169932, 0.821970252, 0.051587117, -0.402487313, -0.788136779],
        ),
        (Schedule { momentum: 0.7, ..base(Sgd) }, [0.176227545, 0.241240547, 0.368760911, -0.068222792, -0.589111263]),
        (Schedule { momentum: 0.0, ..base(Sgd) }, [0.770486834, -0.573654192, 0.590713942, 0.407906003, -0.341129784]),
        (Schedule { clip: 0.5, ..base(Sgd) }, [0.987830275, -1.000501219, 0.652802003, 0.675821525, -0.234373788]),
        (
            Schedule { weight_decay: 0.01, ..base(Nesterov) },
            [-0.162814182, 0.704785744, 0.297037765, -0.531001795, -0.924323746],
        ),
        (
            Schedule { momentum: 0.7, ..base(Nesterov) },
            [0.287383995, 0.212256692, 0.456542704, -0.150867017, -0.671548055],
        ),
        (Schedule { clip: 0.5, ..base(Nesterov) }, [0.953082490, -0.870829922, 0.651691439, 0.635041237, -0.243355925]),
    ];
    for (schedule, expected) in cases {
        schedule.check("m").unwrap();
        for fused in [true, false] {
            let problem = Problem::new(Vec::new());
            let mut state = State::with(schedule.optimiser, &problem.weights, fused).unwrap();
            for step in 0..10 {
                let grads = problem.value(step % 2 == 1).unwrap().backward().unwrap();
                let rate = |_: &str| schedule.learning_rate;
                state.step(&problem.weights, &Moves::All, &grads, &schedule, &rate).unwrap();
            }
            close(&format!("{schedule:?}, fused {fused}"), &problem.end(), &expected);
            assert_eq!(state.moved(), BTreeMap::from([("a", 10), ("b", 5)]));
        }
    }
}

/// Six epochs of three steps: the rates, and where they lead.
#[test]
fn rate_schedules() {
    let six = |optimiser| Schedule { epochs: 6, ..base(optimiser) };
    let cosine = RateSchedule::Cosine;
    let cases: [(Schedule, [f64; 18], [f64; 5]); 4] = [
        (
            // CosineAnnealingLR(T_max=6) with LinearLR(start_factor=1/5, end_factor=1, total_iters=4).
            Schedule { rate_schedule: cosine, rate_warmup: 5, ..six(Optimiser::Adam) },
            [
                0.02,
                0.04,
                0.06,
                0.0746410161514,
                0.0933012701892,
                0.0933012701892,
                0.075,
                0.075,
                0.075,
                0.05,
                0.05,
                0.05,
                0.025,
                0.025,
                0.025,
                0.00669872981078,
                0.00669872981078,
                0.00669872981078,
            ],
            [0.739344139, -1.186827912, 1.027110896, 0.327410118, -0.144258466],
        ),
        (
            Schedule { rate_schedule: cosine, ..six(Optimiser::Sgd) },
            [
                0.05,
                0.05,
                0.05,
                0.0466506350946,
                0.0466506350946,
                0.0466506350946,
                0.0375,
                0.0375,
                0.0375,
                0.025,
                0.025,
                0.025,
                0.0125,
                0.0125,
                0.0125,
                0.00334936490539,
                0.00334936490539,
                0.00334936490539,
            ],
            [-0.273999665, 0.529350390, 0.187352804, -0.414822166, -0.820758143],
        ),
        (
            // MultiStepLR([2, 5], 0.1) with LinearLR(start_factor=1/4, end_factor=1, total_iters=3).
            Schedule { decay_at: vec![2, 5], rate_warmup: 4, ..six(Optimiser::Sgd) },
            [
                0.0125, 0.025, 0.0375, 0.05, 0.05, 0.05, 0.005, 0.005, 0.005, 0.005, 0.005, 0.005, 0.005, 0.005, 0.005,
                0.0005, 0.0005, 0.0005,
            ],
            [0.306650787, 0.559909042, 0.487326888, 0.175388517, -0.456861443],
        ),
        (
            // StepLR(2, 0.5).
            Schedule { decay_every: 2, decay: 0.5, ..six(Optimiser::Adam) },
            [
                0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.025, 0.025, 0.025, 0.025, 0.025,
                0.025,
            ],
            [0.572559971, -1.001658610, 1.013233553, 0.224977134, -0.341039672],
        ),
    ];
    for (schedule, rates, expected) in cases {
        for (step, rate) in rates.iter().enumerate() {
            let found = schedule.rate_of_step(step / 3, step);
            assert!((found - rate).abs() < 1e-12, "step {step}: {found}, PyTorch {rate}");
        }
        let mut problem = Problem::new(vec![Phase::default()]);
        let history = trained(&mut problem, &schedule);
        close(&format!("{schedule:?}"), &problem.end(), &expected);
        for (epoch, last) in history.iter().zip(rates.iter().skip(2).step_by(3)) {
            assert!((epoch.learning_rate - last).abs() < 1e-12 && epoch.pairs == 1);
        }
    }
}

/// Four epochs of three steps, each on `a` and then on `b` at half the rate, with the loss of both.
#[test]
fn phases_alternate() {
    let phases = |first| {
        let under = |name: &str| Moves::Under(vec![name.into()]);
        let second = Phase { weights: under("b"), rate: 0.5, epochs: first..usize::MAX };
        vec![Phase { weights: under("a"), ..Phase::default() }, second]
    };
    let short = |optimiser| Schedule { epochs: 4, clip: 0.5, ..base(optimiser) };
    let cases = [
        (
            0,
            Schedule { weight_decay: 0.01, ..short(Optimiser::Adam) },
            [10.041176854, 7.108930923, 4.928641229, 3.154522517],
            [0.305896375, -0.800556186, 1.036428940, 0.148872774, -0.025165533],
        ),
        (
            0,
            short(Optimiser::Sgd),
            [11.159072531, 8.966298770, 6.004001289, 3.170662697],
            [0.890963505, -0.633782270, 0.640109494, 0.122810570, -0.128661885],
        ),
        (
            // The second phase from the third epoch on.
            2,
            Schedule { weight_decay: 0.01, ..short(Optimiser::Adam) },
            [5.329822334, 3.943262806, 5.430547968, 3.420458080],
            [0.410641539, -0.800487492, 1.074691613, 0.450572765, -0.536664344],
        ),
    ];
    for (first, schedule, losses, expected) in cases {
        let mut problem = Problem::new(phases(first));
        let history = trained(&mut problem, &schedule);
        close(&format!("{schedule:?} from {first}"), &problem.end(), &expected);
        for (epoch, loss) in history.iter().zip(losses) {
            assert!((epoch.loss - loss).abs() < 1e-5, "epoch {}: {}, PyTorch {loss}", epoch.epoch, epoch.loss);
        }
    }
}
