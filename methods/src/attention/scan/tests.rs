use std::sync::{Arc, atomic::AtomicBool};

use candle_core::Device;
use xmbench_datasets::{Collection, Images, Matrix, Pairs, Subset, Texts, random::Seed};

use super::*;
use crate::{Codes, Matcher, Method, Run, Training, method::Silent};

const CONCEPTS: usize = 14;
const WIDTH: usize = 10;
const REGIONS: usize = 4;

/// Images of three concepts and an empty region; two texts each that name the concepts in any order between a start and an end.
fn planted(label: &str, images: usize) -> Collection {
    let mut means = Seed(1).stream(&["concepts"]);
    let means: Vec<f32> = (0..CONCEPTS * WIDTH).map(|_| means.normal() as f32).collect();
    let mut stream = Seed(2).stream(&[label]);
    let mut features = Matrix::zeros(images, REGIONS * WIDTH);
    let (mut tokens, mut pairs) = (Vec::new(), Vec::new());
    for i in 0..images {
        let concepts = &stream.permutation(CONCEPTS)[..3];
        for (r, region) in features.row_mut(i).chunks_exact_mut(WIDTH).enumerate() {
            for (x, value) in region.iter_mut().enumerate() {
                *value = 0.2 * stream.normal() as f32 + concepts.get(r).map_or(0.0, |c| means[c * WIDTH + x]);
            }
        }
        for _ in 0..2 {
            let mut words: Vec<u32> = concepts.iter().map(|&c| c as u32 + 2).collect();
            stream.shuffle(&mut words);
            words.truncate(2 + stream.below(2));
            pairs.push((i as u32, tokens.len() as u32));
            tokens.push([vec![0], words, vec![1]].concat());
        }
    }
    let texts = tokens.len();
    Collection {
        images: Images {
            ids: (0..images).map(|i| i.to_string()).collect(),
            fragments: Some(Arc::new(Subset::fragments_of(features, REGIONS))),
            ..Images::default()
        },
        texts: Texts { ids: (0..texts).map(|i| i.to_string()).collect(), tokens: Some(tokens), ..Texts::default() },
        pairs: Pairs::new(images, texts, pairs),
    }
}

fn small() -> toml::Table {
    toml::toml! { embedding = 32 word = 16 epochs = 12 batch = 25 learning_rate = 0.01 decay_every = 0 }
}

fn fit(train: &Collection, params: &toml::Table) -> Result<Box<dyn Matcher>> {
    let (stop, mut silent) = (AtomicBool::new(false), Silent);
    let mut run = Run::new(Seed(3), &mut silent, &stop);
    let training = Training { dataset: "planted", train, val: None, vocabulary: CONCEPTS + 2, classes: 0 };
    SCAN.fit(&training, params, &mut run)
}

fn scores(matcher: &dyn Matcher, images: &Codes, texts: &Codes) -> Vec<f32> {
    let Similarity::Pairwise(scorer) = matcher.similarity() else { panic!("scan scores pairs") };
    let mut out = vec![0.0; images.len() * texts.len()];
    scorer.score(images, 0..images.len(), texts, 0..texts.len(), &mut out).unwrap();
    out
}

/// Fraction of texts whose own image is the best of all.
fn recall_at_1(matcher: &dyn Matcher, test: &Collection) -> f64 {
    let images = matcher.encode_images(&test.images).unwrap();
    let texts = matcher.encode_texts(&test.texts).unwrap();
    let scores = scores(matcher, &images, &texts);
    let n = texts.len();
    let hit = |text: usize| {
        let best = (0..images.len()).max_by(|&a, &b| scores[a * n + text].total_cmp(&scores[b * n + text])).unwrap();
        test.pairs.images_of(text).contains(&(best as u32))
    };
    (0..n).filter(|&text| hit(text)).count() as f64 / n as f64
}

#[test]
fn concepts_are_learnt_in_both_directions_and_survive_the_disk() {
    let (train, test) = (planted("train", 200), planted("test", 40));
    for direction in ["t2i", "i2t"] {
        for negatives in ["paper", "others"] {
            let mut params = small();
            params.insert("direction".into(), direction.into());
            params.insert("negatives".into(), negatives.into());
            let matcher = fit(&train, &params).unwrap();
            let recall = recall_at_1(&*matcher, &test);
            println!("{direction} {negatives}: R@1 {recall}");
            // Chance is 1/40; a text that names two of three concepts cannot always be told.
            assert!(recall > 0.5, "{direction}: {recall}");

            let folder = tempfile::tempdir().unwrap();
            matcher.save(folder.path()).unwrap();
            let loaded = SCAN.load(folder.path(), &Device::Cpu).unwrap();
            assert!(matcher.encode_images(&test.images).unwrap() == loaded.encode_images(&test.images).unwrap());
            assert!(matcher.encode_texts(&test.texts).unwrap() == loaded.encode_texts(&test.texts).unwrap());
            assert_eq!(recall, recall_at_1(&*loaded, &test));
        }
    }
}

#[test]
fn seeds_repeat_for_any_number_of_threads_and_both_forms_score_alike() {
    let (train, test) = (planted("train", 60), planted("test", 20));
    let codes = |threads: usize, params: &toml::Table| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let matcher = fit(&train, params).unwrap();
            let codes = (matcher.encode_images(&test.images).unwrap(), matcher.encode_texts(&test.texts).unwrap());
            let scores = scores(&*matcher, &codes.0, &codes.1);
            (codes, scores)
        })
    };
    let mut params = small();
    params.insert("epochs".into(), 2.into());
    let one = codes(1, &params);
    assert!(one == codes(2, &params), "other bits on two threads");
    params.insert("scoring".into(), "direct".into());
    let direct = codes(2, &params);
    assert!(one.0 == direct.0, "scoring changes the training");
    for (a, b) in one.1.iter().zip(&direct.1) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
}

#[test]
fn every_golden_file_of_the_authors_holds() {
    crate::golden::assert_files(&SCAN.operations()[2..]);
}

#[test]
fn defaults_follow_the_direction() {
    let resolved = SCAN.resolve(&toml::toml! { direction = "i2t" }).unwrap();
    assert_eq!((resolved["lambda_softmax"].as_float(), resolved["lambda_lse"].as_float()), (Some(4.0), Some(5.0)));
    let resolved = SCAN.resolve(&toml::toml! { direction = "i2t" lambda_softmax = 7 }).unwrap();
    assert_eq!(resolved["lambda_softmax"].as_float(), Some(7.0));
    let resolved = SCAN.resolve(&toml::Table::new()).unwrap();
    assert_eq!((resolved["lambda_softmax"].as_float(), resolved["lambda_lse"].as_float()), (Some(9.0), Some(6.0)));
    assert_eq!(SCAN.resolve(&resolved).unwrap(), resolved);
}

#[test]
fn wrong_parameters_are_named() {
    for (table, text) in [
        (toml::toml! { lambda_softmax = 0 }, "lambda_softmax"),
        (toml::toml! { lambda_lse = -1 }, "lambda_lse"),
        (toml::toml! { margin = nan }, "margin"),
        (toml::toml! { embedding = 0 }, "embedding"),
        (toml::toml! { batch = 1 }, "batch"),
        (toml::toml! { direction = "both" }, "direction"),
        (toml::toml! { text_encoder = "vectors" }, "text_encoder"),
        (toml::toml! { aggregation = "LSE" }, "aggregation"),
        (toml::toml! { raw_feature_norm = "l3norm" }, "raw_feature_norm"),
        (toml::toml! { lambda_sofmax = 3 }, "did you mean `lambda_softmax`?"),
    ] {
        let message = SCAN.resolve(&table).unwrap_err().to_string();
        assert!(message.contains(text), "{message}");
    }
}

#[test]
fn bad_data_is_named() {
    let mut train = planted("train", 60);
    let mut params = small();
    params.insert("epochs".into(), 1.into());
    params.insert("batch".into(), 60.into());

    let mut features = train.images.fragments.as_ref().unwrap().all().unwrap();
    features.row_mut(7)[WIDTH + 2] = f32::NAN;
    let good = train.images.fragments.replace(Arc::new(Subset::fragments_of(features, REGIONS)));
    let message = fit(&train, &params).err().unwrap().to_string();
    assert!(message.contains("region 1 of image 7") && message.contains("column 2"), "{message}");
    train.images.fragments = good;

    let matcher = fit(&train, &params).unwrap();
    let narrow = Images {
        fragments: Some(Arc::new(Subset::fragments_of(Matrix::zeros(2, 6), 2))),
        ids: vec!["a".into(), "b".into()],
        ..Images::default()
    };
    let message = matcher.encode_images(&narrow).unwrap_err().to_string();
    assert!(message.contains("length 10") && message.contains("length 3"), "{message}");
    let unknown = Texts { ids: vec!["a".into()], tokens: Some(vec![vec![0, 99]]), ..Texts::default() };
    assert!(matcher.encode_texts(&unknown).unwrap_err().to_string().contains("99"));
    let empty = Texts { ids: vec!["a".into()], tokens: Some(vec![vec![]]), ..Texts::default() };
    assert!(matcher.encode_texts(&empty).unwrap_err().to_string().contains("no tokens"));
    assert!(matcher.encode_images(&Images::default()).unwrap_err().to_string().contains("images.fragments"));

    let folder = tempfile::tempdir().unwrap();
    assert!(SCAN.load(folder.path(), &Device::Cpu).is_err());
    matcher.save(folder.path()).unwrap();
    let path = folder.path().join("shape.toml");
    let narrowed = std::fs::read_to_string(&path).unwrap().replace("image_width = 10", "image_width = 3");
    std::fs::write(path, narrowed).unwrap();
    let message = SCAN.load(folder.path(), &Device::Cpu).err().unwrap().to_string();
    assert!(message.contains("image.weight"), "{message}");

    train.texts.tokens = None;
    let message = fit(&train, &params).err().unwrap().to_string();
    assert!(message.contains("texts.tokens") && message.contains("planted"), "{message}");
}
