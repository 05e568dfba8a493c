//! The pieces against the fused kernel, an independent reference, finite differences, and each other.

use candle_core::{DType, Device, Tensor, Var};

use super::super::{
    Aggregation, Attention, Contexts, CrossAttention, Direction, Norm, Padded, Relevance, attended, batch_scores,
    norms, project, relevance, relevance_from_grams, similarities, soften,
};
use crate::nn::{
    Lengths,
    checks::{distance, draw, flat, follows_differences},
};

const NORMS: [Norm; 7] =
    [Norm::Softmax, Norm::L2norm, Norm::L1norm, Norm::Clipped, Norm::ClippedL2norm, Norm::ClippedL1norm, Norm::NoNorm];
const AGGREGATIONS: [Aggregation; 4] = [Aggregation::LogSumExp, Aggregation::Max, Aggregation::Sum, Aggregation::Mean];
const FORMS: [Contexts; 2] = [Contexts::Gram, Contexts::Direct];
const WORDS: [usize; 3] = [3, 1, 5];

fn every() -> impl Iterator<Item = (Attention, Relevance)> {
    NORMS.into_iter().flat_map(|norm| {
        AGGREGATIONS.into_iter().map(move |aggregation| {
            (Attention { norm, lambda_softmax: 4.0 }, Relevance { aggregation, lambda_lse: 6.0 })
        })
    })
}

fn lengths(lengths: &[usize]) -> Lengths {
    Lengths::new(lengths.iter().copied()).unwrap()
}

/// Words of three texts in `steps`, with `junk` behind the end of each.
fn padded_words(steps: usize, junk: f64) -> Var {
    let words = lengths(&WORDS);
    let padded = words.pad(&draw("words", &[9, 6]), steps).unwrap();
    let real = words.mask(steps, &Device::Cpu).unwrap().unsqueeze(2).unwrap();
    let junk = Tensor::full(junk, padded.shape(), &Device::Cpu).unwrap();
    Var::from_tensor(&real.broadcast_as(padded.shape()).unwrap().where_cond(&padded, &junk).unwrap()).unwrap()
}

fn scalar(x: &Tensor) -> f64 {
    x.to_dtype(DType::F64).unwrap().to_scalar().unwrap()
}

/// `sum(cotangent * scores)`, and its gradients.
fn weighted(scores: &Tensor, inputs: &[&Var]) -> Vec<Tensor> {
    let loss = (scores * draw("cotangent", scores.dims()).as_tensor()).unwrap().sum_all().unwrap();
    let grads = loss.backward().unwrap();
    inputs.iter().map(|var| grads.get(var.as_tensor()).unwrap().clone()).collect()
}

#[test]
fn both_forms_have_the_values_and_gradients_of_the_kernel() {
    let (images, words) = (draw("images", &[3, 4, 6]), padded_words(7, f64::NAN));
    let texts = lengths(&WORDS);
    for (attention, relevance) in every() {
        for direction in [Direction::T2i, Direction::I2t] {
            let settings = CrossAttention { direction, attention, relevance };
            let fused = batch_scores(&settings, &images, &texts.unpad(&words).unwrap(), &texts).unwrap();
            let expected = weighted(&fused, &[&images, &words]);
            for form in FORMS {
                let (image, text) = (Padded::full(&images).unwrap(), Padded::new(&words, &texts).unwrap());
                let scores = match direction {
                    Direction::T2i => settings.pair_scores(form, &image, &text).unwrap(),
                    Direction::I2t => settings.pair_scores(form, &text, &image).unwrap().t().unwrap(),
                };
                assert!(distance(&scores, &fused) < 1e-12, "{settings:?} {form:?}");
                for (found, expected) in weighted(&scores, &[&images, &words]).iter().zip(&expected) {
                    assert!(distance(found, expected) < 1e-10, "{settings:?} {form:?} {}", distance(found, expected));
                }
            }
        }
    }
}

#[test]
fn padding_never_changes_a_bit() {
    let images = draw("images", &[3, 4, 6]);
    let texts = lengths(&WORDS);
    for (attention, relevance) in every() {
        for (form, words_ask) in FORMS.into_iter().flat_map(|form| [(form, true), (form, false)]) {
            let settings = CrossAttention { direction: Direction::T2i, attention, relevance };
            let run = |junk: f64| {
                let words = padded_words(6, junk);
                let (image, text) = (Padded::full(&images).unwrap(), Padded::new(&words, &texts).unwrap());
                let (contexts, queries) = if words_ask { (&image, &text) } else { (&text, &image) };
                let scores = settings.pair_scores(form, contexts, queries).unwrap();
                let grads = weighted(&scores, &[&images, &words]);
                [flat(&scores), flat(&grads[0]), flat(&grads[1])]
            };
            let clean = run(0.0);
            assert!(clean.iter().flatten().all(|x| x.is_finite()));
            for junk in [-3.0, 1e300, f64::INFINITY, f64::NAN] {
                assert!(run(junk) == clean, "{settings:?} {form:?} {junk}");
            }
            let behind = padded_words(6, 1.0);
            let beyond = texts.mask(6, &Device::Cpu).unwrap().flatten_all().unwrap().to_vec1::<u8>().unwrap();
            for (grads, real) in clean[2].chunks(behind.dims()[2]).zip(beyond) {
                assert!(real == 1 || grads.iter().all(|&g| g == 0.0), "a gradient in the padding");
            }
        }
    }
}

#[test]
fn changed_similarities_do_not_wake_the_padding() {
    // A threshold moves the similarities of padded words away from 0.
    let (images, texts) = (Padded::full(&draw("images", &[3, 4, 6])).unwrap(), lengths(&WORDS));
    for (attention, relevance) in every() {
        for words_ask in [true, false] {
            let run = |steps: usize| {
                let text = Padded::new(&padded_words(steps, f64::NAN), &texts).unwrap();
                let (contexts, queries) = if words_ask { (&images, &text) } else { (&text, &images) };
                let asked = queries.asked().unwrap();
                let s = (similarities(contexts, queries.vectors()).unwrap() - 0.3).unwrap();
                let weights = attention.weights(&s, asked.as_ref(), contexts.seen().unwrap().as_ref()).unwrap();
                let r = super::relevance(queries.vectors(), &attended(&weights, contexts).unwrap()).unwrap();
                relevance.aggregate(&r, asked.as_ref()).unwrap()
            };
            assert!(distance(&run(5), &run(9)) < 1e-13, "{attention:?} {relevance:?}");
        }
    }
}

#[test]
fn what_is_masked_is_as_good_as_gone() {
    // The fused scores of an image without its last region, and of a text without its last word.
    let (images, words) = (draw("images", &[2, 4, 6]), draw("text", &[1, 5, 6]));
    let fewer = images.narrow(1, 0, 3).unwrap().contiguous().unwrap();
    let seen = Tensor::new(&[1u8, 1, 1, 0], &Device::Cpu).unwrap().reshape((1, 1, 1, 4)).unwrap();
    let asked = Tensor::new(&[1u8, 1, 1, 1, 0], &Device::Cpu).unwrap().reshape((1, 1, 5)).unwrap();
    let (image, text) = (Padded::full(&images).unwrap(), Padded::full(&words).unwrap());
    let s = similarities(&image, text.vectors()).unwrap();
    for (attention, relevance) in every() {
        let settings = CrossAttention { direction: Direction::T2i, attention, relevance };
        let all = words.flatten_to(1).unwrap();
        let weights = attention.weights(&s, None, Some(&seen)).unwrap();
        let r = relevance_from_grams(&s, &weights, &image.grams().unwrap(), &text.norms().unwrap()).unwrap();
        let expected = batch_scores(&settings, &fewer, &all, &lengths(&[5])).unwrap();
        assert!(distance(&relevance.aggregate(&r, None).unwrap(), &expected) < 1e-12, "{settings:?}");

        let weights = attention.weights(&s, Some(&asked), None).unwrap();
        let r = super::relevance(text.vectors(), &attended(&weights, &image).unwrap()).unwrap();
        let expected = batch_scores(&settings, &images, &all.narrow(0, 0, 4).unwrap(), &lengths(&[4])).unwrap();
        assert!(distance(&relevance.aggregate(&r, Some(&asked)).unwrap(), &expected) < 1e-12, "{settings:?}");
    }
}

#[test]
fn where_nothing_is_left_there_is_zero_and_no_broken_gradient() {
    let (images, words) = (draw("images", &[2, 3, 4]), draw("text", &[2, 3, 4]));
    let nothing = Tensor::zeros((1, 1, 1, 1), DType::U8, &Device::Cpu).unwrap();
    // The first pair has no query left, the others have some.
    let asked: Vec<u8> = (0..12).map(|at| u8::from(at >= 3 && at != 4)).collect();
    let asked = Tensor::from_vec(asked, (2, 2, 3), &Device::Cpu).unwrap();
    for (attention, relevance) in every() {
        let (image, text) = (Padded::full(&images).unwrap(), Padded::full(&words).unwrap());
        let s = similarities(&image, text.vectors()).unwrap();
        let unseen = attention.weights(&s, None, Some(&nothing)).unwrap();
        assert!(flat(&unseen).iter().all(|&w| w == 0.0));
        let blind = super::relevance(text.vectors(), &attended(&unseen, &image).unwrap()).unwrap();
        assert!(flat(&blind).iter().all(|&r| r == 0.0));
        let weights = attention.weights(&s, Some(&asked), None).unwrap();
        let r = super::relevance(text.vectors(), &attended(&weights, &image).unwrap()).unwrap();
        let scores = relevance.aggregate(&r, Some(&asked)).unwrap();
        assert_eq!(flat(&scores)[0], 0.0);
        let all = (scores.sum_all().unwrap() + relevance.aggregate(&blind, None).unwrap().sum_all().unwrap()).unwrap();
        let grads = all.backward().unwrap();
        for var in [&images, &words] {
            assert!(
                flat(grads.get(var.as_tensor()).unwrap()).iter().all(|g| g.is_finite()),
                "{attention:?} {relevance:?}"
            );
        }
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    // Queries that differ from pair to pair are compared with others, under a threshold before the softmax and one after it.
    let inputs = [draw("contexts", &[2, 3, 4]), draw("asking", &[2, 2, 3, 4]), draw("compared", &[2, 3, 4])];
    for (attention, relevance) in every() {
        for form in FORMS {
            follows_differences(&inputs, |at| {
                let contexts = Padded::new(&at[0], &lengths(&[3, 2])).unwrap();
                let s = (similarities(&contexts, &at[1]).unwrap() - 0.1).unwrap();
                let seen = contexts.seen().unwrap().unwrap().broadcast_as(s.shape()).unwrap();
                let seen = (seen * s.gt(-0.6).unwrap()).unwrap();
                let asked = Tensor::new(&[1u8, 1, 0, 1, 1, 1], &Device::Cpu).unwrap().reshape((1, 2, 3)).unwrap();
                let weights = attention.weights(&s, Some(&asked), Some(&seen)).unwrap();
                let r = match form {
                    Contexts::Direct => super::relevance(&at[2], &attended(&weights, &contexts).unwrap()),
                    Contexts::Gram => relevance_from_grams(
                        &similarities(&contexts, &at[2]).unwrap(),
                        &weights,
                        &contexts.grams().unwrap(),
                        &norms(&at[2]).unwrap(),
                    ),
                };
                let scores = relevance.aggregate(&r.unwrap(), Some(&asked)).unwrap();
                (scores * draw("cotangent", &[2, 2]).as_tensor()).unwrap().sum_all().unwrap()
            });
        }
    }
}

#[test]
fn queries_of_each_pair_may_be_the_same() {
    let (contexts, queries) = (Padded::full(&draw("images", &[3, 4, 6])).unwrap(), draw("text", &[2, 5, 6]));
    let each = queries.unsqueeze(0).unwrap().repeat((3, 1, 1, 1)).unwrap();
    let (shared, apart) = (similarities(&contexts, &queries).unwrap(), similarities(&contexts, &each).unwrap());
    assert_eq!(shared.dims(), [3, 2, 5, 4]);
    assert!(distance(&shared, &apart) < 1e-14);
    let weights = soften(&shared, None).unwrap();
    let seen = attended(&weights, &contexts).unwrap();
    assert_eq!(seen.dims(), [3, 2, 5, 6]);
    assert!(distance(&relevance(&queries, &seen).unwrap(), &relevance(&each, &seen).unwrap()) == 0.0);
    // By hand for one of them.
    let row: Vec<f64> = flat(&shared.get(1).unwrap().get(0).unwrap().get(2).unwrap());
    let total: f64 = row.iter().map(|s| s.exp()).sum();
    let found = flat(&weights.get(1).unwrap().get(0).unwrap().get(2).unwrap());
    assert!(found.iter().zip(&row).all(|(w, s)| (w - s.exp() / total).abs() < 1e-15), "{found:?}");
}

#[test]
fn the_first_of_equal_maxima_has_the_gradient_as_in_the_kernel() {
    // Two equal regions and two equal words.
    let images = Var::new(&[[[1.0f64, 0.2], [1.0, 0.2], [-0.3, 1.0]]], &Device::Cpu).unwrap();
    let words = Var::new(&[[[0.9f64, 0.1], [0.9, 0.1], [-1.0, -0.5]]], &Device::Cpu).unwrap();
    let settings = CrossAttention {
        direction: Direction::T2i,
        attention: Attention { norm: Norm::ClippedL2norm, lambda_softmax: 9.0 },
        relevance: Relevance { aggregation: Aggregation::Max, lambda_lse: 6.0 },
    };
    let texts = lengths(&[3]);
    let fused = batch_scores(&settings, &images, &texts.unpad(&words).unwrap(), &texts).unwrap();
    let scores = settings
        .pair_scores(Contexts::Gram, &Padded::full(&images).unwrap(), &Padded::new(&words, &texts).unwrap())
        .unwrap();
    assert!(distance(&fused, &scores) < 1e-14);
    for (a, b) in weighted(&fused, &[&images, &words]).iter().zip(weighted(&scores, &[&images, &words])) {
        assert!(distance(a, &b) < 1e-12, "{:?} {:?}", flat(a), flat(&b));
    }
}

#[test]
fn what_is_not_a_number_reaches_its_scores_and_no_other() {
    let mut images = flat(&draw("images", &[3, 4, 6]));
    images[4 * 6 + 7] = f64::NAN;
    let images = Padded::full(&Tensor::from_vec(images, (3, 4, 6), &Device::Cpu).unwrap()).unwrap();
    let words = Padded::packed(&draw("words", &[9, 6]), &lengths(&WORDS)).unwrap();
    for (attention, relevance) in every() {
        let settings = CrossAttention { direction: Direction::T2i, attention, relevance };
        for form in FORMS {
            let scores = flat(&settings.pair_scores(form, &images, &words).unwrap());
            assert!(scores.iter().enumerate().all(|(at, s)| s.is_nan() == (at / 3 == 1)), "{settings:?} {scores:?}");
            let scores = flat(&settings.pair_scores(form, &words, &images).unwrap());
            assert!(scores.iter().enumerate().all(|(at, s)| s.is_nan() == (at % 3 == 1)), "{settings:?} {scores:?}");
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let contexts = Padded::full(&draw("images", &[3, 4, 6])).unwrap();
    let error = |shape: &[usize]| similarities(&contexts, &draw("q", shape)).unwrap_err().to_string();
    assert!(error(&[2, 5, 7]).contains("[M, q, 6] or [3, M, q, 6]") && error(&[2, 5, 7]).contains("found [2, 5, 7]"));
    assert!(error(&[2, 2, 5, 6]).contains("found [2, 2, 5, 6]"));
    let error = attended(&draw("w", &[3, 2, 5, 3]), &contexts).unwrap_err().to_string();
    assert!(error.contains("expected weights [3, M, q, 4]") && error.contains("found [3, 2, 5, 3]"), "{error}");
    let error = Padded::new(&draw("words", &[3, 4, 6]), &lengths(&WORDS)).unwrap_err().to_string();
    assert!(error.contains("3 items of up to 5 vectors") && error.contains("[3, 4, 6]"), "{error}");
    assert!(Padded::packed(&draw("words", &[8, 6]), &lengths(&WORDS)).is_err());
    assert!(Padded::full(&draw("words", &[8, 6])).unwrap_err().to_string().contains("found [8, 6]"));
    let asked = Tensor::ones((1, 2, 4), DType::U8, &Device::Cpu).unwrap();
    let relevance = Relevance { aggregation: Aggregation::Mean, lambda_lse: 1.0 };
    assert!(relevance.aggregate(&draw("r", &[3, 2, 5]), Some(&asked)).is_err());
}

/// Regions, words and results of an independent program.
struct Known {
    file: serde_json::Value,
    regions: Padded,
    words: Padded,
}

impl Known {
    fn open(dtype: DType) -> Self {
        let text = std::fs::read(crate::golden::folder().join("identities.json")).unwrap();
        let file: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let side = |key: &str| Padded::full(&matrix(&file[key], dtype).unsqueeze(0).unwrap()).unwrap();
        let (regions, words) = (side("regions"), side("words"));
        Self { regions, words, file }
    }

    fn out(&self, key: &str) -> &serde_json::Value {
        &self.file["out"][key]
    }
}

fn matrix(rows: &serde_json::Value, dtype: DType) -> Tensor {
    let rows: Vec<Vec<f64>> = serde_json::from_value(rows.clone()).unwrap();
    Tensor::new(rows, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

fn one(scores: &Tensor) -> f64 {
    scalar(&scores.squeeze(0).unwrap().squeeze(0).unwrap())
}

const PAPER: Attention = Attention { norm: Norm::ClippedL2norm, lambda_softmax: 9.0 };
const MEAN: Relevance = Relevance { aggregation: Aggregation::Mean, lambda_lse: 1.0 };

#[test]
fn both_forms_are_those_of_an_independent_reference() {
    for (dtype, tolerance) in [(DType::F32, 1e-6), (DType::F64, 1e-9)] {
        let known = Known::open(dtype);
        let mut seen = 0;
        for (mut attention, mut relevance) in every() {
            for (words_ask, lambdas) in [(true, (9.0, 6.0)), (false, (4.0, 5.0))] {
                (attention.lambda_softmax, relevance.lambda_lse) = lambdas;
                let norm = serde_json::to_value(attention.norm).unwrap();
                let direction = if words_ask { "t2i" } else { "i2t" };
                let key = format!("scan.{direction}.{}.{:?}", norm.as_str().unwrap(), relevance.aggregation);
                let Some(expected) = known.out(&key).as_f64() else { continue };
                let (contexts, queries) =
                    if words_ask { (&known.regions, &known.words) } else { (&known.words, &known.regions) };
                let settings = CrossAttention { direction: Direction::T2i, attention, relevance };
                let [gram, direct] = FORMS.map(|form| one(&settings.pair_scores(form, contexts, queries).unwrap()));
                let scale = tolerance * expected.abs().max(1.0);
                assert!((gram - direct).abs() < scale, "{key}: {gram} {direct}");
                assert!((gram - expected).abs() < scale, "{key}: {expected} {gram}");
                seen += 1;
            }
        }
        assert_eq!(seen, 40);
    }
}

#[test]
fn refined_queries_are_compared_with_what_they_began_as() {
    // The steps of IMRAM: q becomes g q + (1 - g) u, where g and u are layers over what asked and what it saw.
    let known = Known::open(DType::F64);
    let layer = |weight: &str, bias: &str, x: &Tensor| {
        let params = &known.file["imram_params"];
        let bias: Vec<f64> = serde_json::from_value(params[bias].clone()).unwrap();
        let weight = matrix(&params[weight], DType::F64).t().unwrap();
        x.broadcast_matmul(&weight).unwrap().broadcast_add(&Tensor::new(bias, &Device::Cpu).unwrap()).unwrap()
    };
    for (name, contexts, queries) in [("text", &known.regions, &known.words), ("image", &known.words, &known.regions)] {
        for (normed, word) in [(false, "False"), (true, "True")] {
            let expected: Vec<f64> =
                serde_json::from_value(known.out(&format!("imram.{name}.norm={word}.per_step")).clone()).unwrap();
            let mut asking = queries.vectors().unsqueeze(0).unwrap();
            for expected in expected {
                let weights = PAPER.weights(&similarities(contexts, &asking).unwrap(), None, None).unwrap();
                let saw = attended(&weights, contexts).unwrap();
                let found = one(&MEAN.aggregate(&relevance(queries.vectors(), &saw).unwrap(), None).unwrap());
                assert!((found - expected).abs() < 1e-9, "{name} {normed}: {expected} {found}");
                let both = Tensor::cat(&[&asking, &saw], 3).unwrap();
                let gate = candle_nn::ops::sigmoid(&layer("W_gate", "b_gate", &both)).unwrap();
                let update = layer("W_lin", "b_lin", &both).tanh().unwrap();
                asking = (&update + (gate * (asking - &update).unwrap()).unwrap()).unwrap();
                if normed {
                    asking = crate::nn::l2n(&asking).unwrap();
                }
            }
        }
    }
}

#[test]
fn thresholds_are_masks() {
    // Regions below a threshold are not seen; words that reach no region above it do not speak, but are counted.
    let known = Known::open(DType::F64);
    let attention = Attention { lambda_softmax: 20.0, ..PAPER };
    let s = similarities(&known.regions, known.words.vectors()).unwrap();
    for threshold in [0.0, 0.1, 0.3] {
        let above = s.gt(threshold).unwrap();
        for (content, query) in [(false, false), (false, true), (true, false), (true, true)] {
            let word = |flag: bool| if flag { "True" } else { "False" };
            let key = format!("uarda_spec.t={threshold:?}.content={}.query={}", word(content), word(query));
            let (expected, speaking): (f64, usize) = serde_json::from_value(known.out(&key).clone()).unwrap();
            let weights = attention.weights(&s, None, content.then_some(&above)).unwrap();
            let r = relevance(known.words.vectors(), &attended(&weights, &known.regions).unwrap()).unwrap();
            let reaching = above.max(3).unwrap();
            let sum = Relevance { aggregation: Aggregation::Sum, ..MEAN };
            let found = one(&sum.aggregate(&r, query.then_some(&reaching)).unwrap()) / s.dims()[2] as f64;
            assert!((found - expected).abs() < 1e-9, "{key}: {expected} {found}");
            if query {
                assert_eq!(flat(&reaching).iter().sum::<f64>() as usize, speaking, "{key}");
            }
        }
    }
}

#[test]
fn positive_and_negative_evidence_come_from_the_same_pieces() {
    // NAAF: what exceeds a threshold attends; a word that exceeds it nowhere, itself or with its neighbours, counts against.
    let known = Known::open(DType::F64);
    let attention = Attention { lambda_softmax: 20.0, ..PAPER };
    let words = known.words.vectors();
    let s = similarities(&known.regions, words).unwrap();
    for threshold in [0.0, 0.1, 0.3, 0.9] {
        let h = (&s - threshold).unwrap();
        let logits = (&h * attention.lambda_softmax).unwrap();
        let weights = soften(&logits, Some(&h.gt(0.0).unwrap())).unwrap();
        // The released code does not divide by the length of a word, which is 1.
        let feature = relevance(words, &attended(&weights, &known.regions).unwrap()).unwrap();
        let weights = attention.weights(&s, None, None).unwrap();
        let [relevant, _] = project(&s, &weights, &known.regions.grams().unwrap()).unwrap();
        let most = h.max(3).unwrap();
        let within = soften(&(similarities(&known.words, words).unwrap() * 5.0).unwrap(), None).unwrap();
        let spread = within.broadcast_mul(&most.unsqueeze(2).unwrap()).unwrap().sum(3).unwrap();
        for (word, gate) in [("False", &most), ("True", &spread)] {
            let negative = (gate.lt(0.0).unwrap().to_dtype(DType::F64).unwrap() * &most).unwrap();
            let all = ((negative + &feature).unwrap() + &relevant).unwrap();
            let (key, found) =
                (format!("naaf.t={threshold:?}.intra={word}"), one(&MEAN.aggregate(&all, None).unwrap()));
            let expected = known.out(&key).as_f64().unwrap();
            assert!((found - expected).abs() < 1e-7, "{key}: {expected} {found}");
        }
    }
}
