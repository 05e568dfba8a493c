use std::path::PathBuf;

use candle_core::{DType, Device, Tensor, Var};
use xmbench_datasets::random::Seed;

use super::*;
use crate::{Codes, Fragments, PairScorer, golden::Case, nn::Lengths};

const NORMS: [Norm; 7] =
    [Norm::Softmax, Norm::L2norm, Norm::L1norm, Norm::Clipped, Norm::ClippedL2norm, Norm::ClippedL1norm, Norm::NoNorm];
const AGGREGATIONS: [Aggregation; 4] = [Aggregation::LogSumExp, Aggregation::Max, Aggregation::Sum, Aggregation::Mean];
const DIRECTIONS: [Direction; 2] = [Direction::T2i, Direction::I2t];

fn every() -> impl Iterator<Item = CrossAttention> {
    DIRECTIONS.into_iter().flat_map(|direction| {
        NORMS.into_iter().flat_map(move |norm| {
            AGGREGATIONS.into_iter().map(move |aggregation| CrossAttention {
                direction,
                attention: Attention { norm, lambda_softmax: 4.0 },
                relevance: Relevance { aggregation, lambda_lse: 6.0 },
            })
        })
    })
}

fn paper(direction: Direction) -> CrossAttention {
    CrossAttention {
        direction,
        attention: Attention { norm: Norm::ClippedL2norm, lambda_softmax: 9.0 },
        relevance: Relevance { aggregation: Aggregation::LogSumExp, lambda_lse: 6.0 },
    }
}

/// Vectors of length near 1, as the encoders make them, but not exactly: the general formulas are to be tested.
fn draw(label: &str, vectors: usize, dim: usize) -> Vec<f64> {
    let mut stream = Seed(11).stream(&["cross", label]);
    (0..vectors * dim).map(|_| stream.normal() / (dim as f64).sqrt()).collect()
}

/// Images of `regions` vectors and texts of the given lengths.
struct Items {
    dim: usize,
    regions: Vec<usize>,
    images: Vec<f64>,
    offsets: Vec<usize>,
    words: Vec<f64>,
}

impl Items {
    fn new(images: usize, regions: usize, lengths: &[usize], dim: usize) -> Self {
        let mut offsets = vec![0];
        lengths.iter().for_each(|n| offsets.push(offsets[offsets.len() - 1] + n));
        Self {
            dim,
            regions: (0..=images).map(|i| i * regions).collect(),
            images: draw("images", images * regions, dim),
            words: draw("words", offsets[offsets.len() - 1], dim),
            offsets,
        }
    }

    fn contexts_and_queries(&self, direction: Direction) -> (Stack<'_, f64>, Stack<'_, f64>) {
        let images = Stack { dim: self.dim, offsets: &self.regions, data: &self.images };
        let words = Stack { dim: self.dim, offsets: &self.offsets, data: &self.words };
        if direction == Direction::T2i { (images, words) } else { (words, images) }
    }

    fn scores(&self, settings: &CrossAttention, form: Contexts) -> Vec<f64> {
        let (contexts, queries) = self.contexts_and_queries(settings.direction);
        scores(settings, form, contexts, queries)
    }

    fn codes(&self) -> (Codes, Codes) {
        let of = |offsets: &[usize], data: &[f64]| {
            let data = data.iter().map(|&x| x as f32).collect();
            Codes::Fragments(Fragments { dim: self.dim, offsets: offsets.to_vec(), data })
        };
        (of(&self.regions, &self.images), of(&self.offsets, &self.words))
    }
}

fn worst(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| if a.is_nan() || b.is_nan() { f64::NAN } else { (a - b).abs() }).fold(0.0, f64::max)
}

fn golden() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(crate::golden::folder()).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn cases() -> impl Iterator<Item = Case> {
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("attn.scan_"));
    golden().into_iter().filter(named).map(|path| Case::read(&path).unwrap())
}

#[test]
fn every_golden_file_of_the_authors_holds() {
    crate::golden::assert_files(&operations());
}

#[test]
fn the_direct_form_answers_every_golden_file_too() {
    for case in cases() {
        let direction = if case.op.ends_with("t2i") { Direction::T2i } else { Direction::I2t };
        let settings = golden::settings(&case, direction).unwrap();
        let (images, words) = (case.get("in.images").unwrap(), case.get("in.captions").unwrap());
        let lengths = case.get("in.cap_lens").unwrap().indices();
        let (longest, dim) = (words.shape[1], words.shape[2]);
        let mut items = Items::new(images.shape[0], images.shape[1], &lengths, dim);
        items.images.clone_from(&images.data);
        items.words = lengths
            .iter()
            .enumerate()
            .flat_map(|(j, n)| words.data[j * longest * dim..][..n * dim].iter().copied())
            .collect();
        let order = |scores: Vec<f64>| match direction {
            Direction::T2i => scores,
            Direction::I2t => {
                let (texts, images) = (lengths.len(), images.shape[0]);
                (0..images).flat_map(|i| (0..texts).map(move |j| (i, j))).map(|(i, j)| scores[j * images + i]).collect()
            }
        };
        for form in [Contexts::Direct, Contexts::Gram] {
            let found = order(items.scores(&settings, form));
            let expected = &case.get("out.scores").unwrap().data;
            for (&found, &expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() <= 1e-9 + 1e-9 * expected.abs(), "{}: {expected} {found}", case.file);
            }
        }
    }
}

#[test]
fn both_forms_agree_for_every_setting() {
    let items = Items::new(3, 5, &[4, 1, 6, 2], 7);
    for settings in every() {
        let (gram, direct) = (items.scores(&settings, Contexts::Gram), items.scores(&settings, Contexts::Direct));
        assert!(worst(&gram, &direct) < 1e-13, "{settings:?}");
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    for settings in every() {
        let mut items = Items::new(2, 4, &[3, 1, 5], 6);
        let cotangent = draw("cotangent", 2, 3);
        let (contexts, queries) = items.contexts_and_queries(settings.direction);
        let (dc, dq) = gradients(&settings, contexts, queries, &cotangent);
        let (di, dw) = if settings.direction == Direction::T2i { (dc, dq) } else { (dq, dc) };
        let value = |items: &Items| -> f64 {
            items.scores(&settings, Contexts::Direct).iter().zip(&cotangent).map(|(s, c)| s * c).sum()
        };
        let step = 1e-6;
        for at in 0..items.images.len() + items.words.len() {
            let mut shifted = |by: f64| {
                let n = items.images.len();
                let slot = if at < n { &mut items.images[at] } else { &mut items.words[at - n] };
                let kept = *slot;
                *slot += by;
                let value = value(&items);
                let slot = if at < n { &mut items.images[at] } else { &mut items.words[at - n] };
                *slot = kept;
                value
            };
            let numeric = (shifted(step) - shifted(-step)) / (2.0 * step);
            let analytic = if at < di.len() { di[at] } else { dw[at - di.len()] };
            assert!(
                (numeric - analytic).abs() < 2e-7 * (1.0 + numeric.abs()),
                "{settings:?} {at}: {numeric} {analytic}"
            );
        }
    }
}

/// Padded tensors with NaN behind every text.
fn tensors(items: &Items, longest: usize, dtype: DType) -> (Var, Var, Lengths) {
    let lengths = Lengths::new(items.offsets.windows(2).map(|pair| pair[1] - pair[0])).unwrap();
    let mut words = vec![f64::NAN; lengths.len() * longest * items.dim];
    for (j, span) in items.offsets.windows(2).enumerate() {
        let own = &items.words[span[0] * items.dim..span[1] * items.dim];
        words[j * longest * items.dim..][..own.len()].copy_from_slice(own);
    }
    let var = |data: &[f64], shape: (usize, usize, usize)| {
        Var::from_tensor(&Tensor::from_slice(data, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()).unwrap()
    };
    let (images, regions) = (items.regions.len() - 1, items.regions[1]);
    (var(&items.images, (images, regions, items.dim)), var(&words, (lengths.len(), longest, items.dim)), lengths)
}

#[test]
fn the_composed_form_has_the_same_values_and_gradients_and_padding_is_never_read() {
    let items = Items::new(3, 4, &[3, 1, 5], 6);
    for settings in every() {
        let mut found = Vec::new();
        for (composed, longest) in [(false, 5), (false, 9), (true, 5), (true, 7)] {
            let (images, words, lengths) = tensors(&items, longest, DType::F64);
            let scores = if composed { composed_scores } else { batch_scores }(
                &settings,
                &images,
                &lengths.unpad(&words).unwrap(),
                &lengths,
            );
            let scores = scores.unwrap();
            let cotangent = Tensor::from_vec(draw("cotangent", 3, 3), (3, 3), &Device::Cpu).unwrap();
            let grads = (&scores * cotangent).unwrap().sum_all().unwrap().backward().unwrap();
            let grad = |var: &Var| grads.get(var.as_tensor()).unwrap().clone();
            let words_grad = grad(&words);
            let kept = words_grad.narrow(1, 0, 5).unwrap().contiguous().unwrap();
            let beyond = words_grad.abs().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap()
                - kept.abs().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
            assert!(beyond.abs() < 1e-12, "{settings:?} {beyond}");
            found.push([scores, grad(&images), kept].map(|t| golden::values(&t).unwrap()));
        }
        for other in &found[1..] {
            for (a, b) in found[0].iter().zip(other) {
                assert!(worst(a, b) < 1e-11, "{settings:?} {}", worst(a, b));
            }
        }
    }
}

#[test]
fn the_order_of_regions_and_of_words_does_not_matter() {
    for settings in every() {
        let items = Items::new(2, 5, &[6, 2], 8);
        let mut turned = Items::new(2, 5, &[6, 2], 8);
        for (data, offsets) in [(&mut turned.images, &items.regions), (&mut turned.words, &items.offsets)] {
            for span in offsets.windows(2) {
                data[span[0] * 8..span[1] * 8].rotate_left(8);
            }
        }
        let (a, b) = (items.scores(&settings, Contexts::Gram), turned.scores(&settings, Contexts::Gram));
        assert!(worst(&a, &b) < 1e-13, "{settings:?}");
    }
}

#[test]
fn a_sharp_attention_sees_the_best_region_alone() {
    let items = Items::new(2, 5, &[4, 3], 8);
    let settings = CrossAttention {
        direction: Direction::T2i,
        attention: Attention { norm: Norm::NoNorm, lambda_softmax: 1e7 },
        relevance: Relevance { aggregation: Aggregation::Mean, lambda_lse: 6.0 },
    };
    let found = items.scores(&settings, Contexts::Gram);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (images, words) = items.contexts_and_queries(Direction::T2i);
    for i in 0..2 {
        for j in 0..2 {
            let best = |word: &[f64]| {
                let regions = images.item(i).chunks(8);
                let best = regions.max_by(|a, b| dot(a, word).total_cmp(&dot(b, word))).unwrap();
                dot(best, word) / (dot(best, best) * dot(word, word)).sqrt()
            };
            let cosines: Vec<f64> = words.item(j).chunks(8).map(best).collect();
            let expected = cosines.iter().sum::<f64>() / cosines.len() as f64;
            assert!((found[i * 2 + j] - expected).abs() < 1e-9);
        }
    }
}

#[test]
fn an_independent_reference_gives_the_same_numbers() {
    let text = std::fs::read(crate::golden::folder().join("identities.json")).unwrap();
    let known: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let matrix = |key: &str| -> Vec<Vec<f64>> { serde_json::from_value(known[key].clone()).unwrap() };
    let (regions, words) = (matrix("regions"), matrix("words"));
    let mut items = Items::new(1, regions.len(), &[words.len()], regions[0].len());
    (items.images, items.words) = (regions.concat(), words.concat());
    let mut seen = 0;
    for mut settings in every() {
        (settings.attention.lambda_softmax, settings.relevance.lambda_lse) = match settings.direction {
            Direction::T2i => (9.0, 6.0),
            Direction::I2t => (4.0, 5.0),
        };
        let name = |value: serde_json::Value| value.as_str().unwrap().to_string();
        let key = format!(
            "scan.{}.{}.{:?}",
            name(serde_json::to_value(settings.direction).unwrap()),
            name(serde_json::to_value(settings.attention.norm).unwrap()),
            settings.relevance.aggregation
        );
        let Some(expected) = known["out"][&key].as_f64() else { continue };
        let found = items.scores(&settings, Contexts::Gram)[0];
        assert!((found - expected).abs() < 1e-9, "{key}: {expected} {found}");
        seen += 1;
    }
    assert_eq!(seen, 40);
}

#[test]
fn shards_and_threads_do_not_change_the_scores() {
    let items = Items::new(40, 36, &(0..200).map(|j| 1 + j % 17).collect::<Vec<_>>(), 32);
    let (images, texts) = items.codes();
    for direction in DIRECTIONS {
        for form in [Contexts::Gram, Contexts::Direct] {
            let scorer = CrossScorer { settings: paper(direction), form };
            let score = |threads: usize| {
                let mut out = vec![0f32; 40 * 200];
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| scorer.score(&images, 0..40, &texts, 0..200, &mut out)).unwrap();
                out
            };
            let whole = score(1);
            assert_eq!(whole, score(2));
            assert_eq!(whole, score(4));
            let mut part = vec![0f32; 7 * 50];
            scorer.score(&images, 13..20, &texts, 101..151, &mut part).unwrap();
            for i in 0..7 {
                for j in 0..50 {
                    assert!((part[i * 50 + j] - whole[(13 + i) * 200 + 101 + j]).abs() < 1e-5);
                }
            }
        }
        let gradient = |threads: usize| {
            let (contexts, queries) = items.contexts_and_queries(direction);
            let cotangent = draw("threads", 40, 200);
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| gradients(&paper(direction), contexts, queries, &cotangent))
        };
        let one = gradient(1);
        assert_eq!(one, gradient(2));
        assert_eq!(one, gradient(4));
    }
}

#[test]
fn wrong_codes_and_shapes_are_errors() {
    let items = Items::new(2, 3, &[2, 1], 4);
    let (images, texts) = items.codes();
    let scorer = CrossScorer { settings: paper(Direction::T2i), form: Contexts::Gram };
    let dense = Codes::Dense(xmbench_datasets::Matrix::zeros(2, 4));
    let error = |images: &Codes, columns: std::ops::Range<usize>, out: usize| {
        scorer.score(images, 0..2, &texts, columns, &mut vec![0.0; out]).unwrap_err().to_string()
    };
    assert!(error(&dense, 0..2, 4).contains("fragments"));
    assert!(error(&images, 0..3, 6).contains("0..2"));
    assert!(error(&images, 0..2, 3).contains("room for 2 times 2"));
    let mut empty = Items::new(1, 1, &[2, 1], 4);
    empty.offsets[1] = 0;
    let error = scorer.score(&images, 0..2, &empty.codes().1, 0..2, &mut [0.0; 4]).unwrap_err().to_string();
    assert!(error.contains("item 0 has no vectors"), "{error}");

    let (images, words, lengths) = tensors(&items, 2, DType::F32);
    let words = lengths.unpad(&words).unwrap();
    let error = |images: &Tensor, lengths: &[usize]| {
        let lengths = Lengths::new(lengths.iter().copied()).unwrap();
        batch_scores(&scorer.settings, images, &words, &lengths).unwrap_err().to_string()
    };
    assert!(error(&images, &[2]).contains("1 texts have 2 words together, found 3"));
    assert!(error(&images.narrow(2, 0, 3).unwrap(), &[2, 1]).contains("one width"));
    assert!(error(&images.to_dtype(DType::F64).unwrap(), &[2, 1]).contains("one type"));
    assert!(batch_scores(&scorer.settings, &images, &words, &lengths).is_ok());
}

#[test]
fn a_value_that_is_not_a_number_reaches_its_scores_and_no_other() {
    for settings in every() {
        let mut items = Items::new(3, 4, &[3, 2], 5);
        items.images[4 * 5 + 7] = f64::NAN;
        for form in [Contexts::Gram, Contexts::Direct] {
            for (at, score) in items.scores(&settings, form).into_iter().enumerate() {
                let image = if settings.direction == Direction::T2i { at / 2 } else { at % 3 };
                assert_eq!(score.is_nan(), image == 1, "{settings:?} {form:?} {at}: {score}");
            }
        }
    }
}

#[test]
fn zero_vectors_have_finite_scores_and_gradients() {
    for settings in every() {
        let mut items = Items::new(2, 3, &[2, 1], 4);
        items.images[..4].fill(0.0);
        items.words[..4].fill(0.0);
        let (contexts, queries) = items.contexts_and_queries(settings.direction);
        assert!(items.scores(&settings, Contexts::Gram).iter().all(|x| x.is_finite()));
        let (dc, dq) = gradients(&settings, contexts, queries, &[1.0; 4]);
        assert!(dc.iter().chain(&dq).all(|x| x.is_finite()), "{settings:?}");
    }
}
