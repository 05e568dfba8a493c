use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use xmbench_datasets::{Collection, Pairs, random::Seed};

use super::{full_batch::evaluate, *};
use crate::method::{Epoch, Observer, Silent};

/// Pairs that share two angles: an image holds their sines, a text their cosines of the double angle, which no linear map relates.
fn curved(n: usize, label: &str) -> Collection {
    let mut stream = Seed(5).stream(&["curved", label]);
    let (mut images, mut texts) = (Matrix::zeros(n, 6), Matrix::zeros(n, 5));
    for i in 0..n {
        let angles = [0, 1].map(|_| stream.uniform(-1.5, 1.5));
        for (j, value) in images.row_mut(i).iter_mut().enumerate() {
            *value = (if j < 2 { angles[j].sin() } else { 0.3 * stream.normal() }) as f32;
        }
        for (j, value) in texts.row_mut(i).iter_mut().enumerate() {
            *value = (if j < 2 { 4.0 * (2.0 * angles[j]).cos() } else { stream.normal() }) as f32;
        }
    }
    let ids: Vec<String> = (0..n).map(|i| i.to_string()).collect();
    Collection {
        images: Images { ids: ids.clone(), global: Some(Arc::new(images)), ..Images::default() },
        texts: Texts { ids, global: Some(Arc::new(texts)), ..Texts::default() },
        pairs: Pairs::new(n, n, (0..n as u32).map(|i| (i, i)).collect()),
    }
}

fn training(train: &Collection) -> Training<'_> {
    Training { dataset: "curved", train, val: None, vocabulary: 0, classes: 0 }
}

fn run<'a>(observer: &'a mut (dyn Observer + Send), stop: &'a AtomicBool, seed: u64) -> Run<'a> {
    Run { seed: Seed(seed), device: Device::Cpu, judge: None, checkpoints: None, observer, stop, history: Vec::new(), control: false }
}

fn small(more: toml::Table) -> toml::Table {
    let base = toml::toml! {
        components = 2
        image_widths = [32]
        text_widths = [32, 32]
        epochs = 30
        batch = 100
        learning_rate = 0.01
    };
    base.into_iter().chain(more).collect()
}

fn fitted(train: &Collection, more: toml::Table, seed: u64) -> Result<Box<dyn Matcher>> {
    let stop = AtomicBool::new(false);
    Dcca.fit(&training(train), &small(more), &mut run(&mut Silent, &stop, seed))
}

fn dense(codes: Codes) -> Matrix {
    match codes {
        Codes::Dense(matrix) => matrix,
        _ => panic!("dense codes"),
    }
}

/// Sum of the Pearson correlations of the dimensions.
fn total(matcher: &dyn Matcher, items: &Collection) -> f64 {
    let (u, v) = (dense(matcher.encode_images(&items.images).unwrap()), dense(matcher.encode_texts(&items.texts).unwrap()));
    let column = |m: &Matrix, k: usize| -> Vec<f64> {
        let values: Vec<f64> = (0..m.rows).map(|i| f64::from(m.row(i)[k])).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        values.iter().map(|value| value - mean).collect()
    };
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    (0..u.cols)
        .map(|k| (column(&u, k), column(&v, k)))
        .map(|(a, b)| dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt())
        .sum()
}

#[test]
fn every_solver_finds_what_no_linear_map_finds() {
    let (train, test) = (curved(800, "train"), curved(300, "test"));
    let linear = fitted(&train, toml::toml! { image_widths = [] text_widths = [] }, 1).unwrap();
    let linear = total(&*linear, &test);
    assert!(linear < 0.4, "linear networks reach {linear}");
    for (more, least) in [
        (toml::toml! { activation = "cubic" }, 1.8),
        (toml::toml! { activation = "relu" objective = "released" }, 1.8),
        (toml::toml! { activation = "tanh" solver = "lbfgs" epochs = 60 }, 1.8),
        (toml::toml! { solver = "noi" batch = 20 rho = 0.95 learning_rate = 0.003 }, 1.8),
        (toml::toml! { lambda = 0.001 top = 2 }, 1.8),
    ] {
        let matcher = fitted(&train, more.clone(), 1).unwrap();
        let found = total(&*matcher, &test);
        assert!(found > least, "{more:?}: total correlation {found} of 2");
    }
}

#[test]
fn the_gradient_of_all_pairs_is_that_of_finite_differences() {
    // Three blocks of pairs, decoders, weight decay. Networks compute in f32, so the tolerance is wide.
    let train = curved(5000, "train");
    let table = small(toml::toml! { image_widths = [5] text_widths = [4] lambda = 0.01 weight_decay = 0.1 activation = "tanh" });
    let params = Params::read(&table).unwrap();
    let inputs = params.inputs(&training(&train), Seed(1)).unwrap();
    let weights = Weights::new(Seed(1), &Device::Cpu);
    let model = Networks::new(params, &training(&train), weights, inputs).unwrap();
    let at = full_batch::pack(&model).unwrap();
    let mut gradient = vec![0.0; at.len()];
    evaluate(&model, &at, &mut gradient).unwrap();
    let largest = gradient.iter().fold(0f64, |most, g| most.max(g.abs()));
    for i in (0..at.len()).step_by(7) {
        let moved = |by: f64| {
            let mut x = at.clone();
            x[i] += by;
            evaluate(&model, &x, &mut vec![0.0; x.len()]).unwrap()
        };
        let difference = (moved(1e-3) - moved(-1e-3)) / 2e-3;
        assert!((gradient[i] - difference).abs() < 1e-3 * largest, "weight {i}: {} {difference}", gradient[i]);
    }
}

/// Stops the run after so many epochs.
struct StopAfter<'a>(usize, &'a AtomicBool);

impl Observer for StopAfter<'_> {
    fn step(&mut self, _: usize, _: usize, _: f64) {}
    fn epoch(&mut self, epoch: &Epoch) {
        self.1.fetch_or(epoch.epoch >= self.0, Ordering::Relaxed);
    }
}

#[test]
fn an_interrupted_training_goes_on_to_the_same_bits() {
    let train = curved(200, "train");
    for solver in ["batches", "lbfgs", "noi"] {
        let mut table = small(toml::toml! { epochs = 6 batch = 50 });
        table.insert("solver".into(), solver.into());
        let fit = |folder: Option<&Path>, after: usize| {
            let stop = AtomicBool::new(false);
            let mut observer = StopAfter(after, &stop);
            let mut run = run(&mut observer, &stop, 2);
            run.checkpoints = folder.map(Path::to_path_buf);
            let judge = |matcher: &dyn Matcher| Ok(total(matcher, &train));
            run.judge = Some(&judge);
            let result = Dcca.fit(&training(&train), &table, &mut run);
            let history: Vec<_> = run.history.iter().map(|e| (e.epoch, e.loss, e.validation)).collect();
            result.map(|matcher| (dense(matcher.encode_images(&train.images).unwrap()), history))
        };
        let folder = tempfile::tempdir().unwrap();
        let straight = fit(None, 99).unwrap();
        assert_eq!(straight.1.len(), 6);
        assert!(matches!(fit(Some(folder.path()), 3), Err(Error::Interrupted)), "{solver}");
        assert!(fit(Some(folder.path()), 99).unwrap() == straight, "{solver}: other bits after a resume");
        let other = Dcca.fit(&training(&train), &small(toml::toml! { epochs = 7 solver = "lbfgs" }), &mut {
            let stop = Box::leak(Box::new(AtomicBool::new(false)));
            let mut run = run(Box::leak(Box::new(Silent)), stop, 2);
            run.checkpoints = Some(folder.path().into());
            run
        });
        if solver == "lbfgs" {
            assert!(other.err().unwrap().to_string().contains("delete the file to start anew"));
        }
    }
}

#[test]
fn saving_keeps_every_bit_and_threads_change_none() {
    let train = curved(150, "train");
    let codes = |matcher: &dyn Matcher| {
        (dense(matcher.encode_images(&train.images).unwrap()), dense(matcher.encode_texts(&train.texts).unwrap()))
    };
    let fit = |threads: usize, seed: u64| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| fitted(&train, toml::toml! { epochs = 2 lambda = 0.1 power = 1.0 }, seed).unwrap())
    };
    let matcher = fit(1, 3);
    let before = codes(&*matcher);
    assert!(before == codes(&*fit(4, 3)) && before != codes(&*fit(1, 4)));
    let folder = tempfile::tempdir().unwrap();
    matcher.save(folder.path()).unwrap();
    assert!(before == codes(&*Dcca.load(folder.path(), &Device::Cpu).unwrap()));
    let narrow = Images { ids: vec!["a".into()], global: Some(Arc::new(Matrix::zeros(1, 3))), ..Images::default() };
    assert!(matcher.encode_images(&narrow).unwrap_err().to_string().contains("expected vectors of 6 values"));
}

#[test]
fn too_few_pairs_and_bad_parameters_are_named() {
    let train = curved(40, "train");
    let error = |more: toml::Table| fitted(&train, more, 1).err().unwrap().to_string();
    let few = error(toml::toml! { components = 20 batch = 20 });
    assert!(few.contains("`batch`: expected more than `components` = 20 pairs, found 20"), "{few}");
    let fewer = error(toml::toml! { components = 40 solver = "lbfgs" });
    assert!(fewer.contains("`components`: expected fewer than the 40 training pairs of dataset `curved`"), "{fewer}");
    assert!(error(toml::toml! { top = 3 }).contains("`top`: expected at most `components`"));
    assert!(error(toml::toml! { image_widths = [8, 0] }).contains("`image_widths`"));
    assert!(error(toml::toml! { rho = 1.0 }).contains("[0, 1), found 1"));
    assert!(error(toml::toml! { final_ridge = -1 }).contains("`final_ridge`"));
    assert!(error(toml::toml! { text = "bow" }).contains("needs texts.bow"));
}

#[test]
fn degenerate_views_are_right_or_clear_errors() {
    let with = |change: &dyn Fn(&mut Matrix)| {
        let mut train = curved(120, "train");
        let mut images = train.images.global.as_ref().unwrap().all().unwrap();
        change(&mut images);
        train.images.global = Some(Arc::new(images));
        train
    };
    let more = || toml::toml! { epochs = 5 };
    // A constant column, a repeated column and repeated rows change nothing but the numbers.
    let constant = with(&|m| (0..m.rows).for_each(|i| m.row_mut(i)[5] = 3.0));
    let doubled = with(&|m| (0..m.rows).for_each(|i| m.row_mut(i)[4] = m.row(i)[0]));
    let repeated = with(&|m| (0..m.rows).for_each(|i| m.row(i % 2).to_vec().iter().enumerate().for_each(|(j, &v)| m.row_mut(i)[j] = v)));
    for train in [constant, doubled, repeated] {
        let matcher = fitted(&train, more(), 1).unwrap();
        assert!(dense(matcher.encode_images(&train.images).unwrap()).data.iter().all(|value| value.is_finite()));
    }
    let flat = fitted(&with(&|m| m.data.fill(1.0)), more(), 1).err().unwrap().to_string();
    assert!(flat.contains("constant first view"), "{flat}");
    let huge = fitted(&with(&|m| m.row_mut(3)[1] = f32::NAN), more(), 1).err().unwrap().to_string();
    assert!(huge.contains("found NaN in item 3, column 1"), "{huge}");
    let wild = fitted(&curved(120, "train"), toml::toml! { learning_rate = 1e30 activation = "relu" }, 1).err().unwrap();
    assert!(wild.to_string().contains("learning"), "{wild}");
}
