use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use xmbench_datasets::{Collection, Pairs, random::Seed};

use super::{full_batch::evaluate, *};
use crate::{
    correlation::checks::{codes, fit, run, training},
    method::{Epoch, Observer, Silent},
    train::Step,
};

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
    fit(&Dcca, seed, train, 0, &small(more))
}

/// Sum of the Pearson correlations of the dimensions.
fn total(matcher: &dyn Matcher, items: &Collection) -> f64 {
    let [u, v] = codes(matcher, items);
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
fn two_steps_of_noi_by_hand() {
    let column = |values: [f32; 4]| Some(Arc::new(Matrix { rows: 4, cols: 1, data: values.into() }) as _);
    let ids: Vec<String> = (0..4).map(|i| i.to_string()).collect();
    let train = Collection {
        images: Images { ids: ids.clone(), global: column([0.0, 2.0, 0.0, 4.0]), ..Images::default() },
        texts: Texts { ids, global: column([0.0, 4.0, 0.0, 4.0]), ..Texts::default() },
        pairs: Pairs::new(4, 4, (0..4).map(|i| (i, i)).collect()),
    };
    let params = Params::read(&toml::toml! {
        components = 1 image_widths = [] text_widths = [] solver = "noi" normalise = false
        image_ridge = 2.0 text_ridge = 8.0 rho = 0.16666666666666666
    })
    .unwrap();
    let inputs = params.inputs(&training(&train, 0), Seed(1)).unwrap();
    let model = Networks::new(params, &training(&train, 0), Weights::new(Seed(1), &Device::Cpu), inputs).unwrap();
    for view in ["image", "text"] {
        let weight = model.weights.var(&format!("{view}.0.weight")).unwrap();
        weight.set(&weight.ones_like().unwrap()).unwrap();
    }
    let loss = |batch: &[(u32, u32)], step| {
        let mut step = Step { epoch: 0, step, phase: 0, stream: Seed(1).stream(&["step"]) };
        model.loss(&training(&train, 0), batch, &mut step).unwrap()
    };
    // C1 = -1, 1 and C2 = -2, 2; S11 = 2 and S22 = 8; V1 = C1 / sqrt(2 + 2) and V2 = C2 / sqrt(8 + 8), both -1/2, 1/2.
    let first = loss(&[(0, 0), (1, 1)], 0);
    assert!((first.to_scalar::<f32>().unwrap() - (0.25 + 2.25)).abs() < 1e-6, "{first}");
    // By the weight of the image network: (C1 - V2) C1, summed, with V1 a constant.
    let gradient = first.backward().unwrap();
    let gradient = gradient.get(model.weights.var("image.0.weight").unwrap()).unwrap();
    assert!((gradient.sum_all().unwrap().to_scalar::<f32>().unwrap() - 1.0).abs() < 1e-6);
    // C1 = -2, 2; S11 = 2 / 6 + 8 * 5 / 6 = 7; V1 = C1 / sqrt(7 + 2); the texts are as before.
    let second = loss(&[(2, 2), (3, 3)], 1).to_scalar::<f32>().unwrap();
    assert!((second - (2.25 + 16.0 / 9.0)).abs() < 1e-6, "{second}");
}

#[test]
fn the_gradient_of_all_pairs_is_that_of_finite_differences() {
    // Three blocks of pairs, decoders, weight decay. Networks compute in f32, so the tolerance is wide.
    let train = curved(5000, "train");
    let table = small(
        toml::toml! { image_widths = [5] text_widths = [4] lambda = 0.01 weight_decay = 0.1 activation = "tanh" },
    );
    let params = Params::read(&table).unwrap();
    let inputs = params.inputs(&training(&train, 0), Seed(1)).unwrap();
    let weights = Weights::new(Seed(1), &Device::Cpu);
    let model = Networks::new(params, &training(&train, 0), weights, inputs).unwrap();
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
            let result = Dcca.fit(&training(&train, 0), &table, &mut run);
            // L-BFGS takes all pairs in each step.
            let pairs = if solver == "lbfgs" { 200 } else { 50 };
            assert!(run.history.iter().all(|e| e.pairs == pairs));
            let history: Vec<_> = run.history.iter().map(|e| (e.epoch, e.loss, e.validation)).collect();
            result.map(|matcher| (codes(&*matcher, &train), history))
        };
        let folder = tempfile::tempdir().unwrap();
        let straight = fit(None, 99).unwrap();
        assert_eq!(straight.1.len(), 6);
        assert!(matches!(fit(Some(folder.path()), 3), Err(Error::Interrupted)), "{solver}");
        assert!(fit(Some(folder.path()), 99).unwrap() == straight, "{solver}: other bits after a resume");
        let other = Dcca.fit(&training(&train, 0), &small(toml::toml! { epochs = 7 solver = "lbfgs" }), &mut {
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
    let fit = |threads: usize, seed: u64| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| fitted(&train, toml::toml! { epochs = 2 lambda = 0.1 power = 1.0 }, seed).unwrap())
    };
    let matcher = fit(1, 3);
    let before = codes(&*matcher, &train);
    assert!(before == codes(&*fit(4, 3), &train) && before != codes(&*fit(1, 4), &train));
    let folder = tempfile::tempdir().unwrap();
    matcher.save(folder.path()).unwrap();
    assert!(before == codes(&*Dcca.load(folder.path(), &Device::Cpu).unwrap(), &train));
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
    assert!(fewer.contains("`components`: expected fewer than the 40 training pairs of dataset `toy`"), "{fewer}");
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
    let repeated = with(&|m| {
        (0..m.rows).for_each(|i| m.row(i % 2).to_vec().iter().enumerate().for_each(|(j, &v)| m.row_mut(i)[j] = v))
    });
    for train in [constant, doubled, repeated] {
        let matcher = fitted(&train, more(), 1).unwrap();
        assert!(codes(&*matcher, &train)[0].data.iter().all(|value| value.is_finite()));
    }
    let flat = fitted(&with(&|m| m.data.fill(1.0)), more(), 1).err().unwrap().to_string();
    assert!(flat.contains("constant first view"), "{flat}");
    let huge = fitted(&with(&|m| m.row_mut(3)[1] = f32::NAN), more(), 1).err().unwrap().to_string();
    assert!(huge.contains("found NaN in item 3, column 1"), "{huge}");
    let wild =
        fitted(&curved(120, "train"), toml::toml! { learning_rate = 1e30 activation = "relu" }, 1).err().unwrap();
    assert!(wild.to_string().contains("learning"), "{wild}");
}
