use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use xmbench_datasets::{Collection, Pairs, Subset};

use super::{
    graph::{Links, Nodes},
    matching::Side,
    *,
};
use crate::{
    Method, Similarity,
    nn::{Lengths, Relating, Weights, unit},
    registry,
    trained::planted::{fit, fit_as, planted, recall, view},
};

fn options(more: toml::Table) -> toml::Table {
    let mut options = toml::toml! { hidden = 32 heads = 4 graph_after = 20 learning_rate = 0.003 };
    options.extend(more);
    options
}

#[test]
fn every_form_learns_planted_pairs() {
    let (train, test) = (planted("train", 200), planted("test", 60));
    for more in [
        toml::toml! { interaction = "fusion" },
        toml::toml! { interaction = "standalone" pooling = "gpo" },
        toml::toml! { interaction = "none" text_encoder = "words" },
        toml::toml! { sampling = "neighbours" clusters = 6 text_encoder = "transformer" },
        toml::toml! { triplet = "sum" text_encoder = "bilstm" hidden = 0 consistency = false graph_unit = false },
    ] {
        let matcher = fit(&HREM, &train, options(more.clone())).unwrap();
        let recall = recall(&*matcher, &test);
        // Chance is 1 in 60.
        assert!(recall > 0.4, "{more}: {recall}");
    }
}

#[test]
fn what_was_learnt_with_the_graph_is_a_plain_embedding() {
    let (train, test) = (planted("train", 60), planted("test", 20));
    let plain = fit(registry::find("vse").unwrap(), &train, toml::toml! { epochs = 1 }).unwrap();
    for interaction in ["fusion", "standalone"] {
        let mut more = toml::toml! { epochs = 4 graph_after = 0 };
        more.insert("interaction".into(), interaction.into());
        let matcher = fit(&HREM, &train, options(more)).unwrap();
        let codes = |matcher: &dyn crate::Matcher| {
            (matcher.encode_images(&test.images).unwrap(), matcher.encode_texts(&test.texts).unwrap())
        };
        let (images, texts) = codes(&*matcher);
        // A query costs what it costs VSE++: one product a pair of vectors of that width.
        assert!(matches!(matcher.similarity(), Similarity::Cosine) && matches!(plain.similarity(), Similarity::Cosine));
        let width = |codes: &Codes| match codes {
            Codes::Dense(rows) => rows.cols,
            _ => panic!("dense codes"),
        };
        let (plain_images, plain_texts) = codes(&*plain);
        assert_eq!([width(&images), width(&texts)], [32, 32]);
        assert_eq!([width(&plain_images), width(&plain_texts)], [32, 32]);
        // Nothing of the graph is touched: with other weights of it, codes are the same to the bit.
        let folder = tempfile::tempdir().unwrap();
        matcher.save(folder.path()).unwrap();
        let file = folder.path().join("weights.safetensors");
        let mut weights = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
        let mut of_graph = 0;
        for (_, weight) in weights.iter_mut().filter(|(name, _)| name.starts_with("graph.")) {
            *weight = Tensor::full(f32::NAN, weight.shape(), &Device::Cpu).unwrap();
            of_graph += 1;
        }
        assert_eq!(of_graph, 8 + 12 * if interaction == "fusion" { 1 } else { 2 });
        candle_core::safetensors::save(&weights, &file).unwrap();
        let loaded = HREM.load(folder.path(), &Device::Cpu).unwrap();
        assert!(codes(&*loaded) == (images, texts));
    }
}

#[test]
fn before_its_time_the_graph_changes_nothing_and_then_it_does() {
    let (train, test) = (planted("train", 60), planted("test", 20));
    let codes = |more: toml::Table| {
        let matcher = fit(&HREM, &train, options(more)).unwrap();
        matcher.encode_images(&test.images).unwrap()
    };
    // 120 pairs, 3 steps an epoch.
    let none = codes(toml::toml! { epochs = 2 interaction = "none" });
    assert!(none == codes(toml::toml! { epochs = 2 graph_after = 6 }));
    assert!(none != codes(toml::toml! { epochs = 2 graph_after = 5 }));
}

/// Vectors and fragments of some pairs: `regions` and `words` of each, drawn.
struct Drawn {
    unit: [Var; 2],
    fragments: [Var; 2],
    lengths: [Lengths; 2],
}

fn drawn(regions: &[usize], words: &[usize], equal_texts: bool) -> Drawn {
    let mut stream = Seed(5).stream(&["nodes"]);
    let mut normal = |rows: usize, equal: bool| {
        let row: Vec<f32> = (0..8).map(|_| stream.normal() as f32).collect();
        let rows: Vec<f32> = (0..rows)
            .flat_map(|_| if equal { row.clone() } else { (0..8).map(|_| stream.normal() as f32).collect() })
            .collect();
        Tensor::from_vec(rows.clone(), (rows.len() / 8, 8), &Device::Cpu).unwrap()
    };
    let n = regions.len();
    let var = |x: Tensor| Var::from_tensor(&x).unwrap();
    let vectors = [normal(n, false), normal(n, equal_texts)].map(|x| var(unit(&x).unwrap()));
    let fragments = [normal(regions.iter().sum(), false), normal(words.iter().sum(), equal_texts)].map(var);
    let lengths = [regions, words].map(|lengths| Lengths::new(lengths.iter().copied()).unwrap());
    Drawn { unit: vectors, fragments, lengths }
}

impl Drawn {
    fn nodes(&self) -> Nodes<'_> {
        let side = |at: usize| Side { fragments: &self.fragments[at], lengths: &self.lengths[at] };
        Nodes {
            unit: [&self.unit[0], &self.unit[1]],
            pooled: [&self.unit[0], &self.unit[1]],
            fragments: [side(0), side(1)],
            real: self.lengths[1].as_slice(),
        }
    }
}

fn graph(weights: &mut Weights, interaction: Interaction, connected: f64) -> Graph {
    let settings = Params { interaction, connected, ..Params::default() }.settings();
    Graph::new(weights, settings, Relating { width: 8, heads: 2, hidden: 8, dropout: 0.0 }).unwrap()
}

fn bits(links: &Links) -> Vec<Vec<u8>> {
    links.connect.to_vec2::<u8>().unwrap()
}

fn moved(weights: &Weights, grads: &candle_core::backprop::GradStore) -> Vec<String> {
    let some = |var: &Var| {
        let sum = |g: &Tensor| g.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        grads.get(var).is_some_and(|grad| sum(grad) > 0.0)
    };
    weights.iter().filter(|(_, var)| some(var)).map(|(name, _)| name.to_string()).collect()
}

#[test]
fn the_regulariser_trains_the_two_perceptrons_alone() {
    let mut weights = Weights::new(Seed(1), &Device::Cpu);
    let graph = graph(&mut weights, Interaction::Fusion, 0.5);
    let drawn = drawn(&[12, 4, 3, 6], &[1, 5, 12, 2], false);
    let links = graph.links(&drawn.nodes()).unwrap();
    let grads = links.regulariser.backward().unwrap();
    let moved = moved(&weights, &grads);
    assert!(moved.iter().all(|name| name.starts_with("graph.t2i.") || name.starts_with("graph.i2t.")));
    assert!(moved.iter().any(|name| name.starts_with("graph.t2i.")), "{moved:?}");
    assert!(moved.iter().any(|name| name.starts_with("graph.i2t.")), "{moved:?}");
    for var in drawn.unit.iter().chain(&drawn.fragments) {
        assert!(grads.get(var).is_none());
    }
}

#[test]
fn the_graph_passes_gradients_to_vectors_and_none_to_fragments() {
    for interaction in [Interaction::Fusion, Interaction::Standalone] {
        let mut weights = Weights::new(Seed(1), &Device::Cpu);
        let graph = graph(&mut weights, interaction, 0.5);
        let drawn = drawn(&[12, 4, 3, 6], &[1, 5, 12, 2], false);
        let links = graph.links(&drawn.nodes()).unwrap();
        let seen = graph.enhanced(&drawn.nodes(), &links, None).unwrap();
        let sum = |x: &Tensor| x.narrow(1, 0, 3).unwrap().sum_all().unwrap();
        let grads = (sum(&seen[0]) + sum(&seen[1])).unwrap().backward().unwrap();
        let moved = moved(&weights, &grads);
        let layers = moved.iter().filter(|name| name.ends_with("attention.weight")).count();
        assert_eq!(layers, graph.parts(), "{moved:?}");
        assert!(moved.contains(&"graph.t2i.1.weight".into()) && moved.contains(&"graph.i2t.1.weight".into()));
        for var in &drawn.unit {
            let grad = grads.get(var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(grad.iter().all(|g| g.is_finite()) && grad.iter().any(|&g| g != 0.0));
        }
        assert!(drawn.fragments.iter().all(|var| grads.get(var).is_none()));
    }
}

#[test]
fn two_pairs_see_themselves_and_one_of_the_other_kind() {
    let mut weights = Weights::new(Seed(1), &Device::Cpu);
    let graph = graph(&mut weights, Interaction::Fusion, 0.5);
    let pairs = drawn(&[3, 3], &[2, 3], false);
    let links = graph.links(&pairs.nodes()).unwrap();
    let connect = bits(&links);
    // Half of two is one: within a modality that is oneself.
    for (i, row) in connect.iter().enumerate() {
        let within = i / 2 * 2;
        assert_eq!(row[within..within + 2].iter().sum::<u8>(), 1);
        assert_eq!(row[i], 1);
        assert_eq!(row[2 - within..4 - within].iter().sum::<u8>(), 1);
    }
    let relation = links.relation.to_vec2::<f32>().unwrap();
    assert!((0..4).all(|i| relation[i][i] == 1.0));
    assert!(relation.iter().flatten().all(|r| r.is_finite()));
    // A word alone has the length of its own similarity: whatever the image, it finds it alike, and ties are connected.
    let pairs = drawn(&[3, 3], &[1, 1], false);
    let nodes = pairs.nodes();
    let found = super::matching::matching(&nodes.fragments[0], &nodes.fragments[1], nodes.real, 10).unwrap();
    assert!(found.t2i.mean.iter().all(|mean| (mean.abs() - 1.0).abs() < 1e-6));
    let relation = graph.links(&nodes).unwrap().relation.to_vec2::<f32>().unwrap();
    assert!(relation.iter().flatten().all(|r| r.is_finite()));
}

#[test]
fn equal_texts_are_all_connected_and_gradients_stay_finite() {
    for interaction in [Interaction::Fusion, Interaction::Standalone] {
        let mut weights = Weights::new(Seed(1), &Device::Cpu);
        let graph = graph(&mut weights, interaction, 0.25);
        let drawn = drawn(&[3; 5], &[2; 5], true);
        let links = graph.links(&drawn.nodes()).unwrap();
        let connect = bits(&links);
        // A quarter of five is one; all texts tie with oneself, and all are as near to an image.
        assert!(connect[5..].iter().all(|row| row[5..] == [1; 5]));
        assert!(connect[..5].iter().all(|row| row[5..] == [1; 5] && row[..5].iter().sum::<u8>() == 1));
        let relation = links.relation.to_vec2::<f32>().unwrap();
        assert!(relation[5..].iter().all(|row| row[5..] == [1.0; 5]));
        let seen = graph.enhanced(&drawn.nodes(), &links, None).unwrap();
        let texts = seen[1].to_vec2::<f32>().unwrap();
        let apart = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(texts.iter().all(|text| apart(text, &texts[0]) < 1e-6));
        let loss = (seen[0].sqr().unwrap().matmul(&seen[1].t().unwrap()).unwrap().sum_all().unwrap()
            + links.regulariser)
            .unwrap();
        let grads = loss.backward().unwrap();
        for var in drawn.unit.iter().chain(weights.iter().map(|(_, var)| var)) {
            let grad = grads.get(var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(grad.iter().all(|g| g.is_finite()));
        }
    }
}

/// A collection of which all texts, all images or both are one.
fn monotone(images: bool, texts: bool) -> Collection {
    let mut train = planted("train", 16);
    if images {
        let table = train.images.fragments.as_ref().unwrap();
        let mut rows = table.all().unwrap();
        let first = rows.row(0).to_vec();
        (0..16).for_each(|i| rows.row_mut(i).copy_from_slice(&first));
        train.images.fragments = Some(Arc::new(Subset::fragments_of(rows, table.fragments())));
    }
    if texts {
        train.texts.tokens.as_mut().unwrap().iter_mut().for_each(|text| *text = vec![3]);
    }
    train
}

#[test]
fn degenerate_data_train_to_finite_codes() {
    for (images, texts) in [(false, true), (true, false), (true, true)] {
        for interaction in ["fusion", "standalone"] {
            let train = monotone(images, texts);
            let mut more = toml::toml! {
                epochs = 2 batch = 4 graph_after = 0 sampling = "neighbours" neighbours_after = 1 clusters = 3 each = 2 collapse_steps = 0
            };
            more.insert("interaction".into(), interaction.into());
            // Equal images make one cluster, and leave two empty.
            let (matcher, losses) = fit_as(&HREM, &train, options(more), false).unwrap();
            assert!(losses.iter().all(|loss| loss.is_finite()), "{losses:?}");
            let Codes::Dense(codes) = matcher.encode_texts(&train.texts).unwrap() else { panic!("dense codes") };
            assert!(codes.data.iter().all(|value| value.is_finite()));
        }
    }
    // Two pairs in all, each a batch of two, and one alone, for which there is nothing to learn from.
    for items in [2, 1] {
        let mut train = planted("train", items);
        train.pairs = Pairs::new(items, 2 * items, (0..items as u32).map(|i| (i, 2 * i)).collect());
        let more = toml::toml! { epochs = 3 batch = 2 graph_after = 0 drop_regions = 0.0 };
        let (_, losses) = fit_as(&HREM, &train, options(more), false).unwrap();
        assert!(losses.iter().all(|loss| loss.is_finite()), "{losses:?}");
    }
}

#[test]
fn neighbours_come_together() {
    // Classes are the first two of seven signs; clusters of codes of a trained model have to say more of them than chance.
    let train = planted("train", 120);
    let params = Params { sampling: Sampling::Neighbours, clusters: 10, each: 4, ..Params::default() };
    let training = view(&train);
    let mut weights = Weights::new(Seed(3), &Device::Cpu);
    let options = Options { embedding: 32, word: 16, hidden: 32, heads: 4, ..Options::default() };
    let body = Encoders::new(NAME, &options, Shape { image_width: 12, vocabulary: 16 }, None, &mut weights).unwrap();
    assert_eq!(params.sampler(&None, &body, &training, 1).unwrap(), Sampler::Shuffled);
    let Sampler::Groups { of, each } = params.sampler(&None, &body, &training, 2).unwrap() else { panic!("groups") };
    assert_eq!((each, of.len()), (4, 240));
    // The two texts of an image are in its cluster.
    assert!(of.chunks_exact(2).all(|pair| pair[0] == pair[1]));
    let Codes::Dense(codes) = body.encode_images(&train.images).unwrap() else { panic!("dense codes") };
    let cosine = |i: usize, j: usize| codes.row(i).iter().zip(codes.row(j)).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    let (mut same, mut other) = ((0.0, 0.0), (0.0, 0.0));
    for i in 0..120 {
        for j in 0..i {
            let sums = if of[2 * i] == of[2 * j] { &mut same } else { &mut other };
            *sums = (sums.0 + cosine(i, j), sums.1 + 1.0);
        }
    }
    assert!(same.0 / same.1 > other.0 / other.1 + 0.02, "{same:?} {other:?}");
    let many = Params { clusters: 121, ..params };
    let error = many.sampler(&None, &body, &training, 2).unwrap_err().to_string();
    assert!(error.contains("`clusters`: expected at most the 120 training images, found 121"), "{error}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let error = |table: toml::Table| HREM.resolve(&table).unwrap_err().to_string();
    for (table, says) in [
        (toml::toml! { heads = 7 }, "`heads`: expected a number that divides `embedding`, which is 1024, found 7"),
        (toml::toml! { batch = 1 }, "`batch`"),
        (toml::toml! { connected = 0.0 }, "`connected`"),
        (toml::toml! { sampling = "neighbours" each = 200 }, "`each`: expected 1 to `batch`, which is 128"),
        (toml::toml! { triplet = "sum" cutoff = 1.9 }, "`cutoff`: expected the default"),
        (toml::toml! { pooling = "gpo" k = 3 }, "`k`: expected the default"),
        (toml::toml! { text_encoder = "vectors" }, "`text_encoder`"),
        (toml::toml! { interaction = "both" }, "`interaction`"),
        (toml::toml! { top = 0 }, "`top`: expected 1 to 1024"),
        (toml::toml! { drop_words = 1.0 }, "`drop_words`"),
    ] {
        let error = error(table);
        assert!(error.contains(says), "{error}");
    }
    // Who says when the rate falls says it all.
    let resolved = HREM.resolve(&toml::toml! { decay_every = 9 }).unwrap();
    assert_eq!(resolved["decay_at"].as_array().map(Vec::len), Some(0));
    assert_eq!(HREM.resolve(&toml::Table::new()).unwrap()["decay_at"].as_array().map(Vec::len), Some(2));
    let zeros = Tensor::zeros((2, 8), DType::F32, &Device::Cpu).unwrap();
    let mut weights = Weights::new(Seed(1), &Device::Cpu);
    let graph = graph(&mut weights, Interaction::Fusion, 0.5);
    let drawn = drawn(&[3, 3, 3], &[2, 2, 2], false);
    let nodes = Nodes { unit: [&zeros, &drawn.unit[1]], ..drawn.nodes() };
    let error = graph.links(&nodes).err().unwrap().to_string();
    assert!(error.contains("as many images as texts and at least one, found [2, 8] and [3, 8]"), "{error}");
}
