//! What every registered method promises, tried on a small planted dataset.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use candle_core::Device;
use xmbench_datasets::{Dataset, Images, Matrix, SparseRows, Subset, Texts, WordVectors, random::Seed};
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
    // LocVTP's products are not scaled: at that rate, whether it beats chance by much is for the seed to say.
    let own = toml::toml! { fine_weight = 10.0 learning_rate = 0.003 };
    let wanted = wanted.into_iter().chain(own.into_iter().filter(|_| method.card().name == "loc_vtp"));
    let known = method.resolve(&toml::Table::new()).expect("defaults are valid");
    wanted.filter(|(key, _)| known.contains_key(key)).collect()
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
        word_vectors: None,
        labels: None,
        split: None,
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

/// Vectors of 16 values for every second word; no value is one that weights begin with.
fn with_vectors(mut dataset: Dataset) -> (Dataset, WordVectors) {
    let words = dataset.words.len();
    let known: Vec<bool> = (0..words).map(|token| token >= 4 && token % 2 == 0).collect();
    let mut stream = Seed(9).stream(&["word vectors"]);
    let value = |at: usize| if known[at / 16] { 3.0 + stream.unit() as f32 } else { 0.0 };
    let data = (0..16 * words).map(value).collect();
    let vectors = WordVectors { origin: "planted".into(), rows: Matrix { rows: words, cols: 16, data }, known };
    dataset.train.texts.word_vectors = Some(Arc::new(vectors.clone()));
    (dataset, vectors)
}

/// Every method that reads words: frozen ones take no step, pretrained ones begin where their vectors are, and words without a vector
/// are learnt in both.
#[test]
fn words_begin_and_move_as_the_parameter_says() {
    let (dataset, vectors) = with_vectors(planted());
    let words = dataset.words.len();
    let mut tried = 0;
    for method in registry::methods() {
        let mut params = small(method);
        let known = method.resolve(&params).expect("valid parameters");
        if !known.contains_key("words") {
            continue;
        }
        tried += 1;
        params.extend([("epochs".into(), 1.into()), ("warmup".into(), 0.into())]);
        // Nothing reads what is learnt of a frozen word; a penalty on the weights would move it all the same.
        params.insert("weight_decay".into(), 0.0.into());
        params.retain(|key, _| known.contains_key(key));
        if known["text_encoder"].as_str() == Some("vectors") {
            params.insert("text_encoder".into(), "gru".into());
        }
        // The same numbers that `Weights` draws.
        let mut stream = Seed(1).stream(&["init", "text.embedding"]);
        let begun: Vec<f32> = (0..16 * words).map(|_| stream.uniform(-0.1, 0.1) as f32).collect();
        for words_are in ["frozen", "pretrained"] {
            params.insert("words".into(), words_are.into());
            let label = format!("{} {words_are}", method.card().name);
            let (stop, mut silent) = (AtomicBool::new(false), Silent);
            let mut run = Run::new(Seed(1), &mut silent, &stop);
            let fitted = method.fit(&Training::of(&dataset), &params, &mut run);
            let matcher = fitted.unwrap_or_else(|error| panic!("{label}: {error}"));
            let folder = tempfile::tempdir().expect("a folder");
            matcher.save(folder.path()).expect("writable");
            let path = folder.path().join("weights.safetensors");
            let saved = candle_core::safetensors::load(path, &Device::Cpu).expect("weights");
            let values = |name: &str| saved[name].flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let table = values("text.embedding");
            let row = |of: &[f32], token: usize| of[16 * token..16 * (token + 1)].to_vec();
            let mut moved = [0, 0];
            for token in 4..words {
                let given = row(&vectors.rows.data, token);
                let start = match (words_are, vectors.known[token]) {
                    ("pretrained", true) => given.clone(),
                    _ => row(&begun, token),
                };
                let now = row(&table, token);
                moved[usize::from(vectors.known[token])] += usize::from(now != start);
                let far = now.iter().zip(&start).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(far < 1.0, "{label}: token {token} moved by {far}");
                if words_are == "frozen" {
                    assert_eq!(row(&values("text.embedding.given"), token), given, "{label}");
                }
            }
            let free = (4..words).filter(|&token| !vectors.known[token]).count();
            // A word that no caption has does not move.
            assert!(moved[0] * 2 > free, "{label}: {moved:?} of {free} free words moved");
            assert_eq!(moved[1] > 0, words_are == "pretrained", "{label}: {moved:?}");
            // A matcher is read without the vectors.
            let loaded = method.load(folder.path(), &Device::Cpu).expect("what was saved");
            let codes = |matcher: &dyn Matcher| matcher.encode_texts(&dataset.test.texts).expect("texts encode");
            assert!(codes(&*loaded) == codes(&*matcher), "{label}");
        }
    }
    assert!(tried >= 12, "{tried} methods read words");
}

#[test]
fn words_that_cannot_be_pretrained_are_errors() {
    let (dataset, _) = with_vectors(planted());
    let method = registry::find("vse").expect("a built-in method");
    let error = |dataset: &Dataset, more: toml::Table| {
        let (stop, mut silent) = (AtomicBool::new(false), Silent);
        let mut run = Run::new(Seed(1), &mut silent, &stop);
        let fitted = method.fit(&Training::of(dataset), &more, &mut run);
        fitted.err().expect("it cannot be").to_string()
    };
    let wide = error(&dataset, toml::toml! { words = "frozen" word = 300 });
    assert!(wide.contains("`word`: expected 16, the length of the vectors of planted, found 300"), "{wide}");
    let none = error(&planted(), toml::toml! { words = "pretrained" word = 16 });
    assert!(none.contains("texts.word_vectors") && none.contains("`word_vectors`"), "{none}");
    let unread = error(&dataset, toml::toml! { words = "frozen" text_encoder = "vectors" });
    assert!(unread.contains("`words`: expected learned"), "{unread}");
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
