use candle_core::{DType, Device, Var};

use super::{
    super::{CrossAttention, CrossScorer, Norm, batch_scores, interact, known},
    *,
};
use crate::{
    Fragments,
    nn::{
        Lengths,
        checks::{draw, flat, follows_differences, on_threads},
    },
};

const PAPER: Masked = Masked {
    direction: Direction::T2i,
    attention: Attention { norm: Norm::ClippedL2norm, lambda_softmax: 20.0 },
    content: true,
    query: true,
    mean_over: MeanOver::N,
    threshold: 0.0,
};
const FORMS: [Contexts; 2] = [Contexts::Gram, Contexts::Direct];
const DIRECTIONS: [Direction; 2] = [Direction::T2i, Direction::I2t];
const WORDS: [usize; 4] = [3, 1, 5, 2];

/// Threshold, content mask, query mask, score and words that speak, from another program.
const KNOWN: [(f64, bool, bool, f64, usize); 12] = [
    (0.0, false, false, 0.3300188178846519, 5),
    (0.0, false, true, 0.3300188178846519, 5),
    (0.0, true, false, 0.3305738120908058, 5),
    (0.0, true, true, 0.3305738120908058, 5),
    (0.1, false, false, 0.3300188178846519, 5),
    (0.1, false, true, 0.31719125519673597, 4),
    (0.1, true, false, 0.31407413194691597, 5),
    (0.1, true, true, 0.31407413194691597, 4),
    (0.3, false, false, 0.3300188178846519, 5),
    (0.3, false, true, 0.23584003951835317, 2),
    (0.3, true, false, 0.2357004262406967, 5),
    (0.3, true, true, 0.2357004262406967, 2),
];

/// All masks, and what the mean is over.
fn masks() -> impl Iterator<Item = Masked> {
    [false, true].into_iter().flat_map(|content| {
        [(false, MeanOver::N), (true, MeanOver::N), (true, MeanOver::Kept)]
            .into_iter()
            .map(move |(query, mean_over)| Masked { content, query, mean_over, threshold: 0.2, ..PAPER })
    })
}

fn lengths() -> Lengths {
    Lengths::new(WORDS).unwrap()
}

/// Regions of four images and words of four texts.
fn drawn() -> (Var, Var) {
    (draw("images", &[4, 3, 6]), draw("words", &[11, 6]))
}

fn kernel<T: Real>(settings: &Masked, form: Contexts, images: &Tensor, words: &Tensor) -> Vec<T> {
    let [images, words] = [images, words].map(|x| x.flatten_all().unwrap().to_vec1::<T>().unwrap());
    let images = Stack { dim: 6, offsets: &[0, 3, 6, 9, 12], data: &images };
    let words = Stack { dim: 6, offsets: &[0, 3, 4, 9, 11], data: &words };
    match settings.direction {
        Direction::T2i => masked_scores(settings, form, images, words),
        Direction::I2t => {
            let turned = masked_scores(settings, form, words, images);
            (0..16).map(|at| turned[at % 4 * 4 + at / 4]).collect()
        }
    }
}

#[test]
fn all_forms_are_those_of_an_independent_reference() {
    let concat = |rows: &[[f64; 8]]| rows.concat();
    let (regions, words) = (concat(&known::REGIONS), concat(&known::WORDS));
    let [image, text] = known::items(DType::F64);
    for (threshold, content, query, expected, kept) in KNOWN {
        let settings = Masked { content, query, threshold, ..PAPER };
        let [images, texts] =
            [Side::images(&settings, image.clone()).unwrap(), Side::texts(&settings, text.clone()).unwrap()];
        let composed = flat(&settings.scores(&images, &texts, Pairing::Every).unwrap())[0];
        assert!((composed - expected).abs() < 1e-12, "{settings:?}: {expected} {composed}");
        let over_kept = Masked { mean_over: MeanOver::Kept, ..settings };
        let matching = flat(&over_kept.scores(&images, &texts, Pairing::Matching).unwrap())[0];
        assert!((matching - expected * 5.0 / kept as f64).abs() < 1e-12, "{settings:?}: over {kept}");
        for form in FORMS {
            let contexts = Stack { dim: 8, offsets: &[0, 6], data: &regions };
            let queries = Stack { dim: 8, offsets: &[0, 5], data: &words };
            let found = masked_scores(&settings, form, contexts, queries)[0];
            assert!((found - expected).abs() < 1e-12, "{settings:?} {form:?}: {expected} {found}");
            let [regions, words] = [&regions, &words].map(|x| x.iter().map(|&x| x as f32).collect::<Vec<_>>());
            let contexts = Stack { dim: 8, offsets: &[0, 6], data: &regions };
            let queries = Stack { dim: 8, offsets: &[0, 5], data: &words };
            let found = f64::from(masked_scores(&settings, form, contexts, queries)[0]);
            assert!((found - expected).abs() < 1e-6, "{settings:?} {form:?}: {expected} {found}");
            let found = masked_scores(&over_kept, form, contexts, queries)[0];
            assert!((f64::from(found) - expected * 5.0 / kept as f64).abs() < 1e-6, "{settings:?}: over {kept}");
        }
    }
}

#[test]
fn the_kernel_is_the_interaction() {
    let (images, words) = drawn();
    for direction in DIRECTIONS {
        for settings in masks() {
            let settings = Masked { direction, ..settings };
            let composed = flat(&interact(&settings, &images, &words, &lengths()).unwrap());
            for form in FORMS {
                let found = kernel::<f64>(&settings, form, &images, &words);
                for (at, (a, b)) in composed.iter().zip(&found).enumerate() {
                    assert!((a - b).abs() < 1e-10, "{settings:?} {form:?}, {at}: {a} {b}");
                }
            }
        }
    }
}

#[test]
fn without_masks_it_is_stacked_cross_attention() {
    let (images, words) = drawn();
    for direction in DIRECTIONS {
        // The threshold must play no part.
        let settings = Masked { direction, content: false, query: false, threshold: 0.9, ..PAPER };
        let plain = CrossAttention { direction, attention: settings.attention, relevance: MEAN };
        let expected = flat(&batch_scores(&plain, &images, &words, &lengths()).unwrap());
        for form in FORMS {
            let found = kernel::<f64>(&settings, form, &images, &words);
            assert!(expected.iter().zip(&found).all(|(a, b)| (a - b).abs() < 1e-12), "{direction:?} {form:?}");
        }
        let (images, texts) = codes();
        let score = |scorer: &dyn PairScorer| {
            let mut out = vec![0.0; 30 * 60];
            scorer.score(&images, 0..30, &texts, 0..60, &mut out).unwrap();
            out
        };
        for form in FORMS {
            let expected = score(&CrossScorer { settings: plain, form });
            let found = score(&MaskedScorer { settings, form });
            assert!(expected.iter().zip(&found).all(|(a, b)| (a - b).abs() < 1e-6), "{direction:?} {form:?}");
        }
    }
}

#[test]
fn gradients_follow_differences() {
    for direction in DIRECTIONS {
        for settings in masks() {
            let settings = Masked { direction, ..settings };
            let cotangent = draw("cotangent", &[4, 4]);
            let (images, words) = drawn();
            follows_differences(&[images, words], |inputs| {
                let scores = interact(&settings, &inputs[0], &inputs[1], &lengths()).unwrap();
                (scores * cotangent.as_tensor()).unwrap().sum_all().unwrap()
            });
        }
    }
}

#[test]
fn padding_and_empty_regions_change_nothing() {
    let (images, words) = drawn();
    let real = lengths().mask(7, &Device::Cpu).unwrap().unsqueeze(2).unwrap().broadcast_as((4, 7, 6)).unwrap();
    let junk = Tensor::full(f64::NAN, (4, 7, 6), &Device::Cpu).unwrap();
    let padded = Var::from_tensor(&real.where_cond(&lengths().pad(&words, 7).unwrap(), &junk).unwrap()).unwrap();
    for direction in DIRECTIONS {
        for settings in masks() {
            let settings = Masked { direction, ..settings };
            let [images, texts] = [
                Side::images(&settings, Padded::full(&images).unwrap()).unwrap(),
                Side::texts(&settings, Padded::new(&padded, &lengths()).unwrap()).unwrap(),
            ];
            let found = settings.scores(&images, &texts, Pairing::Every).unwrap();
            let expected = kernel::<f64>(&settings, Contexts::Gram, images.items.vectors(), &words);
            assert!(flat(&found).iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-10), "{settings:?}");
            let grads = found.sum_all().unwrap().backward().unwrap();
            let behind = flat(grads.get(padded.as_tensor()).unwrap());
            let real = flat(&real);
            assert!(behind.iter().zip(&real).all(|(g, &real)| if real > 0.0 { g.is_finite() } else { *g == 0.0 }));
        }
        // Nothing but zero vectors: every similarity is 0, below any threshold.
        let none = images.zeros_like().unwrap();
        let none = Var::from_tensor(&none).unwrap();
        let settings = Masked { direction, threshold: 0.1, ..PAPER };
        let scores = interact(&settings, &none, &words, &lengths()).unwrap();
        assert!(flat(&scores).iter().all(|&x| x == 0.0));
        for threshold in [0.0, 0.1] {
            let settings = Masked { threshold, ..settings };
            let grads = interact(&settings, &none, &words, &lengths()).unwrap().sum_all().unwrap().backward().unwrap();
            assert!(flat(grads.get(&none).unwrap()).iter().all(|x| x.is_finite()));
            assert!(kernel::<f64>(&settings, Contexts::Direct, &none, &words).iter().all(|&x| x == 0.0));
        }
    }
}

/// Thirty images of one to four regions, sixty texts of one to seven words.
fn codes() -> (Codes, Codes) {
    let side = |label: &str, counts: Vec<usize>| {
        let mut offsets = vec![0];
        counts.iter().for_each(|count| offsets.push(offsets[offsets.len() - 1] + count));
        let data = flat(&draw(label, &[offsets[counts.len()], 6]));
        let data = data.chunks_exact(6).flat_map(|row| {
            let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
            row.iter().map(move |x| (x / norm) as f32)
        });
        Codes::Fragments(Fragments { dim: 6, offsets, data: data.collect() })
    };
    (side("images", (0..30).map(|i| 1 + i % 4).collect()), side("texts", (0..60).map(|j| 1 + (3 * j) % 7).collect()))
}

#[test]
fn shards_and_threads_do_not_change_the_scores() {
    let (images, texts) = codes();
    for direction in DIRECTIONS {
        for form in FORMS {
            let scorer = MaskedScorer { settings: Masked { direction, threshold: 0.3, ..PAPER }, form };
            let score = |rows: Range<usize>, columns: Range<usize>| {
                let mut out = vec![0.0; rows.len() * columns.len()];
                scorer.score(&images, rows, &texts, columns, &mut out).unwrap();
                out
            };
            let whole = score(0..30, 0..60);
            assert_eq!(on_threads(1, || score(0..30, 0..60)), on_threads(3, || score(0..30, 0..60)));
            for (i, j) in [(0, 0), (7, 59), (29, 21)] {
                assert!((score(i..i + 1, j..j + 1)[0] - whole[i * 60 + j]).abs() < 1e-6);
            }
            assert!(score(0..0, 0..60).is_empty());
            let error = scorer.score(&images, 0..1, &texts, 0..2, &mut [0.0]).unwrap_err().to_string();
            assert!(error.contains("room for 1 times 2 scores, found 1"), "{error}");
        }
    }
}

#[test]
fn what_is_kept_is_counted() {
    // Two regions and words along the axes and between: similarities 1, 0 and 0.6, 0.8.
    let image = Codes::Fragments(Fragments { dim: 2, offsets: vec![0, 2], data: vec![1.0, 0.0, 0.0, 1.0] });
    let text = Codes::Fragments(Fragments { dim: 2, offsets: vec![0, 2], data: vec![1.0, 0.0, 0.6, 0.8] });
    let kept =
        |settings: Masked| MaskedScorer { settings, form: Contexts::Gram }.kept(&image, 0..1, &text, 0..1).unwrap();
    for (threshold, content, query, queries, pairs) in [
        (0.5, true, true, 2, 3),
        (0.7, true, true, 2, 2),
        (0.9, true, true, 1, 1),
        (0.9, false, true, 1, 2),
        (0.9, true, false, 2, 1),
        (0.9, false, false, 2, 4),
    ] {
        let expected = Kept { queries, of_queries: 2, pairs, of_pairs: 4 };
        assert_eq!(kept(Masked { threshold, content, query, ..PAPER }), expected);
    }
    let (images, texts) = codes();
    let mut before = (1.1, 1.1);
    for threshold in [-1.0, 0.0, 0.3, 0.6, 0.9] {
        let scorer = MaskedScorer { settings: Masked { threshold, ..PAPER }, form: Contexts::Gram };
        let whole = scorer.kept(&images, 0..30, &texts, 0..60).unwrap();
        let mut parts = scorer.kept(&images, 0..11, &texts, 0..60).unwrap();
        parts += scorer.kept(&images, 11..30, &texts, 0..60).unwrap();
        assert_eq!(whole, parts);
        let now = (whole.query_fraction(), whole.pair_fraction());
        assert!(now.0 < before.0 && now.1 < before.1, "{threshold}: {before:?} {now:?}");
        before = now;
    }
}

#[test]
fn what_is_not_a_number_reaches_the_score() {
    let image = Codes::Fragments(Fragments { dim: 2, offsets: vec![0, 2], data: vec![1.0, 0.0, f32::NAN, 1.0] });
    let text = Codes::Fragments(Fragments { dim: 2, offsets: vec![0, 1], data: vec![1.0, 0.0] });
    for form in FORMS {
        let mut out = [0.0];
        let scorer = MaskedScorer { settings: Masked { threshold: 0.5, ..PAPER }, form };
        scorer.score(&image, 0..1, &text, 0..1, &mut out).unwrap();
        assert!(out[0].is_nan(), "{form:?}");
    }
}

#[test]
fn masks_are_seen_in_what_was_looked_at() {
    // As above: similarities 1, 0 and 0.6, 0.8.
    let image = Codes::Fragments(Fragments { dim: 2, offsets: vec![0, 2], data: vec![1.0, 0.0, 0.0, 1.0] });
    let text = Codes::Fragments(Fragments { dim: 2, offsets: vec![0, 2], data: vec![1.0, 0.0, 0.6, 0.8] });
    for (threshold, expected) in [(0.7, [1.0, 0.0, 0.0, 1.0]), (0.9, [1.0, 0.0, 0.0, 0.0])] {
        let scorer = MaskedScorer { settings: Masked { threshold, ..PAPER }, form: Contexts::Gram };
        let maps = scorer.attention(&image, 0, &text, 0).unwrap();
        assert_eq!((maps.len(), maps[1].answers, &maps[1].weights[..]), (2, 2, &expected[..]));
        assert_eq!(maps[1].title, format!("under the threshold {threshold:.3}"));
        // Without it every region has a weight, and a word's add up.
        let before = &maps[0].weights;
        assert!(before.iter().all(|&w| w > 0.0) && (before[2] + before[3] - 1.0).abs() < 1e-6, "{before:?}");
    }
}
