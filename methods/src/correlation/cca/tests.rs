use xmbench_datasets::{Collection, Matrix, Pairs, SparseRows, random::Seed};

use super::*;
use crate::correlation::checks::{codes, cosine, fit, keeps_every_bit};

fn fitted(train: &Collection, table: toml::Table) -> Result<Box<dyn Matcher>> {
    fit(&Cca, 1, train, 0, &table)
}

/// `n` images and `2 n` texts: a text names its image's topic with words of that topic.
fn toy(n: usize, label: &str) -> Collection {
    let mut stream = Seed(4).stream(&["toy", label]);
    let (topics, words) = (8, 40);
    let mut global = Matrix::zeros(n, 12);
    let mut rows = Vec::new();
    for i in 0..n {
        let topic = i % topics;
        for (j, value) in global.row_mut(i).iter_mut().enumerate() {
            *value = (if j == topic { 3.0 } else { 0.0 } + 0.3 * stream.normal()) as f32;
        }
        for _ in 0..2 {
            let chosen: std::collections::BTreeSet<u32> = (0..4)
                .map(|_| if stream.unit() < 0.8 { topic * 5 + stream.below(5) } else { stream.below(words) } as u32)
                .collect();
            let norm = (chosen.len() as f32).sqrt();
            rows.push(chosen.into_iter().map(|word| (word, 1.0 / norm)).collect());
        }
    }
    let ids = |count: usize| (0..count).map(|i| i.to_string()).collect();
    Collection {
        images: Images { ids: ids(n), global: Some(std::sync::Arc::new(global)), ..Images::default() },
        texts: Texts { ids: ids(2 * n), bow: Some(SparseRows { cols: words, rows }), ..Texts::default() },
        pairs: Pairs::new(n, 2 * n, (0..2 * n as u32).map(|t| (t / 2, t)).collect()),
    }
}

#[test]
fn texts_find_their_topic() {
    let (train, test) = (toy(200, "train"), toy(80, "test"));
    for table in [toml::Table::new(), toml::toml! { text_components = 0 power = 0 standardise = true }] {
        let matcher = fitted(&train, table).unwrap();
        let [u, v] = codes(&*matcher, &test);
        let right = (0..v.rows).filter(|&t| {
            let best = (0..u.rows).max_by(|&a, &b| cosine(u.row(a), v.row(t)).total_cmp(&cosine(u.row(b), v.row(t))));
            best.unwrap() % 8 == t / 2 % 8
        });
        let accuracy = right.count() as f64 / v.rows as f64;
        assert!(accuracy > 0.8, "{accuracy}, chance is 0.125");
    }
}

#[test]
fn saved_matchers_encode_to_the_same_bits() {
    let train = toy(60, "train");
    for table in [toml::toml! { text_components = 10 }, toml::toml! { text_components = 0 components = 3 }] {
        keeps_every_bit(&Cca, &train, || fitted(&train, table.clone()));
    }
}

#[test]
fn more_components_than_there_are_is_an_error_that_counts_them() {
    let error = fitted(&toy(60, "train"), toml::toml! { components = 30 }).err().unwrap().to_string();
    assert!(error.contains("at most 12 components"), "{error}");
}

#[test]
fn wrong_parameters_and_inputs_are_named() {
    let train = toy(20, "train");
    let error = |table: toml::Table| fitted(&train, table).err().unwrap().to_string();
    assert!(error(toml::toml! { ridge = -1 }).contains("`ridge`: expected a number of at least 0, found -1"));
    assert!(error(toml::toml! { ridge = 2 ridge_convention = "shrinkage" }).contains("[0, 1]"));
    assert!(error(toml::toml! { rigde = 2 }).contains("did you mean `ridge`?"));
    assert!(error(toml::toml! { text = "global" }).contains("needs texts.global"));
    let matcher = fitted(&train, toml::Table::new()).unwrap();
    let narrow =
        Images { ids: vec!["a".into()], global: Some(std::sync::Arc::new(Matrix::zeros(1, 3))), ..Images::default() };
    assert!(matcher.encode_images(&narrow).unwrap_err().to_string().contains("expected vectors of 12 values"));
}

#[test]
fn golden_files_agree() {
    crate::golden::assert_files(&Cca.operations());
}
