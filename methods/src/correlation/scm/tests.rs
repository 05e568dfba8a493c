use std::sync::Arc;

use xmbench_datasets::{Collection, Dataset, Pairs, random::Seed};

use super::*;
use crate::correlation::checks::{codes, cosine, fit, keeps_every_bit};

fn planted() -> Dataset {
    let options = toml::toml! { train = 240 val = 0 test = 60 classes = 6 noise = 1.0 };
    xmbench_datasets::open("planted-clusters", &options, None).unwrap()
}

fn fitted(train: &Collection, table: toml::Table) -> Result<Box<dyn Matcher>> {
    fit(&Scm, 1, train, 6, &table)
}

fn message(train: &Collection, table: toml::Table) -> String {
    fitted(train, table).err().expect("an error").to_string()
}

/// Share of images whose best text is of their class.
fn precision(matcher: &dyn Matcher, split: &Collection) -> f64 {
    let [u, v] = codes(matcher, split);
    let score = |i: usize, j: usize| -> f32 {
        match matcher.similarity() {
            Similarity::Pairwise(scorer) => {
                let mut out = [0.0];
                let (u, v) = (Codes::Dense(u.clone()), Codes::Dense(v.clone()));
                scorer.score(&u, i..i + 1, &v, j..j + 1, &mut out).unwrap();
                out[0]
            }
            _ => cosine(u.row(i), v.row(j)),
        }
    };
    let (images, texts) = (split.images.labels.as_ref().unwrap(), split.texts.labels.as_ref().unwrap());
    let right = (0..u.rows).filter(|&i| {
        let best = (0..v.rows).max_by(|&a, &b| score(i, a).total_cmp(&score(i, b))).unwrap();
        images.of[i] == texts.of[best]
    });
    right.count() as f64 / u.rows as f64
}

#[test]
fn every_mode_and_similarity_finds_the_class() {
    let dataset = planted();
    for mode in ["sm", "scm", "cm"] {
        for similarity in ["cosine", "centred-cosine", "l1", "l2", "kl"] {
            if (mode, similarity) == ("cm", "kl") {
                continue;
            }
            let mut table = toml::toml! { components = 5 };
            table.insert("mode".into(), mode.into());
            table.insert("similarity".into(), similarity.into());
            let precision = precision(&*fitted(&dataset.train, table).unwrap(), &dataset.test);
            assert!(precision > 0.6, "{mode}, {similarity}: {precision}, chance is 1/6");
        }
    }
    for scheme in ["multinomial", "one-vs-rest"] {
        let table =
            toml::Table::from_iter([("scheme".to_string(), scheme.into()), ("components".to_string(), 5.into())]);
        assert!(precision(&*fitted(&dataset.train, table).unwrap(), &dataset.test) > 0.7, "{scheme}");
    }
}

#[test]
fn semantic_codes_are_distributions_and_centred_ones_sum_to_zero() {
    let dataset = planted();
    for mode in ["sm", "scm"] {
        for (similarity, sum) in [("cosine", 1.0), ("centred-cosine", 0.0)] {
            let mut table = toml::toml! { components = 5 };
            table.insert("mode".into(), mode.into());
            table.insert("similarity".into(), similarity.into());
            for codes in codes(&*fitted(&dataset.train, table).unwrap(), &dataset.test) {
                assert_eq!(codes.cols, 6);
                for i in 0..codes.rows {
                    assert!((codes.row(i).iter().sum::<f32>() - sum).abs() < 1e-5);
                }
            }
        }
    }
}

/// CM is the CCA of this family with components of equal weight.
#[test]
fn correlation_matching_needs_no_labels_and_is_cca() {
    let mut train = planted().train;
    (train.images.labels, train.texts.labels) = (None, None);
    let found = codes(&*fitted(&train, toml::toml! { mode = "cm" components = 5 }).unwrap(), &train);
    let expected = cca::fit(
        &train.images.global.as_ref().unwrap().all().unwrap(),
        &train.texts.global.as_ref().unwrap().all().unwrap(),
        train.pairs.all(),
        &Options { components: cca::Components::Exactly(5), ..Options::default() },
    )
    .unwrap();
    let x = expected.x.apply(&train.images.global.as_ref().unwrap().all().unwrap()).unwrap();
    assert!((0..x.nrows()).all(|i| (0..5).all(|j| found[0].row(i)[j] == x[(i, j)] as f32)));
    assert!(message(&train, toml::toml! { mode = "sm" }).contains("needs images.labels"));
}

#[test]
fn saved_matchers_encode_to_the_same_bits() {
    let dataset = planted();
    for table in [
        toml::toml! { mode = "sm" standardise = true similarity = "kl" text = "bow" text_components = 8 },
        toml::toml! { mode = "scm" components = 4 scheme = "one-vs-rest" similarity = "centred-cosine" },
        toml::toml! { mode = "cm" components = 3 similarity = "l1" },
        toml::toml! { mode = "scm" components = 4 c_grid = [0.1, 10, 1000] folds = 3 },
    ] {
        keeps_every_bit(&Scm, &dataset.test, || fitted(&dataset.train, table.clone()));
    }
}

/// A shift or a scale of the features changes nothing once columns are divided by their deviation.
#[test]
fn standardised_features_have_no_unit() {
    let train = planted().train;
    let table = toml::toml! { mode = "sm" standardise = true c = 0.5 };
    let found = codes(&*fitted(&train, table.clone()).unwrap(), &train);
    let mut other = train.clone();
    let mut global = train.images.global.as_ref().unwrap().all().unwrap();
    for i in 0..global.rows {
        global.row_mut(i).iter_mut().enumerate().for_each(|(j, x)| *x = (*x * (1 << (j % 5)) as f32) + 3.0);
    }
    other.images.global = Some(Arc::new(global));
    let again = codes(&*fitted(&other, table).unwrap(), &other);
    let apart = found[0].data.iter().zip(&again[0].data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart < 1e-5, "{apart}");
}

/// With many columns of noise and few items only a strong penalty generalises.
#[test]
fn cross_validation_prefers_the_penalty_that_generalises() {
    let mut stream = Seed(5).stream(&["noise"]);
    let features = Mat::from_fn(60, 40, |i, j| if j == 0 { (i % 2) as f64 } else { 0.0 } + stream.normal());
    let labels = Labels { classes: 2, of: (0..60).map(|i| vec![i as u32 % 2]).collect() };
    let weights = |table: toml::Table| {
        let params = Params::read(&table).unwrap();
        regress(&features, &labels, &params, &mut Seed(1).stream(&["folds"])).unwrap().weights
    };
    let chosen = weights(toml::toml! { c_grid = [1000.0, 0.01] });
    assert_eq!(chosen, weights(toml::toml! { c = 0.01 }));
    assert_ne!(chosen, weights(toml::toml! { c = 1000 }));
}

#[test]
fn folds_share_out_every_class() {
    let classes: Vec<Vec<u32>> = (0..50).map(|i| if i % 10 == 9 { vec![] } else { vec![i % 3] }).collect();
    let folds = folds(&classes, 4, &mut Seed(1).stream(&["folds"]));
    let mut all: Vec<usize> = folds.concat();
    all.sort_unstable();
    assert_eq!(all, (0..50).filter(|i| i % 10 != 9).collect::<Vec<_>>());
    for class in 0..3 {
        let counts = folds.iter().map(|fold| fold.iter().filter(|&&i| classes[i] == [class]).count());
        assert!(counts.clone().max().unwrap() - counts.min().unwrap() <= 1);
    }
}

#[test]
fn a_class_that_training_lacks_has_no_probability() {
    let mut train = planted().train;
    for labels in [&mut train.images.labels, &mut train.texts.labels] {
        labels.as_mut().unwrap().of.iter_mut().filter(|own| **own == [2]).for_each(Vec::clear);
    }
    let [u, v] = codes(&*fitted(&train, toml::toml! { components = 5 similarity = "kl" }).unwrap(), &train);
    assert!((0..u.rows).all(|i| u.row(i)[2] == 0.0 && v.row(i)[2] == 0.0));
    for labels in [&mut train.images.labels, &mut train.texts.labels] {
        labels.as_mut().unwrap().of.iter_mut().for_each(|own| own.retain(|class| *class == 1));
    }
    let message = message(&train, toml::toml! { components = 5 });
    assert!(
        message.contains("images: logistic regression: expected training items of at least 2 classes"),
        "{message}"
    );
}

/// Repeated items, a constant column and fewer items than columns have a unique answer.
#[test]
fn degenerate_features_are_no_trouble() {
    let full = planted().train;
    let items = 12;
    let mut global = Matrix::zeros(items, 32);
    let all = full.images.global.as_ref().unwrap().all().unwrap();
    for i in 0..items {
        global.row_mut(i).copy_from_slice(all.row(i / 2 * 2));
        global.row_mut(i)[3] = 5.0;
    }
    let labels = Labels { classes: 6, of: (0..items).map(|i| vec![(i / 2 * 2 % 6) as u32]).collect() };
    let train = Collection {
        images: Images {
            ids: full.images.ids[..items].to_vec(),
            global: Some(Arc::new(global.clone())),
            labels: Some(labels.clone()),
            ..Images::default()
        },
        texts: Texts {
            ids: full.texts.ids[..items].to_vec(),
            global: Some(Arc::new(global)),
            labels: Some(labels),
            ..Texts::default()
        },
        pairs: Pairs::new(items, items, (0..items as u32).map(|i| (i, i)).collect()),
    };
    for table in
        [toml::toml! { mode = "sm" }, toml::toml! { mode = "sm" standardise = true }, toml::toml! { components = 3 }]
    {
        let [u, v] = codes(&*fitted(&train, table).unwrap(), &train);
        assert!(u.data.iter().all(|x| x.is_finite()));
        assert_eq!(u.row(0), u.row(1));
        assert_eq!(u, v);
    }
    // Six distinct items span five directions.
    assert!(message(&train, toml::toml! { components = 7 }).contains("at most 5 components"));
}

#[test]
fn wrong_parameters_and_inputs_are_named() {
    let train = planted().train;
    assert!(message(&train, toml::toml! { c = 0 }).contains("`c`: expected a number above 0, found 0"));
    assert!(message(&train, toml::toml! { c_grid = [1, -2] }).contains("`c_grid`: expected numbers above 0, found -2"));
    assert!(message(&train, toml::toml! { folds = 1 }).contains("`folds`: expected at least 2"));
    assert!(message(&train, toml::toml! { mode = "cm" similarity = "kl" }).contains("no distributions, found kl"));
    assert!(message(&train, toml::toml! { ridge = -1 }).contains("method `scm`, parameter `ridge`"));
    assert!(message(&train, toml::toml! { mode = "csm" }).contains("`mode`"));
    for table in [toml::toml! { mode = "sm" }, toml::toml! { components = 3 }] {
        let matcher = fitted(&train, table).unwrap();
        let narrow = Images { ids: vec!["a".into()], global: Some(Arc::new(Matrix::zeros(1, 3))), ..Images::default() };
        assert!(matcher.encode_images(&narrow).unwrap_err().to_string().contains("expected vectors of 32 values"));
    }
}
