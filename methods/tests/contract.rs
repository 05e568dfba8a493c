//! What every registered method promises, tried on a small planted dataset.

use std::{collections::BTreeSet, path::Path, sync::atomic::AtomicBool};

use candle_core::Device;
use xmbench_datasets::{Dataset, Images, Matrix, SparseRows, Subset, Texts, random::Seed};
use xmbench_methods::{Codes, Matcher, Method, Run, Similarity, Training, method::Silent, registry};

/// Parameters that bring any method down to a size that fits within seconds; a method takes those that it has.
fn small(method: &dyn Method) -> toml::Table {
    let wanted = toml::toml! {
        components = 6
        bits = 32
        embedding = 32
        word = 16
        hidden = 32
        image_hidden = 0
        text_hidden = 64
        text_components = 0
        epochs = 12
        batch = 20
        learning_rate = 0.01
        decay_every = 0
        warmup = 3
        ridge = 0.01
        image_widths = [32]
        text_widths = [32]
        router_width = 16
        reasoning_width = 32
        path_width = 16
        graph_after = 20
        attention_width = 16
        graph_hidden = 16
        discriminator = 16
        longer = "cut"
        head_hidden = 64
        head_width = 32
        projection = 32
        prototypes = 24
        context_layers = 0
    };
    let known = method.resolve(&toml::Table::new()).expect("defaults are valid");
    wanted.into_iter().filter(|(key, _)| known.contains_key(key)).collect()
}

fn planted() -> Dataset {
    let options = toml::toml! { train = 200 val = 40 test = 60 noise = 0.2 };
    xmbench_datasets::open("planted-fragments", &options, None).expect("a planted dataset needs no files")
}

fn fit(method: &dyn Method, dataset: &Dataset, seed: u64) -> Box<dyn Matcher> {
    let (stop, mut silent) = (AtomicBool::new(false), Silent);
    let mut run = Run::new(Seed(seed), &mut silent, &stop);
    let name = &method.card().name;
    method.fit(&Training::of(dataset), &small(method), &mut run).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Scores of every image against every text, straight from the definition of each similarity.
fn scores(similarity: Similarity<'_>, images: &Codes, texts: &Codes) -> Vec<Vec<f64>> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
    if let Similarity::Pairwise(scorer) = similarity {
        let mut all = vec![0.0; images.len() * texts.len()];
        scorer.score(images, 0..images.len(), texts, 0..texts.len(), &mut all).expect("codes of this method");
        return all.chunks_exact(texts.len()).map(|row| row.iter().map(|&score| f64::from(score)).collect()).collect();
    }
    let score = |i: usize, j: usize| match (similarity, images, texts) {
        (Similarity::Dot, Codes::Dense(a), Codes::Dense(b)) => dot(a.row(i), b.row(j)),
        (Similarity::Cosine, Codes::Dense(a), Codes::Dense(b)) => {
            let norms = (dot(a.row(i), a.row(i)) * dot(b.row(j), b.row(j))).sqrt();
            if norms > 0.0 { dot(a.row(i), b.row(j)) / norms } else { 0.0 }
        }
        (Similarity::Hamming, Codes::Binary(a), Codes::Binary(b)) => {
            -f64::from(a.item(i).iter().zip(b.item(j)).map(|(x, y)| (x ^ y).count_ones()).sum::<u32>())
        }
        _ => panic!("codes and similarity do not belong together"),
    };
    (0..images.len()).map(|i| (0..texts.len()).map(|j| score(i, j)).collect()).collect()
}

/// Mean over images of the fraction of foreign texts that score above the image's best own text, equal scores by half; 0.5 is chance.
fn mean_relative_rank(dataset: &Dataset, matcher: &dyn Matcher) -> f64 {
    let test = &dataset.test;
    let images = matcher.encode_images(&test.images).expect("images encode");
    let texts = matcher.encode_texts(&test.texts).expect("texts encode");
    let scores = scores(matcher.similarity(), &images, &texts);
    let mut sum = 0.0;
    for (i, row) in scores.iter().enumerate() {
        let own: BTreeSet<usize> = test.pairs.texts_of(i).iter().map(|&t| t as usize).collect();
        let best = own.iter().map(|&t| row[t]).fold(f64::NEG_INFINITY, f64::max);
        let foreign = row.iter().enumerate().filter(|(t, _)| !own.contains(t)).map(|(_, &s)| s);
        let (above, count) = foreign.fold((0.0, 0.0), |(above, count), s| {
            (
                above
                    + if s > best {
                        1.0
                    } else if s == best {
                        0.5
                    } else {
                        0.0
                    },
                count + 1.0,
            )
        });
        sum += above / count;
    }
    sum / scores.len() as f64
}

#[test]
fn cards_document_every_parameter_and_no_other() {
    let mut names = BTreeSet::new();
    for method in registry::methods() {
        let card = method.card();
        assert!(names.insert(&card.name), "two methods are called {}", card.name);
        for (field, text) in [
            ("label", &card.label),
            ("title", &card.title),
            ("authors", &card.authors),
            ("venue", &card.venue),
            ("identifier", &card.identifier),
        ] {
            assert!(!text.is_empty(), "{}: card has no {field}", card.name);
        }
        assert!(!card.needs.is_empty() && !card.claims.is_empty(), "{}: needs and claims", card.name);
        let resolved = method.resolve(&toml::Table::new()).expect("defaults are valid");
        let documented: BTreeSet<&String> = card.parameters.keys().collect();
        let known: BTreeSet<&String> = resolved.keys().collect();
        assert_eq!(documented, known, "{}: parameters of the card and of the code", card.name);
        assert_eq!(method.resolve(&resolved).expect("resolved parameters are valid"), resolved, "{}", card.name);
    }
}

#[test]
fn unknown_parameters_name_the_nearest() {
    for method in registry::methods() {
        let known = method.resolve(&toml::Table::new()).expect("defaults are valid");
        let key = known.keys().next().expect("a method has parameters");
        let misspelt = toml::Table::from_iter([(format!("{key}x"), toml::Value::Integer(1))]);
        let message = method.resolve(&misspelt).expect_err("the key is unknown").to_string();
        assert!(message.contains(&format!("did you mean `{key}`?")), "{message}");
    }
}

#[test]
fn every_method_beats_chance_and_saves_and_repeats() {
    let dataset = planted();
    for method in registry::methods() {
        let name = &method.card().name;
        let matcher = fit(method, &dataset, 1);
        let rank = mean_relative_rank(&dataset, &*matcher);
        assert!(rank < 0.35, "{name}: mean relative rank {rank:.3}, chance is 0.5");

        let codes = |matcher: &dyn Matcher| {
            (
                matcher.encode_images(&dataset.test.images).expect("images encode"),
                matcher.encode_texts(&dataset.test.texts).expect("texts encode"),
            )
        };
        let before = codes(&*matcher);
        assert!(before == codes(&*fit(method, &dataset, 1)), "{name}: same seed, other bits");

        let folder = tempfile::tempdir().expect("a temporary folder");
        matcher.save(folder.path()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let loaded = method.load(folder.path(), &Device::Cpu).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(before == codes(&*loaded), "{name}: other bits after save and load");
        truncated_files_are_errors(method, folder.path());
    }
}

/// A saved matcher with any of its files cut in half must not load, and must not panic.
fn truncated_files_are_errors(method: &dyn Method, saved: &Path) {
    for entry in std::fs::read_dir(saved).expect("a folder").flatten() {
        let bytes = std::fs::read(entry.path()).expect("a file");
        if entry.path().extension().is_some_and(|extension| extension == "safetensors") {
            std::fs::write(entry.path(), &bytes[..bytes.len() / 2]).expect("writable");
            assert!(
                method.load(saved, &Device::Cpu).is_err(),
                "{}: {:?} is truncated",
                method.card().name,
                entry.path()
            );
            std::fs::write(entry.path(), bytes).expect("writable");
        }
    }
}

/// The test texts in the given order, in every representation.
fn reordered(texts: &Texts, order: &[usize]) -> Texts {
    Texts {
        ids: order.iter().map(|&i| texts.ids[i].clone()).collect(),
        raw: None,
        tokens: texts.tokens.as_ref().map(|tokens| order.iter().map(|&i| tokens[i].clone()).collect()),
        bow: texts.bow.as_ref().map(|bow: &SparseRows| bow.subset(order)),
        global: texts.global.clone().map(|table| Subset::new(table, order.to_vec()).into_table()),
        labels: None,
    }
}

trait IntoTable {
    fn into_table(self) -> xmbench_datasets::FeatureTable;
}

impl IntoTable for Subset {
    fn into_table(self) -> xmbench_datasets::FeatureTable {
        std::sync::Arc::new(self)
    }
}

#[test]
fn a_text_has_the_same_code_in_any_company() {
    let dataset = planted();
    let texts = &dataset.test.texts;
    let n = texts.len();
    for method in registry::methods() {
        let name = &method.card().name;
        let matcher = fit(method, &dataset, 2);
        let images = matcher.encode_images(&dataset.test.images).expect("images encode");
        let together = scores(matcher.similarity(), &images, &matcher.encode_texts(texts).expect("texts encode"));
        let order: Vec<usize> = (0..n).rev().step_by(3).collect();
        let apart = matcher.encode_texts(&reordered(texts, &order)).expect("texts encode");
        let apart = scores(matcher.similarity(), &images, &apart);
        for (row, alone) in together.iter().zip(&apart) {
            for (&t, &score) in order.iter().zip(alone) {
                assert!(
                    (row[t] - score).abs() < 1e-5,
                    "{name}: text {t} scores {} among all, {score} among few",
                    row[t]
                );
            }
        }
    }
}

/// Images of `regions` vectors each, the first image's all zero; texts of one word and of more than training had.
fn odd(dataset: &Dataset, regions: usize) -> (Images, Texts) {
    let fragments = dataset.test.images.fragments.as_ref().expect("planted images have fragments");
    let items: Vec<usize> = (0..5).collect();
    let all = fragments.gather(&items).expect("readable");
    let cols = fragments.width();
    let each = fragments.fragments();
    let mut vectors = Matrix::zeros(items.len(), regions * cols);
    for item in 1..items.len() {
        vectors.row_mut(item).copy_from_slice(&all.data[item * each * cols..][..regions * cols]);
    }
    let ids = |n: usize| (0..n).map(|i| i.to_string()).collect();
    let images = Images {
        ids: ids(items.len()),
        fragments: Some(std::sync::Arc::new(Subset::fragments_of(vectors, regions))),
        ..Images::default()
    };
    let tokens = dataset.test.texts.tokens.as_ref().expect("planted texts have tokens");
    let (start, end) = (tokens[0][0], *tokens[0].last().expect("a text"));
    let inside: Vec<u32> = tokens.iter().flat_map(|text| &text[1..text.len() - 1]).copied().take(70).collect();
    let texts = vec![vec![start, inside[0], end], [vec![start], inside, vec![end]].concat(), tokens[1].clone()];
    (images, Texts { ids: ids(texts.len()), tokens: Some(texts), ..Texts::default() })
}

#[test]
fn short_long_and_empty_items_are_compared_alike_in_any_company() {
    let dataset = planted();
    let pairwise = registry::methods().filter(|method| method.card().codes == "fragments");
    for method in pairwise {
        let name = &method.card().name;
        let matcher = fit(method, &dataset, 3);
        for regions in [1, dataset.test.images.fragments.as_ref().expect("fragments").fragments()] {
            let (images, texts) = odd(&dataset, regions);
            let images = matcher.encode_images(&images).unwrap_or_else(|error| panic!("{name}: {error}"));
            let texts = matcher.encode_texts(&texts).unwrap_or_else(|error| panic!("{name}: {error}"));
            let together = scores(matcher.similarity(), &images, &texts);
            let Similarity::Pairwise(scorer) = matcher.similarity() else { panic!("{name} compares fragments") };
            let measures = scorer.measures(&images, &texts).unwrap();
            assert!(measures.iter().map(|(name, _)| name).eq(&method.card().measures), "{name}: {measures:?}");
            for (i, row) in together.iter().enumerate() {
                for (j, &score) in row.iter().enumerate() {
                    let mut alone = [0.0];
                    scorer.score(&images, i..i + 1, &texts, j..j + 1, &mut alone).expect("codes of this method");
                    assert!(score.is_finite(), "{name}: image {i}, text {j}: {score}");
                    let apart = (score - f64::from(alone[0])).abs();
                    assert!(apart < 1e-5, "{name}: image {i}, text {j}: {score} among others, {} alone", alone[0]);
                }
            }
        }
    }
}

#[test]
fn missing_representations_are_named() {
    let mut dataset = planted();
    dataset.train.images = Images { ids: dataset.train.images.ids.clone(), ..Images::default() };
    dataset.train.texts = Texts { ids: dataset.train.texts.ids.clone(), ..Texts::default() };
    for method in registry::methods() {
        let (stop, mut silent) = (AtomicBool::new(false), Silent);
        let mut run = Run::new(Seed(1), &mut silent, &stop);
        let message = match method.fit(&Training::of(&dataset), &small(method), &mut run) {
            Ok(_) => panic!("{}: fits without data", method.card().name),
            Err(error) => error.to_string(),
        };
        assert!(message.contains("needs") && message.contains("planted-fragments"), "{message}");
    }
}

#[test]
fn features_that_are_not_numbers_are_errors() {
    let mut dataset = planted();
    let mut global =
        dataset.train.images.global.as_ref().expect("planted images have global vectors").all().expect("readable");
    global.row_mut(3)[0] = f32::NAN;
    let fragments = dataset.train.images.fragments.as_ref().expect("planted images have fragments");
    let count = fragments.fragments();
    let mut vectors: Matrix = fragments.all().expect("readable");
    vectors.row_mut(3)[0] = f32::NAN;
    dataset.train.images.global = Some(std::sync::Arc::new(global));
    dataset.train.images.fragments = Some(std::sync::Arc::new(Subset::fragments_of(vectors, count)));
    for method in registry::methods() {
        let (stop, mut silent) = (AtomicBool::new(false), Silent);
        let mut run = Run::new(Seed(1), &mut silent, &stop);
        assert!(
            method.fit(&Training::of(&dataset), &small(method), &mut run).is_err(),
            "{}: a NaN in the training images goes unnoticed",
            method.card().name
        );
    }
}
