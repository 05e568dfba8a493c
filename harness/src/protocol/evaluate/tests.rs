use std::slice::from_ref as one;

use xmbench_datasets::{Images, Labels, Matrix, Pairs, Texts};
use xmbench_methods::Similarity;

use super::*;
use crate::retrieval::{Member, Second};

fn protocol(text: &str) -> Protocol {
    toml::from_str(text).unwrap()
}

/// `n` images, each with one text.
fn paired(n: u32) -> Collection {
    let ids = |prefix: &str| (0..n).map(|i| format!("{prefix}{i}")).collect::<Vec<_>>();
    Collection {
        images: Images { ids: ids("i"), ..Images::default() },
        texts: Texts { ids: ids("t"), ..Texts::default() },
        pairs: Pairs::new(n as usize, n as usize, (0..n).map(|i| (i, i)).collect()),
    }
}

/// Codes of which image `i` scores text `j` by `values[i][j]`: images are the unit vectors.
fn table<const N: usize>(values: [[f32; N]; N]) -> [Codes; 2] {
    let mut images = Matrix::zeros(N, N);
    let mut texts = Matrix::zeros(N, N);
    for (i, row) in values.iter().enumerate() {
        images.row_mut(i)[i] = 1.0;
        for (j, &value) in row.iter().enumerate() {
            texts.row_mut(j)[i] = value;
        }
    }
    [Codes::Dense(images), Codes::Dense(texts)]
}

fn staged<'a>(shortlist: usize) -> Compared<'a> {
    let member = |codes| Member { codes, similarity: Similarity::Dot };
    Compared { first: vec![member(0)], second: Some(Second { members: vec![member(1)], shortlist }) }
}

#[test]
fn a_second_stage_helps_no_query_whose_text_is_not_in_the_shortlist() {
    // The own text of image 0 is second for the first stage, that of image 1 third, that of image 2 first.
    let first = table([[2.0, 3.0, 1.0], [5.0, 3.0, 4.0], [0.0, 1.0, 2.0]]);
    // The second stage is always right.
    let second = table([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]);
    let (collection, protocol) = (paired(3), protocol("task = { kind = 'pairs', cutoffs = [1, 2, 3] }"));
    let [images, texts] = [0, 1].map(|side| [first[side].clone(), second[side].clone()]);
    let side = Side { collection: &collection, images: &images, texts: &texts };
    let percent = |queries: f64| 100.0 * queries / 3.0;
    for (shortlist, held) in [(1, 1.0), (2, 2.0), (3, 3.0), (99, 3.0)] {
        let found = evaluate(&protocol, side, side, staged(shortlist)).unwrap().metrics;
        for name in ["i2t in shortlist", "i2t R@1"] {
            assert!((found[name] - percent(held)).abs() < 1e-9, "{shortlist}: {name} is {}", found[name]);
        }
    }
    // Columns: text 0 finds its image second, text 1 at first (with text 0's score tied: 3, 3), text 2 second.
    let found = evaluate(&protocol, side, side, staged(1)).unwrap();
    // Images 0 and 1 tie for text 1 at 3: the lower position takes the only place, and it is not the own one.
    assert_eq!(found.metrics["t2i in shortlist"], 0.0);
    let found = evaluate(&protocol, side, side, staged(2)).unwrap();
    assert_eq!(found.metrics["t2i in shortlist"], 100.0);
    assert!(found.envelope.is_empty());
    let alone = evaluate(&protocol, side, side, Similarity::Dot).unwrap();
    assert!(!alone.metrics.contains_key("i2t in shortlist"));
}

#[test]
fn a_shortlist_of_everything_gives_the_metrics_of_the_second_stage() {
    let first = table([[2.0, 3.0, 1.0, 0.0], [5.0, 3.0, 4.0, 0.0], [0.0, 1.0, 2.0, 2.0], [1.0, 1.0, 1.0, 1.0]]);
    let second = table([[1.0, 1.0, 0.0, 2.0], [0.0, 3.0, 3.0, 3.0], [0.0, 0.0, 0.0, 0.0], [2.0, 1.0, 4.0, 3.0]]);
    let collection = paired(4);
    for text in ["task = { kind = 'pairs', cutoffs = [1, 2] }", "task = { kind = 'pairs', cutoffs = [1], folds = 2 }"] {
        let protocol = protocol(text);
        let [images, texts] = [0, 1].map(|side| [first[side].clone(), second[side].clone()]);
        let both = Side { collection: &collection, images: &images, texts: &texts };
        let mut found = evaluate(&protocol, both, both, staged(4)).unwrap();
        for direction in ["i2t", "t2i"] {
            assert_eq!(found.metrics.remove(&format!("{direction} {IN_SHORTLIST}")), Some(100.0));
        }
        let side = Side { collection: &collection, images: one(&second[0]), texts: one(&second[1]) };
        let alone = evaluate(&protocol, side, side, Similarity::Dot).unwrap();
        // NaN average precisions of the pairs task make queries unequal to themselves.
        assert_eq!(format!("{found:?}"), format!("{alone:?}"));
    }
}

#[test]
fn a_category_query_is_held_by_any_item_of_its_class() {
    let mut collection = paired(3);
    let labels = |of: [&[u32]; 3]| Some(Labels { classes: 9, of: of.into_iter().map(<[u32]>::to_vec).collect() });
    collection.images.labels = labels([&[0], &[1], &[2]]);
    collection.texts.labels = labels([&[1], &[0], &[0]]);
    let first = table([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]);
    let side = Side {
        collection: &collection,
        images: &[first[0].clone(), first[0].clone()],
        texts: &[first[1].clone(), first[1].clone()],
    };
    let protocol = protocol("task = { kind = 'category', cutoffs = [] }");
    // Image 0 finds class 0 second, image 1 class 1 third, image 2 nothing ever.
    for (shortlist, held) in [(1, 0.0), (2, 1.0), (3, 2.0)] {
        let found = evaluate(&protocol, side, side, staged(shortlist)).unwrap().metrics["i2t in shortlist"];
        assert!((found - 100.0 * held / 3.0).abs() < 1e-9, "{shortlist}: {found}");
    }
}

#[test]
fn correlation_knows_no_scores_to_combine() {
    let collection = paired(3);
    let codes = table([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]);
    let [images, texts] = [0, 1].map(|side| [codes[side].clone(), codes[side].clone()]);
    let side = Side { collection: &collection, images: &images, texts: &texts };
    let protocol = protocol("task = { kind = 'correlation', dimensions = 2 }");
    let error = evaluate(&protocol, side, side, staged(2)).unwrap_err().to_string();
    insta::assert_snapshot!(error, @"matchers: expected one: correlation compares codes and no scores, found 2; evaluate each matcher alone, or choose another task");
}
