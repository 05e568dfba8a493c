use std::{
    ops::Range,
    slice::from_ref,
    sync::atomic::{AtomicUsize, Ordering},
};

use proptest::prelude::*;
use xmbench_datasets::random::Seed;
use xmbench_methods::{Bits, PairScorer};

use super::*;
use crate::retrieval::{
    Direction, Rows, Scores, Search, TopK,
    tests::{Dots, dot, hamming, integers, normal},
};

const BOTH: [Direction; 2] = [Direction::I2t, Direction::T2i];

/// The mean of the members before, re-ranked by the members behind.
fn staged<'a>(first: &[Member<'a>], second: &[Member<'a>], shortlist: usize) -> Compared<'a> {
    Compared { first: first.to_vec(), second: Some(Second { members: second.to_vec(), shortlist }) }
}

/// Every row of scores of a direction.
fn rows(scores: &Scores<'_>, direction: Direction) -> Vec<Vec<f32>> {
    let gallery = scores.sizes(direction).1;
    let mut out = Vec::new();
    let mut collect = |range: Range<usize>, rows: &Rows| {
        out.extend((0..range.len()).map(|i| rows.scores(i, gallery).into_owned()));
        Ok(())
    };
    scores.each(direction, &mut collect).unwrap();
    out
}

/// Gallery positions by score, equal ones by position, and the first `n` of them.
fn best(scores: &[f32], n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].partial_cmp(&scores[a]).unwrap());
    order.truncate(n);
    order
}

/// What the stages' definition says of two items: who stands above, or that they tie.
fn above(first: &[f32], second: &[f32], listed: &[usize], a: usize, b: usize) -> std::cmp::Ordering {
    let of = |item| listed.contains(&item);
    of(a).cmp(&of(b)).then_with(|| {
        let scores = if of(a) { second } else { first };
        scores[a].partial_cmp(&scores[b]).unwrap()
    })
}

fn queries_and_gallery<'a>(
    direction: Direction,
    images: &'a [Codes],
    texts: &'a [Codes],
) -> (&'a [Codes], &'a [Codes]) {
    if direction == Direction::I2t { (images, texts) } else { (texts, images) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn two_stages_are_the_naive_order_with_its_ties(
        seed in 0u64..1000, images in 1usize..60, texts in 1usize..60, shortlist in 1usize..70, k in 1usize..70, kept: bool,
    ) {
        let mut stream = Seed(seed).stream(&["staged"]);
        let (a, b) = (integers(&mut stream, images, 3), integers(&mut stream, texts, 3));
        let (x, y) = (Bits::from_signs(&a), Bits::from_signs(&b));
        let lists = [
            [Codes::Binary(x.clone()), Codes::Dense(a.clone())],
            [Codes::Binary(y.clone()), Codes::Dense(b.clone())],
        ];
        let distances = Member { codes: 0, similarity: Similarity::Hamming };
        let products = Member { codes: 1, similarity: Similarity::Dot };
        let pairs = Member { codes: 1, similarity: Similarity::Pairwise(&Dots) };
        type Score<'s> = &'s dyn Fn(usize, usize) -> f32;
        let (by_bits, by_dot): (Score<'_>, Score<'_>) =
            (&|i, j| hamming(&x, i, &y, j), &|i, j| dot(a.row(i), b.row(j)));
        let by_pair: Score<'_> = &|i, j| 2.0 * dot(a.row(i), b.row(j)) + b.row(j)[0];
        let mean: Score<'_> = &|i, j| (by_bits(i, j) + by_pair(i, j)) / 2.0;
        let cases: [(&[Member<'_>], &[Member<'_>], Score<'_>, Score<'_>); 5] = [
            (&[distances], &[products], by_bits, by_dot),
            (&[products], &[distances], by_dot, by_bits),
            (&[distances], &[pairs], by_bits, by_pair),
            (&[pairs], &[products], by_pair, by_dot),
            (&[distances, pairs], &[distances, pairs], mean, mean),
        ];
        for (first, second, by_first, by_second) in cases {
            let compared = staged(first, second, shortlist);
            let scores = Scores::new(&lists[0], &lists[1], &compared).unwrap();
            let scores = if kept { scores.keep().unwrap() } else { scores };
            for direction in BOTH {
                let (asked, answers) = queries_and_gallery(direction, &lists[0], &lists[1]);
                let search = Search::new(asked, answers, &compared, direction).unwrap();
                let found = search.best(0..asked[0].len(), k).unwrap();
                for (query, row) in rows(&scores, direction).iter().enumerate() {
                    let of = |score: Score<'_>| -> Vec<f32> {
                        let turned = |item| if direction == Direction::I2t { score(query, item) } else { score(item, query) };
                        (0..answers[0].len()).map(turned).collect()
                    };
                    let (first, second) = (of(by_first), of(by_second));
                    let listed = best(&first, shortlist);
                    for a in 0..row.len() {
                        prop_assert_eq!(row[a] > 0.0, listed.contains(&a));
                        for b in 0..row.len() {
                            prop_assert_eq!(row[a].partial_cmp(&row[b]).unwrap(), above(&first, &second, &listed, a, b));
                        }
                    }
                    let mut order: Vec<usize> = (0..row.len()).collect();
                    order.sort_by(|&a, &b| above(&first, &second, &listed, b, a));
                    let wanted: Vec<u32> = order.iter().take(k).map(|&item| item as u32).collect();
                    let one = found.row(query);
                    prop_assert_eq!(&one.items, &wanted);
                    let places: Vec<f32> = wanted.iter().map(|&item| row[item as usize]).collect();
                    prop_assert_eq!(&one.scores, &places);
                }
            }
        }
    }

    #[test]
    fn a_mean_is_the_naive_mean_from_both_sides(
        seed in 0u64..1000, images in 1usize..200, texts in 1usize..200, k in 1usize..20,
    ) {
        let mut stream = Seed(seed).stream(&["mean"]);
        let (a, b) = (integers(&mut stream, images, 3), integers(&mut stream, texts, 3));
        let (x, y) = (Bits::from_signs(&a), Bits::from_signs(&b));
        let lists = [
            [Codes::Dense(a.clone()), Codes::Binary(x.clone())],
            [Codes::Dense(b.clone()), Codes::Binary(y.clone())],
        ];
        let member = |codes, similarity| Member { codes, similarity };
        let first = vec![
            member(0, Similarity::Pairwise(&Dots)), member(1, Similarity::Hamming), member(0, Similarity::Dot),
        ];
        let compared = Compared { first, second: None };
        // Sums of small integers are exact, so that the third has one rounding.
        let score = |i: usize, j: usize| {
            let sum = 3.0 * dot(a.row(i), b.row(j)) + b.row(j)[0] + hamming(&x, i, &y, j);
            (f64::from(sum) / 3.0) as f32
        };
        let scores = Scores::new(&lists[0], &lists[1], &compared).unwrap().keep().unwrap();
        for direction in BOTH {
            let (asked, answers) = queries_and_gallery(direction, &lists[0], &lists[1]);
            let search = Search::new(asked, answers, &compared, direction).unwrap();
            let found = search.best(0..asked[0].len(), k).unwrap();
            for (query, row) in rows(&scores, direction).iter().enumerate() {
                let naive: Vec<f32> = (0..row.len())
                    .map(|item| if direction == Direction::I2t { score(query, item) } else { score(item, query) })
                    .collect();
                prop_assert_eq!(row, &naive);
                let wanted: Vec<u32> = best(&naive, k).into_iter().map(|item| item as u32).collect();
                prop_assert_eq!(found.row(query).items, wanted);
            }
        }
    }
}

#[test]
fn a_member_that_counts_twice_or_three_times_is_the_member() {
    let mut stream = Seed(7).stream(&["twice"]);
    let codes = [normal(&mut stream, 40, 19), normal(&mut stream, 70, 19)].map(Codes::Dense);
    let lists = codes.each_ref().map(from_ref);
    let member = Member { codes: 0, similarity: Similarity::Cosine };
    let scores = |times: usize| {
        let compared = Compared { first: vec![member; times], second: None };
        BOTH.map(|direction| rows(&Scores::new(lists[0], lists[1], &compared).unwrap(), direction))
    };
    let alone = scores(1);
    for times in [2, 3] {
        assert!(scores(times) == alone, "{times} times");
    }
}

#[test]
fn a_shortlist_of_the_whole_gallery_is_the_second_stage_alone() {
    let mut stream = Seed(8).stream(&["whole"]);
    let (a, mut b) = (normal(&mut stream, 30, 12), normal(&mut stream, 50, 12));
    // Equal texts tie in any stage.
    let row = b.row(3).to_vec();
    b.row_mut(41).copy_from_slice(&row);
    let (other, bits) = (normal(&mut stream, 50, 12), normal(&mut stream, 30, 12));
    let images = [Codes::Dense(a), Codes::Binary(Bits::from_signs(&bits))];
    let texts = [Codes::Dense(b), Codes::Binary(Bits::from_signs(&other))];
    let distances = Member { codes: 1, similarity: Similarity::Hamming };
    let cosine = Member { codes: 0, similarity: Similarity::Cosine };
    let alone = Scores::new(&images, &texts, &Similarity::Cosine.into()).unwrap();
    for shortlist in [50, 1000] {
        let compared = staged(&[distances], &[cosine], shortlist);
        let scores = Scores::new(&images, &texts, &compared).unwrap();
        for direction in BOTH {
            for (row, wanted) in rows(&scores, direction).iter().zip(rows(&alone, direction)) {
                assert!(row.iter().all(|&place| place > 0.0));
                for i in 0..row.len() {
                    for j in 0..row.len() {
                        assert_eq!(row[i].partial_cmp(&row[j]), wanted[i].partial_cmp(&wanted[j]));
                    }
                }
            }
        }
    }
}

/// Counts the pairs that it scores.
struct Counting(AtomicUsize);

impl PairScorer for Counting {
    fn score(
        &self,
        images: &Codes,
        rows: Range<usize>,
        texts: &Codes,
        columns: Range<usize>,
        out: &mut [f32],
    ) -> Result<()> {
        self.0.fetch_add(rows.len() * columns.len(), Ordering::Relaxed);
        Dots.score(images, rows, texts, columns, out)
    }
}

#[test]
fn the_second_stage_scores_the_shortlists_alone() {
    let mut stream = Seed(9).stream(&["few"]);
    let codes = [integers(&mut stream, 20, 4), integers(&mut stream, 90, 4)].map(Codes::Dense);
    let (images, texts) = (from_ref(&codes[0]), from_ref(&codes[1]));
    let counting = Counting(AtomicUsize::new(0));
    let pairs = Member { codes: 0, similarity: Similarity::Pairwise(&counting) };
    let compared = staged(&[Member { codes: 0, similarity: Similarity::Dot }], &[pairs], 7);
    let scores = Scores::new(images, texts, &compared).unwrap().keep().unwrap();
    let scored = || counting.0.swap(0, Ordering::Relaxed);
    assert_eq!(scored(), 0);
    for (direction, queries) in BOTH.into_iter().zip([20, 90]) {
        rows(&scores, direction);
        assert_eq!(scored(), 7 * queries);
    }
    let search = Search::new(texts, images, &compared, Direction::T2i).unwrap();
    search.best(4..9, 3).unwrap();
    assert_eq!(scored(), 7 * 5);
    let found = search.first(4..9, 10).unwrap();
    assert_eq!(scored(), 0);
    let again = search.reorder(4..9, &found, 3).unwrap();
    assert_eq!((scored(), again), (7 * 5, search.best(4..9, 3).unwrap()));
}

#[test]
fn threads_do_not_change_what_two_stages_find() {
    let mut stream = Seed(10).stream(&["staged threads"]);
    let codes = [normal(&mut stream, 80, 24), normal(&mut stream, 300, 24)].map(Codes::Dense);
    let (images, texts) = (from_ref(&codes[0]), from_ref(&codes[1]));
    let member = |similarity| Member { codes: 0, similarity };
    let compared =
        staged(&[member(Similarity::Cosine), member(Similarity::Dot)], &[member(Similarity::Pairwise(&Dots))], 12);
    let run = |threads: usize| -> (Vec<Vec<f32>>, TopK) {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let scores = Scores::new(images, texts, &compared).unwrap();
            let search = Search::new(images, texts, &compared, Direction::I2t).unwrap();
            (rows(&scores, Direction::T2i), search.best(0..80, 20).unwrap())
        })
    };
    assert!(run(1) == run(4));
}

#[test]
fn what_cannot_be_compared_is_named() {
    struct Bad;
    impl PairScorer for Bad {
        fn score(&self, _: &Codes, _: Range<usize>, _: &Codes, columns: Range<usize>, out: &mut [f32]) -> Result<()> {
            out.fill(if columns.len() == 2 { f32::NAN } else { 1.0 });
            Ok(())
        }
    }
    let mut stream = Seed(11).stream(&["wrong"]);
    let codes = [integers(&mut stream, 6, 2), integers(&mut stream, 9, 2)].map(Codes::Dense);
    let (images, texts) = (from_ref(&codes[0]), from_ref(&codes[1]));
    let dots = Member { codes: 0, similarity: Similarity::Dot };
    let bad = Member { codes: 0, similarity: Similarity::Pairwise(&Bad) };
    let fails = |compared: &Compared<'_>| {
        let made = Scores::new(images, texts, compared);
        made.and_then(|scores| scores.each(Direction::I2t, |_, _| Ok(()))).unwrap_err().to_string()
    };
    let messages = [
        fails(&staged(&[dots], &[dots], 0)),
        fails(&staged(&[dots], &[], 3)),
        fails(&staged(&[dots], &[Member { codes: 1, ..dots }], 3)),
        fails(&staged(&[dots], &[Member { similarity: Similarity::Hamming, ..dots }], 3)),
    ];
    insta::assert_snapshot!(messages.join("\n"), @r"
    shortlist: expected at least 1 item, found 0; order some items anew, or use one stage
    matchers of a stage: expected at least one, found none; name who scores
    codes of the images: expected a list of codes for matcher 2, found 1; compare codes that one matcher wrote, by its own similarity
    codes of the images: expected binary codes, found dense codes; compare codes that one matcher wrote, by its own similarity
    ");
    let error = fails(&staged(&[dots], &[bad], 2));
    assert!(error.contains("query 0 and gallery item") && error.contains("not a number"), "{error}");
}
