use std::slice::from_ref as one;

use xmbench_datasets::{Collection, Images, Labels, Matrix, Pairs, Split, Texts};
use xmbench_methods::{Bits, Codes, Similarity};

use super::{ranking::tests::close, *};

fn images(n: usize, labels: Option<Labels>) -> Images {
    Images { ids: (0..n).map(|i| format!("image {i}")).collect(), labels, ..Images::default() }
}

fn texts(n: usize, labels: Option<Labels>) -> Texts {
    Texts { ids: (0..n).map(|i| format!("text {i}")).collect(), labels, ..Texts::default() }
}

fn collection(n: usize, m: usize, pairs: &[(u32, u32)]) -> Collection {
    Collection { images: images(n, None), texts: texts(m, None), pairs: Pairs::new(n, m, pairs.to_vec()) }
}

fn labelled(image_classes: &[&[u32]], text_classes: &[&[u32]]) -> Collection {
    let labels = |sets: &[&[u32]]| Some(Labels { classes: 70, of: sets.iter().map(|set| set.to_vec()).collect() });
    let (n, m) = (image_classes.len(), text_classes.len());
    let pairs = (0..n.min(m) as u32).map(|i| (i, i)).collect();
    Collection {
        images: images(n, labels(image_classes)),
        texts: texts(m, labels(text_classes)),
        pairs: Pairs::new(n, m, pairs),
    }
}

fn pairs_protocol(folds: usize) -> Protocol {
    let task = Task::Pairs { cutoffs: vec![1, 2], folds };
    Protocol { task, split: Split::Test, select_on: Split::Val, ties: Ties::Expected }
}

fn category_protocol(gallery: Split) -> Protocol {
    let task = Task::Category { gallery, cutoffs: vec![2], denominator: Denominator::Hits };
    Protocol { task, split: Split::Test, select_on: Split::Val, ties: Ties::Expected }
}

fn correlation_protocol(dimensions: usize) -> Protocol {
    Protocol { task: Task::Correlation { dimensions }, ..pairs_protocol(1) }
}

/// Scores are given one by one: images are unit vectors, and a text's code lists its score with each.
fn planted(scores: &[&[f32]]) -> (Codes, Codes) {
    let (n, m) = (scores.len(), scores[0].len());
    let mut images = Matrix::zeros(n, n);
    (0..n).for_each(|i| images.row_mut(i)[i] = 1.0);
    let data = (0..m).flat_map(|j| scores.iter().map(move |row| row[j])).collect();
    (Codes::Dense(images), Codes::Dense(Matrix { rows: m, cols: n, data }))
}

#[test]
fn pairs_by_hand() {
    // Image 0 has texts 0 and 1, image 1 has text 2, and text 1 also shows image 1.
    let collection = collection(2, 3, &[(0, 0), (0, 1), (1, 1), (1, 2)]);
    let (images, texts) = planted(&[&[0.5, 0.5, 0.9], &[0.5, 0.1, 0.1]]);
    let side = Side { collection: &collection, images: one(&images), texts: one(&texts) };
    let found = evaluate(&pairs_protocol(1), side, side, Similarity::Dot).unwrap();
    // Image 0: text 2 is better, its own two tie: rank 2. Image 1: text 0 is better, its own two tie: rank 2.
    assert_eq!((found.metrics["i2t R@1"], found.metrics["i2t R@2"]), (0.0, 100.0));
    assert_eq!((found.metrics["i2t MedR"], found.metrics["i2t MeanR"]), (2.0, 2.0));
    // Text 0 ties between its image 0 and image 1; text 1's best is its image 0; text 2's image 1 is behind image 0.
    assert_eq!((found.metrics["t2i R@1"], found.metrics["t2i R@2"]), (50.0, 100.0));
    assert_eq!(found.metrics["t2i MeanR"], (1.5 + 1.0 + 2.0) / 3.0);
    assert_eq!(found.metrics["rsum"], 250.0);
    let [low, high] = found.envelope["t2i R@1"];
    assert!(close(low, 100.0 / 3.0) && close(high, 200.0 / 3.0));
    assert!(!found.envelope.contains_key("i2t R@1"));
    assert_eq!(selection_score(&found, &pairs_protocol(1)), 250.0);
    assert_eq!(judge(&pairs_protocol(1), side, side, Similarity::Dot).unwrap(), 250.0);
    let clusters: Vec<(u32, u32)> = found.queries.iter().map(|query| (query.query, query.cluster)).collect();
    assert_eq!(clusters, [(0, 0), (1, 1), (0, 0), (1, 0), (2, 1)]);
    assert_eq!(found.curves["t2i recall@n"], [[1.0, 50.0], [2.0, 100.0]]);
    let optimistic = Protocol { ties: Ties::Optimistic, ..pairs_protocol(1) };
    let found = evaluate(&optimistic, side, side, Similarity::Dot).unwrap();
    assert!(close(found.metrics["t2i R@1"], high));
}

#[test]
fn folds_average_their_own_galleries() {
    let mut stream = xmbench_datasets::random::Seed(1).stream(&["folds"]);
    let (n, each) = (7, 3);
    let pairs: Vec<(u32, u32)> = (0..n * each).map(|t| (t / each, t)).collect();
    let whole = collection(n as usize, (n * each) as usize, &pairs);
    let mut codes = |rows: u32| Matrix {
        rows: rows as usize,
        cols: 4,
        data: (0..rows * 4).map(|_| stream.normal() as f32).collect(),
    };
    let (a, b) = (codes(n), codes(n * each));
    let part = |from: usize, to: usize| {
        let pairs: Vec<(u32, u32)> = (0..(to - from) as u32 * each).map(|t| (t / each, t)).collect();
        let collection = collection(to - from, (to - from) * 3, &pairs);
        let rows = |m: &Matrix, from: usize, to: usize| {
            Codes::Dense(Matrix { rows: to - from, cols: 4, data: m.data[from * 4..to * 4].to_vec() })
        };
        let (images, texts) = (rows(&a, from, to), rows(&b, from * 3, to * 3));
        let side = Side { collection: &collection, images: one(&images), texts: one(&texts) };
        evaluate(&pairs_protocol(1), side, side, Similarity::Cosine).unwrap()
    };
    // 7 images in 2 folds: 3 and 4.
    let parts = [part(0, 3), part(3, 7)];
    let (images, texts) = (Codes::Dense(a.clone()), Codes::Dense(b.clone()));
    let side = Side { collection: &whole, images: one(&images), texts: one(&texts) };
    let found = evaluate(&pairs_protocol(2), side, side, Similarity::Cosine).unwrap();
    for (name, value) in &found.metrics {
        assert!(close(*value, (parts[0].metrics[name] + parts[1].metrics[name]) / 2.0), "{name}");
    }
    assert_eq!(found.queries.len(), 28);
    let second: Vec<u32> = found.queries[12..16].iter().map(|query| query.query).collect();
    assert_eq!(second, [3, 4, 5, 6]);
    let error = evaluate(&pairs_protocol(8), side, side, Similarity::Cosine).unwrap_err().to_string();
    assert_eq!(error, "folds: expected at most 7, one an image, found 8; use fewer folds or a larger split");
}

#[test]
fn category_by_hand() {
    // The train split is the gallery. Class 69 lies in the second word of a class set.
    let queries = labelled(&[&[0], &[69, 3]], &[&[69], &[1]]);
    let gallery = labelled(&[&[0, 1], &[69], &[2]], &[&[0], &[0], &[3], &[5]]);
    let bits = |codes: &[u64]| Codes::Binary(Bits { bits: 4, words: codes.to_vec() });
    let (qi, qt) = (bits(&[0b0000, 0b1111]), bits(&[0b0000, 0b0011]));
    let (gi, gt) = (bits(&[0b0000, 0b0001, 0b1111]), bits(&[0b0000, 0b0011, 0b0001, 0b0010]));
    let query = Side { collection: &queries, images: one(&qi), texts: one(&qt) };
    let gallery_side = Side { collection: &gallery, images: one(&gi), texts: one(&gt) };
    let protocol = category_protocol(Split::Train);
    let found = evaluate(&protocol, query, gallery_side, Similarity::Hamming).unwrap();
    // Image 0: distances 0, 2, 1, 1 with relevant 0 and 1: ranks 1 and 4: AP = (1 + 2/4) / 2.
    // Image 1: distances 4, 2, 3, 3 with relevant 2: ranks 2 or 3: AP = (1/2 + 1/3) / 2.
    assert!(close(found.metrics["i2t MAP@all"], (0.75 + 5.0 / 12.0) / 2.0));
    // Within 2, over hits: image 0 has 1; image 1 has 1/2 or nothing.
    assert!(close(found.metrics["i2t MAP@2"], (1.0 + 0.25) / 2.0));
    assert_eq!(found.envelope["i2t MAP@2"], [0.5, 0.75]);
    assert!(close(found.metrics["i2t P@2"], (0.5 + 0.25) / 2.0));
    // Within R: image 0 has 1 of its 2 at rank 1; image 1 has 1, which is not first.
    assert!(close(found.metrics["i2t MAP@R"], (0.5 + 0.0) / 2.0));
    // Every metric is the mean of what its queries contribute.
    assert_eq!(found.values["i2t MAP@2"], [1.0, 0.25]);
    for (name, values) in &found.values {
        assert!(close(found.metrics[name], values.iter().sum::<f64>() / 2.0), "{name}");
    }
    assert_eq!(found.values.len(), 2 * 4);
    // Radius by radius, image 0 finds 1, 3, 4, 4, 4 items with 1, 1, 2, 2, 2 of its 2; image 1 finds 0, 0, 1, 3, 4 with 0, 0, 0, 1, 1 of
    // its 1.
    let curve = |name: &str| found.curves[name].iter().map(|[_, y]| *y).collect::<Vec<f64>>();
    let precision = [0.5, 1.0 / 6.0, 0.25, 5.0 / 12.0, 0.375];
    assert!(curve("i2t precision@radius").iter().zip(precision).all(|(a, b)| close(*a, b)));
    assert_eq!(curve("i2t recall@radius"), [0.25, 0.25, 0.5, 1.0, 1.0]);
    assert_eq!(found.curves["t2i recall@radius"].last(), Some(&[4.0, 1.0]));
    // Text 0 (class 69): image 1 at distance 1 is second. Text 1 (class 1): distances 2, 1, 2: ranks 2 or 3.
    assert!(close(found.metrics["t2i MAP@all"], (0.5 + 5.0 / 12.0) / 2.0));
    assert!(close(found.metrics["MAP@all"], (found.metrics["i2t MAP@all"] + found.metrics["t2i MAP@all"]) / 2.0));
    let judged = judge(&protocol, query, gallery_side, Similarity::Hamming).unwrap();
    assert!(close(judged, found.metrics["MAP@all"]));
    let record = found.queries[1];
    assert_eq!((record.better, record.tied, record.own), (1, 2, 1));
    assert!(close(record.average_precision, 5.0 / 12.0));
    assert_eq!(found.curves["i2t precision-recall"].len(), 11);
    assert_eq!(found.curves["i2t precision-recall full"].len(), 101);
    let depths: Vec<f64> = found.curves["i2t precision@n"].iter().map(|point| point[0]).collect();
    assert_eq!(depths, [1.0, 2.0, 3.0, 4.0]);
    assert!(close(found.curves["i2t precision@n"][3][1], (2.0 / 4.0 + 1.0 / 4.0) / 2.0));
}

#[test]
fn a_query_without_relevant_items_counts_nothing() {
    let queries = labelled(&[&[0], &[9]], &[&[0], &[9]]);
    let codes = Codes::Dense(Matrix { rows: 2, cols: 1, data: vec![1.0, 1.0] });
    let gallery = labelled(&[&[0]], &[&[0]]);
    let single = Codes::Dense(Matrix { rows: 1, cols: 1, data: vec![1.0] });
    let query = Side { collection: &queries, images: one(&codes), texts: one(&codes) };
    let found = evaluate(
        &category_protocol(Split::Train),
        query,
        Side { collection: &gallery, images: one(&single), texts: one(&single) },
        Similarity::Dot,
    );
    let found = found.unwrap();
    for name in ["i2t MAP@all", "i2t MAP@2", "i2t P@2", "i2t nDCG@2", "MAP@all"] {
        assert!(close(found.metrics[name], 0.5), "{name}");
    }
    assert!(found.envelope.is_empty());
    assert_eq!((found.queries[1].better, found.queries[1].tied, found.queries[1].own), (1, 0, 0));
}

/// A `.npy` file of f32.
fn npy(path: &std::path::Path, rows: usize, values: &[f32]) {
    let mut header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {}), }}", values.len() / rows);
    header.extend(std::iter::repeat_n(' ', 117 - header.len()));
    let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    bytes.extend(header.bytes().chain([b'\n']));
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    std::fs::write(path, bytes).unwrap();
}

/// From files to numbers: items without a class, a class that no gallery item has, and codes that are all the same.
#[test]
fn degenerate_labels_and_codes_give_the_numbers_of_chance() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("features");
    std::fs::create_dir(&folder).unwrap();
    // Queries: of class 0, of none, of class 2, which is nowhere else. Database: 0, 0 and 1, none, 1, none.
    let labels = [[1, 0, 0], [0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0]];
    npy(&folder.join("labels.npy"), 8, &labels.concat().iter().map(|&of| of as f32).collect::<Vec<_>>());
    for name in ["images.npy", "texts.npy"] {
        npy(&folder.join(name), 8, &(0..8).map(|i| i as f32).collect::<Vec<_>>());
    }
    let options = [("split", toml::Value::from("first")), ("queries", 3.into()), ("train", 2.into())];
    let options = options.map(|(key, value)| (key.to_string(), value)).into_iter().collect();
    let dataset = xmbench_datasets::open("features", &options, Some(root.path())).unwrap();
    let protocol = category_protocol(Split::Database);
    let (queries, gallery) = (&dataset.test, dataset.split(protocol.gallery()).unwrap());
    assert_eq!((queries.images.len(), gallery.images.len(), dataset.train.images.len()), (3, 5, 2));
    let same = |n: usize| Codes::Binary(Bits { bits: 8, words: vec![0b1010_0110; n] });
    let (three, five) = (same(3), same(5));
    let side = |collection, codes| Side { collection, images: one(codes), texts: one(codes) };
    let found = evaluate(&protocol, side(queries, &three), side(gallery, &five), Similarity::Hamming).unwrap();
    assert_eq!(found.metrics, chance(&protocol, queries, gallery).unwrap().metrics);
    assert!(found.metrics.values().all(|value| value.is_finite()));
    // The first query has 2 of 5: P@2 is 2 / 5; the two others count 0.
    assert!(close(found.metrics["i2t P@2"], 0.4 / 3.0));
    assert_eq!(found.values["i2t P@2"], [0.4, 0.0, 0.0]);
    assert_eq!(found.envelope["i2t P@2"], [0.0, 1.0 / 3.0]);
    // Everything lies within radius 0.
    assert_eq!(found.curves["i2t recall@radius"], (0..=8).map(|r| [f64::from(r), 1.0 / 3.0]).collect::<Vec<_>>());
    assert_eq!(found.queries.iter().filter(|query| query.own == 0).count(), 4);
}

#[test]
fn chance_is_what_constant_scores_get() {
    let pairs = [(0, 0), (0, 1), (1, 2), (2, 3), (2, 4), (2, 5), (3, 6), (3, 1)];
    let whole = collection(4, 7, &pairs);
    let same = |n: usize| Codes::Dense(Matrix { rows: n, cols: 1, data: vec![1.0; n] });
    let (a, b) = (same(4), same(7));
    let side = Side { collection: &whole, images: one(&a), texts: one(&b) };
    for folds in [1, 2] {
        let protocol = pairs_protocol(folds);
        let scored = evaluate(&protocol, side, side, Similarity::Cosine).unwrap();
        assert_eq!(chance(&protocol, &whole, &whole).unwrap().metrics, scored.metrics);
        // 1 - C(n - p, k) / C(n, k), of each query; 0.1 = 1 / 10 and so on by hand for one fold.
        if folds == 1 {
            let hits = [2.0, 1.0, 3.0, 2.0].map(|own| own / 7.0);
            assert!(close(scored.metrics["i2t R@1"], 25.0 * hits.iter().sum::<f64>()));
            assert!(close(scored.metrics["t2i R@1"], 100.0 * (6.0 * 0.25 + 0.5) / 7.0));
        }
    }
    let classes = labelled(&[&[0], &[1], &[0, 1]], &[&[0], &[1], &[1]]);
    let codes = same(3);
    let side = Side { collection: &classes, images: one(&codes), texts: one(&codes) };
    let protocol = category_protocol(Split::Test);
    let scored = evaluate(&protocol, side, side, Similarity::Dot).unwrap();
    let chance = chance(&protocol, &classes, &classes).unwrap();
    assert_eq!(chance.metrics, scored.metrics);
    let others = |curves: &std::collections::BTreeMap<String, Vec<[f64; 2]>>| {
        let mut curves = curves.clone();
        curves.retain(|name, _| !name.ends_with("precision-recall"));
        curves
    };
    assert_eq!(others(&chance.curves), others(&scored.curves));
}

/// Two items of which one is relevant: first in half of the orders. And of many the curve ends at the share, and begins far above it.
#[test]
fn the_interpolated_precision_of_chance_is_that_of_random_orders() {
    let curve = |items: usize, relevant: usize| {
        let of = |count: usize| (0..count).map(|_| &[0u32][..]).collect::<Vec<_>>();
        let texts: Vec<&[u32]> = (0..items).map(|at| if at < relevant { &[0u32][..] } else { &[1][..] }).collect();
        let data = labelled(&of(items), &texts);
        chance(&category_protocol(Split::Test), &data, &data).unwrap().curves["i2t precision-recall"].clone()
    };
    let two = curve(2, 1);
    assert!(two.iter().all(|[_, precision]| (precision - 0.75).abs() < 0.1 && *precision == two[0][1]), "{two:?}");
    let many = curve(200, 20);
    assert!((many[10][1] - 0.1).abs() < 0.01, "{many:?}");
    assert!(many[0][1] > 0.15 && many.windows(2).all(|pair| pair[0][1] >= pair[1][1]), "{many:?}");
    assert_eq!(many, curve(200, 20));
}

#[test]
fn correlation_by_hand() {
    // Pairs (0, 0), (0, 1), (1, 2), (2, 3): the image 0 counts twice.
    let collection = collection(3, 4, &[(0, 0), (0, 1), (1, 2), (2, 3)]);
    let matrix = |rows: &[[f32; 4]]| Codes::Dense(Matrix { rows: rows.len(), cols: 4, data: rows.concat() });
    // Dimension 1 of the pairs: 0 0 3 3 against 1 2 3 4, r = 2 / sqrt 5. Dimension 2 runs against itself, r = -1. Dimension 3 is
    // constant in the texts. Dimension 4 is not counted.
    let images = matrix(&[[0.0, 0.1, 1.0, 5.0], [3.0, 0.2, 2.0, 1.0], [3.0, 0.4, 3.0, 2.0]]);
    let texts = [[1.0, -10.0, 0.1, 1.0], [2.0, -10.0, 0.1, 2.0], [3.0, -20.0, 0.1, 3.0], [4.0, -40.0, 0.1, 4.0]];
    let texts = matrix(&texts);
    let side = Side { collection: &collection, images: one(&images), texts: one(&texts) };
    let protocol = correlation_protocol(3);
    let found = evaluate(&protocol, side, side, Similarity::Cosine).unwrap();
    let expected = 2.0 / 5f64.sqrt();
    assert!((found.metrics["correlation"] - (expected - 1.0)).abs() < 1e-7, "{:?}", found.metrics);
    let curve = &found.curves["correlation by dimension"];
    assert_eq!((curve.len(), curve[2]), (3, [3.0, 0.0]));
    assert!((curve[0][1] - expected).abs() < 1e-12 && (curve[1][1] + 1.0).abs() < 1e-6);
    assert_eq!(judge(&protocol, side, side, Similarity::Cosine).unwrap(), found.metrics["correlation"]);
    assert!(found.queries.is_empty() && found.envelope.is_empty());
    let chance = chance(&protocol, &collection, &collection).unwrap();
    assert_eq!((chance.metrics["correlation"], chance.curves["correlation by dimension"].len()), (0.0, 3));
}

#[test]
fn correlation_needs_dense_codes_of_one_width() {
    let two = collection(2, 2, &[(0, 0), (1, 1)]);
    let message = |collection: &Collection, images: Codes, texts: Codes| {
        let side = Side { collection, images: one(&images), texts: one(&texts) };
        evaluate(&correlation_protocol(3), side, side, Similarity::Dot).unwrap_err().to_string()
    };
    let dense = |cols| Codes::Dense(Matrix::zeros(2, cols));
    let bits = || Codes::Binary(Bits { bits: 64, words: vec![0; 2] });
    let messages = [
        message(&two, dense(3), dense(4)),
        message(&two, dense(2), dense(2)),
        message(&two, bits(), bits()),
        message(&collection(2, 2, &[(0, 0)]), dense(3), dense(3)),
        correlation_protocol(0).check().unwrap_err().to_string(),
        correlation_protocol(50).to_string(),
    ];
    insta::assert_snapshot!(messages.join("\n"), @r"
    codes: expected one width for images and texts, at least the 3 dimensions of the protocol, found 3 and 4; fit with more components, or lower `dimensions`
    codes: expected one width for images and texts, at least the 3 dimensions of the protocol, found 2 and 2; fit with more components, or lower `dimensions`
    codes of the images: expected one real vector an item, to correlate, found packed bits; choose a method with dense codes, or another task
    pairs of the scored split: expected at least two, found 1; choose another split
    protocol, `dimensions`: expected at least 1, found 0; correct the experiment's protocol
    correlation: Pearson over the pairs of the test split, summed over the first 50 dimensions; selected on val
    ");
}

#[test]
fn bad_input_is_named() {
    let lonely = collection(2, 2, &[(0, 0), (0, 1)]);
    let codes = |rows| Codes::Dense(Matrix::zeros(rows, 2));
    let (two, three) = (codes(2), codes(3));
    let pairs = |collection: &Collection, images: &Codes| {
        let side = Side { collection, images: one(images), texts: one(&two) };
        evaluate(&pairs_protocol(1), side, side, Similarity::Dot).unwrap_err().to_string()
    };
    let side = Side { collection: &lonely, images: one(&two), texts: one(&two) };
    let category = evaluate(&category_protocol(Split::Test), side, side, Similarity::Dot).unwrap_err().to_string();
    let with = |task| Protocol { task, ..pairs_protocol(1) }.check().unwrap_err().to_string();
    let messages = [
        pairs(&lonely, &two),
        pairs(&lonely, &three),
        pairs(&collection(0, 2, &[]), &two),
        category,
        with(Task::Pairs { cutoffs: vec![0], folds: 1 }),
        with(Task::Pairs { cutoffs: vec![], folds: 1 }),
        with(Task::Pairs { cutoffs: vec![5, 5], folds: 1 }),
        with(Task::Pairs { cutoffs: vec![1], folds: 0 }),
        Protocol { select_on: Split::Database, ..pairs_protocol(1) }.check().unwrap_err().to_string(),
    ];
    insta::assert_snapshot!(messages.join("\n"), @r"
    image 1 of the scored split: expected at least one text that belongs to it, found none; drop it from the split or add its pair
    codes of the query images: expected 2, one an item, found 3; encode every item once, in order
    images of the query split: expected at least one, found none; choose a split that has some
    labels of the images: expected classes, which the category task compares, found none; choose a dataset with labels or the pairs task
    protocol, `cutoffs`: expected numbers from 1 to 4294967295, found 0; correct the experiment's protocol
    protocol, `cutoffs`: expected at least one number, found none; correct the experiment's protocol
    protocol, `cutoffs`: expected different numbers, found [5, 5]; correct the experiment's protocol
    protocol, `folds`: expected at least 1, found 0; correct the experiment's protocol
    protocol, `select_on`: expected train, val or test: a database is searched and asks nothing, found database; correct the experiment's protocol
    ");
}

#[test]
fn nothing_is_selected_on_a_split_that_is_not_there() {
    let protocol: Protocol = toml::from_str("task = { kind = 'pairs' }").unwrap();
    let with = protocol.with_splits(["test", "train", "val"].iter());
    assert!(with == protocol.to_string() && with.ends_with("; selected on val"), "{with}");
    let without = protocol.with_splits(["test", "train"].iter());
    assert_eq!(without, with.replace("selected on val", "nothing is selected, there is no val split"));
}

#[test]
fn protocols_describe_themselves() {
    let five = Protocol { select_on: Split::Test, ..pairs_protocol(5) };
    let worst = Protocol { ties: Ties::Pessimistic, ..category_protocol(Split::Train) };
    let database = category_protocol(Split::Database);
    insta::assert_snapshot!(format!("{}\n{five}\n{worst}\n{database}", pairs_protocol(1)), @r"
    pairs: gallery the whole test split; R@1, R@2 = best-ranked own item, percent; ties: expected value over all orders; selected on val
    pairs: mean of 5 consecutive folds of the test split, gallery the fold; R@1, R@2 = best-ranked own item, percent; ties: expected value over all orders; selected on test †
    category: queries test, gallery train, relevant = shares a class; MAP@all, MAP@R, MAP@2 over hits within k, P@2, nDCG@2; queries without relevant items count 0; ties: worst order; selected on val
    category: queries test, gallery database (all but the queries; train where the dataset has none), relevant = shares a class; MAP@all, MAP@R, MAP@2 over hits within k, P@2, nDCG@2; queries without relevant items count 0; ties: expected value over all orders; selected on val
    ");
}

#[test]
fn differences_name_the_fields() {
    let (a, b) = (pairs_protocol(1), Protocol { ties: Ties::Optimistic, ..pairs_protocol(5) });
    assert_eq!(differences(&a, &a), [""; 0]);
    assert_eq!(differences(&a, &b), ["task.folds: 1 against 5", "ties: expected against optimistic"]);
    assert_eq!(
        differences(&a, &category_protocol(Split::Train)),
        [
            "task.kind: pairs against category",
            "task.cutoffs: [1,2] against [2]",
            "task.folds: 1 against absent",
            "task.gallery: absent against train",
            "task.denominator: absent against hits",
        ]
    );
}
