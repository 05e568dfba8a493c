use std::slice::from_ref as one;

use proptest::prelude::*;
use xmbench_datasets::{Collection, Images, Labels, Matrix, Pairs, Split, Texts};
use xmbench_methods::{Bits, Codes, Similarity};

use super::*;

/// Every order of a ranking's tied items, as relevance lists: every placement of the relevant ones within each group, all equally
/// likely within a group.
fn orders(groups: &[Group]) -> Vec<Vec<bool>> {
    let mut out = vec![Vec::new()];
    for group in groups {
        let placements: Vec<Vec<bool>> = (0u32..1 << group.items)
            .filter(|mask| mask.count_ones() as usize == group.relevant)
            .map(|mask| (0..group.items).map(|i| mask >> i & 1 == 1).collect())
            .collect();
        out = out.iter().flat_map(|head| placements.iter().map(move |tail| [&head[..], tail].concat())).collect();
    }
    out
}

/// Average precision of one order by its definition.
fn precision_sum(order: &[bool], k: usize) -> (f64, usize) {
    let (mut hits, mut sum) = (0, 0.0);
    for (i, _) in order.iter().take(k).enumerate().filter(|(_, hit)| **hit) {
        hits += 1;
        sum += hits as f64 / (i + 1) as f64;
    }
    (sum, hits)
}

fn divided(order: &[bool], k: usize, denominator: Denominator) -> f64 {
    let (sum, hits) = precision_sum(order, k);
    let relevant = order.iter().filter(|hit| **hit).count();
    let divisor = match denominator {
        Denominator::Relevant => relevant,
        Denominator::Hits => hits,
        Denominator::MinKRelevant => k.min(relevant),
    };
    if divisor == 0 { 0.0 } else { sum / divisor as f64 }
}

fn gain(order: &[bool], k: usize) -> f64 {
    let dcg = |order: &[bool]| -> f64 {
        order.iter().take(k).enumerate().filter(|(_, hit)| **hit).map(|(i, _)| 1.0 / ((i + 2) as f64).log2()).sum()
    };
    let mut ideal = order.to_vec();
    ideal.sort_by(|a, b| b.cmp(a));
    if dcg(&ideal) == 0.0 { 0.0 } else { dcg(order) / dcg(&ideal) }
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-11
}

fn small_groups() -> impl Strategy<Value = Vec<Group>> {
    let group = (1usize..6).prop_flat_map(|items| (0..=items).prop_map(move |relevant| Group { items, relevant }));
    prop::collection::vec(group, 1..4)
}

const DENOMINATORS: [Denominator; 3] = [Denominator::Relevant, Denominator::Hits, Denominator::MinKRelevant];

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn closed_forms_are_means_over_all_orders(groups in small_groups(), k in 1usize..17) {
        let (ranking, orders) = (Ranking::new(groups.clone()), orders(&groups));
        let mean = |value: &dyn Fn(&[bool]) -> f64| orders.iter().map(|o| value(o)).sum::<f64>() / orders.len() as f64;
        for denominator in DENOMINATORS {
            let expected = mean(&|order| divided(order, k, denominator));
            let found = ranking.average_precision_at(k, denominator);
            prop_assert!(close(found, expected), "MAP@{k} over {denominator:?}: {found} for {expected}");
            let all: Vec<f64> = orders.iter().map(|order| divided(order, k, denominator)).collect();
            let range = [all.iter().copied().fold(f64::INFINITY, f64::min), all.iter().copied().fold(0.0, f64::max)];
            let found = ranking.average_precision_range(k, denominator);
            prop_assert!(close(found[0], range[0]) && close(found[1], range[1]), "{denominator:?}: {found:?} for {range:?}");
        }
        prop_assert!(close(ranking.average_precision(), mean(&|order| divided(order, 99, Denominator::Relevant))));
        prop_assert!(close(ranking.ndcg_at(k), mean(&|order| gain(order, k))));
        let hits = |order: &[bool]| order.iter().take(k).filter(|hit| **hit).count() as f64;
        prop_assert!(close(ranking.hits_at(k), mean(&hits)));
        for ties in [Ties::Pessimistic, Ties::Optimistic] {
            let settled = ranking.settled(ties);
            prop_assert!(!settled.tied());
            let ends = orders.iter().map(|order| divided(order, 99, Denominator::Relevant));
            let end = if ties == Ties::Optimistic { ends.fold(0.0, f64::max) } else { ends.fold(f64::INFINITY, f64::min) };
            prop_assert!(close(settled.average_precision(), end));
        }
    }

    #[test]
    fn standings_are_means_over_all_orders(better in 0usize..5, tied in 1usize..9, own in 1usize..9, k in 1usize..15) {
        let own = own.min(tied);
        let standing = Standing { better, tied, own };
        let first = |order: &Vec<bool>| better + order.iter().position(|hit| *hit).unwrap();
        let ranks: Vec<usize> = orders(&[Group { items: tied, relevant: own }]).iter().map(first).collect();
        let mean = |value: &dyn Fn(usize) -> f64| ranks.iter().map(|&r| value(r)).sum::<f64>() / ranks.len() as f64;
        prop_assert!(close(standing.hit(k, Ties::Expected), mean(&|rank| f64::from(u8::from(rank < k)))));
        prop_assert!(close(standing.rank(Ties::Expected), mean(&|rank| rank as f64)));
        prop_assert!(close(standing.rank(Ties::Optimistic), *ranks.iter().min().unwrap() as f64));
        prop_assert!(close(standing.rank(Ties::Pessimistic), *ranks.iter().max().unwrap() as f64));
        for (ties, rank) in [(Ties::Optimistic, ranks.iter().min()), (Ties::Pessimistic, ranks.iter().max())] {
            prop_assert_eq!(standing.hit(k, ties), f64::from(u8::from(*rank.unwrap() < k)));
        }
    }

    #[test]
    fn the_median_without_ties_is_numpys(ranks in prop::collection::vec(0usize..30, 1..12)) {
        let standings: Vec<Standing> = ranks.iter().map(|&better| Standing { better, tied: 1, own: 1 }).collect();
        let mut sorted = ranks;
        sorted.sort_unstable();
        let middle = (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) as f64 / 2.0;
        for ties in [Ties::Expected, Ties::Optimistic, Ties::Pessimistic] {
            prop_assert_eq!(median_rank(&standings, ties), middle.floor() + 1.0);
        }
    }

    #[test]
    fn rankings_group_scores(items in prop::collection::vec((0u32..5, any::<bool>()), 1..40)) {
        let (distances, relevant): (Vec<u32>, Vec<bool>) = items.iter().copied().unzip();
        let scores: Vec<f32> = distances.iter().map(|&d| 0.0 - d as f32).collect();
        let groups = (0..5).map(|d| {
            let of: Vec<bool> = items.iter().filter(|(distance, _)| *distance == d).map(|(_, hit)| *hit).collect();
            Group { items: of.len(), relevant: of.iter().filter(|hit| **hit).count() }
        });
        let expected = Ranking::new(groups);
        prop_assert_eq!(&Ranking::of_distances(&distances, 4, &relevant), &expected);
        // Groups without relevant items may be joined: no metric can tell.
        let found = Ranking::of_scores(&scores, &relevant);
        prop_assert_eq!((found.items(), found.relevant()), (expected.items(), expected.relevant()));
        prop_assert_eq!(found.first_relevant(), expected.first_relevant());
        prop_assert_eq!(found.label_ranking_precision(), expected.label_ranking_precision());
        for k in [1, 2, 3, 7, 50] {
            for denominator in DENOMINATORS {
                prop_assert!(close(found.average_precision_at(k, denominator), expected.average_precision_at(k, denominator)));
            }
            prop_assert!(close(found.ndcg_at(k), expected.ndcg_at(k)));
        }
        let levels = [0.0, 0.1, 0.25, 0.5, 0.75, 1.0];
        prop_assert_eq!(found.precision_at_recall(&levels), expected.precision_at_recall(&levels));
        prop_assert_eq!(found.best_precision_from_recall(&levels), expected.best_precision_from_recall(&levels));
    }
}

#[test]
fn large_tie_groups_neither_overflow_nor_underflow() {
    // Everything relevant: any order is perfect.
    let all = Ranking::random(200_000, 200_000);
    assert!(close(all.average_precision_at(5000, Denominator::Hits), 1.0));
    // Half: the precision at a hit counts the hit itself, so the mean is above one half, by little over 5,000 places.
    let half = Ranking::random(200_000, 100_000);
    let value = half.average_precision_at(5000, Denominator::Hits);
    assert!((0.5..0.51).contains(&value), "{value}");
    // The expected precision at every place is the base rate.
    assert!(close(half.hits_at(5000) / 5000.0, 0.5));
    // One relevant item among n: AP is 1 / rank, so its expectation is the harmonic number over n.
    let harmonic: f64 = (1..=1000).map(|i| 1.0 / f64::from(i)).sum();
    assert!(close(Ranking::random(1000, 1).average_precision(), harmonic / 1000.0));
}

#[test]
fn curves_follow_the_definition() {
    // Relevant at ranks 1, 3 and 6.
    let ranking = Ranking::strict([true, false, true, false, false, true]);
    let levels = [0.0, 0.3, 0.4, 0.7, 1.0];
    assert_eq!(ranking.precision_at_recall(&levels), [1.0, 1.0, 2.0 / 3.0, 0.5, 0.5]);
    // Precision rises again behind a poor start: interpolation looks ahead.
    let rising = Ranking::strict([false, true, true, true]);
    assert_eq!(rising.precision_at_recall(&[0.0, 0.5, 1.0]), [0.5, 2.0 / 3.0, 0.75]);
    assert_eq!(rising.best_precision_from_recall(&[0.0, 0.5, 1.0]), [0.75; 3]);
    // A group is reached as a whole.
    let tied = Ranking::new([Group { items: 4, relevant: 2 }, Group { items: 4, relevant: 2 }]);
    assert_eq!(tied.precision_at_recall(&[0.0, 0.5, 1.0]), [0.5; 3]);
    assert_eq!(Ranking::random(5, 0).precision_at_recall(&[0.0, 1.0]), [0.0; 2]);
}

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
    assert_eq!((chance.metrics, chance.curves), (scored.metrics, scored.curves));
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
