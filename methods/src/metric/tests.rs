//! Every method of the family on planted pairs.

use std::sync::Arc;

use candle_core::Device;
use xmbench_datasets::{Collection, Images, Matrix, Texts};

use super::{
    contrastive::CONTRASTIVE, info_nce::INFO_NCE, joint_embedding::JOINT_EMBEDDING, n_pair::N_PAIR,
    structure_preserving::STRUCTURE_PRESERVING, triplet_center::TRIPLET_CENTER, vse::VSE,
};
use crate::{
    Codes, Matcher, Method,
    trained::planted::{WIDTH, fit, fit_as, planted, recall, scores},
};

/// Every method with options that reach each of its branches.
fn variants() -> Vec<(&'static dyn Method, toml::Table)> {
    vec![
        (&VSE, toml::Table::new()),
        (&VSE, toml::toml! { max_violation = false normalise_images = false negatives = "paper" }),
        (&VSE, toml::toml! { text_encoder = "bigru" text_pooling = "mean" image = "fragments" intra_modal = 0.5 }),
        (&VSE, toml::toml! { text_encoder = "bigru" text_pooling = "gpo" image_pooling = "gpo" }),
        (&VSE, toml::toml! { measure = "order" absolute = true margin = 0.05 max_violation = false epochs = 40 }),
        (&VSE, toml::toml! { text_encoder = "bigru" layers = 2 epochs = 20 }),
        (&VSE, toml::toml! { text_pooling = "mean" normalise_features = true }),
        (&CONTRASTIVE, toml::toml! { epochs = 20 }),
        (&CONTRASTIVE, toml::toml! { form = "linear" positive_margin = 0.1 reduction = "nonzero" epochs = 20 }),
        (&N_PAIR, toml::Table::new()),
        (&N_PAIR, toml::toml! { form = "ovo" symmetric = false text_encoder = "bilstm" text_pooling = "max" }),
        (&INFO_NCE, toml::Table::new()),
        (
            &INFO_NCE,
            toml::toml! { learn_temperature = false temperature = 0.2 standardise = true text_encoder = "vectors" },
        ),
        (&STRUCTURE_PRESERVING, toml::toml! { hidden = 64 margin = 0.2 text_components = 0 epochs = 40 }),
        (
            &STRUCTURE_PRESERVING,
            toml::toml! { hidden = 0 dropout = 0.0 image_structure = 0.2 margin = 0.2 text_encoder = "gru" },
        ),
        (&JOINT_EMBEDDING, toml::Table::new()),
        (
            &JOINT_EMBEDDING,
            toml::toml! { mining = "hardest" text_encoder = "transformer" warmup = 6 epochs = 24 learning_rate = 0.003 },
        ),
        (&JOINT_EMBEDDING, toml::toml! { attention = true text_encoder = "bigru" class_weight = 0.1 epochs = 20 }),
        (&JOINT_EMBEDDING, toml::toml! { mining = "semi_hard" class_weight = 0.1 epochs = 20 }),
        (
            &JOINT_EMBEDDING,
            toml::toml! { mining = "distance_weighted" class_weight = 0.1 shared_classifier = false epochs = 20 },
        ),
    ]
}

#[test]
fn every_variant_learns_the_planted_signs() {
    let (train, test) = (planted("train", 160), planted("test", 40));
    for (method, options) in variants() {
        let label = format!("{} {options}", method.card().name);
        let matcher = fit(method, &train, options).unwrap_or_else(|error| panic!("{label}: {error}"));
        // Two images of 40 share their seven signs now and then; chance is 0.025.
        let recall = recall(&*matcher, &test);
        assert!(recall > 0.4, "{label}: recall at 1 {recall}");
    }
}

/// Fraction of images whose best text is of their class.
fn class_recall(matcher: &dyn Matcher, test: &Collection) -> f64 {
    let (images, texts) = (test.images.labels.as_ref().unwrap(), test.texts.labels.as_ref().unwrap());
    let hits = scores(matcher, test).into_iter().enumerate().filter(|(i, row)| {
        let best = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
        images.of[*i] == texts.of[best]
    });
    hits.count() as f64 / test.images.len() as f64
}

#[test]
fn classes_gather_around_their_centres() {
    let (train, test) = (planted("train", 160), planted("test", 40));
    for (method, options) in [
        (&TRIPLET_CENTER as &dyn Method, toml::toml! { text_pooling = "mean" }),
        (
            &TRIPLET_CENTER,
            toml::toml! { softmax_weight = 0 lambda = 1 normalise = true margin = 0.5 text_pooling = "mean" epochs = 20 },
        ),
        (&TRIPLET_CENTER, toml::toml! { form = "released" text_pooling = "mean" }),
        (&TRIPLET_CENTER, toml::toml! { lambda = 0 text_pooling = "mean" }),
        (&CONTRASTIVE, toml::toml! { positives = "classes" epochs = 20 }),
        (&INFO_NCE, toml::toml! { negatives = "classes" }),
    ] {
        let label = format!("{} {options}", method.card().name);
        let recall = class_recall(&*fit(method, &train, options).unwrap(), &test);
        // Four classes: chance is 0.25.
        assert!(recall > 0.8, "{label}: {recall}");
    }
}

#[test]
fn a_saved_matcher_and_a_second_fit_have_the_same_bits() {
    let (train, test) = (planted("train", 60), planted("test", 300));
    for (method, mut options) in variants() {
        options.insert("epochs".into(), 1.into());
        options.remove("warmup");
        let label = format!("{} {options}", method.card().name);
        let matcher = fit(method, &train, options.clone()).unwrap();
        let codes = |m: &dyn Matcher| (m.encode_images(&test.images).unwrap(), m.encode_texts(&test.texts).unwrap());
        let before = codes(&*matcher);
        assert!(codes(&*fit(method, &train, options).unwrap()) == before, "{label}");
        let folder = tempfile::tempdir().unwrap();
        matcher.save(folder.path()).unwrap();
        assert!(codes(&*method.load(folder.path(), &Device::Cpu).unwrap()) == before, "{label}");
    }
}

#[test]
fn a_collapsed_model_stops_and_says_what_to_change() {
    let train = planted("train", 60);
    // A rate of next to nothing and features of next to nothing: every score stays what it was.
    let mut flat = train.clone();
    flat.images.global = Some(Arc::new(Matrix { rows: 60, cols: WIDTH, data: vec![1.0; 60 * WIDTH] }));
    flat.texts.tokens = Some(vec![vec![0, 1]; 120]);
    let stuck = toml::toml! { learning_rate = 1e-9 collapse_steps = 20 epochs = 20 };
    let message = fit(&VSE, &flat, stuck.clone()).err().unwrap().to_string();
    // 2 x 32 x 0.2.
    assert!(message.contains("collapsed") && message.contains("12.8") && message.contains("`warmup`"), "{message}");
    assert!(fit(&JOINT_EMBEDDING, &flat, stuck.clone()).is_ok(), "the sum of hinges has no trap");
    assert!(fit_as(&VSE, &flat, stuck.clone(), true).is_ok(), "on shuffled pairs there is nothing to learn");
    let mut going_on = stuck;
    going_on.insert("collapse_steps".into(), 0.into());
    assert!(fit(&VSE, &flat, going_on).is_ok());
}

#[test]
fn a_temperature_at_its_cap_is_still_learnt() {
    let train = planted("train", 160);
    let sharpness = |options: toml::Table| {
        let folder = tempfile::tempdir().unwrap();
        fit(&INFO_NCE, &train, options).unwrap().save(folder.path()).unwrap();
        let weights = candle_core::safetensors::load(folder.path().join("weights.safetensors"), &Device::Cpu).unwrap();
        weights["log_scale"].to_vec1::<f32>().unwrap()[0]
    };
    // Pairs that are told apart ask for more than the cap allows, and it holds.
    let most = sharpness(toml::toml! { temperature = 0.011 epochs = 40 learning_rate = 0.02 });
    assert!(most <= 100f32.ln(), "{most}");
    // From the cap, scores that are mostly wrong ask for less; where the gradient is cut off they ask in vain.
    let less = sharpness(toml::toml! { temperature = 0.01 epochs = 1 learning_rate = 0.02 });
    assert!(less < 100f32.ln() - 0.01, "{less}");
}

#[test]
fn siblings_are_no_negatives_unless_asked_for() {
    let train = planted("train", 1);
    let last_loss = |negatives: &str| {
        let mut table = toml::toml! { embedding = 8 word = 4 epochs = 1 batch = 2 learning_rate = 1e-9 };
        table.insert("negatives".into(), negatives.into());
        fit_as(&VSE, &train, table, false).unwrap().1[0]
    };
    // Both pairs share the image: as negatives of each other they cost the margin in the direction of images, whatever the weights.
    assert!(last_loss("paper") >= 0.4 - 1e-6);
    assert_eq!(last_loss("others"), 0.0);
    assert_eq!(last_loss("classes"), 0.0);
    assert!(VSE.remark(&toml::toml! { negatives = "paper" }).is_some() && VSE.remark(&toml::Table::new()).is_none());
}

#[test]
fn company_does_not_change_a_code() {
    let (train, test) = (planted("train", 60), planted("test", 50));
    let matcher = fit(&VSE, &train, toml::toml! { epochs = 1 text_encoder = "bigru" text_pooling = "gpo" }).unwrap();
    let Codes::Dense(all) = matcher.encode_texts(&test.texts).unwrap() else { panic!("codes are dense") };
    for item in [0, 7, 99] {
        let tokens = vec![test.texts.tokens.as_ref().unwrap()[item].clone()];
        let alone = Texts { ids: vec!["one".into()], tokens: Some(tokens), ..Texts::default() };
        let Codes::Dense(alone) = matcher.encode_texts(&alone).unwrap() else { panic!("codes are dense") };
        for (a, b) in alone.row(0).iter().zip(all.row(item)) {
            assert!((a - b).abs() < 1e-6);
        }
    }
    let nothing = Texts { tokens: Some(Vec::new()), ..Texts::default() };
    assert!(matcher.encode_texts(&nothing).unwrap().is_empty());
}

#[test]
fn bad_input_is_named() {
    let train = planted("train", 40);
    let matcher = fit(&VSE, &train, toml::toml! { epochs = 1 }).unwrap();
    let texts = |tokens: Vec<u32>| Texts { ids: vec!["t7".into()], tokens: Some(vec![tokens]), ..Texts::default() };
    let message = matcher.encode_texts(&texts(vec![0, 99])).unwrap_err().to_string();
    assert!(message.contains("token 99") && message.contains("16 words"), "{message}");
    let message = matcher.encode_texts(&texts(vec![])).unwrap_err().to_string();
    assert!(message.contains("t7") && message.contains("no tokens"), "{message}");
    let images = |data: Vec<f32>| Images {
        ids: vec!["i".into()],
        global: Some(Arc::new(Matrix { rows: 1, cols: data.len(), data })),
        ..Images::default()
    };
    let message = matcher.encode_images(&images(vec![0.0; 5])).unwrap_err().to_string();
    assert!(message.contains("length 12") && message.contains("length 5"), "{message}");
    let message = matcher.encode_images(&images(vec![f32::NAN; WIDTH])).unwrap_err().to_string();
    assert!(message.contains("image 0, column 0"), "{message}");
    let mut bare = planted("train", 40);
    bare.texts.tokens = None;
    let message = fit(&VSE, &bare, toml::Table::new()).err().unwrap().to_string();
    assert!(message.contains("texts.tokens") && message.contains("planted"), "{message}");
    for (table, key) in [
        (toml::toml! { margin = -1 }, "margin"),
        (toml::toml! { embedding = 0 }, "embedding"),
        (toml::toml! { batch = 0 }, "batch"),
        (toml::toml! { measure = "euclid" }, "measure"),
        (toml::toml! { dropout = 0.5 }, "dropout"),
        (toml::toml! { measure = "order" intra_modal = 0.5 }, "intra_modal"),
    ] {
        let message = VSE.resolve(&table).unwrap_err().to_string();
        assert!(message.contains(&format!("`{key}`")), "{message}");
    }
}

#[test]
fn labels_are_asked_for_where_they_are_needed() {
    let mut bare = planted("train", 40);
    bare.texts.labels = None;
    let message = fit(&TRIPLET_CENTER, &bare, toml::toml! { epochs = 1 }).err().unwrap().to_string();
    assert!(message.contains("texts.labels") && message.contains("triplet_center"), "{message}");
    let mut odd = planted("train", 40);
    odd.images.labels.as_mut().unwrap().of[3] = vec![];
    let message =
        fit(&JOINT_EMBEDDING, &odd, toml::toml! { class_weight = 1 epochs = 1 batch = 20 }).err().unwrap().to_string();
    assert!(message.contains("one class an item") && message.contains("image 3"), "{message}");
    odd.images.labels.as_mut().unwrap().of[3] = vec![0, 1];
    assert!(fit(&JOINT_EMBEDDING, &odd, toml::toml! { class_weight = 1 epochs = 1 batch = 20 }).is_ok());
}
