use std::slice::from_ref as one;

use proptest::prelude::*;
use xmbench_datasets::{
    Matrix,
    random::{Seed, Stream},
};
use xmbench_methods::{Bits, Fragments, PairScorer};

use super::*;

/// Small integers: many ties, and products that are exact in any order of summation.
pub(super) fn integers(stream: &mut Stream, rows: usize, cols: usize) -> Matrix {
    let data = (0..rows * cols).map(|_| stream.below(5) as f32 - 2.0).collect();
    Matrix { rows, cols, data }
}

fn binary(stream: &mut Stream, rows: usize, bits: usize) -> Bits {
    Bits::from_signs(&integers(stream, rows, bits))
}

pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Every score, then a stable sort.
fn brute_force(queries: usize, gallery: usize, k: usize, score: impl Fn(usize, usize) -> f32) -> TopK {
    let mut out = TopK { k: k.min(gallery), items: Vec::new(), scores: Vec::new() };
    for query in 0..queries {
        let scores: Vec<f32> = (0..gallery).map(|item| score(query, item)).collect();
        let mut order: Vec<usize> = (0..gallery).collect();
        order.sort_by(|&a, &b| scores[b].partial_cmp(&scores[a]).unwrap());
        for &item in &order[..out.k] {
            out.items.push(item as u32);
            out.scores.push(scores[item]);
        }
    }
    out
}

pub(super) fn hamming(a: &Bits, i: usize, b: &Bits, j: usize) -> f32 {
    let differs = |bit: &usize| (a.item(i)[bit / 64] ^ b.item(j)[bit / 64]) >> (bit % 64) & 1 == 1;
    0.0 - (0..a.bits).filter(differs).count() as f32
}

/// Compares by a dot product of its own, and not symmetrically: an image counts twice.
pub(super) struct Dots;

impl PairScorer for Dots {
    fn score(
        &self,
        images: &Codes,
        rows: Range<usize>,
        texts: &Codes,
        columns: Range<usize>,
        out: &mut [f32],
    ) -> Result<()> {
        let (Codes::Dense(images), Codes::Dense(texts)) = (images, texts) else { panic!("dense codes") };
        let pairs = rows.flat_map(|i| columns.clone().map(move |j| (i, j)));
        for ((i, j), out) in pairs.zip(out) {
            *out = 2.0 * dot(images.row(i), texts.row(j)) + texts.row(j)[0];
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn dense_search_is_brute_force(
        seed in 0u64..1000, queries in 1usize..600, gallery in 1usize..2500, cols in 1usize..9, k in 0usize..40,
    ) {
        let mut stream = Seed(seed).stream(&["dense"]);
        let (a, b) = (integers(&mut stream, queries, cols), integers(&mut stream, gallery, cols));
        let expected = brute_force(queries, gallery, k, |i, j| dot(a.row(i), b.row(j)));
        let (a, b) = (Codes::Dense(a), Codes::Dense(b));
        let found = index(&b, Similarity::Dot, Direction::I2t).unwrap().search(&a, 0..queries, k).unwrap();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn hamming_search_is_brute_force(
        seed in 0u64..1000, queries in 1usize..40, gallery in 1usize..10_000, bits in 1usize..200, k in 0usize..300,
    ) {
        let mut stream = Seed(seed).stream(&["hamming"]);
        let (a, b) = (binary(&mut stream, queries, bits), binary(&mut stream, gallery, bits));
        let expected = brute_force(queries, gallery, k, |i, j| hamming(&a, i, &b, j));
        let (a, b) = (Codes::Binary(a), Codes::Binary(b));
        let found = index(&b, Similarity::Hamming, Direction::T2i).unwrap().search(&a, 0..queries, k).unwrap();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn pair_search_is_brute_force_from_both_sides(
        seed in 0u64..1000, images in 1usize..300, texts in 1usize..300, k in 1usize..20,
    ) {
        let mut stream = Seed(seed).stream(&["pairs"]);
        let (a, b) = (integers(&mut stream, images, 3), integers(&mut stream, texts, 3));
        let score = |i: usize, j: usize| 2.0 * dot(a.row(i), b.row(j)) + b.row(j)[0];
        let expected = [brute_force(images, texts, k, score), brute_force(texts, images, k, |j, i| score(i, j))];
        let (a, b) = (Codes::Dense(a.clone()), Codes::Dense(b.clone()));
        let i2t = index(&b, Similarity::Pairwise(&Dots), Direction::I2t).unwrap().search(&a, 0..images, k).unwrap();
        let t2i = index(&a, Similarity::Pairwise(&Dots), Direction::T2i).unwrap().search(&b, 0..texts, k).unwrap();
        prop_assert_eq!([i2t, t2i], expected);
    }

    #[test]
    fn rows_are_the_scores_of_every_pair(seed in 0u64..1000, images in 1usize..200, texts in 1usize..200, kept: bool) {
        let mut stream = Seed(seed).stream(&["rows"]);
        let (a, b) = (integers(&mut stream, images, 6), integers(&mut stream, texts, 6));
        let (x, y) = (Bits::from_signs(&a), Bits::from_signs(&b));
        let codes = [Codes::Dense(a.clone()), Codes::Dense(b.clone()), Codes::Binary(x.clone()), Codes::Binary(y.clone())];
        let check = |similarity: Similarity<'_>, images: &Codes, texts: &Codes, score: &dyn Fn(usize, usize) -> f32| {
            let scores = Scores::new(one(images), one(texts), &similarity.into()).unwrap();
            let scores = if kept { scores.keep().unwrap() } else { scores };
            for direction in [Direction::I2t, Direction::T2i] {
                let gallery = scores.sizes(direction).1;
                scores.each(direction, |range, rows| {
                    for (i, query) in range.enumerate() {
                        let expected: Vec<f32> = (0..gallery).map(|item| match direction {
                            Direction::I2t => score(query, item),
                            Direction::T2i => score(item, query),
                        }).collect();
                        assert_eq!(rows.scores(i, gallery).as_ref(), expected);
                    }
                    Ok(())
                }).unwrap();
            }
        };
        check(Similarity::Dot, &codes[0], &codes[1], &|i, j| dot(a.row(i), b.row(j)));
        check(Similarity::Hamming, &codes[2], &codes[3], &|i, j| hamming(&x, i, &y, j));
        check(Similarity::Pairwise(&Dots), &codes[0], &codes[1], &|i, j| 2.0 * dot(a.row(i), b.row(j)) + b.row(j)[0]);
    }
}

pub(super) fn normal(stream: &mut Stream, rows: usize, cols: usize) -> Matrix {
    Matrix { rows, cols, data: (0..rows * cols).map(|_| stream.normal() as f32).collect() }
}

#[test]
fn cosine_is_that_of_f64() {
    let mut stream = Seed(3).stream(&["cosine"]);
    let (mut a, mut b) = (normal(&mut stream, 50, 33), normal(&mut stream, 1500, 33));
    a.row_mut(4).fill(0.0);
    b.row_mut(7).fill(0.0);
    b.row_mut(8).iter_mut().for_each(|x| *x *= 1e25);
    let cosine = |x: &[f32], y: &[f32]| {
        let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
        let norms = (dot(x, x) * dot(y, y)).sqrt();
        if norms == 0.0 { 0.0 } else { dot(x, y) / norms }
    };
    let (queries, gallery) = (Codes::Dense(a.clone()), Codes::Dense(b.clone()));
    let index = index(&gallery, Similarity::Cosine, Direction::I2t).unwrap();
    let found = index.search(&queries, 0..50, 1500).unwrap();
    for (at, (&item, &score)) in found.items.iter().zip(&found.scores).enumerate() {
        assert!((f64::from(score) - cosine(a.row(at / 1500), b.row(item as usize))).abs() < 1e-6);
    }
    // Everything ties with a zero query: gallery order.
    assert_eq!(found.items[4 * 1500..5 * 1500], (0..1500).collect::<Vec<u32>>());
}

#[test]
fn equal_gallery_rows_tie_exactly() {
    for cols in [1, 129, 2500] {
        equal_rows_tie(cols);
    }
}

fn equal_rows_tie(cols: usize) {
    let mut stream = Seed(4).stream(&["equal"]);
    let (a, mut b) = (normal(&mut stream, 70, cols), normal(&mut stream, 1031, cols));
    for copy in [3, 500, 1023, 1024, 1029, 1030] {
        let row = b.row(17).to_vec();
        b.row_mut(copy).copy_from_slice(&row);
    }
    for queries in [1, 2, 7, 8, 70] {
        let part = Matrix { rows: queries, cols, data: a.data[..queries * cols].to_vec() };
        let (images, texts) = (Codes::Dense(part), Codes::Dense(b.clone()));
        let scores = Scores::new(one(&images), one(&texts), &Similarity::Dot.into()).unwrap();
        scores
            .each(Direction::I2t, |range, rows| {
                for i in 0..range.len() {
                    let row = rows.scores(i, 1031);
                    assert!(
                        [3, 500, 1023, 1024, 1029, 1030].iter().all(|&copy| row[copy].to_bits() == row[17].to_bits())
                    );
                }
                Ok(())
            })
            .unwrap();
        let found = index(&texts, Similarity::Dot, Direction::I2t).unwrap().search(&images, 0..queries, 1031).unwrap();
        for (items, scores) in found.items.chunks(1031).zip(found.scores.chunks(1031)) {
            let of = |item: u32| scores[items.iter().position(|&i| i == item).unwrap()].to_bits();
            assert!(
                [3, 500, 1023, 1024, 1029, 1030].iter().all(|&copy| of(copy) == of(17)),
                "{queries} queries of {cols}"
            );
        }
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let mut stream = Seed(5).stream(&["threads"]);
    let (a, b) = (normal(&mut stream, 300, 40), normal(&mut stream, 5000, 40));
    let (x, y) = (Codes::Binary(Bits::from_signs(&a)), Codes::Binary(Bits::from_signs(&b)));
    let (a, b) = (Codes::Dense(a), Codes::Dense(b));
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut rows = Vec::new();
            let scores = Scores::new(one(&a), one(&b), &Similarity::Cosine.into()).unwrap();
            let collect = |_: Range<usize>, block: &Rows| {
                let Rows::Real(values) = block else { panic!("dense codes") };
                rows.extend(values.iter().map(|x| x.to_bits()));
                Ok(())
            };
            scores.each(Direction::T2i, collect).unwrap();
            let dense = index(&b, Similarity::Cosine, Direction::I2t).unwrap().search(&a, 10..290, 10).unwrap();
            let binary = index(&y, Similarity::Hamming, Direction::I2t).unwrap().search(&x, 10..290, 10).unwrap();
            (rows, dense, binary)
        })
    };
    let one = run(1);
    assert!(one == run(2) && one == run(4));
}

#[test]
fn ranges_of_queries_are_slices_of_the_whole() {
    let mut stream = Seed(6).stream(&["ranges"]);
    let (a, b) = (Codes::Binary(binary(&mut stream, 9, 70)), Codes::Binary(binary(&mut stream, 5000, 70)));
    let index = index(&b, Similarity::Hamming, Direction::I2t).unwrap();
    let whole = index.search(&a, 0..9, 6).unwrap();
    for i in 0..9 {
        assert_eq!(index.search(&a, i..i + 1, 6).unwrap().items, whole.items[6 * i..6 * (i + 1)]);
    }
    assert!(index.search(&a, 3..3, 6).unwrap().items.is_empty());
    assert_eq!(index.bytes(), 5000 * 16);
}

#[test]
fn wrong_codes_are_named() {
    let dense = |rows, cols, value| Codes::Dense(Matrix { rows, cols, data: vec![value; rows * cols] });
    let bits = Codes::Binary(Bits { bits: 8, words: vec![0; 2] });
    let fails = |queries: &Codes, gallery: &Codes, similarity: Similarity<'_>| {
        index(gallery, similarity, Direction::I2t).and_then(|i| i.search(queries, 0..1, 1)).unwrap_err().to_string()
    };
    let (two, three) = (dense(2, 2, 1.0), dense(2, 3, 1.0));
    let messages = [
        fails(&two, &three, Similarity::Dot),
        fails(&two, &bits, Similarity::Cosine),
        fails(&two, &bits, Similarity::Hamming),
        fails(&two, &dense(2, 2, f32::NAN), Similarity::Cosine),
        fails(&dense(2, 2, f32::INFINITY), &two, Similarity::Dot),
    ];
    insta::assert_snapshot!(messages.join("\n"), @r"
    codes of the queries: expected 3 values, as in the gallery, found 2 values; compare codes that one matcher wrote, by its own similarity
    codes of the gallery: expected dense codes, found binary codes; compare codes that one matcher wrote, by its own similarity
    codes of the queries: expected binary codes, found dense codes; compare codes that one matcher wrote, by its own similarity
    codes of the gallery, row 0, column 0: expected a finite number, found NaN; check the method's codes
    codes of the queries, row 0, column 0: expected a finite number, found inf; check the method's codes
    ");
}

#[test]
fn a_scorer_that_is_not_a_number_is_an_error() {
    struct Bad;
    impl PairScorer for Bad {
        fn score(
            &self,
            _: &Codes,
            rows: Range<usize>,
            _: &Codes,
            columns: Range<usize>,
            out: &mut [f32],
        ) -> Result<()> {
            out.fill(1.0);
            if rows.contains(&1) && columns.contains(&200) {
                out[(1 - rows.start) * columns.len() + 200 - columns.start] = f32::NAN;
            }
            Ok(())
        }
    }
    let codes = Codes::Dense(Matrix::zeros(300, 1));
    let scores = Scores::new(one(&codes), one(&codes), &Similarity::Pairwise(&Bad).into()).unwrap();
    let error = scores.each(Direction::I2t, |_, _| Ok(())).unwrap_err().to_string();
    assert!(error.contains("query 1 and gallery item 200"), "{error}");
    let error = scores.keep().unwrap().each(Direction::T2i, |_, _| Ok(())).unwrap_err().to_string();
    assert!(error.contains("query 200 and gallery item 1"), "{error}");
    let index = index(&codes, Similarity::Pairwise(&Bad), Direction::I2t).unwrap();
    let error = index.search(&codes, 0..300, 3).unwrap_err().to_string();
    assert!(error.contains("query 1 and gallery item 200"), "{error}");
}

#[test]
fn selected_codes_are_those_items() {
    let fragments = Fragments { dim: 2, offsets: vec![0, 1, 1, 3], data: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0] };
    let picked = select(&Codes::Fragments(fragments), &[2, 0, 1]);
    let expected = Fragments { dim: 2, offsets: vec![0, 2, 3, 3], data: vec![3.0, 4.0, 5.0, 6.0, 1.0, 2.0] };
    assert_eq!(picked, Codes::Fragments(expected));
    let dense = Codes::Dense(Matrix { rows: 3, cols: 1, data: vec![7.0, 8.0, 9.0] });
    assert_eq!(select(&dense, &[2, 2]), Codes::Dense(Matrix { rows: 2, cols: 1, data: vec![9.0, 9.0] }));
    let bits = Codes::Binary(Bits { bits: 65, words: vec![1, 0, 2, 1] });
    assert_eq!(select(&bits, &[1]), Codes::Binary(Bits { bits: 65, words: vec![2, 1] }));
}
